import type { BucketPlan } from './limits.ts';

/**
 * One part of a limit. It begins with one token, not full: what was let through before a crash is not known, and a
 * full bucket after each of k restarts would be k bursts over. Tokens come by the smaller of the shares at the last
 * look and now, and are capped by it, so a gained share is never paid for the past.
 */
export interface Bucket {
  readonly plan: BucketPlan;
  /** ms until a token is there; 0 = now; Infinity without a share. */
  wait(now: number, share: number): number;
  take(): void;
  /** What was taken for a call that was not sent. */
  giveBack(): void;
  /** The vendor refused: nothing is left. */
  empty(): void;
  /** Tokens now. */
  tokens(): number;
}

/** @param first tokens that it begins with, up to 1 */
export function createBucket(plan: BucketPlan, first = 1): Bucket {
  let tokens = first;
  let at = Number.NaN;
  let before = 0;
  return {
    plan,
    wait(now, share) {
      if (Number.isNaN(at)) at = now;
      else {
        const both = Math.min(before, share);
        const capacity = both > 0 ? Math.max(1, plan.capacity * both) : 0;
        tokens = Math.min(capacity, tokens + Math.max(0, now - at) * plan.perMs * both);
      }
      at = Math.max(at, now);
      before = share;
      // A rounding error must not make a caller come back at the very same time.
      if (tokens >= 1 - 1e-9) return 0;
      return share > 0 ? (1 - tokens) / (plan.perMs * share) : Number.POSITIVE_INFINITY;
    },
    take() {
      tokens -= 1;
    },
    giveBack() {
      tokens += 1;
    },
    empty() {
      tokens = Math.min(tokens, 0);
    },
    tokens: () => Math.max(0, tokens),
  };
}
