/** Consent strings of the IAB over several events, through the mapping and the fold: what closes is lifted by no string of the other kind. */
import type { JsonObject } from '@weir/adapter';
import { checkUse, consentKey, foldConsent, type ConsentChange, type ConsentState } from '@weir/policy';
import { expect, test } from 'vitest';
import { mappingOf, now } from './world.ts';

const [tcYes, tcNo] = ['CQdWToAQdWToAAfABBENBkEgAPMAAAAAAAYgAAAAAAAA', 'CQdWToAQdWToAAfABBENBkEgAIEAAAAAAAYgAAAAAAAA'];
const [optedOut, notOptedOut] = ['DBABLA~CAAQAAAAAABA.QA', 'DBABLA~CAAgAAAAAABA.QA'];

/** One person at one sender: each event has the strings that are given, a minute after the one before. */
function person() {
  const states = new Map<string, ConsentState>();
  let step = 0;
  return {
    tells(strings: { readonly tcString?: string; readonly gppString?: string }): void {
      const acceptedAt = now + ++step * 60_000;
      const result = mappingOf('standard-webhooks').apply({ type: 'consent.updated', timestamp: new Date(acceptedAt).toISOString(), data: { user_id: 'u-1', ...strings } }, { id: `msg_${step}` } as JsonObject, { eventId: `evt_${step}`, source: 'partner', acceptedAt });
      if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
      for (const [i, { outputId, record }] of result.outputs.filter((o) => o.recordType.endsWith('.ConsentChange')).entries()) {
        const change = { ...(record as unknown as ConsentChange), changeId: outputId, channel: '', topic: (record['topic'] as string | null) ?? '', acceptedAt };
        const key = consentKey('userId:u-1', change.purpose, change.channel, change.topic);
        const next = foldConsent(states.get(key), 'userId:u-1', change, step * 10 + i);
        if (next !== undefined) states.set(key, next);
      }
    },
    /** Of advertising, as a whole and for one topic. */
    open: (legalBasis: string): boolean[] => [null, 'tents'].map((topic) => checkUse(['userId:u-1'], 'advertising', null, topic, legalBasis, () => [...states.values()], now + step * 60_000).ok),
  };
}

test.each([
  ['in the event after it', [{ gppString: optedOut }, { tcString: tcYes }]],
  ['before it', [{ tcString: tcYes }, { gppString: optedOut }]],
  ['beside it', [{ tcString: tcYes, gppString: optedOut }]],
  ['beside it, and again after it', [{ tcString: tcYes, gppString: optedOut }, { tcString: tcNo }, { tcString: tcYes }]],
  ['of a string of the same kind later', [{ gppString: optedOut }, { gppString: notOptedOut }, { tcString: tcYes, gppString: notOptedOut }]],
])('an opt-out in the US stands against a yes %s', (_name, events) => {
  const ann = person();
  for (const event of events) ann.tells(event);
  expect([ann.open('consent'), ann.open('legitimate-interest')]).toEqual([[false, false], [false, false]]);
});

test.each([
  ['beside it', [{ tcString: tcNo, gppString: notOptedOut }]],
  ['in the event after it', [{ tcString: tcNo }, { gppString: notOptedOut }]],
])('that nobody opted out takes back no no of a TC string %s', (_name, events) => {
  const ann = person();
  for (const event of events) ann.tells(event);
  expect(ann.open('legitimate-interest')).toEqual([false, false]);
});

test.each([
  ['beside it', [{ tcString: tcYes, gppString: notOptedOut }]],
  ['in the event after it', [{ tcString: tcYes }, { gppString: notOptedOut }]],
])('nor a yes %s; a TC string lifts the no of the one before', (_name, events) => {
  const ann = person();
  ann.tells({ tcString: tcNo });
  expect(ann.open('consent')).toEqual([false, false]);
  for (const event of events) ann.tells(event);
  expect(ann.open('consent')).toEqual([true, true]);
});
