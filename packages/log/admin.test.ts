import { expect, test } from 'vitest';
import { createAdmin } from './admin.ts';
import { Cluster } from './cluster.ts';
import type { BrokerConnection, Driver } from './driver.ts';

/** Brokers 1 and 2; the topic has as many partitions, each led by the broker, as `leaders` says at the time. */
function world() {
  const state = { leaders: [1], ends: [[7, 8], [70, 80]], asked: [] as string[], held: undefined as Promise<void> | undefined, refusals: [] as string[] };
  const connection = (node: number): BrokerConnection => ({
    async metadata() {
      state.asked.push('metadata');
      const { leaders } = state;
      await state.held;
      return { brokers: [1, 2].map((nodeId) => ({ nodeId, host: 'b', port: nodeId })), topics: ['t', 'u'].map((name) => ({ name, errorCode: 0, internal: false, partitions: leaders.map((leader, partition) => ({ partition, leader, replicas: 1 })) })) };
    },
    listOffsets(topic: string, partitions: readonly number[]) {
      state.asked.push(`${node}: ${partitions.join(',')}`);
      return Promise.resolve(partitions.map((partition) => ({ topic, partition, errorCode: 0, offset: state.ends[node - 1]![partition]! })));
    },
    createTopics(_ms: number, topics: ReadonlyArray<{ name: string }>) {
      const message = state.refusals.shift();
      // The first of several may be there already.
      return Promise.resolve(topics.map(({ name }, i) => (message === undefined || (i === 0 && topics.length > 1) ? { name, errorCode: state.asked.includes(`made ${name}`) ? 36 : (state.asked.push(`made ${name}`), 0), message: '' } : { name, errorCode: 38, message })));
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

test('brokers that are fenced for a moment are waited for, and what was created meanwhile is told; too few of them for good is an error', async () => {
  const { state, admin } = world();
  const spec = { partitions: 1, replicationFactor: 1, config: {} };
  const fenced = 'Unable to replicate the partition 1 time(s): All brokers are currently fenced, or have all their log directories cordoned.';
  state.refusals.push(fenced, fenced);
  expect(await admin.createTopics([{ name: 'u', ...spec }, { name: 't', ...spec }])).toEqual(['u', 't']);
  expect(state.refusals).toEqual([]);
  const few = 'Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because only 1 broker(s) are registered.';
  state.refusals.push(few);
  await expect(admin.createTopics([{ name: 't', ...spec }])).rejects.toThrow(few);
});
