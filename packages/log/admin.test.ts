import { expect, test } from 'vitest';
import { createAdmin } from './admin.ts';
import { Cluster } from './cluster.ts';
import type { BrokerConnection, Driver } from './driver.ts';

/** Brokers 1 and 2; the topic has as many partitions, each led by the broker, as `leaders` says at the time. */
function world() {
  const state = { leaders: [1], ends: [[7, 8], [70, 80]], asked: [] as string[], held: undefined as Promise<void> | undefined };
  const connection = (node: number): BrokerConnection => ({
    async metadata() {
      state.asked.push('metadata');
      const { leaders } = state;
      await state.held;
      return { brokers: [1, 2].map((nodeId) => ({ nodeId, host: 'b', port: nodeId })), topics: [{ name: 't', errorCode: 0, internal: false, partitions: leaders.map((leader, partition) => ({ partition, leader, replicas: 1 })) }] };
    },
    listOffsets(topic: string, partitions: readonly number[]) {
      state.asked.push(`${node}: ${partitions.join(',')}`);
      return Promise.resolve(partitions.map((partition) => ({ topic, partition, errorCode: 0, offset: state.ends[node - 1]![partition]! })));
    },
    destroy: () => undefined,
  }) as unknown as BrokerConnection;
  const driver = { name: 'platformatic', connect: (_id: string, { port }: { port: number }) => Promise.resolve(connection(port)) } as unknown as Driver;
  return { state, admin: createAdmin(new Cluster(driver, { brokers: ['b:1'], clientId: 'test', deadlineMs: 5000 })) };
}

test('who waits for an end waits for one round of the brokers, not for the metadata first', async () => {
  const { state, admin } = world();
  expect(await admin.endOffsets('t')).toEqual(new Map([[0, 7]]));
  state.asked.length = 0;
  const held = Promise.withResolvers<void>();
  state.held = held.promise;
  const ends = admin.endOffsets('t');
  await new Promise((done) => { setImmediate(done); });
  expect(state.asked.toSorted()).toEqual(['1: 0', 'metadata']);
  held.resolve();
  expect(await ends).toEqual(new Map([[0, 7]]));
});

test('the end of a partition that another broker leads by now is asked of that one, and a new partition is not left out', async () => {
  const { state, admin } = world();
  await admin.endOffsets('t');
  state.leaders = [2, 2];
  expect(await admin.endOffsets('t')).toEqual(new Map([[0, 70], [1, 80]]));
});
