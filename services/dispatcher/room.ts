import type { Clock } from '@weir/service';
import type { Ready } from './batch.ts';
import type { createHeads } from './heads.ts';
import { quotaWait, type Lane } from './lane.ts';
import type { Ordered } from './ready.ts';

/** A head that waits for a timer. Times are monotonic ms. */
export interface Delayed extends Ready {
  readonly timer: unknown;
  readonly due: number;
  /** Its destination's config when it began to wait: the same object while its secrets are. */
  readonly credential: object | undefined;
}

interface Context {
  readonly clock: Clock;
  readonly heads: ReturnType<typeof createHeads>;
  readonly delayed: Map<Lane, Delayed>;
  /** There is time for one more in this turn of the event loop. False: the pump runs again in the next. */
  timeLeft(): boolean;
  /** The pump runs in so many ms at the latest. */
  wakeIn(ms: number): void;
  offer(lane: Lane, runner: Ready['runner']): void;
}

/** Between two looks at those that wait: with a full window of 6,000 heads a look takes some ms. */
const lookEveryMs = 1000;
/** A head that has waited for less stays, and so does one that goes within the longer time: to park one and take it up again costs three times as much as its call. */
const leastMs = 5000;
const longMs = 30_000;
/** A timer that ends so soon is waited for. */
const soonMs = 1000;

/**
 * Heads that wait for long in a window that is full are parked, so that the partition is read on: what restricts is not to wait on its
 * topic until uses before it, whose quota is closed, have gone (I3). At most a window in five seconds, by a rule that parks
 * nothing of a destination that keeps up. The same for parked heads in hand, where others wait for their slots.
 */
export function createRoom({ clock, heads, delayed, timeLeft, wakeIn, offer }: Context) {
  /** When those of a bucket are looked at again; by timer: when the delayed are. */
  const looks = new Map<string, number>();
  const timer = ' timer';

  function isTime(of: string): boolean {
    const now = clock.monotonic();
    const at = looks.get(of) ?? 0;
    const is = now >= at;
    if (is) looks.set(of, now + lookEveryMs);
    wakeIn(is ? lookEveryMs : at - now);
    return is;
  }

  function isLong(since: number, left: number): boolean {
    const waited = clock.monotonic() - since;
    return waited >= leastMs && waited + left >= longMs;
  }

  return {
    /** The bucket is closed for so many ms: its uses in line. */
    closed(bucket: string, ms: number): void {
      if (!isTime(bucket)) return;
      const reason = quotaWait(bucket);
      const kept: Ordered<Ready>[] = [];
      for (let next = heads.next((b) => b === bucket); next !== undefined; next = heads.next((b) => b === bucket)) {
        const { lane, runner, since } = next.item;
        const parks = lane.queue[0]!.delivery.kind !== 'restrict' && isLong(since, ms) && runner.holdsUp(lane, reason);
        if (parks && timeLeft()) {
          runner.parking.park(lane, clock.now() + ms, reason);
          continue;
        }
        kept.push(next);
        if (!parks) continue;
        looks.delete(bucket);
        break;
      }
      for (const next of kept.reverse()) heads.putBack(next);
    },
    /** Another credential: heads that the one before was refused for do not wait out what the vendor asked for then. Not the same again, nor another destination's: a vault that is looked at is no news. */
    renewed(credential: object | undefined): void {
      if (credential === undefined) return;
      const refused = [...delayed.values()].filter(({ lane, credential: before }) => before !== credential && !lane.dead && lane.queue[0]?.last?.verdict === 'auth-broken');
      // None of them is delayed any more when the first is offered: the pump looks at those that are.
      for (const { lane, timer: handle } of refused) {
        delayed.delete(lane);
        clock.clearTimer(handle);
      }
      for (const { lane, runner } of refused) offer(lane, runner);
    },
    /** The destination can be called: those that wait for their next try. */
    look(): void {
      if (delayed.size === 0 || !isTime(timer)) return;
      for (const [lane, { runner, since, due, timer: handle }] of delayed) {
        const left = due - clock.monotonic();
        if (left <= soonMs || lane.dead || !isLong(since, left) || !runner.holdsUp(lane)) continue;
        if (!timeLeft()) {
          looks.delete(timer);
          return;
        }
        delayed.delete(lane);
        clock.clearTimer(handle);
        runner.parking.park(lane, clock.now() + left, lane.queue[0]!.last?.code ?? 'retry');
      }
    },
  };
}
