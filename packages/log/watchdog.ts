import { WeirError } from '@weir/errors';
import { type Cluster } from './cluster.ts';
import { listOffsets } from './coordinator.ts';
import type { Fetcher } from './fetcher.ts';
import type { Membership } from './membership.ts';
import { partitionKey } from './partition-key.ts';

const strikesAllowed = 3;

/** Looks again and again, one look at a time; returns how to stop. Brokers that do not answer are no finding: the lease ends by itself. */
function every(ms: number, look: () => Promise<void>): () => void {
  let running = false;
  const timer = setInterval(() => {
    if (running) return;
    running = true;
    look().catch((error: unknown) => error).finally(() => { running = false; });
  }, ms);
  timer.unref();
  return () => clearInterval(timer);
}

/** Tells the leader of a group that the topics do not have the partitions any more that it gave out: the new ones would be nobody's until the next rebalance. */
export function watchPartitions(membership: Membership, everyMs: number, onChange: () => void): () => void {
  return every(everyMs, async () => {
    if (await membership.outgrown()) onChange();
  });
}

/**
 * Looks, by a connection of its own, whether partitions that have records to read are being read. A stall is
 * first cured by cutting the fetch connections; one that stays is told. Returns how to stop it.
 */
export function watchFetcher(cluster: Cluster, fetcher: Fetcher, everyMs: number, onStall: (error: Error) => void): () => void {
  const seen = new Map<string, { position: number; strikes: number; refused: number }>();
  let lookedAt = performance.now();

  async function look(): Promise<void> {
    const since = lookedAt;
    lookedAt = performance.now();
    const still = [...fetcher.all()].filter((p) => {
      const known = seen.get(partitionKey(p));
      if (!p.paused && !p.giving && known?.position === p.position) return true;
      seen.set(partitionKey(p), { position: p.position, strikes: 0, refused: p.refused });
      return false;
    });
    let stalled = false;
    for (const [topic, list] of Map.groupBy(still, (p) => p.topic)) {
      const ends = await listOffsets(cluster, topic, list.map((p) => p.partition), -1);
      for (const p of list) {
        const known = seen.get(partitionKey(p))!;
        // It moved, was paused, or its records are being worked on, while the end was asked for; or those of others are, and its turn has not come.
        const waits = p.refused === known.refused && fetcher.gaveAt(cluster.leader(topic, p.partition)) > since;
        known.refused = p.refused;
        if (waits || p.paused || p.giving || p.position !== known.position || ends.get(p.partition)! <= p.position || fetcher.get(topic, p.partition) !== p) known.strikes = 0;
        else {
          stalled = true;
          if (++known.strikes > strikesAllowed) return onStall(new WeirError('log-deadline', `${topic}/${p.partition} stands at ${p.position} while its end is ${ends.get(p.partition)}, for ${known.strikes} checks`));
        }
      }
    }
    if (stalled) fetcher.restart();
  }

  return every(everyMs, look);
}
