import { createAdmin } from './admin.ts';
import { createAppender } from './appender.ts';
import { Cluster } from './cluster.ts';
import { kafkajs } from './drivers/kafkajs.ts';
import { platformatic } from './drivers/platformatic.ts';
import type { Driver } from './driver.ts';
import { createSharedFetchers } from './fetcher.ts';
import { createGroupConsumer } from './group.ts';
import { createPartitionCounts } from './partition-counts.ts';
import { createProducePort } from './producer.ts';
import { createReader } from './reader.ts';
import { createSecurity } from './security.ts';
import type { Log, LogOptions } from './types.ts';

const defaultDeadlineMs = 30_000;
const defaultPendingBytes = 256 * 1024 * 1024;
const longestProduceMs = 10_000;
const drivers = { kafkajs, platformatic };

/** The log over the driver asked for (default platformatic), or over one that is given. Nothing is connected before the first call; throws config-invalid when a file of `security` is not what it should be. Consumers, readers and admin share one set of metadata; each appender has its own. */
export function createLog(options: LogOptions, driver: Driver = drivers[options.driver ?? 'platformatic']): Log {
  const deadlineMs = options.deadlineMs ?? defaultDeadlineMs;
  const secured = createSecurity(options.security);
  const newCluster = (): Cluster => new Cluster(driver, { brokers: options.brokers, clientId: options.clientId, deadlineMs, secured });
  const cluster = newCluster();
  const counts = options.counts ?? createPartitionCounts();
  const share = createSharedFetchers(cluster);
  const own = new Set<{ close(): Promise<void> }>();

  /** Closed with the log, unless it was closed before. */
  function keep<T extends { close(): Promise<void> }>(thing: T): T {
    const kept = {
      ...thing,
      async close() {
        own.delete(kept);
        await thing.close();
      },
    };
    own.add(kept);
    return kept;
  }

  return {
    driver: driver.name,
    async appender(asked) {
      return keep(createAppender(createProducePort(newCluster()), { deadlineMs: asked?.deadlineMs ?? deadlineMs, maxPendingBytes: asked?.maxPendingBytes ?? defaultPendingBytes, requestTimeoutMs: Math.min(longestProduceMs, deadlineMs), urgent: asked?.urgent === true, counts }));
    },
    consumer: (asked) => keep(createGroupConsumer(cluster, asked, share, options.onUnread)),
    reader: async (asked) => keep(createReader(cluster, { urgent: asked?.urgent === true, share: asked?.shared === true ? share : undefined, graceMs: asked?.graceMs })),
    admin: async () => createAdmin(cluster),
    async close() {
      await Promise.all([...own].map((thing) => thing.close()));
      cluster.close();
    },
  };
}
