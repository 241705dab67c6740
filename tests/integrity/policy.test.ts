import { hash } from 'node:crypto';
import { createConsentTables } from '@weir/consent';
import type { Log } from '@weir/log';
import { H } from '@weir/pipeline';
import { consentKey } from '@weir/policy';
import { isSealed, type KeyRing } from '@weir/seal';
import { systemClock } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createWorld, idOf, releaseOf, startWorld, stopWorld, until, type World } from './policy-world.ts';

beforeAll(startWorld, 120_000);
afterAll(stopWorld, 60_000);

const release = releaseOf('rel_a', 'rules: [ { name: everything, effect: allow } ]');
const allowAll = () => release;
const keeping = { ...release, linkedIdentifiers: true };

async function inWorld(prefix: string, run: (world: World) => Promise<void>): Promise<void> {
  const world = await createWorld(prefix);
  try {
    await run(world);
  } finally {
    await world.close();
  }
}
const deliveries = (world: World) => world.all(world.topics.dispatch('crm'));
const outcomes = (world: World) => world.all(world.topics.outcome);
const ended = (event: string) => (list: readonly { value: any }[]) => list.some((o) => o.value.eventId === event);
/** Newest state of a key, as a reader of the compacted topic sees it. */
const stateOf = async (world: World, id: string) => (await world.all(world.topics.consent)).filter((s) => s.key === consentKey(id, 'news', 'email', '')).at(-1)?.value;

test('a record is not decided before the consent of its own item is recorded, and then it is let through', () => inWorld('same', async (world) => {
  const policy = await world.policy(allowAll);
  const fields = { email: 'ann@example.com' };
  const [id] = world.idsOf(fields);
  // The change will get this offset: the record that depends on it is written first.
  const partition = world.appender.partitionFor(world.topics.consentChanges, id!);
  const waiting = world.next('dependent');
  const at = await world.canonical(waiting, fields, world.profile(fields, '{"secret":"kept inside"}'), { [H.afterConsent]: `${partition}:0` });
  let other = 0;
  while (world.appender.partitionFor(world.topics.canonical, idOf('email', `other${other}@example.com`)) === at.partition) other++;
  const free = world.next('independent');
  await world.canonical(free, { email: `other${other}@example.com` }, world.profile({ email: `other${other}@example.com` }));
  await until('the independent record', () => outcomes(world), ended(free));
  expect((await outcomes(world)).filter((o) => o.value.eventId === waiting)).toEqual([]);
  expect(await deliveries(world)).toEqual([]);

  await world.change(world.next('grant'), id!, 'granted', 1000);
  const [delivery] = await until('the delivery', () => deliveries(world), ended(waiting));
  expect(delivery!.value).toMatchObject({ eventId: waiting, destination: 'crm', operation: 'send', kind: 'use', rule: 'everything', purpose: 'news', legalBasis: 'consent', release: 'rel_a', ids: [id] });
  expect(delivery!.value.consent).toEqual([expect.objectContaining({ id, state: 'granted', version: 0 })]);
  expect(world.serde.decode(delivery!.value.payload).value).toMatchObject({ email: 'ann@example.com', extras: null });
  expect(delivery!.value.payload.includes('kept inside')).toBe(false);
  await policy.close();
}));

