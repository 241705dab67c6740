import type { Assignment, ConsumerHandlers, RecordBatch } from '@weir/log';
import { expire, prepare, type Preparation, type ToStart } from './attempt.ts';
import { createAlarm } from './alarm.ts';
import { createAsSecond } from './as-second.ts';
import { joinBatch, type Batch, type Ready } from './batch.ts';
import { waitMs, type BreakerState } from './breaker.ts';
import { isCovered } from './call.ts';
import { createEndPace } from './end-pace.ts';
import type { Ending } from './ends.ts';
import { createHeads } from './heads.ts';
import { createInFlight } from './in-flight.ts';
import { restrictSince, type Lane } from './lane.ts';
import type { SecondState } from './fail-over.ts';
import { createLeaving } from './leaving.ts';
import { createPartitionRunner, type PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import { costOf, createPaths, leavePath, withPath } from './paths.ts';
import { drawnFrom } from './quota.ts';
import type { Ordered } from './ready.ts';
import { createRoom, type Delayed } from './room.ts';
import { createSettle, unbuildable } from './settle.ts';
import { createStanding } from './standing.ts';
import type { OperationManifest } from '@weir/adapter';
import type { DestinationConfig } from '@weir/release';
import type { Task } from './types.ts';

/**
 * One destination: lanes of all owned partitions, one breaker, its account's quota, bounded calls in flight.
 * Trouble of the whole destination stops the pump and Kafka is the queue; trouble of one subject parks it.
 */
export interface DestinationRunner {
  readonly handlers: ConsumerHandlers;
  /** The release or the destination's switch changed. */
  changed(): void;
  /** A secret can be had again or has another value: an open breaker that a refused credential opened probes now. */
  credentialChanged(): void;
  /** Once in a while: how old what waits is, and what its topic is about to lose, also of a destination that is off. */
  sweep(): void;
  /** The time since which ends must be known for what is in hand, ms. */
  oldestAsked(): number;
  /** Partitions that this instance surely owns now; none once the lease has run out. */
  held(): number;
  /** As the second vendor of another destination; undefined = it has no such operation, or no secrets now. */
  asSecond(operation: string): SecondState | undefined;
  /** For people: since when the breaker has not been closed, why, and when a call was answered last (ms; 0 = never). */
  health(): { readonly openSince: number | undefined; readonly openCode: string; readonly aliveAt: number };
  status(): { breaker: BreakerState['state']; reason: string; inFlight: number; ready: number; parked: number };
}

/** What restricts waits no longer for a use before it, ms. */
const wayMs = 1000;
/** Between two looks at a lease that does not cover a call, ms. */
const leaseMs = 50;

export function createDestinationRunner(ports: DestinationPorts): DestinationRunner {
  const partitions = new Map<number, PartitionRunner>();
  const timeLeft = ports.turns.share(pump);
  const heads = createHeads(() => ports.configured());
  const paths = createPaths();
  const pace = createEndPace(ports.clock);
  let pumping = false;
  /** More heads are about to be offered in this tick. */
  let gathering = false;
  /** Heads that are looked at again in a moment: the more, the later, for what they wait for is read by this process, too. */
  let waiting = 0;
  /** Lanes whose head waits for a timer for longer than what restricts waits for a use. */
  const delayed = new Map<Lane, Delayed>();
  const gone = ({ lane }: Pick<Ready, 'lane'>): boolean => lane.dead;
  const held = (): number => (ports.clock.monotonic() < ports.consumer().leaseUntil() ? partitions.size : 0);
  const alarm = createAlarm(ports.clock, pump);
  const room = createRoom({ clock: ports.clock, heads, delayed, timeLeft, wakeIn: (ms) => alarm.in(ms), offer: inLine });
  const standing = createStanding(ports, () => leaving.breakerChanged());
  const settle = createSettle({ ports, breaker: standing.breaker, end, later, offer: inLine });
  const inFlight = createInFlight({ ports, paths, standing, settle, together, finished: pump });
  const parked = (): number => [...partitions.values()].reduce((n, runner) => n + runner.parking.count(), 0);
  const asSecond = createAsSecond({ ports, paths, breaker: standing.breaker, waits: () => heads.size() + delayed.size + leaving.size() + parked() > 0 });
  const leaving = createLeaving({ destination: ports, ready: heads, breaker: standing.breaker, cost: (destination, operation) => costOf(ports, paths, destination, operation), wakeIn: (ms) => alarm.in(ms) });

  /** A lane has a head that nobody works on. Heads offered while the pump runs are seen by the same run, those of `together` by the one behind it. */
  function offer(entry: Ready): void {
    if (gone(entry)) return;
    heads.push(entry);
    if (!pumping && !gathering) pump();
  }

  /** What a fetch brought, or a batch leaves, is looked at when all of it is in line: the first would go in a call of its own where many fit into one. */
  function together(offers: () => void): void {
    gathering = true;
    try {
      offers();
    } finally {
      gathering = false;
    }
    pump();
  }

  function inLine(lane: Lane, runner: PartitionRunner): void {
    offer({ lane, runner, since: ports.clock.monotonic() });
  }

  /** Start what may start. Never awaits, never nests; called after every change of state. */
  function pump(): void {
    const destination = ports.destination();
    if (pumping) return;
    leaving.configured(destination !== undefined);
    if (destination === undefined) return pumpAway();
    if (!destination.enabled) return;
    pumping = true;
    const empty = new Set<string>();
    try {
      leaving.comeBack(waitMs(standing.breaker(), ports.clock.monotonic()));
      if (standing.breaker().state === 'closed' && held() > 0) room.look();
      while (inFlight.count() < destination.concurrency && timeLeft()) {
        const next = heads.next((bucket) => !empty.has(bucket));
        if (next === undefined || !tryHead(next, destination, empty)) return;
      }
    } finally {
      pumping = false;
    }
  }

  /** No secret can be had: nothing is called, what ends or waits without a call does, and when that has lasted the heads go to their second vendors. */
  function pumpAway(): void {
    const destination = ports.configured();
    if (destination?.enabled !== true) return;
    const wait = leaving.untilAwayMs(destination);
    if (wait > 0) return alarm.in(wait);
    pumping = true;
    try {
      leaving.comeBack(Number.POSITIVE_INFINITY);
      for (let next = heads.next(() => true); next !== undefined; next = heads.next(() => true)) {
        const { lane, runner } = next.item;
        const task = lane.queue[0]!;
        const prepared = prepare(ports, runner, destination, task);
        if (prepared.kind !== 'call' && prepared.kind !== 'read-back') {
          act(lane, runner, task, prepared);
          continue;
        }
        const ending = prepared.kind === 'call' ? leaving.withoutSecret(runner, destination, task) : undefined;
        if (ending === undefined) leaving.staysAway(next);
        else end(lane, runner, ending);
      }
    } finally {
      pumping = false;
    }
  }

  /** Ends every head that its topic is about to lose, and what comes up behind it. */
  function expireHeads(): void {
    if (pumping) return;
    pumping = true;
    const kept: Ordered<Ready>[] = [];
    leaving.comeBack(0);
    try {
      for (let next = heads.next(() => true); next !== undefined; next = heads.next(() => true)) {
        const { lane, runner } = next.item;
        const task = lane.queue[0]!;
        const expired = expire(ports, runner, task);
        if (expired === undefined) kept.push(next);
        else act(lane, runner, task, expired);
      }
    } finally {
      for (const next of kept.reverse()) heads.putBack(next);
      pumping = false;
    }
  }

  function sweep(): void {
    const expiring = [...partitions.values()].filter((runner) => runner.sweep());
    if (expiring.length === 0) return;
    expireHeads();
    // What came up behind them may go.
    pump();
  }

  /** False: the breaker is open, no lane can start. A bucket that has no call left is added to `empty`. */
  function tryHead(next: Ordered<Ready>, destination: DestinationConfig, empty: Set<string>): boolean {
    const { lane, runner } = next.item;
    const task = lane.queue[0]!;
    const prepared = withPath(ports, paths, destination, task, prepare(ports, runner, destination, task));
    if (prepared.kind !== 'call' && prepared.kind !== 'read-back') {
      act(lane, runner, task, prepared);
      return true;
    }
    if (fenced(next.item)) return true;
    const now = ports.clock.monotonic();
    const { bucket, limit } = drawnFrom(task, prepared.kind, prepared.operation);
    const blocked = waitMs(standing.breaker(), now);
    const instead = prepared.kind === 'call' ? leaving.instead(runner, destination, task, prepared.operation) : undefined;
    if (instead !== undefined) {
      end(lane, runner, instead);
      return true;
    }
    if (blocked > 0 && leaving.untilAwayMs(destination) === 0) {
      leaving.stays(next, blocked);
      return true;
    }
    if (blocked === 0 && !isCovered(ports, prepared)) return awaitLease(next, empty);
    const batch = blocked > 0 || prepared.kind === 'read-back' ? undefined : beginBatch(next, task, destination, prepared.operation);
    if (batch === 'out') return true;
    const wait = blocked > 0 ? blocked : ports.quota.take(bucket, limit, next.class, now);
    if (wait === 0 && batch !== undefined) inFlight.startBatch(fillBatch(batch, [bucket, next.bucket], destination, prepared.operation), destination, prepared.operation, bucket);
    else if (wait === 0) inFlight.start(lane, runner, task, destination, prepared, bucket);
    else if (blocked === 0 && makesWay(lane, wait)) park(lane, runner, wait);
    else {
      // What cannot take every path does not stand before others of its bucket, which may take one that is open.
      const line = task.unbuilt === undefined ? bucket : `${bucket} (not by every path)`;
      heads.putBack({ ...next, bucket: line });
      empty.add(line);
      alarm.in(blocked > 0 ? Math.min(wait, leaving.untilAwayMs(destination)) : wait);
      if (blocked === 0 && held() > 0) room.closed(line, wait);
    }
    return blocked === 0;
  }

  /** The head stays in line; one look in a moment is for all that wait for a lease. */
  function awaitLease(next: Ordered<Ready>, empty: Set<string>): true {
    const { lane, runner } = next.item;
    if (makesWay(lane, leaseMs)) park(lane, runner, leaseMs);
    else {
      heads.putBack(next);
      empty.add(next.bucket);
      alarm.in(leaseMs);
    }
    return true;
  }

  /** The head as the first of a batch; undefined where its operation has none, `out` when it cannot be built. */
  function beginBatch(next: Ordered<Ready>, task: Task, destination: DestinationConfig, operation: OperationManifest): Batch<Ready> | 'out' | undefined {
    if (operation.batch === undefined || destination.adapter.destination?.batch === undefined) return undefined;
    const batch: Batch<Ready> = { members: [], items: [], bytes: 0, limit: operation.batch.maxItems };
    return join(batch, next, task, destination, operation) === 'joined' ? batch : 'out';
  }

  /** `out`: it cannot be built as an item, and has ended or is back in line for another path. */
  function join(batch: Batch<Ready>, next: Ordered<Ready>, task: Task, destination: DestinationConfig, operation: OperationManifest): 'joined' | 'full' | 'out' {
    const { lane, runner, since } = next.item;
    const joined = joinBatch(ports, batch, { lane, runner, since, task }, destination, operation);
    if (typeof joined === 'string') return joined;
    if (leavePath(destination, task)) heads.putBack(next);
    else end(lane, runner, unbuildable(task, joined));
    return 'out';
  }

  /** Heads of other subjects that draw from the same bucket and may be called now; heads that only end do so on the way. */
  function fillBatch(batch: Batch<Ready>, buckets: readonly string[], destination: DestinationConfig, operation: OperationManifest): Batch<Ready> {
    while (batch.members.length < batch.limit) {
      const next = heads.next((b) => buckets.includes(b));
      if (next === undefined) break;
      const { lane, runner } = next.item;
      const task = lane.queue[0]!;
      const prepared = withPath(ports, paths, destination, task, prepare(ports, runner, destination, task), batch.members[0]!.task.path);
      if (prepared.kind !== 'call' && prepared.kind !== 'read-back') {
        act(lane, runner, task, prepared);
        continue;
      }
      if (fenced(next.item)) continue;
      if (prepared.kind === 'read-back' || prepared.operation !== operation || join(batch, next, task, destination, operation) === 'full') {
        heads.putBack(next);
        break;
      }
    }
    return batch;
  }

  function act(lane: Lane, runner: PartitionRunner, task: Task, prepared: Exclude<Preparation, ToStart>): void {
    switch (prepared.kind) {
      case 'end': return end(lane, runner, prepared.ending);
      case 'silent':
        runner.writer.pushSilent(task);
        return advance(lane, runner);
      case 'park': return runner.parking.park(lane, prepared.due, prepared.reason);
      case 'wait': return later(lane, runner, prepared.ms + ++waiting / 10, () => { waiting--; });
    }
  }

  function end(lane: Lane, runner: PartitionRunner, ending: Ending): void {
    count(ending);
    runner.writer.push(ending);
    // Of what waits on the parked topic no intent tells: a successor takes only the first that has no end for called.
    if (ending.task.parkedOffset >= 0) lane.fence = runner.writer.place();
    else if (ending.effect !== 'done') lane.fence = runner.writer.fence();
    advance(lane, runner);
  }

  /** True: what ended before the head in its lane is not acknowledged; the head is in line again when it is. */
  function fenced(entry: Ready): boolean {
    const { lane, runner } = entry;
    if (runner.writer.acknowledged(lane.fence)) return false;
    runner.writer.written().then((mine) => { if (mine && !lane.dead) offer(entry); }).catch(ports.fail);
    return true;
  }

  function count(ending: Ending): void {
    const { delivery } = ending.task;
    if (ending.repeated !== undefined) return;
    ports.metrics.end(ports.name, delivery.operation, ending.state, ending.code ?? '');
    if (ending.state === 'delivered') ports.metrics.latency.observe({ destination: ports.name }, Math.max(0, ports.clock.now() - delivery.acceptedAt) / 1000);
    else if (ending.deadLetter) ports.logger.warn({ destination: ports.name, event: delivery.eventId, code: ending.code, state: ending.state }, 'delivery ended undelivered');
  }

  /** The head is done with: the next of the lane may go. */
  function advance(lane: Lane, runner: PartitionRunner): void {
    const head = lane.queue.shift()!;
    if (head.parkedOffset >= 0) runner.parking.headEnded(lane, head);
    runner.release(lane);
  }

  function later(lane: Lane, runner: PartitionRunner, ms: number, over?: () => void): void {
    if (lane.dead) return over?.();
    if (over === undefined && makesWay(lane, ms)) return park(lane, runner, ms);
    const timer = ports.clock.setTimer(() => {
      over?.();
      delayed.delete(lane);
      if (!lane.dead) inLine(lane, runner);
    }, ms);
    const since = ports.clock.monotonic();
    if (over === undefined && ms > wayMs) delayed.set(lane, { lane, runner, since, timer, due: since + ms, credential: ports.destination()?.config });
  }

  /** The head is a use that cannot go for so long, and what restricts is behind it: that waits for no quota and no backoff of a use (I3). */
  function makesWay(lane: Lane, ms: number): boolean {
    const since = lane.queue[0]!.delivery.kind === 'restrict' ? undefined : restrictSince(lane);
    return since !== undefined && !lane.dead && (ms > wayMs || ports.clock.now() - since > wayMs) && held() > 0;
  }

  /** To the parked topic, where what restricts goes first and each use before it is decided anew. */
  const park = (lane: Lane, runner: PartitionRunner, ms: number): void => runner.parking.park(lane, ports.clock.now() + ms, 'restrict-first');

  /** Something that restricts came behind a head that waits. */
  function hurry(lane: Lane, runner: PartitionRunner): void {
    const wait = delayed.get(lane);
    if (heads.raise(lane)) {
      if (!pumping && !gathering) pump();
    } else if (wait !== undefined && !lane.dead) {
      const left = wait.due - ports.clock.monotonic();
      if (!makesWay(lane, left)) return;
      delayed.delete(lane);
      ports.clock.clearTimer(wait.timer);
      park(lane, runner, left);
    }
  }

  const handlers: ConsumerHandlers = {
    async assigned(parts: readonly Assignment[]) {
      const opened = parts.map((part) => createPartitionRunner(ports, part, pace, { ready: inLine, restrict: hurry, end: count, together }));
      for (const runner of opened) partitions.set(runner.partition, runner);
      if (partitions.size === 0) standing.forget();
      ports.quota.shareChanged(ports.clock.monotonic());
      // Not waited for: a ledger may be longer to read than a handler may take. Nothing is called before it is read.
      for (const runner of opened) runner.open();
    },
    async revoked(parts, reason) {
      // A lease that ran out unnoticed: others may have called on this instance's part since.
      if (reason === 'lost') ports.quota.lost(ports.clock.monotonic());
      const going = parts.map((p) => partitions.get(p.partition)).filter((r) => r !== undefined);
      const closing = Promise.all(going.map((runner) => runner.close(reason)));
      // A destination that is off looks at nothing, and would keep what each rebalance leaves behind.
      heads.drop();
      leaving.drop(gone);
      for (const [lane, { timer }] of delayed) {
        if (!lane.dead) continue;
        delayed.delete(lane);
        ports.clock.clearTimer(timer);
      }
      await closing;
      for (const runner of going) if (partitions.get(runner.partition) === runner) partitions.delete(runner.partition);
      // After a rebalance it may have them again in a moment.
      if (partitions.size === 0 && reason !== 'rebalance') standing.forget();
      ports.quota.shareChanged(ports.clock.monotonic());
    },
    batch(batch: RecordBatch) {
      partitions.get(batch.partition)!.accept(batch);
    },
    failed: ports.fail,
  };

  return {
    handlers,
    changed() {
      leaving.comeBack(0);
      pump();
    },
    sweep,
    credentialChanged() {
      standing.credentialChanged();
      room.renewed(ports.destination()?.config);
      pump();
    },
    asSecond,
    oldestAsked: () => Math.min(...[...partitions.values()].map((runner) => runner.oldestAsked())),
    held,
    health: standing.health,
    status: () => ({ breaker: standing.breaker().state, reason: standing.breaker().reason, inFlight: inFlight.count(), ready: heads.size(), parked: parked() }),
  };
}
