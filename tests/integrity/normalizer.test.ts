/** The normalizer and the release feed on a real broker and registry: what must not stop them, and what must. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Adapter } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { createLog, createSerde, type Appender, type Log, type LogRecord } from '@weir/log';
import { groupNames, H, itemHash, keyedId, topicNames } from '@weir/pipeline';
import { applyRelease, compileRelease, createReleaseFeed, releaseHash, saveSwitch, type Release, type ReleaseFeed } from '@weir/release';
import { systemClock, type Service, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { testPrefix, waitFor } from '@weir/testing';
import { openVault } from '@weir/vault';
import { Registry } from 'prom-client';
import { afterEach, beforeAll, beforeEach, expect, inject, test } from 'vitest';
import { createNormalizer } from '../../services/normalizer/app.ts';

const workspaceKey = Buffer.alloc(32, 7);
const idOf = (type: string, value: string): string => `${type}:${keyedId(workspaceKey, type, value)}`;
const adapters = new Map([['shop', { manifest: { name: 'shop', title: 'Shop', docs: '', apiVersion: '1', source: { config: {}, limits: { bodyBytes: 2_000_000, items: 10, depth: 16 }, retryHorizonMs: 1 } }, source: { kind: 'webhook' } } as unknown as Adapter]]);
const mapping = `mapping: shop
drop: [ { name: heartbeat, when: { path: type, equals: ping } } ]
outputs:
  profile:
    record: Profile
    objectKey: id
    fields:
      userId: id
      email: email
      externalIds: { each: ids, fields: { type: { const: shop }, value: $item } }
  order:
    record: Order
    each: orders
    objectKey: $item.id
    fields: { userId: id, orderId: $item.id, status: { const: completed }, total: { from: $item.total, pipe: [number] }, tax: { from: $item.tax, pipe: [number] } }
  consent:
    record: ConsentChange
    when: { path: news, exists: true }
    fields: { userId: id, email: email, purpose: { const: news }, state: { from: news } }
`;
const filesOf = (sources: readonly string[], doc = ''): { path: string; content: string }[] => [
  { path: 'weir.yaml', content: `name: acme\ndoc: "${doc}"\n` }, { path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Letters. }\n' }, { path: 'mappings/shop.yaml', content: mapping },
  ...sources.map((name) => ({ path: `sources/${name}.yaml`, content: 'adapter: shop\nmapping: shop.yaml\n' })),
];
const releaseOf = (sources: readonly string[], doc?: string): Release => compileRelease(filesOf(sources, doc), { adapters });

let dir: string;
let log: Log;
let appender: Appender;
let prefix: string;
let topics: ReturnType<typeof topicNames>;
let shared: ReturnType<typeof createSerde>;
const running: { stop(): Promise<void> }[] = [];

beforeAll(async () => {
  shared = createSerde({ registryUrl: inject('registryUrl') });
  await shared.start();
});
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weir-normalizer-'));
  prefix = testPrefix('norm');
  topics = topicNames(prefix);
  log = createLog({ brokers: inject('brokers'), clientId: prefix });
  const admin = await log.admin();
  const names = [topics.raw('web'), topics.raw('till'), topics.canonical, topics.consentChanges, topics.identity, topics.outcome, topics.dlq];
  const config = { 'max.message.bytes': '2097152' };
  await admin.createTopics([...names.map((name) => ({ name, partitions: 2, replicationFactor: 1, config })), { name: topics.control, partitions: 1, replicationFactor: 1, config }]);
  appender = await log.appender();
  for (const name of [...names, topics.control]) await appender.partitions(name);
});
afterEach(async () => {
  for (const one of running.splice(0)) await one.stop();
  await log.close();
  rmSync(dir, { recursive: true, force: true });
});

let count = 0;
/** Appends an item as ingest does; all in one partition, so that order can be seen. */
async function raw(source: string, item: unknown, event = `evt_${String(++count).padStart(32, '0')}`): Promise<string> {
  const value = Buffer.isBuffer(item) ? item : Buffer.from(JSON.stringify(item));
  const headers: [string, Buffer][] = [[H.event, event], [H.hash, itemHash(value)], [H.source, source], [H.accepted, '1700000000000'], [H.traceparent, `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`]].map(([k, v]) => [k!, Buffer.from(v!)]);
  await appender.append(topics.raw(source), [{ partition: 0, key: Buffer.from('k'), value, headers }]);
  return event;
}

