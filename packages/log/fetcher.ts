import { WeirError } from '@weir/errors';
import type { Cluster } from './cluster.ts';
import { listOffsets } from './coordinator.ts';
import { delay } from './deadline.ts';
import { E, type Fetched, type FetchedPartition, type FetchTopic } from './driver.ts';
import { decodeBatches } from './records.ts';
import { isRefusal } from './refusal.ts';
import type { RecordBatch } from './types.ts';

/** A partition being read; `position` is the next offset wanted. */
export interface Position {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: number;
  position: number;
  paused: boolean;
  /** Came while it was paused: given out first when it is resumed. */
  held: FetchedPartition | undefined;
  /** When it last answered without an error, monotonic ms. */
  answeredAt: number;
  /** A loop is fetching or giving out: after a move of the leader the next loop waits for it. */
  busy: boolean;
  /** Its records are with the handler: it stands still because of that, not because nothing comes. */
  giving: boolean;
  /** The fetch that last gave of it, or said that nothing is there. */
  servedIn: number;
  /** Fetches that named it first and gave nothing of it, though something is there or was not told. */
  refused: number;
}

export interface FetcherOptions {
  /** Names the connections; one fetcher, one connection per broker. */
  readonly purpose: string;
  readonly maxBytesPerPartition: number;
  readonly maxWaitMs: number;
  /** Few requests need not be spaced: so that of a few records none waits, and many come together all the same. */
  readonly urgent?: boolean;
  /** Called in offset order per partition; awaited, so it is the back-pressure. */
  readonly onBatch: (batch: RecordBatch) => void | Promise<void>;
  /** Cannot go on: out of range, corrupt records, no right to read. Everything has stopped; called once. */
  readonly onFatal: (error: Error) => void;
}

const maxBytes = 16 * 1024 * 1024;
const graceMs = 10_000;
/** From the begin of one request to that of the next, as long as what comes is little: a request costs both sides as much as tens of records. */
const spacingMs = 8;
/** So many urgent requests go without it, as long as there are no more of them in as many times the spacing. */
const urgentBurst = 4;
/** An answer of so much is followed by the next request at once. */
const fullBytes = 64 * 1024;
const busyWaitMs = 10;
/** While partitions are paused a long poll would keep a resumed one waiting. */
const pausedWaitMs = 25;
const forbidden: ReadonlySet<number> = new Set<number>([E.topicAuthorization, E.clusterAuthorization]);

/**
 * Reads any set of partitions, one long poll in flight per broker. Positions advance only with the records
 * given out; a partition that was removed or paused meanwhile gets nothing.
 */
export class Fetcher {
  readonly #cluster: Cluster;
  readonly #options: FetcherOptions;
  readonly #positions = new Map<string, Position>();
  readonly #loops = new Map<number, Promise<void>>();
  readonly #stop = new AbortController();
  #wake = new AbortController();
  #fetches = 0;
  /** When a loop last began to give out records, by leader; monotonic ms. */
  readonly #gaveAt = new Map<number, number>();

  constructor(cluster: Cluster, options: FetcherOptions) {
    this.#cluster = cluster;
    this.#options = options;
  }

