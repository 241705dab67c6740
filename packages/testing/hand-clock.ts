/** A clock (packages/service) that is turned by hand: nothing of a test waits. */
export interface HandClock {
  /** Now, ms, by both clocks. */
  at: number;
  now(): number;
  monotonic(): number;
  random(): number;
  setTimer(run: () => void, ms: number): object;
  clearTimer(handle: object): void;
  /** Lets so many ms pass: each timer that is due runs at its time, and a turn of the loop follows it, for what it set off. */
  turn(ms: number): Generator<void>;
}

export function createHandClock(at: number, random: () => number = () => 0.5): HandClock {
  const timers = new Map<object, { readonly at: number; readonly run: () => void }>();
  const clock: HandClock = {
    at, now: () => clock.at, monotonic: () => clock.at, random,
    setTimer(run, ms) {
      const handle = {};
      timers.set(handle, { at: clock.at + ms, run });
      return handle;
    },
    clearTimer(handle) { timers.delete(handle); },
    *turn(ms) {
      const until = clock.at + ms;
      for (;;) {
        const [first] = [...timers].sort((a, b) => a[1].at - b[1].at);
        if (first === undefined || first[1].at > until) break;
        timers.delete(first[0]);
        clock.at = Math.max(clock.at, first[1].at);
        first[1].run();
        yield;
      }
      clock.at = until;
    },
  };
  return clock;
}
