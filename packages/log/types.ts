/**
 * The log port: all that Weir asks of Kafka. Two drivers implement it (kafkajs, @platformatic/kafka) and
 * one conformance suite holds them to it. Nothing outside packages/log imports a Kafka client.
 *
 * Guarantees of the port, whatever the client does underneath:
 * - append: a resolved promise means every record was acknowledged by all in-sync replicas at the returned
 *   offset; per partition the order of calls is the order in the log; a rejected or timed-out request is
 *   resent as the same batch before anything later for that partition. Duplicates are possible, loss and
 *   re-order are not.
 * - group consumer: `batch` is called in offset order, without a gap, from the committed position (or the
 *   beginning, never the end); out of range stops the line with `log-out-of-range`.
 * - every call has a deadline and rejects with a WeirError (`log-deadline`, `log-append-failed`, ...).
 */

import type { KafkaSecurity } from '@weir/config';
import type { Sink } from './encoder.ts';
import type { Moment } from './lease.ts';
import type { PartitionCounts } from './partition-counts.ts';

/** Header names are ASCII; values are bytes. Order is kept. */
export type Headers = ReadonlyArray<readonly [name: string, value: Buffer]>;

/** Key, value and headers are views on the bytes of a whole fetch: copy what is kept for long. */
export interface LogRecord {
  readonly offset: number;
  /** Kafka record timestamp, milliseconds since the epoch. */
  readonly timestamp: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Headers;
}

/** Records of one partition, offsets ascending. `nextOffset` is where the next batch starts (covers compaction holes). */
export interface RecordBatch {
  readonly topic: string;
  readonly partition: number;
  /** Assignment epoch under which it was read; 0 for a Reader. */
  readonly epoch: number;
  readonly records: readonly LogRecord[];
  readonly nextOffset: number;
  /** End offset of the partition as seen by this fetch: `highWatermark - nextOffset` is the lag. */
  readonly highWatermark: number;
}

export interface OutRecord {
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers?: Headers;
}

export interface Appender {
  /**
   * Append in order; resolves with one offset per record after all of them are acknowledged. An empty list resolves at once.
   * Rejects, before anything is taken, with `overloaded` (over maxPendingBytes) or `log-fatal` (no such partition, a
   * record over 2 MB); later with `log-append-failed` (not acknowledged in time: whether it was written is unknown) or
   * `log-fatal` (the broker refuses it). What was called before a rejection could be known, on the same partition,
   * is rejected with it.
   */
  append(topic: string, records: readonly OutRecord[]): Promise<readonly number[]>;
  /** Murmur2 of the key, as Kafka's default partitioner, over the count that the topic was made with: partitions added since get no key. Throws log-fatal when the topic is unknown, topic-repartitioned when it has fewer. */
  partitionFor(topic: string, key: Buffer | string): number;
  /** How many partitions there are; loads topic metadata (cached). Rejects with log-fatal when there is no such topic, topic-repartitioned when it has fewer than its keys are hashed over. */
  partitions(topic: string): Promise<number>;
  /** Bytes accepted by append and not yet acknowledged: what back-pressure looks at. */
  pendingBytes(): number;
  close(): Promise<void>;
}

export interface Assignment {
  readonly topic: string;
  readonly partition: number;
  /** Grows with every assignment of any partition in this process; never 0. */
  readonly epoch: number;
  /** Committed position, or the beginning of the partition when there is none. */
  readonly position: number;
}

/** Callbacks of a group consumer. Calls are serial per consumer: assigned → batch* → revoked. */
export interface ConsumerHandlers {
  /** New partitions. `batch` is not called for them before this resolves: load tables here. Heartbeats go on meanwhile. */
  assigned(parts: readonly Assignment[]): Promise<void>;
  /**
   * Partitions are leaving. Drain calls in flight and commit within the deadline; the group waits for it.
   * `lost` = the assignment is already gone: start nothing, commit nothing.
   */
  revoked(parts: readonly Assignment[], reason: 'rebalance' | 'lost' | 'close'): Promise<void>;
  /** Never awaited: take the batch, return. Use pause() for back-pressure. */
  batch(batch: RecordBatch): void;
  /** The consumer can not go on (already retried): the process must stop without a commit. */
  failed(error: Error): void;
}

