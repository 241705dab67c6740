import { createHash } from 'node:crypto';
import type { PollSource } from '@weir/adapter';
import { registry as adapters } from '@weir/adapters';
import { WeirError } from '@weir/errors';
import { createHttpClient, type HttpClient } from '@weir/http';
import { createLog, createSerde, type Appender, type GroupConsumer, type Log, type Serde } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { consentRecord } from '@weir/mapping';
import type { SourceConfig } from '@weir/release';
import { testPrefix, waitFor } from '@weir/testing';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, inject, test } from 'vitest';
import { createMetrics } from '../../services/ingest/metrics.ts';
import { createPoller, type Poller, type PollerPorts } from '../../services/ingest/poller.ts';
import { startVendor, type Vendor } from './ingest-world.ts';

let vendor: Vendor;
let log: Log;
let serde: Serde;
let appender: Appender;
let http: HttpClient;
let metrics: Registry;
let failures: unknown[];
let running: Poller[];
const topics = { current: topicNames('x') };

beforeEach(async () => {
  vendor = await startVendor();
  log = createLog({ brokers: inject('brokers'), clientId: 'test' });
  serde = createSerde({ registryUrl: inject('registryUrl') });
  await serde.start();
  topics.current = topicNames(testPrefix('poller'));
  const admin = await log.admin();
  await admin.createTopics([topics.current.raw('members'), topics.current.control, topics.current.dlq, topics.current.outcome].map((name) => ({ name, partitions: name.endsWith('control') ? 1 : 3, replicationFactor: 1, config: {} })));
  appender = await log.appender();
  await appender.partitions(topics.current.raw('members'));
  http = createHttpClient({ allowPrivate: true });
  metrics = new Registry();
  failures = [];
  running = [];
});
afterEach(async () => {
  await Promise.all(running.map((p) => p.stop()));
  await http.close();
  await log.close();
  vendor.close();
});

/** Only what is larger than a record is mapped by ingest: to find the changes of consent that nobody hears of. */
const mapping = { name: 'm', file: 'm.yaml', records: new Set<string>(), mayGive: () => undefined, direct: () => undefined, apply: () => ({ kind: 'mapped' as const, outputs: [{ name: 'said', recordType: consentRecord }] as never }) } satisfies SourceConfig['mapping'];
const member = (id: string) => ({ id, updated_at: 'a' });
const config = (more: object = {}) => ({ ...Object.fromEntries(Object.entries(adapters.get('http-poll')!.manifest.source!.config).flatMap(([k, f]) => (f.default === undefined ? [] : [[k, f.default]]))), url: vendor.url, items: 'data', every: 1, requestsPerMinute: 6000, ...more });

/** A poller on the cluster of the run; parts of what it stands on can be replaced. */
async function poll(replace: Partial<PollerPorts> = {}, more: object = {}): Promise<Poller> {
  const adapter = adapters.get('http-poll')!;
  const source: SourceConfig = { name: 'members', adapter, config: config(more), mapping, limits: adapter.manifest.source!.limits, dedupeWindowMs: 0, account: 'source:members' };
  const poller = createPoller('members', {
    log, serde, http, appender, topics: topics.current, logger: pino({ level: 'silent' }), metrics: createMetrics(metrics, () => 0), now: Date.now, monotonic: () => performance.now(), ackTimeoutMs: 5000,
    groupId: `${topics.current.prefix}.poller.members`, instance: '1', sessionMs: 3000, incidents: () => new Map(), saveIncident: () => Promise.resolve(), source: () => source, quota: { take: () => 0, finished: () => undefined }, fail: (error) => failures.push(error), ...replace,
  });
  running.push(poller);
  await poller.start();
  return poller;
}

async function written(): Promise<{ key: string; event: string }[]> {
  const found: { key: string; event: string }[] = [];
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  const topic = topics.current.raw('members');
  for (const [partition, end] of await admin.endOffsets(topic)) await reader.read(topic, partition, 0, end, (batch) => { for (const r of batch.records) found.push({ key: r.key!.toString(), event: r.headers.find(([name]) => name === 'weir-event')![1].toString() }); });
  await reader.close();
  return found;
}

async function values(topic: string): Promise<any[]> {
  const found: any[] = [];
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  for (const [partition, end] of await admin.endOffsets(topic)) await reader.read(topic, partition, 0, end, (batch) => { for (const r of batch.records) found.push(serde.decode(r.value!).value); });
  await reader.close();
  return found;
}

/** The appender, with what `veto` throws for a topic before anything of the call is taken. */
const failing = (veto: (topic: string) => void): Appender => ({
  ...appender,
  append(topic, records) {
    try {
      veto(topic);
    } catch (error) {
      return Promise.reject(error as Error);
    }
    return appender.append(topic, records);
  },
});

test('ended between the acks of a page and its cursor: the page is asked for again by the next one, and its items have the same ids', async () => {
  vendor.answer = (cursor) => (cursor === '' ? { body: { data: [member('a'), member('b')], next_cursor: 'one' } } : {});
  const saves: number[] = [];
  const first = await poll({ appender: failing((topic) => {
    if (topic !== topics.current.control) return;
    saves.push(1);
    throw new WeirError('log-append-failed');
  }) });
  await waitFor('the page is written and its cursor is not', () => saves.length > 0);
  await first.stop();
  metrics = new Registry();
  vendor.calls.length = 0;
  await poll();
  await waitFor('the next page is asked for', () => vendor.calls.includes('one'));
  expect(vendor.calls[0]).toBe('');
  const records = await written();
  expect(records.length).toBeGreaterThanOrEqual(4);
  expect(new Set(records.map((r) => r.key))).toEqual(new Set(['a', 'b']));
  expect(new Set(records.map((r) => r.event)).size).toBe(2);
  expect(failures).toEqual([]);
});

