import type { Assignment, RecordBatch } from '@weir/log';
import { createCommitWindow, isPassing, patiently } from '@weir/pipeline';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

/**
 * How far one partition of weir.dispatch.<destination> is done with. What was read is unfinished until somebody says otherwise; the
 * contiguous finished prefix is committed, one commit at a time, and while too much is unfinished nothing more is read.
 */
export interface Commits {
  /** A batch was read: its records are unfinished. */
  read(batch: RecordBatch): void;
  /** The record at this offset is finished. */
  done(offset: number): void;
  /** As `done`, of those that were read from the dispatch topic. */
  finished(tasks: readonly Task[]): void;
  /** Offset of the first that is unfinished, or behind the last that was read. */
  upTo(): number;
  /** So much is unfinished that nothing more is read. */
  full(): boolean;
  /** When the first of the oldest unfinished batch was written, ms since the epoch; undefined = all is finished. */
  oldest(): number | undefined;
  /** The assignment ends: its lag is another one's. */
  leave(): void;
  /** Commits what is finished; resolves when it is committed, or cannot be any more. */
  drained(): Promise<void>;
}

/** @param closed the assignment has ended, or is about to: nothing is read on, and a commit that fails is not tried again */
export function createCommits(ports: DestinationPorts, { topic, partition, epoch, position }: Assignment, closed: () => boolean): Commits {
  const window = createCommitWindow({ position, get maxRecords() { return ports.window().records; }, get maxBytes() { return ports.window().bytes; } });
  /** Batches that are not finished: where each ends, and when its first record was written. */
  const stamps: { readonly next: number; readonly timestamp: number }[] = [];
  let committed = position;
  let committing: Promise<void> | undefined;
  let paused = false;
  let stale = false;
  /** Records on the topic behind the last batch. */
  let behind = 0;

  function commit(): void {
    if (paused && !closed() && !window.full()) {
      paused = false;
      ports.consumer().resume(topic, partition);
    }
    if (stale || committing !== undefined || window.committable() <= committed) return;
    committing = commitLoop().catch((error: unknown) => {
      stale = true;
      // The assignment ended meanwhile: the next owner finds the ends in the ledger.
      if (!isPassing(error)) ports.fail(error);
    }).finally(() => {
      committing = undefined;
      // What finished between the last look of the loop and now must not wait for the next event.
      commit();
    });
  }

  async function commitLoop(): Promise<void> {
    for (let next = window.committable(); next > committed; next = window.committable()) {
      const offset = next;
      await patiently(ports.clock, closed, () => ports.consumer().commit([{ topic, partition, epoch, offset }]));
      committed = next;
      ports.progress.committed();
      if (!closed()) tellLag();
    }
  }

  const tellLag = (): void => ports.progress.lag(`${topic}/${partition}`, behind + window.unfinished());

  return {
    read(batch) {
      window.begin(batch);
      if (batch.records.length > 0) stamps.push({ next: batch.nextOffset, timestamp: batch.records[0]!.timestamp });
      behind = Math.max(0, batch.highWatermark - batch.nextOffset);
      ports.metrics.lag.set({ destination: ports.name, partition }, behind);
      tellLag();
      if (window.full() && !paused) {
        paused = true;
        ports.consumer().pause(topic, partition);
      }
      commit();
    },
    done(offset) {
      window.done(offset);
      commit();
    },
    finished(tasks) {
      for (const task of tasks) if (task.parkedOffset < 0) window.done(task.offset);
      commit();
    },
    upTo: window.committable,
    full: window.full,
    oldest() {
      while (stamps.length > 0 && stamps[0]!.next <= window.committable()) stamps.shift();
      return stamps[0]?.timestamp;
    },
    leave() {
      ports.progress.lag(`${topic}/${partition}`, 0);
      ports.metrics.lag.remove({ destination: ports.name, partition });
    },
    async drained() {
      commit();
      while (committing !== undefined) await committing;
    },
  };
}
