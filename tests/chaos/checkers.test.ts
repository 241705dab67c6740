import { expect, test } from 'vitest';
import { consentHeld, effectsOnce, lastNoHolds, nothingLost, ordered, releasesNamed, sameBytes, zombiesHarmless } from './checkers.ts';
import type { History } from './history.ts';

const raw = (n: number): History['raw'][number] => ({ event: `e${n}`, hash: `h${n}`, objectKey: 'u1', source: 'segment', partition: 0, offset: n });
const canonical = (n: number): History['canonical'][number] => ({ event: `e${n}`, output: `o${n}`, source: 'segment', subject: 's1', partition: 0, offset: n, type: 'Profile', release: 'r1', value: Buffer.from(`v${n}`) });
const dispatch = (n: number): History['dispatch'][number] => ({ event: `e${n}`, output: `o${n}`, destination: 'newsletter', operation: 'subscribe', kind: 'use', subject: 's1', release: 'r1', partition: 0, offset: n });
const end = (n: number): History['ends'][number] => ({ key: `k${n}`, event: `e${n}`, output: `o${n}`, destination: 'newsletter', operation: 'subscribe', state: 'delivered', effect: 'done', at: 1000 + n, reason: null, owner: 'a/1/x', owned: true });
const arrival = (n: number): History['arrivals'][number] => ({ destination: 'newsletter', operation: 'subscribers', idempotencyKey: `k${n}`, subject: 's1', body: { email: 'p@larkspur.example' }, at: 900 + n, applied: true, n });
const good: History = {
  raw: [raw(1), raw(2)], canonical: [canonical(1), canonical(2)], dispatch: [dispatch(1), dispatch(2)], ends: [end(1), end(2)], parked: [], outcomes: [1, 2].map((n) => ({ event: `e${n}`, output: `o${n}`, destination: 'newsletter', operation: 'subscribe', state: 'delivered', reason: null })), letters: [],
  consent: [{ id: 'p@larkspur.example', purpose: 'email-marketing', state: 'granted', version: 1, at: 1 }], releases: new Set(['r1']), effects: [arrival(1), arrival(2)], arrivals: [arrival(1), arrival(2)],
};
const sent = { answered: new Map([['u1', ['e1', 'e2']]]), poison: [], members: 0, consent: new Map([['p@larkspur.example', { said: true, later: ['e2'] }]]) };
const no = (later: string[]) => ({ consent: new Map([['p@larkspur.example', { said: false, later }]]) });
const closed: History = { ...good, consent: [...good.consent, { ...good.consent[0]!, state: 'withdrawn', version: 2, at: 2 }] };
const letter = (n: number): History['letters'][number] => ({ event: `e${n}`, stage: 'normalizer', code: 'x', value: Buffer.from('v'), hash: `h${n}`, topic: 'raw.segment', partition: 0, offset: n });
const idsOf = (email: string): string[] => [email, 'u-1'];

test('a good history is let pass by every checker', () => {
  expect([...nothingLost(good, sent), ...effectsOnce(good), ...consentHeld(good, 100, idsOf), ...lastNoHolds(good, sent, idsOf), ...lastNoHolds(closed, no([]), idsOf), ...ordered(good, sent), ...sameBytes(good), ...zombiesHarmless(good, 250), ...releasesNamed(good)]).toEqual([]);
  expect(nothingLost({ ...good, letters: [letter(2)] }, { ...sent, poison: ['e2'] })).toEqual([]);
});

test('what restricts may come before a use that waited, when its end says of which; nothing else may', () => {
  const dispatched = [dispatch(1), { ...dispatch(2), kind: 'restrict' }];
  const ahead = { ...end(2), reason: 'ahead of 1 that wait, 4 to 4 on the parked topic' };
  const turned = { ...good, dispatch: dispatched, effects: [arrival(2), arrival(1)], parked: [{ ...dispatch(1), offset: 4 }] };
  expect(ordered({ ...turned, ends: [end(1), ahead] }, sent)).toEqual([]);
  expect(ordered({ ...turned, ends: [end(1), end(2)] }, sent)).not.toEqual([]);
  expect(ordered({ ...turned, ends: [end(1), ahead], parked: [{ ...dispatch(1), offset: 5 }] }, sent)).not.toEqual([]);
  expect(ordered({ ...turned, ends: [end(1), ahead], parked: [] }, sent)).not.toEqual([]);
  expect(ordered({ ...turned, dispatch: [{ ...dispatch(1), kind: 'restrict' }, { ...dispatch(2), kind: 'restrict' }], ends: [end(1), ahead] }, sent)).not.toEqual([]);
});

