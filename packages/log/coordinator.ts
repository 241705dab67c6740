import { eventually, type Cluster } from './cluster.ts';
import { E } from './driver.ts';
import { partitionKey } from './partition-key.ts';

const requestMs = 5000;

/** The coordinator of a group has moved or is loading: look it up again. */
export const coordinatorMoved: ReadonlySet<number> = new Set<number>([E.coordinatorLoading, E.coordinatorNotAvailable, E.notCoordinator]);

/** Node id of the group's coordinator; waits while it is being elected. */
export function findCoordinator(cluster: Cluster, groupId: string, signal?: AbortSignal): Promise<number> {
  return eventually(cluster, `coordinator of ${groupId}`, async () => {
    const node = await cluster.anyBroker();
    const found = await cluster.ask('coordinator', node, 'find coordinator', requestMs, (broker) => broker.findCoordinator(groupId)).catch(async (error: unknown) => {
      await cluster.refresh([]);
      throw error;
    });
    if (found.errorCode !== 0 || found.nodeId < 0) {
      await cluster.refresh([]);
      return undefined;
    }
    // It was away when the metadata was read, and nothing else may ever ask for it again (simulation seed 123).
    if (!cluster.knows(found.nodeId)) await cluster.refresh([]);
    return cluster.knows(found.nodeId) ? found.nodeId : undefined;
  }, signal);
}

/** partition → offset at a special timestamp: -1 = end, -2 = beginning. */
export function listOffsets(cluster: Cluster, topic: string, partitions: readonly number[], timestamp: number, signal?: AbortSignal): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  return eventually(cluster, `offsets of ${topic}`, async () => {
    const byLeader = Map.groupBy(partitions.filter((p) => !found.has(p)), (p) => cluster.leader(topic, p));
    const asked = await Promise.allSettled([...byLeader].map(async ([leader, list]) => {
      for (const o of await cluster.ask('offsets', leader, 'list offsets', requestMs, (broker) => broker.listOffsets(topic, list, timestamp))) if (o.errorCode === 0) found.set(o.partition, o.offset);
    }));
    if (found.size === partitions.length) return found;
    await cluster.refresh([topic]);
    const failed = asked.find((a) => a.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    return undefined;
  }, signal);
}

/** `<topic>/<partition>` → committed next offset; partitions without a commit are absent. */
export function fetchCommitted(cluster: Cluster, coordinator: () => Promise<number>, groupId: string, topics: ReadonlyArray<{ topic: string; partitions: readonly number[] }>, signal?: AbortSignal): Promise<Map<string, number>> {
  return eventually(cluster, `committed offsets of ${groupId}`, async () => {
    const node = await coordinator();
    const { errorCode, offsets } = await cluster.ask('committed', node, 'offset fetch', requestMs, (broker) => broker.committed(groupId, topics));
    if (errorCode !== 0 || offsets.some((o) => o.errorCode !== 0)) return undefined;
    return new Map(offsets.filter((o) => o.offset >= 0).map((o) => [partitionKey(o), o.offset]));
  }, signal);
}