test('a cursor is not saved before its page is acknowledged: half a page written is a page asked for again', async () => {
  vendor.answer = (cursor) => (cursor === '' ? { body: { data: [member('a')], next_cursor: 'one' } } : {});
  let refusals = 0;
  await poll({ appender: failing((topic) => {
    if (topic === topics.current.raw('members') && refusals++ === 0) throw new WeirError('log-append-failed');
    if (topic === topics.current.control) expect(refusals).toBeGreaterThan(1);
  }) });
  await waitFor('it goes on by itself', () => vendor.calls.includes('one'));
  expect(vendor.calls.slice(0, 2)).toEqual(['', '']);
  expect((await written()).map((r) => r.key)).toEqual(['a']);
  expect(failures).toEqual([]);
});

test('an adapter that throws leaves cursor and process alone, and an item too large for the log becomes a dead letter while the rest of its page goes on', async () => {
  const adapter = adapters.get('http-poll')!;
  const good: SourceConfig = { name: 'members', adapter, config: config(), mapping, limits: adapter.manifest.source!.limits, dedupeWindowMs: 0, account: 'source:members' };
  const bug: SourceConfig = { ...good, adapter: { ...adapter, source: { ...adapter.source!, classify: () => { throw new TypeError('bug'); } } as PollSource } };
  const huge = { id: 'huge', pad: 'x'.repeat(1_950_000) };
  let source = bug;
  vendor.answer = (cursor) => (source === bug ? { status: 500 } : cursor === '' ? { body: { data: [member('a'), huge, member('b')], next_cursor: 'one' } } : {});
  const roomy = createHttpClient({ allowPrivate: true, maxResponseBytes: 4_000_000 });
  await poll({ http: roomy, source: () => source });
  await waitFor('the bug was met', async () => (await metrics.metrics()).includes('result="invariant-broken"'));
  source = good;
  await waitFor('it goes on', () => vendor.calls.includes('one'));
  expect(vendor.calls.slice(0, 3)).toEqual(['', '', 'one']);
  expect((await written()).map((r) => r.key).sort()).toEqual(['a', 'b']);
  expect(await metrics.metrics()).toContain('weir_ingest_oversized_items_total{source="members"} 1');
  const bytes = JSON.stringify(huge);
  const [letter] = await values(topics.current.dlq);
  expect(letter).toMatchObject({ stage: 'ingest', source: 'members', topic: topics.current.raw('members'), offset: -1, reasons: [{ code: 'item-too-large', message: `item 2 of 3 of a page has ${bytes.length} bytes, a record takes 1900000; SHA-256 ${createHash('sha256').update(bytes).digest('hex')}; kept are its first 65536 bytes` }, { code: 'consent-unresolved' }] });
  expect(letter.value.toString()).toBe(bytes.slice(0, 65_536));
  expect(await values(topics.current.outcome)).toMatchObject([{ eventId: letter.eventId, state: 'dead-lettered', reason: 'item-too-large', stage: 'ingest' }]);
  expect(failures).toEqual([]);
  await roomy.close();
});

test('an absurd Retry-After pauses, it does not turn into a call without end', async () => {
  vendor.answer = () => ({ status: 429, headers: { 'retry-after': '999999999999' } });
  await poll();
  await waitFor('it was refused', () => vendor.calls.length === 1);
  // A timer over 2^31 ms ends at once: another call would come within milliseconds.
  await new Promise((done) => setTimeout(done, 500));
  expect(vendor.calls).toHaveLength(1);
});

test('calls keep to the quota while there is more', async () => {
  let page = 0;
  vendor.answer = () => ({ body: { data: [member(String(page))], next_cursor: String(++page) } });
  await poll({}, { requestsPerMinute: 300 });
  await waitFor('it has begun', () => vendor.calls.length > 0);
  const began = performance.now();
  const before = vendor.calls.length;
  await waitFor('ten more calls', () => vendor.calls.length >= before + 10);
  expect(performance.now() - began).toBeGreaterThan(1800);
});

test('a lease that was only late in being renewed comes back, and polling with it, from the saved cursor', async () => {
  vendor.answer = (cursor) => (cursor === '' ? { body: { data: [member('a')], next_cursor: 'one' } } : {});
  let late = false;
  await poll({ log: { ...log, consumer: (options) => {
    const consumer: GroupConsumer = log.consumer(options);
    return { ...consumer, holds: (...args) => !late && consumer.holds(...args) };
  } } });
  await waitFor('it polls', () => vendor.calls.includes('one'));
  late = true;
  await waitFor('it has noticed', async () => (await metrics.metrics()).includes('result="lost"'));
  vendor.calls.length = 0;
  late = false;
  await waitFor('it polls again', () => vendor.calls.length > 1);
  expect(new Set(vendor.calls)).toEqual(new Set(['one']));
});

test('a stop does not wait for a call under way, and nothing of it is kept', async () => {
  vendor.hold = true;
  const poller = await poll();
  await waitFor('a call is under way', () => vendor.held.length === 1);
  // A stop that waited for the call would take its whole deadline, which is longer than a leave that nobody answers.
  const began = performance.now();
  await poller.stop();
  expect(performance.now() - began).toBeLessThan(25_000);
  vendor.held[0]!.end(JSON.stringify({ data: [member('late')], next_cursor: 'late' }));
  vendor.hold = false;
  metrics = new Registry();
  await poll();
  await waitFor('the next one asks anew', () => vendor.calls.length > 1);
  expect(vendor.calls.slice(0, 2)).toEqual(['', '']);
  expect(await written()).toEqual([]);
});
