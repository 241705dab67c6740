import { hash } from 'node:crypto';
import { erasureSource } from '@weir/pipeline';
import { asRouted, type Routes } from './routed.ts';
import { sameSpelling } from './spelling.ts';
import type { ConflictRule, ConsentSeen, ConsentState } from './types.ts';

/** One change of consent for one identifier, as it stands on weir.consent.changes. */
export interface ConsentChange {
  readonly changeId: string;
  readonly purpose: string;
  readonly channel: string;
  readonly topic: string;
  readonly state: ConsentState['state'];
  readonly source: string;
  readonly acceptedAt: number;
  /** When the record by which it came in was appended, by the broker's clock; absent = not known. */
  readonly loggedAt?: number;
  /** When it happened, as the sender says; absent = when it was accepted. */
  readonly occurredAt?: number | null;
  readonly legalBasis: string | null;
  readonly proof: string | null;
  readonly expiresAt: number | null;
  readonly jurisdiction?: string | null;
  readonly noticeVersion?: string | null;
  /** The source says its state again and again: a yes is no act of the person. */
  readonly standing?: boolean;
  /** It is said with every call: once a day destinations are told again, also of what they should know (`setBy`). */
  readonly repeats?: boolean;
  /** Its item is a dead letter: no destination was told of it. Who says the same later is no echo. */
  readonly untold?: boolean;
  /** Its item came under the id of another one: perhaps what was said before, written another way. */
  readonly secondBody?: boolean;
  /** It comes before its turn: what was said after it, and has effect already, it takes nothing from. */
  readonly early?: boolean;
  /** No route of now has its channel, and it is in the words of a sender. */
  readonly unrouted?: boolean;
}

export const logOrder: ConflictRule = { kind: 'log-order', priority: [] };
/**
 * Purpose of a change that closes every purpose on every channel and topic, those that a later release brings included.
 * Only a no may be said of it; a yes is said of one purpose, and opens that one again.
 */
export const everyPurpose = '*';
const remembered = 64;
/** How long what is said with every call is no news, ms of accept times. */
export const echoMs = 86_400_000;
export const closes = (state: string): boolean => state === 'denied' || state === 'withdrawn';
/** Longer purposes, channels and topics are kept as their hash: a key, percent-encoded, stays within what the local store takes. */
const maxPartBytes = 128;

/** A purpose, channel or topic as states carry it; '' for null. */
export function consentPart(text: string | null | undefined): string {
  if (text === null || text === undefined) return '';
  return text.length * 3 <= maxPartBytes || Buffer.byteLength(text) <= maxPartBytes ? text : `sha256:${hash('sha256', text.toWellFormed(), 'hex').slice(0, 32)}`;
}

/** A word outside the four closes. */
function wordOf(state: string): ConsentState['state'] {
  return state === 'granted' || state === 'withdrawn' || state === 'unknown' ? state : 'denied';
}

type Dated = Pick<ConsentChange, 'acceptedAt' | 'occurredAt' | 'source' | 'standing' | 'repeats'>;
const isDated = ({ acceptedAt, occurredAt }: Dated): boolean => occurredAt !== undefined && occurredAt !== null && occurredAt < acceptedAt;

/** `happenedAt` of a grant over the state before. What is said all the time, or with every call, is no act, whatever its date. */
function grantedAt(before: ConsentState | undefined, change: Dated): number {
  const known = before?.state === 'granted' && before.source === change.source ? before.happenedAt ?? 0 : 0;
  return isDated(change) && change.standing !== true && change.repeats !== true ? Math.max(known, change.occurredAt!) : known;
}

/** A no that its sender dates before the act of yes that stands, by the clock of the same source. */
const isOlder = (change: Dated, before: ConsentState): boolean => before.state === 'granted' && before.source === change.source && isDated(change) && change.occurredAt! < (before.happenedAt ?? 0);

