import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { commonOptions, defineConfig, kafkaConnection, readConfig, registryConnection, securityOptions } from '@weir/config';
import { createLog, createSerde, type Log } from '@weir/log';
import { checkTopics, planTopics, topicNames, type TopicFinding } from '@weir/pipeline';
import { applyAudited, createTopicsAudited, encodeRelease, type Release } from '@weir/release';
import { UsageError } from './command.ts';

/** What a command needs that talks to the brokers itself: the first deployment, before a control API runs. */
export const brokerOptions = defineConfig({
  brokers: { ...commonOptions.brokers, optional: true, doc: 'When set, weir apply, weir topics and weir doctor talk to these brokers; else to the control API.' },
  registryUrl: { ...commonOptions.registryUrl, optional: true, doc: 'Schema registry; weir apply needs it with KAFKA_BROKERS, weir doctor asks it.' },
  kafkaClient: commonOptions.kafkaClient,
  ...securityOptions,
  topicPrefix: commonOptions.topicPrefix,
});

export interface TopicsReport {
  readonly created: readonly string[];
  readonly topics: number;
  readonly findings: readonly TopicFinding[];
}

type Env = Readonly<Record<string, string | undefined>>;

function declaredTopics(): { readonly path: string; readonly content: string } {
  return { path: 'infra/topics.yaml', content: readFileSync(join(import.meta.dirname, '..', 'infra', 'topics.yaml'), 'utf8') };
}

const directOf = async (log: Log, prefix: string) => ({ appender: await log.appender(), auditTopic: topicNames(prefix).audit, by: 'cli', now: Date.now });

/** The topics of a release on the brokers of KAFKA_BROKERS: create what is missing if asked to, and compare. */
export async function topicsDirect(env: Env, release: Release, create: boolean): Promise<TopicsReport> {
  const config = readConfig(brokerOptions, env);
  const { topicPrefix } = config;
  const brokers = config.brokers!;
  const declared = declaredTopics();
  const plan = planTopics(declared, release, { prefix: topicPrefix, brokers: brokers.length });
  const log = createLog({ ...kafkaConnection({ ...config, brokers }), clientId: 'weir-cli' });
  try {
    const admin = await log.admin();
    const created = create ? await createTopicsAudited({ admin, plan, ...await directOf(log, topicPrefix) }) : [];
    return { created, topics: plan.length, findings: await checkTopics(admin, declared, release, plan, topicPrefix) };
  } finally {
    await log.close();
  }
}

/** Topics, then the release, on the brokers of KAFKA_BROKERS. The services take it up when they see it. */
export async function applyDirect(env: Env, release: Release, message: string | null): Promise<{ hash: string; changed: boolean; topicsCreated: readonly string[] }> {
  const config = readConfig(brokerOptions, env);
  const { registryUrl, topicPrefix } = config;
  const brokers = config.brokers!;
  if (registryUrl === undefined) throw new UsageError('with KAFKA_BROKERS, weir apply needs SCHEMA_REGISTRY_URL too');
  const plan = planTopics(declaredTopics(), release, { prefix: topicPrefix, brokers: brokers.length });
  const log = createLog({ ...kafkaConnection({ ...config, brokers }), clientId: 'weir-cli' });
  try {
    const direct = await directOf(log, topicPrefix);
    const serde = createSerde(registryConnection({ ...config, registryUrl }));
    await serde.start();
    // One that does not fit is refused before anything is made for it.
    encodeRelease({ serde, release, by: direct.by, message, now: direct.now() });
    const topicsCreated = await createTopicsAudited({ admin: await log.admin(), plan, ...direct });
    await applyAudited({ ...direct, serde, topic: topicNames(topicPrefix).control, release, message });
    return { hash: release.hash, changed: true, topicsCreated };
  } finally {
    await log.close();
  }
}
