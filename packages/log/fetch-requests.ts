import { WeirError } from '@weir/errors';
import type { Cluster } from './cluster.ts';
import { listOffsets } from './coordinator.ts';
import { delay } from './deadline.ts';
import { E, type Fetched, type FetchedPartition, type FetchTopic } from './driver.ts';
import { createFetchPace, type FetchAnswer, type FetchPace } from './fetch-pace.ts';
import { moment, type Moment } from './lease.ts';
import { partitionKey } from './partition-key.ts';
import { decodeBatches } from './records.ts';
import { isRefusal } from './refusal.ts';
import type { RecordBatch } from './types.ts';

/** A partition being read; `position` is the next offset wanted. */
export interface Position {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: number;
  /** Whose it is. */
  readonly taker: Taker;
  /** Of which topic of that name its offsets are (Cluster). */
  made: number;
  position: number;
  paused: boolean;
  /** When it was paused last, monotonic ms. */
  pausedAt: number;
  /** Came while it was paused: given out first when it is resumed. */
  held: FetchedPartition | undefined;
  /** When it last answered without an error, monotonic ms. */
  answeredAt: number;
  /** When the last request was begun whose answer left nothing of it: what was committed before is with the handler. */
  asOf: Moment;
  /** A loop is fetching or giving out: after a move of the leader the next loop waits for it. */
  busy: boolean;
  /** Its records are with the handler: it stands still because of that, not because nothing comes. */
  giving: boolean;
  /** What the handler does with them, where it does not return at once. */
  given: Promise<void> | undefined;
  /** The fetch that last gave of it, or said that nothing is there. */
  servedIn: number;
  /** Fetches that named it first and gave nothing of it, though something is there or was not told. */
  refused: number;
  /** Errors since it last answered without one. */
  errors: number;
  /** Not asked for before, monotonic ms. */
  againAt: number;
}

/** Who reads by a fetcher. */
export interface Taker {
  readonly maxBytesPerPartition: number;
  /** After an answer of only its records few requests need not be spaced: so that of a few records none waits, and many come together all the same. */
  readonly urgent?: boolean;
  /** Called in offset order per partition; awaited, so it is the back-pressure. */
  readonly onBatch: (batch: RecordBatch) => void | Promise<void>;
  /** Cannot go on: out of range, corrupt records, no right to read. Everything has stopped, also of whoever shares the requests; called once. */
  readonly onFatal: (error: Error) => void;
}

export interface RequestOptions {
  /** Names the connections: one per broker. */
  readonly purpose: string;
  readonly maxWaitMs: number;
  /** For how long an answer may be late before it is asked anew: what a connection that was lost without a sign costs. It doubles with each that does not come, up to the default: a slow way must not be cut off each time. Default: 10,000. */
  readonly graceMs?: number | undefined;
}

const maxBytes = 16 * 1024 * 1024;
const leastBytes = 1024 * 1024;
const longestGraceMs = 10_000;
const busyWaitMs = 10;
/** While partitions are paused a long poll would keep a resumed one waiting; not for one that has been paused longer than this: whoever shares the requests would ask forty times a second for as long. */
const pausedWaitMs = 25;
const restsAfterMs = 1000;
const rests = (p: Position): boolean => p.paused && performance.now() - p.pausedAt > restsAfterMs;
const forbidden: ReadonlySet<number> = new Set<number>([E.topicAuthorization, E.clusterAuthorization]);

const backoffMs = (failures: number): number => Math.min(1000, 20 * 2 ** Math.min(failures, 6));

/** What the next request to a broker goes by. */
interface Luck {
  /** Requests in a row that had no answer. */
  failures: number;
  /** Of an answer at most: half with each failure, for a slow way would never bring the whole of a backlog within the time, and twice with each answer. */
  bytes: number;
}

/** Requests for any set of partitions, of one reader or of several: one long poll in flight per broker. */
export class FetchRequests {
  readonly #cluster: Cluster;
  readonly #options: RequestOptions;
  /** With the topics that each may read. */
  readonly #takers = new Map<Taker, readonly string[]>();
  readonly #positions = new Map<string, Position>();
  readonly #loops = new Map<number, Promise<void>>();
  readonly #stop = new AbortController();
  #wake = new AbortController();
  #hurry = new AbortController();
  #hurries = 0;
  #fetches = 0;
  /** When a loop last began to give out records, by leader; monotonic ms. */
  readonly #gaveAt = new Map<number, number>();