export interface GroupConsumer {
  /** Join and start; resolves after the first assignment was handed to `assigned`. */
  start(): Promise<void>;
  pause(topic: string, partition: number): void;
  resume(topic: string, partition: number): void;
  /** Commit next offsets. Rejects with log-assignment-stale when an epoch has ended. Monotonic per partition: a lower offset is ignored. At most ten requests a second, what waits goes together: wait for it where the assignment ends, not between batches. */
  commit(offsets: ReadonlyArray<{ topic: string; partition: number; epoch: number; offset: number }>): Promise<void>;
  /** Monotonic milliseconds (performance.now()) until which this member surely owns its partitions, as the clocks stand: send time of the last acknowledged heartbeat + session timeout, by the stricter of monotonic and wall clock. Long past when it does not. */
  leaseUntil(): number;
  /** True while (topic, partition) is assigned under exactly this epoch and the lease has not run out. */
  holds(topic: string, partition: number, epoch: number): boolean;
  assignments(): readonly Assignment[];
  /** Calls revoked(…, 'close'), leaves the group. */
  close(): Promise<void>;
}

export interface GroupConsumerOptions {
  readonly groupId: string;
  readonly topics: readonly string[];
  readonly handlers: ConsumerHandlers;
  /** Default 10_000. The lease ends this long after the last acknowledged heartbeat was sent. */
  readonly sessionTimeoutMs?: number;
  /** How long `revoked` and `assigned` may take; default 30_000. */
  readonly rebalanceTimeoutMs?: number;
  /** Per partition and fetch; default 1 MiB. */
  readonly maxBytesPerPartition?: number;
  /** How often it is looked, by requests of their own, whether what there is to read is being read, and whether the topics have new partitions; default 15_000. */
  readonly watchMs?: number;
  /** Few records are fetched as they come, not 8 ms apart: for what a withdrawal waits for. */
  readonly urgent?: boolean;
}

/** A group that has committed nothing of a partition begins behind these records, which were gone: [from, to). */
export interface UnreadGap {
  readonly groupId: string;
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
  readonly to: number;
}

/** Reads without a group: tables, ranges, traces, followers. */
export interface Reader {
  /** Read [from, to) of one partition in order; `from` below the beginning starts at the beginning (the caller sees it in the first offset). `bytes`: of one fetch at most, if no batch is larger; default 4 MiB. */
  read(topic: string, partition: number, from: number, to: number, onBatch: (batch: RecordBatch) => void | Promise<void>, bytes?: number): Promise<void>;
  /** The record at this offset, or undefined when compacted or deleted. */
  readOne(topic: string, partition: number, offset: number): Promise<LogRecord | undefined>;
  /**
   * Follow partitions from the given positions until close(). onBatch is awaited (back-pressure).
   * New partitions of the topic are picked up from offset 0. A follower that stands still before the end is an error.
   * When it rejects, nothing follows and `onError` is not called any more.
   */
  follow(topic: string, positions: ReadonlyMap<number, number>, onBatch: (batch: RecordBatch) => void | Promise<void>, onError: (error: Error) => void): Promise<Follower>;
  close(): Promise<void>;
}

export interface Follower {
  /** Next offset to be read, per partition. */
  positions(): ReadonlyMap<number, number>;
  /**
   * What was committed before this moment was given to the handler, and it is done with it, as far as the leaders of the
   * partitions tell: one that was cut off, or was just elected, may tell an old end. Long past before the first answer, and
   * while a broker does not answer it stays.
   */
  asOf(): Moment;
  /** Somebody waits for what stands on the topic now: it is asked for as soon as on a machine that is not full. */
  hurry(): void;
  close(): Promise<void>;
}

export interface TopicSpec {
  readonly name: string;
  readonly partitions: number;
  readonly replicationFactor: number;
  readonly config: Readonly<Record<string, string>>;
}

