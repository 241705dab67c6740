import { failpoint } from '@weir/failpoint';
import { expiringShare, H } from '@weir/pipeline';
import type { Headers, LogRecord, OutRecord } from '@weir/log';
import { WeirError } from '@weir/errors';
import { createParked, type Lane, type Parked } from './lane.ts';
import { ledgerKeys, lookUp } from './ledger.ts';
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
}

/** The markers of one subject as one: everything from the least offset on may be unfinished, the head is that of the furthest. */
export function joinMarks(marks: readonly ParkMark[]): ParkMark {
  const ahead = marks.reduce((a, b) => (b.fromOffset > a.fromOffset || (b.fromOffset === a.fromOffset && b.due > a.due) ? b : a));
  const maybe = marks.filter((m) => m.fromOffset === ahead.fromOffset && m.maybeSince > 0).map((m) => m.maybeSince);
  return { ...ahead, fromOffset: Math.min(...marks.map((m) => m.fromOffset)), maybeSince: maybe.length > 0 ? Math.min(...maybe) : 0, since: Math.min(...marks.map((m) => m.since)) };
}

/**
 * Subjects in trouble. Order of writes: records on weir.parked.<destination>, then the marker in the ledger,
 * then the commit; a crash in between repeats records, and a repeated record finds its end in the ledger.
 * While a marker stands, everything of the subject goes behind it. A new owner marks what it finds under keys of its
 * own before it takes records: an earlier owner that lifts what it knew as empty must not hide what came since.
 */
