import { recordFault } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import { expiringBefore, isPassing, patiently, soon } from '@weir/pipeline';
import type { Assignment, LogRecord, RecordBatch } from '@weir/log';
import { createCommits } from './commits.ts';
import type { EndPace } from './end-pace.ts';
import { createEndWriter, type Ending, type EndWriter } from './ends.ts';
import { createLane, type Lane, type QuotaWait } from './lane.ts';
import { createParking, type Parking } from './parking.ts';
import type { DestinationPorts } from './ports.ts';
import { readDelivery } from './read-delivery.ts';
import { taskOf } from './task.ts';
import { createTenure } from './tenure.ts';
import { deadLetterUndecodable } from './undecodable.ts';
import type { DeliveryValue, Task } from './types.ts';

/** Records between two looks at the clock. */
const clockEvery = 8;

/**
 * One owned partition of weir.dispatch.<destination>: reads the ledger before anything else, writes an intent
 * before the first call of a batch, hands lanes to the destination, and commits the contiguous finished prefix.
 */
export interface PartitionRunner {
  readonly partition: number;
  readonly epoch: number;
  readonly writer: EndWriter;
  readonly parking: Parking;
  /** Begins to load ledger and parked subjects; nothing is called before that is done. */
  open(): void;
  accept(batch: RecordBatch): void;
  lane(subject: string): Lane;
  /** The lane's head is done (ended, parked, or returned): hand out the next. */
  release(lane: Lane): void;
  /** The lane's head has a place that others wait for: in the window, which is full, or, with another reason than `waits`, among the parked heads in hand. */
  holdsUp(lane: Lane, waits?: QuotaWait): boolean;
  callStarted(): void;
  callEnded(): void;
  /** True when this offset may have been called by an earlier owner and its outcome may be missing. */
  coveredBefore(offset: number): boolean;
  /** True when no earlier owner can have called for this offset: read first under this assignment, and not under an earlier one's intent. */
  neverCalledBefore(offset: number): boolean;
  /** Stop starting calls; unless lost, wait for the calls in flight and commit what is finished. */
  close(reason: 'rebalance' | 'lost' | 'close'): Promise<void>;
  readonly closed: () => boolean;
  /** Something nobody declared: nothing of it is begun any more, and the process stops. */
  fail(error: unknown): void;
  /** Tells how old what waits is, and renews markers. True: its topics are about to lose some of it. */
  sweep(): boolean;
  /** The time since which ends must be known for what is in its lanes, ms; Infinity = nothing is. */
  oldestAsked(): number;
  /** When it was opened, ms since the epoch: an earlier owner called before that. */
  openedAt(): number;
}

/** What a partition tells its destination. */
export interface PartitionEvents {
  /** A lane has a head that nobody works on. */
  ready(lane: Lane, runner: PartitionRunner): void;
  /** Something that restricts is behind a head that waits. */
  /** Many of these in one go. */
  together(offers: () => void): void;
  restrict(lane: Lane, runner: PartitionRunner): void;
  /** Something that waited has ended. */
  end(ending: Ending): void;
}

