import { failpoint } from '@weir/failpoint';
import { expiringShare, isPassing } from '@weir/pipeline';
import type { LogRecord, OutRecord } from '@weir/log';
import { createAlarm } from './alarm.ts';
import { leftOfParked, type KeyedPut } from './departure.ts';
import type { Ending } from './ends.ts';
import { createLane, createParked, dueOf, firstLine, forgetHead, dueReason, isQuotaWait, lineFor, nextLine, waitsAs, type Lane, type Line, type Parked, type QuotaWait } from './lane.ts';
import { ledgerKeys } from './ledger.ts';
import { goAhead } from './overtake.ts';
import { createMarkWriter, type Mark } from './mark-writer.ts';
import { loadParked } from './park-load.ts';
import { nameOwner } from './owners.ts';
import { createParkedRecords } from './parked-records.ts';
import type { DestinationPorts } from './ports.ts';
import { createSleepers } from './sleepers.ts';
import { createSlots } from './slots.ts';
import type { DeliveryValue, EndValue, Task } from './types.ts';

interface Context {
  readonly ports: DestinationPorts;
  readonly partition: number;
  readonly epoch: number;
  createTask(delivery: DeliveryValue, record: LogRecord, offset: number, parkedOffset: number, queuedAt: number): Task;
  /** Their offsets on the dispatch topic may be committed. */
  finished(tasks: readonly Task[]): void;
  applyLedger(records: readonly OutRecord[], keys: readonly string[], offsets: readonly number[]): void;
  endOf(key: string): EndValue | undefined;
  /** The ends that tell a repetition of these are known when it resolves. */
  reach(tasks: readonly Task[]): Promise<void> | undefined;
  /** The lane of a subject; one that sleeps is in hand again. */
  laneOf(subject: string): Lane;
  /** Nobody has the lane in hand any more. */
  forget(lane: Lane): void;
  offer(lane: Lane): void;
  /** Something that restricts waits behind a head that is loaded. */
  hurry(lane: Lane): void;
  /** Ends a waiting delivery without a call. */
  end(ending: Ending): void;
  /** Resolves when every end up to now is acknowledged; false: the partition has another owner. */
  written(): Promise<boolean>;
}

/**
 * Subjects in trouble. Order of writes: records on weir.parked.<destination>, then the marker in the ledger,
 * then the commit; a crash in between repeats records, and a repeated record finds its end in the ledger.
 * While a marker stands, everything of the subject goes behind it; what restricts goes first of what waits. A new owner marks what it finds under keys of its
 * own before it takes records: an earlier owner that lifts what it knew as empty must not hide what came since.
 *
 * In memory are the subjects that somebody has in hand, and of those whose head may be tried so many that calls find enough;
 * all others sleep in a local table (sleepers.ts) until they are due, something comes for them, or their marker gets old.
 */
export interface Parking {
  /** After an assignment: find the marked subjects and what of them is unfinished. */
  load(): Promise<void>;
  /** The lane of a subject that sleeps, in hand from now on; undefined = it does not. */
  rouse(subject: string): Lane | undefined;
  /** Park the head of the lane and everything behind it until `due` (ms since the epoch). */
  park(lane: Lane, due: number, reason: string): void;
  behind(lane: Lane, task: Task): void;
  /** Its head has one of the slots that others wait for, who may wait for something else. */
  crowds(lane: Lane, waits?: QuotaWait): boolean;
  /** The parked head ended: load the next, or lift the marker. */
  headEnded(lane: Lane, head: Task): void;
  /** The lane has no record in hand: wait until due, load the head, or lift the marker. */
  next(lane: Lane): void;
  count(): number;
  /** When the oldest parked record was parked, ms; undefined = none. */
  oldest(): number | undefined;
  /** Markers for the next owner of what these lanes, and those that sleep, have parked, where nothing is open any more (departure.ts). Some at a time, `left` with the first. */
  forNext(lanes: Iterable<Lane>, left?: readonly KeyedPut[]): Iterable<readonly KeyedPut[]>;
  /** Write markers again that are older than half a dedupe window: a take-over looks for them in one window. What its topic is about to lose is in hand from then on, due or not. */
  renew(): void;
  drained(): Promise<void>;
  close(): void;
}

