import type { ConsentSeen, ConsentState, LegalBasis } from './types.ts';

/** One change of consent for one identifier, as it stands on weir.consent.changes. */
export interface ConsentChange {
  readonly changeId: string;
  readonly purpose: string;
  readonly channel: string;
  readonly topic: string;
  readonly state: ConsentState['state'];
  readonly source: string;
  readonly acceptedAt: number;
  readonly legalBasis: string | null;
  readonly proof: string | null;
  readonly expiresAt: number | null;
}

const remembered = 64;
const closes = (state: string): boolean => state === 'denied' || state === 'withdrawn';

/**
 * Fold one change into the state of its key (docs/architecture.md 3.4). `offset` is where the change stands on
 * its partition. What was folded before, by id, changes nothing; what is older than the state's offset changes
 * nothing; a grant re-opens a closed state only if it was accepted after the change that closed it, so a
 * repeated or back-dated grant, also one whose id fell out of memory, never does. A late withdrawal closes.
 */
export function foldConsent(before: ConsentState | undefined, id: string, change: ConsentChange, offset: number): ConsentState | undefined {
  if (before !== undefined) {
    if (offset <= before.version || before.seen.includes(change.changeId)) return undefined;
    if (closes(before.state) && !closes(change.state) && change.acceptedAt <= before.changedAt) return { ...before, seen: remember(before.seen, change.changeId) };
  }
  const changedAt = before !== undefined && closes(change.state) ? Math.max(before.changedAt, change.acceptedAt) : change.acceptedAt;
  return {
    id, purpose: change.purpose, channel: change.channel, topic: change.topic, state: change.state, version: offset, changedAt,
    source: change.source, legalBasis: change.legalBasis, proof: change.proof, expiresAt: change.expiresAt, changeId: change.changeId, seen: remember(before?.seen ?? [], change.changeId),
  };
}

function remember(seen: readonly string[], id: string): readonly string[] {
  return [...seen.slice(-(remembered - 1)), id];
}

/** Key of a state on weir.consent and in the table. */
export function consentKey(id: string, purpose: string, channel: string, topic: string): string {
  return `${id}|${purpose}|${channel}|${topic}`;
}

export type ConsentLookup = (key: string) => ConsentState | undefined;
export type ConsentAnswer = { readonly ok: true; readonly seen: readonly ConsentSeen[] } | { readonly ok: false; readonly reason: string; readonly seen: readonly ConsentSeen[] };

/**
 * May a person be used for this purpose now? `ids` are all linked identifiers. A denial or withdrawal at any
 * level (all channels and topics, this channel, this topic) of any identifier closes, whatever the legal
 * basis; basis `consent` also needs a grant, not expired, at a level that covers the channel and topic.
 * Nothing known: closed for `consent`, open for the others (contract, legitimate interest, legal obligation).
 */
export function checkConsent(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: LegalBasis, lookup: ConsentLookup, now: number): ConsentAnswer {
  const seen: ConsentSeen[] = [];
  let granted = false;
  let expired = false;
  let refusal: string | undefined;
  for (const id of ids) {
    for (const level of levels(channel, topic)) {
      const state = lookup(consentKey(id, purpose, level[0], level[1]));
      if (state === undefined) continue;
      seen.push({ id, purpose, state: state.state, version: state.version });
      const over = state.expiresAt !== null && state.expiresAt <= now;
      if (closes(state.state)) refusal ??= `consent-${state.state}`;
      else if (state.state === 'granted' && !over) granted = true;
      else if (state.state === 'granted') expired = true;
    }
  }
  if (refusal !== undefined) return { ok: false, reason: refusal, seen };
  if (legalBasis === 'consent' && !granted) return { ok: false, reason: expired ? 'consent-expired' : 'consent-missing', seen };
  return { ok: true, seen };
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
  for (const id of found) {
    for (const next of neighbours(id)) {
      found.add(next);
      if (found.size > maxLinked) return undefined;
    }
  }
  return [...found];
}
