/** So many calls in any window of so many ms. */
export interface Rate {
  readonly count: number;
  readonly perMs: number;
}

/** What a vendor states: both hold at once. */
export interface Limit {
  readonly burst?: Rate;
  readonly steady?: Rate;
}

/** A token bucket: never more than `capacity` tokens, `perMs` new ones each ms. */
export interface BucketPlan {
  readonly capacity: number;
  readonly perMs: number;
  readonly rate: Rate;
}

/** Part of the slowest rate that may go at once where no burst is stated. */
const burstPart = 0.1;

/**
 * Buckets that keep a limit in *every* window, not only on average. A bucket of capacity c and rate r lets at most
 * c + r·T through in a window T, so for N calls per T: r = (N − c) / T. With N/T as the rate (the usual bucket) it
 * would be N + c. The longest window gets c = the stated burst, or a tenth of N; shorter ones c = N/2, as their long
 * run is bound by the longest. `slots` = in how many parts the limit may be cut: each part holds at least one whole
 * token, so c ≥ slots as long as that leaves half of N to the rate.
 */
export function planBuckets(limit: Limit | undefined, slots: number): BucketPlan[] {
  const rates = [limit?.burst, limit?.steady].filter((r) => r !== undefined && r.count > 0 && r.perMs > 0) as Rate[];
  rates.sort((a, b) => a.perMs - b.perMs);
  return rates.map((rate, i) => {
    const shorter = i > 0 ? rates[i - 1]!.count : undefined;
    const wanted = i < rates.length - 1 ? rate.count / 2 : (shorter ?? rate.count * burstPart);
    const capacity = Math.max(1, Math.min(Math.max(wanted, slots), rate.count / 2));
    // One holder: the window that begins with a call of a full bucket has c + r·T − 1 calls at most.
    const spare = slots <= 1 ? 1 : 0;
    return { rate, capacity, perMs: Math.max(rate.count / 2, rate.count - capacity + spare) / rate.perMs };
  });
}

/** Calls a second that a limit allows in the long run; Infinity where none is stated. */
export function steadyPerSecond(limit: Limit | undefined, slots = 1): number {
  return Math.min(...planBuckets(limit, slots).map((b) => b.perMs * 1000), Number.POSITIVE_INFINITY);
}
