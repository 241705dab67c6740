import { apiSource } from '@weir/pipeline';
import { decide, type Decision, type Subject } from '@weir/policy';
import { carryOn, type Onward } from './linked.ts';
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

export interface ChangeDecisions {
  readonly decisions: readonly Decision[];
  /** What goes out once more, under linked identifiers. */
  readonly onward: readonly Onward[];
}

/**
 * Reasons of a no that comes again and again: a browser sends the Global Privacy Control with every request, a platform an opt-out
 * in the US (GPP) with every string. It is not `standing`, so that no yes which is said all the time lifts it.
 */
const signals: ReadonlySet<unknown> = new Set(['gpc', 'gpp']);
const none: readonly Onward[] = [];
/** Whether `changeDecisions` has something to say of it. */
export const isConsentChange = ({ recordName }: Pick<Subject, 'recordName'>): boolean => recordName === consentChange;

const unknown = (): undefined => undefined;
/** Whether a change is said with every call, and no act of the person. What comes by the consent API are acts, whose `reason` is free text. */
export function isRepeated({ standing, reason }: { readonly standing?: boolean | null; readonly reason?: string | null }, source: string): boolean {
  return standing === true || (source !== apiSource && signals.has(reason));
}

/**
 * The decisions on a change of consent, without who knows it (`consent-origin`, `consent-echo`), and once more for who knows
 * the person by a linked identifier; with who is not told under every identifier (`identifier-unknown`). On any other record
 * they are what they were. The policy stage, `weir policy explain` and rehearsals share it.
 *
 * @param valueOf gives what a linked identifier is in the clear, which is asked only of a change that closes and lacks it; undefined = not known
 */
export function changeDecisions(decisions: readonly Decision[], { outputId, subject, ids, now }: DecidedRecord, release: Release, tables: StatesSeen, valueOf: (id: string) => string | undefined = unknown): ChangeDecisions {
  if (!isConsentChange(subject)) return { decisions, onward: none };
  const value = subject.record as Readonly<Record<string, unknown>> & { readonly purpose: string; readonly channel: string | null; readonly topic: string | null; readonly state: string; readonly standing?: boolean | null; readonly reason?: string | null };
  const seen = { outputId, source: subject.source, ids, purpose: value.purpose, channel: value.channel, topic: value.topic, state: value.state, repeats: isRepeated(value, subject.source), ...(subject.acceptedAt === undefined ? {} : { acceptedAt: subject.acceptedAt }) };
  const told = propagate(decisions, seen, tables, release);
  // A correction or restriction is what consent is not asked about, and nothing is taken of a limit.
  const decideAs = (record: Readonly<Record<string, unknown>>): readonly Decision[] => decide(release.policy, { ...subject, record }, { now, take: () => false, consent: () => ({ ok: false, reason: 'consent-missing', seen: [] }) });
  const change = { value, ids, linked: subject.ids };
  const lacking = untold(change, told, release, decideAs);
  if (lacking === undefined) return { decisions: told, onward: none };
  // What a tool that was told says again ends here under each identifier: also where the one that is linked has said no by itself.
  const passedOn = (record: Readonly<Record<string, unknown>>, id: string): readonly Decision[] => propagate(propagate(decideAs(record), seen, tables, release), { ...seen, ids: [id] }, tables, release);
  const { onward, denials } = carryOn(change, lacking, release.policy.routes.get(consentChange) ?? [], release.linkedIdentifiers === true ? valueOf : unknown, passedOn);
  return { decisions: denials.length === 0 ? told : [...told, ...denials], onward };
}
