import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTree, encodeLeaf, newSigningKey, signCheckpoint, signingKey, verifierOf } from '@weir/audit';
import { expect, test } from 'vitest';
import { audited, bounded, consentHeld, decidedForEach, effectsOnce, endedOnce, lastNoHolds, limitsHeld, nothingLost, ordered, releasesNamed, sameBytes, zombiesHarmless } from './checkers.ts';
import { decidedOf, keyOf, type History } from './history.ts';
import { createRoutes } from './routes.ts';

const raw = (n: number): History['raw'][number] => ({ event: `e${n}`, hash: `h${n}`, objectKey: 'u1', source: 'segment', partition: 0, offset: n });
const canonical = (n: number): History['canonical'][number] => ({ event: `e${n}`, output: `o${n}`, source: 'segment', subject: 's1', partition: 0, offset: n, type: 'Profile', release: 'r1', value: Buffer.from(`v${n}`), wanted: { must: ['newsletter|subscribe'], may: ['newsletter|subscribe'] }, userId: 'u1' });
const dispatch = (n: number): History['dispatch'][number] => ({ event: `e${n}`, output: `o${n}`, destination: 'newsletter', operation: 'subscribe', kind: 'use', subject: 's1', release: 'r1', partition: 0, offset: n, order: '', at: 900 + n, decided: undefined });
const end = (n: number): History['ends'][number] => ({ key: `k${n}`, event: `e${n}`, output: `o${n}`, destination: 'newsletter', operation: 'subscribe', state: 'delivered', effect: 'done', at: 1000 + n, reason: null, owner: 'a/1/x', owned: true, offset: n, maybeSince: 0, subject: 's1' });
const arrival = (n: number): History['arrivals'][number] => ({ destination: 'newsletter', operation: 'subscribers', idempotencyKey: `k${n}`, subject: 's1', body: { email: 'p@larkspur.example' }, at: 900 + n, applied: true, n });
const good: History = {
  raw: [raw(1), raw(2)], canonical: [canonical(1), canonical(2)], dispatch: [dispatch(1), dispatch(2)], ends: [end(1), end(2)], parked: [], outcomes: [1, 2].map((n) => ({ event: `e${n}`, output: `o${n}`, destination: 'newsletter', operation: 'subscribe', state: 'delivered', reason: null, stage: 'dispatcher' })), letters: [],
  consent: [{ id: 'p@larkspur.example', purpose: 'email-marketing', state: 'granted', version: 1, at: 1 }], releases: new Set(['r1']), changes: [], switches: new Map(), tokens: new Map(), orders: new Set(), erasures: new Map(), leaves: [], unreadable: 0, effects: [arrival(1), arrival(2)], arrivals: [arrival(1), arrival(2)],
};
const sent = { answered: new Map([['u1', ['e1', 'e2']]]), poison: [], members: 0, consent: new Map([['p@larkspur.example', { said: true, later: ['e2'] }]]) };
const no = (later: string[]) => ({ consent: new Map([['p@larkspur.example', { said: false, later }]]) });
const closed: History = { ...good, consent: [...good.consent, { ...good.consent[0]!, state: 'withdrawn', version: 2, at: 2 }] };
const letter = (n: number): History['letters'][number] => ({ event: `e${n}`, stage: 'normalizer', code: 'x', value: Buffer.from('v'), hash: `h${n}`, topic: 'raw.segment', partition: 0, offset: n });
const idsOf = (email: string): string[] => [email, 'u-1'];

/** Held in doubt, put back, and overtaken when the vendor had said that it was not applied. */
const held: History['ends'][number] = { ...end(2), state: 'quarantined', effect: 'maybe', maybeSince: 900 };
const overtaken: History['ends'][number] = { ...end(2), state: 'superseded', effect: 'none', offset: 8 };
const redriven: Partial<History> = { dispatch: [...good.dispatch, { ...dispatch(2), offset: 8, order: 'rpl_1' }], ends: [end(1), held, overtaken], outcomes: [good.outcomes[0]!, { ...good.outcomes[1]!, state: 'quarantined' }, { ...good.outcomes[1]!, state: 'superseded' }] };

