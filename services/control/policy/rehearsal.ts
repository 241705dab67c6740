import { randomBytes } from 'node:crypto';
import { WeirError } from '@weir/errors';
import type { LogAdmin, Reader, RecordBatch, Serde } from '@weir/log';
import { createLimits, decide, type Decision, type Limits, type Minimiser } from '@weir/policy';
import { assertPolicyTests, changeDecisions, shownOnward, type ChangeDecisions, type Release, type ReleaseFile } from '@weir/release';
import { count as counted, instant, list, named, nullable, object, oneOf, text, type TypeOf } from '@weir/service';
import { isUnreadable, recordedConsent, type History, type PastRecord, type Recorded } from './history.ts';

const examples = list(text('Event id.'), 'The first few.');
/** What would be decided otherwise, of one kind. */
const flip = named('Flip', object('Deliveries that would be decided otherwise, of one kind.', {
  destination: text('Destination.'), operation: text('Operation there.'), from: text('`allow`, `hold <reason>`, `deny <reason>` or `none`.'), to: text('The same, by the changed policy.'), rule: nullable(text('The rule that decides now; null where none does.')), count: counted('How many.'), examples,
}));
const field = text('Name of a field, or `attributes.<key>`; ` (changed)` behind one that goes hashed or masked, in both lists where it would go with another text.');
/** Deliveries that would still go, with other fields. */
const fieldChange = named('FieldChange', object('Deliveries that would still go, with other fields.', { destination: text('Destination.'), operation: text('Operation there.'), added: list(field, 'Fields that would leave, too.'), removed: list(field, 'Fields that would stay.'), count: counted('How many.'), examples }));

export const rehearsal = named('Rehearsal', object('History decided once more by a changed policy; nothing is sent.', {
  id: text('Id of the rehearsal.'), release: text('Hash of the changed workspace.'), since: instant('Since when history is decided.'), state: oneOf(['running', 'done', 'stopped', 'failed'], 'How far it is.'), message: nullable(text('Why it failed.')),
  read: counted('Records of weir.canonical read.'), total: counted('Of those there were when it began.'), decisions: counted('Decisions that were compared.'), flips: list(flip, 'What would be decided otherwise, the most first.'), fields: list(fieldChange, 'What would go with other fields, the most first.'),
  unrecorded: counted('Records whose recorded decision is not in the index: compared with what the running release decides.'),
}));
export type Rehearsal = TypeOf<typeof rehearsal>;

interface Ports {
  readonly history: History;
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets' | 'beginningOffsets'>;
  readonly serde: Serde;
  readonly topic: string;
  readonly current: () => Release;
  readonly now: () => number;
}

const maxExamples = 5;
const maxKinds = 1000;
const maxRecords = 5_000_000;
const keptRuns = 10;
/** Counters of limit rules, as the policy stage keeps them for a partition. */
const maxCounters = 100_000;

/** Rehearsals of changed policies over what was decided. One runs at a time; the last few can be asked for. */
export interface RehearsalApi {
  /** Compiles and tests the files, then runs beside. Rejects with WorkspaceError, or overloaded while another runs. */
  start(files: readonly ReleaseFile[], sinceMs: number): Promise<Rehearsal>;
  get(id: string): Rehearsal;
  stop(id: string): Rehearsal;
  close(): Promise<void>;
}

interface Tally { count: number; readonly examples: string[] }
interface Run {
  readonly id: string;
  readonly release: Release;
  readonly since: number;
  state: Rehearsal['state'];
  message: string | null;
  read: number;
  total: number;
  decisions: number;
  unrecorded: number;
  readonly flips: Map<string, Tally>;
  readonly fields: Map<string, Tally>;
}
/** What limit rules count, by the running release and by the changed one. */
interface Counters { readonly before: Limits; readonly after: Limits }
class Stopped extends Error {}

