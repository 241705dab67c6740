import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Reader } from '@weir/log';
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
const open = (reader = noReader, most = 3, limits = {}): Seen => createSeen(table, reader, () => now, { most, ...limits });
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
  return [...new Set([...table.range('t/')].map(({ key }) => key.split('/')[1]))];
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
  expect([...table.range('t/')].map(({ value }) => value.length)).toEqual([2 * entryBytes]);
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

test.each([['of rows that were text', []], ['of a row an event', [{ key: '#layout', value: Buffer.from('2') }]]])('a cache of the layout before, %s, is read again, once', async (_name, mark) => {
  table.clear();
  table.putBatch([...mark, { key: `t/10/${'0'.repeat(26)}`, value: Buffer.alloc(32) }, { key: '#oldest/t', value: Buffer.from('10') }, { key: '#/t/0', value: Buffer.from('6') }]);
  const asked: number[] = [];
  const reader = { async read(_topic: string, _partition: number, from: number, to: number, take: (batch: unknown) => void) {
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
  seen = open({ read: async (_topic: string, _partition: number, from: number) => { asked.push(from); } } as unknown as Reader);
  add(entry('a', h1, 1), entry('b', h, 2), entry('c', h, 3));
  const { putBatch } = disk;
  disk.putBatch = () => { throw new Error('disk full'); };
  expect(() => add(entry('d', h, 4))).toThrow(/disk full/);
  disk.putBatch = putBatch;
  expect(() => add(entry('e', h, 5))).toThrow(/a write of them failed/);
  await seen.close();
  table = openTable({ path: dir });
  expect([...table.range('t/')]).toEqual([]);
  seen = open({ read: async (_topic: string, _partition: number, from: number) => { asked.push(from); } } as unknown as Reader);
  await seen.load('t', 0, 5, window, 10 * window);
  expect(asked).toEqual([0]);
});

interface Step { readonly kind: 'batch' | 'kill' | 'stop'; readonly partition: number; readonly ids: readonly number[] }
const step: fc.Arbitrary<Step> = fc.record({ kind: fc.constantFrom('batch', 'batch', 'batch', 'batch', 'kill', 'stop'), partition: fc.nat(1), ids: fc.array(fc.nat(12), { minLength: 1, maxLength: 8 }) });

test('whatever is written and whenever the process is killed or stopped, an id has its first body', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 12 }), fc.constantFrom(0, 40, 10_000), async (steps, most, entries, filters) => {
    const limits = { entries, rows: entries, filters };
    const path = mkdtempSync(join(dir, 'run-'));
    await table.close();
    table = openTable({ path });
    const logs = [0, 1].map((): ReturnType<typeof entry>[] => []);
    const reader = { async read(_topic: string, partition: number, from: number, to: number, take: (batch: unknown) => void) {
      for (let at = from; at < to; at += 3) {
        const records = logs[partition]!.slice(at, Math.min(at + 3, to)).map((e) => ({ offset: e.offset, timestamp: e.timestamp, key: null, value: null, headers: [[H.event, Buffer.from(e.eventId)], [H.hash, Buffer.from(e.hash)], [H.accepted, Buffer.from(String(e.acceptedAt))]] }));
        take({ records, nextOffset: Math.min(at + 3, to) });
      }
    } } as unknown as Reader;
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
        const records = ids.map((id, i) => entry(`evt_${String(id).padStart(32, '0')}`, String(time + i).padStart(32, '0'), logs[partition]!.length + i, ++time));
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
