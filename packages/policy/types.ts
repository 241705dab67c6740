/** What a user writes about routing, purposes and rules, as values. */
export interface Route {
  /** Canonical record name without namespace: Profile, Event, … */
  readonly on: string;
  readonly operation: string;
  /** Purpose of the workspace; required for operations of kind use. */
  readonly purpose?: string;
  readonly channel?: string;
  readonly topic?: string;
  /** CEL over record, source, now; absent = always. */
  readonly when?: string;
}

export type LegalBasis = 'consent' | 'contract' | 'legitimate-interest' | 'legal-obligation';

export interface Purpose {
  readonly name: string;
  readonly doc: string;
  /** DPV legal basis: consent needs a granted state; the others need no opt-in but honour a denial or withdrawal. */
  readonly legalBasis: LegalBasis;
}

export type RuleEffect = 'allow' | 'deny' | 'route' | 'residency' | 'delay' | 'limit' | 'minimise' | 'hash' | 'mask' | 'require-approval' | 'escalate';

/**
 * The variables of every condition: `record` is the canonical record, `now` ms since the epoch, `meta` has eventId,
 * acceptedAt and now (ms), hour (0-23, UTC) and weekday (1 = Monday … 7, UTC). `region` is the ISO 3166 code of where
 * the person is, "" when that is not known.
 */
export const ruleVariables = { record: 'map', source: 'string', destination: 'string', operation: 'string', purpose: 'string', channel: 'string', topic: 'string', now: 'int', meta: 'map', region: 'string' } as const;

export interface ConsentSeen {
  readonly id: string;
  readonly purpose: string;
  readonly state: string;
  readonly version: number;
}

/**
 * Which of several sources may re-open what one of them closed. A denial or withdrawal closes at once, from any of them.
 * `log-order`: whoever grants last. `strictest`: each source only its own. `source-priority`: its own, and those of
 * sources that stand below it in `priority`; one that is not listed stands last.
 */
export interface ConflictRule {
  readonly kind: 'log-order' | 'strictest' | 'source-priority';
  readonly priority: readonly string[];
}

/** weir.internal.ConsentState, decoded. */
export interface ConsentState {
  readonly id: string;
  readonly purpose: string;
  readonly channel: string;
  readonly topic: string;
  readonly state: 'granted' | 'denied' | 'withdrawn' | 'unknown';
  readonly version: number;
  readonly changedAt: number;
  readonly source: string;
  readonly legalBasis: string | null;
  readonly proof: string | null;
  readonly expiresAt: number | null;
  readonly changeId: string;
  readonly seen: readonly string[];
  readonly jurisdiction?: string | null;
  readonly noticeVersion?: string | null;
  /** Sources whose last statement closes it; `*` = more than are told apart. */
  readonly closedBy?: readonly string[];
  /**
   * Output id of the change that brought it to what it says (yes, no or unknown); those that said it again are not named, but
   * for the first in a day of what is said with every call (`repeats`).
   */
  readonly setBy?: string;
  /** When that change was accepted, ms; 0 or absent = not known, long ago. */
  readonly setAt?: number;
  /** Latest time, by the brokers' clock, at which a change that closes came onto the log, ms; 0 or absent = not known. */
  readonly loggedAt?: number;
  /** Of a grant that was an act and that its sender dates: when it happened, ms, the latest of those of its source; 0 or absent = not known. */
  readonly happenedAt?: number;
  /** Of a no that a mapping gave: no route had its channel when it was folded. Absent in states of before this was kept, which are read for what they say. */
  readonly unrouted?: boolean;
  /** A grant that was given after a no to every purpose: the change id of that no, which it lifts for this purpose. */
  readonly over?: string;
}