/**
 * Whether a change that was not folded before has effect. A denial or withdrawal always has, but for that of a second body
 * under one event id that says itself that it is older than the yes: it may be a repetition, and waits for a person; and for one that comes
 * before its turn, where a yes stands that was accepted after it: its turn says. A grant, and `unknown`,
 * only when it was accepted after everything that had effect so far; in the same millisecond only while no id has
 * been forgotten, because then it is surely new. `unknown` lifts a denial only as far as its source says all the time
 * (`standing`) that it stands by its own no no longer; without opening anything (`takesBack`). What is said to have happened before
 * the person said no lifts it neither: a tool that Weir told of a grant tells it back later, when it may be withdrawn.
 *
 * Accept times are of the clocks of the processes that accepted, which step. So a grant must also have come onto the log
 * after the no, and what its sender dates (`occurredAt`) must lie after it, both by the brokers' clock.
 */
function hasEffect(before: ConsentState, state: string, change: ConsentChange, takesBack: boolean): boolean {
  const { acceptedAt, occurredAt, loggedAt } = change;
  if (closes(state) && change.early === true) return before.state !== 'granted' || before.changedAt <= acceptedAt;
  if (closes(state)) return change.secondBody !== true || !isOlder(change, before);
  const happenedAt = occurredAt ?? acceptedAt;
  const closedAt = before.loggedAt ?? 0;
  if (closes(before.state) && ((state === 'unknown' && !takesBack) || happenedAt < before.changedAt || (happenedAt < acceptedAt && happenedAt < closedAt))) return false;
  if (loggedAt !== undefined && loggedAt < closedAt) return false;
  return acceptedAt > before.changedAt || (acceptedAt === before.changedAt && before.seen.length < remembered);
}

/** Sources of one state that are told apart; past it nobody re-opens the state. */
const maxClosers = 16;
const anybody = '*';

/** Sources whose last statement closes the state. States of before this was kept: the one that wrote it. */
function closersOf(before: ConsentState | undefined): readonly string[] {
  if (before === undefined || !closes(before.state)) return [];
  return before.closedBy === undefined || before.closedBy.length === 0 ? [before.source] : before.closedBy;
}

/** What a source says all the time closes under a name of its own: a yes of that kind must not lift a no that was said once. */
const standingOf = (source: string): string => `${source} (standing)`;
const closerOf = ({ source, standing }: ConsentChange): string => (standing === true ? standingOf(source) : source);

/** Those whose denial still stands after a grant of this source. That of an erasure ends with the next act of yes, under any rule: who comes back is a new person, and nobody else could take it back. */
function remaining(closers: readonly string[], change: ConsentChange, rule: ConflictRule): readonly string[] {
  const { source } = change;
  if (closers.includes(anybody) && (rule.kind !== 'log-order' || change.standing === true)) return closers;
  const own = closerOf(change);
  if (change.standing === true) return closers.filter((closer) => closer !== own);
  if (rule.kind === 'log-order') return [];
  const others = closers.filter((closer) => closer !== source && closer !== standingOf(source) && closer !== erasureSource);
  if (rule.kind === 'strictest') return others;
  const rank = (name: string): number => {
    const at = rule.priority.findIndex((listed) => listed === name || standingOf(listed) === name);
    return at < 0 ? rule.priority.length : at;
  };
  return others.filter((closer) => rank(closer) <= rank(source));
}

/**
 * Fold one change into the state of its key (architecture 3.4), pure; undefined = nothing changes. `offset` is where
 * the change stands on its partition. What was folded before, by id, changes nothing; what is at or below the state's
 * offset changes nothing; a grant re-opens a closed state only if it was accepted, came onto the log, and happened, after the change that
 * closed it, and only as far as the workspace's rule for several sources lets it; one that its source says all the time
 * (`standing`) only what the same source closed that way, under any rule; so does an `unknown` of that kind, which then opens nothing. A late withdrawal closes, whatever its source, but for one that is in doubt (`secondBody`).
 * `stop` is the state of the same identifier for every purpose: while it closes, a change is folded as onto a state
 * that it had closed, and a grant that opens all the same, or lifts it in part, names it (`over`).
 *
 * The last 64 ids of a key are remembered; what fell out is covered by accept times, because `changedAt` never falls:
 * a forgotten grant is never newer than it, and a forgotten withdrawal that comes again withdraws again, because it
 * cannot be told from a late one.
 */
