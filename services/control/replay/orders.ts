import { WeirError } from '@weir/errors';
import type { Appender, LogRecord, RecordBatch, Serde } from '@weir/log';
import { isAway } from '@weir/pipeline';
import { leafHeader } from '@weir/release';
import type { ReplayOrder } from './order.ts';
import type { Position } from './scan.ts';

export const states = ['previewing', 'previewed', 'running', 'paused', 'delivering', 'finished', 'empty', 'cancelled', 'failed'] as const;
export type State = (typeof states)[number];
/** Work is left to be done on them, also after a crash. */
export const workingStates: ReadonlySet<State> = new Set(['previewing', 'running', 'delivering']);
/** Nothing happens to them any more. */
export const endedStates: ReadonlySet<State> = new Set(['finished', 'empty', 'cancelled', 'failed']);

/** weir.internal.ReplayProgress, decoded. */
export interface ReplayProgress {
  readonly id: string;
  readonly state: State;
  readonly at: number;
  readonly by: string;
  readonly leaf: string;
  readonly runner: string;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
  readonly positions: readonly Position[];
  readonly tails: readonly Position[];
  readonly counts: Readonly<Record<string, number>>;
  readonly preview: string;
  readonly report: string;
  readonly reason: string | null;
}

export interface Entry {
  readonly order: ReplayOrder;
  progress: ReplayProgress;
}

const orderKey = (id: string): string => `replay/${id}`;
const progressKey = (id: string): string => `replay/${id}/progress`;
/** Ended orders that are remembered; what an older one did stands in the audit log. */
const keptEnded = 500;
/** Ids that orders name, on weir.control and in memory: those of the oldest that ended, or were only previewed, go before there are so many bytes. */
const maxIdBytes = 32 * 1024 * 1024;
/** A preview that nobody has started: its range has moved on by then. */
const keptPreviewedMs = 7 * 86_400_000;

/**
 * Replay orders on weir.control: an order is written once, its progress over and over under a key of its own. Both name
 * the audit leaf of the change.
 */
export interface Orders {
  list(): readonly Entry[];
  /** Throws not-found. */
  get(id: string): Entry;
  /**
   * Order and first progress in one append. Throws bad-request when the orders that have not ended name too many ids for one more.
   * Brokers that are away may have it: it stays, for who adds it again. What fails otherwise is no order.
   */
  add(order: ReplayOrder, progress: ReplayProgress): Promise<void>;
  /** Resolves when it is acknowledged. Rejects with log-assignment-stale when another process has taken the order over. */
  save(progress: ReplayProgress): Promise<void>;
  /** Records of weir.control as they are read: at the start, and then those of others. */
  take(batch: RecordBatch): Promise<void>;
}

