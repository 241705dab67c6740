import { WeirError } from '@weir/errors';
import { delay } from './deadline.ts';
import { partitionOf } from './murmur2.ts';
import type { Appender, OutRecord } from './types.ts';
import { recordSize } from './wire.ts';

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
}

/** What a driver gives to the appender: one attempt, no retry, no reorder, one ack per batch in the order given. */
export interface ProducePort {
  partitions(topic: string): Promise<number>;
  partitionsKnown(topic: string): number | undefined;
  /** Group of partitions that may share a request (the leader's node id); -1 = no leader now. */
  leader(topic: string, partition: number): number;
  refresh(topics: readonly string[]): Promise<void>;
  produce(leader: number, batches: readonly ProduceBatch[], timeoutMs: number): Promise<readonly ProduceAck[]>;
  /** The request timed out or broke: its connection must not be used again. */
  discard(leader: number): void;
  close(): Promise<void>;
}

/** One call of append: resolved when the last of its pieces is acknowledged. */
interface Call {
  readonly offsets: number[];
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

interface Lane {
  readonly topic: string;
  readonly partition: number;
  readonly waiting: Piece[];
  head: number;
  /** The batch on the way, or to be sent again before anything else. */
  batch: readonly Piece[] | undefined;
  inFlight: boolean;
  /** When the batch was first sent, monotonic ms. */
  since: number;
  failures: number;
  scheduled: boolean;
}

const maxBatchBytes = 900_000;
const maxRequestBytes = 4_000_000;

/**
 * The producer discipline of Weir (docs/architecture.md 3.2), above any driver: per partition one request in
 * flight, its ack checked; a batch without an ack is sent again, unchanged, before anything later; a batch
 * over its deadline fails with everything queued behind it. Idle partitions send at once; busy ones coalesce.
 */
export function createAppender(port: ProducePort, options: { deadlineMs: number; maxPendingBytes: number; requestTimeoutMs: number }): Appender {
  const lanes = new Map<string, Map<number, Lane>>();
  const ready = new Map<number, Lane[]>();
  let pending = 0;
  let closed = false;
  let flushScheduled = false;
  const idle = new Set<() => void>();

  function laneOf(topic: string, partition: number): Lane {
    let ofTopic = lanes.get(topic);
    if (ofTopic === undefined) lanes.set(topic, ofTopic = new Map());
    let lane = ofTopic.get(partition);
    if (lane === undefined) ofTopic.set(partition, lane = { topic, partition, waiting: [], head: 0, batch: undefined, inFlight: false, since: 0, failures: 0, scheduled: false });
    return lane;
  }

  function schedule(lane: Lane): void {
    if (lane.inFlight || lane.scheduled) return;
    lane.scheduled = true;
    const leader = port.leader(lane.topic, lane.partition);
    const list = ready.get(leader);
    if (list === undefined) ready.set(leader, [lane]);
    else list.push(lane);
    if (flushScheduled) return;
    flushScheduled = true;
    queueMicrotask(flush);
  }

  function flush(): void {
    flushScheduled = false;
    for (const [leader, list] of ready) {
      ready.delete(leader);
      let request: Lane[] = [];
      let bytes = 0;
      for (const lane of list) {
        lane.scheduled = false;
        if (lane.batch === undefined) takeBatch(lane);
        if (lane.batch === undefined) continue;
        lane.inFlight = true;
        request.push(lane);
        bytes += lane.batch.reduce((n, p) => n + p.size, 0);
        if (bytes >= maxRequestBytes) {
          void send(leader, request);
          request = [];
          bytes = 0;
        }
      }
      if (request.length > 0) void send(leader, request);
    }
  }

  function takeBatch(lane: Lane): void {
    const batch: Piece[] = [];
    let bytes = 0;
    while (lane.head < lane.waiting.length) {
      const piece = lane.waiting[lane.head]!;
      if (batch.length > 0 && bytes + piece.size > maxBatchBytes) break;
      batch.push(piece);
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
    lane.batch = batch.length > 0 ? batch : undefined;
    lane.since = performance.now();
    lane.failures = 0;
  }

  async function send(leader: number, request: readonly Lane[]): Promise<void> {
    let acks: readonly ProduceAck[];
    if (leader < 0) acks = request.map(() => ({ kind: 'again', detail: 'no leader' }));
    else {
      try {
        acks = await port.produce(leader, request.map((lane) => ({ topic: lane.topic, partition: lane.partition, records: lane.batch!.map((p) => p.record) })), options.requestTimeoutMs);
      } catch (error) {
        port.discard(leader);
        acks = request.map(() => ({ kind: 'again', detail: (error as Error).message }));
      }
    }
    const again: Lane[] = [];
    for (let i = 0; i < request.length; i++) {
      const lane = request[i]!;
      const ack = acks[i] ?? { kind: 'again' as const, detail: 'not in the answer' };
      lane.inFlight = false;
      if (ack.kind === 'acked') succeed(lane, ack.baseOffset);
      else if (ack.kind === 'fatal') fail(lane, new WeirError('log-fatal', `append to ${lane.topic}/${lane.partition} refused: ${ack.detail}`));
      else if (closed || performance.now() - lane.since > options.deadlineMs) fail(lane, new WeirError('log-append-failed', `append to ${lane.topic}/${lane.partition} not acknowledged within ${options.deadlineMs} ms: ${ack.detail}`));
      else again.push(lane);
    }
    if (again.length > 0) await retry(again);
  }

  /** Wait a little, learn the leaders anew, send the same batches again. */
  async function retry(list: readonly Lane[]): Promise<void> {
    const failures = Math.max(...list.map((lane) => ++lane.failures));
    for (const lane of list) lane.inFlight = true;
    await delay(Math.min(1000, 20 * 2 ** Math.min(failures, 6)));
    // The brokers may be away: the deadline of the batch decides when to give up, not this refresh.
    await port.refresh([...new Set(list.map((lane) => lane.topic))]).catch((error: unknown) => error);
    for (const lane of list) {
      lane.inFlight = false;
      schedule(lane);
    }
  }

  function succeed(lane: Lane, base: number): void {
    const batch = lane.batch!;
    lane.batch = undefined;
    for (let i = 0; i < batch.length; i++) {
      const { call, index, size } = batch[i]!;
      pending -= size;
      call.offsets[index] = base + i;
      if (--call.remaining === 0) call.resolve(call.offsets);
    }
    if (lane.head < lane.waiting.length) schedule(lane);
    settleIdle();
  }

  /** Everything queued behind a failed batch fails with it: nothing may overtake it. */
  function fail(lane: Lane, error: WeirError): void {
    const pieces = [...lane.batch!, ...lane.waiting.slice(lane.head)];
    lane.batch = undefined;
    lane.waiting.length = 0;
    lane.head = 0;
    for (const { call, size } of pieces) {
      pending -= size;
      call.reject(error);
    }
    settleIdle();
  }

  function settleIdle(): void {
    if (pending > 0) return;
    for (const done of idle) done();
    idle.clear();
  }

  return {
    async append(topic, records) {
      if (records.length === 0) return [];
      if (closed) throw new WeirError('log-append-failed', 'the appender is closed');
      const partitions = port.partitionsKnown(topic) ?? await port.partitions(topic);
      return new Promise((resolve, reject) => {
        const call: Call = { offsets: new Array<number>(records.length), remaining: records.length, resolve, reject };
        const touched = new Set<Lane>();
        for (let index = 0; index < records.length; index++) {
          const record = records[index]!;
          if (record.partition < 0 || record.partition >= partitions) {
            reject(new WeirError('log-fatal', `${topic} has no partition ${record.partition}`));
            return;
          }
        }
        for (let index = 0; index < records.length; index++) {
          const record = records[index]!;
          const lane = laneOf(topic, record.partition);
          const size = recordSize(record);
          pending += size;
          lane.waiting.push({ record, size, call, index });
          touched.add(lane);
        }
        for (const lane of touched) if (lane.batch === undefined) schedule(lane);
      });
    },
    partitionFor(topic, key) {
      const partitions = port.partitionsKnown(topic);
      if (partitions === undefined) throw new WeirError('log-fatal', `partitions of ${topic} are not loaded`);
      return partitionOf(key, partitions);
    },
    partitions: (topic) => port.partitions(topic),
    pendingBytes: () => pending,
    async close() {
      if (pending > 0) await new Promise<void>((done) => { idle.add(done); });
      closed = true;
      await port.close();
    },
  };
}
