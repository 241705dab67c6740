/** Everything that runs in a round: brokers, registry, vault and vendor behind proxies, every service a process, senders. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, createSerde, type Appender, type LogAdmin, type Log, type Serde } from '@weir/log';
import { groupNames, topicNames, type TopicNames } from '@weir/pipeline';
import { freePort, imageSettings, startFleet, type Fleet, type FleetService } from '@weir/testing';
import { removeSecret } from '@weir/vault';
import { freePorts, startPlatform, type Platform } from '../../infra/local/platform.ts';
import { tidy } from './evidence.ts';
import { createHoldings, type Holdings } from './groups.ts';
import type { Options } from './options.ts';
import { startProxy, type NetworkProxy } from './proxy.ts';
import { createOperators, type Operators } from './operators.ts';
import { createRandom, type Random } from './random.ts';
import { startFeed, startTraffic, type Feed, type Traffic } from './traffic.ts';
import { startVaultServer, type VaultServer } from './vault-server.ts';

export const stages = ['ingest', 'normalizer', 'policy', 'dispatcher'] as const satisfies readonly FleetService[];
export type Stage = (typeof stages)[number];
/** Of every stage: while two of them start, the third works. */
export const instances = [1, 2, 3] as const;
/** What is killed: every stage, and the control service, of which there is one. */
export const victims = [...stages, 'control'] as const satisfies readonly FleetService[];
export type Victim = (typeof victims)[number];
export const instancesOf = (victim: Victim): readonly number[] => (victim === 'control' ? [1] : instances);
export const sessionMs = 3000;
export const callTimeoutMs = 1500;
export const people = 400;
const sides = ['a', 'b'] as const;
/** Secrets of the example workspace under chaos; they come from the vault. */
const vaulted = ['WAREHOUSE_TOKEN', 'NEWSLETTER_TOKEN'];

export interface World {
  readonly options: Options;
  readonly random: Random;
  readonly dir: string;
  readonly workspace: string;
  readonly platform: Platform;
  readonly proxy: NetworkProxy;
  /** Names of the proxies to brokers and vendor. */
  readonly links: readonly string[];
  readonly vault: VaultServer;
  readonly fleet: Fleet;
  readonly secrets: readonly string[];
  readonly feed: Feed;
  readonly traffic: Traffic;
  /** Who orders changes by the control API. */
  readonly operators: Operators;
  /** A client of our own, past the proxies. */
  readonly log: Log;
  readonly admin: LogAdmin;
  readonly appender: Appender;
  readonly serde: Serde;
  readonly topics: TopicNames;
  /** [group, topic] that each stage reads. */
  readonly reads: Readonly<Record<Stage, ReadonlyArray<readonly [string, string]>>>;
  /** Who of the instances holds which partitions. */
  readonly holdings: Holdings;
  clockFile(service: string, instance: number): string;
  /** Order a fault at the vendor. */
  vendorFault(body: object): Promise<void>;
  /** Ends everything; with `kept`, and with --keep, its folder stays. */
  close(kept?: boolean): Promise<void>;
}

interface Parts {
  readonly dir: string;
  readonly ending: (() => Promise<unknown> | void)[];
}

async function startNetwork({ dir, ending }: Parts): Promise<{ proxy: NetworkProxy; platform: Platform; brokersOf: (side: number) => string; registryUrl: string; links: string[] }> {
  const proxy = await startProxy(dir);
  ending.push(() => proxy.close());
  const listen = await freePorts(3 * sides.length);
  const links: string[] = [];
  const listeners: { listen: number[]; advertised: number[] }[] = [];
  for (const [s, side] of sides.entries()) {
    const own = listen.slice(3 * s, 3 * s + 3);
    const advertised: number[] = [];
    for (const [i, port] of own.entries()) {
      links.push(`broker-${i + 1}-${side}`);
      advertised.push(await proxy.add(links.at(-1)!, port));
    }
    listeners.push({ listen: own, advertised });
  }
  // Times of records are the brokers': the clocks of the services step.
  const platform = await startPlatform({ dataDir: join(dir, 'platform'), brokers: 3, listeners, shortLived: true, properties: { 'log.message.timestamp.type': 'LogAppendTime' } });
  ending.push(() => platform.stop());
  const registry = new URL(platform.registryUrl);
  registry.port = String(await proxy.add('registry', Number(registry.port)));
  return { proxy, platform, registryUrl: registry.href, links, brokersOf: (side) => listeners[side]!.advertised.map((port) => `127.0.0.1:${port}`).join(',') };
}