  add(at: { topic: string; partition: number; epoch: number; position: number; paused: boolean }): void {
    this.#positions.set(`${at.topic}/${at.partition}`, { ...at, held: undefined, answeredAt: performance.now(), busy: false, giving: false, servedIn: 0, refused: 0 });
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

  /** When records of the same broker were last given out, monotonic ms: whoever is not served meanwhile waits for its turn. */
  gaveAt(leader: number): number {
    return this.#gaveAt.get(leader) ?? 0;
  }

  /** Something became readable: loops without work look again, missing loops are started. */
  wake(): void {
    this.#wake.abort();
    this.#wake = new AbortController();
    this.#startMissing();
  }

  /** Others refresh the same metadata: a partition may have moved to a broker that has no loop yet, without any loop seeing the move. */
  #startMissing(): void {
    if (this.#stop.signal.aborted) return;
    for (const p of this.#positions.values()) {
      const leader = this.#cluster.leader(p.topic, p.partition);
      if (!this.#loops.has(leader)) this.#start(leader);
    }
  }

  /** Cut what is in flight and fetch anew, e.g. when the watchdog sees no progress. */
  restart(): void {
    this.#cluster.discard(this.#options.purpose);
    this.wake();
  }

  #start(leader: number): void {
    // In a later tick: it must be known before it looks for loops that are missing.
    const loop = Promise.resolve().then(() => this.#loop(leader)).catch((error: unknown) => {
      if (this.#stop.signal.aborted) return;
      this.#halt();
      this.#options.onFatal(error as Error);
    }).finally(() => {
      if (this.#loops.get(leader) === loop) this.#loops.delete(leader);
    });
    this.#loops.set(leader, loop);
  }

  async #loop(leader: number): Promise<void> {
    let failures = 0;
    /** Begins of the last requests, the oldest first. */
    const begins: number[] = new Array<number>(this.#options.urgent === true ? urgentBurst : 1).fill(-Infinity);
    while (!this.#stop.signal.aborted) {
      const mine = [...this.#positions.values()].filter((p) => this.#cluster.leader(p.topic, p.partition) === leader);
      if (mine.length < this.#positions.size) this.#startMissing();
      if (mine.length === 0) break;
      await this.#giveHeld(mine);
      const wanted = mine.filter((p) => !p.paused && !p.busy && p.held === undefined);
      if (wanted.length === 0) {
        await delay(mine.every((p) => p.paused) ? 60_000 : busyWaitMs, this.#wake.signal, this.#stop.signal);
        continue;
      }
      begins.push(performance.now());
      begins.shift();
      const bytes = leader < 0 ? undefined : await this.#fetch(leader, wanted, wanted.length < mine.length);
      if (bytes !== undefined) {
        failures = 0;
        const rest = bytes < fullBytes ? begins[0]! + begins.length * spacingMs - performance.now() : 0;
        if (rest > 0) await delay(rest, this.#stop.signal);
        continue;
      }
      failures++;
      await delay(Math.min(1000, 20 * 2 ** Math.min(failures, 6)), this.#stop.signal);
      if (this.#stop.signal.aborted) break;
      // Brokers away: keep asking; lag, lease and /readyz tell it.
      await this.#cluster.refresh([...new Set(mine.map((p) => p.topic))]).catch((error: unknown) => error);
      this.wake();
    }
    this.#loops.delete(leader);
  }

  async #giveHeld(mine: readonly Position[]): Promise<void> {
    for (const p of mine) {
      if (p.held === undefined || p.paused || p.busy || this.#stop.signal.aborted) continue;
      const { held } = p;
      p.held = undefined;
      p.busy = true;
      try {
        await this.#give(p, held);
      } finally {
        p.busy = false;
      }
    }
  }

  async #fetch(leader: number, wanted: readonly Position[], somePaused: boolean): Promise<number | undefined> {
    for (const p of wanted) p.busy = true;
    try {
      return await this.#fetchNow(leader, wanted, somePaused);
    } finally {
      for (const p of wanted) p.busy = false;
    }
  }

  /** Bytes that came; undefined: a leader moved or the broker did not answer. */
  async #fetchNow(leader: number, wanted: readonly Position[], somePaused: boolean): Promise<number | undefined> {
    const { maxBytesPerPartition, purpose } = this.#options;
    const maxWaitMs = somePaused ? pausedWaitMs : this.#options.maxWaitMs;
    // The broker fills the answer in the order of the request, and only the first with data surely gets a whole batch: who waits longest comes first.
    const fetch = ++this.#fetches;
    const order = wanted.toSorted((a, b) => a.servedIn - b.servedIn);
    const topics = new Map<string, { partition: number; offset: number; maxBytes: number }[]>();
    for (const p of order) {
      const entry = { partition: p.partition, offset: p.position, maxBytes: maxBytesPerPartition };
      const list = topics.get(p.topic);
      if (list === undefined) topics.set(p.topic, [entry]);
      else list.push(entry);
    }
    const request: FetchTopic[] = [...topics].map(([topic, partitions]) => ({ topic, partitions }));
    let answer: Fetched;
    try {
      answer = await this.#cluster.ask(purpose, leader, 'fetch', maxWaitMs + graceMs, (broker) => broker.fetch(maxWaitMs, maxBytes, request));
    } catch (error) {
      if (isRefusal(error)) throw error;
      return undefined;
    }
    if (answer.errorCode !== 0) return undefined;
    let ok = true;
    let bytes = 0;
    for (const part of answer.partitions) {
      const position = this.#positions.get(`${part.topic}/${part.partition}`);
      bytes += part.bytes.length;
      if (position === undefined || !wanted.includes(position) || this.#stop.signal.aborted) continue;
      if (part.errorCode === 0 && (part.bytes.length > 0 || part.highWatermark <= position.position)) position.servedIn = fetch;
      if (part.errorCode !== 0) {
        ok = false;
        await this.#fault(part, position);
        continue;
      }
      position.answeredAt = performance.now();
      if (part.bytes.length === 0) continue;
      if (position.paused) position.held = part;
      else {
        // What one answer brought is given out in one go, unless a handler has to be waited for.
        const giving = this.#give(position, part);
        if (giving !== undefined) await giving;
      }
    }
    if (order[0]!.servedIn !== fetch) order[0]!.refused++;
    return ok ? bytes : undefined;
  }

  /** What passes is asked again; throws what does not. */
  async #fault(part: FetchedPartition, position: Position): Promise<void> {
    const name = `${part.topic}/${part.partition}`;
    if (part.errorCode === E.offsetOutOfRange) return this.#outOfRange(position);
    if (forbidden.has(part.errorCode)) throw new WeirError('log-fatal', `${name}: not authorised to read`);
    const silent = performance.now() - position.answeredAt;
    if (part.errorCode === E.unknownTopic && silent > this.#cluster.deadlineMs) throw new WeirError('log-fatal', `${name} has been unknown to the brokers for ${Math.round(silent)} ms`);
  }

  /** The range is asked anew: while a leader is elected the answer may be of one that lags, and that passes. */
  async #outOfRange({ topic, partition, position }: Position): Promise<void> {
    const start = (await listOffsets(this.#cluster, topic, [partition], -2, this.#stop.signal)).get(partition)!;
    const end = (await listOffsets(this.#cluster, topic, [partition], -1, this.#stop.signal)).get(partition)!;
    if (position >= start && position <= end) return;
    throw new WeirError('log-out-of-range', `${topic}/${partition}: offset ${position} is not in the log (it starts at ${start} and ends at ${end})`, { details: { topic, partition, wanted: position, start, end } });
  }

  #give(position: Position, part: FetchedPartition): Promise<void> | undefined {
    const { records, next } = decodeBatches(part.bytes, position.position);
    if (next === position.position) return undefined;
    position.position = next;
    position.giving = true;
    this.#gaveAt.set(this.#cluster.leader(part.topic, part.partition), performance.now());
    const given = (): void => { position.giving = false; };
    try {
      const giving = this.#options.onBatch({ topic: part.topic, partition: part.partition, epoch: position.epoch, records, nextOffset: next, highWatermark: part.highWatermark });
      if (giving instanceof Promise) return giving.finally(given);
    } catch (error) {
      given();
      throw error;
    }
    given();
    return undefined;
  }

  #halt(): void {
    this.#stop.abort();
    this.#positions.clear();
    this.#cluster.discard(this.#options.purpose);
  }

  /** Nothing is given out after it resolves. */
  async stop(): Promise<void> {
    this.#halt();
    await Promise.all(this.#loops.values());
  }
}
