/** By what two deliveries of one subject by one operation are told apart: which of them is the newer. */
export interface Age {
  /** When ingest accepted it, ms since the epoch. */
  readonly acceptedAt: number;
  /** Offset on weir.dispatch.<destination> of the first record of the delivery, which has the order of the subject; -1 = not known. */
  readonly firstOffset: number;
}

/**
 * Whether `a` is surely newer than `b`. Two updates that came in one request have the same accept time: then the order in which
 * they were decided counts, and where that is not known of both, neither is newer.
 */
export const isNewer = (a: Age, b: Age): boolean => a.acceptedAt > b.acceptedAt || (a.acceptedAt === b.acceptedAt && b.firstOffset >= 0 && a.firstOffset > b.firstOffset);
