import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogAdmin, Reader } from '@weir/log';
import { H } from '@weir/pipeline';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { entryBytes } from './entries.ts';
import { createSeen, type Seen } from './seen.ts';

const window = 1000 * 60;
let dir: string;
let table: Table;
let seen: Seen;
let now: number;
const noReader = undefined as unknown as Reader;
/** As many as are gathered: few, so that rows are written in each test. */
const open = (reader = noReader, most = 3, limits = {}, offsetsAt: LogAdmin['offsetsAt'] = async () => new Map()): Seen => createSeen(table, { reader, admin: { offsetsAt } }, () => now, { most, ...limits });
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-seen-'));
  table = openTable({ path: dir });
  now = 0;
  seen = open();
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});

const [h, h1, h2] = ['0', '1', '2'].map((digit) => digit.repeat(32)) as [string, string, string];
const entry = (eventId: string, hash: string, offset: number, timestamp = 10 * window) => ({ eventId, hash, offset, timestamp, acceptedAt: 1000 + offset });
const add = (...entries: ReturnType<typeof entry>[]): void => seen.add('t', 0, entries, entries[entries.length - 1]!.offset + 1, window);
const first = (e: ReturnType<typeof entry>): string | undefined => {
  const found = seen.find('t', 0, e, window);
  return found !== undefined && found.offset < e.offset ? found.hash : undefined;
};

/** Of the runs on disk, when all is written. */
async function generations(): Promise<(string | undefined)[]> {
  await seen.close();
  table = openTable({ path: dir });
  return [...new Set([...table.range('t@')].map(({ key }) => key.split('/')[1]))];
}

test('the first body stays the first, also over the end of a generation and when a batch is repeated', () => {
  add(entry('a', h1, 5, 10 * window + 1));
  add(entry('a', h2, 9, 11 * window - 1));
  expect(first(entry('a', h2, 9, 11 * window + 1))).toBe(h1);
  add(entry('a', h1, 5, 10 * window + 1), entry('a', h2, 9, 11 * window - 1));
  expect(first(entry('a', h2, 20, 11 * window))).toBe(h1);
});

test('a repetition was accepted when its first copy was: the same item gives the same record', () => {
  add(entry('a', h1, 5));
  add(entry('a', h1, 9));
  expect(seen.find('t', 0, entry('a', h1, 20), window)).toMatchObject({ hash: h1, acceptedAt: 1005 });
});

test('a record is not a conflict with itself when it is read again after a crash', () => {
  add(entry('a', h1, 5));
  expect(first(entry('a', h1, 5))).toBeUndefined();
  expect(first(entry('b', h1, 6))).toBeUndefined();
});

test('what fell out of the window is deleted from disk', async () => {
  add(...Array.from({ length: 200 }, (_, i) => entry(`old-${i}`, h, i, window)));
  for (let gen = 2; gen < 9; gen++) add(entry(`g-${gen}`, h, 1000 + gen, gen * window));
  expect(await generations()).toEqual(['7', '8']);
});

test('an entry older than all others is found, and deleted in its turn', async () => {
  add(entry('new', h, 50, 9 * window));
  add(entry('late', h1, 60, 8 * window));
  expect(first(entry('late', h2, 70, 8 * window + 5))).toBe(h1);
  expect(first(entry('late', h2, 70, 9 * window))).toBe(h1);
  for (let gen = 10; gen < 13; gen++) add(entry(`g-${gen}`, h, 1000 + gen, gen * window));
  expect(await generations()).toEqual(['11', '12']);
});

test('what was found a moment ago is not looked up again', () => {
  add(entry('a', h1, 5));
  seen.add('t', 0, [{ ...entry('a', h2, 9), known: { hash: h1, offset: 5, acceptedAt: 1005 } }, { ...entry('b', h, 10), known: null }], 11, window);
  expect([first(entry('a', 'x', 20)), first(entry('b', 'x', 20))]).toEqual([h1, h]);
});

test('the same id of another partition, and of another topic, is another event', () => {
  add(entry('a', h1, 5));
  for (const [topic, partition] of [['t', 1], ['u', 0]] as const) expect(seen.find(topic, partition, entry('a', h2, 9), window)).toBeUndefined();
});

