import { waitMs, type BreakerState } from './breaker.ts';
import type { SecondState } from './fail-over.ts';
import { costOf, type Paths } from './paths.ts';
import type { DestinationPorts } from './ports.ts';

/** Between two deliveries of other vendors that find out whether this one is back, ms. */
const probeMs = 30_000;

/**
 * What a destination says of itself to those that have it as second vendor. With its breaker open it takes one delivery now and
 * then, as the probe, where nothing of its own waits (`waits`): nobody else would ever find out that it is back.
 */
export function createAsSecond({ ports, paths, breaker, waits }: { readonly ports: DestinationPorts; readonly paths: Paths; readonly breaker: () => BreakerState; readonly waits: () => boolean }): (operation: string) => SecondState | undefined {
  let probeAt = -Infinity;
  return (operation) => {
    const destination = ports.destination();
    if (destination === undefined || !Object.hasOwn(destination.operations, operation)) return undefined;
    const now = ports.clock.monotonic();
    const takesProbe = (): boolean => now >= probeAt && waitMs(breaker(), now) === 0 && !waits();
    return {
      usable: destination.enabled && (breaker().state === 'closed' || takesProbe()),
      cost: () => costOf(ports, paths, destination, operation),
      given: () => { if (breaker().state !== 'closed') probeAt = now + probeMs; },
    };
  };
}
