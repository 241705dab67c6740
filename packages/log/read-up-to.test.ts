import { expect, test } from 'vitest';
import { readUpTo } from './read-up-to.ts';
import type { Reader, RecordBatch } from './types.ts';

/** A partition of five records; `shown` says how many of them a read sees, read by read. */
function readerOf(shown: (read: number) => number): { reader: Pick<Reader, 'read'>; reads: [number, number][] } {
  const reads: [number, number][] = [];
  const reader: Pick<Reader, 'read'> = {
    async read(topic, partition, from, to, onBatch) {
      reads.push([from, to]);
      for (let at = from; at < Math.min(to, shown(reads.length - 1)); at++) await onBatch({ topic, partition, epoch: 0, records: [{ offset: at, timestamp: 0, key: null, value: null, headers: [] }], nextOffset: at + 1, highWatermark: 5 });
    },
  };
  return { reader, reads };
}

test('what a leader does not show yet is waited for, and read once', async () => {
  const { reader, reads } = readerOf((read) => [2, 2, 4, 5][read] ?? 5);
  const got: number[] = [];
  await readUpTo(reader, 't', 0, 0, 5, async ({ records }: RecordBatch) => { got.push(...records.map((r) => r.offset)); });
  expect(got).toEqual([0, 1, 2, 3, 4]);
  expect(reads).toEqual([[0, 5], [2, 5], [2, 5], [4, 5]]);
});

test('it ends when it is given up, or when nothing comes by the deadline, and reads nothing where nothing is asked for', async () => {
  const { reader, reads } = readerOf(() => 2);
  await readUpTo(reader, 't', 0, 5, 5, () => undefined);
  expect(reads).toEqual([]);
  await readUpTo(reader, 't', 0, 0, 5, () => undefined, { gone: () => true });
  expect(reads).toEqual([[0, 5]]);
  await expect(readUpTo(reader, 't', 0, 0, 5, () => undefined, { deadlineMs: 150 })).rejects.toMatchObject({ code: 'log-deadline' });
  const broken = new Error('of the handler');
  await expect(readUpTo(reader, 't', 0, 0, 5, () => { throw broken; })).rejects.toBe(broken);
});
