import type { OperationManifest } from '@weir/adapter';

interface Bucket {
  readonly capacity: number;
  readonly perMs: number;
  tokens: number;
  at: number;
}

/**
 * Token buckets of one operation: burst and steady limit as the vendor states them (both must have a token).
 * It starts full and refills evenly, so in any window it is over the stated limit by at most one bucket after
 * a restart. Each instance uses its share: `share` in (0, 1].
 */
export interface Limiter {
  /** 0 and a token taken; else ms until a token may be there, nothing taken. */
  take(now: number): number;
}

export function createLimiter(limit: OperationManifest['limit'], share: () => number): Limiter {
  const buckets: Bucket[] = [];
  for (const part of [limit?.burst, limit?.steady]) {
    if (part !== undefined) buckets.push({ capacity: part.count, perMs: part.perMs, tokens: part.count, at: Number.NaN });
  }
  return {
    take(now) {
      let wait = 0;
      const s = share();
      for (const b of buckets) {
        const capacity = Math.max(1, b.capacity * s);
        if (Number.isNaN(b.at)) {
          b.at = now;
          b.tokens = capacity;
        }
        const rate = (b.capacity * s) / b.perMs;
        b.tokens = Math.min(capacity, b.tokens + Math.max(0, now - b.at) * rate);
        b.at = now;
        if (b.tokens < 1) wait = Math.max(wait, (1 - b.tokens) / rate);
      }
      if (wait > 0) return Math.ceil(wait);
      for (const b of buckets) b.tokens -= 1;
      return 0;
    },
  };
}
