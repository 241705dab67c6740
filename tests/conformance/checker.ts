/**
 * Judges what a run did to a log, after the anomalies of Jepsen's Kafka workload: lost write, unseen, duplicate,
 * aborted read, skipped and non-monotonic poll, inconsistent offset; and of ours, the order of writes and commits that
 * go back. It knows the writers' and members' own histories and the log as it is at the end, no counter of the port.
 */
export type Event =
  /** In the order of the calls. Values are unique. */
  | { readonly kind: 'send'; readonly partition: number; readonly value: string }
  | { readonly kind: 'ack'; readonly partition: number; readonly value: string; readonly offset: number }
  /** Rejected so that it surely was not written; an append whose outcome is unknown has no event. */
  | { readonly kind: 'refused'; readonly partition: number; readonly value: string }
  /** `position` is where reading of the partition begins under this epoch. */
  | { readonly kind: 'assigned'; readonly member: string; readonly epoch: number; readonly partition: number; readonly position: number }
  | { readonly kind: 'poll'; readonly member: string; readonly epoch: number; readonly partition: number; readonly offset: number; readonly value: string }
  /** An acknowledged commit. */
  | { readonly kind: 'commit'; readonly partition: number; readonly offset: number }
  /** The committed offset as somebody else read it. */
  | { readonly kind: 'committed'; readonly partition: number; readonly offset: number };

export type AnomalyKind = 'lost-write' | 'inconsistent-offset' | 'aborted-read' | 'unseen' | 'duplicate' | 'non-monotonic-poll' | 'skipped-poll' | 'reordered-write' | 'non-monotonic-commit';

export interface Anomaly {
  readonly kind: AnomalyKind;
  readonly detail: string;
}

/** Every record that the log has at the end, offsets ascending, per partition. */
export type FinalLog = ReadonlyMap<number, ReadonlyArray<{ readonly offset: number; readonly value: string }>>;

export interface Verdict {
  readonly anomalies: readonly Anomaly[];
  readonly sent: number;
  readonly acked: number;
  readonly polled: number;
  /** Records that the log has more than once: a batch was written and its answer lost. Allowed, they are keyed. */
  readonly resent: number;
}

type Of<K extends Event['kind']> = Extract<Event, { kind: K }>;
const at = (e: { partition: number; offset: number }): string => `${e.partition}@${e.offset}`;

/** `seen` = everything in the log had to be polled by somebody (a run with members that ended quietly). */
export function check(events: readonly Event[], log: FinalLog, options: { readonly seen: boolean }): Verdict {
  const anomalies: Anomaly[] = [];
  const report = (kind: AnomalyKind, detail: string): void => { anomalies.push({ kind, detail }); };
  const of = <K extends Event['kind']>(kind: K): Of<K>[] => events.filter((e): e is Of<K> => e.kind === kind);
  const present = new Map<string, string>();
  for (const [partition, records] of log) for (const { offset, value } of records) present.set(at({ partition, offset }), value);

  checkWrites(of('ack'), present, report);
  checkReads(of('poll'), new Set(of('refused').map((e) => e.value)), new Set(of('send').map((e) => e.value)), present, report);
  const resent = checkOrder(of('send'), log, report);
  checkPolls(events, log, report);
  checkCommits(events, report);
  const polls = of('poll');
  if (options.seen) {
    const seen = new Set(polls.map(at));
    for (const place of present.keys()) if (!seen.has(place)) report('unseen', `${present.get(place)} at ${place} was given to nobody`);
  }
  return { anomalies, sent: of('send').length, acked: of('ack').length, polled: polls.length, resent };
}

type Report = (kind: AnomalyKind, detail: string) => void;

function checkWrites(acks: readonly Of<'ack'>[], present: ReadonlyMap<string, string>, report: Report): void {
  const values = new Set(present.values());
  for (const ack of acks) {
    const found = present.get(at(ack));
    if (found === ack.value) continue;
    if (values.has(ack.value)) report('inconsistent-offset', `${ack.value} was acknowledged at ${at(ack)}, where the log has ${found ?? 'nothing'}`);
    else report('lost-write', `${ack.value} was acknowledged at ${at(ack)} and is not in the log`);
  }
}

function checkReads(polls: readonly Of<'poll'>[], refused: ReadonlySet<string>, sent: ReadonlySet<string>, present: ReadonlyMap<string, string>, report: Report): void {
  for (const poll of polls) {
    const found = present.get(at(poll));
    if (found !== poll.value) report('inconsistent-offset', `${poll.member} read ${poll.value} at ${at(poll)}, where the log has ${found ?? 'nothing'}`);
    if (refused.has(poll.value) || !sent.has(poll.value)) report('aborted-read', `${poll.member} read ${poll.value}, which was ${refused.has(poll.value) ? 'refused' : 'never sent'}`);
  }
}

/** First places in the log follow the calls; how many records are there again. */
function checkOrder(sends: readonly Of<'send'>[], log: FinalLog, report: Report): number {
  const turn = new Map(sends.map((s, i) => [s.value, i]));
  let resent = 0;
  for (const [partition, records] of log) {
    const known = new Set<string>();
    let last = -1;
    for (const { offset, value } of records) {
      if (known.has(value)) {
        resent++;
        continue;
      }
      known.add(value);
      const mine = turn.get(value) ?? last;
      if (mine < last) report('reordered-write', `${value} at ${partition}@${offset} stands behind ${sends[last]!.value}, which was sent later`);
      last = Math.max(last, mine);
    }
  }
  return resent;
}

/** Under one epoch each record of the log from the position on is given out, in order, once. */
function checkPolls(events: readonly Event[], log: FinalLog, report: Report): void {
  const next = new Map<string, number>();
  for (const e of events) {
    if (e.kind === 'assigned') next.set(`${e.member} ${e.epoch} ${e.partition}`, e.position);
    if (e.kind !== 'poll') continue;
    const key = `${e.member} ${e.epoch} ${e.partition}`;
    const expected = next.get(key);
    if (expected === undefined) report('skipped-poll', `${e.member} was given ${at(e)} under epoch ${e.epoch} without an assignment`);
    else if (e.offset < expected) report('non-monotonic-poll', `${e.member} was given ${at(e)} when ${expected} was next`);
    else {
      // Holes of compaction and of the broker's own records are none.
      const missed = expected === e.offset ? undefined : log.get(e.partition)?.find((r) => r.offset >= expected && r.offset < e.offset);
      if (missed !== undefined) report('skipped-poll', `${e.member} was given ${at(e)} and not ${missed.value} at ${missed.offset}`);
    }
    next.set(key, Math.max(expected ?? 0, e.offset + 1));
  }
}

/** What was acknowledged as committed stays so: a later owner does not begin before it, nobody sees it go back. */
function checkCommits(events: readonly Event[], report: Report): void {
  const acknowledged = new Map<number, number>();
  const observed = new Map<number, number>();
  for (const e of events) {
    if (e.kind === 'commit') acknowledged.set(e.partition, Math.max(acknowledged.get(e.partition) ?? 0, e.offset));
    else if (e.kind === 'assigned' && e.position < (acknowledged.get(e.partition) ?? 0)) report('duplicate', `${e.member} begins partition ${e.partition} at ${e.position}, committed up to ${acknowledged.get(e.partition)}`);
    else if (e.kind === 'committed') {
      if (e.offset < (observed.get(e.partition) ?? 0)) report('non-monotonic-commit', `partition ${e.partition} went back from ${observed.get(e.partition)} to ${e.offset}`);
      observed.set(e.partition, Math.max(observed.get(e.partition) ?? 0, e.offset));
    }
  }
}
