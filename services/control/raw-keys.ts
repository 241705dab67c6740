import type { LogAdmin } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';
import { expiredRawOwners, type KeyRing } from '@weir/seal';
import type { Logger } from 'pino';
import type { NewLeaf } from './audit.ts';

/** Destroys the keys of raw items once nothing sealed under them is on a topic any more. */
export interface RawKeyJanitor {
  /** Look now, and every hour from now on. */
  start(): Promise<void>;
  stop(): Promise<void>;
}

const everyMs = 3_600_000;
const defaultRetentionMs = 7 * 86_400_000;

export function createRawKeyJanitor(ports: { readonly keys: KeyRing; readonly admin: Pick<LogAdmin, 'describeTopics'>; readonly topics: TopicNames; readonly audit: (leaf: NewLeaf) => Promise<string>; readonly logger: Pick<Logger, 'info' | 'error'>; readonly now: () => number; readonly setTimer: (run: () => void, ms: number) => unknown; readonly clearTimer: (timer: unknown) => void }): RawKeyJanitor {
  const { keys, admin, topics, logger } = ports;
  let timer: unknown;
  let running: Promise<void> = Promise.resolve();
  let stopped = false;

  /** A source that left the release keeps its topic until that is deleted: its retention counts as long as it is there. */
  async function look(): Promise<void> {
    const sources = new Set([...keys.owners('raw/')].map((owner) => owner.split('/')[1]!));
    if (sources.size === 0) return;
    const found = await admin.describeTopics([...[...sources].map(topics.raw), topics.dlq]);
    const retention = new Map(found.map((topic) => [topic.name, topic.exists ? Number(topic.config['retention.ms'] ?? defaultRetentionMs) : 0]));
    const ofDlq = retention.get(topics.dlq) ?? defaultRetentionMs;
    // -1: kept for ever, so the key is, too.
    const retentionOf = (source: string): number => {
      const both = [retention.get(topics.raw(source)) ?? 0, ofDlq];
      return both.some((ms) => ms < 0) ? Number.POSITIVE_INFINITY : Math.max(...both);
    };
    const expired = expiredRawOwners(keys, retentionOf, ports.now());
    if (expired.length === 0) return;
    await ports.audit({ kind: 'fact', actor: 'control', action: 'raw-keys.destroy', target: `${expired.length} source days`, details: { owners: expired.slice(0, 500) } });
    const destroyed = await keys.destroy(expired);
    logger.info({ days: expired.length, keys: destroyed }, 'keys of raw items past their retention are destroyed');
  }

  function again(): void {
    running = look().catch((error: unknown) => logger.error({ err: error }, 'keys of raw items could not be looked at; tried again in an hour')).finally(() => {
      if (!stopped) timer = ports.setTimer(again, everyMs);
    });
  }

  return {
    start() {
      again();
      return running;
    },
    async stop() {
      stopped = true;
      if (timer !== undefined) ports.clearTimer(timer);
      await running;
    },
  };
}
