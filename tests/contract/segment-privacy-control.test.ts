/** Global Privacy Control comes with every request: what a thousand page calls of one person cost. */
import type { JsonObject } from '@weir/adapter';
import { consentKey, foldConsent, type ConsentChange, type ConsentState, type Decision } from '@weir/policy';
import { propagate } from '../../packages/release/propagation.ts';
import { expect, test } from 'vitest';
import { mappingOf } from './world.ts';

test('a thousand page calls of one person: a change each, one state a batch of the fold, and each destination is told once', () => {
  const states = new Map<string, ConsentState>();
  let [changes, written, told] = [0, 0, 0];
  const routes: Decision[] = [{ effect: 'allow', route: { destination: 'ads', operation: 'suppress', kind: 'restrict' }, rule: 'restrict', consent: [] } as unknown as Decision];
  for (let batch = 0; batch < 10; batch++) {
    const before = new Map(states);
    for (let i = 0; i < 100; i++) {
      const n = batch * 100 + i;
      const result = mappingOf('segment').apply({ type: 'page', messageId: `m-${n}`, anonymousId: 'a-1', name: 'Home' }, { gpc: true } as JsonObject, { eventId: `evt_${n}`, source: 'segment', acceptedAt: 1_700_000_000_000 + n });
      if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
      for (const { outputId, record } of result.outputs.filter((o) => o.name === 'privacy-control')) {
        changes++;
        const key = consentKey('anonymousId:a-1', 'advertising', '', '');
        const next = foldConsent(states.get(key), 'anonymousId:a-1', { ...(record as unknown as ConsentChange), changeId: outputId, channel: '', topic: '', acceptedAt: 1_700_000_000_000 + n }, n);
        if (next !== undefined) states.set(key, next);
        const seen = { outputId, source: 'segment', ids: ['anonymousId:a-1'], purpose: 'advertising', channel: null, topic: null, state: 'denied', repeats: record['reason'] === 'gpc' };
        told += propagate(routes, seen, { stored: (of) => (states.has(of) ? { state: states.get(of)! } : undefined) }, { sources: new Map(), destinations: new Map() } as never).filter((d) => d.effect === 'allow').length;
      }
    }
    for (const [key, state] of states) if (before.get(key) !== state) written++;
  }
  expect({ changes, written, told }).toEqual({ changes: 1000, written: 10, told: 1 });
});
