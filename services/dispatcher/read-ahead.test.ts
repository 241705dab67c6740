import type { LogRecord } from '@weir/log';
import { expect, test } from 'vitest';
import { createReadAhead } from './read-ahead.ts';

function world(count: number, valueBytes = 10) {
  const records = Array.from({ length: count }, (_, offset): LogRecord => ({ offset, timestamp: 0, key: null, value: Buffer.alloc(valueBytes), headers: [] }));
  const reads: [number, number][] = [];
  const ahead = createReadAhead({
    read: async (topic, partition, from, to, onBatch) => {
      reads.push([from, to]);
      for (let at = from; at < Math.min(to, count); at += 50) await onBatch({ topic, partition, epoch: 0, records: records.slice(at, Math.min(at + 50, to, count)), nextOffset: at + 50, highWatermark: count });
    },
  }, 'parked', 0);
  return { ahead, reads, records };
}

test('subjects that come due together share a read', async () => {
  const { ahead, reads } = world(1000);
  const found = await Promise.all(Array.from({ length: 200 }, (_, i) => ahead.get(i)));
  expect(found.map((r) => r?.offset)).toEqual(Array.from({ length: 200 }, (_, i) => i));
  expect(reads).toHaveLength(1);
});

test('what is held is bounded, and what was dropped is read again', async () => {
  const { ahead, reads } = world(256, 100_000);
  expect((await ahead.get(0))?.offset).toBe(0);
  expect((await ahead.get(1))?.offset).toBe(1);
  expect(reads.length).toBe(2);
  expect((await ahead.get(255))?.offset).toBe(255);
});

test('an offset that is gone is told as gone, and the others go on', async () => {
  const { ahead } = world(10);
  expect(await ahead.get(99)).toBeUndefined();
  expect((await ahead.get(3))?.offset).toBe(3);
});

test('a read that fails fails who asked, and nobody after', async () => {
  let fails = true;
  const ahead = createReadAhead({ read: async (topic, partition, from, _to, onBatch) => {
    if (fails) throw new Error('away');
    await onBatch({ topic, partition, epoch: 0, records: [{ offset: from, timestamp: 0, key: null, value: null, headers: [] }], nextOffset: from + 1, highWatermark: from + 1 });
  } }, 'parked', 0);
  await expect(ahead.get(1)).rejects.toThrow('away');
  fails = false;
  expect((await ahead.get(1))?.offset).toBe(1);
});
