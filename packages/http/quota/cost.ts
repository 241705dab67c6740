import { planBuckets, type Limit } from './limits.ts';

/**
 * How long `calls` calls take under the limits at a share of them, ms: what fits into the buckets goes at once, the
 * rest at the rate of the tightest. 0 where nothing limits; Infinity with a share of 0. A bound from below: retries,
 * a vendor's slowness and live traffic, which goes first, come on top.
 */
export function timeFor(calls: number, limits: readonly (Limit | undefined)[], share = 1, slots = 1): number {
  let most = 0;
  for (const { capacity, perMs } of limits.flatMap((limit) => planBuckets(limit, slots))) {
    const beyond = calls - Math.max(1, capacity * share);
    if (beyond > 0) most = Math.max(most, share > 0 ? beyond / (perMs * share) : Number.POSITIVE_INFINITY);
  }
  return most;
}

export interface QuotaCost {
  readonly calls: number;
  /** ms; see timeFor. */
  readonly durationMs: number;
  /** Part of the tightest limit's window that the calls use up: 1 = one whole window. */
  readonly windows: number;
}

/** What so many calls cost of one operation's limit and the account's, for a preview. */
export function costOf(calls: number, limits: readonly (Limit | undefined)[], share = 1): QuotaCost {
  const rates = limits.flatMap((limit) => planBuckets(limit, 1).map((b) => b.rate));
  return { calls, durationMs: timeFor(calls, limits, share), windows: Math.max(0, ...rates.map((r) => calls / r.count)) };
}
