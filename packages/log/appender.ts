import { WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import { delay } from './deadline.ts';
import { partitionOf } from './murmur2.ts';
import { createPartitionCounts, type PartitionCounts } from './partition-counts.ts';
import { recordSize } from './records.ts';
import { createSpacing, type Spacing } from './spacing.ts';
import type { Appender, OutRecord } from './types.ts';

/** What came of one partition's batch in one produce request. */
export type ProduceAck =
  | { readonly kind: 'acked'; readonly baseOffset: number }
  /** Not (surely) written: send the same batch again before anything later of the partition. */
  | { readonly kind: 'again'; readonly detail: string }
  | { readonly kind: 'fatal'; readonly detail: string };

export interface ProduceBatch {
  readonly topic: string;
  readonly partition: number;
  readonly records: readonly OutRecord[];
  /** Timestamp of the records, ms: the same each time the batch is sent. */
  readonly at: number;
}

/** What the appender needs of a cluster: one attempt, no retry, no re-order, one ack per batch in the order given. */
export interface ProducePort {
  partitions(topic: string): Promise<number>;
  partitionsKnown(topic: string): number | undefined;
  /** Partitions with the same leader may share a request; -1 = no leader now. */
  leader(topic: string, partition: number): number;
  refresh(topics: readonly string[]): Promise<void>;
  /** Rejects when no answer came: the connection was cut, whether it was written is unknown. */
  produce(leader: number, batches: readonly ProduceBatch[], timeoutMs: number): Promise<readonly ProduceAck[]>;
  close(): void;
}

export interface AppenderOptions {
  /** From the call of append to its end, acknowledged or rejected (plus one request that is on the way). */
  readonly deadlineMs: number;
  /** Appends that would go over it are refused with `overloaded` before anything of them is taken. */
  readonly maxPendingBytes: number;
  readonly requestTimeoutMs: number;
  /** What is appended goes at once, in the turn of the call; only what comes while requests are under way coalesces. */
  readonly urgent?: boolean;
  /** Over how many partitions keys are hashed; default: its own. */
  readonly counts?: PartitionCounts;
}

/** One call of append: resolved when the last of its pieces is acknowledged. */
interface Call {
  readonly offsets: number[];
  readonly since: number;
  remaining: number;
  readonly resolve: (offsets: readonly number[]) => void;
  readonly reject: (error: Error) => void;
}

interface Piece {
  readonly record: OutRecord;
  readonly size: number;
  readonly call: Call;
  readonly index: number;
}

/** What is on the way, or must be sent again before anything else of its partition. */
interface Batch extends ProduceBatch {
  readonly pieces: readonly Piece[];
  readonly bytes: number;
}

/** Requests to one broker. */
interface Pace {
  /** Lanes that have something to send. */
  ready: Lane[];
  /** Bytes that came in since the last request. */
  bytes: number;
  underWay: number;
  /** When the last one began, ms; monotonic. */
  sentAt: number;
  timer: NodeJS.Timeout | undefined;
  /** When the timer is due, ms; monotonic. */
  dueAt: number;
  readonly spacing: Spacing;
}

interface Lane {
  readonly topic: string;
  readonly partition: number;
  readonly waiting: Piece[];
  head: number;
  batch: Batch | undefined;
  /** Its batch is on the way or waits to be sent again: nothing of the partition may be sent. */
  busy: boolean;
  scheduled: boolean;
  /** Of the leader that it was last scheduled for. */
  pace: Pace | undefined;
  failures: number;
  /** Set when a batch failed, until every caller had the chance to learn it: what was called before may not be overtaken. */
  failed: WeirError | undefined;
}

/** Below the broker's default max.message.bytes (1 MiB) with room for the batch header. */
const maxBatchBytes = 900_000;
/** A record larger than that has a batch of its own; the topics take 2 MiB (infra/topics.yaml). */
const maxRecordBytes = 2_000_000;
const maxRequestBytes = 4_000_000;
/** So many requests to one broker are under way before the next waits for an answer, so that it takes more with it; and so long it waits at most. */
const requestsAtOnce = 2;
const lingerMs = 5;
/** From the begin of one request to a broker to that of the next, however soon the answer comes: a request costs both sides as much as tens of records. Half of what lies between two fetches, so that a stage is done with what one brought, acknowledged, before the next brings more: at the same pace what once lags stays behind. */
const spacingMs = 4;
/** So much is worth a request of its own at once. */
const fullBytes = 64 * 1024;

/**
 * The producer discipline of Weir (docs/architecture.md 3.2), above any driver: per partition one request on
 * the way, its ack checked; a batch without an ack is sent again, unchanged, before anything later; a batch
 * over its deadline fails with everything queued behind it. What comes while nothing is under way and nothing just went
 * is sent at once; what comes meanwhile coalesces.
 */
export function createAppender(port: ProducePort, options: AppenderOptions): Appender {
  const lanes = new Map<string, (Lane | undefined)[]>();
  const paces = new Map<number, Pace>();
  const idle: (() => void)[] = [];
  const counts = options.counts ?? createPartitionCounts();
  let pending = 0;
  let open = true;
  let flushScheduled = false;

  function laneOf(topic: string, partition: number): Lane {
    let ofTopic = lanes.get(topic);
    if (ofTopic === undefined) lanes.set(topic, ofTopic = []);
    return ofTopic[partition] ??= { topic, partition, waiting: [], head: 0, batch: undefined, busy: false, scheduled: false, pace: undefined, failures: 0, failed: undefined };
  }

  function paceOf(leader: number): Pace {
    let pace = paces.get(leader);
    if (pace === undefined) paces.set(leader, pace = { ready: [], bytes: 0, underWay: 0, sentAt: -Infinity, timer: undefined, dueAt: 0, spacing: createSpacing(spacingMs) });
    return pace;
  }

  function schedule(lane: Lane): void {
    if (lane.busy || lane.scheduled) return;
    lane.scheduled = true;
    lane.pace = paceOf(port.leader(lane.topic, lane.partition));
    lane.pace.ready.push(lane);
    flushSoon();
  }

  function flushSoon(): void {
    if (flushScheduled) return;
    flushScheduled = true;
    // An immediate comes behind the rest of this turn of the event loop, which may be a slice of bulk work.
    if (options.urgent === true) queueMicrotask(flush);
    else setImmediate(flush);
  }

  function flush(): void {
    flushScheduled = false;
    const now = performance.now();
    for (const [leader, pace] of paces) {
      if (pace.ready.length === 0) continue;
      // What waits for an answer goes with it; the timer is for the answer that does not come.
      const at = pace.underWay >= requestsAtOnce ? now + lingerMs : options.urgent === true || pace.bytes >= fullBytes ? now : pace.sentAt + pace.spacing.ms();
      if (at <= now) sendReady(leader, pace);
      else if (pace.timer === undefined || at < pace.dueAt) {
        clearTimeout(pace.timer);
        pace.timer = setTimeout(sendDue, at - now, leader, pace);
        pace.dueAt = at;
      }
    }
  }

  function sendDue(leader: number, pace: Pace): void {
    pace.spacing.fired(performance.now() - pace.dueAt);
    sendReady(leader, pace);
  }

  function sendReady(leader: number, pace: Pace): void {
    clearTimeout(pace.timer);
    pace.timer = undefined;
    const list = pace.ready;
    pace.ready = [];
    pace.bytes = 0;
    let request: Lane[] = [];
    let bytes = 0;
    for (const lane of list) {
      lane.scheduled = false;
      lane.batch ??= takeBatch(lane);
      if (lane.batch === undefined) continue;
      lane.busy = true;
      request.push(lane);
      bytes += lane.batch.bytes;
      if (bytes < maxRequestBytes) continue;
      void send(leader, pace, request);
      request = [];
      bytes = 0;
    }
    if (request.length > 0) void send(leader, pace, request);
  }

  function takeBatch(lane: Lane): Batch | undefined {
    const pieces: Piece[] = [];
    let bytes = 0;
    while (lane.head < lane.waiting.length) {
      const piece = lane.waiting[lane.head]!;
      if (pieces.length > 0 && bytes + piece.size > maxBatchBytes) break;
      pieces.push(piece);
      bytes += piece.size;
      lane.head++;
    }
    if (lane.head === lane.waiting.length) {
      lane.waiting.length = 0;
      lane.head = 0;
    } else if (lane.head > 4096) {
      lane.waiting.splice(0, lane.head);
      lane.head = 0;
    }
    lane.failures = 0;
    if (pieces.length === 0) return undefined;
    return { topic: lane.topic, partition: lane.partition, records: pieces.map((p) => p.record), at: Date.now(), pieces, bytes };
  }

  const expiry = (lane: Lane): number => lane.batch!.pieces[0]!.call.since + options.deadlineMs;

  /** Never rejects: what happens to a batch is told to its callers. */
  async function send(leader: number, pace: Pace, request: readonly Lane[]): Promise<void> {
    let acks: readonly ProduceAck[];
    const left = Math.min(...request.map(expiry)) - performance.now();
    if (leader < 0) acks = request.map(() => ({ kind: 'again', detail: 'the partition has no leader' }));
    else {
      try {
        pace.underWay++;
        pace.sentAt = performance.now();
        const sent = port.produce(leader, request.map((lane) => lane.batch!), Math.max(1000, Math.min(options.requestTimeoutMs, left)));
        for (const lane of request) failpoint('log.produce-sent', lane.topic);
        acks = await sent;
      } catch (error) {
        acks = request.map(() => ({ kind: 'again', detail: (error as Error).message }));
      } finally {
        pace.underWay--;
        if (pace.ready.length > 0) flushSoon();
      }
    }
    const again: Lane[] = [];
    for (let i = 0; i < request.length; i++) {
      const lane = request[i]!;
      const ack = acks[i]!;
      if (ack.kind === 'acked') succeed(lane, ack.baseOffset);
      else if (ack.kind === 'fatal') fail(lane, new WeirError('log-fatal', `append to ${lane.topic}/${lane.partition} refused: ${ack.detail}`));
      else if (performance.now() >= expiry(lane)) fail(lane, new WeirError('log-append-failed', `append to ${lane.topic}/${lane.partition} not acknowledged within ${options.deadlineMs} ms: ${ack.detail}`));
      else again.push(lane);
    }
    if (again.length > 0) await retry(again);
  }

  /** Wait a little, learn the leaders anew, send the same batches again. The lanes stay busy meanwhile. */
  async function retry(list: readonly Lane[]): Promise<void> {
    const failures = Math.max(...list.map((lane) => ++lane.failures));
    await delay(Math.min(1000, 20 * 2 ** Math.min(failures, 6)));
    // The brokers may be away: the deadline of the batch decides when to give up, not this refresh.
    await port.refresh([...new Set(list.map((lane) => lane.topic))]).catch((error: unknown) => error);
    for (const lane of list) {
      lane.busy = false;
      schedule(lane);
    }
  }

  function succeed(lane: Lane, base: number): void {
    const { pieces } = lane.batch!;
    lane.batch = undefined;
    lane.busy = false;
    for (let i = 0; i < pieces.length; i++) {
      const { call, index, size } = pieces[i]!;
      pending -= size;
      call.offsets[index] = base + i;
      if (--call.remaining === 0) call.resolve(call.offsets);
    }
    if (lane.head < lane.waiting.length) schedule(lane);
    else settleIdle();
  }

  /** Everything queued behind a failed batch fails with it: nothing may overtake it. */
  function fail(lane: Lane, error: WeirError): void {
    const pieces = [...lane.batch!.pieces, ...lane.waiting.slice(lane.head)];
    lane.batch = undefined;
    lane.waiting.length = 0;
    lane.head = 0;
    lane.busy = false;
    lane.failed = error;
    // Promise reactions run before an immediate: after it, whoever calls append knows of the failure.
    setImmediate(() => { lane.failed = undefined; });
    for (const { call, size } of pieces) {
      pending -= size;
      call.reject(error);
    }
    settleIdle();
  }

  function settleIdle(): void {
    if (pending === 0) for (const done of idle.splice(0)) done();
  }

  /** Sizes of the records; throws before anything is taken when one of them cannot go in. */
  function admit(topic: string, records: readonly OutRecord[], partitions: number): number[] {
    const sizes = new Array<number>(records.length);
    let bytes = 0;
    for (let i = 0; i < records.length; i++) {
      const record = records[i]!;
      if (!(record.partition >= 0 && record.partition < partitions)) throw new WeirError('log-fatal', `${topic} has no partition ${record.partition}`);
      const size = recordSize(record);
      if (size > maxRecordBytes) throw new WeirError('log-fatal', `a record of ${size} bytes for ${topic} is over ${maxRecordBytes}`);
      const failed = lanes.get(topic)?.[record.partition]?.failed;
      if (failed !== undefined) throw failed;
      sizes[i] = size;
      bytes += size;
    }
    if (pending > 0 && pending + bytes > options.maxPendingBytes) throw new WeirError('overloaded', `${pending} bytes wait for their acknowledgement, the limit is ${options.maxPendingBytes}`);
    pending += bytes;
    return sizes;
  }

  function enqueue(topic: string, records: readonly OutRecord[], partitions: number): Promise<readonly number[]> {
    const sizes = admit(topic, records, partitions);
    return new Promise((resolve, reject) => {
      const call: Call = { offsets: new Array<number>(records.length), since: performance.now(), remaining: records.length, resolve, reject };
      for (let index = 0; index < records.length; index++) {
        const record = records[index]!;
        const lane = laneOf(topic, record.partition);
        lane.waiting.push({ record, size: sizes[index]!, call, index });
        if (!lane.busy && !lane.scheduled) schedule(lane);
        lane.pace!.bytes += sizes[index]!;
        if (lane.scheduled && lane.pace!.bytes >= fullBytes) flushSoon();
      }
    });
  }

  /** Calls that wait for the metadata of their topic, in order. */
  const learning = new Map<string, Promise<number>>();
  function learn(topic: string, anew: boolean): Promise<number> {
    let running = learning.get(topic);
    if (running === undefined) {
      // Kept for one turn longer: a later call must not go before those that waited.
      running = (anew ? port.refresh([topic]) : Promise.resolve()).then(() => port.partitions(topic)).finally(() => setImmediate(() => learning.delete(topic)));
      learning.set(topic, running);
    }
    return running;
  }

  return {
    async append(topic, records) {
      if (records.length === 0) return [];
      if (!open) throw new WeirError('log-append-failed', 'the appender is closed');
      const known = learning.has(topic) ? undefined : port.partitionsKnown(topic);
      // A partition that is not known may have been added since: who was given its records by the group knows it already.
      const added = known !== undefined && records.some(({ partition }) => partition >= known);
      return enqueue(topic, records, known === undefined || added ? await learn(topic, added) : known);
    },
    partitionFor(topic, key) {
      const partitions = port.partitionsKnown(topic);
      if (partitions === undefined) throw new WeirError('log-fatal', `partitions of ${topic} are not loaded`);
      return partitionOf(key, counts.of(topic, partitions));
    },
    async partitions(topic) {
      const partitions = await port.partitions(topic);
      counts.of(topic, partitions);
      return partitions;
    },
    pendingBytes: () => pending,
    async close() {
      open = false;
      // Bounded by the deadline of what is pending.
      if (pending > 0) await new Promise<void>((done) => { idle.push(done); });
      port.close();
    },
  };
}