test('ids that begin alike are told apart: somebody numbered them', () => {
  for (let i = 0; i < 40; i++) {
    const id = `evt_${i.toString(16).padStart(32, '0')}`;
    expect(first(entry(id, h1, 100))).toBeUndefined();
    add(entry(id, i % 2 === 0 ? h1 : h2, i));
  }
  for (let i = 0; i < 40; i++) expect(first(entry(`evt_${i.toString(16).padStart(32, '0')}`, h, 100))).toBe(i % 2 === 0 ? h1 : h2);
});

test('an id and a body hash that are no hashes, from who writes the raw topic himself, are told apart and known again', async () => {
  for (const [id, hash] of [['ä/../#', ''], ['evt_1', 'H'], [`evt_${'A'.repeat(32)}`, 'x'.repeat(64)]] as const) {
    add(entry(id, hash, 5));
    expect(first(entry(id, hash, 9))).toBe(hash);
    expect(first(entry(id, `${hash}!`, 9))).not.toBe(`${hash}!`);
  }
  expect(first(entry('evt_2', 'H', 9))).toBeUndefined();
  expect(await generations()).toEqual(['10']);
  seen = open();
  expect(first(entry('evt_1', 'H', 9))).toBe('H');
});

test('what little came is on disk after half a minute, so that a killed process reads no more than that again', () => {
  seen = open(noReader, 1000);
  add(entry('a', h, 1));
  now = 31_000;
  add(entry('b', h, 2));
  add(entry('c', h, 3));
  expect([...table.range('t@')].map(({ value }) => value.length)).toEqual([2 * entryBytes]);
  // Its position is that of what is written, not of what is gathered.
  expect(table.get('#/t/0')?.toString()).toBe('3');
});

test('what a killed process had gathered counts on, also when it waited for longer than the window', async () => {
  add(entry('a', h1, 1), entry('b', h, 2), entry('c', h, 3));
  add(entry('d', h, 4));
  const late = entry('late', h1, 5);
  add(late);
  const reader = { async read(_topic: string, _partition: number, from: number, to: number, take: (batch: unknown) => void) {
    expect([from, to]).toEqual([4, 6]);
    take({ records: [{ ...late, key: null, value: null, headers: [[H.event, Buffer.from('late')], [H.hash, Buffer.from(h1)]] }], nextOffset: 6 });
  } } as unknown as Reader;
  seen = open(reader);
  await seen.load('t', 0, 6, window, 99 * window);
  expect(first(entry('late', h2, 9))).toBe(h1);
});

/** Of a raw topic that has these on each partition, in batches of three. */
const readerOf = (logs: readonly (readonly ReturnType<typeof entry>[])[]): Reader => {
  const record = (e: ReturnType<typeof entry>) => ({ offset: e.offset, timestamp: e.timestamp, key: null, value: null, headers: [[H.event, Buffer.from(e.eventId)], [H.hash, Buffer.from(e.hash)], [H.accepted, Buffer.from(String(e.acceptedAt))]] });
  return {
    readOne: async (_topic: string, partition: number, offset: number) => logs[partition]!.filter((e) => e.offset === offset).map(record)[0],
    async read(_topic: string, partition: number, from: number, to: number, take: (batch: unknown) => void) {
      for (let at = from; at < to; at += 3) take({ records: logs[partition]!.slice(at, Math.min(at + 3, to)).map(record), nextOffset: Math.min(at + 3, to) });
    },
  } as unknown as Reader;
};

test('a fresh disk behind a lag longer than the window has the first copy of what comes next: another body would pass, the same would be accepted anew', async () => {
  seen = open(readerOf([[entry('old', h, 0, 8 * window), entry('b', h, 1, 9 * window + 1), entry('a', h1, 2)]]));
  await seen.load('t', 0, 3, window, 13 * window);
  const find = (id: string) => seen.find('t', 0, entry(id, h2, 3, 10 * window + 5), window);
  expect([find('a'), find('b')]).toEqual([{ hash: h1, offset: 2, acceptedAt: 1002 }, { hash: h, offset: 1, acceptedAt: 1001 }]);
  // Only the window is kept.
  expect(seen.find('t', 0, entry('old', h2, 3, 8 * window + 5), window)).toBeUndefined();
});

