/**
 * Circuit breaker of one destination (Nygard, Release It!). It opens on trouble of the whole destination:
 * `threshold` failures in a row with no success between them, or at once on throttling and on a refused
 * credential. Open, nothing is called; after the wait one probe goes through. The probe is whatever lane is
 * next, so one bad subject cannot keep the breaker open for the others.
 */
export interface BreakerState {
  readonly state: 'closed' | 'open' | 'probing';
  readonly failures: number;
  /** Consecutive openings; drives the wait. */
  readonly openings: number;
  /** Monotonic ms; meaning depends on state. */
  readonly until: number;
  readonly reason: string;
}

export const closed: BreakerState = { state: 'closed', failures: 0, openings: 0, until: 0, reason: '' };

const threshold = 5;
const firstWaitMs = 500;
const maxWaitMs = 30_000;

/** 0 = call now; otherwise ms to wait. Infinity while a probe is out: its result decides. */
export function waitMs(breaker: BreakerState, now: number): number {
  if (breaker.state === 'closed') return 0;
  if (breaker.state === 'probing') return Number.POSITIVE_INFINITY;
  return Math.max(0, breaker.until - now);
}

/** A call is about to start: an open breaker whose wait is over lets one probe through. */
export function onStart(breaker: BreakerState): BreakerState {
  return breaker.state === 'open' ? { ...breaker, state: 'probing' } : breaker;
}

export function onSuccess(): BreakerState {
  return closed;
}

/** The vendor answered about this record only (permanent): the destination is alive. */
export function onAlive(): BreakerState {
  return closed;
}

/** The call did not start after all (lease, consent): a probe is given back. */
export function onCancelled(breaker: BreakerState, now: number): BreakerState {
  return breaker.state === 'probing' ? { ...breaker, state: 'open', until: now } : breaker;
}

/** A failure that may be the destination's. `force` opens at once; one that opens it is followed by no call for `retryAfterMs`, if that is longer than its own wait. */
export function onFailure(breaker: BreakerState, now: number, reason: string, options: { retryAfterMs?: number; force?: boolean } = {}): BreakerState {
  const failures = breaker.failures + 1;
  if (breaker.state === 'closed' && !options.force && failures < threshold) return { ...breaker, failures };
  const openings = breaker.state === 'open' ? breaker.openings : breaker.openings + 1;
  const wait = Math.max(options.retryAfterMs ?? 0, Math.min(maxWaitMs, firstWaitMs * 2 ** Math.min(openings - 1, 10)));
  return { state: 'open', failures, openings, until: Math.max(breaker.state === 'open' ? breaker.until : 0, now + wait), reason };
}