interface Running { readonly service: Service; readonly change: (release: Release) => void; stop(): Promise<void> }
async function normalizer(release: Release, options: { wrap?: (log: Log) => Log; stateDir?: string } = {}): Promise<Running> {
  const own = createLog({ brokers: inject('brokers'), clientId: `${prefix}-normalizer` });
  let current = release;
  const listeners = new Set<(release: Release) => void>();
  const releases: ReleaseFeed = { current: () => current, incidents: () => new Map(), switches: () => new Map(), reserves: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, onChange: (listener) => { listeners.add(listener); return () => listeners.delete(listener); }, close: async () => {} };
  const context: ServiceContext = {
    name: 'normalizer', config: {} as never, log: (options.wrap ?? ((l) => l))(own), serde: shared, topics, groups: groupNames(prefix), releases, vault: openVault({ dataDir: dir, env: {} }), workspaceKey,
    logger: createLogger({ service: 'normalizer', level: 'silent' }), registry: new Registry(), clock: systemClock, stateDir: options.stateDir ?? mkdtempSync(join(dir, 'state-')),
  };
  const service = createNormalizer(context, { sessionTimeoutMs: 6000 });
  await service.start();
  let stopped: Promise<void> | undefined;
  const one: Running = { service, change: (next) => { current = next; for (const l of listeners) l(next); }, stop: () => (stopped ??= service.stop().then(() => own.close())) };
  running.push(one);
  return one;
}

interface Decoded { readonly key: string; readonly name: string; readonly value: any; readonly headers: Record<string, string> }
async function all(topic: string): Promise<Decoded[]> {
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  const found: Decoded[] = [];
  const take = (r: LogRecord): void => { if (r.value !== null) found.push({ key: r.key?.toString() ?? '', ...shared.decode(r.value), headers: Object.fromEntries(r.headers.map(([k, v]) => [k, v.toString()])) }); };
  for (const [partition, end] of await admin.endOffsets(topic)) if (end > 0) await reader.read(topic, partition, 0, end, (batch) => batch.records.forEach(take));
  await reader.close();
  return found;
}
const endOf = (event: string) => waitFor(`the end of ${event}`, async () => (await all(topics.outcome)).find((o) => o.value.eventId === event)?.value);
const lettersOf = async (event: string) => (await all(topics.dlq)).filter((l) => l.value.eventId === event).map((l) => l.value);
const canonicalOf = (event: string) => waitFor(`the records of ${event}`, async () => {
  const found = (await all(topics.canonical)).filter((r) => r.headers[H.event] === event);
  return found.length > 0 && found;
});

