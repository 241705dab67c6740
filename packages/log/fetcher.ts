import type { Cluster } from './cluster.ts';
import { FetchRequests, type Position, type Taker } from './fetch-requests.ts';
import { never } from './lease.ts';
import { partitionKey } from './partition-key.ts';

/** Of a long poll that several share. */
const sharedWaitMs = 250;

/** The partitions that one consumer or follower reads. Positions advance only with the records given out; a partition that was removed or paused meanwhile gets nothing. */
export class Fetcher {
  readonly #requests: FetchRequests;
  readonly #taker: Taker;
  readonly #positions = new Map<string, Position>();

  /** @param requests its own, or those of several who read other topics; @param topics that it may read by them */
  constructor(taker: Taker, requests: FetchRequests, topics: readonly string[] = []) {
    this.#requests = requests;
    this.#taker = taker;
    requests.join(taker, topics);
  }

  add(at: { topic: string; partition: number; epoch: number; position: number; paused: boolean }): void {
    const now = performance.now();
    const position: Position = { ...at, taker: this.#taker, made: 0, pausedAt: at.paused ? now : -Infinity, held: undefined, answeredAt: now, asOf: never, busy: false, giving: false, given: undefined, servedIn: 0, refused: 0, errors: 0, againAt: 0 };
    this.#positions.set(partitionKey(at), position);
    this.#requests.add(position);
  }

  remove(topic: string, partition: number): void {
    this.#positions.delete(partitionKey({ topic, partition }));
    this.#requests.remove(topic, partition);
  }

  get(topic: string, partition: number): Position | undefined {
    return this.#requests.stopped ? undefined : this.#positions.get(partitionKey({ topic, partition }));
  }

  pause(topic: string, partition: number): void {
    const position = this.get(topic, partition);
    if (position === undefined) return;
    position.paused = true;
    position.pausedAt = performance.now();
  }

  resume(topic: string, partition: number): void {
    const position = this.get(topic, partition);
    if (position === undefined || !position.paused) return;
    position.paused = false;
    this.#requests.wake();
  }

  /** None once everything has stopped. */
  all(): Iterable<Position> {
    return this.#requests.stopped ? [] : this.#positions.values();
  }

  /** When records of the same broker were last given out, monotonic ms: whoever is not served meanwhile waits for its turn. */
  gaveAt(leader: number): number {
    return this.#requests.gaveAt(leader);
  }

  /** Somebody waits for what it reads (FetchRequests). */
  hurry(): void {
    if (!this.#requests.stopped) this.#requests.hurry();
  }

  /** Cut what is in flight and fetch anew, e.g. when the watchdog sees no progress. */
  restart(): void {
    this.#requests.restart();
  }

  /** Nothing is given out after it resolves. */
  async stop(): Promise<void> {
    const own = [...this.#positions.values()];
    for (const { topic, partition } of own) this.remove(topic, partition);
    await this.#requests.leave(this.#taker, own);
  }
}

/** Gives a fetcher whose requests are those of all others that it was asked for; of those who do not read the same topics. */
export type ShareFetcher = (topics: readonly string[], taker: Taker) => Fetcher;

export function createSharedFetchers(cluster: Cluster): ShareFetcher {
  let made = 0;
  let open: FetchRequests[] = [];
  return (topics, taker) => {
    open = open.filter((requests) => !requests.stopped);
    let found = open.find((requests) => !requests.reads(topics));
    if (found === undefined) open.push(found = new FetchRequests(cluster, { purpose: `fetch-${++made}`, maxWaitMs: sharedWaitMs }));
    return new Fetcher(taker, found, topics);
  };
}
