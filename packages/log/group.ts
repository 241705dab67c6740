import { WeirError } from '@weir/errors';
import type { Cluster } from './cluster.ts';
import { createCommits } from './commits.ts';
import { fetchCommitted, listOffsets } from './coordinator.ts';
import { delay, settlesWithin, withDeadline } from './deadline.ts';
import { FetchRequests, type Taker } from './fetch-requests.ts';
import { Fetcher, type ShareFetcher } from './fetcher.ts';
import { createLease, moment } from './lease.ts';
import { Membership, type Generation } from './membership.ts';
import { partitionKey } from './partition-key.ts';
import type { Assignment, GroupConsumer, GroupConsumerOptions, UnreadGap } from './types.ts';
import { watchFetcher, watchPartitions } from './watchdog.ts';

const defaultWatchMs = 15_000;
const fetchWaitMs = 250;
const shortestBeatDeadlineMs = 500;
const leaveDeadlineMs = 3000;

type Why = 'rebalance' | 'lost' | 'close';

/**
 * A group consumer whose rules are ours: heartbeats on their own timer, whatever the handlers do; calls drain
 * before the member rejoins (eager protocol: between revoked and assigned nobody owns the partition); the lease
 * counts from the send time of the last acknowledged heartbeat, by the stricter of monotonic and wall clock; a position
 * that is gone stops the line.
 */
