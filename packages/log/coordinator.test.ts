import { expect, test } from 'vitest';
import { Cluster } from './cluster.ts';
import { findCoordinator } from './coordinator.ts';
import type { BrokerConnection, Driver } from './driver.ts';

test('a coordinator that was away when the metadata was read is learnt: nothing else may ever ask for it again', async () => {
  const back = { host: 'localhost', port: 2 };
  let brokers = [{ nodeId: 1, host: 'localhost', port: 1 }];
  const broker = {
    metadata: async () => ({ brokers, topics: [] }),
    findCoordinator: async () => {
      brokers = [{ nodeId: 1, host: 'localhost', port: 1 }, { nodeId: 2, ...back }];
      return { errorCode: 0, nodeId: 2 };
    },
    heartbeat: async () => 0,
    destroy() {},
  } as unknown as BrokerConnection;
  const connected: number[] = [];
  const driver: Driver = { name: 'kafkajs', async connect(_clientId, { port }) {
    connected.push(port);
    return broker;
  } };
  const cluster = new Cluster(driver, { brokers: ['localhost:1'], clientId: 'test', deadlineMs: 1000 });
  const node = await findCoordinator(cluster, 'g');
  expect(await cluster.ask('group', node, 'heartbeat', 1000, (connection) => connection.heartbeat({ groupId: 'g', memberId: 'm', generationId: 1 }))).toBe(0);
  expect([node, connected.includes(back.port)]).toEqual([2, true]);
  cluster.close();
});