test('a withdrawal by a linked identifier closes, unknown is closed, and a restriction passes without consent', () => inWorld('linked', async (world) => {
  const policy = await world.policy(allowAll);
  const [mail, user] = [idOf('email', 'bob@example.com'), idOf('userId', 'bob')];
  const granted = await world.change(world.next('grant'), mail, 'granted', 1000);
  const withdrawn = await world.change(world.next('withdrawal'), user, 'withdrawn', 2000);
  const linked = await world.link(mail, user);
  const after = { [H.afterConsent]: `${granted},${withdrawn}`, [H.afterIdentity]: linked };
  const denied = world.next('linked');
  await world.canonical(denied, { email: 'bob@example.com' }, world.profile({ email: 'bob@example.com' }), after);
  const unknown = world.next('unknown');
  await world.canonical(unknown, { email: 'nobody@example.com' }, world.profile({ email: 'nobody@example.com' }));
  const nameless = world.next('nameless');
  await world.canonical(nameless, {}, world.profile({}));
  const list = await until('three denials', () => outcomes(world), (seen) => [denied, unknown, nameless].every((event) => ended(event)(seen)));
  const reason = (event: string) => list.find((o) => o.value.eventId === event)!.value;
  expect(reason(denied)).toMatchObject({ state: 'denied', reason: 'consent-withdrawn', destination: 'crm', stage: 'policy' });
  expect(reason(denied).consent).toContainEqual(expect.objectContaining({ id: user, state: 'withdrawn' }));
  expect(reason(unknown).reason).toBe('consent-missing');
  expect(reason(nameless).reason).toBe('subject-unidentified');
  const restriction = world.next('restriction');
  const value = world.serde.encode('weir.canonical.ConsentChange', { id: 'o', source: 'shop', objectKey: null, occurredAt: 1, userId: 'bob', anonymousId: null, email: null, phone: null, externalIds: [], purpose: 'news', channel: 'email', topic: null, state: 'withdrawn', legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, expiresAt: null, reason: null, extras: null });
  await world.canonical(restriction, { userId: 'bob' }, value, after);
  const [delivery] = await until('the restriction', () => deliveries(world), ended(restriction));
  expect(delivery!.value).toMatchObject({ kind: 'restrict', operation: 'unsubscribe', rule: 'restrict' });
  // The vendor knows people by address, and the change has none of the linked one.
  expect((await until('what was not told', () => outcomes(world), ended(restriction))).find((o) => o.value.eventId === restriction)!.value).toMatchObject({ state: 'denied', reason: 'identifier-unknown', destination: 'crm', operation: 'unsubscribe (not by email)' });
  await policy.close();
}));

test('a withdrawal goes on under what its link keeps: a key that the service has not read is waited for, one that is destroyed is not', () => inWorld('onward', async (world) => {
  const gate = Promise.withResolvers<void>();
  const asked: number[] = [];
  let open = false;
  /** As a ring that is behind: what was sealed for others opens when it was asked to read on. */
  const behind = (own: KeyRing): KeyRing => ({
    ...own, open: (bytes) => (open || !isSealed(bytes) ? own.open(bytes) : undefined), has: (id) => open && own.has(id),
    readToEnd: async () => {
      asked.push(asked.length);
      await gate.promise;
      await own.readToEnd();
      open = true;
    },
  });
  const policy = await world.policy(() => keeping, undefined, undefined, behind);
  const value = (userId: string) => world.serde.encode('weir.canonical.ConsentChange', { id: 'o', source: 'shop', objectKey: null, occurredAt: 1, userId, anonymousId: null, email: null, phone: null, externalIds: [], purpose: 'news', channel: 'email', topic: null, state: 'withdrawn', legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, expiresAt: null, reason: null, extras: null });
  const say = async (userId: string, after: string): Promise<string> => {
    const event = world.next('no');
    await world.canonical(event, { userId }, value(userId), { [H.afterIdentity]: after });
    return event;
  };
  const [mail, user] = [idOf('email', 'bea@example.com'), idOf('userId', 'bea')];
  const linked = await world.link(mail, user, { owner: user, of: { userId: 'bea', email: 'bea@example.com' } });
  const event = await say('bea', linked);
  await until('the keys are asked for', async () => asked.length, (n) => n > 0);
  expect([await deliveries(world), await outcomes(world)]).toEqual([[], []]);
  gate.resolve();
  const sent = (await until('both', () => deliveries(world), (list) => list.length === 2)).map((d) => d.value);
  expect(sent.map((v) => [v.eventId, v.outputId, v.operation, v.kind, v.intent, v.ids, world.serde.decode(v.payload).value.email, world.serde.decode(v.payload).value.userId])).toEqual([
    [event, `out_${event}`, 'unsubscribe', 'restrict', '0', [user], null, 'bea'],
    [event, `out_${event}~${mail}`, 'unsubscribe', 'restrict', '0', [user, mail], 'bea@example.com', 'bea'],
  ]);
  expect(await outcomes(world)).toEqual([]);
  // A service with an empty folder decides the same under the same names.
  await policy.close();
  const again = await world.policy(() => keeping, undefined, undefined, (own) => own);
  await world.canonical(event, { userId: 'bea' }, value('bea'), { [H.afterIdentity]: linked });
  expect((await until('twice', () => deliveries(world), (list) => list.length === 4)).slice(2).map((d) => d.value.outputId)).toEqual(sent.map((v) => v.outputId));
  // Erased: nothing opens it, and nothing is sent.
  const ring = await world.keys();
  await ring.destroy([user]);
  const late = await say('bea', await world.link(mail, idOf('phone', '+49'), undefined));
  const denials = await until('the denial', () => outcomes(world), ended(late));
  expect(denials.map((o) => [o.value.eventId, o.value.operation, o.value.reason])).toEqual([[late, 'unsubscribe (not by email)', 'identifier-unknown']]);
  expect((await deliveries(world)).filter((d) => d.value.eventId === late).map((d) => d.value.outputId)).toEqual([`out_${late}`]);
  await again.close();
}));

