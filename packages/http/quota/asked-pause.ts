/** A vendor may ask for a longer pause: it is kept, with one call an hour to see whether it still stands. */
export const longestAskedMs = 3_600_000;
/** More is no pause but a mistake (a date of another century, milliseconds as seconds): our own back-off is used. */
const absurdMs = 86_400_000;

/** The pause that a vendor asks for by `Retry-After`, ms, at most an hour; undefined where it asks for none that can be meant: no number, not in the future, more than a day. */
export function askedPauseMs(retryAfterMs: number | undefined): number | undefined {
  return retryAfterMs !== undefined && Number.isFinite(retryAfterMs) && retryAfterMs > 0 && retryAfterMs <= absurdMs ? Math.min(retryAfterMs, longestAskedMs) : undefined;
}