test('where the last record cannot be read, nothing that is there is taken for too old', async () => {
  seen = open({ ...readerOf([[entry('a', h1, 0)]]), readOne: async () => undefined });
  await seen.load('t', 0, 2, window, 13 * window);
  expect(first(entry('a', h2, 2, 10 * window + 5))).toBe(h1);
});

test('a fresh disk reads the window, not all that the topic keeps', async () => {
  const log = Array.from({ length: 60 }, (_, i) => entry(`evt_${i}`, h, i, i * (window / 10)));
  const reader = readerOf([log]);
  const asked: [number, number][] = [];
  const told: [number, number][] = [];
  const offsetsAt = async (_topic: string, time: number) => new Map([[0, log.find((e) => e.timestamp >= time)!.offset]]);
  seen = open({ ...reader, read: (topic, partition, from, to, take) => {
    asked.push([from, to]);
    return reader.read(topic, partition, from, to, take);
  } }, 3, {}, offsetsAt);
  await seen.load('t', 0, 60, window, 99 * window, { gone: () => false, progress: (read, total) => { told.push([read, total]); } });
  // Later than the window before the last one, which is 59.
  expect([asked, told[0], told.at(-1)]).toEqual([[[50, 60]], [0, 10], [10, 10]]);
  expect([49, 50, 59].map((i) => seen.find('t', 0, entry(`evt_${i}`, h1, 60, 59 * (window / 10)), window)?.offset)).toEqual([undefined, 50, 59]);
});

test('a leader that was cut off and shows less is waited for: ids that it does not show would never be known', async () => {
  const log = [entry('a', h1, 0), entry('b', h1, 1), entry('c', h1, 2)];
  const reader = readerOf([log]);
  let reads = 0;
  seen = open({ ...reader, read: (topic, partition, from, to, take) => reader.read(topic, partition, from, reads++ === 0 ? 1 : to, take) });
  await seen.load('t', 0, 3, window, 13 * window);
  expect(log.map(({ eventId }) => seen.find('t', 0, entry(eventId, h2, 3), window)?.hash)).toEqual([h1, h1, h1]);
});

test('of a partition that was taken away while it was read nothing more is kept, and its next owner here goes on from there', async () => {
  const log = Array.from({ length: 9 }, (_, i) => entry(`evt_${i}`, h1, i));
  const reader = readerOf([log]);
  const asked: number[] = [];
  seen = open({ ...reader, read: (topic, partition, from, to, take) => {
    asked.push(from);
    return reader.read(topic, partition, from, to, take);
  } });
  let batches = 0;
  await expect(seen.load('t', 0, 9, window, 13 * window, { gone: () => batches++ >= 2, progress: () => undefined })).rejects.toMatchObject({ code: 'log-assignment-stale' });
  expect(log.map(({ eventId }) => seen.find('t', 0, entry(eventId, h2, 9), window)?.offset)).toEqual([0, 1, 2, 3, 4, 5, undefined, undefined, undefined]);
  await seen.load('t', 0, 9, window, 13 * window);
  expect([asked, seen.find('t', 0, entry('evt_8', h2, 9), window)?.offset]).toEqual([[0, 6], 8]);
});

