import fastify from 'fastify';
import { WeirError } from '@weir/errors';
import { topicNames } from '@weir/pipeline';
import { consentKey } from '@weir/policy';
import { keyedIdsOf, parseIdentifier } from '@weir/release';
import { expect, test, vi } from 'vitest';
import { compactedAfter } from './compaction.ts';
import { exportLines } from './subject-export.ts';
import { subjectRoutes } from './subject-routes.ts';
import { createSubjects } from './subjects.ts';

const clock = { setTimer: () => 0, clearTimer: () => undefined };
const workspaceKey = Buffer.alloc(32, 5);
const given = parseIdentifier('userId:u-7');
const [own] = keyedIdsOf(workspaceKey, given) as [string];

/** One record of u-7 on the topic; `linked` as the table answers. */
function subjects(linked: (ids: readonly string[]) => readonly string[] | undefined, over: object = {}) {
  const record = { key: Buffer.from(own), value: Buffer.from('x'), headers: [['weir-event', Buffer.from('evt_1')]], timestamp: 0 };
  return createSubjects({
    reader: { read: async (topic: string, _p: number, _f: number, _e: number, take: (batch: object) => Promise<void>) => take({ records: topic === 'weir.canonical' ? [record] : [] }) }, admin: { beginningOffsets: async () => new Map(), endOffsets: async () => new Map([[0, 1]]) },
    appender: { partitions: async () => 1, partitionFor: () => 0 }, serde: { known: () => true, decode: () => ({ name: 'weir.canonical.Profile', value: { userId: 'u-7' } }) }, topics: topicNames('weir'),
    keys: { erasedUntil: () => 0, current: () => undefined }, tables: { readToEnd: async () => {}, linkValues: () => [], regions: () => undefined, linked, trusted: (ids: readonly string[]) => ({ ids: linked(ids), leftOut: [] }), states: () => [], allows: (ids: readonly string[]) => (linked(ids) === undefined ? { ok: false, reason: 'identity-too-wide' } : { ok: true }) },
    store: { stages: () => [{ stage: 'decided', at: 1, destination: 'crm', operation: 'send', effect: 'deny', reason: 'identity-too-wide' }] }, workspaceKey, now: () => 0,
    release: () => ({ policy: { routes: new Map([['Profile', [{ purpose: 'email-marketing', channel: 'email' }]]]), purposes: new Map() } }), ...over,
  } as never);
}

test('a person with too many links is shown and explained under the identifier that was given, says so, and stays closed', async () => {
  const found = subjects(() => undefined);
  expect(await found.resolve(given, 'trusted')).toEqual({ ids: [own], onlyGiven: true, leftOut: [] });
  expect(await found.summary(given, 'trusted')).toMatchObject({ ids: [own], onlyGiven: true, records: { total: 1 }, purposes: [{ allowed: false, reason: 'identity-too-wide' }] });
  expect(await found.decisions(given, undefined, 5)).toMatchObject({ onlyGiven: true, decisions: [{ eventId: 'evt_1', destination: 'crm' }] });
  expect(await subjects((ids) => ids).decisions(given, undefined, 5)).toMatchObject({ onlyGiven: false });
});

/** Records of u-7 on the topic, one after the other; `stages` of each event. */
function withRecords(events: readonly (readonly [event: string, output: string, at: number])[], stages: (event: string) => object[]) {
  const records = events.map(([event, output, timestamp]) => ({ key: Buffer.from(own), value: Buffer.from('x'), headers: [['weir-event', Buffer.from(event)], ['weir-output', Buffer.from(output)]], timestamp }));
  return subjects((ids) => ids, { reader: { read: async (_t: string, _p: number, _f: number, _e: number, take: (batch: object) => Promise<void>) => take({ records }) }, store: { stages } });
}

