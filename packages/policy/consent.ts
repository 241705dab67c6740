import { hash } from 'node:crypto';
import type { ConflictRule, ConsentSeen, ConsentState, LegalBasis } from './types.ts';

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
}

export const logOrder: ConflictRule = { kind: 'log-order', priority: [] };
const remembered = 64;
const closes = (state: string): boolean => state === 'denied' || state === 'withdrawn';
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

/**
 * Whether a change that was not folded before has effect. A denial or withdrawal always has. A grant, and `unknown`,
 * only when it was accepted after everything that had effect so far; in the same millisecond only while no id has
 * been forgotten, because then it is surely new. `unknown` never lifts a denial. What is said to have happened before
 * the person said no lifts it neither: a tool that Weir told of a grant tells it back later, when it may be withdrawn.
 *
 * Accept times are of the clocks of the processes that accepted, which step. So a grant must also have come onto the log
 * after the no, and what its sender dates (`occurredAt`) must lie after it, both by the brokers' clock.
 */
function hasEffect(before: ConsentState, state: string, { acceptedAt, occurredAt, loggedAt }: Pick<ConsentChange, 'acceptedAt' | 'occurredAt' | 'loggedAt'>): boolean {
  if (closes(state)) return true;
  const happenedAt = occurredAt ?? acceptedAt;
  const closedAt = before.loggedAt ?? 0;
  if (closes(before.state) && (state === 'unknown' || happenedAt < before.changedAt || (happenedAt < acceptedAt && happenedAt < closedAt))) return false;
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

/** Those whose denial still stands after a grant of this source. */
function standing(closers: readonly string[], source: string, rule: ConflictRule): readonly string[] {
  if (closers.includes(anybody) && rule.kind !== 'log-order') return closers;
  if (rule.kind === 'log-order') return [];
  if (rule.kind === 'strictest') return closers.filter((closer) => closer !== source);
  const rank = (name: string): number => (rule.priority.includes(name) ? rule.priority.indexOf(name) : rule.priority.length);
  return closers.filter((closer) => closer !== source && rank(closer) <= rank(source));
}

/**
 * Fold one change into the state of its key (architecture 3.4), pure; undefined = nothing changes. `offset` is where
 * the change stands on its partition. What was folded before, by id, changes nothing; what is at or below the state's
 * offset changes nothing; a grant re-opens a closed state only if it was accepted, came onto the log, and happened, after the change that
 * closed it, and only as far as the workspace's rule for several sources lets it. A late withdrawal closes, whatever its source.
 *
 * The last 64 ids of a key are remembered; what fell out is covered by accept times, because `changedAt` never falls:
 * a forgotten grant is never newer than it, and a forgotten withdrawal that comes again withdraws again, because it
 * cannot be told from a late one.
 */
export function foldConsent(before: ConsentState | undefined, id: string, change: ConsentChange, offset: number, rule: ConflictRule = logOrder): ConsentState | undefined {
  if (before !== undefined && (offset <= before.version || before.seen.includes(change.changeId))) return undefined;
  const state = wordOf(change.state);
  const seen = remember(before?.seen ?? [], change.changeId);
  if (before !== undefined && !hasEffect(before, state, change)) return { ...before, version: offset, seen };
  const closers = closersOf(before);
  const closedBy = closes(state) ? closedWith(closers, change.source) : standing(closers, change.source, rule);
  if (before !== undefined && !closes(state) && closedBy.length > 0) return { ...before, version: offset, seen, closedBy, changedAt: Math.max(before.changedAt, change.acceptedAt) };
  return {
    id, purpose: consentPart(change.purpose), channel: consentPart(change.channel), topic: consentPart(change.topic), state, version: offset,
    changedAt: Math.max(before?.changedAt ?? 0, change.acceptedAt), source: change.source, legalBasis: change.legalBasis, proof: change.proof,
    expiresAt: state === 'granted' ? change.expiresAt : null, jurisdiction: change.jurisdiction ?? null, noticeVersion: change.noticeVersion ?? null,
    changeId: change.changeId, seen, closedBy, setBy: before !== undefined && says(before.state) === says(state) ? before.setBy ?? '' : change.changeId,
    loggedAt: Math.max(before?.loggedAt ?? 0, closes(state) ? change.loggedAt ?? 0 : 0),
  };
}

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
export type ConsentEntry = Pick<ConsentState, 'purpose' | 'channel' | 'topic' | 'state' | 'version' | 'expiresAt'>;
/** Every state of an identifier; 'too-many' closes. */
export type StatesOf = (id: string) => readonly ConsentEntry[] | 'too-many';
export type ConsentLookup = (key: string) => ConsentState | undefined;
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

/**
 * May a person be used for this purpose now? `ids` are all linked identifiers. A denial or withdrawal at any
 * level (all channels and topics, this channel, this topic) of any identifier closes, whatever the legal
 * basis; basis `consent` also needs a grant, not expired, at a level that covers the channel and topic.
 * Nothing known: closed for `consent`, open for the others (contract, legitimate interest, legal obligation).
 */
export function checkConsent(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: LegalBasis, lookup: ConsentLookup, now: number): ConsentAnswer {
  const tally = new Tally();
  for (const id of ids) {
    for (const level of levels(channel, topic)) {
      const state = lookup(consentKey(id, purpose, level[0], level[1]));
      if (state !== undefined) tally.add(id, state, true, now);
    }
  }
  return tally.answer(legalBasis);
}

const covers = (state: string, use: string) => state === use || state === '';

/**
 * The same rule over every state that is known of the identifiers, which decides more safely where a use names no
 * channel (or no topic): that is a use on every channel, so a denial of any of them closes it. A null basis counts as
 * consent.
 */
export function checkUse(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: string | null, statesOf: StatesOf, now: number): ConsentAnswer {
  const tally = new Tally();
  const [ofPurpose, onChannel, onTopic] = [consentPart(purpose), consentPart(channel), consentPart(topic)];
  for (const id of ids) {
    const states = statesOf(id);
    if (states === 'too-many') return { ok: false, reason: 'consent-denied', seen: tally.seen };
    for (const entry of states) {
      if (entry.purpose !== ofPurpose) continue;
      const whole = covers(entry.channel, onChannel) && covers(entry.topic, onTopic);
      if (whole || ((covers(entry.channel, onChannel) || onChannel === '') && (covers(entry.topic, onTopic) || onTopic === ''))) tally.add(id, entry, whole, now);
    }
  }
  return tally.answer(legalBasis);
}

function levels(channel: string | null, topic: string | null): [string, string][] {
  const found: [string, string][] = [['', '']];
  if (channel) found.push([channel, '']);
  if (topic) found.push(['', topic]);
  if (channel && topic) found.push([channel, topic]);
  return found;
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
