/** How far apart requests of one kind to one broker begin, ms. */
export interface Spacing {
  ms(): number;
  /** A timer for it fired so much later than it was due. */
  fired(lateMs: number): void;
}

/** Where a timer is so late, the processor is given to others: a machine that is not full gives it within a slice or two. */
const lateMs = 6;
const growth = 1.5;
const shrinking = 0.9;
const widest = 16;

/**
 * As far apart as is asked for, and up to sixteen times as far while timers fire late. Where the processor is full everything
 * waits for it, and what requests take is what records lack; one timer in five must be late to keep it apart.
 */
export function createSpacing(leastMs: number): Spacing {
  let ms = leastMs;
  return {
    ms: () => ms,
    fired(late) {
      ms = late >= lateMs ? Math.min(widest * leastMs, ms * growth) : Math.max(leastMs, ms * shrinking);
    },
  };
}