const both = { must: ['newsletter|subscribe', 'warehouse|insert'], may: ['newsletter|subscribe', 'warehouse|insert'] };

test('a good history is let pass by every checker', () => {
  expect([...nothingLost(good, sent), ...decidedForEach(good), ...endedOnce(good), ...effectsOnce(good), ...consentHeld(good, 100, idsOf), ...lastNoHolds(good, sent, idsOf), ...lastNoHolds(closed, no([]), idsOf), ...ordered(good, sent), ...sameBytes(good), ...zombiesHarmless(good, 250), ...releasesNamed(good)]).toEqual([]);
  expect(nothingLost({ ...good, letters: [letter(2)] }, { ...sent, poison: ['e2'] })).toEqual([]);
});

test('a delivery in doubt that an order put back ends as it is known then', () => {
  expect([...endedOnce({ ...good, ...redriven }), ...effectsOnce({ ...good, ...redriven, effects: [arrival(1)] })]).toEqual([]);
  expect(effectsOnce({ ...good, ...redriven, ends: [end(1), held] })).toEqual([]);
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
  ['a dead letter that is told and is not there', { outcomes: [...good.outcomes, { event: 'e2', output: null, destination: null, operation: null, state: 'dead-lettered', reason: 'x', stage: 'normalizer' }] }, (h) => nothingLost(h, sent)],
  ['an end without its outcome', { outcomes: good.outcomes.slice(1) }, (h) => nothingLost(h, sent)],
  ['what no mapping takes and is no dead letter', {}, (h) => nothingLost(h, { ...sent, poison: ['e2'] })],
  ['a dead letter with other bytes', { letters: [{ ...letter(2), hash: 'other' }] }, (h) => nothingLost(h, { ...sent, poison: ['e2'] })],
  ['a destination that was not decided for, while another one was', { canonical: [canonical(1), { ...canonical(2), wanted: both }] }, decidedForEach],
  ['an operation of the same destination that was not decided for', { canonical: [canonical(1), { ...canonical(2), wanted: { must: ['newsletter|subscribe', 'newsletter|update'], may: ['newsletter|update', 'newsletter|subscribe'] } }] }, decidedForEach],
  ['a record without a route that stands in for a lost one', { dispatch: [dispatch(1)], ends: [end(1)], outcomes: [good.outcomes[0]!, { ...good.outcomes[1]!, destination: null, operation: null, state: 'denied', reason: 'no-route', stage: 'policy' }] }, decidedForEach],
  ['a delivery that no route asks for', { canonical: [canonical(1), { ...canonical(2), wanted: { must: [], may: ['warehouse|insert'] } }] }, decidedForEach],
  ['an owner that ends what had ended otherwise', { ends: [end(1), end(2), { ...end(2), state: 'denied', effect: 'none' }] }, endedOnce],
  ['an owner that ends as quarantined what was dead-lettered', { ends: [end(1), { ...end(2), state: 'dead-lettered' }, { ...end(2), state: 'quarantined' }], outcomes: [...good.outcomes, { ...good.outcomes[1]!, state: 'dead-lettered' }] }, endedOnce],
  ['a redrive that ends what was known to be without effect under the same key', { ...redriven, ends: [end(1), { ...end(2), state: 'quarantined', effect: 'none' }, overtaken] }, endedOnce],
  ['a redrive that ends otherwise without an order', { ...redriven, dispatch: good.dispatch }, endedOnce],
  ['an end of before that replaces what a redrive was told', { ...redriven, ends: [end(1), overtaken, held] }, endedOnce],
  ['an effect of what a redrive was told had none', redriven, effectsOnce],
  ['an end that wins and is not told', { ends: [end(1), { ...end(2), state: 'denied', effect: 'none', owned: false }, end(2)], outcomes: [good.outcomes[0]!, { ...good.outcomes[1]!, state: 'denied' }] }, endedOnce],
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

test('what refuses says when to come again; any other answer is seen', () => {
  const refusal = (status: number, retryAfter: string | null) => ({ at: 1, instance: 1, status, retryAfter });
  expect(bounded([refusal(429, '1'), refusal(503, '2')])).toEqual([]);
  for (const bad of [refusal(503, null), refusal(429, 'soon'), refusal(500, '1'), refusal(408, null), refusal(400, null)]) expect(bounded([refusal(429, '1'), bad]), String(bad.status)).toHaveLength(1);
});

test('more outputs of a subject in a window than the limit allows are seen, whoever decided them; the same one twice, another window and another clock are not more', () => {
  const limit = { rule: 'few', count: 2, perMs: 1000 };
  const at = (n: number, when: number, broker = when): History['dispatch'][number] => ({ ...dispatch(n), at: broker, decided: { at: when, limits: ['other', 'few'] } });
  const found = (...list: History['dispatch']): string[] => limitsHeld({ dispatch: list }, limit);
  expect(found(at(1, 5000), at(2, 5100), at(3, 5999))).toHaveLength(1);
  expect(found(at(1, 5000), at(2, 5100), at(2, 5900), { ...at(1, 5950), order: 'rpl_1' })).toEqual([]);
  expect(found(at(1, 5000), at(2, 5100), at(3, 6000), { ...at(4, 5200), subject: 's2' }, { ...at(5, 5300), decided: { at: 5300, limits: ['other'] } })).toEqual([]);
  expect(found(at(1, 5000), at(2, 5100), at(3, 5200, 605_200))).toEqual([]);
  expect(decidedOf('5000;insert;other,few')).toEqual({ at: 5000, limits: ['other', 'few'] });
  expect(decidedOf('')).toBeUndefined();
});

test('a call of a vendor without keys is known by the key in its body, alone or in a batch; a question to it is no call', () => {
  expect(['k1', 'k2', null]).toEqual([keyOf({ idempotencyKey: null, body: { key: 'k1' } }), keyOf({ idempotencyKey: 'k2', body: { key: 'k1' } }), keyOf({ idempotencyKey: null, body: null })]);
  const late = { ...arrival(1), at: 2000 };
  expect(zombiesHarmless({ ...good, arrivals: [...good.arrivals, { ...late, operation: 'read notes', applied: false }] }, 250)).toEqual([]);
  expect(zombiesHarmless({ ...good, arrivals: [...good.arrivals, late] }, 250)).toHaveLength(1);
});

test('a grant by the other identifier lets a call pass while the first says nothing yet', () => {
  expect(consentHeld({ ...good, consent: [{ ...good.consent[0]!, id: 'u-1' }] }, 100, idsOf)).toEqual([]);
});

test('an end behind the mark of a later owner binds nobody, one of the owner binds all', () => {
  const again = (owned: boolean): History => ({ ...good, ends: [{ ...end(1), at: 1500, owner: 'b/1/y' }, { ...end(1), owned }, end(2)], arrivals: [...good.arrivals, { ...arrival(1), at: 1400, applied: false }] });
  expect(zombiesHarmless(again(false), 250)).toEqual([]);
  expect(zombiesHarmless(again(true), 250)).toHaveLength(1);
});

test('a destination that was denied, and one whose record could not be decided at all, have ended', () => {
  const wanted = { ...good, canonical: [canonical(1), { ...canonical(2), wanted: both }] };
  expect(decidedForEach({ ...wanted, outcomes: [...good.outcomes, { ...good.outcomes[1]!, destination: 'warehouse', operation: 'insert', state: 'denied', reason: 'consent-missing', stage: 'policy' }] })).toEqual([]);
  expect(decidedForEach({ ...wanted, outcomes: [...good.outcomes, { event: 'e2', output: 'o2', destination: null, operation: null, state: 'dead-lettered', reason: 'expiring', stage: 'policy' }] })).toEqual([]);
});

test('of ends that owners before wrote late, or that turn out to be applied, one wins: the delivered one, when it is told', () => {
  const late = { ...end(2), state: 'dead-lettered', effect: 'maybe', owned: false };
  expect(endedOnce({ ...good, ends: [end(1), end(2), late] })).toEqual([]);
  const learnt = { ...good, dispatch: redriven.dispatch!, ends: [end(1), { ...late, owned: true }, { ...end(2), offset: 8 }] };
  expect(endedOnce(learnt)).toEqual([]);
  expect(endedOnce({ ...learnt, dispatch: good.dispatch })).toHaveLength(1);
  expect(endedOnce({ ...good, ends: [end(1), { ...end(2), state: 'expired', effect: 'none' }], outcomes: [good.outcomes[0]!, { ...good.outcomes[1]!, state: 'quarantined' }] })).toEqual([]);
});

const workspace = join(import.meta.dirname, 'workspace');
const files = readdirSync(workspace, { recursive: true, encoding: 'utf8' }).filter((f) => f.endsWith('.yaml')).sort().map((path) => ({ path, content: readFileSync(join(workspace, path), 'utf8') }));

test('what a record is wanted for is by the routes of the workspace and their conditions; by two releases, what both ask for must be, what one asks for may be', () => {
  const routes = createRoutes();
  routes.add(files);
  const profile = { email: 'p@larkspur.example', userId: 'u-1' };
  expect(routes.wanted('Profile', profile, 'segment').must).toEqual(['newsletter|subscribe', 'warehouse|insert']);
  expect(routes.wanted('Profile', { ...profile, email: null }, 'segment').must).toEqual(['warehouse|insert']);
  expect(routes.wanted('Event', { name: 'x', userId: 'u-1' }, 'segment').must).toEqual(['warehouse|insert']);
  const third = { ...profile, userId: 'u-3' };
  expect(routes.wanted('Profile', third, 'segment').must).toEqual(['crm|note', 'newsletter|subscribe', 'warehouse|insert']);
  expect(routes.wanted('Event', third, 'segment').must.toSorted()).toEqual(['crm|rows', 'warehouse|insert']);
  const change = (state: string) => routes.wanted('ConsentChange', { ...profile, purpose: 'email-marketing', state }, 'segment');
  expect([change('withdrawn').must, change('granted').may]).toEqual([['newsletter|unsubscribe'], []]);
  // A condition that fails holds: what it is about is denied, or sent where it restricts.
  expect(routes.wanted('ConsentChange', { purpose: 'email-marketing' }, 'segment').must).toEqual(['newsletter|unsubscribe']);
  routes.add(files.filter(({ path }) => !path.includes('warehouse')));
  expect(routes.wanted('Profile', profile, 'segment')).toEqual({ must: ['newsletter|subscribe'], may: ['newsletter|subscribe', 'warehouse|insert'] });
});

test('an audit log that lacks a leaf, has another one, or is not the one that was signed is seen, and a change without a leaf', () => {
  const leafOf = (action: string) => ({ id: `leaf_${randomUUID()}`, kind: 'intent' as const, at: 1, actor: 'chaos', action, target: null, of: null, details: {} });
  const [first, second, other] = [leafOf('release.apply'), leafOf('secret.use'), leafOf('release.apply')];
  const leaves = [first, second].map((leaf, at) => ({ bytes: encodeLeaf(leaf), at }));
  const tree = createTree();
  for (const { bytes } of leaves) tree.append(bytes);
  const signer = signingKey('weir', newSigningKey());
  const note = signCheckpoint({ origin: 'weir', size: tree.size, root: tree.root() }, signer);
  const signed = { served: note, kept: [note], verifier: verifierOf(signer) };
  const log: History = { ...good, leaves, changes: [{ what: 'release r1', leaf: first.id, at: 1 }] };
  expect(audited(log, signed)).toEqual([]);
  expect(audited({ ...log, leaves: [leaves[0]!, leaves[0]!, leaves[1]!, { bytes: encodeLeaf(other), at: 2 }] }, signed), 'a resend, and what came after').toEqual([]);
  expect(audited({ ...log, changes: [{ what: 'release r2', leaf: '', at: 1 }] }, signed)).toHaveLength(1);
  expect(audited({ ...log, changes: [{ what: 'release r2', leaf: second.id, at: 0 }] }, signed).join(), 'before its leaf').toContain('before');
  expect(audited({ ...log, changes: [{ what: 'release r2', leaf: other.id, at: 1 }] }, signed)).toHaveLength(1);
  expect(audited({ ...log, leaves: leaves.slice(0, 1) }, signed).join()).toContain('truncated');
  expect(audited({ ...log, leaves: leaves.toReversed() }, signed).join()).toContain('changed');
  expect(audited(log, { ...signed, kept: [] })).toHaveLength(1);
});
