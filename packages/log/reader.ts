import { WeirError } from '@weir/errors';
import { eventually, type Cluster } from './cluster.ts';
import { listOffsets } from './coordinator.ts';
import { E } from './driver.ts';
import { FetchRequests, type Taker } from './fetch-requests.ts';
import { Fetcher, type ShareFetcher } from './fetcher.ts';
import { earlier, never, type Moment } from './lease.ts';
import { decodeBatches } from './records.ts';
import type { Follower, LogRecord, Reader, RecordBatch } from './types.ts';
import { watchFetcher } from './watchdog.ts';

let readers = 0;
const followWaitMs = 500;
const readWaitMs = 100;
const readBytes = 4 * 1024 * 1024;
const oneBytes = 64 * 1024;
const defaultWatchMs = 15_000;

interface Chunk {
  readonly records: readonly LogRecord[];
  readonly next: number;
  readonly highWatermark: number;
  readonly outOfRange: boolean;
}

export interface ReaderOptions {
  readonly watchMs?: number;
  readonly urgent?: boolean;
  /** Whose requests its followers share. */
  readonly share?: ShareFetcher;
  /** Of its followers' own requests (RequestOptions). */
  readonly graceMs?: number | undefined;
}

/** Reads without a group. `read` and `readOne` use short polls of their own; `follow` has a fetcher each, looked after every `watchMs`. */
export function createReader(cluster: Cluster, { watchMs = defaultWatchMs, urgent = false, share, graceMs }: ReaderOptions = {}): Reader {
  const purpose = `read-${++readers}`;
  const followers = new Set<Follower>();
  const closing = new AbortController();

  async function fetchOnce(topic: string, partition: number, from: number, maxBytes: number): Promise<Chunk> {
    await cluster.partitions(topic);
    return eventually(cluster, `read of ${topic}/${partition}`, async () => {
      try {
        const { partitions: [part] } = await cluster.ask(purpose, cluster.leader(topic, partition), 'fetch', 10_000, (broker) => broker.fetch(readWaitMs, maxBytes, [{ topic, partitions: [{ partition, offset: from, maxBytes }] }]));
        if (part?.errorCode === E.offsetOutOfRange) return { records: [], next: from, highWatermark: part.highWatermark, outOfRange: true };
        if (part?.errorCode === 0) return { ...decodeBatches(part.bytes, from), highWatermark: part.highWatermark, outOfRange: false };
        if (part?.errorCode === E.topicAuthorization) throw new WeirError('log-fatal', `${topic}/${partition}: not authorised to read`);
      } catch (error) {
        if (error instanceof WeirError && error.code !== 'log-fatal') await cluster.refresh([topic]);
        throw error;
      }
      await cluster.refresh([topic]);
      return undefined;
    }, closing.signal);
  }

  /**
   * Position at which to go on after an out-of-range answer; undefined = it is past the end. The range is asked anew:
   * while a leader is elected the answer may be of one that lags, and what is between must not count as read.
   */
  async function begin(topic: string, partition: number, position: number): Promise<number | undefined> {
    const start = (await listOffsets(cluster, topic, [partition], -2, closing.signal)).get(partition)!;
    if (start > position) return start;
    return position <= await endOf(topic, partition) ? position : undefined;
  }

  /** Asked anew: the high watermark of a leader that was just elected goes back for a moment, and this question waits until it is right (KIP-207). */
  const endOf = async (topic: string, partition: number): Promise<number> => (await listOffsets(cluster, topic, [partition], -1, closing.signal)).get(partition)!;

  async function read(topic: string, partition: number, from: number, to: number, onBatch: (batch: RecordBatch) => void | Promise<void>, bytes = readBytes): Promise<void> {
    let position = from;
    let movedAt = performance.now();
    while (position < to) {
      const found = await fetchOnce(topic, partition, position, bytes);
      if (found.outOfRange) {
        const start = await begin(topic, partition, position);
        if (start === undefined) return;
        if (start === position && performance.now() - movedAt > cluster.deadlineMs) throw new WeirError('log-deadline', `read of ${topic}/${partition}: offset ${position} is out of range and within it`);
        if (start === position) continue;
        // What retention took counts as passed: there is nothing of it to wait for.
        position = start;
        await onBatch({ topic, partition, epoch: 0, records: [], nextOffset: Math.min(start, to), highWatermark: Math.max(start, found.highWatermark) });
        movedAt = performance.now();
      } else if (found.next > position) {
        const records = found.next > to ? found.records.filter((r) => r.offset < to) : found.records;
        position = Math.min(found.next, to);
        await onBatch({ topic, partition, epoch: 0, records, nextOffset: position, highWatermark: found.highWatermark });
        movedAt = performance.now();
      } else if (found.highWatermark <= position && await endOf(topic, partition) <= position) return;
      else if (performance.now() - movedAt > cluster.deadlineMs) throw new WeirError('log-deadline', `read of ${topic}/${partition} stands at ${position} before ${found.highWatermark}`);
    }
  }

  async function follow(topic: string, positions: ReadonlyMap<number, number>, onBatch: (batch: RecordBatch) => void | Promise<void>, onError: (error: Error) => void): Promise<Follower> {
    const next = new Map<number, number>(positions);
    const taker: Taker = {
      // What is shared is spaced by those who have much: a follower whose records come alone is at once for the next.
      maxBytesPerPartition: 1024 * 1024, urgent: urgent || share !== undefined, onFatal: fail,
      onBatch: (batch) => {
        const taking = onBatch(batch);
        const taken = (): void => { next.set(batch.partition, batch.nextOffset); };
        return taking instanceof Promise ? taking.then(taken) : taken();
      },
    };
    const fetcher = share === undefined ? new Fetcher(taker, new FetchRequests(cluster, { purpose: `follow-${++readers}`, maxWaitMs: followWaitMs, graceMs })) : share([topic], taker);
    let failed = false;
    function fail(error: Error): void {
      if (failed) return;
      failed = true;
      clearInterval(timer);
      stopWatching();
      onError(error);
    }
    async function stop(error: Error): Promise<void> {
      await fetcher.stop();
      fail(error);
    }
    async function addAll(): Promise<void> {
      const count = await cluster.partitions(topic);
      for (let partition = 0; partition < count; partition++) {
        if (failed || fetcher.get(topic, partition) !== undefined) continue;
        const position = next.get(partition) ?? 0;
        next.set(partition, position);
        fetcher.add({ topic, partition, epoch: 0, position, paused: false });
      }
    }
    const timer = setInterval(() => {
      cluster.refresh([topic]).then(addAll).catch((error: unknown) => {
        // Brokers away: the next round asks again.
        if (!(error instanceof WeirError) || error.code !== 'log-unavailable') void stop(error as Error);
      });
    }, watchMs);
    timer.unref();
    const stopWatching = watchFetcher(cluster, fetcher, watchMs, (error) => { void stop(error); });
    const follower: Follower = {
      positions: () => next,
      asOf() {
        let least: Moment | undefined;
        for (const { asOf } of fetcher.all()) least = least === undefined ? asOf : earlier(least, asOf);
        return least ?? never;
      },
      hurry: () => fetcher.hurry(),
      async close() {
        failed = true;
        clearInterval(timer);
        stopWatching();
        followers.delete(follower);
        await fetcher.stop();
      },
    };
    followers.add(follower);
    try {
      await cluster.refresh([topic]);
      await addAll();
    } catch (error) {
      await follower.close();
      throw error;
    }
    return follower;
  }

  return {
    read: (topic, partition, from, to, onBatch, bytes) => read(topic, partition, from, to, onBatch, bytes),
    follow,
    async readOne(topic, partition, offset) {
      let found: LogRecord | undefined;
      await read(topic, partition, offset, offset + 1, ({ records }) => { [found] = records; }, oneBytes);
      return found;
    },
    async close() {
      closing.abort();
      await Promise.all([...followers].map((f) => f.close()));
      cluster.discard(purpose);
    },
  };
}