test('of an item with several people only what was decided and delivered of the own outputs is told, each decision with its own end', async () => {
  const about = { destination: 'crm', operation: 'send' };
  const stages = ['out_own', 'out_other'].map((outputId, i) => ({ stage: 'decided', at: 1 + i, ...about, outputId, effect: 'allow' }));
  const ends = [{ stage: 'outcome', at: 5, ...about, outputId: 'out_own', state: 'dead-lettered', reason: 'delivery-rejected' }, { stage: 'outcome', at: 6, ...about, outputId: 'out_other', state: 'delivered' }];
  const found = withRecords([['evt_1', 'out_own', 3]], () => [...stages, ...ends]);
  expect((await found.decisions(given, undefined, 9)).decisions).toMatchObject([{ eventId: 'evt_1', record: 'Profile', end: { state: 'dead-lettered', reason: 'delivery-rejected' } }]);
  expect((await found.decisions(given, undefined, 9)).decisions).toHaveLength(1);
  expect((await found.summary(given, 'trusted')).destinations).toEqual([]);
});

test('of more events than are looked up the newest count, it is told, and the event loop gets a turn between them', async () => {
  const most = 20_000;
  // The newest stand first, as another partition may be read later.
  const events = Array.from({ length: most + 1 }, (_, i) => [`evt_${i}`, `out_${i}`, most + 1 - i] as const);
  let [turns, looked, before, atOnce] = [0, 0, 0, 0];
  const stages = (event: string) => {
    atOnce = Math.max(atOnce, ++looked - before);
    return [{ stage: 'outcome', at: 7, destination: event === `evt_${most}` ? 'oldest' : 'crm', operation: 'send', outputId: event.replace('evt', 'out'), state: 'delivered' }];
  };
  const tick = (): void => {
    turns++;
    before = looked;
    timer = setImmediate(tick);
  };
  let timer = setImmediate(tick);
  const found = withRecords(events, stages);
  const { cut, destinations, records } = await found.summary(given, 'trusted');
  expect([cut, destinations.map((d) => [d.destination, d.delivered]), records.total]).toEqual([true, [['crm', most]], most + 1]);
  expect((await found.decisions(given, undefined, 1)).cut).toBe(true);
  clearImmediate(timer);
  expect([atOnce <= 1000, turns > 20]).toEqual([true, true]);
  expect((await withRecords(events.slice(1), () => []).summary(given, 'trusted')).cut).toBe(false);
});

test('an export of a part says so in its first line', async () => {
  for (const [linked, first] of [[() => undefined, 'incomplete'], [(ids: readonly string[]) => ids, 'at']] as const) {
    const app = fastify();
    subjectRoutes(app, { subjects: () => { throw new Error('of other searches'); }, exports: () => subjects(linked), clock, erasures: () => ({}) as never, wordsKept: async () => null });
    const answer = await app.inject({ method: 'POST', url: '/v1/subjects/export', payload: { identifier: 'userId:u-7' } });
    const lines = answer.body.trim().split('\n').map((line) => JSON.parse(line) as object);
    expect(Object.keys(lines[0]!)[0]).toBe(first);
    expect(lines.at(-1)).toMatchObject({ record: { userId: 'u-7' } });
    await app.close();
  }
});

test('an export tells where the person was last said to be, and nothing of before an erasure', async () => {
  const tables = { readToEnd: async () => {}, linkValues: () => [], linked: (ids: readonly string[]) => ids, trusted: (ids: readonly string[]) => ({ ids, leftOut: [] }), states: () => [], regions: (ids: readonly string[], tell: (id: string, region: object) => void) => tell(ids[0]!, { code: 'DE', at: 5 }) };
  for (const [erasedUntil, regions] of [[0, [{ at: new Date(5).toISOString(), region: 'DE' }]], [5, []]] as const) {
    const app = fastify();
    subjectRoutes(app, { subjects: () => { throw new Error('of other searches'); }, exports: () => subjects((ids) => ids, { tables, keys: { erasedUntil: () => erasedUntil, current: () => undefined } }), clock, erasures: () => ({}) as never, wordsKept: async () => null });
    const answer = await app.inject({ method: 'POST', url: '/v1/subjects/export', payload: { identifier: 'userId:u-7' } });
    expect(answer.body.trim().split('\n').map((line) => JSON.parse(line) as object).filter((line) => 'region' in line)).toEqual(regions);
    await app.close();
  }
});

