import { WeirError } from '@weir/errors';
import { delay } from '../deadline.ts';
import type { RecordBatch } from '../types.ts';
import { decodeBatches } from '../wire.ts';
import { E, type Cluster } from './cluster.ts';
import { fetchApi, type Fetched } from './requests.ts';

/** A partition being read; `position` is the next offset wanted. */
export interface Position {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: number;
  position: number;
  paused: boolean;
}

export interface FetcherOptions {
  /** Names the connections; one fetcher, one connection per broker. */
  readonly purpose: string;
  readonly maxBytesPerPartition: number;
  readonly maxWaitMs: number;
  /** Called in offset order per partition; awaited, so it is the back-pressure. */
  readonly onBatch: (batch: RecordBatch, position: Position) => void | Promise<void>;
  /** Cannot go on: out of range, corrupt records. */
  readonly onFatal: (error: Error) => void;
}

/**
 * Reads any set of partitions, one long poll in flight per broker. Positions advance only after onBatch took
 * the records; a partition that was removed or moved meanwhile is not delivered.
 */
export class Fetcher {
  readonly #cluster: Cluster;
  readonly #options: FetcherOptions;
  readonly #positions = new Map<string, Position>();
  readonly #loops = new Map<number, Promise<void>>();
  readonly #stop = new AbortController();
  #wake = new AbortController();

  constructor(cluster: Cluster, options: FetcherOptions) {
    this.#cluster = cluster;
    this.#options = options;
  }

  add(position: Position): void {
    this.#positions.set(`${position.topic}/${position.partition}`, position);
    this.wake();
  }

  remove(topic: string, partition: number): void {
    this.#positions.delete(`${topic}/${partition}`);
  }

  get(topic: string, partition: number): Position | undefined {
    return this.#positions.get(`${topic}/${partition}`);
  }

  all(): Iterable<Position> {
    return this.#positions.values();
  }

  /** Something became readable: loops without work look again, missing loops are started. */
  wake(): void {
    this.#wake.abort();
    this.#wake = new AbortController();
    if (this.#stop.signal.aborted) return;
    for (const p of this.#positions.values()) {
      const leader = this.#cluster.leader(p.topic, p.partition);
      if (!this.#loops.has(leader)) this.#start(leader);
    }
  }

  #start(leader: number): void {
    const loop = this.#loop(leader).catch(this.#options.onFatal).finally(() => { this.#loops.delete(leader); });
    this.#loops.set(leader, loop);
  }

  async #loop(leader: number): Promise<void> {
    let failures = 0;
    while (!this.#stop.signal.aborted) {
      const wanted = [...this.#positions.values()].filter((p) => !p.paused && this.#cluster.leader(p.topic, p.partition) === leader);
      if (wanted.length === 0) {
        if (leader < 0 || ![...this.#positions.values()].some((p) => this.#cluster.leader(p.topic, p.partition) === leader)) return;
        await delay(60_000, AbortSignal.any([this.#wake.signal, this.#stop.signal]));
        continue;
      }
      const moved = leader < 0 || !(await this.#fetch(leader, wanted));
      if (!moved) {
        failures = 0;
        continue;
      }
      failures++;
      await delay(Math.min(1000, 20 * 2 ** Math.min(failures, 6)), this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      // Brokers away: keep asking; the watchdog of the group and /readyz see the lag.
      await this.#cluster.refresh([...new Set([...this.#positions.values()].map((p) => p.topic))]).catch((error: unknown) => error);
      this.wake();
      if (leader < 0) return;
    }
  }

  /** False: a leader moved or the broker did not answer. */
  async #fetch(leader: number, wanted: readonly Position[]): Promise<boolean> {
    const { maxBytesPerPartition, maxWaitMs, purpose } = this.#options;
    const topics = new Map<string, { partition: number; currentLeaderEpoch: number; fetchOffset: bigint; lastFetchedEpoch: number; partitionMaxBytes: number }[]>();
    for (const p of wanted) {
      const entry = { partition: p.partition, currentLeaderEpoch: -1, fetchOffset: BigInt(p.position), lastFetchedEpoch: -1, partitionMaxBytes: maxBytesPerPartition };
      const list = topics.get(p.topic);
      if (list === undefined) topics.set(p.topic, [entry]);
      else list.push(entry);
    }
    let response: Fetched;
    try {
      const connection = await this.#cluster.connection(purpose, leader);
      response = await this.#cluster.request<unknown[], Fetched>(connection, 'fetch', fetchApi, [maxWaitMs, 1, 16 * 1024 * 1024, 0, 0, -1, [...topics].map(([topicId, partitions]) => ({ topicId, partitions })), [], ''], maxWaitMs + 10_000);
    } catch {
      this.#cluster.discard(purpose, leader);
      return false;
    }
    if (response.errorCode !== 0) return false;
    let ok = true;
    for (const part of response.partitions) {
      const position = this.#positions.get(`${part.topic}/${part.partition}`);
      if (position === undefined || !wanted.includes(position)) continue;
      if (part.errorCode === E.offsetOutOfRange) throw new WeirError('log-out-of-range', `${part.topic}/${part.partition}: offset ${position.position} is not in the log (starts at ${part.logStartOffset}, ends at ${part.highWatermark})`, { details: { topic: part.topic, partition: part.partition, wanted: position.position, start: part.logStartOffset, end: part.highWatermark } });
      if (part.errorCode !== 0) {
        ok = false;
        continue;
      }
      if (part.bytes.length === 0) continue;
      const { records, next } = decodeBatches(part.bytes, position.position);
      if (next === position.position) continue;
      position.position = next;
      await this.#options.onBatch({ topic: part.topic, partition: part.partition, epoch: position.epoch, records, nextOffset: next, highWatermark: part.highWatermark }, position);
    }
    return ok;
  }

  /** Nothing is delivered after it resolves. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#positions.clear();
    for (const leader of this.#loops.keys()) this.#cluster.discard(this.#options.purpose, leader);
    await Promise.all(this.#loops.values());
  }
}
