import type { Clock } from '@weir/service';

/** One timer for many reasons to wake: the soonest counts. */
export interface Alarm {
  /** Rings in so many ms, if it would not ring before; never for one that is not finite. */
  in(ms: number): void;
  /** It does not ring, until it is set again. */
  stop(): void;
}

const longestMs = 2 ** 31 - 1;

export function createAlarm(clock: Pick<Clock, 'monotonic' | 'setTimer' | 'clearTimer'>, ring: () => void): Alarm {
  let timer: unknown;
  let timerDue = 0;
  return {
    in(ms) {
      if (!Number.isFinite(ms)) return;
      const due = clock.monotonic() + Math.max(1, ms);
      if (timer !== undefined && timerDue <= due) return;
      if (timer !== undefined) clock.clearTimer(timer);
      timerDue = due;
      timer = clock.setTimer(() => {
        timer = undefined;
        ring();
      }, Math.min(Math.max(1, ms), longestMs));
    },
    stop() {
      if (timer !== undefined) clock.clearTimer(timer);
      timer = undefined;
    },
  };
}
