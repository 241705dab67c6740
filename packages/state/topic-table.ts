import { WeirError } from '@weir/errors';
import { readUpTo, type Follower, type LogAdmin, type Reader, type RecordBatch } from '@weir/log';
import type { Put, Seen, Table } from './table.ts';

/** How the table was loaded at start. */
export interface Rebuild {
  /** Undefined when it went on from its checkpoint, else why it was read from the beginning. */
  readonly reason: string | undefined;
  readonly records: number;
  readonly ms: number;
}

/** A compacted topic read whole into a table, and followed. */
export interface TopicTable {
  /** Load to the end offsets taken now, then follow. */
  start(): Promise<Rebuild>;
  caughtUp(): boolean;
  /** Per partition, the next offset to be applied. */
  positions(): readonly number[];
  /** True when every partition is at or past these next offsets. */
  atLeast(offsets: readonly number[]): boolean;
  /** Resolves when it is at or past these next offsets; rejects with log-deadline. */
  waitFor(offsets: readonly number[], deadlineMs: number): Promise<void>;
  /** Somebody waits for what stands on the topic now (Follower). */
  hurry(): void;
  /** Called after each batch was applied. */
  onAdvance(listener: () => void): void;
  close(): Promise<void>;
}

export interface TopicTableOptions {
  readonly reader: Reader;
  readonly admin: LogAdmin;
  readonly topic: string;
  readonly table: Table;
  /** What a batch puts into the table. Must be the same for the same records. */
  readonly puts: (batch: RecordBatch) => readonly Put[];
  /** Runs before `puts` when it gives a promise, e.g. to look up the schemas that the batch needs. */
  readonly prepare?: (batch: RecordBatch) => Promise<void> | undefined;
  readonly onError: (error: Error) => void;
  /** A checkpoint that was last at the end longer ago is not used: tombstones may have been compacted away since. Default 12 h, half of Kafka's delete.retention.ms. */
  readonly maxAgeMs?: number;
}

const defaultMaxAgeMs = 12 * 3600 * 1000;
const loadsAtOnce = 2;
const maxAsked = 20;
const askedEveryMs = 500;

export function createTopicTable(options: TopicTableOptions): TopicTable {
  const { reader, admin, topic, table } = options;
  const maxAgeMs = options.maxAgeMs ?? defaultMaxAgeMs;
  const next: number[] = [];
  const seen = new Map<number, Seen>();
  const listeners: (() => void)[] = [];
  const waiting = new Set<() => void>();
  let follower: Follower | undefined;
  let ready = false;
  let records = 0;

  function apply(batch: RecordBatch): void | Promise<void> {
    const before = options.prepare?.(batch);
    return before === undefined ? put(batch) : before.then(() => put(batch));
  }

  function put(batch: RecordBatch): void {
    const { partition } = batch;
    const last = batch.records.at(-1);
    const known = seen.get(partition);
    const now: Seen = {
      offset: last?.offset ?? known?.offset ?? -1,
      timestamp: last?.timestamp ?? known?.timestamp ?? 0,
      currentAt: batch.nextOffset >= batch.highWatermark ? Date.now() : known?.currentAt ?? 0,
    };
    table.putBatch(options.puts(batch), new Map([[partition, batch.nextOffset]]), new Map([[partition, now]]), batch.records.some(({ value }) => value === null));
    seen.set(partition, now);
    next[partition] = batch.nextOffset;
    records += batch.records.length;
    advanced();
  }

  function advanced(): void {
    for (const listener of listeners) listener();
    for (const check of waiting) check();
  }

  /** Why the checkpoint of a partition cannot be gone on from. */
  async function misfit(partition: number, begin: number, end: number): Promise<string | undefined> {
    const position = table.position(partition);
    if (position === undefined) return undefined;
    if (position > end) return `partition ${partition} was read to ${position} and ends at ${end}`;
    if (position < begin) return `partition ${partition} was read to ${position} and begins at ${begin}`;
    const known = table.seen(partition);
    const age = Date.now() - (known?.currentAt ?? 0);
    if (position < end && age > maxAgeMs) return `partition ${partition} was last at its end longer than ${maxAgeMs} ms ago`;
    if (position < end && age < 0) return `partition ${partition} was last at its end in the future: the clock was set back, and does not tell how long ago that was`;
    if (known === undefined || known.offset < begin) return undefined;
    const record = await reader.readOne(topic, partition, known.offset);
    return record !== undefined && record.timestamp !== known.timestamp ? `partition ${partition} has another record at ${known.offset}` : undefined;
  }

  /** A leader that was cut off and does not know it yet tells an old end: a checkpoint beyond it is no reason to read all again, and less, unless it stays so. */
  async function endsOfNow(): Promise<ReadonlyMap<number, number>> {
    for (let asked = 1; ; asked++) {
      const ends = await admin.endOffsets(topic);
      if (asked >= maxAsked || [...ends].every(([partition, end]) => (table.position(partition) ?? 0) <= end)) return ends;
      await new Promise((resolve) => { setTimeout(resolve, askedEveryMs); });
    }
  }

  async function load(partition: number, begin: number, end: number): Promise<void> {
    const from = table.position(partition) ?? begin;
    const known = table.seen(partition);
    if (known !== undefined) seen.set(partition, known);
    next[partition] = from;
    await readUpTo(reader, topic, partition, from, end, apply);
  }

  /** One is applied while the next of another is fetched; more at once are memory and no faster. */
  async function loadAll(ends: readonly (readonly [number, number])[], begins: ReadonlyMap<number, number>): Promise<void> {
    const left = ends.values();
    await Promise.all(Array.from({ length: loadsAtOnce }, async () => {
      for (const [partition, end] of left) await load(partition, begins.get(partition) ?? 0, end);
    }));
  }

  return {
    async start() {
      const began = performance.now();
      const [ends, begins] = await Promise.all([endsOfNow(), admin.beginningOffsets(topic)]);
      const reasons = await Promise.all([...ends].map(([partition, end]) => misfit(partition, begins.get(partition) ?? 0, end)));
      const reason = reasons.find((r) => r !== undefined) ?? (table.positions().size === 0 ? 'there was no checkpoint' : undefined);
      if (reason !== undefined) table.clear();
      table.loading();
      try {
        await loadAll([...ends], begins);
      } finally {
        table.loaded();
      }
      follower = await reader.follow(topic, new Map(next.map((offset, partition) => [partition, offset])), apply, options.onError);
      ready = true;
      advanced();
      return { reason, records, ms: performance.now() - began };
    },
    caughtUp: () => ready,
    positions: () => next,
    atLeast,
    waitFor(offsets, deadlineMs) {
      if (atLeast(offsets)) return Promise.resolve();
      return new Promise((resolve, reject) => {
        const check = (): void => {
          if (!atLeast(offsets)) return;
          clearTimeout(timer);
          waiting.delete(check);
          resolve();
        };
        const timer = setTimeout(() => {
          waiting.delete(check);
          reject(new WeirError('log-deadline', `the table of ${topic} is not at ${offsets.join(',')} within ${deadlineMs} ms, but at ${next.join(',')}`));
        }, deadlineMs);
        waiting.add(check);
      });
    },
    hurry: () => follower?.hurry(),
    onAdvance: (listener) => { listeners.push(listener); },
    async close() {
      ready = false;
      await follower?.close();
      await table.close();
    },
  };

  function atLeast(offsets: readonly number[]): boolean {
    if (!ready) return false;
    for (let p = 0; p < offsets.length; p++) if (offsets[p]! > (next[p] ?? 0)) return false;
    return true;
  }
}