test('an export has the changes of consent, one of several identifiers once, the states with proof, and where something was delivered, each as a kind of its own', async () => {
  const [theirs] = keyedIdsOf(workspaceKey, parseIdentifier('email:ada@larkspur.example')) as [string];
  const record = (key: string, value: string, event: string, ids = key, output = 'out_1') => ({ key: Buffer.from(key), value: Buffer.from(value), headers: [['weir-event', Buffer.from(event)], ['weir-output', Buffer.from(output)], ['weir-ids', Buffer.from(ids)], ['weir-source', Buffer.from('onetrust')], ['weir-accepted', Buffer.from('4')]], timestamp: 5 });
  const both = `${own},${theirs}`;
  const on: Record<string, object[]> = {
    'weir.canonical': [record(own, 'profile', 'evt_1')],
    // The second of a change that names both, one by the address alone, one that is shut, and one of somebody else.
    'weir.consent.changes': [record(own, 'change', 'evt_2', both), record(theirs, 'change', 'evt_2', both), record(theirs, 'change', 'evt_3', `email:other,${theirs}`), record(own, 'shut', 'evt_4'), record('email:other', 'change', 'evt_5')],
  };
  const change = { purpose: 'email-marketing', state: 'granted', proof: 'form 7' };
  const serde = {
    known: () => true,
    decode: (bytes: Buffer) => {
      if (bytes.toString() === 'shut') throw new WeirError('subject-erased', 'x');
      return bytes.toString() === 'change' ? { name: 'weir.canonical.ConsentChange', value: change } : { name: 'weir.canonical.Profile', value: { userId: 'u-7' } };
    },
  };
  const entry = { purpose: 'email-marketing', channel: 'email', topic: '', state: 'granted', expiresAt: null };
  const tables = {
    readToEnd: async () => {}, linkValues: () => [], regions: () => undefined, trusted: () => ({ ids: [own, theirs], leftOut: [] }), states: (id: string) => (id === theirs ? [entry] : 'too-many'),
    stored: (key: string) => (key === consentKey(theirs, 'email-marketing', 'email', '') ? { state: { ...entry, source: 'onetrust', changedAt: 6, proof: 'form 7', noticeVersion: 'v2', closedBy: [] } } : undefined),
  };
  const reader = { read: async (topic: string, _p: number, _f: number, _e: number, take: (batch: object) => Promise<void>) => take({ records: on[topic] }) };
  const store = { stages: (event: string) => (event === 'evt_1' ? [8, 9].map((at) => ({ stage: 'outcome', at, destination: 'crm', operation: 'send', outputId: 'out_1', state: 'delivered' })) : []) };
  const app = fastify();
  subjectRoutes(app, { subjects: () => { throw new Error('of other searches'); }, exports: () => subjects((ids) => ids, { tables, serde, reader, store }), clock, erasures: () => ({}) as never, wordsKept: async () => null });
  const answer = await app.inject({ method: 'POST', url: '/v1/subjects/export', payload: { identifier: 'userId:u-7' } });
  const lines = answer.body.trim().split('\n').map((text) => JSON.parse(text) as Record<string, unknown>);
  const at = (ms: number): string => new Date(ms).toISOString();
  const read = { at: at(5), acceptedAt: 4, source: 'onetrust', erased: false };
  expect(lines).toEqual([
    { ...read, eventId: 'evt_1', type: 'weir.canonical.Profile', record: { userId: 'u-7' } },
    { ...read, eventId: 'evt_2', type: 'weir.canonical.ConsentChange', change }, { ...read, eventId: 'evt_3', type: 'weir.canonical.ConsentChange', change }, { ...read, eventId: 'evt_4', erased: true, change: null },
    { at: at(6), state: { of: 'email', purpose: 'email-marketing', channel: 'email', topic: '', state: 'granted', source: 'onetrust', changedAt: at(6), expiresAt: null, legalBasis: null, jurisdiction: null, noticeVersion: 'v2', proof: 'form 7', closedBy: [] } },
    { at: at(9), delivery: { destination: 'crm', delivered: 2, cut: false } },
  ]);
  await app.close();
});

