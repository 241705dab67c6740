import type { Follower, LogAdmin, Reader, RecordBatch } from '@weir/log';
import type { Put, Table } from './table.ts';

/** A compacted topic read whole into a table, and followed. */
export interface TopicTable {
  /** Load to the end offsets taken now, then follow. */
  start(): Promise<void>;
  caughtUp(): boolean;
  /** Per partition, the next offset to be applied. */
  positions(): readonly number[];
  /** True when every partition is at or past these next offsets. */
  atLeast(offsets: readonly number[]): boolean;
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
}

export function createTopicTable(options: TopicTableOptions): TopicTable {
  const { reader, admin, topic, table } = options;
  const next: number[] = [];
  const listeners: (() => void)[] = [];
  let follower: Follower | undefined;
  let ready = false;

  function apply(batch: RecordBatch): void | Promise<void> {
    const waiting = options.prepare?.(batch);
    return waiting === undefined ? put(batch) : waiting.then(() => put(batch));
  }

  function put(batch: RecordBatch): void {
    table.putBatch(options.puts(batch), new Map([[batch.partition, batch.nextOffset]]));
    next[batch.partition] = batch.nextOffset;
    for (const listener of listeners) listener();
  }

  return {
    async start() {
      const [ends, begins] = await Promise.all([admin.endOffsets(topic), admin.beginningOffsets(topic)]);
      // A checkpoint outside the topic is of another topic of the same name: start again.
      const foreign = [...ends].some(([p, end]) => (table.position(p) ?? 0) > end);
      if (foreign) table.clear();
      await Promise.all([...ends].map(async ([partition, end]) => {
        next[partition] = Math.max(table.position(partition) ?? 0, begins.get(partition) ?? 0);
        if (next[partition]! < end) await reader.read(topic, partition, next[partition]!, end, apply);
        next[partition] = Math.max(next[partition]!, end);
      }));
      follower = await reader.follow(topic, new Map(next.map((offset, partition) => [partition, offset])), apply, options.onError);
      ready = true;
      for (const listener of listeners) listener();
    },
    caughtUp: () => ready,
    positions: () => next,
    atLeast(offsets) {
      if (!ready) return false;
      for (let p = 0; p < offsets.length; p++) if (offsets[p]! > (next[p] ?? 0)) return false;
      return true;
    },
    onAdvance: (listener) => { listeners.push(listener); },
    async close() {
      ready = false;
      await follower?.close();
      await table.close();
    },
  };
}
