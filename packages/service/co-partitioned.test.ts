import type { Assignment, ConsumerHandlers, RecordBatch } from '@weir/log';
import { expect, test } from 'vitest';
import { coPartitioned } from './co-partitioned.ts';

const part = (partition: number): Assignment => ({ topic: 'changes', partition, epoch: 1, position: 0 });

test('a partition added to one of two topics that go together is left out and told of, and ends the process only when somebody wrote there', async () => {
  const seen: unknown[] = [];
  const told: unknown[] = [];
  const failed: unknown[] = [];
  const note = (what: string) => async (parts: readonly Assignment[]) => { seen.push([what, ...parts.map((p) => p.partition)]); };
  const there = { known: 2, now: 2 };
  const handlers = coPartitioned({ assigned: note('assigned'), revoked: note('revoked'), batch: (batch) => { seen.push(['batch', batch.partition]); }, failed() {} } satisfies ConsumerHandlers, {
    others: ['states'], appender: { partitions: async () => there.known }, admin: { partitions: async () => there.now }, logger: { error: (line: object) => told.push(line) } as never, fail: (error) => failed.push((error as { code: string }).code),
  });
  const batch = (partition: number) => handlers.batch({ topic: 'changes', partition } as RecordBatch);
  await handlers.assigned([part(0), part(2)]);
  batch(0);
  batch(2);
  await handlers.revoked([part(0), part(2)], 'rebalance');
  expect(seen).toEqual([['assigned', 0], ['batch', 0], ['revoked', 0]]);
  expect([told, failed]).toEqual([[{ code: 'topic-repartitioned', topic: 'changes', partition: 2, lacks: 'states' }], ['topic-repartitioned']]);
  // It was added there, too, and what is known of before does not count.
  there.now = 3;
  await handlers.assigned([part(2)]);
  batch(2);
  expect(seen.slice(3)).toEqual([['assigned', 2], ['batch', 2]]);
});
