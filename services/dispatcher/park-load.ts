import { readUpTo, type LogRecord } from '@weir/log';
import { WeirError } from '@weir/errors';
import { repeat, type Ending } from './ends.ts';
import { createParked, dueReason, forgetHead, isQuotaWait, lineFor, type Parked } from './lane.ts';
import { lookUp } from './ledger.ts';
import type { ParkMark } from './ledger-store.ts';
import type { Mark } from './mark-writer.ts';
import type { DestinationPorts } from './ports.ts';
import type { FoundMark, Sleepers } from './sleepers.ts';
import type { EndValue, Task } from './types.ts';

interface Context {
  readonly ports: DestinationPorts;
  readonly partition: number;
  readonly sleepers: Sleepers;
  /** A marker's key for a new stay of the subject. */
  keyFor(subject: string): string;
  /** Written by this load, not by an earlier owner. */
  isOwn(key: string): boolean;
  write(marks: readonly Mark[]): Promise<void>;
  /** One more subject is parked. */
  enter(): void;
  decode(record: LogRecord): Promise<Task>;
  reach(tasks: readonly Task[]): Promise<void> | undefined;
  endOf(key: string): EndValue | undefined;
  end(ending: Ending): void;
  closed(): boolean;
}

interface Marked {
  readonly from: number;
  readonly last: number;
}

/** Records between two looks at the clock. */
const clockEvery = 8;
/** Markers that are taken over in one append. */
const pageMarks = 500;

/** Nothing of the subject was called but what the marker tells of, however long it is due: its owner left in order, or has not begun. */
const isSpared = ({ restrictCalledSince = -1 }: Pick<ParkMark, 'restrictCalledSince'>): boolean => restrictCalledSince >= 0;

/**
 * The markers of one subject as one: everything from the least offset on may be unfinished, the head is that of the furthest
 * (`head`: its offset), and of several of one head the one by which the most may have been called: one that spares what was
 * called since may be one of before that was written late, and counts for nothing beside one that does not. Joined in any order and any groups they give the same.
 */
export function joinMarks(marks: readonly (ParkMark & { readonly head?: number })[]): FoundMark {
  const all = marks.map((m): FoundMark => ({ ...m, head: m.head ?? m.fromOffset }));
  const rank = (m: FoundMark): readonly number[] => [m.head, isSpared(m) ? 0 : isQuotaWait(m.reason) ? 1 : m.reason === dueReason ? 3 : 2, m.restrictCalledSince ?? -1, m.due];
  const ahead = all.reduce((a, b) => (compare(rank(b), rank(a)) > 0 ? b : a));
  const maybe = all.filter((m) => m.head === ahead.head && m.maybeSince > 0).map((m) => m.maybeSince);
  const spared = all.every(isSpared);
  return { ...ahead, ...(spared ? {} : { restrictCalledSince: -1 }), fromOffset: Math.min(...all.map((m) => m.fromOffset)), maybeSince: maybe.length > 0 ? Math.min(...maybe) : 0, since: Math.min(...all.map((m) => m.since)) };
}

function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((n, i) => n !== b[i]);
  return at < 0 ? 0 : a[at]! - b[at]!;
}

function stopIfClosed({ ports, partition, closed }: Pick<Context, 'ports' | 'partition' | 'closed'>): void {
  if (closed()) throw new WeirError('log-assignment-stale', `${ports.topics.parked(ports.name)}/${partition} is another one's`);
}

/**
 * What a new owner finds of parked subjects, into the table of those that sleep: from the ledger's markers, some at a time,
 * each replaced by one of its own, and then from the parked topic. May be begun again from the start after an error.
 */
export async function loadParked(context: Context): Promise<void> {
  const { sleepers, closed } = context;
  // The next owner may be this process, and begins on the same rows.
  const turn = async (): Promise<void> => {
    await context.ports.turns.next();
    stopIfClosed(context);
  };
  await sleepers.clear(turn);
  const marked = await takeMarks(context);
  if (marked !== undefined && !closed()) await findRecords(context, marked);
  if (!closed()) await sleepers.list(turn);
}

