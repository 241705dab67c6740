import { createTopicsV7, deleteTopicsV5, describeConfigsV4, metadataV12 } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import type { LogAdmin, TopicSpec } from '../types.ts';
import { E, type Cluster } from './cluster.ts';
import { eventually, fetchCommitted, findCoordinator, listOffsets } from './coordinator.ts';

interface Metadata { readonly controllerId: number; readonly topics: ReadonlyArray<{ readonly errorCode: number; readonly name: string; readonly isInternal: boolean; readonly partitions: ReadonlyArray<{ readonly replicaNodes: readonly number[] }> }> }

export function createAdmin(cluster: Cluster): LogAdmin {
  async function ask<R>(what: string, api: unknown, args: unknown[]): Promise<R> {
    return eventually(cluster, what, async () => {
      await cluster.refresh([]);
      const node = cluster.anyBroker();
      const connection = await cluster.connection('admin', node);
      return cluster.request<unknown[], R>(connection, what, api, args, 15_000).catch((error: unknown) => {
        cluster.discard('admin', node);
        throw error;
      });
    });
  }

  const metadata = (topics: readonly string[] | null): Promise<Metadata> => ask('metadata', metadataV12.api, [topics, false, false]);

  async function partitionsOf(topic: string): Promise<number[]> {
    return Array.from({ length: await cluster.partitions(topic) }, (_, i) => i);
  }

  return {
    async createTopics(topics) {
      if (topics.length === 0) return [];
      const response = await ask<{ topics: { name: string; errorCode: number; errorMessage: string | null }[] }>('create topics', createTopicsV7.api, [topics.map((t) => ({ name: t.name, numPartitions: t.partitions, replicationFactor: t.replicationFactor, assignments: [], configs: Object.entries(t.config).map(([name, value]) => ({ name, value })) })), 15_000, false]);
      const bad = response.topics.filter((t) => t.errorCode !== 0 && t.errorCode !== E.topicExists);
      if (bad.length > 0) throw new WeirError('log-fatal', `could not create ${bad.map((t) => `${t.name} (${t.errorMessage ?? t.errorCode})`).join(', ')}`);
      const created = response.topics.filter((t) => t.errorCode === 0).map((t) => t.name);
      for (const name of created) await cluster.partitions(name);
      return created;
    },
    async describeTopics(names) {
      const found = await metadata(names);
      const present = found.topics.filter((t) => t.errorCode === 0);
      const configs = present.length === 0 ? [] : (await ask<{ results: { resourceName: string; configs: { name: string; value: string | null }[] }[] }>('describe configs', describeConfigsV4.api, [present.map((t) => ({ resourceType: 2, resourceName: t.name, configurationKeys: null })), false, false])).results;
      return names.map((name): TopicSpec & { exists: boolean } => {
        const topic = present.find((t) => t.name === name);
        const config = Object.fromEntries((configs.find((c) => c.resourceName === name)?.configs ?? []).map((c) => [c.name, c.value ?? '']));
        return { name, partitions: topic?.partitions.length ?? 0, replicationFactor: topic?.partitions[0]?.replicaNodes.length ?? 0, config, exists: topic !== undefined };
      });
    },
    async listTopics() {
      return (await metadata(null)).topics.filter((t) => t.errorCode === 0 && !t.isInternal).map((t) => t.name).sort();
    },
    async deleteTopics(names) {
      if (names.length === 0) return;
      await ask('delete topics', deleteTopicsV5.api, [names.map((name) => ({ name })), 15_000]);
    },
    endOffsets: async (topic) => listOffsets(cluster, topic, await partitionsOf(topic), -1),
    beginningOffsets: async (topic) => listOffsets(cluster, topic, await partitionsOf(topic), -2),
    async committed(groupId, topic) {
      const found = await fetchCommitted(cluster, () => findCoordinator(cluster, groupId), groupId, [{ topic, partitions: await partitionsOf(topic) }]);
      return new Map([...found].map(([key, offset]) => [Number(key.slice(key.lastIndexOf('/') + 1)), offset]));
    },
    async close() {
      // Connections belong to the cluster.
    },
  };
}
