import { WeirError } from '@weir/errors';
import type { Appender, Assignment, ConsumerHandlers, LogAdmin } from '@weir/log';
import type { Logger } from 'pino';

/**
 * Handlers of a topic of which each partition has its own in other topics. One that was added to the first alone has no
 * records of ours (docs/decisions/0020) and must not end the process: it is left out, told of, and ends it with
 * topic-repartitioned when somebody else wrote there, for then it would be passed over.
 */
export function coPartitioned(handlers: ConsumerHandlers, options: { readonly others: readonly string[]; readonly appender: Pick<Appender, 'partitions'>; readonly admin: Pick<LogAdmin, 'partitions'>; readonly logger: Pick<Logger, 'error'>; readonly fail: (error: unknown) => void }): ConsumerHandlers {
  const { others, appender, admin, logger, fail } = options;
  const leftOut = new Set<number>();
  const served = (parts: readonly Assignment[]): Assignment[] => parts.filter(({ partition }) => !leftOut.has(partition));

  /** The brokers are asked only for what is not known to be there. */
  async function lacks(topic: string, partition: number): Promise<boolean> {
    return partition >= await appender.partitions(topic) && partition >= await admin.partitions(topic);
  }

  return {
    ...handlers,
    async assigned(parts) {
      for (const { topic, partition } of parts) {
        for (const other of others) {
          if (leftOut.has(partition) || !await lacks(other, partition)) continue;
          leftOut.add(partition);
          logger.error({ code: 'topic-repartitioned', topic, partition, lacks: other }, 'a partition was added to a topic and not to the one that goes with it: nothing of ours is there, and it is not read');
        }
      }
      await handlers.assigned(served(parts));
    },
    async revoked(parts, reason) {
      await handlers.revoked(served(parts), reason);
      for (const { partition } of parts) leftOut.delete(partition);
    },
    batch(batch) {
      if (!leftOut.has(batch.partition)) return handlers.batch(batch);
      fail(new WeirError('topic-repartitioned', `${batch.topic}/${batch.partition} has records, and ${others.join(' and ')} must have that partition, too: add it there`));
    },
  };
}
