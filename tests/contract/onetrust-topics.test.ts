/** Events of OneTrust through its mapping and the fold: who may be used for which topic then. */
import type { JsonObject } from '@weir/adapter';
import { checkUse, consentKey, foldConsent, type ConsentChange, type ConsentState } from '@weir/policy';
import { expect, test } from 'vitest';
import { mappingOf } from './world.ts';

const start = Date.UTC(2026, 0, 12);

/** One person, told of by OneTrust and by the API in turn, a minute apart. */
function person() {
  const states = new Map<string, ConsentState>();
  let step = 0;
  function fold(change: ConsentChange): void {
    const key = consentKey('email:ann', change.purpose, change.channel, change.topic);
    const next = foldConsent(states.get(key), 'email:ann', change, ++step);
    if (next !== undefined) states.set(key, next);
  }
  const now = (): number => start + step * 60_000;
  return {
    /** @param topics name → switched on; undefined = the purpose has none. @param lastTransaction ms, or the text as it stands; null = it is left out */
    oneTrust(status: string, topics?: Record<string, boolean | string>, lastTransaction: number | string | null = now()): void {
      const list = topics === undefined ? [] : Object.entries(topics).map(([name, value]) => ({ topicGuid: `guid-${name}`, integrationKey: name, value }));
      const item = { eventId: `e${step}`, eventTime: new Date(now()).toISOString(), payload: { dataSubjectEmail: 'ann@larkspur.example', profiles: [{ purposeId: 'news', topics: list, profileFields: { TransactionStatus: status, ...(lastTransaction === null ? {} : { LastTransaction: typeof lastTransaction === 'number' ? String(lastTransaction / 1000) : lastTransaction }) } }] } };
      const result = mappingOf('onetrust').apply(item, {} as JsonObject, { eventId: `evt_${step}`, source: 'onetrust', acceptedAt: now() });
      if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
      const acceptedAt = now();
      for (const { outputId, record } of result.outputs) fold({ ...(record as unknown as ConsentChange), changeId: outputId, channel: '', topic: (record['topic'] as string | null) ?? '', acceptedAt });
      step++;
    },
    api(state: 'granted' | 'withdrawn', topic = ''): void {
      fold({ changeId: `api-${step}`, purpose: 'news', channel: '', topic, state, source: 'consent-api', acceptedAt: now(), legalBasis: null, proof: null, expiresAt: null });
      step++;
    },
    state: (): string[] => [...states.values()].map((s) => s.state),
    open: (...topics: (string | null)[]): boolean[] => topics.map((topic) => checkUse(['email:ann'], 'news', 'email', topic, 'consent', () => [...states.values()], now()).ok),
  };
}

test('a yes to one topic opens that topic alone, and a topic that is switched off closes', () => {
  const ann = person();
  ann.oneTrust('ACTIVE', { fishing: true });
  expect(ann.open('fishing', 'hiking', null)).toEqual([true, false, false]);
  ann.oneTrust('ACTIVE', { fishing: false, hiking: true });
  expect(ann.open('fishing', 'hiking', null)).toEqual([false, true, false]);
  ann.oneTrust('ACTIVE', { fishing: true, hiking: true });
  expect(ann.open('fishing', 'hiking', 'golf', null)).toEqual([true, true, false, false]);
});

test('a purpose without topics is opened and closed as a whole', () => {
  const ann = person();
  ann.oneTrust('ACTIVE');
  expect(ann.open('fishing', null)).toEqual([true, true]);
  ann.oneTrust('OPT_OUT');
  expect(ann.open('fishing', null)).toEqual([false, false]);
  ann.oneTrust('ACTIVE');
  expect(ann.open('fishing', null)).toEqual([true, true]);
});

test('whoever withdrew from the purpose in OneTrust and chooses topics there again has these, and no other', () => {
  const ann = person();
  ann.oneTrust('ACTIVE');
  ann.oneTrust('WITHDRAWN', { fishing: true });
  expect(ann.open('fishing', null)).toEqual([false, false]);
  ann.oneTrust('ACTIVE', { fishing: true, hiking: false });
  expect(ann.open('fishing', 'hiking', 'golf', null)).toEqual([true, false, false, false]);
});

test('a no that another tool told is lifted by no topic, whatever OneTrust repeats', () => {
  const ann = person();
  ann.api('withdrawn');
  ann.oneTrust('ACTIVE', { fishing: true });
  expect(ann.open('fishing', null)).toEqual([false, false]);
  const bob = person();
  bob.oneTrust('ACTIVE', { fishing: true });
  bob.api('withdrawn', 'fishing');
  bob.oneTrust('ACTIVE', { fishing: true, hiking: true });
  expect(bob.open('fishing', 'hiking')).toEqual([false, true]);
});

test('a yes to the whole that an event repeats is as old as the last transaction of its purpose', () => {
  const ann = person();
  ann.oneTrust('ACTIVE');
  ann.api('withdrawn');
  ann.oneTrust('ACTIVE', undefined, start);
  expect(ann.open(null)).toEqual([false]);
  ann.oneTrust('ACTIVE');
  expect(ann.open(null)).toEqual([true]);
});

test.each([['is absent', null], ['is empty', '']])('a yes to the whole whose last transaction %s is no act: it opens what OneTrust closed, and nothing else', (_name, lastTransaction) => {
  const ann = person();
  ann.oneTrust('ACTIVE');
  ann.api('withdrawn');
  ann.oneTrust('ACTIVE', undefined, lastTransaction);
  expect(ann.open(null)).toEqual([false]);
  const bob = person();
  bob.oneTrust('WITHDRAWN', undefined, lastTransaction);
  bob.oneTrust('ACTIVE', undefined, lastTransaction);
  expect(bob.open(null)).toEqual([true]);
});

test('a last transaction that is no time fails the event: taken for now, it would open what was closed elsewhere', () => {
  const ann = person();
  expect(() => ann.oneTrust('ACTIVE', undefined, '12/01/2026')).toThrow('purpose.occurredAt');
  expect(() => ann.oneTrust('ACTIVE', { fishing: true }, 'yesterday')).toThrow('topic.occurredAt');
});

test('without a date, that nobody chose (unknown) takes no no back', () => {
  const ann = person();
  ann.oneTrust('WITHDRAWN', undefined, null);
  ann.oneTrust('PENDING', undefined, null);
  expect(ann.open(null)).toEqual([false]);
  expect(ann.state()).toEqual(['withdrawn']);
});

test.each([true, 'true'])('a topic that is on (%j) under a status that does not grant opens nothing', (on) => {
  const ann = person();
  ann.oneTrust('PENDING', { fishing: on });
  expect(ann.open('fishing')).toEqual([false]);
  ann.oneTrust('ACTIVE', { fishing: on });
  expect(ann.open('fishing')).toEqual([true]);
});
