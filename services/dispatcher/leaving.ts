import type { OperationManifest } from '@weir/adapter';
import { secondKey, type DestinationConfig, type SecondVendor } from '@weir/release';
import type { Ready } from './batch.ts';
import { waitMs, type BreakerState } from './breaker.ts';
import type { Ending } from './ends.ts';
import { failOver, secondOf } from './fail-over.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import type { createReady, Ordered } from './ready.ts';
import type { Task } from './types.ts';

/** The second vendor must be so much sooner through: what is given over costs an end and a record more, and a choice that tips over at every call measures nothing. */
const leastGain = 1.25;
/** Between two looks at heads that wait for a secret or for a second vendor, ms. */
const lookEveryMs = 5000;

interface Ports {
  readonly destination: DestinationPorts;
  readonly ready: Pick<ReturnType<typeof createReady<Ready>>, 'putBack'>;
  readonly breaker: () => BreakerState;
  /** ms in which a delivery by this operation is expected to be through here. */
  cost(destination: DestinationConfig, operation: string): number;
  /** Asks for a look at the heads in so many ms; never for what is not finite. */
  wakeIn(ms: number): void;
}

/** When the heads of a destination go to the second vendors of their routes; and those that were looked at and stay. */
export function createLeaving({ destination: ports, ready, breaker, cost, wakeIn }: Ports) {
  /** Looked at while the vendor is away: in their order, out of the way of those behind them. */
  let staying: Ordered<Ready>[] = [];
  /** When one of them may go after all; monotonic ms. */
  let lookAgainAt = Number.POSITIVE_INFINITY;
  /** Since when it cannot be called, monotonic ms. */
  let openSince: number | undefined;
  let secretSince: number | undefined;

  const soonestMs = (destination: DestinationConfig): number => Math.min(...[...destination.seconds?.values() ?? []].map((s) => s.afterMs));

  /** When the breaker lets one through, or one of them may go by then. */
  const wake = (blockedMs: number): void => wakeIn(Math.min(blockedMs, Math.max(0, lookAgainAt - ports.clock.monotonic())));

  function give(task: Task, second: SecondVendor, code: string, why: string): Ending {
    ports.second(second.destination, second.operation)?.given();
    return failOver(task, second, code, why);
  }

  function away(runner: PartitionRunner, destination: DestinationConfig, task: Task, since: number, code: string): Ending | undefined {
    const second = secondOf(ports, runner, destination, task);
    if (second === undefined) return undefined;
    const forMs = ports.clock.monotonic() - since;
    if (forMs >= second.afterMs) return give(task, second, code, `${ports.name} away for ${Math.round(forMs / 1000)} s`);
    lookAgainAt = Math.min(lookAgainAt, since + second.afterMs);
    return undefined;
  }

  /** It was called when the vendor had been away for as long as its route says: it has found out, and need not again. */
  function hasProbed(destination: DestinationConfig, { delivery, last }: Task): boolean {
    const afterMs = destination.seconds?.get(secondKey(delivery.recordType, delivery.operation))?.afterMs;
    if (last === undefined || openSince === undefined || afterMs === undefined) return false;
    return ports.clock.now() - last.at < ports.clock.monotonic() - openSince - afterMs;
  }

  return {
    breakerChanged(): void {
      openSince = breaker().state === 'closed' ? undefined : openSince ?? ports.clock.monotonic();
    },
    /** Whether the destination has its secrets. */
    configured(yes: boolean): void {
      secretSince = yes ? undefined : secretSince ?? ports.clock.monotonic();
    },
    /** ms until the first second vendor may be asked; 0 = now, Infinity = the destination can be called, or has none. */
    untilAwayMs(destination: DestinationConfig): number {
      const since = secretSince ?? openSince;
      return destination.seconds === undefined || since === undefined ? Number.POSITIVE_INFINITY : Math.max(0, since + soonestMs(destination) - ports.clock.monotonic());
    },
    /** The head goes to its second vendor, now that no secret can be had; undefined = it stays. */
    withoutSecret: (runner: PartitionRunner, destination: DestinationConfig, task: Task): Ending | undefined => (secretSince === undefined ? undefined : away(runner, destination, task, secretSince, 'secret-unavailable')),
    /**
     * The head, which could be called but for breaker and quota, goes to its second vendor: the first has been away for
     * as long as the route says, asks to be left alone for longer, or is the slower one by measure. Undefined = it stays.
     */
    instead(runner: PartitionRunner, destination: DestinationConfig, task: Task, operation: OperationManifest): Ending | undefined {
      if (destination.seconds === undefined || (task.delivery.standby ?? null) === null) return undefined;
      const now = ports.clock.monotonic();
      const state = breaker();
      if (state.state !== 'closed') {
        // The one that goes through an open breaker is the probe: without it nobody would learn that the vendor is back. Once,
        // or a delivery that is alone would be the probe for ever.
        const isProbe = waitMs(state, now) === 0 && !hasProbed(destination, task);
        return isProbe || openSince === undefined ? undefined : away(runner, destination, task, openSince, state.reason);
      }
      const second = secondOf(ports, runner, destination, task);
      if (second === undefined) return undefined;
      const { closedMs } = ports.quota.state(task.path === '' ? task.delivery.operation : task.path, operation.limit, now);
      if (closedMs >= second.afterMs) return give(task, second, 'vendor-throttled', `${ports.name} asks to be left alone for ${Math.round(closedMs / 1000)} s`);
      if (second.prefer !== 'measured' || task.attempts > 0) return undefined;
      const here = cost(destination, task.delivery.operation);
      const there = ports.second(second.destination, second.operation)!.cost();
      return there * leastGain < here ? give(task, second, 'preferred', `expected in ${Math.round(there)} ms there, in ${Math.round(here)} ms here`) : undefined;
    },
    /** Out of line until the destination can be called, `blockedMs` from now, or until one of those that stay may go. */
    stays(next: Ordered<Ready>, blockedMs: number): void {
      staying.push(next);
      wake(blockedMs);
    },
    /** Out of line while no secret can be had. Whether a second vendor can take it is not told when that changes: it is looked at again. */
    staysAway(next: Ordered<Ready>): void {
      staying.push(next);
      lookAgainAt = Math.min(lookAgainAt, ports.clock.monotonic() + lookEveryMs);
      wake(Number.POSITIVE_INFINITY);
    },
    size: () => staying.length,
    /** Lets go of those whose partition is another one's. */
    drop(gone: (entry: Ready) => boolean): void {
      staying = staying.filter(({ item }) => !gone(item));
    },
    /** Those that stay are in line again when the destination can be called (`blockedMs` 0) or one of them may go by now; if not, they are looked at when that is so, though nobody else is in line: a failed probe leaves nobody. */
    comeBack(blockedMs: number): void {
      if (staying.length === 0) return;
      if (blockedMs > 0 && ports.clock.monotonic() < lookAgainAt) return wake(blockedMs);
      lookAgainAt = Number.POSITIVE_INFINITY;
      for (const next of staying.splice(0).reverse()) ready.putBack(next);
    },
  };
}
