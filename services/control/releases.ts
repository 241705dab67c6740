import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Adapter } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import type { Appender, LogAdmin, Reader } from '@weir/log';
import { checkTopics, createInTurn, planTopics, type TopicFinding } from '@weir/pipeline';
import { applyRelease, assertPolicyTests, compileRelease, controlKeys, encodeRelease, readControl, secretsOf, valuesUnder, type Release, type ReleaseFile } from '@weir/release';
import { count, flag, instant, list, named, nullable, object, optional, text, type Schema, type ServiceContext, type TypeOf } from '@weir/service';
import type { AuditLog } from './audit.ts';
import type { TopicCounts } from './topic-counts.ts';

export interface ReleaseOrder {
  readonly files: readonly ReleaseFile[];
  readonly message?: string | null;
}
const storedRelease = named('StoredRelease', object('A release that was applied.', {
  hash: text('Its name: a hash of its content.', { example: 'rel_2f1c0a9b4d6e' }), appliedAt: instant('When it was last applied.'), appliedBy: text('Who applied it.'), message: nullable(text('What was said of it.')), current: flag('It runs now.'),
}));
export type StoredRelease = TypeOf<typeof storedRelease>;
export const releasesReply = object('Releases.', { releases: list(storedRelease, 'The newest first.') });

const releaseFile: Schema<ReleaseFile> = named('ReleaseFile', object('A file of the workspace.', { path: text('Path in the workspace.', { example: 'sources/segment.yaml' }), content: text('The file as it is; secrets stand in it by name only.') }));
/** The running release with its files. */
export const runningRelease = named('RunningRelease', object('The running release with its files.', { hash: text('Hash of the release.'), name: text('Name of the workspace.'), files: list(releaseFile, 'Everything it was made of.') }));
export const shortRelease = named('ShortRelease', object('The running release in short.', { hash: text('Hash of the release.'), name: text('Name of the workspace.'), sources: list(text('Source.'), 'Sources by name.'), destinations: list(text('Destination.'), 'Destinations by name.') }));
export const appliedReply = named('AppliedRelease', object('What came of a release.', {
  hash: text('Hash of the release.'), changed: flag('False: it ran already, or waits for its approval.'), topicsCreated: list(text('Topic.'), 'Topics that were missing.'),
}));
export type AppliedRelease = TypeOf<typeof appliedReply>;
export const proposedReply = named('OrderedRelease', object('What came of a release: applied, or proposed where approval is required.', { ...appliedReply.fields, proposal: optional(text('Id of the proposal that somebody else has to approve.')) }));

const topicFinding: Schema<TopicFinding> = named('TopicFinding', object('A topic that is not as it is declared.', { topic: text('Topic.'), message: text('What is wrong.'), remedy: text('What to do.') }));
export const topicsReply = named('TopicsReport', object('Topics against their declaration.', { created: list(text('Topic.'), 'Topics that were made now.'), topics: count('How many the running release needs.'), findings: list(topicFinding, 'What is not as it is declared; none = all is well.') }));
export type TopicsReport = TypeOf<typeof topicsReply>;

/** Who changes it, and the audit leaf that says so. */
export interface ChangedBy {
  readonly actor: string;
  readonly leaf: string;
}

/** Releases and the topics they need. */
export interface ReleaseApi {
  /** The running release with its files; secrets stand in them by name only. */
  current(): TypeOf<typeof runningRelease>;
  list(): Promise<readonly StoredRelease[]>;
  /** Compile, create missing topics, apply; resolves when this instance runs it. `proposedBy`: who proposed what `by` approves; null = nobody else was asked, and the audit leaf says so. Rejects with WorkspaceError. */
  apply(order: ReleaseOrder, by: ChangedBy, proposedBy: string | null): Promise<AppliedRelease>;
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

  /** Everything that a release can be refused for: nothing was changed by then. */
  function compile(order: ReleaseOrder, by = ''): Release {
    const release = compileRelease(order.files, { adapters: ports.adapters, workspaceKey: context.workspaceKey });
    assertPolicyTests(release);
    encodeRelease({ serde, release, by, message: order.message ?? null, now: context.clock.now() });
    return release;
  }

  /** Hash that weir.control names as the current one; what runs here may be older. */
  async function written(): Promise<string | undefined> {
    let last: string | undefined;
    await readControl({ reader, admin, topic: topics.control }, valuesUnder<{ hash: string }>(serde, controlKeys.current, ({ hash }) => { last = hash; }));
    return last;
  }

  async function apply(order: ReleaseOrder, { actor, leaf }: ChangedBy, proposedBy: string | null): Promise<AppliedRelease> {
    const release = compile(order, actor);
    const { specs } = await plan(release);
    const topicsCreated = await admin.createTopics(specs);
    await ports.counts.keep(topicsCreated);
    if (releases.current().hash === release.hash && (await written()) === release.hash) return { hash: release.hash, changed: false, topicsCreated };
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
