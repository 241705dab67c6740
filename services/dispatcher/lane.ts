import type { AttemptSummary, Task } from './types.ts';

/** A subject whose deliveries wait on the parked topic. */
export interface Parked {
  /** Key of its marker in the ledger. */
  readonly key: string;
  /** Parked offsets not finished, ascending. */
  readonly offsets: number[];
  /** Records being appended to the parked topic now. */
  pending: number;
  /** Arrivals while the marker is being removed; they run after it. */
  held: Task[] | undefined;
  due: number;
  reason: string;
  attempts: number;
  readBacks: number;
  /** The head's last call by this owner. */
  last: AttemptSummary | undefined;
  maybeSince: number;
  since: number;
  /** When the marker was written last, ms. */
  markedAt: number;
}

/** Deliveries of one subject in one partition: strictly one at a time, in order. */
export interface Lane {
  readonly subject: string;
  readonly queue: Task[];
  /** A call, an append or a timer owns the lane. */
  busy: boolean;
  /** Its partition is gone: start nothing. */
  dead: boolean;
  parked: Parked | undefined;
}

export function createLane(subject: string): Lane {
  return { subject, queue: [], busy: false, dead: false, parked: undefined };
}

export function createParked(key: string, now: number, due: number, reason: string, head: { attempts: number; maybeSince: number; readBacks?: number; last?: AttemptSummary | undefined }): Parked {
  return { key, offsets: [], pending: 0, held: undefined, due, reason, attempts: head.attempts, readBacks: head.readBacks ?? 0, last: head.last, maybeSince: head.maybeSince, since: now, markedAt: now };
}
