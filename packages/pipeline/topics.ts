/** Topic names of one workspace under its prefix. `infra/topics.yaml` declares their configuration. */
export interface TopicNames {
  readonly prefix: string;
  raw(source: string): string;
  dispatch(destination: string): string;
  parked(destination: string): string;
  ledger(destination: string): string;
  readonly canonical: string;
  readonly consentChanges: string;
  readonly consent: string;
  readonly consentApplied: string;
  readonly identity: string;
  readonly outcome: string;
  readonly dlq: string;
  /** Keys under which personal data is sealed, and marks of erasure. */
  readonly keys: string;
  readonly control: string;
  readonly audit: string;
}

const namePattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** Sources and destinations are named by this pattern; names are never joined to file paths unchecked. */
export function isName(name: string): boolean {
  return namePattern.test(name);
}

export function topicNames(prefix: string): TopicNames {
  return {
    prefix,
    raw: (source) => `${prefix}.raw.${source}`,
    dispatch: (destination) => `${prefix}.dispatch.${destination}`,
    parked: (destination) => `${prefix}.parked.${destination}`,
    ledger: (destination) => `${prefix}.ledger.${destination}`,
    canonical: `${prefix}.canonical`,
    consentChanges: `${prefix}.consent.changes`,
    consent: `${prefix}.consent`,
    consentApplied: `${prefix}.consent.applied`,
    identity: `${prefix}.identity`,
    outcome: `${prefix}.outcome`,
    dlq: `${prefix}.dlq`,
    keys: `${prefix}.keys`,
    control: `${prefix}.control`,
    audit: `${prefix}.audit`,
  };
}

/** Consumer group ids of one workspace. */
export function groupNames(prefix: string) {
  return {
    normalizer: `${prefix}.normalizer`,
    policy: `${prefix}.policy`,
    consentFold: `${prefix}.consent-fold`,
    consentApplied: `${prefix}.consent-applied`,
    dispatcher: (destination: string) => `${prefix}.dispatcher.${destination}`,
    poller: `${prefix}.poller`,
  } as const;
}
