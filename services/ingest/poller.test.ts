import type { HttpResponse } from '@weir/adapter';
import { registry as adapters } from '@weir/adapters';
import { WeirError } from '@weir/errors';
import { arm, disarm } from '@weir/failpoint';
import type { OutRecord } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { topicNames } from '@weir/pipeline';
import type { Incident, SourceConfig } from '@weir/release';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createMetrics } from './metrics.ts';
import { createPoller, type PollerPorts } from './poller.ts';

beforeEach(() => { vi.useFakeTimers(); });
afterEach(() => { vi.useRealTimers(); });

const topics = topicNames('t');

/** A poller that holds its lease, over a log in memory and a vendor that answers as told, on a clock that is moved. */
async function world(answer: (cursor: string) => unknown, over: { config?: object; control?: readonly OutRecord[] } = {}) {
  const adapter = adapters.get('http-poll')!;
  const config = { ...Object.fromEntries(Object.entries(adapter.manifest.source!.config).flatMap(([k, f]) => (f.default === undefined ? [] : [[k, f.default]]))), url: 'https://vendor.example/members', items: 'data', every: 1, requestsPerMinute: 6000, ...over.config };
  const source: SourceConfig = { name: 'members', adapter, config, mapping: { name: 'm', file: 'm.yaml', records: new Set<string>(), mayGive: () => undefined, direct: () => undefined, apply: () => ({ kind: 'mapped', outputs: [{ name: 'said', recordType: consentRecord }] as never }) }, limits: adapter.manifest.source!.limits, dedupeWindowMs: 0, account: 'source:members' };
  const records = new Map<string, OutRecord[]>();
  const incidents: Incident[] = [];
  const state = { away: false, status: 200, source };
  const calls: string[] = [];
  const paths: string[] = [];
  const lines: string[] = [];
  const append: PollerPorts['appender']['append'] = (topic, list) => {
    if (state.away) return Promise.reject(new WeirError('log-append-failed'));
    records.set(topic, [...records.get(topic) ?? [], ...list]);
    return Promise.resolve(list.map((_, i) => i));
  };
  const poller = createPoller('members', {
    log: {
      consumer: ({ handlers }: any) => ({ pause() {}, holds: () => true, start: () => handlers.assigned([{ topic: topics.raw('members'), partition: 0, epoch: 1, position: 0 }]), close: () => handlers.revoked([], 'close') }),
      admin: () => Promise.resolve({ endOffsets: () => Promise.resolve(new Map()), close: () => Promise.resolve() }), reader: () => Promise.resolve({ read: (_topic: string, _partition: number, _from: number, _end: number, take: (batch: object) => void) => Promise.resolve(take({ records: over.control ?? [] })), close: () => Promise.resolve() }),
    } as never,
    serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)), prepare: () => Promise.resolve(), decode: (bytes: Buffer) => ({ value: JSON.parse(bytes.toString()) }) } as never,
    http: { call: (request: { url: string }) => {
      calls.push(new URL(request.url).searchParams.get('cursor') ?? '');
      paths.push(new URL(request.url).pathname);
      return Promise.resolve({ status: state.status, headers: {}, body: Buffer.from(JSON.stringify(answer(calls.at(-1)!))) } satisfies HttpResponse);
    } } as never,
    appender: { append, partitionFor: () => 0, partitions: () => Promise.resolve(1) } as never,
    topics, logger: pino({ level: 'warn' }, { write: (line: string) => { lines.push(line); } }), metrics: createMetrics(new Registry(), () => 0), now: Date.now, monotonic: () => Date.now(), ackTimeoutMs: 5000, groupId: 'g', instance: '1', sessionMs: 3000,
    incidents: () => new Map(), saveIncident: (incident) => Promise.resolve(void incidents.push(incident)), source: () => state.source, quota: { take: () => 0, finished: () => undefined }, fail: (error) => { throw error; },
  });
  await poller.start();
  return { state, records, incidents, calls, paths, lines, poller, keys: () => (records.get(topics.raw('members')) ?? []).map((r) => r.key!.toString()) };
}
const member = (id: string, pad = '') => ({ id, updated_at: 'a', pad });

test('a page that is none is asked for again and never skipped; the fifth time in a row is an incident, the first page taken ends it', async () => {
  let page: unknown = { data: 'none' };
  const w = await world((cursor) => (cursor === '' ? page : { data: [] }));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(w.incidents).toMatchObject([{ destination: 'source/members', code: 'body-malformed', until: null }]);
  expect([w.keys(), new Set(w.calls)]).toEqual([[], new Set([''])]);
  page = { data: [member('a')], next_cursor: 'one' };
  await vi.advanceTimersByTimeAsync(300_000);
  expect(w.incidents.slice(1)).toMatchObject([{ destination: 'source/members', until: expect.any(Number) }]);
  expect([w.keys(), w.calls.at(-1)]).toEqual([['a'], 'one']);
  await w.poller.stop();
});

test('a page that is refused for good is an incident from the fifth time on: tried again without a word, nobody would look', async () => {
  const w = await world((cursor) => (cursor === '' ? { data: [member('a')], next_cursor: 'one' } : { data: [] }));
  await vi.advanceTimersByTimeAsync(1);
  w.state.status = 410;
  await vi.advanceTimersByTimeAsync(230_000);
  expect([w.calls, w.incidents]).toEqual([['', 'one', 'one', 'one', 'one'], []]);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(w.incidents).toMatchObject([{ destination: 'source/members', code: 'delivery-rejected', until: null }]);
  w.state.status = 200;
  await vi.advanceTimersByTimeAsync(300_000);
  expect(w.incidents.slice(1)).toMatchObject([{ destination: 'source/members', until: expect.any(Number) }]);
  expect([w.keys(), new Set(w.calls)]).toEqual([['a'], new Set(['', 'one'])]);
  await w.poller.stop();
});

