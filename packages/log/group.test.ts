import { encodeConsumerProtocolAssignment } from '@platformatic/kafka';
import { expect, test } from 'vitest';
import { Cluster } from './cluster.ts';
import type { BrokerConnection, Driver } from './driver.ts';
import { createGroupConsumer } from './group.ts';

/** A group of one member and a topic whose partitions begin at these offsets, where nothing comes; `committed` is what is committed. */
function world(begins: readonly number[], committed: Map<number, number>) {
  const list = begins.map((_, partition) => partition);
  const state: { positions: Promise<void> | undefined; asked: boolean } = { positions: undefined, asked: false };
  const told: string[] = [];
  const connection = {
    metadata: async () => ({ brokers: [{ nodeId: 1, host: 'one', port: 1 }], topics: [{ name: 't', errorCode: 0, internal: false, partitions: list.map((partition) => ({ partition, leader: 1, replicas: 1 })) }] }),
    findCoordinator: async () => ({ errorCode: 0, nodeId: 1 }),
    joinGroup: async () => ({ errorCode: 0, generationId: 1, leader: 'other', memberId: 'm', protocol: 'roundrobin', members: [] }),
    syncGroup: async () => ({ errorCode: 0, assignment: encodeConsumerProtocolAssignment({ version: 1, assignedPartitions: [{ topic: 't', partitions: list }] }) }),
    heartbeat: async () => 0,
    leaveGroup: async () => 0,
    committed: async () => {
      state.asked = true;
      await state.positions;
      return { errorCode: 0, offsets: list.map((partition) => ({ topic: 't', partition, errorCode: 0, offset: committed.get(partition) ?? -1 })) };
    },
    commit: async (_member: unknown, [{ partitions }]: readonly [{ partitions: readonly { partition: number; offset: number }[] }]) => partitions.map(({ partition, offset }) => {
      committed.set(partition, offset);
      return { errorCode: 0 };
    }),
    listOffsets: async (_topic: string, asked: readonly number[]) => asked.map((partition) => ({ topic: 't', partition, errorCode: 0, offset: begins[partition] })),
    fetch: async (waitMs: number) => {
      await new Promise((done) => { setTimeout(done, waitMs); });
      return { errorCode: 0, partitions: [] };
    },
    destroy: () => undefined,
  } as unknown as BrokerConnection;
  const cluster = new Cluster({ name: 'platformatic', connect: async () => connection } as unknown as Driver, { brokers: ['one:1'], clientId: 'test', deadlineMs: 5000 });
  const consumer = createGroupConsumer(cluster, {
    groupId: 'g', topics: ['t'],
    handlers: { assigned: async (parts) => { told.push(`assigned ${parts.map((p) => p.position).join()}`); }, revoked: async (parts) => { told.push(`revoked ${parts.length}`); }, batch: () => undefined, failed: (error) => { told.push(error.message); } },
  }, undefined, (gap) => { told.push(`unread ${gap.groupId} ${gap.topic}/${gap.partition} ${gap.from}-${gap.to}`); });
  return { consumer, committed, told, state };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((done) => { setTimeout(done, 2); });
}

test('a partition that the group begins with at 0 has a commit from then on; records that were gone before the first commit are told', async () => {
  const { consumer, committed, told } = world([0, 0, 70], new Map([[1, 5]]));
  await consumer.start();
  await until(() => committed.has(0));
  expect(told).toEqual(['unread g t/2 0-70', 'assigned 0,5,70']);
  const [first] = consumer.assignments();
  await consumer.commit([{ ...first!, offset: 3 }]);
  await consumer.commit([{ ...first!, offset: 2 }]);
  await consumer.close();
  // Nothing was read of the third: a commit there would say that it was.
  expect([...committed].sort()).toEqual([[0, 3], [1, 5]]);
});

test('a member that is closed before its handlers were told of partitions tells them of none', async () => {
  const { consumer, told, state } = world([0], new Map());
  const found = Promise.withResolvers<void>();
  state.positions = found.promise;
  const started = expect(consumer.start()).rejects.toMatchObject({ code: 'log-fatal' });
  await until(() => state.asked);
  const closed = consumer.close();
  found.resolve();
  await Promise.all([closed, started]);
  expect(told).toEqual([]);
});
