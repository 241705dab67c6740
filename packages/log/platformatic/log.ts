import { createAppender } from '../appender.ts';
import type { Log, LogOptions } from '../types.ts';
import { createAdmin } from './admin.ts';
import { Cluster } from './cluster.ts';
import { createGroupConsumer } from './group.ts';
import { createProducePort } from './producer.ts';
import { createReader } from './reader.ts';

/** The driver over @platformatic/kafka's wire protocol. Consumers, readers and admin share one set of metadata; each appender has its own. */
export function createPlatformaticLog(options: LogOptions): Log {
  const deadlineMs = options.deadlineMs ?? 30_000;
  const cluster = new Cluster({ ...options, deadlineMs });
  const own = new Set<{ close(): Promise<void> }>();
  const keep = <T extends { close(): Promise<void> }>(thing: T): T => {
    own.add(thing);
    return thing;
  };
  return {
    driver: 'platformatic',
    async appender(appenderOptions) {
      const port = createProducePort(new Cluster({ ...options, deadlineMs }));
      return keep(createAppender(port, { deadlineMs: appenderOptions?.deadlineMs ?? deadlineMs, maxPendingBytes: appenderOptions?.maxPendingBytes ?? 64 * 1024 * 1024, requestTimeoutMs: Math.min(10_000, deadlineMs) }));
    },
    consumer: (consumerOptions) => keep(createGroupConsumer(cluster, consumerOptions)),
    async reader() {
      return keep(createReader(cluster));
    },
    async admin() {
      return createAdmin(cluster);
    },
    async close() {
      await Promise.all([...own].map((thing) => thing.close()));
      await cluster.close();
    },
  };
}