export function foldConsent(own: ConsentState | undefined, id: string, change: ConsentChange, offset: number, rule: ConflictRule = logOrder, stop?: ConsentState): ConsentState | undefined {
  if (own !== undefined && (offset <= own.version || own.seen.includes(change.changeId))) return undefined;
  const ofAll = change.purpose === everyPurpose;
  const state = ofAll && !closes(wordOf(change.state)) ? 'unknown' : wordOf(change.state);
  if (ofAll && own !== undefined && !closes(state)) return { ...own, version: offset, seen: remember(own.seen, change.changeId) };
  const over = ofAll || stop === undefined || !closes(stop.state) ? '' : stop.changeId;
  const before = over === '' || own?.over === over ? own : stoppedBy(stop!, own, id, change);
  const seen = remember(before?.seen ?? [], change.changeId);
  // Under a no to every purpose its own state stays what it was: a closed one of its own would outlive what lifts that no.
  if (before !== undefined && !hasEffect(before, state, change, change.standing === true && over === '')) return { ...(before === own ? before : own ?? { ...before, state: 'unknown', closedBy: [] }), version: offset, seen };
  const closers = closersOf(before);
  const closedBy = closes(state) ? closedWith(closers, closerOf(change)) : remaining(closers, change, rule);
  if (before !== undefined && !closes(state) && closedBy.length > 0) {
    // One that is said all the time and lifts nothing must not make a yes that waits somewhere an old one.
    const changedAt = closedBy.length < closers.length || change.standing !== true ? Math.max(before.changedAt, change.acceptedAt) : before.changedAt;
    return { ...before, version: offset, seen, closedBy, changedAt, over };
  }
  // A day after it was told, one that is said with every call is told anew: who was not reached, or came later, hears it then.
  const anew = change.repeats === true && change.untold !== true && change.acceptedAt - (before?.setAt ?? 0) >= echoMs;
  const told = !anew && before !== undefined && says(before.state) === says(state) && before.setBy !== undefined && before.setBy !== '' ? before : undefined;
  return {
    id, purpose: consentPart(change.purpose), channel: consentPart(change.channel), topic: consentPart(change.topic), state, version: offset,
    changedAt: Math.max(before?.changedAt ?? 0, change.acceptedAt), source: change.source, legalBasis: change.legalBasis, proof: change.proof,
    expiresAt: state === 'granted' ? change.expiresAt : null, jurisdiction: change.jurisdiction ?? null, noticeVersion: change.noticeVersion ?? null,
    changeId: change.changeId, seen, closedBy, setBy: told?.setBy ?? (change.untold === true ? '' : change.changeId), setAt: told === undefined ? change.acceptedAt : told.setAt ?? 0,
    loggedAt: Math.max(before?.loggedAt ?? 0, closes(state) ? change.loggedAt ?? 0 : 0), // Whose no was lifted stays lifted while one of them closes it anew.
    over: state === 'granted' || (closes(state) && own?.over === over) ? over : '',
    happenedAt: state === 'granted' ? grantedAt(before, change) : 0, unrouted: closes(state) && (change.unrouted === true || isUnrouted(before)),
  };
}

/** What a state is under a no to every purpose that came after it. Nobody was told of this purpose by that (`setBy`). */
function stoppedBy(stop: ConsentState, own: ConsentState | undefined, id: string, { purpose, channel, topic }: ConsentChange): ConsentState {
  return {
    ...stop, id, purpose: consentPart(purpose), channel: consentPart(channel), topic: consentPart(topic), version: own?.version ?? -1, seen: own?.seen ?? [], over: '',
    changedAt: Math.max(stop.changedAt, own?.changedAt ?? 0), loggedAt: Math.max(stop.loggedAt ?? 0, own?.loggedAt ?? 0),
    closedBy: closersOf(own).reduce(closedWith, closersOf(stop)), setBy: own !== undefined && closes(own.state) ? own.setBy ?? '' : '', setAt: own?.setAt ?? 0, unrouted: isUnrouted(own),
  };
}