test('a withdrawal behind a backlog closes before its turn, under an id of its own, the last of several; at its turn all comes as ever, and a grant, another body and all else keep their order', async () => {
  const gate = Promise.withResolvers<void>();
  const held = (whole: Log): Log => ({ ...whole, appender: async (options) => {
    const one = await whole.appender(options);
    return { ...one, append: async (topic, records) => { if (topic === topics.canonical) await gate.promise; return one.append(topic, records); } };
  } });
  const fill = async (n: number): Promise<void> => {
    const headers = (i: number): [string, Buffer][] => [[H.event, `evt_fill${n}_${i}`], [H.hash, itemHash(Buffer.from('{}'))], [H.source, 'web'], [H.accepted, '1700000000000'], [H.traceparent, `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`]].map(([k, v]) => [k!, Buffer.from(v!)]);
    await appender.append(topics.raw('web'), Array.from({ length: n }, (_, i) => ({ partition: 0, key: Buffer.from('k'), value: Buffer.from(`{"id":"f${i}"}`), headers: headers(i) })));
  };
  await fill(12_000);
  await fill(11_000);
  const first = await raw('web', { id: 'u1', email: 'ann@larkspur.example', news: 'denied' });
  const no = await raw('web', { id: 'u1', email: 'ann@larkspur.example', news: 'withdrawn' });
  await raw('web', { id: 'u1', email: 'ann@larkspur.example', news: 'denied' }, no);
  const yes = await raw('web', { id: 'u2', email: 'bo@larkspur.example', news: 'granted' });
  const one = await normalizer(releaseOf(['web']), { wrap: held });
  const changes = async (of: string): Promise<string[][]> => (await all(topics.consentChanges)).filter(({ key }) => key === idOf('email', `${of}@larkspur.example`)).map(({ headers, value }) => [headers[H.event]!, value.state, headers[H.output]!, headers[H.mapping]!]);
  const early = await waitFor('the withdrawal is written', async () => {
    const found = await changes('ann');
    return found.length > 0 && found;
  });
  expect([(await all(topics.canonical)).length, await changes('bo')]).toEqual([0, []]);
  expect(early).toEqual([[no, 'withdrawn', expect.any(String), 'weir:ahead']]);
  gate.resolve();
  await canonicalOf(yes);
  const [ahead, ...turn] = await changes('ann');
  expect(turn.map(([event, state, , mapping]) => [event, state, mapping])).toEqual([[first, 'denied', 'shop'], [no, 'withdrawn', 'shop'], [no, 'denied', 'weir:quarantine']]);
  expect(new Set([ahead!, ...turn].map(([, , output]) => output)).size).toBe(4);
  expect((await changes('bo')).map(([event, state, , mapping]) => [event, state, mapping])).toEqual([[yes, 'granted', 'shop']]);
  expect((await lettersOf(no)).map((letter) => letter.reasons[0].code)).toEqual(['event-conflict']);
  await one.stop();
});

test('items made to be too much are dead letters with their bytes, and what stands behind them goes on', async () => {
  const { service } = await normalizer(releaseOf(['web']));
  let stopped: Error | undefined;
  void service.failed.then((error) => { stopped = error; });
  const wide = Buffer.from(`{"id":"a","ids":[${Array.from({ length: 5000 }, (_, i) => i).join()}]}`);
  const failing = Buffer.from(`{"id":"b","orders":[${Array.from({ length: 900 }, (_, i) => `{"id":${i},"total":"x","tax":"y"}`).join()}]}`);
  const many = Buffer.from(`{"id":"c","orders":[${Array.from({ length: 20_000 }, (_, i) => `{"id":${i}}`).join()}]}`);
  const grown = Buffer.from(`{"id":"d","more":[${Array(300_000).fill('1e20').join()}]}`);
  const big = Buffer.from(JSON.stringify({ id: `e${'x'.repeat(1_100_000)}` }));
  const broken = Buffer.from('{"id":');
  const events = [];
  for (const item of [wide, failing, many, big, broken]) events.push([await raw('web', item), item] as const);
  const kept = await raw('web', grown);
  const behind = await raw('web', { id: 'last' });
  expect((await canonicalOf(behind))[0]!.value).toMatchObject({ userId: 'last' });
  for (const [event, bytes] of events) {
    expect(await endOf(event)).toMatchObject({ state: 'dead-lettered', stage: 'normalizer' });
    const [letter] = await lettersOf(event);
    expect(letter.value.equals(bytes)).toBe(true);
    expect(letter.reasons.length).toBeGreaterThan(0);
    expect(letter.reasons.length).toBeLessThanOrEqual(101);
  }
  expect((await lettersOf(events[1]![0]))[0].reasons[100].message).toBe('and 1700 more reasons');
  expect((await canonicalOf(kept))[0]!.value.extras).toBe('{"$omitted":1}');
  expect(stopped).toBeUndefined();
});

