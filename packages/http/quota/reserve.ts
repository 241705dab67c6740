/**
 * A part of an account's quota that dispatchers and pollers leave to somebody else of the deployment for a while. It is
 * announced again while it is needed, and ends by itself: who asked for it may die.
 */
export interface QuotaReserve {
  readonly account: string;
  /** Of every limit of the account, from 0 to `mostReserved`. */
  readonly share: number;
  /** When it was announced, ms since the epoch. */
  readonly at: number;
  /** For how long it is left from the time it is read, ms. */
  readonly forMs: number;
}

/** What restricts must never wait for somebody who only asks, so a tenth of an account cannot be reserved. */
export const mostReserved = 0.9;
/** One announced longer ago is of somebody who died, whatever the clocks of two machines say. */
const longAgoMs = 3_600_000;

interface Ports {
  /** The last one of each account, as it was read; a new object for each announcement. */
  readonly reserves: () => ReadonlyMap<string, QuotaReserve>;
  /** ms since the epoch. */
  readonly now: () => number;
  readonly monotonic: () => number;
}

/**
 * The part of an account's quota that is not reserved now, from 1 - `mostReserved` to 1. The time of a reserve counts by
 * the reader's own clock from the first look on, so it never ends here before it ends where it was announced.
 */
export function createUnreserved(ports: Ports): (account: string) => number {
  const seen = new WeakMap<QuotaReserve, number>();
  return (account) => {
    const reserve = ports.reserves().get(account);
    if (reserve === undefined || ports.now() - reserve.at > longAgoMs + reserve.forMs) return 1;
    const now = ports.monotonic();
    let since = seen.get(reserve);
    if (since === undefined) seen.set(reserve, since = now);
    return now - since < reserve.forMs ? 1 - Math.min(mostReserved, Math.max(0, reserve.share)) : 1;
  };
}
