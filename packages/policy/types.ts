/** What a user writes about routing, purposes and rules, as values. */
export interface Route {
  /** Canonical record name without namespace: Profile, Event, … */
  readonly on: string;
  readonly operation: string;
  /** Purpose of the workspace; required for operations of kind use. */
  readonly purpose?: string;
  readonly channel?: string;
  readonly topic?: string;
  /** CEL over record, source, meta; absent = always. */
  readonly when?: string;
}

export interface Purpose {
  readonly name: string;
  readonly doc: string;
  /** DPV legal basis: consent needs a granted state; the others need no opt-in but honour a denial or withdrawal. */
  readonly legalBasis: 'consent' | 'contract' | 'legitimate-interest' | 'legal-obligation';
}

/** One policy rule as written; compiled by the policy service. */
export interface PolicyRule {
  readonly name: string;
  readonly file: string;
  readonly line: number;
  readonly effect: 'allow' | 'deny' | 'delay' | 'limit';
  readonly when?: string;
  /** delay: CEL that gives a timestamp in ms, or quiet hours. limit: count per window and key. Validated by the policy package. */
  readonly options: Readonly<Record<string, unknown>>;
}