export interface Parking {
  /** After an assignment: find the marked subjects and what of them is unfinished. */
  load(laneOf: (subject: string) => Lane): Promise<void>;
  /** Park the head of the lane and everything behind it until `due` (ms since the epoch). */
  park(lane: Lane, due: number, reason: string): void;
  behind(lane: Lane, task: Task): void;
  /** The parked head ended: load the next, or lift the marker. */
  headEnded(lane: Lane): void;
  /** The lane has no record in hand: wait until due, load the head, or lift the marker. */
  next(lane: Lane): void;
  count(): number;
  /** When the oldest parked record was parked, ms; undefined = none. */
  oldest(): number | undefined;
  /** Write markers again that are older than half a dedupe window: a take-over looks for them in one window. */
  renew(): void;
  drained(): Promise<void>;
  close(): void;
}

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
    const promise = work().catch(ports.fail).finally(() => running.delete(promise));
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
    parked.markedAt = ports.clock.now();
    return write([[parked.key, { subject: lane.subject, fromOffset: parked.offsets[0]!, due: parked.due, reason: parked.reason, attempts: parked.attempts, maybeSince: parked.maybeSince, since: parked.since }]]);
  }

  function enter(lane: Lane): void {
    marked.add(lane);
    ports.metrics.parked.inc({ destination: ports.name });
  }

  function leave(lane: Lane): void {
    if (marked.delete(lane)) ports.metrics.parked.dec({ destination: ports.name });
  }

  /** When its topic is about to lose it, ms: it must be looked at then, due or not. */
  const expiresAt = (parked: Parked): number => parked.since + ports.retention.parkedMs() * expiringShare;

  function schedule(lane: Lane): void {
    if (closed || lane.dead) return;
    const wait = Math.max(0, Math.min(lane.parked!.due, expiresAt(lane.parked!)) - ports.clock.now());
    timers.set(lane, ports.clock.setTimer(() => {
      timers.delete(lane);
      spawn(() => loadHead(lane));
    }, Math.min(wait, 2 ** 31 - 1)));
  }

  async function loadHead(lane: Lane): Promise<void> {
    if (closed || lane.dead) return;
    const parked = lane.parked!;
    if (Math.min(parked.due, expiresAt(parked)) > ports.clock.now()) return schedule(lane);
    const offset = parked.offsets[0]!;
    const record = await ahead.get(offset);
    if (closed || lane.dead) return;
    if (record === undefined) throw new WeirError('log-out-of-range', `${parkedTopic}/${partition} lost offset ${offset} of a parked delivery before it was sent`, { details: { offset } });
    const task = await decode(record);
    await context.reach([task]);
    task.attempts = parked.attempts;
    task.readBacks = parked.readBacks;
    task.last = parked.last;
    task.maybeSince = parked.maybeSince;
    lane.queue.push(task);
    lane.busy = false;
    context.offer(lane);
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
    await write([[parked.key, null]]);
    lane.parked = undefined;
    leave(lane);
    lane.queue.push(...parked.held);
    lane.busy = false;
    context.offer(lane);
  }

  return {
    async load(laneOf) {
      const found = ports.ledger.parks(partition);
      if (found.length === 0) return;
      const marks = [...Map.groupBy(found, (m) => m.subject).values()].map((list) => ({ ...joinMarks(list), key: keyFor(list[0]!.subject) }));
      await write([...marks.map(({ key, ...value }) => [key, value] as const), ...found.map((m) => [m.key, null] as const)]);
      const end = (await ports.admin.endOffsets(parkedTopic)).get(partition) ?? 0;
      for (const m of marks) {
        const lane = laneOf(m.subject);
        lane.busy = true;
        lane.parked = { ...createParked(m.key, m.since, m.due, m.reason, m), markedAt: ports.clock.now(), maybeSince: m.maybeSince > 0 ? m.maybeSince : m.due <= ports.clock.now() ? m.due : 0 };
        enter(lane);
      }
      const from = Math.min(...marks.map((m) => m.fromOffset));
      const fromOf = new Map(marks.map((m) => [m.subject, m.fromOffset]));
      await ports.reader.read(parkedTopic, partition, from, end, async (batch) => {
        for (const record of batch.records) {
          const subject = record.key?.toString('utf8') ?? '';
          if (record.offset < (fromOf.get(subject) ?? Number.POSITIVE_INFINITY)) continue;
          const task = await decode(record);
          await context.reach([task]);
          const standing = lookUp(task.delivery, task.redrive, task.offset, context.endOf);
          // What went to a second vendor may not have been appended there yet: it is looked at once more.
          if (standing.kind !== 'ended' || standing.end.state === 'failed-over') laneOf(subject).parked!.offsets.push(record.offset);
        }
      });
      for (const m of marks) this.next(laneOf(m.subject));
    },

    park(lane, due, reason) {
      const tasks = lane.queue.splice(0);
      const head = tasks[0]!;
      lane.busy = true;
      if (head.parkedOffset >= 0) {
        Object.assign(lane.parked!, { due, reason, attempts: head.attempts, readBacks: head.readBacks, last: head.last, maybeSince: head.maybeSince });
        spawn(async () => {
          await mark(lane);
          schedule(lane);
        });
        return;
      }
      const parked = createParked(keyFor(lane.subject), ports.clock.now(), due, reason, head);
      parked.pending = tasks.length;
      lane.parked = parked;
      enter(lane);
      spawn(async () => {
        const offsets = await ports.appender.append(parkedTopic, tasks.map(toParked));
        // Arrivals appended behind this call were acknowledged behind it: the head's offsets come first.
        parked.offsets.unshift(...offsets);
        parked.pending -= tasks.length;
        failpoint('dispatcher.parked-written');
        await mark(lane);
        failpoint('dispatcher.marker-written');
        context.finished(tasks);
        schedule(lane);
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
        parked.offsets.push(offset!);
        parked.pending--;
        context.finished([task]);
        if (parked.offsets.length === 1 && lane.queue.length === 0 && !lane.busy) this.next(lane);
      });
    },

    headEnded(lane) {
      const parked = lane.parked!;
      parked.offsets.shift();
      parked.due = 0;
      parked.attempts = 0;
      parked.readBacks = 0;
      parked.last = undefined;
      parked.maybeSince = 0;
    },

    next(lane) {
      const parked = lane.parked!;
      if (closed || lane.dead) return;
      lane.busy = true;
      if (parked.offsets.length > 0) {
        if (Math.min(parked.due, expiresAt(parked)) > ports.clock.now()) schedule(lane);
        else spawn(() => loadHead(lane));
      } else if (parked.pending === 0) spawn(() => lift(lane));
      else lane.busy = false;
    },

    count: () => marked.size,
    oldest() {
      let oldest: number | undefined;
      for (const { parked } of marked) if (parked !== undefined) oldest = Math.min(oldest ?? parked.since, parked.since);
      return oldest;
    },
    renew() {
      const before = ports.clock.now() - ports.dedupeWindowMs('') / 2;
      for (const lane of marked) if (lane.parked !== undefined && lane.parked.held === undefined && lane.parked.offsets.length > 0 && lane.parked.markedAt < before) spawn(() => mark(lane));
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
