import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Adapter } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import type { Appender, LogAdmin, Reader } from '@weir/log';
import { checkTopics, createInTurn, planTopics, type TopicFinding } from '@weir/pipeline';
import { applyRelease, assertPolicyTests, compileRelease, readControl, secretsOf, valuesUnder, type Release, type ReleaseFile } from '@weir/release';
import type { ServiceContext } from '@weir/service';
import type { AuditLog } from './audit.ts';
import type { TopicCounts } from './topic-counts.ts';

export interface ReleaseOrder {
  readonly files: readonly ReleaseFile[];
  readonly message?: string | null;
}
export interface StoredRelease {
  readonly hash: string;
  /** ISO 8601. */
  readonly appliedAt: string;
  readonly appliedBy: string;
  readonly message: string | null;
  readonly current: boolean;
}
export interface TopicsReport {
  readonly created: readonly string[];
  readonly topics: number;
  readonly findings: readonly TopicFinding[];
}

/** Who changes it, and the audit leaf that says so. */
export interface ChangedBy {
  readonly actor: string;
  readonly leaf: string;
}

/** Releases and the topics they need. */
export interface ReleaseApi {
  /** The running release with its files; secrets stand in them by name only. */
  current(): { readonly hash: string; readonly name: string; readonly files: readonly ReleaseFile[] };
  list(): Promise<readonly StoredRelease[]>;
  /** Compile, create missing topics, apply; resolves when this instance runs it. `proposedBy`: who proposed what `by` approves; null = nobody else was asked, and the audit leaf says so. Rejects with WorkspaceError. */
  apply(order: ReleaseOrder, by: ChangedBy, proposedBy: string | null): Promise<{ readonly hash: string; readonly changed: boolean; readonly topicsCreated: readonly string[] }>;
  /** Compile only. Rejects with WorkspaceError. */
  check(order: ReleaseOrder): { readonly hash: string };
  topics(create: boolean): Promise<TopicsReport>;
}

const topicsFile = join(import.meta.dirname, '..', '..', 'infra', 'topics.yaml');
const switchDeadlineMs = 10_000;

export function createReleaseApi(context: ServiceContext, ports: { readonly admin: LogAdmin; readonly appender: Appender; readonly reader: Reader; readonly adapters: ReadonlyMap<string, Adapter>; readonly audit: () => AuditLog; readonly counts: TopicCounts }): ReleaseApi {
  const { releases, serde, topics } = context;
  const { admin, appender, reader } = ports;
  const inTurn = createInTurn();

  async function plan(release: Release) {
    const declared = { path: 'infra/topics.yaml', content: readFileSync(topicsFile, 'utf8') };
    // The bootstrap list may name one broker of many: the control topic shows how it was made.
    const [control] = await admin.describeTopics([topics.control]);
    const brokers = Math.max(context.config.brokers.length, control?.replicationFactor ?? 1);
    return { declared, specs: planTopics(declared, release, { prefix: topics.prefix, brokers }) };
  }

  /** Resolves when the running release is this one; a release that this instance refuses never becomes current. */
  function running(hash: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const done = (error?: Error): void => {
        clearTimeout(timer);
        off();
        if (error === undefined) resolve();
        else reject(error);
      };
      const timer = setTimeout(() => done(new WeirError('not-ready', `release ${hash} was written, but does not run here yet: see the log`)), switchDeadlineMs);
      const off = releases.onChange((release) => { if (release.hash === hash) done(); });
      if (releases.current().hash === hash) done();
    });
  }

  function compile(order: ReleaseOrder): Release {
    const release = compileRelease(order.files, { adapters: ports.adapters, workspaceKey: context.workspaceKey });
    assertPolicyTests(release);
    return release;
  }

  async function apply(order: ReleaseOrder, { actor, leaf }: ChangedBy, proposedBy: string | null): Promise<{ hash: string; changed: boolean; topicsCreated: readonly string[] }> {
    const release = compile(order);
    const { specs } = await plan(release);
    const topicsCreated = await admin.createTopics(specs);
    await ports.counts.keep(topicsCreated);
    if (releases.current().hash === release.hash) return { hash: release.hash, changed: false, topicsCreated };
    await ports.audit().record({ kind: 'fact', actor, action: 'release.hash', target: release.hash, of: leaf, details: proposedBy === null ? { approval: 'none' } : { approval: 'given', proposedBy } });
    for (const name of secretsOf(release)) await ports.audit().record({ kind: 'fact', actor, action: 'secret.use', target: name, of: leaf, details: { release: release.hash } });
    await applyRelease({ appender, serde, topic: topics.control, release, by: actor, message: order.message ?? null, now: context.clock.now(), leaf });
    await running(release.hash);
    return { hash: release.hash, changed: true, topicsCreated };
  }

  return {
    current() {
      const { hash, name, files } = releases.current();
      return { hash, name, files };
    },
    async list() {
      const found = new Map<string, Omit<StoredRelease, 'current'>>();
      await readControl({ reader, admin, topic: topics.control }, valuesUnder<{ hash: string; appliedAt: number; appliedBy: string; message: string | null }>(serde, 'release/rel_', ({ hash, appliedAt, appliedBy, message }) => {
        found.set(hash, { hash, appliedAt: new Date(appliedAt).toISOString(), appliedBy, message });
      }));
      const current = releases.current().hash;
      return [...found.values()].map((r) => ({ ...r, current: r.hash === current })).sort((a, b) => (a.appliedAt < b.appliedAt ? 1 : -1));
    },
    check: (order) => ({ hash: compile(order).hash }),
    // Two orders must not write their releases between each other.
    apply: (order, by, proposedBy) => inTurn(() => apply(order, by, proposedBy)),
    async topics(create) {
      const release = releases.current();
      const { declared, specs } = await plan(release);
      const created = create ? await admin.createTopics(specs) : [];
      if (create) await ports.counts.keep(created);
      return { created, topics: specs.length, findings: await checkTopics(admin, declared, release, specs, topics.prefix) };
    },
  };
}