test('an export is told a chunk at a time, also of changes: what nobody takes is not read on', async () => {
  const record = { key: Buffer.from(own), value: Buffer.from('x'), headers: [], timestamp: 5 };
  let read = 0;
  const reader = { read: async (topic: string, _p: number, _f: number, _e: number, take: (batch: object) => Promise<void>) => { for (let i = 0; topic !== 'weir.canonical' && i < 100; i++, read++) await take({ records: [record] }); } };
  const serde = { known: () => true, decode: () => ({ name: 'weir.canonical.ConsentChange', value: { proof: 'x'.repeat(16_000) } }) };
  const found = subjects((ids) => ids, { reader, serde });
  const text = exportLines(found, await found.resolve(given, 'trusted'), clock);
  expect([((await text.next()).value as string).length < 100_000, read < 8]).toEqual([true, true]);
  await text.return(undefined);
  expect(read).toBeLessThan(8);
});

test('who takes nothing of an export for a minute gets no more of it: the search ends, and others have their turn', async () => {
  const record = { key: Buffer.from(own), value: Buffer.from('x'), headers: [], timestamp: 5 };
  let ended: unknown;
  const reader = { read: async (_topic: string, _p: number, _f: number, _e: number, take: (batch: object) => Promise<void>) => { for (let i = 0; i < 100; i++) await take({ records: [record] }).catch((error: unknown) => { ended = error; throw error; }); } };
  const serde = { known: () => true, decode: () => ({ name: 'weir.canonical.Contact', value: { proof: 'x'.repeat(16_000) } }) };
  const found = subjects((ids) => ids, { reader, serde });
  const timers = new Map<object, () => void>();
  const text = exportLines(found, await found.resolve(given, 'trusted'), { setTimer: (run) => { const timer = {}; timers.set(timer, run); return timer; }, clearTimer: (timer) => { timers.delete(timer as object); } });
  await text.next();
  await text.next();
  expect([ended, timers.size]).toEqual([undefined, 1]);
  for (const run of timers.values()) run();
  await vi.waitFor(() => { expect(String(ended)).toContain('nobody has taken the export for 60 s'); });
  await expect(text.next()).rejects.toThrow('nobody has taken the export for 60 s');
  expect(timers.size).toBe(0);
});

