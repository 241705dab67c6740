import type { Ready } from './batch.ts';
import type { AttemptSummary, Task, Trouble } from './types.ts';

/** What is known of the first of some records that wait. */
export interface HeadState {
  /** When it may be tried, ms since the epoch; 0 = at once. */
  due: number;
  reason: string;
  attempts: number;
  readBacks: number;
  notApplied: boolean;
  /** Its last call by this owner. */
  last: AttemptSummary | undefined;
  trouble: Trouble | undefined;
  /** As of its task: a refusal of many is halved further when it has waited. */
  batchLimit: number;
  maybeSince: number;
}

/** Parked records that wait for one another. */
export interface Line extends HeadState {
  /** Parked offsets not finished, ascending. */
  offsets: number[];
}

/**
 * A subject whose deliveries wait on the parked topic, in two lines: what restricts goes ahead of uses that wait, for a
 * withdrawal is not to wait for a cap or for the morning. No use goes while a restrict waits.
 */
export interface Parked {
  /** Key of its marker in the ledger. */
  key: string;
  readonly uses: Line;
  readonly restricts: Line;
  /** Records being appended to the parked topic now. */
  pending: number;
  /** Arrivals while the marker is being removed; they run after it. */
  held: Task[] | undefined;
  /** When the record that waits longest was parked, ms; a time before that until it has been loaded. */
  since: number;
  /** When the marker was written last, ms. */
  markedAt: number;
  /** When this owner took it over, or parked it, ms: calls of earlier owners were over by then. */
  readonly takenAt: number;
  /** Its marker says that nothing of it has been called but what it tells of: before a call it is replaced by another one. */
  spared: boolean;
  /** Its marker says that its head may be called (`due`): it is not replaced before each one that follows. */
  saysDue: boolean;
  /** The first offset that its marker tells of, by what this owner knows; -1 = not known. */
  markedFrom: number;
  /** Nobody has it in hand: it goes on when what is being appended is. */
  resting: boolean;
  /** Among which of those in hand it counts; undefined = it is not. */
  slot: Slot | undefined;
}

/**
 * Why a use waits: the bucket of the quota that it draws from is closed. A marker that says so says more: nobody has called
 * the head since it was written, for before a call it is replaced by another one. So the next owner does not take it for called,
 * however long it has been due.
 */
export type QuotaWait = `quota:${string}`;
export const quotaWait = (bucket: string): QuotaWait => `quota:${bucket}`;
/** Of a marker whose head may be called. */
export const dueReason = 'due';
export const isQuotaWait = (reason: string): reason is QuotaWait => reason.startsWith('quota:');

/** What the head of a line waits as: those of one closed bucket are apart from all others, or they would be in their way. */
export const waitsAs = (parked: Parked, line: Line): 'restrict' | 'use' | QuotaWait => (line === parked.restricts ? 'restrict' : isQuotaWait(line.reason) ? line.reason : 'use');

/** Why a parked subject is in hand: its head may be tried, is about to be lost by its topic, or nothing of it waits. */
export type Slot = 'restrict' | 'use' | QuotaWait | 'empty' | 'expiring';

/** Deliveries of one subject in one partition: strictly one at a time, in order. */
export interface Lane {
  readonly subject: string;
  readonly queue: Task[];
  /** A call, an append or a timer owns the lane. */
  busy: boolean;
  /** Its partition is gone: start nothing. */
  dead: boolean;
  parked: Parked | undefined;
  /** Place among the ends of the partition (EndWriter.fence) that must be acknowledged before the next call. */
  fence: number;
  /** Where it stands in line for a call (heads.ts); undefined = it does not. */
  place: Ready | undefined;
  /** Something that restricts may be behind the head of the queue. */
  restricting: boolean;
}

export function createLane(subject: string, fence = 0): Lane {
  return { subject, queue: [], busy: false, dead: false, parked: undefined, fence, place: undefined, restricting: false };
}

const fresh = (): HeadState => ({ due: 0, reason: '', attempts: 0, readBacks: 0, notApplied: false, last: undefined, trouble: undefined, batchLimit: 0, maybeSince: 0 });
const createLine = (): Line => ({ offsets: [], ...fresh() });

export function createParked(key: string, now: number): Parked {
  return { key, uses: createLine(), restricts: createLine(), pending: 0, held: undefined, since: now, markedAt: now, takenAt: now, spared: false, saysDue: false, markedFrom: -1, resting: false, slot: undefined };
}

/** The line that a delivery waits in. */
export const lineFor = (parked: Parked, { kind }: { readonly kind: string }): Line => (kind === 'restrict' ? parked.restricts : parked.uses);

/** The line whose head is next; undefined = none waits. */
export function nextLine({ restricts, uses }: Parked): Line | undefined {
  if (restricts.offsets.length > 0) return restricts;
  return uses.offsets.length > 0 ? uses : undefined;
}

/** The line of the record that was parked first: what the marker says is said of its head. */
export function firstLine({ restricts, uses }: Parked): Line {
  return (restricts.offsets[0] ?? Number.POSITIVE_INFINITY) < (uses.offsets[0] ?? Number.POSITIVE_INFINITY) ? restricts : uses;
}

/** As the longest backoff of ours: a call that has been answered, or given up, is not on its way any more then, ms. */
const settledMs = 60_000;

/** When the head of the line may be tried, whole ms. One that goes ahead of a use that may have taken effect first gives the last call of that the time it would have had, but not what the vendor asked for beyond that. */
export function dueOf({ restricts, uses, takenAt }: Parked, line: Line): number {
  if (line !== restricts || uses.offsets.length === 0 || uses.maybeSince === 0) return line.due;
  const { due, last } = uses;
  return Math.max(restricts.due, Math.min(due, (last === undefined ? takenAt : Math.ceil(last.at + last.durationMs)) + settledMs));
}

/** The head is done with: nothing is known of the next one. */
export function forgetHead(line: Line): void {
  Object.assign(line, fresh());
}

/** Since when something that restricts waits behind the head of the lane, ms since the epoch (0 = for a while); undefined = nothing does. */
export function restrictSince(lane: Lane): number | undefined {
  if (lane.parked !== undefined) return lane.parked.restricts.offsets.length > 0 ? 0 : undefined;
  if (!lane.restricting) return undefined;
  const first = lane.queue.find(({ delivery }, i) => i > 0 && delivery.kind === 'restrict');
  lane.restricting = first !== undefined;
  return first?.queuedAt;
}
