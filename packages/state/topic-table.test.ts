import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RecordBatch } from '@weir/log';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { openTable, type Table } from './table.ts';
import { createTopicTable } from './topic-table.ts';

const dirs: string[] = [];
afterEach(() => { for (const path of dirs.splice(0)) rmSync(path, { recursive: true, force: true }); });

/** Starts on a cache that has read one of two records and was at the end then; gives from where it reads, and why. */
async function started(endSeenMsAgo: number) {
  const path = mkdtempSync(join(tmpdir(), 'weir-topic-table-'));
  dirs.push(path);
  const table = openTable({ path });
  table.putBatch([], new Map([[0, 1]]), new Map([[0, { offset: 0, timestamp: 7, currentAt: Date.now() - endSeenMsAgo }]]));
  const from: number[] = [];
  const reader = { read: async (_topic: string, _partition: number, at: number, to: number, take: (batch: object) => unknown) => { from.push(at); await take({ partition: 0, records: [], nextOffset: to, highWatermark: to }); }, follow: async () => ({ positions: () => new Map(), close: async () => {} }), readOne: async () => ({ timestamp: 7 }) };
  const admin = { endOffsets: async () => new Map([[0, 2]]), beginningOffsets: async () => new Map([[0, 0]]) };
  const topicTable = createTopicTable({ reader: reader as never, admin: admin as never, topic: 't', table, puts: () => [], onError: (error) => { throw error; } });
  const { reason } = await topicTable.start();
  await topicTable.close();
  return { from, reason };
}

// Tombstones that it has not seen may be gone after a day: a key that was destroyed would stay here for ever.
test('a cache is gone on from only while it is known how long ago it was at the end', async () => {
  expect(await started(60_000)).toEqual({ from: [1], reason: undefined });
  expect(await started(13 * 3_600_000)).toMatchObject({ from: [0], reason: expect.stringContaining('longer than') });
  expect(await started(-3_600_000)).toMatchObject({ from: [0], reason: expect.stringContaining('clock was set back') });
});

/** A topic of five records, of which a leader that was cut off tells and shows three for so many questions and reads. */
function cutOff(forQuestions: number, forReads: number) {
  const path = mkdtempSync(join(tmpdir(), 'weir-topic-table-'));
  dirs.push(path);
  const table = openTable({ path });
  const followed: number[] = [];
  const read: number[] = [];
  const at = (offset: number) => ({ offset, timestamp: offset, key: Buffer.from(`k${offset}`), value: Buffer.from('v'), headers: [] });
  const reader = {
    async read(_topic: string, partition: number, from: number, to: number, take: (batch: object) => unknown) {
      const end = Math.min(to, forReads-- > 0 ? 3 : 5);
      if (from >= end) return;
      read.push(from);
      await take({ partition, records: Array.from({ length: end - from }, (_, i) => at(from + i)), nextOffset: end, highWatermark: end });
    },
    follow: async (_topic: string, next: Map<number, number>) => (followed.push(next.get(0)!), { positions: () => new Map(), close: async () => {} }),
    readOne: async (_topic: string, _partition: number, offset: number) => at(offset),
  };
  const admin = { endOffsets: async () => new Map([[0, forQuestions-- > 0 ? 3 : 5]]), beginningOffsets: async () => new Map([[0, 0]]) };
  const topicTable = createTopicTable({ reader: reader as never, admin: admin as never, topic: 't', table, puts: ({ records }) => records.map((r) => ({ key: r.key!.toString(), value: r.value })), onError: (error) => { throw error; } });
  return { table, topicTable, read, followed };
}

test('what a leader that was cut off does not show is read before the table is followed, and not passed over', async () => {
  const { table, topicTable, read, followed } = cutOff(0, 2);
  await topicTable.start();
  expect([read, followed, [...table.range('k')].length]).toEqual([[0, 3], [5], 5]);
  await topicTable.close();
});

test('a checkpoint beyond the end that a leader which was cut off tells is kept', async () => {
  const { table, topicTable, read, followed } = cutOff(1, 0);
  table.putBatch([{ key: 'k0', value: Buffer.from('v') }], new Map([[0, 4]]), new Map([[0, { offset: 3, timestamp: 3, currentAt: Date.now() }]]));
  expect((await topicTable.start()).reason).toBeUndefined();
  expect([read, followed]).toEqual([[4], [5]]);
  await topicTable.close();
});