test('the receipt says when the words of states of consent have left weir.consent, once it is acknowledged and where the brokers say it', async () => {
  const erasure = { id: 'leaf_1', ids: [], by: 'admin', sealed: null, orderedAt: 0, state: 'erased', stoppedAt: 1, erasedAt: 5 as number | null, keysDestroyed: 0, recordsUnreadable: 0, recordsReadable: 0, readableUntil: null, rawUntil: null, deadline: 1, eventId: null, destinations: [], markedAt: 1, onlyGiven: false, forced: false, known: true, unnamed: [], everyLink: false, leftOut: [] };
  const until = async (erasedAt: number | null, config: Record<string, string>): Promise<unknown[]> => {
    const app = fastify();
    const admin = { describeTopics: async (names: readonly string[]) => names.map((name) => ({ name, partitions: 1, replicationFactor: 1, exists: true, config })) };
    const of = { ...erasure, erasedAt };
    subjectRoutes(app, { subjects: () => ({}) as never, exports: () => ({}) as never, clock, erasures: () => ({ get: () => of, list: () => [of] }) as never, wordsKept: () => compactedAfter(admin, 'weir.consent') });
    const [one, all] = [(await app.inject('/v1/erasures/leaf_1')).json() as { wordsUntil: unknown }, (await app.inject('/v1/erasures')).json() as { erasures: { wordsUntil: unknown }[] }];
    await app.close();
    return [one.wordsUntil, all.erasures[0]!.wordsUntil];
  };
  const config = { 'segment.ms': '86400000', 'max.compaction.lag.ms': '86400000' };
  expect(await until(5, config)).toEqual(['1970-01-03T00:00:00.005Z', '1970-01-03T00:00:00.005Z']);
  expect(await until(null, config)).toEqual([null, null]);
  expect(await until(5, { ...config, 'max.compaction.lag.ms': '9223372036854775807' })).toEqual([null, null]);
  expect(await until(5, { 'segment.ms': '86400000' })).toEqual([null, null]);
  expect(await compactedAfter({ describeTopics: () => Promise.reject(new Error('no broker')) }, 'weir.consent')).toBe(null);
});

test('what a link keeps of somebody who was not erased is told also beside one who was', async () => {
  const [theirs] = keyedIdsOf(workspaceKey, parseIdentifier('email:ada@larkspur.example')) as [string];
  const tables = { linkValues: () => [{ at: 7, sealed: Buffer.from('v') }] };
  const serde = { known: () => true, decode: () => ({ name: 'weir.internal.LinkedIdentifiers', value: { userId: 'u-7', email: 'ada@larkspur.example', phone: null } }) };
  const until = (id: string): number => (id === theirs ? 7 : 0);
  const found = subjects((ids) => ids, { tables, serde, keys: { erasedUntil: (ids: readonly string[]) => Math.max(...ids.map(until)), current: () => undefined } });
  expect(await found.linkValues([own, theirs])).toEqual([{ at: 7, userId: 'u-7', email: null, phone: null }]);
});

test('bytes of a link that nobody can read hold up nothing, and what an order of erasure tells destinations is read by nobody', async () => {
  const lost = { known: () => false, prepare: () => Promise.reject(new WeirError('schema-unknown', 'x')), decode: () => { throw new WeirError('schema-unknown', 'x'); } };
  const tables = { linkValues: () => [{ at: 7, sealed: Buffer.from('v') }] };
  const keys = { erasedUntil: () => 0, current: () => undefined };
  expect(await subjects((ids) => ids, { tables, serde: lost, keys }).linkValues([own])).toEqual([]);
  await expect(subjects((ids) => ids, { tables, keys, serde: { ...lost, prepare: () => Promise.reject(new WeirError('log-unavailable', 'x')) } }).linkValues([own])).rejects.toMatchObject({ code: 'log-unavailable' });
  const record = (source: string) => ({ key: Buffer.from(own), value: Buffer.from('x'), headers: [['weir-event', Buffer.from('evt_1')], ['weir-source', Buffer.from(source)]], timestamp: 1 });
  const found: unknown[] = [];
  await subjects((ids) => ids, { reader: { read: async (_t: string, _p: number, _f: number, _e: number, take: (batch: object) => Promise<void>) => take({ records: [record('weir-erasure'), record('web')] }) } }).scan([own], ({ source, value }) => { found.push([source, value !== undefined]); });
  expect(found).toEqual([['weir-erasure', false], ['web', true]]);
});

test('known is who has a key, a link, a state of consent or a mark of erasure, nobody else', () => {
  const alone = (ids: readonly string[]): readonly string[] => ids;
  expect(subjects(alone).known([own])).toBe(false);
  expect(subjects((ids) => [...ids, 'email:x']).known([own])).toBe(true);
  expect(subjects(() => undefined).known([own])).toBe(true);
  expect(subjects(alone, { keys: { erasedUntil: () => 0, current: () => ({}) } }).known([own])).toBe(true);
  expect(subjects(alone, { keys: { erasedUntil: () => 5, current: () => undefined } }).known([own])).toBe(true);
  expect(subjects(alone, { tables: { linked: alone, states: () => [{}] } }).known([own])).toBe(true);
});

