import { failpoint } from '@weir/failpoint';
import { expiringShare, H } from '@weir/pipeline';
import type { Headers, LogRecord, OutRecord } from '@weir/log';
import { WeirError } from '@weir/errors';
import { repeat, type Ending } from './ends.ts';
import { createParked, dueOf, firstLine, forgetHead, lineFor, nextLine, type Lane, type Line, type Parked } from './lane.ts';
import { ledgerKeys, lookUp } from './ledger.ts';
import { goAhead } from './overtake.ts';
import { isPassing, patiently } from './patience.ts';
import type { DestinationPorts } from './ports.ts';
import { createReadAhead } from './read-ahead.ts';
import type { ParkMark } from './ledger-store.ts';
import type { DeliveryValue, EndValue, ParkValue, Task } from './types.ts';

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
  offer(lane: Lane): void;
  /** Something that restricts waits behind a head that is loaded. */
  hurry(lane: Lane): void;
  /** Ends a waiting delivery without a call. */
  end(ending: Ending): void;
  /** Resolves when every end up to now is acknowledged; false: the partition has another owner. */
  written(): Promise<boolean>;
}

/** The markers of one subject as one: everything from the least offset on may be unfinished, the head is that of the furthest (`head`: its offset). */
export function joinMarks(marks: readonly ParkMark[]): ParkMark & { readonly head: number } {
  const ahead = marks.reduce((a, b) => (b.fromOffset > a.fromOffset || (b.fromOffset === a.fromOffset && b.due > a.due) ? b : a));
  const maybe = marks.filter((m) => m.fromOffset === ahead.fromOffset && m.maybeSince > 0).map((m) => m.maybeSince);
  return { ...ahead, head: ahead.fromOffset, fromOffset: Math.min(...marks.map((m) => m.fromOffset)), maybeSince: maybe.length > 0 ? Math.min(...maybe) : 0, since: Math.min(...marks.map((m) => m.since)) };
}

/**
 * Subjects in trouble. Order of writes: records on weir.parked.<destination>, then the marker in the ledger,
 * then the commit; a crash in between repeats records, and a repeated record finds its end in the ledger.
 * While a marker stands, everything of the subject goes behind it; what restricts goes first of what waits. A new owner marks what it finds under keys of its
 * own before it takes records: an earlier owner that lifts what it knew as empty must not hide what came since.
 */
export interface Parking {
  /** After an assignment: find the marked subjects and what of them is unfinished. */
  load(laneOf: (subject: string) => Lane): Promise<void>;
  /** Park the head of the lane and everything behind it until `due` (ms since the epoch). */
  park(lane: Lane, due: number, reason: string): void;
  behind(lane: Lane, task: Task): void;
  /** The parked head ended: load the next, or lift the marker. */
  headEnded(lane: Lane, head: Task): void;
  /** The lane has no record in hand: wait until due, load the head, or lift the marker. */
  next(lane: Lane): void;
  count(): number;
  /** When the oldest parked record was parked, ms; undefined = none. */
  oldest(): number | undefined;
  /** What these lanes have parked and surely had no effect, for the next owner, where nothing is open any more: due in a moment, for what is due already is taken for called. */
  forNext(lanes: Iterable<Lane>): { readonly key: string; readonly value: Buffer }[];
  /** Write markers again that are older than half a dedupe window: a take-over looks for them in one window. */
  renew(): void;
  drained(): Promise<void>;
  close(): void;
}

/** A next owner has taken over by then. If not, it takes what is parked for called, as after a crash. */
const takenOverMs = 60_000;

