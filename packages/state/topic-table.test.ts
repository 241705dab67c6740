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
  const reader = { read: async (_topic: string, _partition: number, at: number) => { from.push(at); }, follow: async () => ({ positions: () => new Map(), close: async () => {} }), readOne: async () => ({ timestamp: 7 }) };
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
