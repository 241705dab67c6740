import { expect, test } from 'vitest';
import { createAppender, type ProducePort } from './appender.ts';
import { partitionOf } from './murmur2.ts';
import { createPartitionCounts, type PartitionCounts } from './partition-counts.ts';

const keys = Array.from({ length: 40 }, (_, i) => `email:${i}`);
const over = (partitions: number): number[] => keys.map((key) => partitionOf(key, partitions));

/** An appender of a topic that the brokers have with as many partitions as `topic` says. */
function appending(topic: { partitions: number }, counts?: PartitionCounts) {
  const port = { partitions: async () => topic.partitions, partitionsKnown: () => topic.partitions, close() {} } as unknown as ProducePort;
  return createAppender(port, { deadlineMs: 1000, maxPendingBytes: 1e6, requestTimeoutMs: 1000, counts });
}

test('partitions added to a topic move no key, told of once, however the producer learns of them', async () => {
  const grown: unknown[] = [];
  const counts = createPartitionCounts((...what) => grown.push(what));
  const topic = { partitions: 6 };
  const before = appending(topic, counts);
  expect(await before.partitions('consent.changes')).toBe(6);
  topic.partitions = 8;
  expect(keys.map((key) => before.partitionFor('consent.changes', key))).toEqual(over(6));
  // One that is made after it, as for another connection of the same process.
  expect(keys.map((key) => appending(topic, counts).partitionFor('consent.changes', key))).toEqual(over(6));
  expect(await before.partitions('consent.changes')).toBe(8);
  expect(grown).toEqual([['consent.changes', 6, 8]]);
});

test('a process that starts after partitions were added hashes over what was kept, not over what it finds', async () => {
  const counts = createPartitionCounts();
  counts.keep('consent.changes', 6);
  const appender = appending({ partitions: 8 }, counts);
  await appender.partitions('consent.changes');
  expect(keys.map((key) => appender.partitionFor('consent.changes', key))).toEqual(over(6));
});

test('a topic made again with fewer partitions is refused where it is first asked for, with the count that it must have', async () => {
  const counts = createPartitionCounts();
  counts.keep('keys', 6);
  const appender = appending({ partitions: 3 }, counts);
  await expect(appender.partitions('keys')).rejects.toMatchObject({ code: 'topic-repartitioned', message: expect.stringContaining('keys has 3 partitions, its keys are hashed over 6') });
  expect(() => appender.partitionFor('keys', 'k')).toThrow(/hashed over 6/);
  // It was made with that number on purpose.
  counts.keep('keys', 3);
  expect(keys.map((key) => appender.partitionFor('keys', key))).toEqual(over(3));
});