const nameOf = (key: number): string => `key-${key}`;
const batchOf = (from: number, entries: readonly (readonly [number, number | null])[]): RecordBatch => ({
  topic: 't', partition: 0, epoch: 0, nextOffset: from + entries.length, highWatermark: from + entries.length,
  records: entries.map(([key, value], i) => ({ offset: from + i, timestamp: 1, key: Buffer.from(nameOf(key)), value: value === null ? null : Buffer.from([value]), headers: [] })),
});

/** Follows an empty topic; `give` is what the follower does when a batch came. */
async function following(onError: (error: Error) => void = (error) => { throw error; }, wrap: (table: Table) => Table = (table) => table) {
  const path = mkdtempSync(join(tmpdir(), 'weir-topic-table-'));
  dirs.push(path);
  const table = wrap(openTable({ path }));
  let give!: (batch: RecordBatch) => void;
  const reader = { read: async () => {}, follow: async (_topic: string, _from: unknown, apply: typeof give) => { give = apply; return { positions: () => new Map(), close: async () => {} }; } };
  const admin = { endOffsets: async () => new Map([[0, 0]]), beginningOffsets: async () => new Map([[0, 0]]) };
  const topicTable = createTopicTable({ reader: reader as never, admin: admin as never, topic: 't', table, puts: (batch) => batch.records.map((r) => ({ key: r.key!.toString(), value: r.value })), onError });
  await topicTable.start();
  return { path, table, topicTable, give };
}

/** The table as a process finds it that starts when this one was killed. */
async function afterKill<T>(path: string, look: (table: Table) => T): Promise<T> {
  const copy = mkdtempSync(join(tmpdir(), 'weir-topic-table-'));
  dirs.push(copy);
  cpSync(path, copy, { recursive: true });
  const table = openTable({ path: copy });
  const found = look(table);
  await table.close();
  return found;
}

test('what is followed is seen at once, and on disk as a prefix of the topic that is a moment old at most', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    await fc.assert(fc.asyncProperty(
      fc.array(fc.record({ entries: fc.array(fc.tuple(fc.nat(5), fc.option(fc.nat(255))), { minLength: 1, maxLength: 4 }), ms: fc.nat(150), killed: fc.boolean() }), { maxLength: 12 }),
      async (steps) => {
        const { path, table, topicTable, give } = await following();
        /** States of the topic by offset, from the empty one on. */
        const states: Map<string, number>[] = [new Map()];
        /** When the record before each offset was applied. */
        const times = [0];
        let now = 0;
        const valuesOf = (of: Table): Map<string, number> => new Map([0, 1, 2, 3, 4, 5].flatMap((key) => { const value = of.get(nameOf(key)); return value === undefined ? [] : [[nameOf(key), value[0]!] as const]; }));
        for (const { entries, ms, killed } of steps) {
          give(batchOf(states.length - 1, entries));
          for (const [key, value] of entries) {
            const next = new Map(states.at(-1));
            if (value === null) next.delete(nameOf(key));
            else next.set(nameOf(key), value);
            states.push(next);
            times.push(now);
          }
          expect(valuesOf(table)).toEqual(states.at(-1));
          expect(table.position(0)).toBe(states.length - 1);
          now += ms;
          vi.advanceTimersByTime(ms);
          if (!killed) continue;
          const found = await afterKill(path, (left) => ({ position: left.position(0) ?? 0, values: valuesOf(left) }));
          expect(found.values).toEqual(states[found.position]);
          for (let offset = found.position + 1; offset < states.length; offset++) expect(now - times[offset]!).toBeLessThan(200);
        }
        await topicTable.close();
        expect((await afterKill(path, (left) => left.position(0))) ?? 0).toBe(states.length - 1);
      },
    ), { numRuns: 20 });
  } finally {
    vi.useRealTimers();
  }
});

test('many batches are one transaction, and one that cannot be written is told', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    const errors: Error[] = [];
    let full = false;
    const written: number[] = [];
    const { topicTable, give } = await following((error) => errors.push(error), (table) => ({
      ...table,
      loaded() {
        if (full) throw new Error('database or disk is full');
        table.loaded();
        written.push(table.position(0) ?? 0);
      },
    }));
    written.length = 0;
    for (let i = 0; i < 50; i++) give(batchOf(i, [[i % 3, i]]));
    vi.advanceTimersByTime(200);
    expect(written).toEqual([50]);
    vi.advanceTimersByTime(10_000);
    expect(written).toEqual([50]);
    full = true;
    give(batchOf(50, [[0, 1]]));
    vi.advanceTimersByTime(200);
    expect(errors.map((error) => error.message)).toEqual(['database or disk is full']);
    full = false;
    await topicTable.close();
  } finally {
    vi.useRealTimers();
  }
});
