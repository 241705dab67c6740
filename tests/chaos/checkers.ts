/** The invariants over the recorded history. Pure: each gives the lines that say what is broken; none = it held. */
import { decodeLeaf, verifyLog } from '@weir/audit';
import { keepsInstead } from '../../services/dispatcher/ledger.ts';
import { isReadBack, type EndRecord, type History } from './history.ts';
import type { Refusal } from './traffic.ts';

export const invariants = ['I1', 'I2', 'I3', 'I4', 'I5', 'I6', 'I7', 'I8', 'I9', 'I10', 'I11', 'I12'] as const;
export type Invariant = (typeof invariants)[number];

export interface Sent {
  /** Event ids answered 2xx, per object key, in the order in which they were answered. */
  readonly answered: ReadonlyMap<string, readonly string[]>;
  /** Event ids answered 2xx that no mapping takes. */
  readonly poison: readonly string[];
  /** By e-mail address: what the last answered consent call said, and the event ids that were answered after it. */
  readonly consent: ReadonlyMap<string, { readonly said: boolean; readonly later: readonly string[] }>;
  /** Objects of the polled list. */
  readonly members: number;
}

const delivery = (d: { output: string; destination: string; operation: string }): string => `${d.output}|${d.destination}|${d.operation}`;

/** Every accepted event is in its raw topic and ends; every delivery on a dispatch topic ends; dead letters have the bytes of their record, and what no mapping takes is one. */
export function nothingLost(history: History, sent: Sent): string[] {
  const problems: string[] = [];
  const raw = new Set(history.raw.map((r) => r.event));
  for (const events of sent.answered.values()) for (const event of events) if (!raw.has(event)) problems.push(`${event} was answered 2xx and is in no raw topic`);
  const members = new Set(history.raw.filter((r) => r.source === 'members').map((r) => r.event)).size;
  if (members !== sent.members) problems.push(`${members} of ${sent.members} polled objects are in the raw topic`);
  const decided = new Set([...history.dispatch.map((d) => d.event), ...history.outcomes.map((o) => o.event)]);
  for (const event of raw) if (!decided.has(event)) problems.push(`${event} has neither a delivery nor an outcome`);
  const outputs = new Set([...history.dispatch.map((d) => d.output), ...history.outcomes.map((o) => o.output ?? '')]);
  for (const c of history.canonical) if (!outputs.has(c.output)) problems.push(`${c.output} of ${c.event} was never decided`);
  const ended = new Set(history.ends.map(delivery));
  const told = new Set(history.outcomes.flatMap((o) => (o.output === null || o.destination === null || o.operation === null ? [] : [delivery({ output: o.output, destination: o.destination, operation: o.operation })])));
  for (const d of history.dispatch) if (!ended.has(delivery(d))) problems.push(`no end: ${delivery(d)}`);
    else if (!told.has(delivery(d))) problems.push(`no outcome: ${delivery(d)}`);
  const letters = new Map(history.letters.map((l) => [l.event, l]));
  for (const o of history.outcomes) if (o.state === 'dead-lettered' && (letters.get(o.event)?.value ?? null) === null) problems.push(`${o.event} is told as dead-lettered and has no dead letter with its bytes`);
  const whole = new Map(history.raw.map((r) => [r.event, r.hash]));
  for (const l of history.letters) if (l.stage === 'normalizer' && l.hash !== whole.get(l.event)) problems.push(`the dead letter of ${l.event} has other bytes than its raw record`);
  const refused = new Set(history.letters.filter((l) => l.stage === 'normalizer').map((l) => l.event));
  for (const event of sent.poison) if (!refused.has(event)) problems.push(`${event} can not be mapped and is no dead letter`);
  return problems;
}

/**
 * Each canonical record has, for every destination and operation that its workspace routes it to, a delivery or an outcome
 * of its own; none stands in for another. What policy could not decide at all ends whole, as a dead letter.
 * And no delivery stands on a dispatch topic that no route asks for.
 */
export function decidedForEach(history: History): string[] {
  const problems: string[] = [];
  const told = history.outcomes.flatMap((o) => (o.output === null || o.destination === null || o.operation === null ? [] : [delivery({ output: o.output, destination: o.destination, operation: o.operation })]));
  const decided = new Set([...history.dispatch.map(delivery), ...told]);
  const whole = new Set(history.outcomes.filter((o) => o.stage === 'policy' && o.destination === null && (o.state !== 'denied' || o.reason === 'subject-erased')).map((o) => o.event));
  const may = new Map<string, Set<string>>();
  for (const c of history.canonical) {
    may.set(c.output, new Set([...(may.get(c.output) ?? []), ...c.wanted.may]));
    for (const to of c.wanted.must) if (!decided.has(`${c.output}|${to}`) && !whole.has(c.event)) problems.push(`${c.type} ${c.output} of ${c.event} was never decided for ${to}`);
  }
  for (const d of history.dispatch) if (may.get(d.output)?.has(`${d.destination}|${d.operation}`) === false) problems.push(`${delivery(d)} of ${d.event} is on its dispatch topic, and no route asks for it`);
  return problems;
}

