import { findWeirError, WeirError } from '@weir/errors';
import type { LogAdmin } from '@weir/log';
import { retentionOf, type TopicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { expiredRawOwners, rawKeyEnd, rawOwners, type KeyRing } from '@weir/seal';
import type { Logger } from 'pino';
import type { NewLeaf } from './audit.ts';

/** Destroys the keys of raw items once nothing sealed under them is on a topic any more. */
export interface RawKeyJanitor {
  /** Look now, and every hour from now on. */
  start(): Promise<void>;
  /** When the last key of raw items that were accepted until `at` is destroyed, ms since the epoch; null = not as far as is known: one of their topics is kept for ever, or the brokers do not tell how long. */
  until(at: number): Promise<number | null>;
  stop(): Promise<void>;
}

const everyMs = 3_600_000;
/** Behind the end of a key: the look that finds it, and one that fails before. */
const lateMs = 2 * everyMs;
const day = 86_400_000;
/** Looks one after the other in which the topic of a source that left the release must be missing, to count as deleted. */
const looksUntilGone = 3;

export function createRawKeyJanitor(ports: { readonly keys: Pick<KeyRing, 'owners' | 'destroy'>; readonly admin: Pick<LogAdmin, 'describeTopics'>; readonly topics: TopicNames; readonly release: () => Pick<Release, 'sources'>; readonly audit: (leaf: NewLeaf) => Promise<string>; readonly logger: Pick<Logger, 'info' | 'error'>; readonly now: () => number; readonly setTimer: (run: () => void, ms: number) => unknown; readonly clearTimer: (timer: unknown) => void }): RawKeyJanitor {
  const { keys, admin, topics, logger } = ports;
  /** Looks in a row in which the topic of a source was not there. */
  const missing = new Map<string, number>();
  let timer: unknown;
  let running: Promise<void> = Promise.resolve();
  let stopped = false;

  /** By topic; undefined = there is none, as far as the broker that was asked can tell. Throws not-ready for one that is there and does not tell: a key that was destroyed too early is gone for ever. */
  async function retentions(names: readonly string[]): Promise<ReadonlyMap<string, number | undefined>> {
    return new Map((await admin.describeTopics(names)).map(({ name, exists, config }) => {
      const ms = retentionOf(config, Number.NaN);
      if (exists && Number.isNaN(ms)) throw new WeirError('not-ready', `the retention of ${name} is not told`);
      // Kept for ever: so the key is, too.
      return [name, exists ? ms : undefined];
    }));
  }

  /**
   * How long what is sealed under the keys of a source can be on a topic: by source, and at least `ofDlq`. A source that left
   * the release keeps its topic until that is deleted: its retention counts as long as it is there. A topic that must be
   * there and is not is one that the brokers do not show now. Throws not-ready.
   */
  async function kept(sources: ReadonlySet<string>, looks: boolean): Promise<{ readonly ofDlq: number; readonly of: ReadonlyMap<string, number> }> {
    const found = await retentions([...[...sources].map(topics.raw), topics.dlq]);
    const ofDlq = found.get(topics.dlq);
    if (ofDlq === undefined) throw new WeirError('not-ready', `${topics.dlq} is not to be seen`);
    return { ofDlq, of: new Map([...sources].map((source) => {
      const ms = found.get(topics.raw(source));
      if (ms === undefined && ports.release().sources.has(source)) throw new WeirError('not-ready', `${topics.raw(source)} is not to be seen`);
      if (looks) missing.set(source, ms === undefined ? (missing.get(source) ?? 0) + 1 : 0);
      return [source, Math.max(ms ?? ((missing.get(source) ?? 0) >= looksUntilGone ? 0 : Number.POSITIVE_INFINITY), ofDlq)];
    })) };
  }

  const sourcesOfKeys = (): string[] => Array.from(rawOwners(keys), ({ source }) => source);

  async function look(): Promise<void> {
    const sources = new Set(sourcesOfKeys());
    if (sources.size === 0) return;
    const { of } = await kept(sources, true);
    const expired = expiredRawOwners(keys, (source) => of.get(source) ?? Number.POSITIVE_INFINITY, ports.now());
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

  /** By the keys that there are, and by those of that day, which running sources may make yet. */
  async function until(at: number): Promise<number | null> {
    const running = [...ports.release().sources.keys()];
    const { ofDlq, of } = await kept(new Set([...running, ...sourcesOfKeys()]), false);
    const from = Math.floor(at / day) * day;
    const ends = [rawKeyEnd(from, ofDlq), ...running.map((source) => rawKeyEnd(from, of.get(source)!)), ...Array.from(rawOwners(keys), (owner) => rawKeyEnd(owner.from, of.get(owner.source) ?? Number.POSITIVE_INFINITY))];
    const last = ends.reduce((a, b) => Math.max(a, b));
    return Number.isFinite(last) ? last + lateMs : null;
  }

  return {
    start() {
      again();
      return running;
    },
    async until(at) {
      try {
        return await until(at);
      } catch (error) {
        if (findWeirError(error)?.code !== 'not-ready') throw error;
        return null;
      }
    },
    async stop() {
      stopped = true;
      if (timer !== undefined) ports.clearTimer(timer);
      await running;
    },
  };
}
