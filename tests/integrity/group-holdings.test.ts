import { createLog, type GroupConsumer } from '@weir/log';
import { testPrefix, waitFor } from '@weir/testing';
import { expect, inject, test } from 'vitest';
import { createHoldings } from '../chaos/groups.ts';

// What `npm run chaos` counts a kill by.
test('the coordinator tells which partitions the process of a name holds; of one that left, and of one that starts again, none', async () => {
  const prefix = testPrefix('holdings');
  const topic = `${prefix}.t`;
  const log = createLog({ brokers: inject('brokers'), clientId: 'weir-policy-1' });
  const other = createLog({ brokers: inject('brokers'), clientId: 'weir-policy-2' });
  const consumers: GroupConsumer[] = [];
  const join = async (of: typeof log): Promise<GroupConsumer> => {
    const consumer = of.consumer({ groupId: `${prefix}.g`, topics: [topic], sessionTimeoutMs: 6000, rebalanceTimeoutMs: 6000, handlers: { assigned: async () => undefined, revoked: async () => undefined, batch: () => undefined, failed: () => undefined } });
    consumers.push(consumer);
    await consumer.start();
    return consumer;
  };
  const holdings = createHoldings(inject('brokers'), [`${prefix}.g`]);
  const held = (): number[][] => [1, 2].map((n) => [...holdings.held(`${prefix}.g`, topic, `weir-policy-${n}`)].sort());
  const until = (what: string, holds: (found: number[][]) => boolean): Promise<void> => waitFor(what, async () => {
    await holdings.refresh();
    return holds(held()) || undefined;
  }, 30_000).then(() => undefined);
  try {
    await (await log.admin()).createTopics([{ name: topic, partitions: 3, replicationFactor: 1, config: {} }]);
    const first = await join(log);
    await until('one has all', ([a]) => a!.length === 3);
    await join(other);
    await until('both share', ([a, b]) => a!.length + b!.length === 3 && b!.length > 0);
    expect(held().flat().sort()).toEqual([0, 1, 2]);
    await first.close();
    await until('the other has all', ([a, b]) => a!.length === 0 && b!.length === 3);
    await holdings.begins('weir-policy-2');
    expect(held()).toEqual([[], []]);
  } finally {
    for (const consumer of consumers) await consumer.close();
    await log.close();
    await other.close();
  }
});