test('consent changes and links are in the log before the records that name their positions; a dropped item says why', async () => {
  await normalizer(releaseOf(['web']));
  const event = await raw('web', { id: 'u1', email: 'Ann@Example.com', news: 'withdrawn', orders: [{ id: 1, total: 2 }] });
  const ping = await raw('web', { type: 'ping' });
  const records = await canonicalOf(event);
  expect(records.map((r) => r.name).sort()).toEqual(['weir.canonical.ConsentChange', 'weir.canonical.Order', 'weir.canonical.Profile']);
  expect(new Set(records.map((r) => r.key))).toEqual(new Set([idOf('userId', 'u1')]));
  const changes = await all(topics.consentChanges);
  expect(changes.map((c) => c.key).sort()).toEqual([idOf('email', 'ann@example.com'), idOf('userId', 'u1')].sort());
  const stamped: number[] = [];
  const reader = await log.reader();
  for (const [partition, end] of await (await log.admin()).endOffsets(topics.raw('web'))) if (end > 0) await reader.read(topics.raw('web'), partition, 0, end, (batch) => { for (const r of batch.records) if (r.headers.some(([name, value]) => name === H.event && value.toString() === event)) stamped.push(r.timestamp); });
  await reader.close();
  expect(changes.map((c) => Number(c.headers[H.logged]))).toEqual([stamped[0], stamped[0]]);
  const links = await all(topics.identity);
  expect(links.map((l) => l.key)).toEqual([[idOf('userId', 'u1'), idOf('email', 'ann@example.com')].sort().join('~')]);
  for (const record of records) {
    expect(record.headers[H.afterConsent]).toMatch(/^\d+:\d+(,\d+:\d+)*$/);
    expect(record.headers[H.afterIdentity]).toMatch(/^\d+:\d+$/);
  }
  expect(await endOf(ping)).toMatchObject({ state: 'dropped', reason: 'heartbeat' });
});

test('the same id with another body is quarantined, also by an instance that lost its memory; the same body passes', async () => {
  const first = await normalizer(releaseOf(['web']));
  const event = await raw('web', { id: 'u1', email: 'a@example.com' });
  await canonicalOf(event);
  await raw('web', { id: 'u1', email: 'b@example.com' }, event);
  expect(await endOf(event)).toMatchObject({ state: 'quarantined', reason: 'event-conflict' });
  await first.stop();
  await raw('web', { id: 'u1', email: 'c@example.com' }, event);
  await raw('web', { id: 'u1', email: 'a@example.com' }, event);
  await normalizer(releaseOf(['web']));
  await waitFor('two records and two letters', async () => (await canonicalOf(event)).length === 2 && (await lettersOf(event)).length === 2);
  expect((await canonicalOf(event)).map((r) => r.value.email)).toEqual(['a@example.com', 'a@example.com']);
  expect((await lettersOf(event)).map((l) => JSON.parse(l.value.toString()).email).sort()).toEqual(['b@example.com', 'c@example.com']);
});

test('event ids that take longer to read than the group waits for a handler end no process, also through a rebalance: nothing is normalised before they are read, and what came before is known then', async () => {
  const first = await normalizer(releaseOf(['web']));
  const event = await raw('web', { id: 'u1', email: 'a@example.com' });
  await canonicalOf(event);
  await first.stop();
  const rebalanceTimeoutMs = 6000;
  const read = Promise.withResolvers<void>();
  const slow = (own: Log): Log => ({
    ...own,
    consumer: (o) => own.consumer({ ...o, rebalanceTimeoutMs }),
    reader: async (o) => {
      const real = await own.reader(o);
      return { ...real, read: (topic, ...rest) => (topic === topics.raw('web') ? read.promise.then(() => real.read(topic, ...rest)) : real.read(topic, ...rest)) };
    },
  });
  const ended: Error[] = [];
  // The second joins while the first reads: that gives its partitions back in time.
  const both = [];
  for (let n = 0; n < 2; n++) {
    const one = await normalizer(releaseOf(['web']), { wrap: slow });
    void one.service.failed.then((error) => ended.push(error));
    both.push(one);
  }
  await raw('web', { id: 'u1', email: 'b@example.com' }, event);
  const behind = await raw('web', { id: 'u2' });
  const began = performance.now();
  await waitFor('longer than a handler may take', () => performance.now() - began > 2 * rebalanceTimeoutMs);
  expect(ended).toEqual([]);
  expect(both.map(({ service }) => service.readiness().reason ?? '').filter((reason) => reason.startsWith(`reading event ids of ${topics.raw('web')}/0: 0 of 1 `))).toHaveLength(1);
  expect((await all(topics.canonical)).filter((r) => r.headers[H.event] === behind)).toEqual([]);
  read.resolve();
  await canonicalOf(behind);
  expect(await endOf(event)).toMatchObject({ state: 'quarantined', reason: 'event-conflict' });
  expect(ended).toEqual([]);
});