  constructor(cluster: Cluster, options: RequestOptions) {
    this.#cluster = cluster;
    this.#options = options;
  }

  /** True: nobody reads by it any more, and nobody can. */
  get stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  join(taker: Taker, topics: readonly string[]): void {
    this.#takers.set(taker, topics);
  }

  /** Whether somebody may read one of these topics by it: a partition stands in a request once. */
  reads(topics: readonly string[]): boolean {
    for (const own of this.#takers.values()) if (own.some((topic) => topics.includes(topic))) return true;
    return false;
  }

  add(position: Position): void {
    position.made = this.#cluster.made(position.topic);
    this.#positions.set(partitionKey(position), position);
    this.wake();
  }

  remove(topic: string, partition: number): void {
    this.#positions.delete(partitionKey({ topic, partition }));
  }

  gaveAt(leader: number): number {
    return this.#gaveAt.get(leader) ?? 0;
  }

  /** Something became readable: loops without work look again, missing loops are started. */
  wake(): void {
    this.#wake.abort();
    this.#wake = new AbortController();
    this.#startMissing();
  }

  /** Somebody waits for what stands on the topics now: the next requests go as soon as on a machine that is not full. */
  hurry(): void {
    this.#hurries++;
    this.#hurry.abort();
    this.#hurry = new AbortController();
  }

  /** Others refresh the same metadata: a partition may have moved to a broker that has no loop yet, without any loop seeing the move. */
  #startMissing(): void {
    if (this.#stop.signal.aborted) return;
    for (const p of this.#positions.values()) {
      const leader = this.#cluster.leader(p.topic, p.partition);
      if (!this.#loops.has(leader)) this.#start(leader);
    }
  }

  restart(): void {
    this.#cluster.discard(this.#options.purpose);
    this.wake();
  }

  #start(leader: number): void {
    // In a later tick: it must be known before it looks for loops that are missing.
    const loop = Promise.resolve().then(() => this.#loop(leader)).catch((error: unknown) => {
      if (this.stopped) return;
      const told = [...this.#takers.keys()];
      this.#halt();
      for (const taker of told) taker.onFatal(error as Error);
    }).finally(() => {
      if (this.#loops.get(leader) === loop) this.#loops.delete(leader);
    });
    this.#loops.set(leader, loop);
  }

  async #loop(leader: number): Promise<void> {
    const luck: Luck = { failures: 0, bytes: maxBytes };
    const pace = createFetchPace();
    while (!this.#stop.signal.aborted) {
      const mine = [...this.#positions.values()].filter((p) => this.#cluster.leader(p.topic, p.partition) === leader);
      if (mine.length < this.#positions.size) this.#startMissing();
      if (mine.length === 0) break;
      for (const p of mine) if (p.made !== this.#cluster.made(p.topic) && !p.busy) await this.#madeAnew(p);
      await this.#giveHeld(mine);
      const now = performance.now();
      const wanted = mine.filter((p) => !p.paused && !p.busy && p.held === undefined && p.againAt <= now);
      if (wanted.length === 0) {
        await delay(mine.every((p) => p.paused) ? 60_000 : busyWaitMs, this.#wake.signal, this.#stop.signal);
        continue;
      }
      pace.began(performance.now());
      const hurries = this.#hurries;
      const answer = leader < 0 ? undefined : await this.#fetch(leader, wanted, mine.some((p) => !wanted.includes(p) && !rests(p)), luck);
      if (answer !== undefined) {
        luck.failures = 0;
        luck.bytes = Math.min(maxBytes, luck.bytes * 2);
        await this.#rest(pace, answer, hurries);
        continue;
      }
      luck.bytes = Math.max(leastBytes, luck.bytes / 2);
      await delay(backoffMs(++luck.failures), this.#stop.signal);
      if (this.#stop.signal.aborted) break;
      // Brokers away: keep asking; lag, lease and /readyz tell it.
      await this.#cluster.refresh([...new Set(mine.map((p) => p.topic))]).catch((error: unknown) => error);
      for (const p of mine) this.#mustExist(p, this.#cluster.goneMs(p.topic));
      this.wake();
    }
    this.#loops.delete(leader);
  }

  /** Until the next request may begin. @param hurries as many as were asked for when the last one began */
  async #rest(pace: FetchPace, answer: FetchAnswer, hurries: number): Promise<void> {
    while (!this.#stop.signal.aborted) {
      const dueAt = pace.dueAt(answer, this.#hurries !== hurries);
      const now = performance.now();
      if (dueAt <= now) return;
      const { signal } = this.#hurry;
      await delay(dueAt - now, this.#stop.signal, signal);
      // Cut short it says nothing about timers.
      if (!signal.aborted) return pace.fired(performance.now() - dueAt);
    }
  }

  async #giveHeld(mine: readonly Position[]): Promise<void> {
    for (const p of mine) {
      if (p.held === undefined || p.paused || p.busy || this.#positions.get(partitionKey(p)) !== p || this.#stop.signal.aborted) continue;
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

  async #fetch(leader: number, wanted: readonly Position[], someLeftOut: boolean, luck: Luck): Promise<FetchAnswer | undefined> {
    for (const p of wanted) p.busy = true;
    try {
      return await this.#fetchNow(leader, wanted, someLeftOut, luck);
    } finally {
      for (const p of wanted) p.busy = false;
    }
  }

  /** Undefined: the broker did not answer. */
  async #fetchNow(leader: number, wanted: readonly Position[], someLeftOut: boolean, luck: Luck): Promise<FetchAnswer | undefined> {
    const { purpose } = this.#options;
    const maxWaitMs = someLeftOut ? pausedWaitMs : this.#options.maxWaitMs;
    // The broker fills the answer in the order of the request, and only the first with data surely gets a whole batch: who waits longest comes first.
    const fetch = ++this.#fetches;
    const order = wanted.toSorted((a, b) => a.servedIn - b.servedIn);
    const topics = new Map<string, { partition: number; offset: number; maxBytes: number }[]>();
    for (const p of order) {
      const entry = { partition: p.partition, offset: p.position, maxBytes: p.taker.maxBytesPerPartition };
      const list = topics.get(p.topic);
      if (list === undefined) topics.set(p.topic, [entry]);
      else list.push(entry);
    }
    const request: FetchTopic[] = [...topics].map(([topic, partitions]) => ({ topic, partitions }));
    const graceMs = Math.min(longestGraceMs, (this.#options.graceMs ?? longestGraceMs) * 2 ** luck.failures);
    const asked = moment();
    let answer: Fetched;
    try {
      answer = await this.#cluster.ask(purpose, leader, 'fetch', maxWaitMs + graceMs, (broker) => broker.fetch(maxWaitMs, luck.bytes, request));
    } catch (error) {
      if (isRefusal(error)) throw error;
      return undefined;
    }
    if (answer.errorCode !== 0) return undefined;
    const failed: Position[] = [];
    let bytes = 0;
    let urgent = true;
    for (const part of answer.partitions) {
      const position = this.#positions.get(partitionKey(part));
      bytes += part.bytes.length;
      if (position === undefined || !wanted.includes(position) || position.made !== this.#cluster.made(position.topic) || this.#stop.signal.aborted) continue;
      if (part.errorCode === 0 && (part.bytes.length > 0 || part.highWatermark <= position.position)) position.servedIn = fetch;
      if (part.errorCode !== 0) {
        failed.push(position);
        await this.#fault(part, position);
        continue;
      }
      position.answeredAt = performance.now();
      position.errors = 0;
      if (part.bytes.length === 0) {
        if (part.highWatermark <= position.position) position.asOf = asked;
        continue;
      }
      urgent &&= position.taker.urgent === true;
      if (position.paused) position.held = part;
      else {
        // What one answer brought is given out in one go, unless a handler has to be waited for.
        const giving = this.#give(position, part);
        if (giving !== undefined) await giving;
        if (part.highWatermark <= position.position) position.asOf = asked;
      }
    }
    if (order[0]!.servedIn !== fetch) order[0]!.refused++;
    if (failed.length > 0) this.#later(failed);
    return { bytes, urgent };
  }

  /** A leader moved, or is being elected: these are asked for again after a while, the others meanwhile. */
  #later(failed: readonly Position[]): void {
    const now = performance.now();
    for (const p of failed) p.againAt = now + backoffMs(++p.errors);
    // Brokers away: keep asking; lag, lease and /readyz tell it.
    this.#cluster.refresh([...new Set(failed.map((p) => p.topic))]).catch((error: unknown) => error).finally(() => this.wake());
  }

  /** What passes is asked again; throws what does not. */
  async #fault(part: FetchedPartition, position: Position): Promise<void> {
    const name = partitionKey(part);
    if (part.errorCode === E.offsetOutOfRange) return this.#outOfRange(position);
    if (forbidden.has(part.errorCode)) throw new WeirError('log-fatal', `${name}: not authorised to read`);
    if (part.errorCode === E.unknownTopic) this.#mustExist(position, performance.now() - position.answeredAt);
  }

  #mustExist({ topic, partition }: Position, unknownMs: number): void {
    if (unknownMs > this.#cluster.deadlineMs) throw new WeirError('log-fatal', `${topic}/${partition} has been unknown to the brokers for ${Math.round(unknownMs)} ms`);
  }

  /** The range is asked anew: while a leader is elected the answer may be of one that lags, and that passes. */
  async #outOfRange(position: Position): Promise<void> {
    const range = await this.#range(position);
    if (range !== undefined && (position.position < range.start || position.position > range.end)) throw this.#lost(position, range, 'is not in the log', {});
  }

  /** Where nothing was read there is nothing to lose. */
  async #madeAnew(position: Position): Promise<void> {
    const made = this.#cluster.made(position.topic);
    const range = position.position === 0 ? undefined : await this.#range(position);
    if (range !== undefined) throw this.#lost(position, range, 'is of a topic that was deleted, and made anew since', { madeAnew: true });
    position.held = undefined;
    if (position.position === 0) position.made = made;
    else position.againAt = performance.now() + backoffMs(++position.errors);
  }

  /** Undefined = nobody tells it now. */
  async #range({ topic, partition }: Position): Promise<{ readonly start: number; readonly end: number } | undefined> {
    try {
      const start = (await listOffsets(this.#cluster, topic, [partition], -2, this.#stop.signal)).get(partition)!;
      const end = (await listOffsets(this.#cluster, topic, [partition], -1, this.#stop.signal)).get(partition)!;
      return { start, end };
    } catch (error) {
      if (error instanceof WeirError && (error.code === 'log-deadline' || error.code === 'log-unavailable')) return undefined;
      throw error;
    }
  }

  #lost({ topic, partition, position: wanted }: Position, { start, end }: { readonly start: number; readonly end: number }, what: string, more: object): WeirError {
    return new WeirError('log-out-of-range', `${topic}/${partition}: offset ${wanted} ${what} (it starts at ${start} and ends at ${end})`, { details: { topic, partition, wanted, start, end, ...more } });
  }

  #give(position: Position, part: FetchedPartition): Promise<void> | undefined {
    const { records, next } = decodeBatches(part.bytes, position.position);
    if (next === position.position) return undefined;
    position.position = next;
    position.giving = true;
    this.#gaveAt.set(this.#cluster.leader(part.topic, part.partition), performance.now());
    const given = (): void => {
      position.giving = false;
      position.given = undefined;
    };
    try {
      const giving = position.taker.onBatch({ topic: part.topic, partition: part.partition, epoch: position.epoch, records, nextOffset: next, highWatermark: part.highWatermark });
      if (giving instanceof Promise) return position.given = giving.finally(given);
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

  /** Nothing is given out to it after it resolves. @param positions that were its own, removed */
  async leave(taker: Taker, positions: readonly Position[]): Promise<void> {
    this.#takers.delete(taker);
    if (this.#takers.size > 0) return void await Promise.allSettled(positions.map((p) => p.given));
    this.#halt();
    await Promise.all(this.#loops.values());
  }
}