/** @param pace of the ends of all partitions of the destination */
export function createPartitionRunner(ports: DestinationPorts, assignment: Assignment, pace: EndPace, on: PartitionEvents): PartitionRunner {
  const { partition, epoch, topic } = assignment;
  const lanes = new Map<string, Lane>();
  const inbox: RecordBatch[] = [];
  /** Records being dead-lettered. */
  const asides = new Set<Promise<void>>();
  let working: Promise<void> | undefined;
  /** Ledger and parked subjects are known when it resolves, unless the assignment ended first. */
  let opened: Promise<void> = Promise.resolve();
  let loaded = false;
  let closed = false;
  let broken = false;
  const givenUp = Promise.withResolvers<undefined>();
  let inFlight = 0;
  let onIdle: (() => void) | undefined;
  let openedAt = 0;
  const commits = createCommits(ports, assignment, () => closed);
  const tenure = createTenure({ ports, assignment, pace, closed: () => closed, unlessGivenUp, applyOwn: (records, keys, offsets) => writer.applyOwn(records, keys, offsets) });
  const writer = createEndWriter({ ...ports, fail }, partition, { name: tenure.owner, owned: tenure.owned, gone: () => closed }, pace, commits.finished);

  /** Nothing is begun from here on. */
  function giveUp(): void {
    closed = true;
    givenUp.resolve(undefined);
    for (const lane of lanes.values()) lane.dead = true;
    parking.close();
  }

  /** The process ends, which takes a moment: nothing is begun meanwhile that would be done without what could not be read. */
  function fail(error: unknown): void {
    broken = true;
    giveUp();
    ports.fail(error);
  }

  /** Work on the log that may take longer than the group waits for a partition: who gives that up does not wait for it, and it ends by itself. Undefined: it was given up. */
  function unlessGivenUp<T>(work: Promise<T>): Promise<T | undefined> {
    return Promise.race([work, givenUp.promise]);
  }

  function reach(tasks: readonly Task[]): Promise<void> | undefined {
    const ask = (): Promise<void> | undefined => ports.takeover.reach(partition, oldestAsked(tasks), () => closed);
    let reading = ask();
    if (reading === undefined) return undefined;
    return unlessGivenUp(patiently(ports.clock, () => closed, async () => {
      const now = reading ?? ask();
      reading = undefined;
      await now;
    }));
  }

  async function open(): Promise<void> {
    failpoint('dispatcher.taking-over');
    openedAt = ports.clock.now();
    while (!closed && !loaded) {
      try {
        if (!await tenure.begin()) return giveUp();
        await unlessGivenUp(writer.writeAgain());
        await parking.load();
        loaded = true;
      } catch (error) {
        // Brokers that are away for a while are no end of the process: everything of it may be done again.
        if (!isPassing(error)) throw error;
        if (!closed) await soon(ports.clock);
      }
    }
  }

  async function work(): Promise<void> {
    await opened;
    while (inbox.length > 0 && !closed) {
      const batches = inbox.splice(0);
      const tasks: Task[] = [];
      await ports.turns.next();
      let taken = 0;
      for (const batch of batches) for (const record of batch.records) {
        if (closed) return;
        const waits = take(record, tasks);
        if (waits !== undefined) await waits;
        if (++taken % clockEvery === 0 && ports.turns.over()) await ports.turns.next();
      }
      if (closed) return;
      if (tasks.length > 0) await tenure.intend(commits.upTo(), batches[batches.length - 1]!.nextOffset);
      await reach(tasks);
      if (closed) return;
      on.together(() => { for (const task of tasks) enqueue(task); });
    }
  }

  function takeUp(): void {
    working ??= work().catch(fail).finally(() => {
      working = undefined;
      // What came between its last look and now must not wait for the next batch.
      if (inbox.length > 0 && !closed) takeUp();
    });
  }

  /** The time since which ends must be known to tell a repetition of one of these. */
  function oldestAsked(tasks: readonly Task[]): number {
    let oldest = Number.POSITIVE_INFINITY;
    for (const { delivery } of tasks) oldest = Math.min(oldest, delivery.acceptedAt - ports.dedupeWindowMs(delivery.source));
    return oldest;
  }

  /** Decode one record into a task; what cannot be read for its bytes is dead-lettered with them, and whatever else is in the way is waited for or ends the process. Undefined = nothing is waited for. */
  function take(record: LogRecord, tasks: Task[]): Promise<void> | undefined {
    // Of an owner that asked where its topic ends, see tenure.ts.
    if (record.key === null && record.value === null) {
      commits.done(record.offset);
      return undefined;
    }
    const made = (delivery: DeliveryValue): void => { tasks.push(createTask(delivery, record, record.offset, -1, record.timestamp)); };
    try {
      const read = readDelivery(ports, record.value, () => closed);
      if (read instanceof Promise) return Promise.race([read, givenUp.promise]).then((delivery) => { if (delivery !== undefined) made(delivery); }).catch((error: unknown) => { setAside(record, error); });
      made(read);
    } catch (error) {
      setAside(record, error);
    }
    return undefined;
  }

  function setAside(record: LogRecord, error: unknown): void {
    if (recordFault(error) === undefined) throw error;
    // Not waited for: its neighbours of the batch are not held up by it.
    const aside: Promise<void> = deadLetterUndecodable(ports, partition, record, error).then(() => commits.done(record.offset)).catch(fail).finally(() => asides.delete(aside));
    asides.add(aside);
  }

  /** For the next owner, when nothing is open any more. */
  async function leave(): Promise<void> {
    if (!loaded || broken || !writer.acknowledged(writer.place())) return; // What is in hand may not be all that was called.
    const tasks = [...lanes.values()].flatMap(({ queue, parked }) => [...queue, ...parked?.held ?? []]);
    await tenure.leave(commits.upTo(), tasks, (intents) => parking.forNext(lanes.values(), intents));
  }

  function createTask(delivery: DeliveryValue, record: LogRecord, offset: number, parkedOffset: number, queuedAt: number): Task {
    return taskOf(ports.keys, delivery, record, { offset, parkedOffset, queuedAt, maybeSince: parkedOffset < 0 ? tenure.maybeSince(offset) : 0 });
  }

  function laneOf(subject: string): Lane {
    let lane = lanes.get(subject);
    if (lane === undefined) {
      lane = parking.rouse(subject) ?? createLane(subject, writer.fence());
      lanes.set(subject, lane);
    }
    return lane;
  }

  function enqueue(task: Task): void {
    const lane = laneOf(task.subject);
    if (lane.parked !== undefined) parking.behind(lane, task);
    else {
      lane.queue.push(task);
      if (!lane.busy) offer(lane);
      else if (task.delivery.kind === 'restrict') hurry(lane);
    }
  }

  const hurry = (lane: Lane): void => { lane.restricting = true; on.restrict(lane, runner); };

  function offer(lane: Lane): void {
    if (lane.busy || lane.dead || lane.queue.length === 0) return;
    lane.busy = true;
    on.ready(lane, runner);
  }

  const parking = createParking({
    ports: { ...ports, fail }, partition, epoch,
    createTask,
    finished: commits.finished,
    applyLedger: (records, keys, offsets) => writer.applyOwn(records, keys, offsets),
    endOf: (key) => writer.endOf(key),
    reach, laneOf, offer, hurry, forget: (lane) => { lanes.delete(lane.subject); },
    end(ending) {
      on.end(ending);
      writer.push(ending);
      const lane = lanes.get(ending.task.subject);
      if (lane !== undefined) lane.fence = writer.fence();
    },
    written: () => writer.written(),
  });

  const runner: PartitionRunner = {
    partition, epoch, writer, parking,
    open() {
      opened = open().catch(fail);
    },
    accept(batch) {
      inbox.push(batch);
      commits.read(batch);
      takeUp();
    },
    lane: laneOf,
    release(lane) {
      lane.busy = false;
      if (lane.queue.length > 0) offer(lane);
      else if (lane.parked !== undefined) parking.next(lane);
      else lanes.delete(lane.subject);
    },
    holdsUp: (lane, waits) => (lane.queue[0]!.parkedOffset < 0 ? commits.full() : parking.crowds(lane, waits)),
    callStarted() { inFlight++; },
    callEnded() {
      inFlight--;
      if (inFlight === 0) onIdle?.();
    },
    neverCalledBefore: tenure.neverCalledBefore,
    coveredBefore: tenure.coveredBefore,
    async close(reason) {
      giveUp();
      // Nothing is gathered from here on.
      void writer.drained();
      commits.leave();
      if (reason === 'lost') return;
      await opened;
      if (inFlight > 0) await new Promise<void>((resolve) => { onIdle = resolve; });
      await working;
      await Promise.all(asides);
      await parking.drained();
      await writer.drained();
      await leave().catch(fail);
      await commits.drained();
      lanes.clear();
      inbox.length = 0;
    },
    closed: () => closed,
    fail,
    sweep() {
      parking.renew();
      const { retention } = ports;
      const waiting = [[topic, commits.oldest(), retention.dispatchMs()], [ports.topics.parked(ports.name), parking.oldest(), retention.parkedMs()]] as const;
      for (const [of, oldest] of waiting) retention.oldest(of, partition, oldest);
      return waiting.some(([, oldest, retentionMs]) => oldest !== undefined && oldest <= expiringBefore(retentionMs, ports.clock.now()));
    },
    oldestAsked() {
      let oldest = Number.POSITIVE_INFINITY;
      for (const { queue, parked } of lanes.values()) oldest = Math.min(oldest, oldestAsked(queue), oldestAsked(parked?.held ?? []));
      return oldest;
    },
    openedAt: () => openedAt,
  };
  return runner;
}
