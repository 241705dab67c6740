import { WeirError } from '@weir/errors';
import { eventually, type Cluster } from './cluster.ts';
import { fetchCommitted, findCoordinator, listOffsets } from './coordinator.ts';
import { E, type BrokerConnection } from './driver.ts';
import type { LogAdmin, TopicSpec } from './types.ts';

const requestMs = 15_000;

/** A broker that has just started, or stood still, is fenced until the controller has its heartbeat: there are too few for a new topic only now. That there never are enough has the same code, and other words. */
const isEarly = ({ errorCode, message }: { readonly errorCode: number; readonly message: string }): boolean => errorCode === E.invalidReplicationFactor && message.includes('currently fenced');

/** Admin over any broker: brokers forward what only the controller can do. */
export function createAdmin(cluster: Cluster): LogAdmin {
  function ask<T>(what: string, request: (broker: BrokerConnection) => Promise<T | undefined>): Promise<T> {
    return eventually(cluster, what, async () => {
      const node = await cluster.anyBroker();
      return cluster.ask('admin', node, what, requestMs + 2000, request).catch(async (error: unknown) => {
        await cluster.refresh([]);
        throw error;
      });
    });
  }

  /** As the brokers have it now: partitions may have been added since it was asked last. */
  async function partitionsOf(topic: string): Promise<number[]> {
    // Brokers away: what is asked next waits for them, up to its deadline.
    if (cluster.partitionsKnown(topic) !== undefined) await cluster.refresh([topic]).catch((error: unknown) => error);
    return Array.from({ length: await cluster.partitions(topic) }, (_, i) => i);
  }

  /**
   * At a special timestamp or a time, of every partition that there is now. The metadata is asked for at the same time, for
   * who waits for an end has no time for two rounds; what it shows to be new, or led by another broker, is asked for behind it.
   */
  async function offsetsOf(topic: string, timestamp: number): Promise<Map<number, number>> {
    const known = cluster.partitionsKnown(topic);
    if (known === undefined) return listOffsets(cluster, topic, await partitionsOf(topic), timestamp);
    const leaders = Array.from({ length: known }, (_, p) => cluster.leader(topic, p));
    const [found, partitions] = await Promise.all([listOffsets(cluster, topic, [...leaders.keys()], timestamp), partitionsOf(topic)]);
    const others = partitions.filter((p) => p >= known || cluster.leader(topic, p) !== leaders[p]);
    if (others.length > 0) for (const [partition, offset] of await listOffsets(cluster, topic, others, timestamp)) found.set(partition, offset);
    return found;
  }

  /** A new topic is of use when every partition has a leader. */
  async function awaitLeaders(topic: string): Promise<void> {
    await eventually(cluster, `leaders of ${topic}`, async () => {
      await cluster.refresh([topic]);
      const count = cluster.partitionsKnown(topic);
      if (count === undefined) return undefined;
      for (let p = 0; p < count; p++) if (cluster.leader(topic, p) < 0) return undefined;
      return true;
    });
  }

  return {
    async createTopics(topics) {
      const created: string[] = [];
      let missing = topics;
      while (missing.length > 0) {
        const asked = missing;
        const answers = await ask('create topics', async (broker) => {
          const found = await broker.createTopics(requestMs, asked);
          created.push(...found.filter((t) => t.errorCode === 0).map((t) => t.name));
          const early = found.find(isEarly);
          if (early !== undefined) throw new WeirError('log-unavailable', `${early.name}: ${early.message}`);
          return found;
        });
        const again = new Set(answers.filter((t) => t.errorCode === E.requestTimedOut).map((t) => t.name));
        const bad = answers.filter((t) => t.errorCode !== 0 && t.errorCode !== E.topicExists && !again.has(t.name));
        if (bad.length > 0) throw new WeirError('log-fatal', `could not create ${bad.map((t) => `${t.name} (${t.message})`).join(', ')}`);
        missing = asked.filter((t) => again.has(t.name));
      }
      for (const topic of topics) await awaitLeaders(topic.name);
      return created;
    },
    async describeTopics(names) {
      if (names.length === 0) return [];
      const found = await ask('metadata', (broker) => broker.metadata(names));
      const present = new Map(found.topics.filter((t) => t.errorCode === 0).map((t) => [t.name, t]));
      const configs = present.size === 0 ? [] : await ask('topic configs', (broker) => broker.topicConfigs([...present.keys()]));
      const configOf = new Map(configs.map((c) => [c.name, c.config]));
      return names.map((name): TopicSpec & { exists: boolean } => {
        const topic = present.get(name);
        return { name, partitions: topic?.partitions.length ?? 0, replicationFactor: topic?.partitions[0]?.replicas ?? 0, config: configOf.get(name) ?? {}, exists: topic !== undefined };
      });
    },
    async listTopics() {
      return (await ask('metadata', (broker) => broker.metadata(null))).topics.filter((t) => t.errorCode === 0 && !t.internal).map((t) => t.name).sort();
    },
    async deleteTopics(names) {
      if (names.length === 0) return;
      const answers = await ask('delete topics', (broker) => broker.deleteTopics(requestMs, names));
      const bad = answers.filter((t) => t.errorCode !== 0 && t.errorCode !== E.unknownTopic);
      if (bad.length > 0) throw new WeirError('log-fatal', `could not delete ${bad.map((t) => `${t.name} (error ${t.errorCode})`).join(', ')}`);
    },
    async partitions(topic) {
      const found = (await ask('metadata', (broker) => broker.metadata([topic]))).topics.find((t) => t.name === topic);
      if (found === undefined || found.partitions.length === 0) throw new WeirError(found === undefined || found.errorCode === E.unknownTopic ? 'log-fatal' : 'log-unavailable', `partitions of ${topic} are not told`);
      return found.partitions.length;
    },
    endOffsets: (topic) => offsetsOf(topic, -1),
    beginningOffsets: (topic) => offsetsOf(topic, -2),
    async offsetsAt(topic, time) {
      const found = await offsetsOf(topic, Math.max(0, Math.floor(time)));
      return new Map([...found].filter(([, offset]) => offset >= 0));
    },
    async committed(groupId, topic) {
      const found = await fetchCommitted(cluster, () => findCoordinator(cluster, groupId), groupId, [{ topic, partitions: await partitionsOf(topic) }]);
      return new Map([...found].map(([key, offset]) => [Number(key.slice(key.lastIndexOf('/') + 1)), offset]));
    },
    async close() {
      // Its connections belong to the log.
    },
  };
}
