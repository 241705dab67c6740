import type { Clock } from '@weir/service';

/** Who owns a partition by the order of its ledger: the last one that wrote a token above all before it. */
export interface OwnerMark {
  readonly token: number;
  readonly owner: string;
}

const unknown = '';

/** A name that no other owner has: not the instance alone, for one that was killed and is back is another owner, and so is one that begins again to load. */
export const nameOwner = ({ instance, clock }: { readonly instance: string; readonly clock: Pick<Clock, 'random'> }, epoch: number): string => `${instance}/${epoch}/${Math.floor(clock.random() * 2 ** 32).toString(36)}`;

/** Whether a reader who has seen this one knows of no owner, from the beginning of the ledger on. */
export const isNone = (current: OwnerMark | undefined): boolean => current === undefined || current.token === 0;

/** Whether a mark can have been made for the ledger in which it stands: a token is at most 1 above what its writer had read to. Another one was on its way when the topic was deleted and made anew. */
export const belongs = (mark: OwnerMark, offset: number): boolean => mark.token <= offset + 1;

/**
 * Of a reader who begins at `offset`, and does not know what lies before. A mark there has a token of at most that, so one with a higher
 * token is of a later owner than all of them; one with another may be of an earlier owner, written late, and makes nobody the owner.
 */
export const unknownBefore = (offset: number): OwnerMark => ({ token: offset, owner: unknown });

/** What a LedgerOwner makes of the one before. A request that arrives late has a token that others have passed, or shares: it changes nothing. */
export function nextOwner<M extends OwnerMark>(current: M | undefined, written: M): M {
  return current === undefined || written.token > current.token ? written : current;
}

/**
 * Whether an end counts that says that nothing took effect (`failed-over` among them): it does when it stands before the mark of
 * every later owner, for then each of them has seen it before its first call. One that was written late, by an owner that had lost
 * the partition, stands behind such a mark and counts for nobody: a later owner has the record, and may have called the vendor.
 * One that may have taken effect, or has, counts whoever wrote it. Where no owner is known yet (an old
 * part of the topic) it counts: who reads from somewhere begins long enough before the ends that it needs that none of them is
 * behind a mark which it does not know.
 */
export function counts(current: OwnerMark | undefined, end: { readonly state: string; readonly effect: string; readonly owner?: string | null }): boolean {
  // Of ends of before they named their owner only those that went to a second vendor did.
  const needsOwner = end.state === 'failed-over' || (end.effect === 'none' && (end.owner ?? null) !== null);
  return !needsOwner || current === undefined || current.owner === unknown || end.owner === current.owner;
}

interface Ports {
  /** Reads the ledger to its end, as it is now, and surely up to `atLeast`, where a record that was acknowledged ends. */
  load(atLeast?: number): Promise<void>;
  current(): OwnerMark | undefined;
  /** Next offset of the ledger that is not read. */
  read(): number;
  /** Appends the mark; resolves with its offset when it is acknowledged, or with undefined when the assignment has ended. */
  append(mark: OwnerMark): Promise<number | undefined>;
  /** False: the assignment has ended. Waits while that is not known. */
  owned(): Promise<boolean>;
}

/**
 * Becomes the owner by the order of the ledger, with a token that no mark of an earlier owner has passed, whenever that one
 * arrives. No mark has a token above its own offset + 1, and an earlier owner took its token before this assignment began: it is
 * at most 1 above what was the end of the ledger then. So the token is enough where the mark lands right behind what was read to.
 * Where it lands further on, what was read may not have been all (a leader that was cut off shows less than another
 * one showed before), and a second one is taken above the offset of the first. Then the ledger is read up to the own mark, so
 * every end before it has been seen.
 * @returns false: the assignment ended first; nothing may be called
 */
export async function becomeOwner(owner: string, ports: Ports): Promise<boolean> {
  /** Offset behind a mark of this owner: no earlier owner has read further. */
  let behind = 0;
  for (;;) {
    await ports.load();
    const read = ports.read();
    const token = Math.max(ports.current()?.token ?? 0, read, behind) + 1;
    if (!await ports.owned()) return false;
    const offset = await ports.append({ token, owner });
    if (offset === undefined) return false;
    // Its leader may show less than that, or another one may: one that was cut off and does not know it yet.
    await ports.load(offset + 1);
    const current = ports.current();
    if ((offset === read || behind > 0) && current?.owner === owner && current.token === token) return true;
    behind = offset + 1;
  }
}

/** Key of a mark on the ledger topic; each has its own, or compaction would hide between which ends it stood. */
export const ownerKey = (partition: number, { token, owner }: OwnerMark): string => `#owner/${partition}/${token}/${owner}`;
export const ownerPrefix = '#owner/';