type Ranked = Parameters<typeof keepsInstead>[0];
/** What an owner that had lost the partition says to be without effect counts for nobody. */
const counts = ({ owned, effect }: EndRecord): boolean => owned || effect !== 'none';
const winner = (ends: readonly EndRecord[]): EndRecord => (ends.some(counts) ? ends.filter(counts) : ends).reduce((a, b) => (keepsInstead(a as Ranked, b as Ranked) ? b : a));

/** What an end is told as. */
const toldAs = (state: string): string => (state === 'expired' ? 'quarantined' : state);

/**
 * Exactly one end: of all that are written for a delivery, by whoever and under whichever key, one wins by the rule that every
 * reader of the ledger has (`keepsInstead`), and that one is told. An owner knows the ends of owners before it: it writes
 * the end that stands, or, by a record that an order put back behind it, another one in the
 * place of one that may have taken effect.
 */
export function endedOnce(history: History): string[] {
  const problems: string[] = [];
  const putBack = new Set(history.dispatch.filter((d) => d.order !== '').map((d) => `${delivery(d)}@${d.offset}`));
  const told = new Set(history.outcomes.map((o) => `${o.output}|${o.destination}|${o.operation}|${o.state}`));
  for (const [name, ends] of Map.groupBy(history.ends, delivery)) {
    for (const [key, owned] of Map.groupBy(ends.filter((e) => e.owned), (e) => e.key)) {
      owned.forEach((end, i) => {
        const before = i === 0 ? end : winner(owned.slice(0, i));
        const takenUp = putBack.has(`${name}@${end.offset}`) && before.effect === 'maybe' && end.offset > before.offset;
        if ((end.state !== before.state || end.effect !== before.effect) && !takenUp) problems.push(`${name} ended ${before.state} under ${key}, and then ${end.state} by ${end.owner}`);
      });
    }
    const { state } = winner(ends);
    if (!told.has(`${name}|${toldAs(state)}`)) problems.push(`${name} ended ${[...new Set(ends.map((e) => e.state))].join(', ')}, and no outcome says ${toldAs(state)}`);
  }
  return problems;
}

/** What the control service signed, and what was kept of it elsewhere. */
export interface Signed { readonly served: string; readonly kept: readonly string[]; readonly verifier: string }

/** Every change on weir.control, and every release, names a leaf of the audit log; the log as it stands on its topic is the one that was signed, by the check of `weir audit verify`. */
export function audited(history: History, signed: Signed): string[] {
  const leaves: Buffer[] = [];
  const known = new Map<string, History['leaves'][number]>();
  for (const leaf of history.leaves) {
    const id = decodeLeaf(leaf.bytes)?.id;
    // A resend of the same leaf is known by its id and counts once.
    if (id !== undefined && known.get(id)?.bytes.equals(leaf.bytes) === true) continue;
    if (id !== undefined) known.set(id, leaf);
    leaves.push(leaf.bytes);
  }
  return [
    ...history.changes.filter(({ leaf }) => !known.has(leaf)).map(({ what, leaf }) => `${what} names the audit leaf ${leaf || 'of nobody'}, which is not in the log`),
    ...history.changes.filter(({ leaf, at }) => (known.get(leaf)?.at ?? 0) > at).map(({ what, leaf, at }) => `${what} was written at ${at}, before its audit leaf ${leaf} at ${known.get(leaf)!.at}`),
    ...(signed.kept.length === 0 ? ['no checkpoint of the audit log was kept'] : []),
    ...verifyLog({ leaves, ...signed }).map(({ kind, message }) => `audit log: ${kind}: ${message}`),
  ];
}

