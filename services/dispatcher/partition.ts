import { recordFault, WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import { expiringBefore, isPassing, patiently, soon } from '@weir/pipeline';
import type { Assignment, LogRecord, OutRecord, RecordBatch } from '@weir/log';
import { createCommits } from './commits.ts';
import { writeDeparture } from './departure.ts';
import type { EndPace } from './end-pace.ts';
import { createEndWriter, type Ending, type EndWriter } from './ends.ts';
import { createLane, type Lane, type QuotaWait } from './lane.ts';
import { coveredOnLeaving, createCalledSince, intentPuts, leavingPuts } from './ledger.ts';
import { sinceEver, type IntentValue } from './ledger-store.ts';
import { becomeOwner, isNone, ownerKey } from './owners.ts';
import { createParking, type Parking } from './parking.ts';
import type { DestinationPorts } from './ports.ts';
import { readDelivery } from './read-delivery.ts';
import { taskOf } from './task.ts';
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
  let before: IntentValue | undefined;
  /** Offset of its mark on the ledger, then of its last intent: the next is acknowledged behind it. */
  let writtenAt = -1;
  let openedAt = 0;
  /** Intents written by this owner, and since when it may have called what it has in hand. */
  let intents = 0;
  const calledSince = createCalledSince();
  const commits = createCommits(ports, assignment, () => closed);
  // Not the instance alone: one that was killed and is back is another owner.
  const owner = `${ports.instance}/${epoch}/${Math.floor(ports.clock.random() * 2 ** 32).toString(36)}`;
  const writer = createEndWriter({ ...ports, fail }, partition, { name: owner, owned, gone: () => closed }, pace, commits.finished);

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
  const unlessGivenUp = <T>(work: Promise<T>): Promise<T | undefined> => Promise.race([work, givenUp.promise]);

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

  /** Whether the assignment holds. A lease that ran out is renewed or lost within the next heartbeat, which is waited for. */
  async function owned(): Promise<boolean> {
    for (;;) {
      if (ports.consumer().holds(topic, partition, epoch)) return true;
      if (!ports.consumer().assignments().some((a) => a.topic === topic && a.partition === partition && a.epoch === epoch)) return false;
      await new Promise<void>((resolve) => { ports.clock.setTimer(resolve, 20); });
    }
  }

  function takeOver(): Promise<boolean> {
    return becomeOwner(owner, {
      load: (atLeast) => unlessGivenUp(ports.takeover.load(partition, assignment.position, () => closed, atLeast)),
      current: () => ports.ledger.owner(partition),
      read: () => ports.ledger.position(partition),
      owned: async () => !closed && await owned(),
      async append(mark) {
        const calledTo = await calledBeforeLoss();
        if (calledTo === undefined) return undefined;
        const value = ports.serde.encode('weir.internal.LedgerOwner', { partition, ...mark, at: ports.clock.now(), calledTo });
        const offsets = await unlessGivenUp(ports.appender.append(ports.topics.ledger(ports.name), [{ partition, key: Buffer.from(ownerKey(partition, mark)), value }]));
        writtenAt = offsets?.[0] ?? -1;
        return offsets?.[0];
      },
    });
  }

  async function open(): Promise<void> {
    failpoint('dispatcher.taking-over');
    openedAt = ports.clock.now();
    while (!closed && !loaded) {
      try {
        if (!await takeOver()) giveUp();
        if (closed) return;
        before = ports.ledger.intent(partition, assignment.position);
        if (before?.at === sinceEver) ports.logger.error({ topic: ports.topics.ledger(ports.name), partition, committed: assignment.position, toOffset: before.toOffset }, 'the ledger had no owner, though deliveries were committed: it was deleted and made anew; what waits up to toOffset is taken for perhaps called, and a repetition of what was called before is not recognised');
        await parking.load();
        loaded = true;
      } catch (error) {
        // Brokers that are away for a while are no end of the process: everything of it may be done again.
        if (!isPassing(error)) throw error;
        if (!closed) await soon(ports.clock);
      }
    }
  }

  /**
   * Behind what earlier owners may have called, where a ledger that begins at 0 shows none of them though deliveries are committed:
   * it was deleted and made anew. 0 = it was not. It goes with the mark, so that it is on the ledger as soon as an owner is, and counts
   * where that mark is the first: a leader that was cut off may show less than there is. It is the offset of an empty record, for the end
   * that is told may be an old one. Undefined: the assignment has ended.
   */
  async function calledBeforeLoss(): Promise<number | undefined> {
    if (!isNone(ports.ledger.owner(partition))) return 0;
    const [begin, commits] = await Promise.all([ports.admin.beginningOffsets(ports.topics.ledger(ports.name)), ports.admin.committed(ports.group, topic)]);
    if ((begin.get(partition) ?? 0) > 0 || !commits.has(partition)) return 0;
    return (await unlessGivenUp(ports.appender.append(topic, [{ partition, key: null, value: null }])))?.[0];
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
      if (tasks.length > 0) await writeIntent(batches[batches.length - 1]!.nextOffset);
      await reach(tasks);
      if (closed) return;
      for (const task of tasks) enqueue(task);
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
    // Of an owner that asked where its topic ends, see calledBeforeLoss.
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

  /**
   * Acknowledged before any call of the batch. It covers everything unfinished, also what an earlier owner may have
   * called behind the first batch of this one: the last intent is enough.
   */
  async function writeIntent(batchEnd: number): Promise<void> {
    const toOffset = Math.max(batchEnd, before?.toOffset ?? 0);
    const from = commits.upTo();
    const since = calledSince.next(from, batchEnd, ports.clock.now());
    const at = before !== undefined && before.toOffset > from ? Math.min(before.at, since) : since;
    const written = writeOwn(intentPuts(partition, owner, intents++, encodeIntent({ fromOffset: from, toOffset, at })));
    pace.ride();
    await written;
    failpoint('dispatcher.intent-written');
  }

  const encodeIntent = (covered: IntentValue): Buffer => ports.serde.encode('weir.internal.LedgerIntent', { destination: ports.name, partition, epoch, instance: ports.instance, ...covered });

  async function writeOwn(puts: readonly { readonly key: string; readonly value: Buffer | null }[], patience?: Promise<undefined>): Promise<void> {
    const records = puts.map((put): OutRecord => ({ partition, key: Buffer.from(put.key), value: put.value }));
    const appended = ports.appender.append(ports.topics.ledger(ports.name), records);
    const offsets = await (patience === undefined ? appended : Promise.race([appended, patience]));
    if (offsets === undefined || offsets.length === 0) return;
    if (offsets[0]! <= writtenAt) throw new WeirError('log-fatal', `${ports.topics.ledger(ports.name)}/${partition} took a record at ${offsets[0]}, and the one before it stood at ${writtenAt}: the topic was made anew meanwhile`);
    writtenAt = offsets.at(-1)!;
    writer.applyOwn(records, puts.map(({ key }) => key), offsets);
  }

  /**
   * For the next owner, when nothing is open any more: an intent covers all that was read, and would have it take for called
   * what only waited. It is of this owner's calls alone and true whenever it is written: not waited for long, it spares less when it is late.
   */
  async function leave(): Promise<void> {
    if (!loaded || broken || !writer.acknowledged(writer.place())) return; // What is in hand may not be all that was called.
    const covered = coveredOnLeaving(commits.upTo(), before, [...lanes.values()].flatMap(({ queue, parked }) => [...queue, ...parked?.held ?? []]));
    const intentsLeft = leavingPuts(partition, owner, intents, intents === 0 || covered === undefined ? undefined : encodeIntent(covered));
    await writeDeparture(ports.clock, parking.forNext(lanes.values(), intentsLeft), writeOwn);
  }

  function createTask(delivery: DeliveryValue, record: LogRecord, offset: number, parkedOffset: number, queuedAt: number): Task {
    const maybeSince = parkedOffset < 0 && before !== undefined && offset < before.toOffset ? before.at : 0;
    return taskOf(ports.keys, delivery, record, { offset, parkedOffset, queuedAt, maybeSince });
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
    neverCalledBefore: (offset) => offset >= Math.max(assignment.position, before?.toOffset ?? 0),
    coveredBefore: (offset) => before !== undefined && offset < before.toOffset,
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
