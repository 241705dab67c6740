import { WeirError } from '@weir/errors';
import { delay, withDeadline } from '../deadline.ts';
import type { Assignment, GroupConsumer, GroupConsumerOptions } from '../types.ts';
import { E, type Cluster } from './cluster.ts';
import { coordinatorMoved, eventually, fetchCommitted, listOffsets } from './coordinator.ts';
import { Fetcher } from './fetcher.ts';
import { Membership, type Generation } from './membership.ts';

let epochs = 0;
let consumers = 0;

/**
 * A group consumer whose rules are ours: heartbeats on their own timer, whatever the handlers do; calls drain
 * before the member rejoins (eager protocol: between revoked and assigned nobody owns the partition); the lease
 * counts from the send time of the last acknowledged heartbeat; a position that is gone stops the line.
 */
export function createGroupConsumer(cluster: Cluster, options: GroupConsumerOptions): GroupConsumer {
  const { groupId, topics, handlers } = options;
  const sessionMs = options.sessionTimeoutMs ?? 10_000;
  const rebalanceMs = options.rebalanceTimeoutMs ?? 30_000;
  const beatMs = Math.max(100, Math.min(3000, Math.floor(sessionMs / 8)));
  const membership = new Membership(cluster, { groupId, topics, sessionMs, rebalanceMs });
  const owned = new Map<string, Assignment>();
  const committed = new Map<string, number>();
  const paused = new Set<string>();
  const closing = new AbortController();
  let leaseUntil = 0;
  let dead = false;
  let running: Promise<void> | undefined;
  /** Resolves when the present generation must end, with what ended it. */
  let ended = Promise.withResolvers<'rebalance' | 'lost'>();

  const fetcher = new Fetcher(cluster, {
    purpose: `fetch-${++consumers}`,
    maxBytesPerPartition: options.maxBytesPerPartition ?? 1024 * 1024,
    maxWaitMs: 250,
    onBatch: (batch) => {
      if (owned.get(`${batch.topic}/${batch.partition}`)?.epoch === batch.epoch) handlers.batch(batch);
    },
    onFatal: fail,
  });

  function fail(error: Error): void {
    if (dead) return;
    dead = true;
    handlers.failed(error);
  }

  /** Heartbeats of one generation, until it ends. Its time-outs end the lease by themselves: nothing renews it. */
  async function beat(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sent = performance.now();
      const said = await membership.heartbeat(Math.max(500, sessionMs / 2)).catch(() => 'unknown' as const);
      if (signal.aborted) return;
      if (said === 'alive' || said === 'rebalance') leaseUntil = sent + sessionMs;
      if (said === 'rebalance') ended.resolve('rebalance');
      if (said === 'lost' || (said === 'unknown' && performance.now() > leaseUntil)) {
        leaseUntil = 0;
        ended.resolve('lost');
        return;
      }
      await delay(said === 'unknown' ? Math.min(200, beatMs) : Math.max(0, beatMs - (performance.now() - sent)), signal);
    }
  }

  async function positionsOf(generation: Generation): Promise<Assignment[]> {
    const parts = generation.assigned.flatMap(({ topic, partitions }) => partitions.map((partition) => ({ topic, partition })));
    if (parts.length === 0) return [];
    const found = await fetchCommitted(cluster, () => membership.coordinator(), groupId, generation.assigned);
    const list: Assignment[] = [];
    for (const { topic, partitions } of generation.assigned) {
      const missing = partitions.filter((p) => !found.has(`${topic}/${p}`));
      await cluster.partitions(topic);
      const begin = missing.length > 0 ? await listOffsets(cluster, topic, missing, -2) : new Map<number, number>();
      for (const partition of partitions) list.push({ topic, partition, epoch: ++epochs, position: found.get(`${topic}/${partition}`) ?? begin.get(partition)! });
    }
    return list;
  }

  async function takeOver(generation: Generation): Promise<void> {
    const parts = await positionsOf(generation);
    for (const part of parts) owned.set(`${part.topic}/${part.partition}`, part);
    await handlers.assigned(parts);
    if (closing.signal.aborted) return;
    for (const part of parts) {
      const key = `${part.topic}/${part.partition}`;
      committed.set(key, part.position);
      fetcher.add({ topic: part.topic, partition: part.partition, epoch: part.epoch, position: part.position, paused: paused.has(key) });
    }
  }

  async function giveUp(reason: 'rebalance' | 'lost' | 'close'): Promise<void> {
    const parts = [...owned.values()];
    for (const part of parts) fetcher.remove(part.topic, part.partition);
    if (reason === 'lost') owned.clear();
    // Longer than this and the group goes on without us: then the assignment is lost, and nothing more is committed.
    await withDeadline(handlers.revoked(parts, reason), rebalanceMs, 'drain before rebalance').catch((error: unknown) => {
      if (!(error instanceof WeirError) || error.code !== 'log-deadline') throw error;
      leaseUntil = 0;
    });
    owned.clear();
    paused.clear();
    committed.clear();
  }

  /** One generation: join, take over, beat until it ends, drain. */
  async function generation(first: () => void): Promise<void> {
    const sent = performance.now();
    const joined = await membership.join();
    if (joined === undefined) return delay(100, closing.signal);
    leaseUntil = sent + sessionMs;
    ended = Promise.withResolvers();
    const stop = new AbortController();
    const beating = beat(stop.signal);
    try {
      await takeOver(joined);
      first();
      const why = await Promise.race([ended.promise, new Promise<'close'>((resolve) => {
        if (closing.signal.aborted) resolve('close');
        else closing.signal.addEventListener('abort', () => resolve('close'), { once: true });
      })]);
      await giveUp(why);
      if (why === 'lost') membership.forget();
    } finally {
      stop.abort();
      await beating;
      if (!closing.signal.aborted) leaseUntil = 0;
    }
  }

  async function run(first: () => void): Promise<void> {
    while (!closing.signal.aborted && !dead) {
      try {
        await generation(first);
      } catch (error) {
        const code = error instanceof WeirError ? error.code : undefined;
        if (code !== 'log-deadline' && code !== 'log-unavailable') return fail(error as Error);
        if (owned.size > 0) await giveUp('lost');
        await delay(200, closing.signal);
      }
    }
  }

  return {
    async start() {
      for (const topic of topics) await cluster.partitions(topic);
      await new Promise<void>((resolve, reject) => {
        running = run(resolve);
        running.then(() => reject(new WeirError('log-fatal', `consumer of ${groupId} ended before its first assignment`)), reject);
      });
    },
    pause(topic, partition) {
      paused.add(`${topic}/${partition}`);
      const position = fetcher.get(topic, partition);
      if (position !== undefined) position.paused = true;
    },
    resume(topic, partition) {
      paused.delete(`${topic}/${partition}`);
      const position = fetcher.get(topic, partition);
      if (position === undefined || !position.paused) return;
      position.paused = false;
      fetcher.wake();
    },
    async commit(offsets) {
      const stale = (): WeirError => new WeirError('log-assignment-stale', `a commit of ${groupId} belongs to an assignment that has ended`);
      if (offsets.some((o) => owned.get(`${o.topic}/${o.partition}`)?.epoch !== o.epoch)) throw stale();
      const fresh = offsets.filter((o) => o.offset > (committed.get(`${o.topic}/${o.partition}`) ?? -1));
      if (fresh.length === 0) return;
      await eventually(cluster, `commit of ${groupId}`, async () => {
        if (fresh.some((o) => owned.get(`${o.topic}/${o.partition}`)?.epoch !== o.epoch)) throw stale();
        const code = await membership.commit(fresh);
        if (code === 0) return true;
        if (code === E.illegalGeneration || code === E.unknownMember || code === E.rebalanceInProgress || code === E.fencedInstance) throw stale();
        if (!coordinatorMoved.has(code)) throw new WeirError('log-fatal', `commit of ${groupId} refused: error ${code}`);
        return undefined;
      });
      for (const o of fresh) {
        const key = `${o.topic}/${o.partition}`;
        if (owned.get(key)?.epoch === o.epoch) committed.set(key, Math.max(o.offset, committed.get(key) ?? -1));
      }
    },
    leaseUntil: () => leaseUntil,
    holds: (topic, partition, epoch) => owned.get(`${topic}/${partition}`)?.epoch === epoch && performance.now() < leaseUntil,
    assignments: () => [...owned.values()],
    async close() {
      closing.abort();
      await running?.catch((error: unknown) => error);
      await fetcher.stop();
      // The session would end by itself: leaving only spares the others the wait.
      await membership.leave().catch((error: unknown) => error);
    },
  };
}