const letGo = (w: { readonly lines: readonly string[] }): number => w.lines.filter((line) => line.includes('its cursor is let go')).length;

test('a cursor of other settings counts as none: a position in one list skips items of another', async () => {
  const first = await world((cursor) => (cursor === '' ? { data: [member('a')], next_cursor: 'one' } : { data: [] }));
  await vi.advanceTimersByTimeAsync(10_000);
  // A release that comes while the poller runs.
  first.state.source = { ...first.state.source, config: { ...first.state.source.config, path: '/a' } };
  const before = first.calls.length;
  await vi.advanceTimersByTimeAsync(1000);
  expect([first.calls[before], first.paths[before], letGo(first)]).toEqual(['', '/members/a', 1]);
  await vi.advanceTimersByTimeAsync(10_000);
  await first.poller.stop();
  const control = first.records.get(topics.control)!;
  for (const [path, cursor, times] of [['/a', 'one', 0], ['/b', '', 1]] as const) {
    const next = await world(() => ({ data: [] }), { control, config: { path } });
    await vi.advanceTimersByTimeAsync(10_000);
    expect([next.calls[0], next.paths[0], letGo(next)]).toEqual([cursor, `/members${path}`, times]);
    await next.poller.stop();
  }
});

test('a cursor that a version before has saved is kept, and from its first page on it belongs to the settings of now', async () => {
  const control = [{ partition: 0, key: Buffer.from('cursor/members'), value: Buffer.from(JSON.stringify({ cursor: '{"token":"one"}' })) }];
  const kept = await world(() => ({ data: [] }), { control });
  await vi.advanceTimersByTimeAsync(10_000);
  await kept.poller.stop();
  expect([new Set(kept.calls), letGo(kept)]).toEqual([new Set(['one']), 0]);
  expect(kept.records.get(topics.control)).toHaveLength(1);
  const other = await world(() => ({ data: [] }), { control: kept.records.get(topics.control)!, config: { path: '/b' } });
  await vi.advanceTimersByTimeAsync(10_000);
  await other.poller.stop();
  expect(other.calls[0]).toBe('');
});

test('a log that is away is no incident of the source, and an item too large is set aside before the cursor goes on', async () => {
  const w = await world((cursor) => (cursor === '' ? { data: [member('a'), member('huge', 'x'.repeat(1_950_000))], next_cursor: 'one' } : {}));
  w.state.away = true;
  await vi.advanceTimersByTimeAsync(120_000);
  expect([w.incidents, new Set(w.calls), w.records.size]).toEqual([[], new Set(['']), 0]);
  w.state.away = false;
  await vi.advanceTimersByTimeAsync(300_000);
  expect([...w.records.keys()].slice(0, 4)).toEqual([topics.dlq, topics.outcome, topics.raw('members'), topics.control]);
  expect([w.keys(), w.records.get(topics.dlq)!.length, w.calls.at(-1)]).toEqual([['a'], 1, 'one']);
  const letter = JSON.parse(w.records.get(topics.dlq)![0]!.value!.toString());
  // A letter of the raw topic is shown to nobody when it is, or may be, of an erased person; half an item is never put back.
  expect([letter.topic, letter.offset]).toEqual([topics.raw('members'), -1]);
  expect(() => JSON.parse(Buffer.from(letter.value).toString())).toThrow('JSON');
  // Who it is about may still be sent to: that is told as any change of consent that binds nobody.
  expect(letter.reasons.map((r: { code: string }) => r.code)).toEqual(['item-too-large', 'consent-unresolved']);
  await w.poller.stop();
});

test.each(['poller.page-fetched', 'poller.produced'] as const)('%s is passed for pages with items only: a kill at an empty one would strike nothing in hand', async (point) => {
  const passed: string[] = [];
  arm(`${point}:1`, (name) => passed.push(name));
  try {
    const w = await world(() => ({ data: [], next_cursor: 'one' }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect([w.calls.at(-1), passed]).toEqual(['one', []]);
    await w.poller.stop();
    const other = await world((cursor) => (cursor === '' ? { data: [member('a')], next_cursor: 'one' } : { data: [] }));
    await vi.advanceTimersByTimeAsync(10_000);
    expect([other.keys(), passed]).toEqual([['a'], [point]]);
    await other.poller.stop();
  } finally {
    disarm();
  }
});

test('a depth of the source that is raised holds for a page, too', async () => {
  const deep = JSON.parse(`${'['.repeat(36)}${']'.repeat(36)}`) as object;
  const w = await world((cursor) => (cursor === '' ? { data: [{ ...member('a'), deep }], next_cursor: 'one' } : { data: [] }));
  const { source } = w.state;
  await vi.advanceTimersByTimeAsync(60_000);
  expect([w.keys(), w.incidents[0]?.code]).toEqual([[], 'body-too-deep']);
  w.state.source = { ...source, limits: { ...source.limits, depth: 64 } };
  await vi.advanceTimersByTimeAsync(300_000);
  expect(w.keys()).toEqual(['a']);
  await w.poller.stop();
});
