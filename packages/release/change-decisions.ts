import { decide, type Decision, type Subject } from '@weir/policy';
import { propagate, type StatesSeen } from './propagation.ts';
import type { Release } from './types.ts';
import { untold } from './untold.ts';

/** Name of the canonical record of a change of consent, without namespace. */
const consentChange = 'ConsentChange';

/** One canonical record, as it was decided on. */
export interface DecidedRecord {
  readonly outputId: string;
  /** With `ids`: all that are linked to its own; undefined = too many to say. */
  readonly subject: Subject;
  /** Its own identifiers. */
  readonly ids: readonly string[];
  /** ms since the epoch. */
  readonly now: number;
}

/**
 * The decisions on a change of consent, without who knows it (`consent-origin`, `consent-echo`) and with who is not told
 * under every identifier (`identifier-unknown`). On any other record they are what they were. The policy stage, `weir policy
 * explain` and rehearsals share it.
 */
export function changeDecisions(decisions: readonly Decision[], { outputId, subject, ids, now }: DecidedRecord, release: Release, tables: StatesSeen): readonly Decision[] {
  if (subject.recordName !== consentChange) return decisions;
  const value = subject.record as Readonly<Record<string, unknown>> & { readonly purpose: string; readonly channel: string | null; readonly topic: string | null; readonly state: string };
  const told = propagate(decisions, { outputId, source: subject.source, ids, purpose: value.purpose, channel: value.channel, topic: value.topic, state: value.state }, tables, release);
  // A correction or restriction is what consent is not asked about, and nothing is taken of a limit.
  const not = untold({ value, ids, linked: subject.ids }, told, release, (record) => decide(release.policy, { ...subject, record }, { now, take: () => false, consent: () => ({ ok: false, reason: 'consent-missing', seen: [] }) }));
  return not.length === 0 ? told : [...told, ...not];
}
