/**
 * What must be there before the services start: local secrets, topics, registered schemas, and the workspace as the
 * running release. `npm start` calls it; on its own (`node scripts/prepare.ts`) it prepares a cluster given by
 * KAFKA_BROKERS and SCHEMA_REGISTRY_URL, as docker-compose.yml does.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { readAdapterFile, registry } from '@weir/adapters';
import { keepPending, localLeaf, newSigningKey, signingKey } from '@weir/audit';
import { commonOptions, defineConfig, kafkaConnection, readConfig, registryConnection, type ConfigOf } from '@weir/config';
import { findWeirError } from '@weir/errors';
import { createLog, createSerde, type Log, type Serde } from '@weir/log';
import { planTopics, topicNames } from '@weir/pipeline';
import { applyAudited, compileRelease, createTopicsAudited, createReleaseFeed, readWorkspace, secretNames, withDefaults, type Release } from '@weir/release';
import { createLogger } from '@weir/telemetry';
import { ensureSecrets, openVault, readWorkspaceKey, startVault, unwrapEnv, type SecretSpec, type VaultSettings } from '@weir/vault';
import { openAuditLog } from '../services/control/audit.ts';
import { fileWitness, localCheckpoints } from '../services/control/audit-witness.ts';
import { controlOptions } from '../services/control/config.ts';

const root = resolve(import.meta.dirname, '..');

/** What of the environment it takes. */
export const prepareOptions = defineConfig({ ...commonOptions, approval: controlOptions.approval });

type Env = Readonly<Record<string, string | undefined>>;

/** The workspace folder, compiled; a wrapped workspace key must be opened before (unwrapEnv). Throws WorkspaceError. */
export function compileWorkspace(dir: string, dataDir: string, env: Env): Release {
  return compileRelease(withDefaults(readWorkspace(dir), registry, readAdapterFile), { adapters: registry, workspaceKey: readWorkspaceKey(dataDir, env['WEIR_KEY'] || undefined) });
}

/** Makes the secrets of a local run that are set nowhere, the vault of `settings` included: those of every source and destination, the admin token, and the key that signs the audit log. None while that vault cannot be asked: what it has would be made a second time. */
export async function localSecrets(release: Release, target: { readonly dataDir: string; readonly env: Env; readonly settings: VaultSettings; readonly by: string }): Promise<void> {
  const { dataDir, env, settings, by } = target;
  const specs: SecretSpec[] = [{ name: 'ADMIN_TOKEN' }, { name: 'AUDIT_KEY', value: newSigningKey() }];
  for (const source of release.sources.values()) {
    const special = source.adapter.source?.kind === 'webhook' ? (source.adapter.source.localSecrets?.() ?? {}) : {};
    for (const { option, name } of secretNames(source.config)) specs.push({ name, ...special[option] });
  }
  for (const destination of release.destinations.values()) for (const { name } of secretNames(destination.config)) specs.push({ name });
  const vault = await startVault({ dataDir, env, settings, logger: createLogger({ service: 'prepare', level: 'silent' }) });
  const { available, reason } = vault.status();
  const wanted = available ? specs.filter((spec) => !vault.has(spec.name)) : [];
  vault.close();
  if (!available) console.error(`no secret is made while the vault cannot be asked: ${reason ?? 'it was not read'}`);
  ensureSecrets({ dataDir, env }, wanted, (names) => {
    // Before there is a broker: the control service puts it on the audit log.
    const leaf = { ...localLeaf('intent', by, 'vault.make', names.join(' '), null, Date.now()), kind: 'fact' as const };
    keepPending(dataDir, leaf);
    return leaf.id;
  });
}

/**
 * Topics of the release, schemas, and the release itself when none is current, or another one and no second person has to
 * approve (WEIR_APPROVAL). Resolves with the hash of the release that runs then; `serde` is started.
 */
export async function prepareCluster(release: Release, config: ConfigOf<typeof prepareOptions>, by: string, env: Env, serde: Serde = createSerde(registryConnection(config))): Promise<string> {
  const log = createLog({ ...kafkaConnection(config), clientId: 'weir-prepare' });
  try {
    const file = { path: 'infra/topics.yaml', content: readFileSync(join(root, 'infra/topics.yaml'), 'utf8') };
    const [admin, appender] = await Promise.all([log.admin(), log.appender()]);
    const { control: topic, audit: auditTopic } = topicNames(config.topicPrefix);
    const direct = { appender, auditTopic, by, now: Date.now };
    const [made] = await Promise.all([createTopicsAudited({ ...direct, admin, plan: planTopics(file, release, { prefix: config.topicPrefix, brokers: config.brokers.length }) }), serde.start()]);
    // Nothing is mapped here: any key will do.
    const feed = await createReleaseFeed({ log, serde, topic, adapters: registry, workspaceKey: Buffer.alloc(32), logger: createLogger({ service: 'prepare', level: 'silent' }) });
    const running = currentHash(feed);
    await feed.close();
    if (running === release.hash) return running;
    if (running !== undefined && config.approval) {
      console.error(`release ${running} goes on: WEIR_APPROVAL asks for a second person before ${release.hash} of the folder runs; propose it with weir apply`);
      return running;
    }
    await applyAudited({ ...direct, serde, topic, release, message: null });
    if (made.includes(auditTopic)) await firstCheckpoint(log, auditTopic, config.dataDir, env);
    return release.hash;
  } finally {
    await log.close();
  }
}

/**
 * Signs the audit log that this very call has made, so that control has a checkpoint to compare its first look with: one that
 * finds none warns, because it was lost. Nothing is signed where the key is not at hand (control warns, then), or where a
 * checkpoint is kept already.
 */
export async function firstCheckpoint(log: Log, topic: string, dataDir: string, env: Env): Promise<void> {
  const vault = openVault({ dataDir, env });
  const witness = fileWitness(localCheckpoints(dataDir), { warn: () => undefined });
  if (!vault.has('AUDIT_KEY') || witness.kept().length > 0) return;
  const [reader, admin, appender] = await Promise.all([log.reader(), log.admin(), log.appender()]);
  const logger = createLogger({ service: 'prepare', level: 'silent' });
  const audit = await openAuditLog({ appender, reader, admin, topic, signer: signingKey(topic, vault.get('AUDIT_KEY').reveal()), witness, now: Date.now, logger, local: { pending: () => [], drop: () => undefined, sealed: () => undefined }, wasMade: () => undefined, signOnly: true });
  await audit.close();
}

function currentHash(feed: Awaited<ReturnType<typeof createReleaseFeed>>): string | undefined {
  try {
    return feed.current().hash;
  } catch (error) {
    if (findWeirError(error)?.code === 'release-missing') return undefined;
    throw error;
  }
}

if (import.meta.main) {
  const config = readConfig(prepareOptions);
  const env = await unwrapEnv(process.env, () => config);
  const release = compileWorkspace(process.argv[2] ?? join(root, 'workspace'), config.dataDir, env);
  await localSecrets(release, { dataDir: config.dataDir, env, settings: config, by: 'prepare' });
  console.log(`prepared: release ${await prepareCluster(release, config, 'prepare', env)}`);
}
