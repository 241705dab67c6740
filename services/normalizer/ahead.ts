import { WeirError } from '@weir/errors';
import type { LogRecord, Reader, RecordBatch } from '@weir/log';
import { isPassing } from '@weir/pipeline';
import type { Clock, ServiceContext } from '@weir/service';

/** What is looked at ahead of the stage. */
export interface AheadPart {
  readonly topic: string;
  readonly partition: number;
  /** It is another one's: nothing more is looked at. */
  gone(): boolean;
}

export interface AheadPorts<P extends AheadPart> {
  readonly reader: Pick<Reader, 'read'>;
  readonly clock: Pick<Clock, 'monotonic' | 'setTimer' | 'clearTimer'>;
  readonly logger: Pick<ServiceContext['logger'], 'warn'>;
  /** Writes what closes of these records, and resolves when it is acknowledged. `done`: the stage is done with all of the partition before this offset. */
  readonly close: (part: P, records: readonly LogRecord[], done: number) => Promise<void>;
  readonly fail: (error: unknown) => void;
}

/**
 * What closes of a backlog, before its turn. A withdrawal in a webhook stands on the partition of its sender behind what came
 * before it; while that is more than `least` records, the rest of the partition is read once more, up to its end, and what
 * closes of the changes of consent is written: under ids of their own (`aheadChange`), for each change is decided, and told, at its turn, as if
 * nothing had been written. Only what closes: a grant must not overtake, and everything else keeps its order (I4). Nothing is kept
 * of how far it got: who takes the partition over begins behind what is done, and repeats the rest.
 *
 * It rests as long as it works, so what it costs the stage is half of a processor at most, and only while that is behind. It is several
 * times faster than the stage where the conditions of a mapping tell from the bytes that an item says nothing of consent.
 */
export interface Ahead<P extends AheadPart> {
  /** Told with each batch that the stage is given: the offset before which it is done, and the end of the topic as it is known. */
  behind(part: P, done: number, end: number): void;
  drop(part: P): void;
  /** Nothing is written any more when it resolves. */
  stop(): Promise<void>;
}

/** Less than that is a fraction of a second of the stage. */
export const aheadFrom = 5000;
const chunkRecords = 4000;
const chunkBytes = 1024 * 1024;
const againMs = 1000;

interface Place<P> {
  readonly part: P;
  done: number;
  /** Next to be looked at. */
  at: number;
  end: number;
}

export function createAhead<P extends AheadPart>(ports: AheadPorts<P>, least = aheadFrom): Ahead<P> {
  const { reader, clock, logger } = ports;
  const places = new Map<P, Place<P>>();
  const stopped = Promise.withResolvers<void>();
  let isStopped = false;
  let told = false;
  let running: Promise<void> | undefined;

  const isBehind = ({ done, at, end }: Place<P>): boolean => end - done > least && at < end;

  /** The one that waits longest: who was looked at goes to the end. */
  function next(): Place<P> | undefined {
    for (const place of places.values()) {
      if (!isBehind(place)) continue;
      places.delete(place.part);
      places.set(place.part, place);
      return place;
    }
    return undefined;
  }

  async function rest(ms: number): Promise<void> {
    const over = Promise.withResolvers<void>();
    const timer = clock.setTimer(over.resolve, ms);
    await Promise.race([over.promise, stopped.promise]);
    clock.clearTimer(timer);
  }

  async function look(place: Place<P>): Promise<void> {
    const { part } = place;
    const gone = (): boolean => isStopped || part.gone();
    const to = Math.min(place.end, place.at + chunkRecords);
    await reader.read(part.topic, part.partition, place.at, to, async (batch: RecordBatch) => {
      place.end = Math.max(place.end, batch.highWatermark);
      if (gone()) throw new WeirError('log-assignment-stale', `${part.topic}/${part.partition} is looked at no more`);
      const records = batch.records.filter(({ offset }) => offset >= place.done);
      if (records.length > 0) await ports.close(part, records, place.done);
    }, chunkBytes);
    place.at = Math.max(place.at, to);
  }

  async function run(): Promise<void> {
    for (let place = next(); place !== undefined && !isStopped; place = next()) {
      const began = clock.monotonic();
      try {
        await look(place);
        told = false;
      } catch (error) {
        if (isStopped || place.part.gone()) continue;
        if (!isPassing(error)) throw error;
        if (!told) logger.warn({ err: error, topic: place.part.topic, partition: place.part.partition }, 'withdrawals behind a backlog are not looked for while brokers are away');
        told = true;
        await rest(againMs);
      }
      await rest(clock.monotonic() - began);
    }
  }

  return {
    behind(part, done, end) {
      let place = places.get(part);
      if (place === undefined) places.set(part, place = { part, done, at: done, end });
      place.done = Math.max(place.done, done);
      place.at = Math.max(place.at, done);
      place.end = Math.max(place.end, end);
      if (running !== undefined || isStopped || !isBehind(place)) return;
      running = run().catch(ports.fail).finally(() => { running = undefined; });
    },
    drop(part) {
      places.delete(part);
    },
    async stop() {
      isStopped = true;
      stopped.resolve();
      await running;
    },
  };
}