test('items of a source that the release does not have any more end as dead letters, and nothing waits for ever', async () => {
  const late = await raw('till', { id: 'x' });
  const { change } = await normalizer(releaseOf(['web']));
  expect(await endOf(late)).toMatchObject({ state: 'dead-lettered', reason: 'source-retired' });
  change(releaseOf(['till'], 'second'));
  const event = await raw('till', { id: 'y' });
  expect((await canonicalOf(event))[0]!.headers[H.release]).toBe(releaseOf(['till'], 'second').hash);
});

test('when a dead letter cannot be written the service stops without a commit, and the next one ends the item', async () => {
  const wrap = (own: Log): Log => ({ ...own, appender: async (o) => {
    const real = await own.appender(o);
    return { ...real, append: (topic, records) => (topic === topics.dlq && records.length > 0 ? Promise.reject(new Error('no dead letters today')) : real.append(topic, records)) };
  } });
  const first = await normalizer(releaseOf(['web']), { wrap });
  const event = await raw('web', Buffer.from('{'));
  expect((await first.service.failed).message).toBe('no dead letters today');
  await first.stop();
  const admin = await log.admin();
  expect((await admin.committed(groupNames(prefix).normalizer, topics.raw('web'))).get(0) ?? 0).toBe(0);
  expect(await all(topics.outcome)).toEqual([]);
  await normalizer(releaseOf(['web']));
  expect(await endOf(event)).toMatchObject({ state: 'dead-lettered', reason: 'item-undecodable' });
});

test('a release goes round through the log; one that is not what its hash says, or no release at all, is refused and the one before goes on', async () => {
  const apply = (release: Release) => applyRelease({ appender, serde: shared, topic: topics.control, release, by: 'test', message: null, now: 1, leaf: 'leaf' });
  const first = releaseOf(['web']);
  await apply(first);
  const errors: string[] = [];
  const logger = { info: () => undefined, error: (_: unknown, message: string) => { errors.push(message); } } as never;
  const feed = await createReleaseFeed({ log, serde: shared, topic: topics.control, adapters, workspaceKey: Buffer.alloc(32), logger });
  running.push({ stop: () => feed.close() });
  expect(feed.current().hash).toBe(first.hash);
  expect(feed.current().files).toEqual(first.files);

  const forged = releaseOf(['web', 'till']);
  await apply({ ...forged, files: filesOf(['web', 'till'], 'changed on the way') });
  await waitFor('the refusal', () => errors.includes('release refused'));
  expect(feed.current().hash).toBe(first.hash);
  await appender.append(topics.control, [{ partition: 0, key: Buffer.from('release/current'), value: Buffer.from('garbage') }]);
  await waitFor('the garbage is left out', () => errors.includes('not a release'));

  const third = releaseOf(['till'], 'third');
  expect(third.hash).toBe(releaseHash(third.files));
  const changed: string[] = [];
  feed.onChange((release) => changed.push(release.hash));
  await apply(third);
  await waitFor('the third release runs', () => feed.current().hash === third.hash);
  expect(changed).toEqual([third.hash]);
  // Who began under another release is told at once of the one that runs.
  feed.onChange((release) => changed.push(`began before ${release.hash}`), first);
  feed.onChange((release) => changed.push(`began under ${release.hash}`), feed.current());
  expect(changed).toEqual([third.hash, `began before ${third.hash}`]);
});

