import { WeirError } from '@weir/errors';
import { eventually, type Cluster } from './cluster.ts';
import { coordinatorMoved } from './coordinator.ts';
import { E } from './driver.ts';
import { partitionKey } from './partition-key.ts';

export interface CommitOffset {
  readonly topic: string;
  readonly partition: number;
  readonly epoch: number;
  readonly offset: number;
}

export interface Commits {
  /** Resolves when it is written: a request begins `spacingMs` after the last one at the soonest, unless there is hurry. */
  commit(offsets: readonly CommitOffset[]): Promise<void>;
  /** The assignment ends: what waits goes now, and nothing waits any more until the next `reset`. */
  hurry(): void;
  /** Positions of a new assignment; what was known before is forgotten. */
  reset(offsets: readonly CommitOffset[]): void;
}

/** From the begin of one request to that of the next: a request costs the broker as much as hundreds of records, and what it spares is the repetition after a crash. */
const spacingMs = 100;
/** A coordinator that has not heard yet of a topic just made does not know it. */
const passing: ReadonlySet<number> = new Set<number>([...coordinatorMoved, E.requestTimedOut, E.unknownTopic]);
const ended: ReadonlySet<number> = new Set<number>([E.illegalGeneration, E.unknownMember, E.rebalanceInProgress, E.fencedInstance]);

/**
 * Commits of one group member: one request at a time, so that a slow one never lands after a later one, and ten a
 * second at most; what is asked meanwhile goes together in the next. Monotonic per partition, and only under the epoch it belongs to.
 */
export function createCommits(cluster: Cluster, groupId: string, holds: (offset: CommitOffset) => boolean, send: (offsets: readonly CommitOffset[]) => Promise<number>): Commits {
  const done = new Map<string, number>();
  let tail: Promise<unknown> = Promise.resolve();
  let next: { readonly offsets: Map<string, CommitOffset>; readonly sent: Promise<void> } | undefined;
  let sentAt = -Infinity;
  let hurried = false;
  /** Ends the wait for the turn of the next request. */
  let go: (() => void) | undefined;
  const fresh = (o: CommitOffset): boolean => o.offset > (done.get(partitionKey(o)) ?? -1);
  const stale = (): WeirError => new WeirError('log-assignment-stale', `a commit of ${groupId} belongs to an assignment that has ended`);

  /** Until the next request may begin. */
  function turn(): Promise<void> | undefined {
    const wait = sentAt + spacingMs - performance.now();
    if (hurried || wait <= 0) return undefined;
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        go = undefined;
        resolve();
      };
      const timer = setTimeout(end, wait);
      go = end;
    });
  }

  async function flush(offsets: readonly CommitOffset[]): Promise<void> {
    await eventually(cluster, `commit of ${groupId}`, async () => {
      if (!offsets.every(holds)) throw stale();
      const code = await send(offsets);
      if (code === 0) return true;
      if (ended.has(code)) throw stale();
      if (!passing.has(code)) throw new WeirError('log-fatal', `commit of ${groupId} refused: broker error ${code}`);
      return undefined;
    });
    for (const o of offsets) if (holds(o) && fresh(o)) done.set(partitionKey(o), o.offset);
  }

  return {
    async commit(offsets) {
      if (!offsets.every(holds)) throw stale();
      const wanted = offsets.filter(fresh);
      if (wanted.length === 0) return;
      if (next === undefined) {
        const batch = new Map<string, CommitOffset>();
        const sent = tail.then(turn).then(() => {
          // After a `reset` it may be one of the assignment after it.
          if (next?.offsets === batch) next = undefined;
          sentAt = performance.now();
          return flush([...batch.values()]);
        });
        // Its callers have the rejection; the tail only keeps the order.
        tail = sent.catch((error: unknown) => error);
        next = { offsets: batch, sent };
      }
      for (const o of wanted) {
        const known = next.offsets.get(partitionKey(o));
        if (known === undefined || known.epoch !== o.epoch || known.offset < o.offset) next.offsets.set(partitionKey(o), o);
      }
      await next.sent;
    },
    hurry() {
      hurried = true;
      go?.();
    },
    reset(offsets) {
      hurried = false;
      // What waits is of the assignment before: it goes alone, and is rejected as that, whatever the new one commits.
      next = undefined;
      done.clear();
      for (const o of offsets) done.set(partitionKey(o), o.offset);
    },
  };
}