test.each(['avro-undecodable', 'schema-unknown'])('a record that is %s is passed over and named, so that an erasure does not repeat its step for ever; a registry that is away stops it', async (code) => {
  const failing = (of: string) => ({ serde: { known: () => code !== 'schema-unknown', prepare: async () => { throw new WeirError(of as 'schema-unknown', 'x'); }, decode: () => { throw new WeirError(of as 'schema-unknown', 'x'); } } });
  const found: unknown[] = [];
  await subjects((ids) => ids, failing(code)).scan([own], ({ eventId, value, broken }) => { found.push([eventId, value, broken]); });
  expect(found).toEqual([['evt_1', undefined, true]]);
  await expect(subjects((ids) => ids, failing('log-unavailable')).scan([own], () => {})).rejects.toMatchObject({ code: 'log-unavailable' });
});

test('an export follows links of trusted sources alone, names in its first line what it leaves out, and takes all when it is told to', async () => {
  const [theirs] = keyedIdsOf(workspaceKey, parseIdentifier('email:ada@larkspur.example')) as [string];
  const said: [string, boolean][] = [['web', false], ['web', true], ['gone', true], ['gone', false], ['shop', false]];
  const trusted: boolean[] = [];
  const tables = {
    readToEnd: async () => {}, states: () => [], regions: () => undefined, linked: (ids: readonly string[]) => [...ids, theirs],
    trusted: (ids: readonly string[], trusts: (source: string, trusted: boolean) => boolean) => {
      trusted.push(...said.map(([source, then]) => trusts(source, then)));
      return { ids, leftOut: [theirs] };
    },
    // A link of the person with a device; its record named somebody else, too.
    linkValues: () => [{ at: 7, sealed: Buffer.from('v') }],
  };
  const serde = { known: () => true, decode: (bytes: Buffer) => (bytes.toString() === 'v' ? { name: 'weir.internal.LinkedIdentifiers', value: { userId: 'u-7', email: 'ada@larkspur.example', phone: null } } : { name: 'weir.canonical.Profile', value: { userId: 'u-7' } }) };
  const release = () => ({ sources: new Map([['web', { trustsLinks: false }], ['shop', { trustsLinks: true }]]), policy: { routes: new Map(), purposes: new Map() } });
  const app = fastify();
  subjectRoutes(app, { subjects: () => { throw new Error('of other searches'); }, exports: () => subjects((ids) => ids, { tables, serde, release }), clock, erasures: () => ({}) as never, wordsKept: async () => null });
  const ask = async (body: object): Promise<any[]> => (await app.inject({ method: 'POST', url: '/v1/subjects/export', payload: { identifier: 'userId:u-7', ...body } })).body.trim().split('\n').map((line) => JSON.parse(line));
  const lines = await ask({});
  expect(lines[0]).toEqual({ leftOut: [theirs] });
  expect(lines.filter((line) => line.link !== undefined).map((line) => line.link)).toEqual([{ userId: 'u-7', email: null, phone: null }]);
  const all = await ask({ linked: 'all' });
  expect(all.some((line) => line.leftOut !== undefined)).toBe(false);
  expect(all.filter((line) => line.link !== undefined).map((line) => line.link.email)).toEqual(['ada@larkspur.example']);
  // As the release of now says; of a source that is gone, as it was when the link was written.
  expect(trusted).toEqual([false, false, true, false, true]);
  expect((await app.inject({ method: 'POST', url: '/v1/subjects/export', payload: { identifier: 'userId:u-7', linked: 'some' } })).statusCode).toBe(400);
  await app.close();
});
