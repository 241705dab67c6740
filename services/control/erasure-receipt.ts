export const erasureStates = ['ordered', 'collected', 'marked', 'stopped', 'told', 'readable', 'erased', 'done', 'unknown'] as const;

/** weir.internal.ErasureReceipt, decoded. Times are ms since the epoch. */
export interface Erasure {
  readonly id: string;
  readonly ids: readonly string[];
  readonly by: string;
  readonly sealed: Buffer | null;
  readonly orderedAt: number;
  readonly state: (typeof erasureStates)[number];
  readonly stoppedAt: number | null;
  readonly erasedAt: number | null;
  readonly keysDestroyed: number;
  readonly recordsUnreadable: number;
  /** Of before the mark; none once it is acknowledged. */
  readonly recordsReadable: number;
  readonly readableUntil: number | null;
  readonly rawUntil: number | null;
  readonly deadline: number | null;
  readonly eventId: string | null;
  readonly destinations: ReadonlyArray<{ readonly destination: string; readonly operation: string | null; readonly state: string; readonly at: number | null }>;
  readonly markedAt: number | null;
  readonly onlyGiven: boolean;
  readonly forced: boolean;
  readonly known: boolean;
  /** Types of the linked identifiers that destinations are not told, each once per identifier. */
  readonly unnamed: readonly string[];
  /** It follows also links that only sources said which are not trusted. */
  readonly everyLink: boolean;
  /** What only such sources have linked with the person, at most 64: it is not erased. As of the last reading of the links. */
  readonly leftOut: readonly string[];
}

/** What was accepted until then is erased; null before the mark. */
export function markOf({ state, markedAt, orderedAt }: Pick<Erasure, 'state' | 'markedAt' | 'orderedAt'>): number | null {
  // Those of before the field were marked with the time of the order.
  return markedAt ?? (unmarked.has(state) ? null : orderedAt);
}

/** States before the mark. */
export const unmarked: ReadonlySet<Erasure['state']> = new Set(['ordered', 'collected', 'unknown']);
