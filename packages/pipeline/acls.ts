/**
 * What each service asks of the brokers, for logins of its own with no more rights than that (docs/operate.md has it as a
 * table). tests/full/acls.test.ts runs every service under these and nothing else. Operations are Kafka's; Read and Write
 * imply Describe, and what stands under one topic holds for `<topic>` with the workspace's prefix before it. A name that
 * ends with `*` is a prefix. https://kafka.apache.org/documentation/#operations_in_kafka
 */
export type AclOperation = 'Read' | 'Write' | 'Create' | 'Describe' | 'DescribeConfigs';

export interface AclGrants {
  readonly topics: Readonly<Record<string, readonly AclOperation[]>>;
  readonly groups: Readonly<Record<string, readonly AclOperation[]>>;
}

const read = ['Read'] as const;
const write = ['Write'] as const;
const both = ['Read', 'Write'] as const;

export const acls = {
  ingest: {
    topics: { 'raw.*': write, canonical: write, 'consent.changes': write, consent: read, 'consent.applied': both, identity: both, 'dispatch.*': ['Describe'], outcome: write, dlq: write, keys: both, control: both },
    groups: { 'poller.*': read },
  },
  normalizer: {
    topics: { 'raw.*': ['Read', 'DescribeConfigs'], canonical: write, 'consent.changes': write, identity: write, outcome: write, dlq: write, keys: both, control: read },
    groups: { normalizer: read },
  },
  policy: {
    topics: { canonical: ['Read', 'Write', 'DescribeConfigs'], 'consent.changes': both, consent: both, 'consent.applied': both, identity: both, 'dispatch.*': both, outcome: write, dlq: write, keys: read, control: both },
    groups: { policy: read, 'consent-fold': read, 'consent-applied': read },
  },
  dispatcher: {
    topics: {
      'dispatch.*': ['Read', 'Write', 'DescribeConfigs'], 'parked.*': ['Read', 'Write', 'DescribeConfigs'], 'ledger.*': ['Read', 'Write', 'DescribeConfigs'], consent: read, 'consent.applied': both, identity: read,
      outcome: write, dlq: write, keys: read, control: both,
    },
    groups: { 'dispatcher.*': read },
  },
  control: {
    topics: { '*': ['Read', 'Create', 'DescribeConfigs'], 'raw.*': write, canonical: write, 'consent.changes': write, 'consent.applied': write, identity: write, 'dispatch.*': write, outcome: write, keys: write, control: write, audit: write },
    groups: { '*': ['Describe'] },
  },
  /** `weir apply` and `weir topics` with KAFKA_BROKERS, and scripts/prepare.ts. */
  cli: { topics: { '*': ['Create', 'DescribeConfigs', 'Describe'], control: both, audit: both }, groups: {} },
} as const satisfies Record<string, AclGrants>;

export type AclPrincipal = keyof typeof acls;

/** One access rule: a resource under the workspace's prefix, and an operation on it. */
export interface AclRule {
  readonly resource: 'Topic' | 'Group';
  readonly name: string;
  readonly prefixed: boolean;
  readonly operation: AclOperation;
}

/** The rules of a service in a workspace of this prefix. */
export function aclRules(principal: AclPrincipal, prefix: string): readonly AclRule[] {
  const rules = (resource: AclRule['resource'], grants: Readonly<Record<string, readonly AclOperation[]>>): AclRule[] => Object.entries(grants).flatMap(([name, operations]) => operations.map((operation): AclRule => {
    const prefixed = name.endsWith('*');
    return { resource, name: `${prefix}.${prefixed ? name.slice(0, -1) : name}`, prefixed, operation };
  }));
  return [...rules('Topic', acls[principal].topics), ...rules('Group', acls[principal].groups)];
}
