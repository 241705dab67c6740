/** One moment by both clocks, ms. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

/** Before everything. */
export const never: Moment = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };

/** The earlier of two by each clock: one of them, unless the wall clock was set back between. */
export function earlier(a: Moment, b: Moment): Moment {
  if (a.monotonic <= b.monotonic && a.wall <= b.wall) return a;
  return b.monotonic <= a.monotonic && b.wall <= a.wall ? b : { monotonic: Math.min(a.monotonic, b.monotonic), wall: Math.min(a.wall, b.wall) };
}

export const moment = (): Moment => ({ monotonic: performance.now(), wall: Date.now() });

/**
 * The right of a group member to work on its partitions, by the stricter of two clocks: the monotonic one stands while a
 * machine is suspended, and the wall clock may be set back. One that is set forward ends a lease before its time, and the next
 * acknowledged heartbeat renews it: by the wall clock alone nobody gives his partitions up, for a step of it says nothing of
 * the group, and to join again would stop all of it.
 */
export interface Lease {
  /** ms that are left; negative when it is over. */
  left(): number;
  /** Whether it is over by the monotonic clock. */
  over(): boolean;
  /** Monotonic ms until which it lasts, as the clocks stand now. */
  until(): number;
  /** It lasts so long from this moment, whatever it did before; the least where there are several. */
  set(...ends: ReadonlyArray<readonly [from: Moment, ms: number]>): void;
  end(): void;
}

export function createLease(): Lease {
  let monotonic = 0;
  let wall = 0;
  const left = (): number => Math.min(monotonic - performance.now(), wall - Date.now());
  return {
    left,
    over: () => performance.now() >= monotonic,
    until: () => performance.now() + left(),
    set(...ends) {
      monotonic = Math.min(...ends.map(([from, ms]) => from.monotonic + ms));
      wall = Math.min(...ends.map(([from, ms]) => from.wall + ms));
    },
    end() {
      monotonic = 0;
      wall = 0;
    },
  };
}