function makeWorkspace(dir: string, feed: Feed): string {
  const workspace = join(dir, 'workspace');
  cpSync(join(import.meta.dirname, 'workspace'), workspace, { recursive: true });
  const members = join(workspace, 'sources/members.yaml');
  writeFileSync(members, readFileSync(members, 'utf8').replace('http://127.0.0.1:1/members', feed.url));
  return workspace;
}

export async function startWorld(options: Options, round: number): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), 'weir-chaos-'));
  const parts: Parts = { dir, ending: [] };
  const close = async (kept = false): Promise<void> => {
    for (const end of parts.ending.reverse()) await end();
    tidy(dir, kept || options.keep);
  };
  try {
    const { proxy, platform, brokersOf, registryUrl, links } = await startNetwork(parts);
    const feed = await startFeed();
    const vault = await startVaultServer();
    parts.ending.push(() => feed.close(), () => vault.close());
    const base = await freePort(20);
    links.push('sandbox');
    const sandbox = await proxy.add('sandbox', base + 10);
    const vaultPort = await proxy.add('vault', vault.port);
    const workspace = makeWorkspace(dir, feed);
    mkdirSync(join(dir, 'clock'));
    const clockFile = (service: string, instance: number): string => join(dir, 'clock', `${service}-${instance}`);
    const session = String(sessionMs);
    // I7 looks at the memory of a service as it is deployed.
    const image = imageSettings();
    const nodeOptions = image.execArgv;
    const fleet = await startFleet({
      brokers: platform.bootstrap, registryUrl, workspace, base,
      env: {
        WEIR_NORMALIZER_SESSION_MS: session, WEIR_POLICY_SESSION_MS: session, WEIR_DISPATCHER_SESSION_MS: session, WEIR_POLLER_SESSION_MS: session, WEIR_CALL_TIMEOUT_MS: String(callTimeoutMs), WEIR_IN_LANE_TRIES: '2',
        WEIR_SANDBOX_URL: `http://127.0.0.1:${sandbox}`, WEIR_VAULT_ADDR: `http://127.0.0.1:${vaultPort}`, WEIR_VAULT_TOKEN: vault.token, WEIR_VAULT_REFRESH_MS: '2000', WEIR_VAULT_TIMEOUT_MS: '2000', WEIR_VAULT_MAX_STALE_MS: '8000',
      },
      envOf: (service, instance) => service === 'sandbox' ? {} : { ...image.env, KAFKA_BROKERS: brokersOf((instance - 1) % sides.length), NODE_OPTIONS: [...nodeOptions, `--import=${join(import.meta.dirname, 'clock.mjs')}`].join(' '), WEIR_TEST_CLOCK: clockFile(service, instance) },
    });
    parts.ending.push(() => fleet.dispose());
    const secrets = ['SEGMENT_WRITE_KEY', 'ADMIN_TOKEN', ...vaulted].map((name) => fleet.secret(name));
    for (const name of vaulted) {
      vault.values[name] = fleet.secret(name);
      removeSecret({ dataDir: fleet.dataDir, env: {} }, name, 'leaf_of_a_test');
    }
    const log = createLog({ brokers: platform.bootstrap, clientId: 'chaos' });
    parts.ending.push(() => log.close());
    const serde = createSerde({ registryUrl: platform.registryUrl });
    await serde.start();
    const [admin, appender] = await Promise.all([log.admin(), log.appender()]);
    await Promise.all(stages.flatMap((service) => instances.slice(1).map((n) => fleet.start(service, n))));
    const topics = topicNames(fleet.prefix);
    const groups = groupNames(fleet.prefix);
    const authorization = `Basic ${Buffer.from(`${fleet.secret('SEGMENT_WRITE_KEY')}:`).toString('base64')}`;
    const { seed } = options;
    const reads = {
      ingest: [],
      normalizer: [[groups.normalizer, topics.raw('segment')], [groups.normalizer, topics.raw('members')]],
      policy: [[groups.policy, topics.canonical], [groups.consentFold, topics.consentChanges]],
      dispatcher: [[groups.dispatcher('warehouse'), topics.dispatch('warehouse')], [groups.dispatcher('newsletter'), topics.dispatch('newsletter')], [groups.dispatcher('crm'), topics.dispatch('crm')]],
    } as const;
    const traffic = startTraffic({ ingest: instances.map((n) => fleet.url('ingest', n)), authorization: () => authorization, random: createRandom(seed * 1000 + round, 'traffic'), people, workers: 8, batch: 20, rate: options.rate }, feed);
    const operators = createOperators({ control: fleet.url('control'), token: fleet.secret('ADMIN_TOKEN'), workspace, destinations: ['warehouse', 'newsletter'], random: createRandom(seed * 1000 + round, 'operators'), send: (calls) => traffic.send(calls) });
    return {
      options, random: createRandom(seed * 1000 + round, 'weather'), operators, dir, workspace, platform, proxy, links, vault, fleet, secrets, feed, traffic, log, admin, appender, serde, topics, clockFile, close,
      reads, holdings: createHoldings(platform.bootstrap, [...new Set(Object.values(reads).flat().map(([group]) => group))]),
      vendorFault: async (body) => {
        const response = await fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
        if (!response.ok && response.status !== 400) throw new Error(`the sandbox answers ${response.status}`);
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** As the process of an instance calls itself at the brokers. */
export const clientOf = (stage: Victim, instance: number): string => `weir-${stage}-${instance}`;

/** Records behind the commits of a stage, and where the first of them is; with `of`, of those partitions only. */
export async function lagOf({ reads, admin }: Pick<World, 'reads' | 'admin'>, stage: Stage, of?: (group: string, topic: string) => readonly number[]): Promise<{ readonly records: number; readonly where: string | undefined }> {
  let records = 0;
  let where: string | undefined;
  for (const [group, topic] of reads[stage]) {
    const only = of?.(group, topic);
    if (only?.length === 0) continue;
    const [ends, committed] = await Promise.all([admin.endOffsets(topic), admin.committed(group, topic)]);
    for (const [partition, end] of ends) {
      if (only?.includes(partition) === false) continue;
      const at = committed.get(partition) ?? 0;
      if (at < end) where ??= `${stage}: ${topic}/${partition} stands at ${at} of ${end}`;
      records += Math.max(0, end - at);
    }
  }
  return { records, where };
}

/** True while work waits uncommitted on the partitions of this instance; for ingest and control: while requests are in flight to it, or were cut off when it died just now; for control also while an order is not ended. */
export async function holdsWork({ traffic, operators, holdings, ...world }: Pick<World, 'traffic' | 'operators' | 'holdings' | 'reads' | 'admin'>, stage: Victim, instance: number, died = false): Promise<boolean> {
  if (stage === 'control') return operators.open() || (died && performance.now() - operators.cutAt() < 1000);
  const { inFlight, cutAt } = traffic.log;
  if (stage === 'ingest') return died ? performance.now() - cutAt[instance - 1]! < 1000 : inFlight[instance - 1]! > 0;
  await holdings.refresh();
  return (await lagOf(world, stage, (group, topic) => holdings.held(group, topic, clientOf(stage, instance)))).records > 0;
}