/** One effect per delivery; the end that stands allows each effect; each delivered end has its effect. */
export function effectsOnce(history: History): string[] {
  const problems: string[] = [];
  const ends = new Map<string, Set<string>>();
  const deliveryOf = new Map<string, string>();
  const possible = new Set<string>();
  for (const [key, of] of Map.groupBy(history.ends, (end) => `${end.destination}|${end.key}`)) if (winner(of).effect !== 'none') possible.add(key);
  for (const end of history.ends) {
    const key = `${end.destination}|${end.key}`;
    ends.set(key, (ends.get(key) ?? new Set()).add(end.state));
    deliveryOf.set(key, delivery(end));
  }
  const effects = new Map<string, number>();
  const perDelivery = new Map<string, number>();
  for (const effect of history.effects) {
    const key = `${effect.destination}|${effect.idempotencyKey}`;
    effects.set(key, (effects.get(key) ?? 0) + 1);
    const of = deliveryOf.get(key);
    if (of === undefined) problems.push(`an effect under ${key}, which no end names`);
    else {
      perDelivery.set(of, (perDelivery.get(of) ?? 0) + 1);
      if (!possible.has(key)) problems.push(`an effect under ${key}, which ended ${[...ends.get(key)!].join()} with no effect`);
    }
  }
  for (const [key, n] of effects) if (n > 1) problems.push(`${n} effects under ${key}`);
  for (const [of, n] of perDelivery) if (n > 1) problems.push(`${n} effects of ${of}`);
  for (const [key, states] of ends) if (states.has('delivered') && !effects.has(key)) problems.push(`${key} is told as delivered and had no effect`);
  return problems;
}

/**
 * No `use` call of email-marketing arrives later than `slackMs` (call deadline + lease) after a withdrawal of its
 * subject was on weir.consent, unless a later state grants again: some identifier of the subject grants, and none that
 * says something says no. A grant may reach the identifiers of a person at different times, and together with its
 * withdrawal: then only the later one is written.
 */
export function consentHeld(history: History, slackMs: number, idsOf: (email: string) => readonly string[]): string[] {
  const states = new Map<string, { at: number; state: string }[]>();
  for (const { id, purpose, state, at } of history.consent) {
    if (purpose !== 'email-marketing') continue;
    const list = states.get(id) ?? [];
    list.push({ at, state });
    states.set(id, list);
  }
  const problems: string[] = [];
  for (const arrival of history.arrivals) {
    const email = arrival.body['email'];
    if (arrival.destination !== 'newsletter' || arrival.operation !== 'subscribers' || typeof email !== 'string') continue;
    const lists = idsOf(email).map((id) => states.get(id) ?? []);
    // Whatever state held at any moment of the slack may have been the one that let it pass.
    const held = lists.map((list) => list.filter((s, i) => s.at <= arrival.at && (list[i + 1]?.at ?? Infinity) >= arrival.at - slackMs));
    const granted = held.some((states) => states.some((s) => s.state === 'granted'));
    const refused = held.some((states) => states.length > 0 && !states.some((s) => s.state === 'granted'));
    if (granted && !refused) continue;
    problems.push(`a subscribe of ${email} arrived at ${arrival.at} under ${arrival.idempotencyKey}, although the states since ${slackMs} ms before were ${held.map((h) => h.map((s) => s.state).join(', ') || 'none').join('; ')} of ${lists.map((list) => list.map((s) => `${s.state} at ${s.at}`).join(', ') || 'none').join('; ')}`);
  }
  return problems;
}

/**
 * Whose last answered consent call said no, is closed when all is quiet, and nothing that was accepted after it was a
 * `use` of the newsletter: by the senders' own log, whatever the fold made of it. The calls of a person come one after
 * the other, so the last answered is the last said, and stands before what was answered later on the same partitions.
 * Nothing is said of a yes: one that a clock stamped early is rightly taken for an old one.
 */
export function lastNoHolds(history: History, sent: Pick<Sent, 'consent'>, idsOf: (email: string) => readonly string[]): string[] {
  const problems: string[] = [];
  const last = new Map(history.consent.filter((c) => c.purpose === 'email-marketing').map((c) => [c.id, c.state]));
  const delivered = new Set(history.ends.filter((e) => e.state === 'delivered').map(delivery));
  const uses = Map.groupBy(history.dispatch.filter((d) => d.kind === 'use' && d.destination === 'newsletter'), (d) => d.event);
  for (const [email, { said, later }] of sent.consent) {
    if (said) continue;
    const states = idsOf(email).map((id) => last.get(id));
    if (states.includes('granted') || states.every((state) => state === undefined)) problems.push(`the last word of ${email} was no, and the states are ${states.map((s) => s ?? 'none').join(', ')}`);
    for (const event of later) for (const use of uses.get(event) ?? []) if (delivered.has(delivery(use))) problems.push(`${event} of ${email} was accepted after a no and went to the newsletter: ${delivery(use)}`);
  }
  return problems;
}

