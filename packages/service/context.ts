import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Adapter } from '@weir/adapter';
import { kafkaConnection, registryConnection, type commonOptions, type ConfigOf } from '@weir/config';
import { createLog, createPartitionCounts, createSerde, type Serde } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { createReleaseFeed } from '@weir/release';
import { createKeyRing, sealedSerde, type KeyRing } from '@weir/seal';
import { createLogger } from '@weir/telemetry';
import { readWorkspaceKey, startVault, unwrapWorkspaceKey } from '@weir/vault';
import { Registry } from 'prom-client';
import { systemClock } from './clock.ts';
import type { ServiceContext } from './types.ts';

/**
 * Everything a service needs, connected: log client of its own, schemas registered, the current release read.
 * Waits for the broker, the registry and a release until their deadlines, then rejects with the reason.
 *
 * @param plain of the same registry, for services that share a process; default: one of its own
 */
export async function createContext(name: string, config: ConfigOf<typeof commonOptions>, adapters: ReadonlyMap<string, Adapter>, env: Readonly<Record<string, string | undefined>>, plain: Serde = createSerde(registryConnection(config))): Promise<ServiceContext> {
  const logger = createLogger({ service: name, level: config.logLevel, instance: config.instance });
  const topics = topicNames(config.topicPrefix);
  const counts = createPartitionCounts((topic, hashed, actual) => logger.error({ code: 'topic-repartitioned', topic, hashed, actual }, 'partitions were added to a topic: its keys stay where they are, and the new ones empty'));
  const log = createLog({ ...kafkaConnection(config), clientId: `weir-${name}-${config.instance}`, counts, onUnread: (gap) => logger.error(gap, 'the group has no commit here and begins behind records that are gone: nothing is lost to a group that is new; one that has run before has lost what it had not read of them, and its commits') });
  const broken = Promise.withResolvers<Error>();
  const stateDir = join(config.dataDir, 'state', name, config.instance);
  mkdirSync(stateDir, { recursive: true });
  try {
    await plain.start();
    const given = await unwrapWorkspaceKey(config.workspaceKey?.reveal(), config);
    const workspaceKey = readWorkspaceKey(config.dataDir, given);
    const releases = await createReleaseFeed({ log, serde: plain, topic: topics.control, adapters, logger, workspaceKey, counts });
    let keys: KeyRing | undefined;
    if (config.sealing) {
      keys = await createKeyRing({ log, serde: plain, topic: topics.keys, workspaceKey, stateDir, logger, now: systemClock.now }, broken.resolve);
      await keys.start();
    }
    return {
      name, config, log, counts, topics, releases, logger, stateDir, workspaceKey, keys,
      serde: keys === undefined ? plain : sealedSerde(plain, keys),
      broken: broken.promise,
      groups: groupNames(config.topicPrefix),
      vault: await startVault({ dataDir: config.dataDir, env: given === undefined ? env : { ...env, WEIR_KEY: given }, settings: config, logger }),
      registry: new Registry(),
      clock: systemClock,
    };
  } catch (error) {
    await log.close();
    throw error;
  }
}

export async function closeContext(context: ServiceContext): Promise<void> {
  context.vault.close();
  await context.keys?.stop();
  await context.releases.close();
  await context.log.close();
}