const isUnrouted = (before: ConsentState | undefined): boolean => before !== undefined && closes(before.state) && before.unrouted === true;

const says = (state: string): string => (closes(state) ? 'no' : state);

function closedWith(closers: readonly string[], source: string): readonly string[] {
  if (closers.includes(source) || closers.includes(anybody)) return closers;
  return closers.length >= maxClosers ? [anybody] : [...closers, source];
}

function remember(seen: readonly string[], id: string): readonly string[] {
  return [...seen.slice(-(remembered - 1)), id];
}

const plain = /^[A-Za-z0-9 ._:@/-]*$/;
const quoted = (part: string) => (plain.test(part) ? part : encodeURIComponent(part.toWellFormed()));

/** Key of a state on weir.consent and in the table; parts are percent-encoded where they hold anything unusual, so it is unambiguous. */
export function consentKey(id: string, purpose: string, channel: string, topic: string): string {
  return `${id}|${quoted(consentPart(purpose))}|${quoted(consentPart(channel))}|${quoted(consentPart(topic))}`;
}

/** One state of an identifier, as a decision needs it. */
export type ConsentEntry = Pick<ConsentState, 'purpose' | 'channel' | 'topic' | 'state' | 'version' | 'expiresAt' | 'over'> & Partial<Pick<ConsentState, 'changeId' | 'unrouted'>>;
/** Every state of an identifier; 'too-many' closes. */
export type StatesOf = (id: string) => readonly ConsentEntry[] | 'too-many';
/** `until`: when the first grant that was looked at expires, ms; Infinity = none does. Before it, the same states give the same answer. */
export type ConsentAnswer = { readonly ok: true; readonly seen: readonly ConsentSeen[]; readonly until?: number } | { readonly ok: false; readonly reason: string; readonly seen: readonly ConsentSeen[] };

/** States recorded with one decision. */
const maxSeen = 64;

/** What the states of all linked identifiers add up to. */
class Tally {
  readonly seen: ConsentSeen[] = [];
  granted = false;
  until = Number.POSITIVE_INFINITY;
  expired = false;
  refusal: string | undefined;

  /** @param covers a grant of this level reaches the whole use */
  add(id: string, entry: ConsentEntry, covers: boolean, now: number): void {
    if (!covers && !closes(entry.state)) return;
    if (this.seen.length < maxSeen) this.seen.push({ id, purpose: entry.purpose, state: entry.state, version: entry.version });
    if (closes(entry.state)) {
      if (this.refusal !== 'consent-withdrawn') this.refusal = `consent-${entry.state}`;
    } else if (entry.state === 'granted') {
      if (entry.expiresAt !== null && entry.expiresAt <= now) this.expired = true;
      else {
        this.granted = true;
        if (entry.expiresAt !== null) this.until = Math.min(this.until, entry.expiresAt);
      }
    }
  }

  answer(legalBasis: string | null): ConsentAnswer {
    const { seen } = this;
    if (this.refusal !== undefined) return { ok: false, reason: this.refusal, seen };
    if ((legalBasis === null || legalBasis === 'consent') && !this.granted) return { ok: false, reason: this.expired ? 'consent-expired' : 'consent-missing', seen };
    return { ok: true, seen, until: this.until };
  }
}

const covers = (state: string, use: string) => state === use || state === '';
/** A state bears on a part of a use, as it is written or nearly so; a use that names none is one on all. */
const bearsOn = (state: string, use: string): boolean => covers(state, use) || use === '' || sameSpelling(state, use);
/** A sender's word for a channel that no route had may be any of them, until one has it: no release opens by its routes what was closed before it had them. */
const bearsOnChannel = ({ channel, unrouted }: ConsentEntry, use: string, routes: Routes | undefined): boolean => bearsOn(channel, use) || (unrouted === true && routes !== undefined && asRouted(routes, 'channel', channel) === undefined);

