import type { Clock } from '@weir/service';

/** When the ends of a destination are appended: each request costs both sides as much as tens of records, whichever partitions it is for. */
export interface EndPace {
  /** Undefined: now, for nothing was a moment ago. Else resolves when it is time. */
  turn(): Promise<void> | undefined;
  /** What waits is appended now, with what the caller appends. */
  go(): void;
  /** Something else of the destination is appended in this turn of the event loop: ends that have waited for a while go with it. */
  ride(): void;
}

/** From one append of ends to the next, ms; at the same times for all destinations, which so share the request. */
const gatherMs = 16;
/** So long after the last append, ms, what else is appended takes the ends that wait, and not much sooner does a timer. */
const rideMs = 12;

export function createEndPace(clock: Pick<Clock, 'monotonic' | 'setTimer' | 'clearTimer'>): EndPace {
  /** When ends were appended last, monotonic ms. */
  let wroteAt = Number.NEGATIVE_INFINITY;
  let next: { readonly due: PromiseWithResolvers<void>; readonly timer: unknown } | undefined;

  function go(): void {
    wroteAt = clock.monotonic();
    if (next === undefined) return;
    clock.clearTimer(next.timer);
    next.due.resolve();
    next = undefined;
  }

  return {
    go,
    turn() {
      const now = clock.monotonic();
      if (now - wroteAt >= gatherMs) {
        go();
        return undefined;
      }
      next ??= { due: Promise.withResolvers(), timer: clock.setTimer(go, Math.ceil(Math.max(wroteAt + rideMs, now + 1) / gatherMs) * gatherMs - now) };
      return next.due.promise;
    },
    ride() {
      if (next !== undefined && clock.monotonic() - wroteAt >= rideMs) go();
    },
  };
}
