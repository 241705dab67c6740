import { foldConsent, type ConsentState, type Decision } from '@weir/policy';
import type { Release } from '@weir/release';
import { expect, test } from 'vitest';
import { propagate, type ChangeSeen } from './propagation.ts';

/** Tools a and b are sources and destinations both; c is a destination only, site a source only. */
const tool = (name: string) => ({ adapter: { manifest: { name } } });
const release = { sources: new Map([['a', tool('a')], ['b', tool('b')], ['site', tool('site')]]), destinations: new Map([['a', tool('a')], ['b', tool('b')], ['c', tool('c')]]) } as unknown as Release;
const allowed = ['a', 'b', 'c'].map((destination): Decision => ({ effect: 'allow', route: { destination, operation: 'unsubscribe', kind: 'restrict' } as never, rule: 'restrict', consent: [], notBefore: null } as unknown as Decision));

/** Folds and decides one change after the other, as the service does. */
function world() {
  const states = new Map<string, ConsentState>();
  let n = 0;
  return (source: string, state: ConsentState['state'], ids: readonly string[], again?: string): { id: string; told: string[]; reasons: string[] } => {
    const outputId = again ?? `out_${++n}`;
    for (const id of ids) {
      const next = foldConsent(states.get(`${id}|news||`), id, { changeId: outputId, purpose: 'news', channel: '', topic: '', state, source, acceptedAt: 1000 + n, legalBasis: null, proof: null, expiresAt: null }, states.get(`${id}|news||`) === undefined ? n : n + 100);
      if (next !== undefined) states.set(`${id}|news||`, next);
    }
    const change: ChangeSeen = { outputId, source, ids, purpose: 'news', channel: null, topic: null, state };
    const decisions = propagate(allowed, change, { stored: (key) => (states.has(key) ? ({ partition: 0, state: states.get(key)!, bytes: Buffer.alloc(0) }) : undefined) }, release);
    return { id: outputId, told: decisions.flatMap((d) => (d.effect === 'allow' ? [d.route.destination] : [])), reasons: decisions.flatMap((d) => (d.effect === 'deny' ? [d.reason] : [])) };
  };
}

test('a change goes to every destination but the tool that told it', () => {
  const told = world();
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['a', 'b', 'c']);
  expect(world()('a', 'withdrawn', ['email:x'])).toMatchObject({ told: ['b', 'c'], reasons: ['consent-origin'] });
});

test('a loop between two tools ends at the first answer', () => {
  const told = world();
  expect(told('a', 'withdrawn', ['email:x']).told).toEqual(['b', 'c']);
  // b was told, and its webhook says so.
  expect(told('b', 'withdrawn', ['email:x'])).toMatchObject({ told: [], reasons: ['consent-echo', 'consent-origin', 'consent-echo'] });
  expect(told('a', 'denied', ['email:x']).told).toEqual([]);
});

test('the same change decided again goes the same way; a new withdrawal after a grant is no echo', () => {
  const told = world();
  const first = told('site', 'withdrawn', ['email:x']);
  told('b', 'withdrawn', ['email:x']);
  expect(told('site', 'withdrawn', ['email:x'], first.id).told).toEqual(['a', 'b', 'c']);
  expect(told('site', 'granted', ['email:x']).told).toEqual(['a', 'b', 'c']);
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['a', 'b', 'c']);
});

test('a person who says it again is heard again: only a tool that is told can echo', () => {
  const told = world();
  told('site', 'withdrawn', ['email:x']);
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['a', 'b', 'c']);
});

test('what brings an identifier that had not said it is no echo', () => {
  const told = world();
  told('a', 'withdrawn', ['userId:1']);
  expect(told('b', 'withdrawn', ['userId:1', 'email:x']).told).toEqual(['a', 'c']);
});
