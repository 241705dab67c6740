import { createPartitionCounts, type Appender, type LogAdmin, type Serde } from '@weir/log';
import { savePartitions } from '@weir/release';
import type { ServiceContext } from '@weir/service';

/** Keeps on weir.control how many partitions the topics were made with, for all services (docs/decisions/0020). */
export interface TopicCounts {
  /** Of those that nobody has kept yet, as they are now; of `made` also when something was kept: they were gone, and have no records. Resolves when it is acknowledged. */
  keep(made: readonly string[]): Promise<void>;
}

export function createTopicCounts(context: Pick<ServiceContext, 'topics' | 'counts' | 'clock'>, ports: { readonly admin: Pick<LogAdmin, 'listTopics' | 'describeTopics'>; readonly appender: Appender; readonly serde: Serde }): TopicCounts {
  const { topics, clock } = context;
  const { admin, appender, serde } = ports;
  const counts = context.counts ?? createPartitionCounts();
  return {
    async keep(made) {
      const names = (await admin.listTopics()).filter((name) => name.startsWith(`${topics.prefix}.`) && (made.includes(name) || counts.kept(name) === undefined));
      const found = (await admin.describeTopics(names)).filter(({ exists, partitions, name }) => exists && counts.kept(name) !== partitions);
      if (found.length === 0) return;
      await savePartitions({ appender, serde, topic: topics.control, counts: found.map(({ name, partitions }) => ({ topic: name, partitions, at: clock.now() })) });
      for (const { name, partitions } of found) counts.keep(name, partitions);
    },
  };
}