/** Canonical records of an object follow its raw records; effects of a subject follow weir.dispatch; raw follows the sender. */
export function ordered(history: History, sent: Sent): string[] {
  const problems: string[] = [];
  const rawAt = new Map<string, number>();
  const objectOf = new Map<string, string>();
  for (const r of history.raw) {
    if (!rawAt.has(r.event)) rawAt.set(r.event, r.offset);
    objectOf.set(r.event, `${r.source}|${r.objectKey}`);
  }
  for (const [key, events] of sent.answered) {
    let last = -1;
    // The first copy may have come with a request that was not answered: then its order is not the sender's any more, only that of firsts.
    for (const event of events) {
      const at = rawAt.get(event);
      if (at !== undefined && at < last) problems.push(`${event} of ${key} lies before an event that was answered earlier`);
      last = Math.max(last, at ?? -1);
    }
  }
  problems.push(...inversions(history.canonical.map((c) => ({ group: `${objectOf.get(c.event)}|${c.type}`, id: c.output, place: rawAt.get(c.event) ?? -1 })), 'canonical'));
  const dispatchedAt = new Map<string, number>();
  const subjectOf = new Map<string, string>();
  for (const d of history.dispatch) {
    const name = delivery(d);
    if (!dispatchedAt.has(name)) dispatchedAt.set(name, d.offset);
    subjectOf.set(name, `${d.destination}|${d.subject}`);
  }
  const deliveryOf = new Map(history.ends.map((e) => [`${e.destination}|${e.key}`, delivery(e)]));
  // What a replay order put back comes after what was newer; that it rolls nothing back is `superseded` (tests/contract/superseded.test.ts).
  const putBack = new Set(history.dispatch.filter((d) => d.order !== '').map(delivery));
  const uses = new Set(history.dispatch.filter((d) => d.kind === 'use').map(delivery));
  // A restrict goes ahead of uses that wait, and its end says of which.
  const waited = Map.groupBy(history.parked, delivery);
  const ahead = new Map<string, (use: string) => boolean>();
  for (const [name, ends] of Map.groupBy(history.ends.filter((e) => !uses.has(delivery(e))), delivery)) {
    const ranges = ends.flatMap((e) => /ahead of \d+ that wait, (\d+) to (\d+) on/.exec(e.reason ?? '')?.slice(1).map(Number) ?? []);
    if (ranges.length > 0) ahead.set(name, (use) => (waited.get(use) ?? []).some(({ offset }) => ranges.some((from, i) => i % 2 === 0 && offset >= from && offset <= ranges[i + 1]!)));
  }
  problems.push(...inversions(history.effects.flatMap((e) => {
    const name = deliveryOf.get(`${e.destination}|${e.idempotencyKey}`);
    return name === undefined || putBack.has(name) || !subjectOf.has(name) ? [] : [{ group: subjectOf.get(name)!, id: name, place: dispatchedAt.get(name)!, at: e.at, ahead: ahead.get(name), use: uses.has(name) }];
  }), 'effects', (id) => {
    const keys = new Set([...deliveryOf].filter(([, name]) => name === id).map(([key]) => key));
    const calls = history.arrivals.filter((a) => keys.has(`${a.destination}|${a.idempotencyKey}`)).map((a) => `${a.at}${a.applied ? ' applied' : ''}`);
    return `; ended ${history.ends.filter((e) => delivery(e) === id).map((e) => `${e.state} (${e.effect}) at ${e.at}`).join(', ')}, calls at ${calls.join(', ')}`;
  }));
  return problems;
}

/** `ahead`: of one that may come before uses of lower places, which. */
interface Placed { readonly group: string; readonly id: string; readonly place: number; readonly at?: number; readonly ahead?: ((use: string) => boolean) | undefined; readonly use?: boolean }

function inversions(sequence: readonly Placed[], what: string, tell: (id: string) => string = () => ''): string[] {
  const problems: string[] = [];
  const last = new Map<string, Placed>();
  const wentAhead = new Map<string, Placed[]>();
  const seen = new Set<string>();
  const when = ({ at }: Placed): string => (at === undefined ? '' : ` at ${at}`);
  for (const item of sequence) {
    if (seen.has(item.id)) continue;
    seen.add(item.id);
    const { group, id, place } = item;
    const before = [...(wentAhead.get(group) ?? []).filter((b) => item.use !== true || !b.ahead!(id)), last.get(group)].find((b) => b !== undefined && place < b.place);
    if (before !== undefined) problems.push(`${what}: ${id} of ${group}, place ${place}, comes${when(item)} after ${before.id}, place ${before.place}${when(before)}${tell(id)}${tell(before.id)}`);
    if (item.ahead !== undefined) wentAhead.set(group, [...(wentAhead.get(group) ?? []), item]);
    else if (place >= (last.get(group)?.place ?? -1)) last.set(group, item);
  }
  return problems;
}

