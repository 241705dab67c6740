import { appendLeaf, audited, leafId, type AuditLeaf } from '@weir/audit';
import type { Appender, LogAdmin, Serde, TopicSpec } from '@weir/log';
import { applyRelease, secretsOf } from './feed.ts';
import type { Release } from './types.ts';

/** For who writes to the brokers himself (the first deployment), before or beside a control API. */
interface Direct {
  readonly appender: Appender;
  readonly auditTopic: string;
  /** Who, for the audit log. */
  readonly by: string;
  readonly now: () => number;
}

/** Create the topics of a plan that are missing, after the audit leaf of it; resolves with their names. Only the topic of the audit log itself is made before its first leaf. */
export async function createTopicsAudited(options: Direct & { readonly admin: Pick<LogAdmin, 'createTopics' | 'describeTopics'>; readonly plan: readonly TopicSpec[] }): Promise<readonly string[]> {
  const { admin, appender, auditTopic, by, now, plan } = options;
  const first = await admin.createTopics(plan.filter((spec) => spec.name === auditTopic));
  const found = new Map((await admin.describeTopics(plan.map((spec) => spec.name))).map((topic) => [topic.name, topic.exists]));
  const missing = plan.filter((spec) => found.get(spec.name) !== true);
  if (missing.length === 0) return first;
  const made = await audited({ appender, topic: auditTopic, now }, { actor: by, action: 'topics.apply', target: `${missing.length} topics` }, () => admin.createTopics(missing));
  return [...first, ...made];
}

/** The audit leaf, the secrets that the release brings into use, then the release that names the leaf, then how it ended. */
export async function applyAudited(options: Direct & { readonly serde: Serde; readonly topic: string; readonly release: Release; readonly message: string | null }): Promise<void> {
  const { appender, auditTopic, release, by, now, serde, topic, message } = options;
  await audited({ appender, topic: auditTopic, now }, { actor: by, action: 'release.apply', target: release.hash }, async (leaf) => {
    const uses = secretsOf(release).map((name): AuditLeaf => ({ id: leafId(), kind: 'fact', at: now(), actor: by, action: 'secret.use', target: name, of: leaf, details: { release: release.hash } }));
    if (uses.length > 0) await appendLeaf(appender, auditTopic, ...uses);
    await applyRelease({ appender, serde, topic, release, by, message, now: now(), leaf });
  });
}