test.each([['longer', 7, 14], ['shorter', 14, 7], ['much longer', 1, 30]])('a window that is made %s forgets nothing that is within it, and leaves nothing on disk that is not', async (_name, before, after) => {
  const day = 86_400_000;
  const at = (days: number, id: string, offset: number) => entry(id, h1, offset, (100 + days) * day);
  const find = (days: number, id: string) => seen.find('t', 0, entry(id, h2, 99, (100 + days) * day), after * day)?.hash;
  const put = (days: number, id: string, offset: number, windowDays: number): void => { seen.add('t', 0, [at(days, id, offset)], offset + 1, windowDays * day); };
  for (let start = 0; start < 2; start++) {
    put(0, 'first', 1, before);
    put(0.5, 'second', 2, before);
    // By an instance that was running, or by one that was started under the other release.
    if (start === 1) {
      await seen.close();
      table = openTable({ path: dir });
      seen = open();
    }
    put(1, 'third', 3, after);
    for (const days of [1, Math.min(before, after)]) expect(['first', 'second', 'third'].map((id) => find(days, id))).toEqual([h1, h1, h1]);
    expect(find(3 * Math.max(before, after), 'third')).toBeUndefined();
    for (let i = 1; i < 40; i++) put(i * after, `later-${i}`, 10 + i, after);
    await seen.close();
    table = openTable({ path: dir });
    expect([...new Set([...table.range('t@')].map(({ key }) => key.split('/')[0]))]).toEqual([`t@${after * day}`]);
    expect(new Set([...table.range('t@')].map(({ key }) => key.split('/')[1])).size).toBeLessThanOrEqual(2);
    table.clear();
    seen = open();
  }
});

test.each([0, 1, 2])('a partition that lags by more than the window keeps its ids though another one is live (%i batches after it, and after a start)', async (after) => {
  const late = (offset: number) => seen.find('t', 1, entry('late', h2, offset, 9 * window + 5), window)?.hash;
  const live = (n: number): void => { for (let i = 0; i < n; i++) seen.add('t', 0, [entry(`live-${i}`, h, 10 + i, 12 * window + i)], 11 + i, window); };
  live(1);
  seen.add('t', 1, [entry('late', h1, 5, 9 * window)], 6, window);
  live(after);
  for (let start = 0; start < 2; start++) {
    expect(late(9)).toBe(h1);
    await seen.close();
    table = openTable({ path: dir });
    seen = open();
    // The live one comes first, before anything of the other is loaded or added.
    live(5);
    await seen.load('t', 1, 6, window, 13 * window);
    now += 3_599_999;
    live(5);
  }
  expect(late(9)).toBe(h1);
});

test('a partition that was taken away, or of which nothing comes any more, does not fill the disk', async () => {
  const live = (gen: number): void => { for (let i = 0; i < 4; i++) seen.add('t', 0, [entry(`live-${gen}-${i}`, h, gen * 10 + i, gen * window)], gen * 10 + i + 1, window); };
  seen.add('t', 1, [entry('idle', h, 5, 5 * window)], 6, window);
  now = 3_599_999;
  live(12);
  expect(seen.find('t', 1, entry('idle', h2, 9, 5 * window), window)?.hash).toBe(h);
  now = 3_600_000;
  live(12);
  expect(await generations()).toEqual(['12']);
  const week = 7 * 86_400_000;
  seen = open();
  seen.add('u', 1, [entry('away', h, 5, 5 * week)], 6, week);
  seen.drop('u', 1);
  now += 3_600_000;
  seen.add('u', 0, [entry('here', h, 5, 8 * week)], 6, week);
  expect(seen.find('u', 0, entry('here', h2, 9, 8 * week), week)?.hash).toBe(h);
  await seen.close();
  table = openTable({ path: dir });
  expect([...new Set([...table.range('u@')].map(({ key }) => key.split('/')[1]))]).toEqual(['8']);
});

test.each([['of rows that were text', []], ['of a row an event', [{ key: '#layout', value: Buffer.from('2') }]], ['of one length of generations', [{ key: '#layout', value: Buffer.from('3') }]]])('a cache of the layout before, %s, is read again, once', async (_name, mark) => {
  table.clear();
  table.putBatch([...mark, { key: `t/10/${'0'.repeat(26)}`, value: Buffer.alloc(32) }, { key: '#oldest/t', value: Buffer.from('10') }, { key: '#/t/0', value: Buffer.from('6') }]);
  const asked: number[] = [];
  const reader = { readOne: async () => undefined, async read(_topic: string, _partition: number, from: number, to: number, take: (batch: unknown) => void) {
    asked.push(from);
    take({ records: [{ ...entry('a', h1, 5), key: null, value: null, headers: [[H.event, Buffer.from('a')], [H.hash, Buffer.from(h1)]] }], nextOffset: to });
  } } as unknown as Reader;
  for (let start = 0; start < 2; start++) {
    seen = open(reader);
    await seen.load('t', 0, 6, window, 10 * window);
    expect(first(entry('a', h2, 9))).toBe(h1);
    expect(await generations()).toEqual(['10']);
  }
  expect(asked).toEqual([0]);
});