export function createRehearsals(ports: Ports): RehearsalApi {
  const runs = new Map<string, Run>();
  let running: Promise<void> = Promise.resolve();

  function find(id: string): Run {
    const run = runs.get(id);
    if (run === undefined) throw new WeirError('not-found', `no rehearsal ${id}`);
    return run;
  }

  async function work(run: Run): Promise<void> {
    try {
      const [begins, ends] = await Promise.all([ports.admin.beginningOffsets(ports.topic), ports.admin.endOffsets(ports.topic)]);
      const ranges: { partition: number; from: number; to: number }[] = [];
      for (const [partition, to] of ends) ranges.push({ partition, from: await firstSince(ports, partition, begins.get(partition) ?? 0, to, run.since), to });
      run.total = ranges.reduce((sum, r) => sum + r.to - r.from, 0);
      if (run.total > maxRecords) throw new WeirError('bad-request', `${run.total} records since then, at most ${maxRecords}: take a later --since`);
      const { tables } = ports.history;
      for (const { partition, from, to } of ranges) {
        const counters = countersOf(partition, ends.size);
        if (from < to) await ports.reader.read(ports.topic, partition, from, to, (batch) => take(run, batch, tables, counters));
      }
      run.state = 'done';
    } catch (error) {
      run.state = error instanceof Stopped ? 'stopped' : 'failed';
      run.message = error instanceof Stopped ? null : (error as Error).message;
    }
  }

  async function take(run: Run, batch: RecordBatch, tables: History['tables'], counters: Counters): Promise<void> {
    for (const record of batch.records) {
      if (run.state !== 'running') throw new Stopped();
      run.read++;
      if (record.value === null || record.timestamp < run.since) continue;
      const past = await subjectOf(record);
      if (past !== undefined) compare(run, past, tables, counters);
    }
    // The API answers between batches.
    await new Promise<void>((resume) => { setImmediate(resume); });
  }

  /** What can not be read was never decided, or is of a person who was erased. */
  async function subjectOf(record: RecordBatch['records'][number]): Promise<PastRecord | undefined> {
    try {
      if (!ports.serde.known(record.value!)) await ports.serde.prepare(record.value!);
      return ports.history.subjectOf(record);
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }

  function compare(run: Run, past: PastRecord, tables: History['tables'], counters: Counters): void {
    const recorded = ports.history.recordedOf(past.eventId).filter((r) => r.outputId === null || r.outputId === past.outputId);
    const at = recorded.at(-1)?.at ?? past.acceptedAt;
    const subject = ports.history.whole(past.subject);
    const valueOf = ports.history.clearLinks(subject.ids);
    const under = (release: Release, limits: Limits): readonly Decision[] => shown(changeDecisions(decide(release.policy, subject, {
      now: at, ...limits,
      consent: (ids, route) => recordedConsent(recorded, route) ?? tables.check(ids, route.purpose!, route.channel ?? null, route.topic ?? null, release.policy.purposes.get(route.purpose!)?.legalBasis ?? null, at, release.policy),
    }), { outputId: past.outputId, subject, ids: past.subject.ids ?? [], now: at }, release, tables, valueOf));
    const before = under(ports.current(), counters.before);
    const after = under(run.release, counters.after);
    if (recorded.length === 0) run.unrecorded++;
    run.decisions += after.length;
    tallyFlips(run, past.eventId, recorded, before, after);
    tallyFields(run, past.eventId, subject.record, before, after);
  }

  return {
    async start(files, sinceMs) {
      if ([...runs.values()].some((r) => r.state === 'running')) throw new WeirError('overloaded', 'another rehearsal runs: wait for it, or stop it');
      const release = ports.history.compile(files);
      assertPolicyTests(release);
      const id = `rhs_${randomBytes(8).toString('hex')}`;
      const run: Run = { id, release, since: ports.now() - sinceMs, state: 'running', message: null, read: 0, total: 0, decisions: 0, unrecorded: 0, flips: new Map(), fields: new Map() };
      if (runs.size >= keptRuns) runs.delete(runs.keys().next().value!);
      runs.set(id, run);
      running = work(run);
      return view(run);
    },
    get: (id) => view(find(id)),
    stop(id) {
      const run = find(id);
      if (run.state === 'running') run.state = 'stopped';
      return view(run);
    },
    async close() {
      for (const run of runs.values()) if (run.state === 'running') run.state = 'stopped';
      await running;
    },
  };
}

/** Begun anew for each partition, with its share, as the policy stage counts: the next one begins with older records than the last one ended. */
function countersOf(partition: number, partitions: number): Counters {
  const begun = (): Limits => createLimits(maxCounters, { partition, partitions });
  return { before: begun(), after: begun() };
}

/** First offset whose record is not older, by halving; the topic is in the order of time but for the clocks of its writers. */
async function firstSince(ports: Ports, partition: number, begin: number, end: number, since: number): Promise<number> {
  let [low, high] = [begin, end];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const record = await ports.reader.readOne(ports.topic, partition, middle);
    if (record !== undefined && record.timestamp < since) low = middle + 1;
    else high = middle;
  }
  return low;
}

const shown = ({ decisions, onward }: ChangeDecisions): readonly Decision[] => (onward.length === 0 ? decisions : [...decisions, ...shownOnward(onward)]);
const none = 'none';
const wordsOf = (effect: string, reason: string | null): string => (effect === 'allow' ? 'allow' : `${effect} ${reason ?? ''}`.trim());

