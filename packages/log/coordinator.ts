import { findCoordinatorV4, listOffsetsV7, offsetFetchV8 } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import { delay } from '../deadline.ts';
import { E, type Cluster } from './cluster.ts';

interface ListOffsetsResponse { readonly topics: ReadonlyArray<{ readonly name: string; readonly partitions: ReadonlyArray<{ readonly partitionIndex: number; readonly errorCode: number; readonly offset: bigint }> }> }
interface OffsetFetchResponse { readonly groups: ReadonlyArray<{ readonly errorCode: number; readonly topics: ReadonlyArray<{ readonly name: string; readonly partitions: ReadonlyArray<{ readonly partitionIndex: number; readonly committedOffset: bigint; readonly errorCode: number }> }> }> }

/** Repeat until it gives a value or the deadline of the cluster is over. Undefined = not now. */
export async function eventually<T>(cluster: Cluster, what: string, attempt: () => Promise<T | undefined>): Promise<T> {
  const end = performance.now() + cluster.deadlineMs;
  let last: unknown;
  for (let i = 0; ; i++) {
    try {
      const value = await attempt();
      if (value !== undefined) return value;
    } catch (error) {
      if (error instanceof WeirError && (error.code === 'log-fatal' || error.code === 'log-out-of-range' || error.code === 'log-assignment-stale')) throw error;
      last = error;
    }
    if (performance.now() > end) throw new WeirError('log-deadline', `${what}: not done within ${cluster.deadlineMs} ms`, { cause: last });
    await delay(Math.min(500, 20 * 2 ** Math.min(i, 5)));
  }
}

/** Node id of the group's coordinator; waits while it is being elected. */
export function findCoordinator(cluster: Cluster, groupId: string): Promise<number> {
  return eventually(cluster, `coordinator of ${groupId}`, async () => {
    await cluster.refresh([]);
    const node = cluster.anyBroker();
    const connection = await cluster.connection('meta', node);
    const response = await cluster.request<unknown[], { coordinators: { nodeId: number; errorCode: number }[] }>(connection, 'find coordinator', findCoordinatorV4.api, [0, [groupId]], 5000).catch((error: unknown) => {
      cluster.discard('meta', node);
      throw error;
    });
    const [found] = response.coordinators;
    return found !== undefined && found.errorCode === 0 && found.nodeId >= 0 ? found.nodeId : undefined;
  });
}

/** partition → offset at a special timestamp: -1 = end, -2 = beginning. */
export function listOffsets(cluster: Cluster, topic: string, partitions: readonly number[], timestamp: -1 | -2): Promise<Map<number, number>> {
  const found = new Map<number, number>();
  return eventually(cluster, `offsets of ${topic}`, async () => {
    const byLeader = new Map<number, number[]>();
    for (const p of partitions) {
      if (found.has(p)) continue;
      const leader = cluster.leader(topic, p);
      const list = byLeader.get(leader);
      if (list === undefined) byLeader.set(leader, [p]);
      else list.push(p);
    }
    await Promise.all([...byLeader].map(async ([leader, list]) => {
      const connection = await cluster.connection('offsets', leader);
      const response = await cluster.request<unknown[], ListOffsetsResponse>(connection, 'list offsets', listOffsetsV7.api, [-1, 0, [{ name: topic, partitions: list.map((partitionIndex) => ({ partitionIndex, currentLeaderEpoch: -1, timestamp: BigInt(timestamp) })) }]], 5000).catch((error: unknown) => {
        cluster.discard('offsets', leader);
        throw error;
      });
      for (const t of response.topics) for (const p of t.partitions) if (p.errorCode === 0) found.set(p.partitionIndex, Number(p.offset));
    })).catch(async (error: unknown) => {
      await cluster.refresh([topic]);
      throw error;
    });
    if (found.size === partitions.length) return found;
    await cluster.refresh([topic]);
    return undefined;
  });
}

/** partition → committed next offset; partitions without a commit are absent. */
export function fetchCommitted(cluster: Cluster, coordinator: () => Promise<number>, groupId: string, topics: ReadonlyArray<{ topic: string; partitions: readonly number[] }>): Promise<Map<string, number>> {
  return eventually(cluster, `committed offsets of ${groupId}`, async () => {
    const node = await coordinator();
    const connection = await cluster.connection('group', node);
    const response = await cluster.request<unknown[], OffsetFetchResponse>(connection, 'offset fetch', offsetFetchV8.api, [[{ groupId, memberId: null, memberEpoch: -1, topics: topics.map((t) => ({ name: t.topic, partitionIndexes: [...t.partitions] })) }], false], 5000).catch((error: unknown) => {
      cluster.discard('group', node);
      throw error;
    });
    const [group] = response.groups;
    if (group === undefined || group.errorCode !== 0) return undefined;
    const found = new Map<string, number>();
    for (const t of group.topics) {
      for (const p of t.partitions) {
        if (p.errorCode !== 0) return undefined;
        if (p.committedOffset >= 0n) found.set(`${t.name}/${p.partitionIndex}`, Number(p.committedOffset));
      }
    }
    return found;
  });
}

export const coordinatorMoved = new Set<number>([E.coordinatorLoading, E.coordinatorNotAvailable, E.notCoordinator]);