export function createOrders(ports: { readonly appender: Appender; readonly serde: Serde; readonly topic: string; readonly runner: string; /** An order is about to be forgotten: what is kept of it elsewhere goes first. */ readonly forgetting?: (id: string) => void }): Orders {
  const { appender, serde, topic, runner, forgetting = () => {} } = ports;
  const entries = new Map<string, Entry>();
  const early = new Map<string, ReplayProgress>();
  /** Orders that another process works on. */
  const lost = new Set<string>();

  const record = (key: string, name: string, value: { readonly leaf: string }) => ({ partition: 0, key: Buffer.from(key), value: serde.encode(name, value), headers: [[leafHeader, Buffer.from(value.leaf)] as const] });

  /** Drop what ended long ago or was previewed and left, and what there is no room for beside the next order, also on the topic. */
  async function forget({ at: now, events }: ReplayOrder): Promise<void> {
    const ended = [...entries.values()].filter((e) => endedStates.has(e.progress.state) || e.progress.state === 'previewed').sort((a, b) => a.progress.at - b.progress.at);
    const left = new Set(ended.filter((e, i) => i < ended.length - keptEnded || (e.progress.state === 'previewed' && !e.order.start && now - e.order.at > keptPreviewedMs)));
    let bytes = events.length;
    for (const e of entries.values()) if (!left.has(e)) bytes += e.order.events.length;
    for (const e of ended) {
      if (bytes < maxIdBytes) break;
      // One that is about to run is no preview that was left.
      if (left.has(e) || e.order.events.length === 0 || (e.progress.state === 'previewed' && e.order.start)) continue;
      left.add(e);
      bytes -= e.order.events.length;
    }
    if (events.length > 0 && bytes >= maxIdBytes) throw new WeirError('bad-request', `ids: the orders that have not ended name ${(bytes - events.length) / 16} already, of ${maxIdBytes / 16}: wait until one has ended, cancel one, or order fewer`);
    const old = [...left].map((e) => e.order.id);
    if (old.length === 0) return;
    for (const id of old) forgetting(id);
    await appender.append(topic, old.flatMap((id) => [orderKey(id), progressKey(id)].map((key) => ({ partition: 0, key: Buffer.from(key), value: null }))));
    for (const id of old) entries.delete(id);
  }

  function takeProgress(progress: ReplayProgress): void {
    const entry = entries.get(progress.id);
    if (entry === undefined) early.set(progress.id, progress);
    else {
      // A process that began later works on it: this one stands down (its own records come back here, too).
      if (progress.runner !== runner && progress.at >= entry.progress.at && entry.progress.runner === runner) lost.add(progress.id);
      if (progress.at >= entry.progress.at) entry.progress = progress;
    }
  }

  async function takeOne({ key, value }: LogRecord): Promise<void> {
    const name = key?.toString('utf8') ?? '';
    if (!name.startsWith('replay/')) return;
    const id = name.split('/')[1]!;
    if (value === null) {
      if (entries.has(id)) forgetting(id);
      entries.delete(id);
      return;
    }
    await serde.prepare(value);
    const decoded = serde.decode(value).value as ReplayOrder & ReplayProgress;
    if (name.endsWith('/progress')) return takeProgress(decoded);
    // Written once: what is known of it stays the one entry that whoever works on it looks at.
    if (!entries.has(id)) entries.set(id, { order: decoded, progress: early.get(id) ?? firstProgress(decoded, '') });
    early.delete(id);
  }

  return {
    list: () => [...entries.values()].sort((a, b) => b.order.at - a.order.at),
    get(id) {
      const found = entries.get(id);
      if (found === undefined) throw new WeirError('not-found', `no replay order ${id}`);
      return found;
    },
    async add(order, progress) {
      if (!entries.has(order.id)) {
        await forget(order);
        entries.set(order.id, { order, progress });
      }
      const now = entries.get(order.id)!.progress;
      try {
        await appender.append(topic, [record(orderKey(order.id), 'weir.internal.ReplayOrder', order), record(progressKey(order.id), 'weir.internal.ReplayProgress', now)]);
      } catch (error) {
        if (!isAway(error)) entries.delete(order.id);
        throw error;
      }
    },
    async save(progress) {
      if (lost.has(progress.id)) throw new WeirError('log-assignment-stale', `another process works on ${progress.id}`);
      const entry = entries.get(progress.id)!;
      entry.progress = progress;
      await appender.append(topic, [record(progressKey(progress.id), 'weir.internal.ReplayProgress', progress)]);
    },
    async take(batch) {
      for (const one of batch.records) await takeOne(one);
    },
  };
}

export function firstProgress(order: ReplayOrder, runner: string): ReplayProgress {
  return { id: order.id, state: 'previewing', at: order.at, by: order.by, leaf: order.leaf, runner, startedAt: null, finishedAt: null, positions: [], tails: [], counts: {}, preview: '', report: '', reason: null };
}

/** Everything in the range was read and put back. */
export function atEnd(order: ReplayOrder, positions: readonly Position[]): boolean {
  return order.range.every(({ topic, partition, end }) => positions.some((p) => p.topic === topic && p.partition === partition && p.offset >= end));
}