/** Of subjects that sleep, renewed in one go. */
const maxRenewed = 500;

export function createParking(context: Context): Parking {
  const { ports, partition } = context;
  let owner = nameOwner(ports, context.epoch);
  const write = createMarkWriter({ ports, topic: ports.topics.ledger(ports.name), partition, applyLedger: context.applyLedger });
  const records = createParkedRecords({ ports, partition, createTask: context.createTask, closed: () => closed });
  const sleepers = createSleepers(ports.parkedTable, partition);
  const running = new Set<Promise<void>>();
  let closed = false;
  let loading = true;
  /** Parked lanes that do not sleep, and those of them with a head in hand. */
  const awake = new Set<Lane>();
  const slots = createSlots(() => ports.window().heads);
  let count = 0;
  let stays = 0;
  const wakeSoon = (): void => spawn(() => Promise.resolve().then(wake));
  const alarm = createAlarm(ports.clock, wakeSoon);

  function spawn(work: () => Promise<void>): void {
    const promise = work().catch((error: unknown) => {
      // Of a partition that is another one's nothing is missed.
      if (!closed || !isPassing(error)) ports.fail(error);
    }).finally(() => running.delete(promise));
    running.add(promise);
  }

  const keyFor = (subject: string): string => ledgerKeys.park(owner, stays++, subject);

  function markOf(lane: Lane): Mark {
    const parked = lane.parked!;
    const now = ports.clock.now();
    parked.markedAt = now;
    parked.markedFrom = firstLine(parked).offsets[0]!;
    // A head that may be called at once is due now: a new owner takes it for called.
    const { offsets, due, reason, attempts, maybeSince } = firstLine(parked);
    return [parked.key, { subject: lane.subject, fromOffset: offsets[0]!, due: due === 0 ? now : due, reason: parked.saysDue ? dueReason : reason, attempts, maybeSince, since: parked.since, restrictCalledSince: parked.spared ? parked.restricts.maybeSince : -1 }];
  }

  const mark = (lane: Lane): Promise<void> => write([markOf(lane)]);

  /**
   * What a marker does not tell of any more nobody looks for: it must have ended in the ledger first, and been told. False: the
   * partition has another owner by now.
   */
  const mayMark = async (parked: Parked): Promise<boolean> => nextLine(parked) === undefined || firstLine(parked).offsets[0]! <= parked.markedFrom || await context.written();

  /** The head may be called from now on, of which the marker says that nobody has, or that it waits: the next owner's clock may say that it waits still. Under another key: what it said before must not come back over it by a request that is written late. */
  function markDue(lane: Lane, parked: Parked, line: Line): Promise<void> {
    const before = parked.key;
    parked.key = keyFor(lane.subject);
    parked.spared = false;
    parked.saysDue = line === firstLine(parked);
    if (isQuotaWait(line.reason)) line.reason = '';
    line.due = Math.min(line.due, ports.clock.now());
    return write([markOf(lane), [before, null]]);
  }

  /** Of a partition that goes, what is parked at its end is counted by the next owner. */
  function enter(): void {
    if (closed) return;
    count++;
    ports.metrics.parked.inc({ destination: ports.name });
  }

  function leave(): void {
    if (closed) return;
    count--;
    ports.metrics.parked.dec({ destination: ports.name });
  }

  function leaveAll(): void {
    if (count > 0) ports.metrics.parked.dec({ destination: ports.name }, count);
    count = 0;
  }

  /** When its topic is about to lose the head of the line, ms: it must be looked at then, due or not. What has an older one before it is looked at when it is due. */
  const expiresAt = (parked: Parked, line: Line): number => (line === firstLine(parked) ? parked.since + ports.retention.parkedMs() * expiringShare : Number.POSITIVE_INFINITY);

  function giveBack(lane: Lane): void {
    if (slots.giveBack(lane)) wakeSoon();
  }

  const wakeAt = (at: number): void => alarm.in(at - ports.clock.now());

  /** Those that are due are in hand from now on, as many as there are slots; for the next there is a timer. */
  function wake(): void {
    if (closed || loading) return;
    const now = ports.clock.now();
    for (const waits of ['restrict', 'use', 'empty', ...sleepers.quotas()] as const) {
      const due = sleepers.due(waits, now, slots.free(waits));
      for (const subject of due) next(context.laneOf(subject));
      if (slots.free(waits) <= 0) slots.starve();
      else wakeAt(sleepers.firstDue(waits));
    }
  }

  /** Until its head is due, or there is a slot for it. */
  function rest(lane: Lane, parked: Parked, due: number): void {
    parked.resting = true;
    if (parked.pending > 0) return;
    sleepers.put(lane.subject, { parked, fence: lane.fence });
    awake.delete(lane);
    context.forget(lane);
    if (due > ports.clock.now()) wakeAt(due);
    else slots.starve();
  }

  /** The lane has no record in hand: wait until the head of its line is due, load it, or lift the marker. */
  function next(lane: Lane): void {
    const parked = lane.parked!;
    if (closed || lane.dead) return;
    giveBack(lane);
    lane.busy = true;
    parked.resting = false;
    const line = nextLine(parked);
    if (line === undefined) {
      parked.resting = parked.pending > 0;
      if (!parked.resting && slots.take(lane, 'empty')) spawn(() => lift(lane));
      return;
    }
    const now = ports.clock.now();
    const due = dueOf(parked, line);
    if ((expiresAt(parked, line) <= now && slots.take(lane, 'expiring')) || (due <= now && slots.take(lane, waitsAs(parked, line)))) spawn(() => loadHead(lane, parked, line));
    else rest(lane, parked, due);
  }

  async function loadHead(lane: Lane, parked: Parked, line: Line): Promise<void> {
    const task = await load(parked, line.offsets[0]!);
    if (closed || lane.dead) return;
    if (line === firstLine(parked)) {
      parked.since = task.record.timestamp;
      // It was looked at for the age of one before it.
      if (Math.min(dueOf(parked, line), expiresAt(parked, line)) > ports.clock.now()) return next(lane);
    }
    if (line === parked.restricts && !(await goAhead({ ...context, load: (offset) => load(parked, offset), mark: () => mark(lane), gone: () => closed || lane.dead }, parked, task))) return;
    if (parked.spared || isQuotaWait(line.reason) || (!parked.saysDue && line === firstLine(parked))) {
      if (!await mayMark(parked) || closed || lane.dead) return;
      await markDue(lane, parked, line);
    }
    // What was known when it was read may have been forgotten meanwhile.
    await context.reach([task]);
    if (closed || lane.dead) return;
    lane.queue.push(task);
    lane.busy = false;
    context.offer(lane);
  }

  /** A parked record as a task, with what is known of it where it is the head of its line. */
  async function load(parked: Parked, offset: number): Promise<Task> {
    const task = await records.get(offset);
    await context.reach([task]);
    const { offsets, attempts, readBacks, notApplied, last, trouble, batchLimit, maybeSince } = lineFor(parked, task.delivery);
    // Of one that nobody has had in hand since it was parked, its record knows whether an earlier owner may have called it, and since when it was in trouble.
    if (offsets[0] === offset) Object.assign(task, { attempts, readBacks, notApplied, last, trouble: trouble ?? task.trouble, batchLimit, maybeSince: maybeSince > 0 || attempts > 0 ? maybeSince : task.maybeSince });
    return task;
  }

  async function lift(lane: Lane): Promise<void> {
    const parked = lane.parked!;
    parked.held = [];
    // Whoever finds no marker looks for nothing on the parked topic: what was there must have ended in the ledger first.
    if (!await context.written()) return;
    await write([[parked.key, null]]);
    giveBack(lane);
    lane.parked = undefined;
    awake.delete(lane);
    leave();
    lane.restricting ||= parked.held.length > 1;
    lane.queue.push(...parked.held);
    lane.busy = false;
    if (lane.queue.length > 0) context.offer(lane);
    else context.forget(lane);
  }

  return {
    async load() {
      leaveAll();
      owner = nameOwner(ports, context.epoch);
      await loadParked({ ports, partition, sleepers, keyFor, isOwn: (key) => key.startsWith(ledgerKeys.parkOwner(owner)), write, enter, decode: records.decode, reach: context.reach, endOf: context.endOf, end: context.end, closed: () => closed });
      loading = false;
      if (count === 0) return;
      this.renew();
      wake();
    },

    rouse(subject) {
      const found = loading || closed ? undefined : sleepers.take(subject);
      if (found === undefined) return undefined;
      const lane = createLane(subject, found.fence);
      lane.busy = true;
      lane.parked = found.parked;
      // What is known of a head is of one that is there.
      if (found.parked.uses.offsets.length === 0) forgetHead(found.parked.uses);
      found.parked.resting = true;
      awake.add(lane);
      return lane;
    },

    park(lane, due, reason) {
      const tasks = lane.queue.splice(0);
      const head = tasks[0]!;
      const { attempts, readBacks, notApplied, last, trouble, batchLimit, maybeSince } = head;
      lane.busy = true;
      if (head.parkedOffset >= 0) {
        Object.assign(lineFor(lane.parked!, head.delivery), { due, reason, attempts, readBacks, notApplied, last, trouble, batchLimit, maybeSince });
        lane.parked!.saysDue = false;
        spawn(async () => {
          if (!await mayMark(lane.parked!)) return;
          await mark(lane);
          next(lane);
        });
        return;
      }
      const parked = createParked(keyFor(lane.subject), ports.clock.now());
      Object.assign(lineFor(parked, head.delivery), { due, reason, attempts, readBacks, notApplied, last, trouble, batchLimit, maybeSince });
      parked.pending = tasks.length;
      lane.parked = parked;
      awake.add(lane);
      enter();
      spawn(async () => {
        const [offsets, mine] = await Promise.all([records.append(tasks), context.written()]);
        // What ended before it in its lane must have its end first: a new owner would take it up behind what is parked here.
        if (!mine) return;
        // Arrivals appended behind this call were acknowledged behind it: the head's offsets come first.
        for (let i = tasks.length - 1; i >= 0; i--) lineFor(parked, tasks[i]!.delivery).offsets.unshift(offsets[i]!);
        parked.pending -= tasks.length;
        failpoint('dispatcher.parked-written');
        await mark(lane);
        failpoint('dispatcher.marker-written');
        context.finished(tasks);
        next(lane);
      });
    },

    behind(lane, task) {
      const parked = lane.parked!;
      if (parked.held !== undefined) {
        parked.held.push(task);
        return;
      }
      parked.pending++;
      spawn(async () => {
        const [offset] = await records.append([task]);
        const line = lineFor(parked, task.delivery);
        line.offsets.push(offset!);
        parked.pending--;
        context.finished([task]);
        if (parked.resting) next(lane);
        else if (line === parked.restricts && lane.queue.length > 0) context.hurry(lane);
      });
    },

    crowds: ({ parked }, waits) => (parked?.slot === 'use' || isQuotaWait(parked?.slot ?? '')) && parked!.slot !== waits && slots.free(parked!.slot!) <= 0,

    headEnded(lane, head) {
      const line = lineFor(lane.parked!, head.delivery);
      line.offsets.shift();
      forgetHead(line);
    },

    next,

    count: () => count,
    oldest() {
      let oldest = sleepers.oldest();
      for (const { parked } of awake) oldest = Math.min(oldest ?? parked!.since, parked!.since);
      return oldest;
    },
    forNext: (lanes, left) => leftOfParked(ports, sleepers, lanes, left),
    renew() {
      if (closed || loading) return;
      const now = ports.clock.now();
      const before = now - ports.dedupeWindowMs('') / 2;
      for (const lane of awake) if (lane.parked!.held === undefined && nextLine(lane.parked!) !== undefined && lane.parked!.markedAt < before) spawn(async () => { if (await mayMark(lane.parked!) && nextLine(lane.parked!) !== undefined) await mark(lane); });
      for (const subject of sleepers.marked(before, maxRenewed)) {
        const lane = context.laneOf(subject);
        lane.parked!.resting = false;
        spawn(async () => {
          if (!await mayMark(lane.parked!)) return;
          await mark(lane);
          next(lane);
        });
      }
      const lost = now - ports.retention.parkedMs() * expiringShare;
      for (const subject of sleepers.parkedBefore(lost, slots.free('expiring'))) next(context.laneOf(subject));
    },
    async drained() {
      while (running.size > 0) await Promise.all(running);
    },
    close() {
      leaveAll();
      closed = true;
      alarm.stop();
    },
  };
}
