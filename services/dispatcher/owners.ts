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
  /** Appends the mark; resolves when it is acknowledged. */
  append(mark: OwnerMark): Promise<void>;
  /** False: the assignment has ended. Waits while that is not known. */
  owned(): Promise<boolean>;
}

/**
 * Becomes the owner by the order of the ledger. The token is taken while the assignment surely holds, so nobody later can
 * have read less; then the ledger is read up to the own mark, so every end before it has been seen. The token is above the
 * offset that was read to, too: no mark has one above its own offset + 1, so it is above those in a part that was passed over.
 * @returns false: the assignment ended first; nothing may be called
 */
export async function becomeOwner(owner: string, ports: Ports): Promise<boolean> {
  for (;;) {
    await ports.load();
    const token = Math.max(ports.current()?.token ?? 0, ports.read()) + 1;
    if (!await ports.owned()) return false;
    await ports.append({ token, owner });
    await ports.load();
    // Another mark with this token came first, of an owner that is gone: again, above it.
    if (ports.current()?.owner === owner) return true;
  }
}

/** Key of a mark on the ledger topic; each has its own, or compaction would hide between which ends it stood. */
export const ownerKey = (partition: number, { token, owner }: OwnerMark): string => `#owner/${partition}/${token}/${owner}`;
export const ownerPrefix = '#owner/';