/** The same item under the same release gives the same bytes. */
export function sameBytes(history: History): string[] {
  const problems: string[] = [];
  const first = new Map<string, Buffer>();
  for (const c of history.canonical) {
    const key = `${c.output}|${c.release}`;
    const known = first.get(key);
    if (known === undefined) first.set(key, c.value);
    else if (!known.equals(c.value)) problems.push(`${c.output} has two forms under ${c.release}`);
  }
  const hashes = new Map<string, string>();
  for (const r of history.raw) {
    if ((hashes.get(r.event) ?? r.hash) !== r.hash) problems.push(`${r.event} has two bodies`);
    hashes.set(r.event, r.hash);
  }
  return problems;
}

/**
 * No call of a delivery arrives after the end that its owner wrote: who does not own it any more calls nothing, and who takes
 * over has read what stands before its own mark. An end that stands behind the mark of a later owner binds nobody: that
 * owner could not know of it when it called, under the same key, and calls again where no answer came.
 * `skewMs`: between the clocks of broker and vendor.
 */
export function zombiesHarmless(history: History, skewMs: number): string[] {
  const calls = Map.groupBy(history.arrivals.filter((a) => a.idempotencyKey !== null && !isReadBack(a)), (a) => `${a.destination}|${a.idempotencyKey}`);
  const putBack = new Set(history.dispatch.filter((d) => d.order !== '').map(delivery));
  // What ended otherwise than delivered is called again when an order puts it back.
  const endsOf = Map.groupBy(history.ends.filter((e) => e.state === 'delivered' || !putBack.has(delivery(e))), (e) => `${e.destination}|${e.key}`);
  return [...endsOf].flatMap(([key, ends]) => {
    const endAt = Math.min(...ends.filter((e) => e.owned).map((e) => e.at));
    const late = (calls.get(key) ?? []).filter((a) => a.at > endAt + skewMs);
    const story = (): string => `calls at ${calls.get(key)!.map((a) => a.at).join(', ')}; ${ends.map((e) => `ended ${e.state} at ${e.at} by ${e.owner}${e.owned ? '' : ', no owner any more'}`).join('; ')}`;
    return late.map((a) => `a call under ${key} arrived ${a.at - endAt} ms after its end: ${story()}`);
  });
}

/** What ingest can not take it refuses with 429 or 503 and a time to come back; no sender is told anything else. */
export function bounded(refusals: readonly Refusal[]): string[] {
  return refusals.filter(({ status, retryAfter }) => !((status === 429 || status === 503) && /^\d+$/.test(retryAfter ?? ''))).map(({ at, instance, status, retryAfter }) => `ingest ${instance} answered ${status} ${retryAfter === null ? 'without Retry-After' : `with Retry-After ${JSON.stringify(retryAfter.slice(0, 40))}`} at ${at}`);
}

/** So far the clock of who decided may be from that of the brokers: a delivery that was decided by a clock that had stepped is of another window. */
const limitSkewMs = 1000;

/**
 * No window of a limit rule (`by: subject`) lets more outputs of a subject through than its count, whoever counted and whoever
 * died meanwhile: who takes over counts first what was let through. Of what was decided while clocks stepped nothing is said.
 */
export function limitsHeld(history: Pick<History, 'dispatch'>, { rule, count, perMs }: { readonly rule: string; readonly count: number; readonly perMs: number }): string[] {
  const windows = new Map<string, Set<string>>();
  for (const { output, subject, destination, operation, decided, at } of history.dispatch) {
    if (decided?.limits.includes(rule) !== true || Math.abs(decided.at - at) > limitSkewMs) continue;
    const window = `${subject} at ${destination} ${operation} from ${Math.floor(decided.at / perMs) * perMs}`;
    windows.set(window, (windows.get(window) ?? new Set()).add(output));
  }
  return [...windows].filter(([, outputs]) => outputs.size > count).map(([window, outputs]) => `${rule} let ${outputs.size} outputs of ${window} through, and ${count} are allowed`);
}

/** Each delivery names a release that was applied. */
export function releasesNamed(history: History): string[] {
  return history.dispatch.filter((d) => !history.releases.has(d.release)).map((d) => `${delivery(d)} names release ${d.release}, which was never applied`);
}