test('after a write that failed nothing more is written: what is on disk is what a killed process leaves', async () => {
  const disk = { ...table, putBatch: table.putBatch };
  const asked: number[] = [];
  table = disk;
  seen = open({ readOne: async () => undefined, read: async (_topic: string, _partition: number, from: number) => { asked.push(from); } } as unknown as Reader);
  add(entry('a', h1, 1), entry('b', h, 2), entry('c', h, 3));
  const { putBatch } = disk;
  disk.putBatch = () => { throw new Error('disk full'); };
  expect(() => add(entry('d', h, 4))).toThrow(/disk full/);
  disk.putBatch = putBatch;
  expect(() => add(entry('e', h, 5))).toThrow(/a write of them failed/);
  await seen.close();
  table = openTable({ path: dir });
  expect([...table.range('t@')]).toEqual([]);
  seen = open({ readOne: async () => undefined, read: async (_topic: string, _partition: number, from: number, to: number, take: (batch: unknown) => void) => { asked.push(from); take({ records: [], nextOffset: to }); } } as unknown as Reader);
  await seen.load('t', 0, 5, window, 10 * window);
  expect(asked).toEqual([0]);
});

interface Step { readonly kind: 'batch' | 'kill' | 'stop'; readonly partition: number; readonly ids: readonly number[] }
const step: fc.Arbitrary<Step> = fc.record({ kind: fc.constantFrom('batch', 'batch', 'batch', 'batch', 'kill', 'stop'), partition: fc.nat(1), ids: fc.array(fc.nat(12), { minLength: 1, maxLength: 8 }) });

test('whatever is written, whenever the process is killed or stopped, and however far a partition lags, an id has its first body', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 12 }), fc.constantFrom(0, 40, 10_000), fc.constantFrom(0, 3 * window), async (steps, most, entries, filters, lag) => {
    const limits = { entries, rows: entries, filters };
    const path = mkdtempSync(join(dir, 'run-'));
    await table.close();
    table = openTable({ path });
    const logs = [0, 1].map((): ReturnType<typeof entry>[] => []);
    const reader = readerOf(logs);
    seen = open(reader, most, limits);
    let time = 10 * window - 30;
    /** Looks as the stage does before it adds, and holds each answer to the log. */
    const take = (partition: number, records: readonly ReturnType<typeof entry>[]): void => {
      const known = records.map((record) => {
        const found = seen.find('t', partition, record, window) ?? null;
        const { hash, offset, acceptedAt } = logs[partition]!.find(({ eventId }) => eventId === record.eventId)!;
        const earlier = found !== null && found.offset < record.offset ? found : undefined;
        // Of its own batch one is known only when the batch came before.
        if (offset < records[0]!.offset || earlier !== undefined) expect(earlier).toEqual({ hash, offset, acceptedAt });
        return found;
      });
      seen.add('t', partition, records.map((record, i) => ({ ...record, known: known[i] })), records.at(-1)!.offset + 1, window);
    };
    for (const { kind, partition, ids } of steps) {
      if (kind === 'batch') {
        const records = ids.map((id, i) => entry(`evt_${String(id).padStart(32, '0')}`, String(time + i).padStart(32, '0'), logs[partition]!.length + i, ++time - partition * lag));
        logs[partition]!.push(...records);
        take(partition, records);
        continue;
      }
      if (kind === 'stop') {
        await seen.close();
        table = openTable({ path });
      }
      // One that was killed just left: what was gathered is gone, and what was not committed comes again.
      seen = open(reader, most, limits);
      for (const p of [0, 1]) {
        const committed = Math.max(0, logs[p]!.length - (kind === 'kill' ? ids.length : 0));
        await seen.load('t', p, committed, window, time);
        if (committed < logs[p]!.length) take(p, logs[p]!.slice(committed));
      }
    }
    await seen.close();
  }), { numRuns: 25 });
});
