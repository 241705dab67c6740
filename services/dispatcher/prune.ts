import type { Clock } from '@weir/service';
import type { LedgerStore } from './ledger-store.ts';
import type { DispatcherMetrics } from './metrics.ts';
import type { Takeover } from './takeover.ts';

export interface PrunePorts {
  readonly name: string;
  readonly ledger: Pick<LedgerStore, 'prune' | 'bytes'>;
  readonly takeover: Pick<Takeover, 'reaching' | 'kept'>;
  /** The time since which ends must be known for what is in hand, ms. */
  oldestAsked(): number;
  /** Longest dedupe window of the sources, ms. */
  windowMs(): number;
  readonly clock: Pick<Clock, 'now'>;
  readonly metrics: Pick<DispatcherMetrics, 'cached' | 'pruned'>;
}

/** Beyond the window: what is delivered a day late is still told without a read of the topic, and clocks differ. */
const spareMs = 86_400_000;
/** Ends in one go: a few milliseconds. */
const pruneEnds = 1000;

/**
 * Lets go of ends that no live record can ask for: the dedupe window sizes the local store (architecture 3.9), and a replay
 * has its range read from the topic again, once: it stays while the replay goes on. Never what a record in hand may ask for. True: there is more.
 */
export function pruneLedger({ name, ledger, takeover, oldestAsked, windowMs, clock, metrics }: PrunePorts): boolean {
  if (takeover.reaching()) return false;
  const looked = ledger.prune(Math.min(clock.now() - windowMs() - spareMs, oldestAsked(), takeover.kept()), pruneEnds);
  if (looked > 0) metrics.pruned.inc({ destination: name }, looked);
  metrics.cached.set({ destination: name }, ledger.bytes());
  return looked >= pruneEnds;
}