export function createParking(context: Context): Parking {
  const { ports, partition } = context;
  // Not the instance alone: one that was killed and is back is another owner.
  const owner = `${ports.instance}/${context.epoch}/${Math.floor(ports.clock.random() * 2 ** 32).toString(36)}`;
  const parkedTopic = ports.topics.parked(ports.name);
  const ledgerTopic = ports.topics.ledger(ports.name);
  const ahead = createReadAhead(ports.reader, parkedTopic, partition);
  const timers = new Map<Lane, unknown>();
  const running = new Set<Promise<void>>();
  let closed = false;
  const marked = new Set<Lane>();
  let stays = 0;

  function spawn(work: () => Promise<void>): void {
    const promise = work().catch((error: unknown) => {
      // Of a partition that is another one's nothing is missed.
      if (!closed || !isPassing(error)) ports.fail(error);
    }).finally(() => running.delete(promise));
    running.add(promise);
  }

  function toParked(task: Task): OutRecord {
    const headers: Headers = [...task.record.headers.filter(([name]) => name !== H.dispatched), [H.dispatched, Buffer.from(`${task.offset}:${task.queuedAt}`)]];
    return { partition, key: task.record.key, value: task.record.value, headers };
  }

  const keyFor = (subject: string): string => ledgerKeys.park(owner, stays++, subject);

  async function write(entries: ReadonlyArray<readonly [key: string, value: ParkValue | null]>): Promise<void> {
    const records = entries.map(([key, value]): OutRecord => ({ partition, key: Buffer.from(key), value: value === null ? null : ports.serde.encode('weir.internal.LedgerPark', value) }));
    context.applyLedger(records, entries.map(([key]) => key), await ports.appender.append(ledgerTopic, records));
  }

  function mark(lane: Lane): Promise<void> {
    const parked = lane.parked!;
    const now = ports.clock.now();
    parked.markedAt = now;
    // A head that may be called at once is due now: a new owner takes it for called.
    const { offsets, due, reason, attempts, maybeSince } = firstLine(parked);
    return write([[parked.key, { subject: lane.subject, fromOffset: offsets[0]!, due: due === 0 ? now : due, reason, attempts, maybeSince, since: parked.since }]]);
  }

  function enter(lane: Lane): void {
    // Of a partition that goes, what is parked at its end is counted by the next owner.
    if (closed || marked.has(lane)) return;
    marked.add(lane);
    ports.metrics.parked.inc({ destination: ports.name });
  }

  function leave(lane: Lane): void {
    if (marked.delete(lane)) ports.metrics.parked.dec({ destination: ports.name });
  }

  /** When its topic is about to lose the head of the line, ms: it must be looked at then, due or not. What has an older one before it is looked at when it is due. */
  const expiresAt = (parked: Parked, line: Line): number => (line === firstLine(parked) ? parked.since + ports.retention.parkedMs() * expiringShare : Number.POSITIVE_INFINITY);

  function schedule(lane: Lane, due: number): void {
    timers.set(lane, ports.clock.setTimer(() => {
      timers.delete(lane);
      next(lane);
    }, Math.min(Math.max(0, due - ports.clock.now()), 2 ** 31 - 1)));
  }

  /** The lane has no record in hand: wait until the head of its line is due, load it, or lift the marker. */
  function next(lane: Lane): void {
    const parked = lane.parked!;
    if (closed || lane.dead) return;
    lane.busy = true;
    const line = nextLine(parked);
    if (line === undefined) {
      if (parked.pending === 0) spawn(() => lift(lane));
      else lane.busy = false;
      return;
    }
    const due = Math.min(dueOf(parked, line), expiresAt(parked, line));
    if (due > ports.clock.now()) schedule(lane, due);
    else spawn(() => loadHead(lane, parked, line));
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
    // What was known when it was read may have been forgotten meanwhile.
    await context.reach([task]);
    if (closed || lane.dead) return;
    lane.queue.push(task);
    lane.busy = false;
    context.offer(lane);
  }

  /** A parked record as a task, with what is known of it where it is the head of its line. */
  async function load(parked: Parked, offset: number): Promise<Task> {
    const record = await patiently(ports.clock, () => closed, () => ahead.get(offset));
    if (record === undefined) throw new WeirError('log-out-of-range', `${parkedTopic}/${partition} lost offset ${offset} of a parked delivery before it was sent`, { details: { offset } });
    const task = await decode(record);
    await context.reach([task]);
    const { offsets, attempts, readBacks, last, maybeSince } = lineFor(parked, task.delivery);
    if (offsets[0] === offset) Object.assign(task, { attempts, readBacks, last, maybeSince });
    return task;
  }

  async function decode(record: LogRecord): Promise<Task> {
    if (!ports.serde.known(record.value!)) await ports.serde.prepare(record.value!);
    const delivery = ports.serde.decode(record.value!).value as DeliveryValue;
    if (!ports.serde.known(delivery.payload)) await ports.serde.prepare(delivery.payload);
    const at = record.headers.find(([name]) => name === H.dispatched)?.[1].toString('utf8').split(':') ?? ['-1', '0'];
    return context.createTask(delivery, record, Number(at[0]), record.offset, Number(at[1]));
  }

  async function lift(lane: Lane): Promise<void> {
    const parked = lane.parked!;
    parked.held = [];
    // Whoever finds no marker looks for nothing on the parked topic: what was there must have ended in the ledger first.
    if (!await context.written()) return;
    await write([[parked.key, null]]);
    lane.parked = undefined;
    leave(lane);
    lane.restricting ||= parked.held.length > 1;
    lane.queue.push(...parked.held);
    lane.busy = false;
    context.offer(lane);
  }

  /** What a new owner finds of the marked subjects on the parked topic, by line. */
  async function find(marks: ReadonlyArray<{ readonly subject: string; readonly fromOffset: number; readonly head: number }>, laneOf: (subject: string) => Lane): Promise<void> {
    const end = (await ports.admin.endOffsets(parkedTopic)).get(partition) ?? 0;
    const bySubject = new Map(marks.map((m) => [m.subject, m]));
    await ports.reader.read(parkedTopic, partition, Math.min(...marks.map((m) => m.fromOffset)), end, async (batch) => {
      if (closed) throw new WeirError('log-assignment-stale', `${parkedTopic}/${partition} is another one's`);
      for (const record of batch.records) {
        const subject = record.key?.toString('utf8') ?? '';
        const mark = bySubject.get(subject);
        if (mark === undefined || record.offset < mark.fromOffset) continue;
        const task = await decode(record);
        await context.reach([task]);
        if (closed) throw new WeirError('log-assignment-stale', `${parkedTopic}/${partition} is another one's`);
        const standing = lookUp(task.delivery, task.redrive, task.offset, context.endOf);
        // Its outcome may be missing: no intent covers what is parked. What went to a second vendor may not have been appended there yet: it is looked at once more.
        if (standing.kind === 'ended' && standing.end.state !== 'failed-over') {
          context.end(repeat(task, standing.end));
          continue;
        }
        const parked = laneOf(subject).parked!;
        const line = lineFor(parked, task.delivery);
        // The marker tells of a use, unless it was of this very record: it went ahead, and may have been called since it was parked.
        if (line === parked.restricts && line.offsets.length === 0) {
          if (record.offset === mark.head) {
            Object.assign(line, { ...parked.uses, offsets: line.offsets });
            forgetHead(parked.uses);
          } else line.maybeSince = record.timestamp;
        }
        line.offsets.push(record.offset);
      }
    });
  }

  return {
    async load(laneOf) {
      const found = ports.ledger.parks(partition);
      if (found.length === 0) return;
      const marks = [...Map.groupBy(found, (m) => m.subject).values()].map((list) => ({ ...joinMarks(list), key: keyFor(list[0]!.subject) }));
      await write([...marks.map(({ key, head: _head, ...value }) => [key, value] as const), ...found.map((m) => [m.key, null] as const)]);
      if (closed) return;
      const now = ports.clock.now();
      for (const m of marks) {
        const lane = laneOf(m.subject);
        lane.busy = true;
        lane.parked = { ...createParked(m.key, now), since: m.since };
        Object.assign(lane.parked.uses, { due: m.due, reason: m.reason, attempts: m.attempts, maybeSince: m.maybeSince > 0 ? m.maybeSince : m.due <= now ? m.due : 0 });
        enter(lane);
      }
      await find(marks, laneOf);
      for (const m of marks) next(laneOf(m.subject));
    },

    park(lane, due, reason) {
      const tasks = lane.queue.splice(0);
      const head = tasks[0]!;
      const { attempts, readBacks, last, maybeSince } = head;
      lane.busy = true;
      if (head.parkedOffset >= 0) {
        Object.assign(lineFor(lane.parked!, head.delivery), { due, reason, attempts, readBacks, last, maybeSince });
        spawn(async () => {
          await mark(lane);
          next(lane);
        });
        return;
      }
      const parked = createParked(keyFor(lane.subject), ports.clock.now());
      Object.assign(lineFor(parked, head.delivery), { due, reason, attempts, readBacks, last, maybeSince });
      parked.pending = tasks.length;
      lane.parked = parked;
      enter(lane);
      spawn(async () => {
        const [offsets, mine] = await Promise.all([ports.appender.append(parkedTopic, tasks.map(toParked)), context.written()]);
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
        const [offset] = await ports.appender.append(parkedTopic, [toParked(task)]);
        const line = lineFor(parked, task.delivery);
        line.offsets.push(offset!);
        parked.pending--;
        context.finished([task]);
        if (line === parked.restricts && timers.has(lane)) {
          ports.clock.clearTimer(timers.get(lane));
          timers.delete(lane);
          next(lane);
        } else if (lane.queue.length === 0 && !lane.busy) next(lane);
        else if (line === parked.restricts && lane.queue.length > 0) context.hurry(lane);
      });
    },

    headEnded(lane, head) {
      const line = lineFor(lane.parked!, head.delivery);
      line.offsets.shift();
      forgetHead(line);
    },

    next,

    count: () => marked.size,
    oldest() {
      let oldest: number | undefined;
      for (const { parked } of marked) if (parked !== undefined) oldest = Math.min(oldest ?? parked.since, parked.since);
      return oldest;
    },
    forNext(lanes) {
      const due = ports.clock.now() + takenOverMs;
      const found: { key: string; value: Buffer }[] = [];
      for (const { subject, parked, queue: [loaded] } of lanes) {
        if (parked === undefined || parked.pending > 0 || nextLine(parked) === undefined) continue;
        const line = firstLine(parked);
        const { attempts, maybeSince } = loaded !== undefined && loaded.parkedOffset === line.offsets[0] ? loaded : line;
        if (maybeSince === 0 && line.due < due) found.push({ key: parked.key, value: ports.serde.encode('weir.internal.LedgerPark', { subject, fromOffset: line.offsets[0]!, due, reason: line.reason, attempts, maybeSince, since: parked.since }) });
      }
      return found;
    },
    renew() {
      const before = ports.clock.now() - ports.dedupeWindowMs('') / 2;
      for (const lane of marked) if (lane.parked !== undefined && lane.parked.held === undefined && nextLine(lane.parked) !== undefined && lane.parked.markedAt < before) spawn(() => mark(lane));
    },
    async drained() {
      while (running.size > 0) await Promise.all(running);
    },
    close() {
      closed = true;
      for (const handle of timers.values()) ports.clock.clearTimer(handle);
      timers.clear();
      for (const lane of [...marked]) leave(lane);
    },
  };
}