/** Gives the least offset that may be unfinished, and the furthest that surely was on the topic; undefined = nothing is marked. */
async function takeMarks({ ports, partition, sleepers, keyFor, isOwn, write, enter, closed }: Context): Promise<Marked | undefined> {
  let from = Number.POSITIVE_INFINITY;
  let last = -1;
  let after: string | undefined;
  for (;;) {
    const page = ports.ledger.parks(partition, after, pageMarks);
    if (page.length === 0 || closed()) return last < 0 ? undefined : { from, last };
    after = page.at(-1)!.key;
    const found = page.filter(({ key }) => !isOwn(key));
    const now = ports.clock.now();
    const marks: Mark[] = [];
    for (const [subject, list] of Map.groupBy(found, (m) => m.subject)) {
      const known = sleepers.take(subject);
      const mark = joinMarks(known?.found === undefined ? list : [known.found, ...list]);
      const { key: _key, head: _head, ...value } = mark;
      const parked: Parked = known?.parked ?? createParked(keyFor(subject), now);
      // As before a call (parking.ts): what was written under a key is not written over by what says more.
      if (known !== undefined) {
        marks.push([parked.key, null]);
        parked.key = keyFor(subject);
      }
      parked.since = mark.since;
      parked.spared = isSpared(mark);
      const saysDue = mark.reason === dueReason;
      // By the clock of who wrote it, which may be ahead.
      const due = saysDue ? Math.min(mark.due, now) : mark.due;
      Object.assign(parked.uses, { due, reason: saysDue ? '' : mark.reason, attempts: mark.attempts, maybeSince: mark.maybeSince > 0 ? mark.maybeSince : (mark.due <= now || saysDue) && !parked.spared && !isQuotaWait(mark.reason) ? due : 0 });
      sleepers.put(subject, { parked, fence: 0, found: mark });
      if (known === undefined) enter();
      marks.push([parked.key, value]);
      from = Math.min(from, mark.fromOffset);
      last = Math.max(last, mark.head);
    }
    if (marks.length > 0) await write([...marks, ...found.map(({ key }): Mark => [key, null])]);
  }
}

/**
 * What of the marked subjects is unfinished on the parked topic, by line. Up to an empty record of this owner, not to the end that
 * a broker tells: a leader that was cut off and does not know it yet tells an old one, and acknowledges nothing. What is parked
 * behind such an end is committed on the dispatch topic, and nobody would ever look for it.
 */
async function findRecords(context: Context, { from, last }: Marked): Promise<void> {
  const { ports, partition, sleepers, decode, reach, endOf, end, closed } = context;
  const topic = ports.topics.parked(ports.name);
  const [to] = await ports.appender.append(topic, [{ partition, key: null, value: null }]);
  if (to! <= last) throw new WeirError('log-out-of-range', `${topic}/${partition} ends at ${to}, and ${ports.topics.ledger(ports.name)} has a marker of what was parked at ${last}: the topic was made anew, and that is not in it`, { details: { topic, partition, wanted: last, end: to } });
  let taken = 0;
  await readUpTo(ports.reader, topic, partition, from, to!, async (batch) => {
    stopIfClosed(context);
    for (const record of batch.records) {
      const subject = record.key?.toString('utf8') ?? '';
      if (++taken % clockEvery === 0 && ports.turns.over()) await ports.turns.next();
      const mark = sleepers.peek(subject)?.found;
      if (mark === undefined || record.offset < mark.fromOffset) continue;
      const task = await decode(record);
      await reach([task]);
      stopIfClosed(context);
      const standing = lookUp(task.delivery, task.redrive, task.offset, endOf);
      // Its outcome may be missing: no intent covers what is parked. What went to a second vendor may not have been appended there yet: it is looked at once more.
      if (standing.kind === 'ended' && standing.end.state !== 'failed-over') {
        end(repeat(task, standing.end));
        continue;
      }
      const sleeper = sleepers.take(subject)!;
      addRecord(sleeper.parked, mark, task);
      sleepers.put(subject, sleeper);
    }
  }, { gone: closed });
}

function addRecord(parked: Parked, mark: FoundMark, task: Task): void {
  const line = lineFor(parked, task.delivery);
  // The marker tells of a use, unless it was of this very record: it went ahead, and may have been called since it was parked.
  if (line === parked.restricts && line.offsets.length === 0) {
    if (task.parkedOffset === mark.head) {
      Object.assign(line, { ...parked.uses, offsets: line.offsets });
      forgetHead(parked.uses);
    } else line.maybeSince = isSpared(mark) ? mark.restrictCalledSince! : task.record.timestamp;
  }
  // The head of the marker has ended: how often that was tried says nothing of this one, and since when this one may have been called its record knows.
  if (line === parked.uses && line.offsets.length === 0 && task.parkedOffset !== mark.head) {
    line.attempts = 0;
    if (line.maybeSince > 0 && task.maybeSince > 0) line.maybeSince = Math.min(line.maybeSince, task.maybeSince);
  }
  line.offsets.push(task.parkedOffset);
}