test.each<[string, Partial<History>, (h: History) => string[]]>([
  ['an answered event that is on no topic', { raw: [raw(1)] }, (h) => nothingLost(h, sent)],
  ['an event that nothing came of', { dispatch: [dispatch(1)], outcomes: [] }, (h) => nothingLost(h, sent)],
  ['a record that was never decided', { canonical: [canonical(1), canonical(2), canonical(3)] }, (h) => nothingLost(h, sent)],
  ['a delivery without an end', { ends: [end(1)] }, (h) => nothingLost(h, sent)],
  ['a dead letter that is told and is not there', { outcomes: [...good.outcomes, { event: 'e2', output: null, destination: null, operation: null, state: 'dead-lettered', reason: 'x' }] }, (h) => nothingLost(h, sent)],
  ['an end without its outcome', { outcomes: good.outcomes.slice(1) }, (h) => nothingLost(h, sent)],
  ['what no mapping takes and is no dead letter', {}, (h) => nothingLost(h, { ...sent, poison: ['e2'] })],
  ['a dead letter with other bytes', { letters: [{ ...letter(2), hash: 'other' }] }, (h) => nothingLost(h, { ...sent, poison: ['e2'] })],
  ['two effects under one key', { effects: [...good.effects, arrival(1)] }, effectsOnce],
  ['two keys for one delivery', { ends: [...good.ends, { ...end(1), key: 'k9' }], effects: [...good.effects, { ...arrival(1), idempotencyKey: 'k9' }] }, effectsOnce],
  ['an effect that nobody wanted', { effects: [...good.effects, { ...arrival(1), idempotencyKey: 'k9' }] }, effectsOnce],
  ['a delivery that is told and had no effect', { effects: [arrival(1)] }, effectsOnce],
  ['a delivery told as without effect that had one', { ends: [end(1), { ...end(2), state: 'dead-lettered', effect: 'none' }] }, effectsOnce],
  ['a call after a withdrawal', { consent: [...good.consent, { ...good.consent[0]!, state: 'withdrawn', version: 2, at: 700 }] }, (h) => consentHeld(h, 100, idsOf)],
  ['a call after a withdrawal by the other identifier', { consent: [...good.consent, { ...good.consent[0]!, id: 'u-1', state: 'withdrawn', at: 700 }] }, (h) => consentHeld(h, 100, idsOf)],
  ['a call without any consent', { consent: [] }, (h) => consentHeld(h, 100, idsOf)],
  ['a last no that the fold opened again', {}, (h) => lastNoHolds(h, no([]), idsOf)],
  ['a last no that no state knows', { consent: [] }, (h) => lastNoHolds(h, no([]), idsOf)],
  ['a use of what was accepted after the last no', closed, (h) => lastNoHolds(h, no(['e2']), idsOf)],
  ['raw records that do not follow the sender', { raw: [{ ...raw(1), offset: 3 }, raw(2)] }, (h) => ordered(h, sent)],
  ['canonical records that do not follow raw', { canonical: [canonical(2), canonical(1)] }, (h) => ordered(h, sent)],
  ['effects that do not follow dispatch', { effects: [arrival(2), arrival(1)] }, (h) => ordered(h, sent)],
  ['an output in two forms', { canonical: [...good.canonical, { ...canonical(1), value: Buffer.from('other') }] }, sameBytes],
  ['an event id with two bodies', { raw: [...good.raw, { ...raw(1), hash: 'other' }] }, sameBytes],
  ['a call after the end of its delivery', { arrivals: [...good.arrivals, { ...arrival(1), at: 2000 }] }, (h) => zombiesHarmless(h, 250)],
  ['a release that was never applied', { releases: new Set() }, releasesNamed],
])('%s is seen', (_what, bad, checker) => {
  expect(checker({ ...good, ...bad })).not.toEqual([]);
});

test('a grant by the other identifier lets a call pass while the first says nothing yet', () => {
  expect(consentHeld({ ...good, consent: [{ ...good.consent[0]!, id: 'u-1' }] }, 100, idsOf)).toEqual([]);
});

test('an end behind the mark of a later owner binds nobody, one of the owner binds all', () => {
  const again = (owned: boolean): History => ({ ...good, ends: [{ ...end(1), at: 1500, owner: 'b/1/y' }, { ...end(1), owned }, end(2)], arrivals: [...good.arrivals, { ...arrival(1), at: 1400, applied: false }] });
  expect(zombiesHarmless(again(false), 250)).toEqual([]);
  expect(zombiesHarmless(again(true), 250)).toHaveLength(1);
});