/**
 * Whether a no that is not written as the routes write it was undone: by a grant of the purpose, for the same channel and topic in
 * whatever spelling, that was folded after it. As where both have one key, it is undone also when the grant expires.
 */
function isUndone(no: ConsentEntry, states: readonly ConsentEntry[], purpose: string): boolean {
  return states.some((entry) => entry.state === 'granted' && entry.purpose === purpose && entry.version > no.version
    && (entry.channel === no.channel || sameSpelling(entry.channel, no.channel)) && (entry.topic === no.topic || sameSpelling(entry.topic, no.topic)));
}

/**
 * May a person be used for this purpose now? `ids` are all linked identifiers, each with every state that is known of
 * it. A denial or withdrawal at any level (all channels and topics, this channel, this topic) of any identifier closes,
 * whatever the legal basis; where a use names no channel (or no topic) it is one on every channel, so a denial of any
 * of them closes it. So does one of every purpose, but for what was granted over it since. A no whose channel or topic only differs
 * in spelling from the use's, and one of every purpose on one channel or topic, are what the normalizer of before wrote: they
 * close, too, until a grant for the same is folded after them. One that was `unrouted`
 * when it was folded closes every channel while none of the `routes` of the running policy has its own. Basis `consent`, and null,
 * also need a grant, not expired, at a level that covers the channel and topic. Nothing known: closed for these, open
 * for the others (contract, legitimate interest, legal obligation).
 */
export function checkUse(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: string | null, statesOf: StatesOf, now: number, routes?: Routes): ConsentAnswer {
  const tally = new Tally();
  const [ofPurpose, onChannel, onTopic] = [consentPart(purpose), consentPart(channel), consentPart(topic)];
  for (const id of ids) {
    const states = statesOf(id);
    if (states === 'too-many') return { ok: false, reason: 'consent-denied', seen: tally.seen };
    let stop: ConsentEntry | undefined;
    let overs: string[] | undefined;
    for (const entry of states) {
      if (entry.purpose !== ofPurpose) {
        if (entry.purpose !== everyPurpose || !closes(entry.state)) continue;
        if (entry.channel === '' && entry.topic === '') stop = entry;
        else if (bearsOn(entry.topic, onTopic) && bearsOnChannel(entry, onChannel, routes) && !isUndone(entry, states, ofPurpose)) tally.add(id, entry, false, now);
        continue;
      }
      const whole = covers(entry.channel, onChannel) && covers(entry.topic, onTopic);
      if (whole && entry.state === 'granted' && entry.over && (entry.expiresAt === null || entry.expiresAt > now)) (overs ??= []).push(entry.over);
      if (whole || ((covers(entry.channel, onChannel) || onChannel === '') && (covers(entry.topic, onTopic) || onTopic === ''))) tally.add(id, entry, whole, now);
      else if (closes(entry.state) && bearsOn(entry.topic, onTopic) && bearsOnChannel(entry, onChannel, routes) && !isUndone(entry, states, ofPurpose)) tally.add(id, entry, false, now);
    }
    if (stop !== undefined && (stop.changeId === undefined || overs?.includes(stop.changeId) !== true)) tally.add(id, stop, true, now);
  }
  return tally.answer(legalBasis);
}

export const maxLinked = 64;

/** All identifiers linked with these, breadth first; undefined when there are more than 64: too wide to decide on. */
export function closure(ids: readonly string[], neighbours: (id: string) => Iterable<string>): readonly string[] | undefined {
  const found = new Set(ids);
  if (found.size > maxLinked) return undefined;
  for (const id of found) {
    for (const next of neighbours(id)) {
      found.add(next);
      if (found.size > maxLinked) return undefined;
    }
  }
  return [...found];
}
