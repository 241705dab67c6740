import { findWeirError } from '@weir/errors';
import type { LogAdmin } from '@weir/log';
import { retentionOf } from '@weir/pipeline';
import type { Clock } from '@weir/service';
import type { Put, Table } from '@weir/state';
import type { Logger } from 'pino';
import { deliveryOf } from './delivery-states.ts';
import type { StageBlocks } from './stage-blocks.ts';

/** What of the index stands for something still. */
export interface Kept {
  /** Topic of the dead letters. */
  readonly dlq: string;
  /** Offset at which a partition begins; undefined = not known. */
  begin(topic: string, partition: number): number | undefined;
  /** What ended, ms, before this is on no topic any more. */
  readonly before: number;
}

/** A pass over the rows: how far it is, and what it deleted. */
export interface Swept {
  /** The last key that was looked at; undefined = it was the last one. */
  readonly after: string | undefined;
  readonly deleted: number;
  /** Counters that changed, as they are now. */
  readonly counters: ReadonlyMap<string, number>;
}

/**
 * Looks at up to `limit` rows behind `after` and deletes those whose record retention has deleted (layout: store.ts).
 * Stages go with their records, a block at a time; what is known of an event when none of its stages is left (that it carries a change
 * of consent that binds nobody when its end is gone, too: until then it may be open); a dead letter with its
 * record, and no counter of dead letters counts it any more; deliveries and ends of the ledger by their age. What waits
 * for a person or a delivery is never deleted, and totals of events and deliveries stay.
 */
export function sweepRows(table: Pick<Table, 'get' | 'range' | 'putBatch'>, blocks: Pick<StageBlocks, 'has' | 'swept'>, kept: Kept, after: string | undefined, limit: number): Swept {
  const puts: Put[] = [];
  const counts = new Map<string, number>();
  let last: string | undefined;
  let looked = 0;
  const drop = (...keys: string[]): void => { for (const key of keys) puts.push({ key, value: null }); };
  const isGone = (topic: string, partition: number, offset: number): boolean => offset < (kept.begin(topic, partition) ?? 0);

  function letter(key: string, value: Buffer): void {
    const { id, stage, codes, destination, release, partition, offset } = JSON.parse(value.toString('utf8')) as { id: string; stage: string; codes: string[]; destination: string | null; release: string | null; partition: number; offset: number };
    if (!isGone(kept.dlq, partition, offset)) return;
    drop(key, `q/${id}`, `a/${key.slice(2)}`);
    for (const name of ['c/deadLetters', `c/q/${JSON.stringify([stage, codes[0] ?? '', destination, release])}`]) counts.set(name, (counts.get(name) ?? 0) + 1);
  }

  function look(key: string, value: Buffer): void {
    const text = (): string => value.toString('latin1');
    switch (key.slice(0, 2)) {
      case 'b/':
      case 'i/': {
        const put = blocks.swept(key, value, isGone);
        return put === undefined ? undefined : void puts.push(put);
      }
      case 'e/': return blocks.has(key.slice(2)) ? undefined : drop(key);
      // A letter comes before the outcome that says how its event ended, in an index that is built anew long before: age tells them apart.
      case 'u/': return Number(text().split('@').at(-1)) < kept.before && !blocks.has(key.slice(2)) && table.get(`x/${key.slice(2)}`) === undefined ? drop(key) : undefined;
      case 'r/': return Number(text().split('@')[0]) < kept.before && !blocks.has(key.slice(2)) ? drop(key) : undefined;
      case 'x/': return Number(text().split('@')[1]) < kept.before && !blocks.has(key.slice(2)) ? drop(key) : undefined;
      case 'd/': {
        const { state, at } = deliveryOf(value.readDoubleLE(0));
        return state !== 'pending' && at < kept.before ? drop(key) : undefined;
      }
      case 'l/': {
        const [state, , , at] = text().split('|');
        return state !== '?' && Number(at) < kept.before ? drop(key) : undefined;
      }
      case 'm/':
      case 'n/': return Number(text().split('@')[0]) < kept.before ? drop(key) : undefined;
      case 'y/': return letter(key, value);
    }
  }

  for (const { key, value } of table.range('', after)) {
    last = key;
    look(key, value);
    if (++looked >= limit) break;
  }
  const counters = new Map<string, number>();
  for (const [key, n] of counts) {
    const left = Math.max(0, Number(table.get(key)?.toString('latin1') ?? 0) - n);
    counters.set(key.slice(2), left);
    puts.push({ key, value: Buffer.from(String(left)) });
  }
  if (puts.length > 0) table.putBatch(puts);
  return { after: looked < limit ? undefined : last, deleted: puts.length - counts.size, counters };
}

const firstMs = 60_000;
const everyMs = 3_600_000;
/** A few milliseconds of every fifty. */
const stepMs = 50;
const stepRows = 500;

interface Ports {
  readonly store: { sweep(kept: Kept, after: string | undefined, limit: number): Swept };
  readonly admin: Pick<LogAdmin, 'beginningOffsets' | 'describeTopics'>;
  readonly dlq: string;
  /** Every topic that the index is read from. */
  readonly topics: () => readonly string[];
  readonly clock: Clock;
  readonly logger: Pick<Logger, 'info' | 'warn'>;
  readonly fail: (error: unknown) => void;
}

/** What is left of the topics now; undefined = retention has deleted nothing yet. */
export async function keptNow({ admin, dlq, topics, clock }: Pick<Ports, 'admin' | 'dlq' | 'topics' | 'clock'>): Promise<Kept | undefined> {
  const names = topics();
  const [specs, ...begins] = await Promise.all([admin.describeTopics(names), ...names.map((name) => admin.beginningOffsets(name))]);
  if (begins.every((of) => [...of.values()].every((begin) => begin === 0))) return undefined;
  const longest = Math.max(...specs.map((spec) => (spec.exists ? retentionOf(spec.config) : 0)));
  const byTopic = new Map(names.map((name, i) => [name, begins[i]!]));
  return { dlq, before: clock.now() - longest, begin: (topic, partition) => byTopic.get(topic)?.get(partition) };
}

/** Once an hour, a little at a time: the index holds no more than the topics do. */
export function createIndexSweep(ports: Ports): { close(): void } {
  const { clock, store, logger } = ports;
  let timer: unknown;
  let closed = false;
  const later = (ms: number, next: () => void): void => {
    if (!closed) timer = clock.setTimer(next, ms);
  };

  function step(kept: Kept, after: string | undefined, deleted: number): void {
    try {
      const swept = store.sweep(kept, after, stepRows);
      if (swept.after !== undefined) return later(stepMs, () => step(kept, swept.after, deleted + swept.deleted));
      if (deleted + swept.deleted > 0) logger.info({ rows: deleted + swept.deleted }, 'rows of the index deleted whose records are gone');
      later(everyMs, begin);
    } catch (error) {
      ports.fail(error);
    }
  }

  function begin(): void {
    keptNow(ports).then((kept) => (kept === undefined ? later(everyMs, begin) : closed ? undefined : step(kept, undefined, 0)), (error: unknown) => {
      if (closed) return;
      // Brokers away: the next time.
      if (findWeirError(error) === undefined) return ports.fail(error);
      logger.warn({ err: error }, 'the index is not swept now');
      later(everyMs, begin);
    });
  }

  later(firstMs, begin);
  return {
    close() {
      closed = true;
      clock.clearTimer(timer);
    },
  };
}