export function createGroupConsumer(cluster: Cluster, options: GroupConsumerOptions, share?: ShareFetcher, onUnread?: (gap: UnreadGap) => void): GroupConsumer {
  const { groupId, topics, handlers } = options;
  const sessionMs = options.sessionTimeoutMs ?? 10_000;
  const rebalanceMs = options.rebalanceTimeoutMs ?? 30_000;
  const beatMs = Math.max(100, Math.min(3000, Math.floor(sessionMs / 8)));
  const name = `${groupId}-${cluster.counts.next()}`;
  const closing = new AbortController();
  const membership = new Membership(cluster, { groupId, topics, sessionMs, rebalanceMs }, `group-${name}`, closing.signal);
  /** Assignments that may still be worked on; `given` keeps what the handlers were told until it is taken back. */
  const owned = new Map<string, Assignment>();
  let given: readonly Assignment[] = [];
  const paused = new Set<string>();
  const lease = createLease();
  /** Send time of the last heartbeat that saw no rebalance: one cannot have begun before. */
  let steadyAt = moment();
  let dead = false;
  let running: Promise<void> | undefined;
  let ended = Promise.withResolvers<Why>();

  const holds = (o: { topic: string; partition: number; epoch: number }): boolean => owned.get(partitionKey(o))?.epoch === o.epoch;
  const commits = createCommits(cluster, groupId, holds, (offsets) => membership.commit(offsets));
  const taker: Taker = {
    maxBytesPerPartition: options.maxBytesPerPartition ?? 1024 * 1024,
    urgent: options.urgent === true,
    onBatch: (batch) => {
      if (dead || !holds(batch)) return;
      // Stopped or blocked past the session: another one may have it by now. The next assignment begins at what is committed.
      if (lease.over()) return lose();
      handlers.batch(batch);
    },
    onFatal: fail,
  };
  const fetcher = share === undefined || taker.urgent === true ? new Fetcher(taker, new FetchRequests(cluster, { purpose: `fetch-${name}`, maxWaitMs: fetchWaitMs })) : share(topics, taker);

  function lose(): void {
    lease.end();
    owned.clear();
    ended.resolve('lost');
  }

  /** The line stops: nothing is read, committed or renewed from here on. */
  function fail(error: Error): void {
    if (dead) return;
    dead = true;
    lose();
    handlers.failed(error);
  }

  /** Heartbeats of one generation, until it ends. Time-outs end the lease by themselves: nothing renews it. */
  async function beat(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && !dead) {
      const sent = moment();
      const patience = Math.max(shortestBeatDeadlineMs, Math.min(sessionMs / 2, lease.left()));
      // The look-up of a coordinator is within the same patience.
      const said = await withDeadline(membership.heartbeat(patience), patience, 'heartbeat').catch((error: unknown) => {
        if ((error as WeirError).code === 'log-fatal') fail(error as Error);
        return 'unknown' as const;
      });
      if (signal.aborted || dead) return;
      if (said === 'alive') {
        steadyAt = sent;
        lease.set([sent, sessionMs]);
      } else if (said === 'rebalance') {
        // The group waits for us no longer than the rebalance timeout, heartbeats or not.
        lease.set([sent, sessionMs], [steadyAt, rebalanceMs]);
        ended.resolve('rebalance');
      } else if (said === 'lost' || lease.over()) return lose();
      await delay(said === 'unknown' ? Math.min(200, beatMs) : Math.max(0, beatMs - (performance.now() - sent.monotonic)), signal);
    }
  }

  /** With those that the group has not committed yet: they begin at their beginnings. */
  async function positionsOf(generation: Generation): Promise<{ readonly parts: readonly Assignment[]; readonly first: readonly Assignment[] }> {
    const parts: Assignment[] = [];
    const first: Assignment[] = [];
    if (generation.assigned.length === 0) return { parts, first };
    const found = await fetchCommitted(cluster, () => membership.coordinator(), groupId, generation.assigned, closing.signal);
    for (const { topic, partitions } of generation.assigned) {
      const missing = partitions.filter((partition) => !found.has(partitionKey({ topic, partition })));
      await cluster.partitions(topic);
      const begin = missing.length > 0 ? await listOffsets(cluster, topic, missing, -2, closing.signal) : new Map<number, number>();
      for (const partition of partitions) {
        const part: Assignment = { topic, partition, epoch: cluster.counts.next(), position: found.get(partitionKey({ topic, partition })) ?? begin.get(partition)! };
        parts.push(part);
        if (begin.has(partition)) first.push(part);
      }
    }
    return { parts, first };
  }

  /**
   * A begin at 0 is committed, so that what retention deletes from now on before it is read stops the line. Of a later one nobody
   * can tell a new group from one whose commits the brokers have deleted: it is told, and not committed, for nothing was read up to there.
   */
  function beginAnew(first: readonly Assignment[]): void {
    for (const { topic, partition, position } of first) if (position > 0) onUnread?.({ groupId, topic, partition, from: 0, to: position });
    const whole = first.filter(({ position }) => position === 0);
    if (whole.length === 0) return;
    commits.commit(whole.map(({ topic, partition, epoch }) => ({ topic, partition, epoch, offset: 0 }))).catch((error: unknown) => {
      // Anything else passes, or is told by the commits that come; the next assignment tries again.
      if ((error as WeirError).code === 'log-fatal') fail(error as Error);
    });
  }

  /** A handler that does not end within its time leaves nobody able to tell what is in flight: that is a failure, not a retry. */
  async function handle(what: string, work: Promise<void>, ms: number): Promise<boolean> {
    if (await settlesWithin(work, Math.max(0, ms))) return true;
    fail(new WeirError('log-deadline', `the ${what} handler of ${groupId} did not end within ${Math.round(ms)} ms`));
    return false;
  }

  async function takeOver(generation: Generation): Promise<void> {
    const { parts, first } = await positionsOf(generation);
    if (closing.signal.aborted) throw new WeirError('log-unavailable', `the consumer of ${groupId} is being closed`);
    given = parts;
    for (const part of given) owned.set(partitionKey(part), part);
    commits.reset(given.map((part) => ({ ...part, offset: first.includes(part) ? -1 : part.position })));
    beginAnew(first);
    if (!await handle('assigned', handlers.assigned(given), rebalanceMs)) return;
    for (const part of given) if (holds(part) && !closing.signal.aborted) fetcher.add({ ...part, paused: paused.has(partitionKey(part)) });
  }

  async function giveUp(why: Why): Promise<void> {
    const parts = given;
    for (const part of parts) fetcher.remove(part.topic, part.partition);
    commits.hurry();
    if (why === 'lost') owned.clear();
    await handle('revoked', handlers.revoked(parts, why), why === 'rebalance' ? Math.min(rebalanceMs, steadyAt.monotonic + rebalanceMs - performance.now()) : rebalanceMs);
    given = [];
    owned.clear();
    paused.clear();
  }

  /** One generation: join, take over, beat until it ends, drain. */
  async function generation(first: () => void): Promise<void> {
    const joined = await membership.join();
    if (joined === undefined) return delay(100, closing.signal);
    steadyAt = joined.since;
    lease.set([joined.since, sessionMs]);
    ended = Promise.withResolvers();
    if (closing.signal.aborted) ended.resolve('close');
    const stop = new AbortController();
    const beating = beat(stop.signal);
    try {
      await takeOver(joined);
      first();
      await giveUp(await ended.promise);
    } finally {
      stop.abort();
      lease.end();
      await beating;
      lease.end();
    }
  }

  async function run(first: () => void): Promise<void> {
    while (!closing.signal.aborted && !dead) {
      try {
        await generation(first);
      } catch (error) {
        const code = error instanceof WeirError ? error.code : undefined;
        if (code !== 'log-deadline' && code !== 'log-unavailable') fail(error as Error);
        if (given.length > 0) await giveUp('lost');
        await delay(200, closing.signal);
      }
    }
  }

  const startDeadlineMs = cluster.deadlineMs + 2 * rebalanceMs;
  const watchMs = options.watchMs ?? defaultWatchMs;
  const watches = [watchFetcher(cluster, fetcher, watchMs, fail), watchPartitions(membership, watchMs, () => ended.resolve('rebalance'))];

  async function close(): Promise<void> {
    closing.abort();
    for (const stop of watches) stop();
    ended.resolve('close');
    if (given.length === 0) membership.interrupt();
    await running;
    await fetcher.stop();
    // The session would end by itself: leaving only spares the others the wait.
    if (!dead) await withDeadline(membership.leave(), leaveDeadlineMs, 'leave').catch((error: unknown) => error);
    membership.interrupt();
  }

  return {
    async start() {
      for (const topic of topics) await cluster.partitions(topic);
      const assigned = Promise.withResolvers<void>();
      running = run(assigned.resolve).catch(fail);
      void running.then(() => assigned.reject(new WeirError('log-fatal', `the consumer of ${groupId} ended before its first assignment`)));
      await withDeadline(assigned.promise, startDeadlineMs, `first assignment of ${groupId}`).catch(async (error: unknown) => {
        await close();
        throw error;
      });
    },
    pause(topic, partition) {
      paused.add(partitionKey({ topic, partition }));
      fetcher.pause(topic, partition);
    },
    resume(topic, partition) {
      paused.delete(partitionKey({ topic, partition }));
      fetcher.resume(topic, partition);
    },
    commit: (offsets) => commits.commit(offsets),
    leaseUntil: lease.until,
    holds: (topic, partition, epoch) => holds({ topic, partition, epoch }) && lease.left() > 0,
    assignments: () => [...owned.values()],
    close,
  };
}