test('a withdrawal is told hashed where its route says so, also under an address that only the link keeps: in the clear it would find nobody and tell who it is', () => inWorld('told', async (world) => {
  const hashing = { ...releaseOf('rel_h', 'rules: [ { name: everything, effect: allow } ]', ', hash: { as: google, fields: [email] }'), linkedIdentifiers: true };
  const policy = await world.policy(() => hashing, undefined, undefined, (own) => own);
  const [mail, user] = [idOf('email', 'cleo@example.com'), idOf('userId', 'cleo')];
  const linked = await world.link(mail, user, { owner: user, of: { userId: 'cleo', email: 'cleo@example.com' } });
  const value = (fields: object) => world.serde.encode('weir.canonical.ConsentChange', { id: 'o', source: 'shop', objectKey: null, occurredAt: 1, userId: null, anonymousId: null, email: null, phone: null, externalIds: [], purpose: 'news', channel: 'email', topic: null, state: 'withdrawn', legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, expiresAt: null, reason: null, extras: null, ...fields });
  await world.canonical(world.next('no'), { userId: 'cleo' }, value({ userId: 'cleo' }), { [H.afterIdentity]: linked });
  await world.canonical(world.next('no'), { email: 'Dan@Example.com' }, value({ email: 'Dan@Example.com' }));
  const sent = (await until('all three', () => deliveries(world), (list) => list.length === 3)).map((d) => world.serde.decode(d.value.payload).value as { email: string | null; userId: string | null });
  const sha = (text: string): string => hash('sha256', text, 'hex');
  expect(sent.map(({ email, userId }) => [email, userId]).sort()).toEqual([[null, 'cleo'], [sha('cleo@example.com'), 'cleo'], [sha('dan@example.com'), null]].sort());
  await policy.close();
}));

test('a grant that is replayed after the withdrawal does not grant again, also after a restart of the folder without its cache', () => inWorld('replayed', async (world) => {
  const id = idOf('email', 'cat@example.com');
  let policy = await world.policy(allowAll);
  const grant = world.next('grant');
  await world.change(grant, id, 'granted', 1000);
  await world.change(world.next('withdrawal'), id, 'withdrawn', 2000);
  await until('the withdrawal', () => stateOf(world, id), (state) => state?.state === 'withdrawn');
  await policy.close();
  policy = await world.policy(allowAll);
  await world.change(grant, id, 'granted', 1000);
  await world.change(world.next('forgotten-grant'), id, 'granted', 1500);
  const last = await world.change(world.next('marker'), idOf('email', 'marker@example.com'), 'granted', 9000);
  const event = world.next('after-replay');
  await world.canonical(event, { email: 'cat@example.com' }, world.profile({ email: 'cat@example.com' }), { [H.afterConsent]: `${last},${await world.change(world.next('late-grant'), id, 'granted', 1900)}` });
  const list = await until('the denial', () => outcomes(world), ended(event));
  expect(list.find((o) => o.value.eventId === event)!.value.reason).toBe('consent-withdrawn');
  const fresh = world.next('fresh-grant');
  const again = await world.change(fresh, id, 'granted', 3000);
  const reopened = world.next('reopened');
  await world.canonical(reopened, { email: 'cat@example.com' }, world.profile({ email: 'cat@example.com' }), { [H.afterConsent]: again });
  await until('the delivery', () => deliveries(world), ended(reopened));
  // Accepted by a clock that is behind; the grant of a right one came onto the log before it, and waited.
  await world.change(world.next('stepped'), id, 'withdrawn', 3500, {}, { [H.logged]: '9000' });
  const waited = await world.change(world.next('waited'), id, 'granted', 8000, {}, { [H.logged]: '8000' });
  const closed = world.next('closed');
  await world.canonical(closed, { email: 'cat@example.com' }, world.profile({ email: 'cat@example.com' }), { [H.afterConsent]: waited });
  expect((await until('the denial', () => outcomes(world), ended(closed))).find((o) => o.value.eventId === closed)!.value.reason).toBe('consent-withdrawn');
  // What came by itself counts from its own record: a withdrawal of now, by a clock of 1970.
  await world.change(world.next('by-itself'), id, 'withdrawn', 4000, {}, { [H.mapping]: 'weir:consent-api' });
  const early = await world.change(world.next('early'), id, 'granted', 10_000, {}, { [H.logged]: '10000' });
  const still = world.next('still');
  await world.canonical(still, { email: 'cat@example.com' }, world.profile({ email: 'cat@example.com' }), { [H.afterConsent]: early });
  expect((await until('the denial', () => outcomes(world), ended(still))).find((o) => o.value.eventId === still)!.value.reason).toBe('consent-withdrawn');
  await policy.close();
}));