/** By (destination, operation): what was recorded, or what the running release decides where nothing was. */
export function tallyFlips(run: Pick<Run, 'flips'>, eventId: string, recorded: readonly Recorded[], before: readonly Decision[], after: readonly Decision[]): void {
  const was = new Map<string, string>();
  for (const d of before) if (d.route !== undefined) was.set(`${d.route.destination}\0${d.route.operation}`, wordsOf(d.effect, d.effect === 'allow' ? null : d.reason));
  if (recorded.length > 0) {
    was.clear();
    for (const r of recorded) {
      const key = `${r.destination ?? ''}\0${r.operation ?? ''}`;
      // What an approver decided afterwards is no decision of the rules; what lacked something after theirs was let through by them.
      if (r.destination !== null && was.get(key)?.startsWith('hold ') !== true) was.set(key, r.effect === 'dead-letter' ? 'allow' : wordsOf(r.effect, r.reason));
    }
  }
  const is = new Map<string, Decision>();
  for (const d of after) if (d.route !== undefined) is.set(`${d.route.destination}\0${d.route.operation}`, d);
  for (const key of new Set([...was.keys(), ...is.keys()])) {
    const decision = is.get(key);
    const to = decision === undefined ? none : wordsOf(decision.effect, decision.effect === 'allow' ? null : decision.reason);
    const from = was.get(key) ?? none;
    if (from !== to) count(run.flips, [...key.split('\0'), from, to, decision?.rule ?? ''].join('\0'), eventId);
  }
}

function tallyFields(run: Run, eventId: string, record: Readonly<Record<string, unknown>>, before: readonly Decision[], after: readonly Decision[]): void {
  for (const decision of after) {
    if (decision.effect !== 'allow') continue;
    const { route } = decision;
    const old = before.find((d) => d.route?.destination === route.destination && d.route.operation === route.operation);
    if (old?.effect !== 'allow') continue;
    const was = sentFields(old.minimiser, record, decision.minimiser);
    const is = sentFields(decision.minimiser, record, old.minimiser);
    const [added, removed] = [beyond(is, was), beyond(was, is)];
    if (added.length + removed.length > 0) count(run.fields, JSON.stringify([route.destination, route.operation, added, removed]), eventId);
  }
}

const beyond = (sent: ReadonlyMap<string, unknown>, other: ReadonlyMap<string, unknown>): string[] => [...sent].filter(([name, value]) => !Object.is(other.get(name), value)).map(([name]) => name);

/**
 * What would leave with a value, by name; a field that is changed is named with a mark, as it is not the same any more. A map is named
 * key by key, but for one that leaves whole where the other minimiser keeps all of it here: else each set of keys would be a kind of its own.
 */
function sentFields(minimiser: Minimiser, record: Readonly<Record<string, unknown>>, other: Minimiser): ReadonlyMap<string, unknown> {
  const sent = new Map<string, unknown>();
  for (const [name, value] of Object.entries(minimiser.record(record))) {
    if (value === null) continue;
    if (typeof value !== 'object') sent.set(minimiser.changed.includes(name) ? `${name} (changed)` : name, value);
    else {
      const entries = Object.entries(value as object);
      const whole = entries.length > 0 && (Array.isArray(value) || (other.withheld.includes(name) && entries.length === Object.keys(record[name] as object).length));
      if (whole) sent.set(name, value);
      else for (const [key, one] of entries) sent.set(`${name}.${key}`, one);
    }
  }
  return sent;
}

function count(tallies: Map<string, Tally>, key: string, eventId: string): void {
  let tally = tallies.get(key);
  if (tally === undefined) {
    if (tallies.size >= maxKinds) return;
    tallies.set(key, tally = { count: 0, examples: [] });
  }
  tally.count++;
  if (tally.examples.length < maxExamples && !tally.examples.includes(eventId)) tally.examples.push(eventId);
}

function view(run: Run): Rehearsal {
  const most = (tallies: Map<string, Tally>) => [...tallies].sort(([, a], [, b]) => b.count - a.count);
  return {
    id: run.id, release: run.release.hash, since: new Date(run.since).toISOString(), state: run.state, message: run.message, read: run.read, total: run.total, decisions: run.decisions, unrecorded: run.unrecorded,
    flips: most(run.flips).map(([key, { count: n, examples }]) => {
      const [destination = '', operation = '', from = '', to = '', rule = ''] = key.split('\0');
      return { destination, operation, from, to, rule: rule === '' ? null : rule, count: n, examples };
    }),
    fields: most(run.fields).map(([key, { count: n, examples }]) => {
      const [destination, operation, added, removed] = JSON.parse(key) as [string, string, string[], string[]];
      return { destination, operation, added, removed, count: n, examples };
    }),
  };
}
