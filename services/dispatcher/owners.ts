/** Who owns a partition by the order of its ledger: the last one that wrote a token above all before it. */
export interface OwnerMark {
  readonly token: number;
  readonly owner: string;
}

/** What a LedgerOwner makes of the one before. A request that arrives late has a token that others have passed, or shares: it changes nothing. */
export function nextOwner(current: OwnerMark | undefined, written: OwnerMark): OwnerMark {
  return current === undefined || written.token > current.token ? written : current;
}

/**
 * Whether an end `failed-over` counts: it does when it stands before the mark of every later owner, for then each of them
 * has seen it before its first call. One that was written late, by an owner that had lost the partition, stands behind
 * such a mark and counts for nobody: a later owner may have called the first vendor. Where no owner is known yet (an old
 * part of the topic) it counts: what is still to be done lies behind the mark of whoever read it first.
 */
export function counts(current: OwnerMark | undefined, end: { readonly state: string; readonly owner?: string | null }): boolean {
  return end.state !== 'failed-over' || current === undefined || end.owner === current.owner;
}

interface Ports {
  /** Reads the ledger to its end, as it is now. */
  load(): Promise<void>;
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
    await ports.load();
    const current = ports.current();
    if ((offset === read || behind > 0) && current?.owner === owner && current.token === token) return true;
    behind = offset + 1;
  }
}

/** Key of a mark on the ledger topic; each has its own, or compaction would hide between which ends it stood. */
export const ownerKey = (partition: number, { token, owner }: OwnerMark): string => `#owner/${partition}/${token}/${owner}`;
export const ownerPrefix = '#owner/';