/** A log whose commits are lost, as when the process dies between the acks and the commit. */
function withoutCommits(log: Log): Log {
  return { ...log, consumer: (options) => ({ ...log.consumer(options), commit: async () => {} }) };
}

test('a crash between append and commit loses nothing and gives the same states and deliveries again', () => inWorld('crash', async (world) => {
  const first = await world.policy(allowAll, withoutCommits);
  const people = Array.from({ length: 20 }, (_, i) => `p${i}@example.com`);
  const events: string[] = [];
  for (const email of people) {
    const after = await world.change(world.next('grant'), idOf('email', email), 'granted', 1000);
    events.push(world.next('profile'));
    await world.canonical(events.at(-1)!, { email }, world.profile({ email }), { [H.afterConsent]: after });
  }
  const before = await until('all deliveries', () => deliveries(world), (list) => new Set(list.map((d) => d.value.eventId)).size === people.length);
  const states = async () => new Map((await world.all(world.topics.consent)).filter((s) => s.name === 'weir.internal.ConsentState').map((s) => [s.key, s.value]));
  const folded = await states();
  await first.close();
  expect([...(await world.admin.committed('crash.policy', world.topics.canonical)).values()].filter((offset) => offset > 0)).toEqual([]);

  const second = await world.policy(allowAll);
  const total = async () => [...(await world.admin.endOffsets(world.topics.canonical)).values()].reduce((a, b) => a + b, 0);
  const committed = async () => [...(await world.admin.committed('crash.policy', world.topics.canonical)).values()].reduce((a, b) => a + b, 0);
  const all = await total();
  await until('the commits', committed, (n) => n === all);
  const after = await deliveries(world);
  expect(after.length).toBe(2 * before.length);
  expect(new Set(after.map((d) => `${d.value.outputId}/${d.value.operation}/${d.value.payload.toString('hex')}`)).size).toBe(people.length);
  expect(await states()).toEqual(folded);
  expect(await outcomes(world)).toEqual([]);
  await second.close();
}));

test('a limit counts what was let through before a crash and before a restart, and what is decided once more takes no second slot', () => inWorld('limits', async (world) => {
  const counted = releaseOf('rel_limited', 'rules:\n  - { name: all, effect: allow }\n  - { name: only-three, effect: limit, limit: { count: 3, per: 365d } }\n');
  const limited = () => counted;
  const email = 'lea@example.com';
  const after = await world.change(world.next('grant'), idOf('email', email), 'granted', 1000);
  const send = async (): Promise<string> => {
    const event = world.next('profile');
    await world.canonical(event, { email }, world.profile({ email }), { [H.afterConsent]: after });
    return event;
  };
  const denied = async () => new Set((await outcomes(world)).filter((o) => o.value.reason === 'limit:only-three').map((o) => o.value.eventId));
  const letThrough = async () => new Set((await deliveries(world)).map((d) => d.value.eventId));
  const events = [await send()];
  // Never committed: the next instance decides it once more.
  const first = await world.policy(limited, withoutCommits);
  await until('the first delivery', letThrough, (seen) => seen.size === 1);
  await first.close();
  const second = await world.policy(limited);
  events.push(await send());
  await until('both deliveries', letThrough, (seen) => seen.size === 2);
  await second.close();
  // The first stands there twice by now, each with the time of its own decision, and is one of three.
  expect(await deliveries(world)).toHaveLength(3);
  const third = await world.policy(limited);
  events.push(await send());
  await until('the third delivery', letThrough, (seen) => seen.size === 3);
  events.push(await send());
  await until('the fourth is denied', denied, (seen) => seen.size > 0);
  expect([[...await letThrough()].sort(), [...await denied()]]).toEqual([events.slice(0, 3).sort(), events.slice(3)]);
  await third.close();
}));