export interface LogAdmin {
  /** Create what is missing; existing topics are left alone. Returns the names created. */
  createTopics(topics: readonly TopicSpec[]): Promise<readonly string[]>;
  describeTopics(names: readonly string[]): Promise<ReadonlyArray<TopicSpec & { readonly exists: boolean }>>;
  listTopics(): Promise<readonly string[]>;
  deleteTopics(names: readonly string[]): Promise<void>;
  /** How many partitions the topic has, asked of a broker now. Rejects with log-fatal when it does not exist. */
  partitions(topic: string): Promise<number>;
  /** partition → end offset (next to be written). */
  endOffsets(topic: string): Promise<ReadonlyMap<number, number>>;
  beginningOffsets(topic: string): Promise<ReadonlyMap<number, number>>;
  /** partition → first offset whose record's timestamp is at or after `time` (ms since the epoch); a partition without one is absent. */
  offsetsAt(topic: string, time: number): Promise<ReadonlyMap<number, number>>;
  /** partition → committed next offset; a partition without a commit is absent. */
  committed(groupId: string, topic: string): Promise<ReadonlyMap<number, number>>;
  close(): Promise<void>;
}

/** The composition root's handle: one per process. */
export interface Log {
  readonly driver: 'kafkajs' | 'platformatic';
  /** `urgent`: requests are not spaced, each goes in the turn of its call. Costs a request for each call that finds none under way: for what a withdrawal waits for. */
  appender(options?: { deadlineMs?: number; maxPendingBytes?: number; urgent?: boolean }): Promise<Appender>;
  consumer(options: GroupConsumerOptions): GroupConsumer;
  /** `urgent`: its followers fetch few records as they come, not 8 ms apart. `shared`: they have no requests of their own, but come with what the consumers of this log fetch, for handlers that return at once: whoever waits in one keeps all of them waiting. `graceMs`: for how long its followers wait for an answer that is late before they ask anew; default 10,000, to which it doubles with each answer that does not come. */
  reader(options?: { urgent?: boolean; shared?: boolean; graceMs?: number }): Promise<Reader>;
  admin(): Promise<LogAdmin>;
  close(): Promise<void>;
}

export interface LogOptions {
  readonly brokers: readonly string[];
  /** TLS and login; default: neither. Files are read again for each connection. */
  readonly security?: KafkaSecurity;
  readonly clientId: string;
  readonly driver?: 'kafkajs' | 'platformatic';
  /** Deadline of each request that has none of its own; default 30_000. */
  readonly deadlineMs?: number;
  /** Over how many partitions the keys of each topic are hashed, of all appenders; default: as many as are found when it is first asked. */
  readonly counts?: PartitionCounts;
  /** Told at each assignment of such a partition, until the group has committed something of it. */
  readonly onUnread?: (gap: UnreadGap) => void;
}

/** Bounds checked while walking the bytes, before any object is made of them. */
export interface DecodeLimits {
  readonly maxBytes: number;
  readonly maxItems: number;
  readonly maxDepth: number;
}

/** Avro in the Confluent wire format: magic 0, 4-byte schema id, datum. */
export interface Serde {
  /** Register every schema of schemas/ under its record name (or look it up), FULL_TRANSITIVE. Must have resolved before encode. */
  start(): Promise<void>;
  /** Schema id of a full record name, e.g. 'weir.canonical.Profile'. */
  idOf(recordName: string): number;
  encode(recordName: string, value: unknown): Buffer;
  /** The same behind what the sink holds. When it throws, the sink is as before. */
  encodeTo(recordName: string, value: unknown, sink: Sink): void;
  /** `decode` is synchronous for known ids; unknown ids need `prepare` first. */
  decode(bytes: Buffer): { readonly name: string; readonly value: any };
  /** Name of the record, when the bytes are whole and within the bounds; nothing is made of them. Throws like `decode`. */
  check(bytes: Buffer): string;
  /** Look up the writer schema of an unknown id (registry call); resolves at once for known ones. */
  prepare(bytes: Buffer): Promise<void>;
  known(bytes: Buffer): boolean;
}