test('a feed that fails on the way goes on by itself, without missing a release', async () => {
  const apply = (release: Release) => applyRelease({ appender, serde: shared, topic: topics.control, release, by: 'test', message: null, now: 1, leaf: 'leaf' });
  await apply(releaseOf(['web']));
  let failures = 0;
  const away = { ...shared, prepare: (bytes: Buffer) => (++failures <= 2 ? Promise.reject(new WeirError('log-unavailable')) : shared.prepare(bytes)) };
  let armed = false;
  const errors: string[] = [];
  const logger = { info: () => undefined, error: (_: unknown, message: string) => { errors.push(message); } } as never;
  const feed = await createReleaseFeed({ log, serde: { ...shared, prepare: (bytes) => (armed ? away : shared).prepare(bytes) }, topic: topics.control, adapters, workspaceKey: Buffer.alloc(32), logger });
  running.push({ stop: () => feed.close() });
  armed = true;
  const next = releaseOf(['till'], 'next');
  await apply(next);
  await waitFor('the next release runs', () => feed.current().hash === next.hash);
  expect(errors).toHaveLength(2);
});

test('a feed whose topic was made anew follows the new one by itself, without the old one\'s position', async () => {
  const apply = (by: Appender, release: Release) => applyRelease({ appender: by, serde: shared, topic: topics.control, release, by: 'test', message: null, now: 1, leaf: 'leaf' });
  const pause = (by: Appender, destination: string, at: number) => saveSwitch({ appender: by, serde: shared, topic: topics.control, change: { destination, paused: true, reason: null, by: 'test', at }, leaf: 'leaf' });
  for (const name of ['a', 'b', 'c', 'd']) await apply(appender, releaseOf(['web'], name));
  await pause(appender, 'crm', 1);
  const logger = { info: () => undefined, warn: () => undefined, error: () => undefined } as never;
  const feed = await createReleaseFeed({ log, serde: shared, topic: topics.control, adapters, workspaceKey: Buffer.alloc(32), logger });
  running.push({ stop: () => feed.close() });
  expect(feed.position()).toBe(9);
  const admin = await log.admin();
  await admin.deleteTopics([topics.control]);
  await waitFor('the topic is gone', async () => !(await admin.listTopics()).includes(topics.control));
  await admin.createTopics([{ name: topics.control, partitions: 1, replicationFactor: 1, config: { 'max.message.bytes': '2097152' } }]);
  const next = releaseOf(['till'], 'made anew');
  const fresh = await log.appender();
  await fresh.partitions(topics.control);
  await apply(fresh, next);
  await waitFor('the release on the new topic runs', () => feed.current().hash === next.hash, 60_000);
  await waitFor('what is known is new', () => feed.ageMs() < 5000);
  expect([feed.switches().get('crm')?.paused, feed.position()]).toEqual([true, 2]);
  await waitFor('it is followed', () => feed.trouble() === undefined);
  await pause(fresh, 'mail', 2);
  await waitFor('a switch on the new topic is read', () => feed.switches().get('mail')?.paused === true);
}, 120_000);

test('a release that does not fit into a record is refused before anything is written', async () => {
  const release = releaseOf(['web']);
  const files = [...release.files, ...Array.from({ length: 8 }, (_, i) => ({ path: `policies/p${i}.yaml`, content: `# ${'x'.repeat(250_000)}` }))];
  await expect(applyRelease({ appender, serde: shared, topic: topics.control, release: { ...release, files }, by: 'test', message: null, now: 1, leaf: 'leaf' })).rejects.toMatchObject({ code: 'workspace-invalid' });
  expect(await all(topics.control)).toEqual([]);
});