test('a record that still waits when the service stops is decided by the next instance, not committed past', () => inWorld('waiting', async (world) => {
  const first = await world.policy(allowAll);
  const fields = { email: 'fay@example.com' };
  const [id] = world.idsOf(fields);
  const partition = world.appender.partitionFor(world.topics.consentChanges, id!);
  const decided = world.next('decided');
  const head = await world.canonical(decided, fields, world.profile(fields));
  const waiting = world.next('waiting');
  await world.canonical(waiting, fields, world.profile(fields), { [H.afterConsent]: `${partition}:0` });
  const committed = async () => (await world.admin.committed('waiting.policy', world.topics.canonical)).get(head.partition) ?? 0;
  await until('the decided head', () => outcomes(world), ended(decided));
  await until('its commit', committed, (n) => n > head.offset);
  await first.close();
  expect(await committed()).toBe(head.offset + 1);
  const second = await world.policy(allowAll);
  await world.change(world.next('grant'), id!, 'granted', 1000);
  await until('the delivery', () => deliveries(world), ended(waiting));
  await second.close();
}));

test('bytes that are no record are set aside whole, and the records behind them go on', () => inWorld('poison', async (world) => {
  const policy = await world.policy(allowAll);
  const fields = { email: 'dan@example.com' };
  const id = idOf('email', 'dan@example.com');
  const poison = Buffer.from([0, 0, 0, 0, 99, 1, 2, 3]);
  const bad = world.next('poison');
  await world.canonical(bad, fields, poison);
  const partition = world.appender.partitionFor(world.topics.consentChanges, id);
  await world.appender.append(world.topics.consentChanges, [{ partition, key: Buffer.from(id), value: Buffer.from('no avro'), headers: [[H.event, Buffer.from('evt_bad_change')]] }]);
  const grant = await world.change(world.next('grant'), id, 'granted', 1000);
  const good = world.next('good');
  await world.canonical(good, fields, world.profile(fields), { [H.afterConsent]: grant });
  await until('the good record', () => deliveries(world), ended(good));
  const letters = await world.all(world.topics.dlq);
  expect(letters.find((l) => l.value.eventId === bad)!.value).toMatchObject({ stage: 'policy', topic: world.topics.canonical, value: poison, reasons: [expect.objectContaining({ code: 'schema-unknown' })] });
  expect(letters.find((l) => l.value.eventId === 'evt_bad_change')!.value.value.toString()).toBe('no avro');
  expect((await outcomes(world)).filter((o) => o.value.state === 'dead-lettered').map((o) => o.value.eventId).sort()).toEqual(['evt_bad_change', bad].sort());
  await policy.close();
}));

test('tables are closed until they have caught up, and again after they stop', () => inWorld('closed', async (world) => {
  const id = idOf('email', 'eve@example.com');
  const policy = await world.policy(allowAll);
  const [partition, offset] = (await world.change(world.next('grant'), id, 'granted', 1000)).split(':').map(Number);
  await until('the state', () => stateOf(world, id), (state) => state?.state === 'granted');
  await policy.close();
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-tables-'));
  const tables = await createConsentTables({ log: world.log, serde: world.serde, topics: world.topics, stateDir, clock: systemClock, logger: createLogger({ service: 'test', level: 'silent' }) }, (error) => { throw error; });
  const ask = () => tables.allows([id], 'news', 'email', null, 'consent', 1);
  expect(ask()).toMatchObject({ ok: false, reason: 'table-not-ready' });
  expect(tables.allows([id], 'news', 'email', null, 'contract', 1)).toMatchObject({ ok: false, reason: 'table-not-ready' });
  await tables.start();
  expect(ask()).toMatchObject({ ok: true });
  expect(tables.folded(partition!)).toBeGreaterThan(offset!);
  const ahead = tables.consentPositions().map((n) => n + 1);
  expect(tables.atLeast(tables.consentPositions(), tables.identityPositions())).toBe(true);
  expect(tables.atLeast(ahead, tables.identityPositions())).toBe(false);
  await tables.stop();
  expect(ask()).toMatchObject({ ok: false, reason: 'table-not-ready' });
  rmSync(stateDir, { recursive: true, force: true });
}));
