import type { LogAdmin } from '@weir/log';
import { alarmShare, expiringBefore, retentionOf } from '@weir/pipeline';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';
import type { Clock } from './types.ts';

const refreshMs = 10 * 60_000;
const quietMs = 3_600_000;

/**
 * The retention in force of the topics that a stage reads, and the alarm when lag uses more than half of it. It is
 * read again every ten minutes; while the brokers do not answer, or do not tell it, the last known values stand.
 */
export interface RetentionWatch {
  /** Read it now, and from then on. */
  watch(topics: readonly string[]): Promise<void>;
  /** ms; Infinity = for ever, or not known yet. */
  of(topic: string): number;
  /** Records with this timestamp (ms) or an older one leave for the dead letters as `expiring`. */
  expiringBefore(topic: string): number;
  /** Timestamp of the oldest record that waits, by partition; undefined = none. Sets the metric, and alarms once an hour. */
  oldest(topic: string, partition: number, timestamp: number | undefined): void;
  close(): void;
}

export function createRetentionWatch(options: { admin: Pick<LogAdmin, 'describeTopics'>; clock: Clock; logger: Logger; registry: Registry }): RetentionWatch {
  const { admin, clock, logger } = options;
  const gauge = (options.registry.getSingleMetric('weir_retention_used_ratio') as Gauge<'topic' | 'partition'> | undefined)
    ?? new Gauge({ name: 'weir_retention_used_ratio', help: 'Age of the oldest waiting record as a share of the retention of its topic; 0.5 alarms, at 0.9 records move to the dead letters.', labelNames: ['topic', 'partition'], registers: [options.registry] });
  const known = new Map<string, number>();
  const told = new Map<string, number>();
  let timer: unknown;
  let closed = false;

  async function read(): Promise<void> {
    for (const topic of await admin.describeTopics([...known.keys()])) if (topic.exists) known.set(topic.name, retentionOf(topic.config, known.get(topic.name)));
  }

  function later(): void {
    if (closed || timer !== undefined) return;
    timer = clock.setTimer(() => {
      timer = undefined;
      read().catch((error: unknown) => logger.warn({ err: error }, 'retention not read, the values before stand')).finally(later);
    }, refreshMs);
  }

  return {
    async watch(topics) {
      for (const topic of topics) if (!known.has(topic)) known.set(topic, Number.POSITIVE_INFINITY);
      await read();
      later();
    },
    of: (topic) => known.get(topic) ?? Number.POSITIVE_INFINITY,
    expiringBefore: (topic) => expiringBefore(known.get(topic) ?? Number.POSITIVE_INFINITY, clock.now()),
    oldest(topic, partition, timestamp) {
      const retentionMs = known.get(topic) ?? Number.POSITIVE_INFINITY;
      const share = timestamp === undefined || !Number.isFinite(retentionMs) ? 0 : Math.max(0, (clock.now() - timestamp) / retentionMs);
      gauge.set({ topic, partition }, share);
      if (share < alarmShare || clock.now() - (told.get(topic) ?? Number.NEGATIVE_INFINITY) < quietMs) return;
      told.set(topic, clock.now());
      logger.error({ topic, partition, usedShare: Math.round(share * 100) / 100, oldest: new Date(timestamp!).toISOString(), retentionMs }, 'lag uses more than half of the retention of the topic; at 90 % its records move to the dead letters');
    },
    close() {
      closed = true;
      if (timer !== undefined) clock.clearTimer(timer);
    },
  };
}
