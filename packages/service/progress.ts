import type { Readiness } from './types.ts';

/**
 * Whether a stage moves: lag that stays while nothing was committed for `stallMs` makes it not ready. An idle
 * stage (no lag) is ready for ever.
 */
export interface Progress {
  /** Records known to be waiting, per partition. */
  lag(partition: string, records: number): void;
  committed(): void;
  readiness(): Readiness;
}

export function createProgress(options: { monotonic: () => number; stallMs?: number }): Progress {
  const stallMs = options.stallMs ?? 30_000;
  const lags = new Map<string, number>();
  let last = options.monotonic();
  let waiting = false;
  return {
    lag(partition, records) {
      lags.set(partition, records);
      const now = [...lags.values()].some((n) => n > 0);
      if (now && !waiting) last = options.monotonic();
      waiting = now;
    },
    committed() {
      last = options.monotonic();
    },
    readiness() {
      const idle = options.monotonic() - last;
      return waiting && idle > stallMs ? { ready: false, reason: `lag without a commit for ${Math.round(idle / 1000)} s` } : { ready: true };
    },
  };
}
