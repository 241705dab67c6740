import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { openTable } from './table.ts';
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
