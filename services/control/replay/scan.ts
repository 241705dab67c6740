import type { LogRecord, Reader, RecordBatch } from '@weir/log';
import type { ReplayRange } from './order.ts';

export interface Position {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
}

export interface ScannedRecord {
  readonly topic: string;
  readonly partition: number;
  readonly record: LogRecord;
}

/** A pause, and the cursor of a replay, are between chunks. What is made of one is garbage before it grows old. */
const chunkRecords = 1000;
/** Of all ranges at once, and of one fetch: less than this is a request for a few records, more gains nothing. */
const heldBytes = 96 * 1024 * 1024;
const leastBytes = 64 * 1024;
const mostBytes = 4 * 1024 * 1024;

/** Records of all partitions up to one time, and where each partition goes on behind them. */
export interface Chunk {
  readonly records: readonly ScannedRecord[];
  readonly positions: readonly Position[];
  /** Since the chunk before: records of the ranges that are not there any more (retention). */
  readonly lost: number;
}

/** Batches of one range that are asked for, over a reader that hands them out; one is read ahead. */
interface Batches {
  /** Undefined = the end. Rejects with what the reader failed with. */
  next(): Promise<RecordBatch | undefined>;
  stop(): void;
}

class Stopped extends Error {}

function openBatches(reader: Reader, range: ReplayRange, from: number, bytes: number): Batches {
  let wanted: PromiseWithResolvers<RecordBatch | undefined> | undefined;
  let ahead: { readonly batch: RecordBatch; readonly taken: () => void } | undefined;
  let ended: { readonly error?: unknown } | undefined;
  let stopped = false;
  async function onBatch(batch: RecordBatch): Promise<void> {
    if (stopped) throw new Stopped();
    if (wanted !== undefined) {
      wanted.resolve(batch);
      wanted = undefined;
      return;
    }
    await new Promise<void>((taken) => { ahead = { batch, taken }; });
    if (stopped) throw new Stopped();
  }
  function end(error?: unknown): void {
    ended = error === undefined || error instanceof Stopped ? {} : { error };
    if (ended.error === undefined) wanted?.resolve(undefined);
    else wanted?.reject(ended.error);
  }
  reader.read(range.topic, range.partition, from, range.end, onBatch, bytes).then(() => end(), end);
  return {
    async next() {
      if (ahead !== undefined) {
        const { batch, taken } = ahead;
        ahead = undefined;
        taken();
        return batch;
      }
      if (ended?.error !== undefined) throw ended.error;
      if (ended !== undefined) return undefined;
      wanted = Promise.withResolvers();
      return wanted.promise;
    },
    stop() {
      stopped = true;
      ahead?.taken();
    },
  };
}

/** One partition on its way. */
interface Part {
  readonly range: ReplayRange;
  readonly batches: Batches;
  records: readonly LogRecord[];
  head: number;
  /** Where the partition goes on behind `records`. */
  next: number;
  /** Time of the last record released, and of the newest in hand: made monotonic, so that no record overtakes an earlier one. */
  time: number;
  newest: number;
  ended: boolean;
  /** Offsets before `next` at which nothing stands any more; the topics of a replay are not compacted. */
  lost: number;
}

/** The next batch with a record in it, or the end. */
async function fill(part: Part): Promise<void> {
  while (!part.ended && part.head >= part.records.length) {
    const batch = await part.batches.next();
    part.head = 0;
    part.records = batch?.records ?? [];
    part.lost += (batch === undefined ? part.range.end : batch.records[0]?.offset ?? batch.nextOffset) - part.next;
    part.next = batch?.nextOffset ?? part.range.end;
    part.ended = batch === undefined;
    part.newest = part.time;
    for (const { timestamp } of part.records) part.newest = Math.max(part.newest, timestamp);
  }
}

/** The part whose next record is the oldest, up to a time; undefined = none is left. */
function oldest(parts: readonly Part[], until: number): Part | undefined {
  let found: Part | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const part of parts) {
    const next = part.records[part.head];
    const time = next === undefined ? least : Math.max(part.time, next.timestamp);
    if (time >= least || time > until) continue;
    found = part;
    least = time;
  }
  return found;
}

/**
 * The records of the ranges in one order by time over all partitions, in chunks, from the given positions on. Dead
 * letters of one person lie on several partitions of weir.dlq (their key is the event): merged by the time of death
 * they come in the order in which their lane gave them up, which is the order of its deliveries. Memory is bounded by
 * two fetches per partition, which share `heldBytes`: records are places in what a broker answered.
 */
export async function* scan(reader: Reader, ranges: readonly ReplayRange[], positions: readonly Position[] = []): AsyncGenerator<Chunk> {
  const bytes = Math.max(leastBytes, Math.min(mostBytes, Math.floor(heldBytes / 2 / Math.max(1, ranges.length))));
  const parts = ranges.map((range): Part => {
    const from = positions.find((p) => p.topic === range.topic && p.partition === range.partition)?.offset ?? range.start;
    return { range, batches: openBatches(reader, range, from, bytes), records: [], head: 0, next: from, time: 0, newest: 0, ended: false, lost: 0 };
  });
  const lost = (): number => parts.reduce((sum, part) => {
    const { lost } = part;
    part.lost = 0;
    return sum + lost;
  }, 0);
  const reached = (): Position[] => parts.map(({ range: { topic, partition }, records, head, next }) => ({ topic, partition, offset: records[head]?.offset ?? next }));
  try {
    for (;;) {
      await Promise.all(parts.map(fill));
      const active = parts.filter((part) => !part.ended);
      // The partition with the oldest newest record is released whole: each round goes on.
      const until = Math.min(...active.map((part) => part.newest));
      let records: ScannedRecord[] = [];
      for (let part = oldest(active, until); part !== undefined; part = oldest(active, until)) {
        const record = part.records[part.head++]!;
        part.time = Math.max(part.time, record.timestamp);
        records.push({ topic: part.range.topic, partition: part.range.partition, record });
        if (records.length < chunkRecords) continue;
        yield { records, positions: reached(), lost: lost() };
        records = [];
      }
      if (records.length > 0 || active.length === 0) yield { records, positions: reached(), lost: lost() };
      if (active.length === 0) return;
    }
  } finally {
    for (const part of parts) part.batches.stop();
  }
}
