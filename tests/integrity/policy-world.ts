/** A real broker and registry with one topic prefix, a policy service on them, and hands to write and read its topics. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, createSerde, type Log, type LogRecord } from '@weir/log';
import { groupNames, H, keyedId, topicNames } from '@weir/pipeline';
import { compilePurposes, compileRoutes, compileRules, type CompiledRoute } from '@weir/policy';
import type { Release } from '@weir/release';
import { loadSchemas } from '@weir/schemas';
import { createKeyRing, sealedSerde, sealIdentifiers, type KeyRing } from '@weir/seal';
import { systemClock, type Service, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { openVault } from '@weir/vault';
import { parseYaml } from '@weir/yaml';
import { Registry } from 'prom-client';
import { startPlatform, type Platform } from '../../infra/local/platform.ts';
import { createPolicy } from '../../services/policy/app.ts';

const workspaceKey = Buffer.alloc(32, 7);
export const idOf = (type: string, value: string) => `${type}:${keyedId(workspaceKey, type, value)}`;

const operations = {
  send: { kind: 'use', accepts: ['weir.canonical.Profile', 'weir.canonical.ConsentChange'] },
  unsubscribe: { kind: 'restrict', accepts: ['weir.canonical.ConsentChange'], identifiers: ['email'] },
} as const;

/** The policy part of a release, compiled from the YAML that a user writes; `told`: more of the route that tells of a withdrawal. */
export function releaseOf(hash: string, rules: string, told = ''): Release {
  const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Newsletter. }\n' });
  const content = `routes:\n  - { on: Profile, operation: send, purpose: news, channel: email }\n  - { on: ConsentChange, operation: unsubscribe, when: record.state == "withdrawn"${told} }\n`;
  const file = { path: 'destinations/crm.yaml', content };
  const yaml = parseYaml(file);
  const problems: never[] = [];
  const routes = compileRoutes((yaml.value as { routes: never }).routes, 'crm', operations, purposes, file, yaml, problems);
  if (problems.length > 0) throw new Error(JSON.stringify(problems));
  const byRecord = new Map<string, CompiledRoute[]>();
  for (const route of routes) byRecord.set(route.on, [...(byRecord.get(route.on) ?? []), route]);
  return { hash, files: [], name: 'test', sources: new Map(), destinations: new Map([['crm', { operations } as never]]), policy: { purposes, rules: compileRules({ path: 'policies/a.yaml', content: rules }, purposes), routes: byRecord }, contracts: new Map() };
}

let platform: Platform | undefined;
let dataDir = '';
export async function startWorld(): Promise<void> {
  dataDir = mkdtempSync(join(tmpdir(), 'weir-policy-'));
  platform = await startPlatform({ dataDir, shortLived: true });
}
export async function stopWorld(): Promise<void> {
  await platform?.stop();
  rmSync(dataDir, { recursive: true, force: true });
}

/** Waits for a condition; what it last saw is in the error. */
export async function until<T>(what: string, look: () => Promise<T>, good: (seen: T) => boolean, deadlineMs = 20_000): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (good(seen)) return seen;
    if (performance.now() > end) throw new Error(`${what}: not within ${deadlineMs} ms; last: ${JSON.stringify(seen).slice(0, 800)}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

export interface Decoded { readonly partition: number; readonly offset: number; readonly key: string; readonly name: string; readonly value: any }
export type World = Awaited<ReturnType<typeof createWorld>>;

export async function createWorld(prefix: string, partitions = 3) {
  const log = createLog({ brokers: platform!.bootstrap, clientId: `${prefix}-test` });
  const serde = createSerde({ registryUrl: platform!.registryUrl });
  await serde.start();
  const topics = topicNames(prefix);
  const [admin, reader, appender] = await Promise.all([log.admin(), log.reader(), log.appender()]);
  const names = [topics.canonical, topics.consentChanges, topics.consent, topics.consentApplied, topics.identity, topics.outcome, topics.dlq, topics.keys, topics.dispatch('crm')];
  await admin.createTopics(names.map((name) => ({ name, partitions, replicationFactor: 1, config: {} })));
  for (const name of names) await appender.partitions(name);
  const stateDirs: string[] = [];
  let sequence = 0;

  let maker: Promise<KeyRing> | undefined;
  /** The ring that seals for these tests. */
  const sealing = (): Promise<KeyRing> => (maker ??= ringIn(mkdtempSync(join(dataDir, 'keys-'))));
  async function ringIn(stateDir: string): Promise<KeyRing> {
    const ring = await createKeyRing({ log, serde, topic: topics.keys, workspaceKey, stateDir, logger: createLogger({ service: 'test', level: 'silent' }), now: Date.now }, (error) => { throw error; });
    await ring.start();
    return ring;
  }

  /** `wrap` stands between the service and its log, to make faults; `ring` between it and its keys, without which nothing is sealed. */
  async function policy(release: () => Release, wrap: (log: Log) => Log = (own) => own, stateDir = mkdtempSync(join(dataDir, 'state-')), ring?: (own: KeyRing) => KeyRing): Promise<{ service: Service; context: ServiceContext; close(): Promise<void> }> {
    stateDirs.push(stateDir);
    const own = createLog({ brokers: platform!.bootstrap, clientId: `${prefix}-policy` });
    const ownSerde = createSerde({ registryUrl: platform!.registryUrl });
    await ownSerde.start();
    const keys = ring === undefined ? undefined : ring(await ringIn(stateDir));
    const context: ServiceContext = {
      name: 'policy', config: {} as never, log: wrap(own), serde: keys === undefined ? ownSerde : sealedSerde(ownSerde, keys), ...(keys === undefined ? {} : { keys }), topics, groups: groupNames(prefix), releases: { current: release, incidents: () => new Map(), switches: () => new Map(), reserves: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, onChange: () => () => {}, close: async () => {} },
      vault: openVault({ dataDir, env: {} }), workspaceKey, logger: createLogger({ service: 'policy', level: 'silent' }), registry: new Registry(), clock: systemClock, stateDir,
    };
    const service = await createPolicy(context, { sessionTimeoutMs: 6000, windowRecords: 10_000, windowBytes: 16_777_216 });
    await service.start();
    return { service, context, close: async () => { await service.stop(); await keys?.stop(); await own.close(); } };
  }

  const person = (fields: Record<string, string>) => ({ userId: null, anonymousId: null, email: null, phone: null, externalIds: [], ...fields });
  const idsOf = (fields: Record<string, string>) => ['userId', 'email', 'phone', 'anonymousId'].flatMap((type) => (fields[type] === undefined ? [] : [idOf(type, fields[type])]));
  function headers(event: string, ids: readonly string[], accepted: number, more: Record<string, string> = {}): [string, Buffer][] {
    const all: Record<string, string> = { [H.event]: event, [H.output]: `out_${event}`, [H.source]: 'shop', [H.accepted]: String(accepted), [H.hash]: 'h', [H.ids]: ids.join(','), traceparent: `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`, ...more };
    return Object.entries(all).map(([name, value]) => [name, Buffer.from(value)]);
  }
  const complete = (name: string, value: Record<string, unknown>) => serde.encode(name, { id: 'out', source: 'shop', objectKey: null, occurredAt: 1, extras: null, ...value });

  return {
    log, serde, topics, admin, appender, policy, idsOf,
    next: (kind: string) => `evt_${kind}_${++sequence}`,
    /** A consent change of one identifier, as the normalizer writes it; gives `<partition>:<offset>`. */
    async change(event: string, id: string, state: string, accepted: number, over: Record<string, unknown> = {}, more: Record<string, string> = {}): Promise<string> {
      const partition = appender.partitionFor(topics.consentChanges, id);
      const value = complete('weir.canonical.ConsentChange', { ...person({}), occurredAt: accepted, purpose: 'news', channel: 'email', topic: null, state, legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, expiresAt: null, reason: null, ...over });
      const [offset] = await appender.append(topics.consentChanges, [{ partition, key: Buffer.from(id), value, headers: headers(event, [id], accepted, more) }]);
      return `${partition}:${offset}`;
    },
    keys: sealing,
    /** `owner`: who the identifiers that the link keeps are sealed for. */
    async link(a: string, b: string, kept?: { readonly owner: string; readonly of: Record<string, string> }): Promise<string> {
      const key = [a, b].sort().join('~');
      let sealed: Buffer | null = null;
      if (kept !== undefined) {
        const ring = await sealing();
        await ring.ensure([kept.owner]);
        sealed = sealIdentifiers(serde, ring.current(kept.owner)!, { userId: null, email: null, phone: null, ...kept.of });
      }
      const partition = appender.partitionFor(topics.identity, key);
      const [offset] = await appender.append(topics.identity, [{ partition, key: Buffer.from(key), value: serde.encode('weir.internal.IdentityLink', { a, b, source: 'shop', at: 1, sealed }) }]);
      return `${partition}:${offset}`;
    },
    profile(fields: Record<string, string>, extras: string | null = null): Buffer {
      const empty = Object.fromEntries(['firstName', 'lastName', 'name', 'title', 'gender', 'birthday', 'avatar', 'website', 'company', 'locale', 'timezone', 'street', 'city', 'region', 'postalCode', 'country', 'plan', 'lifecycleStage', 'currency', 'balance', 'createdAt', 'updatedAt', 'deleted'].map((f) => [f, null]));
      return complete('weir.canonical.Profile', { ...empty, attributes: {}, ...person(fields), extras });
    },
    /** A page that somebody looked at, as a tracker tells it: it says nothing of where that was. */
    event(fields: Record<string, string>): Buffer {
      const empty = Object.fromEntries(loadSchemas().get('weir.canonical.Event')!.fields.flatMap((field) => ('default' in field ? [[field.name, field.default]] : [])));
      return complete('weir.canonical.Event', { ...empty, ...person(fields), name: 'Page Viewed', category: 'page' });
    },
    async canonical(event: string, fields: Record<string, string>, value: Buffer, more: Record<string, string> = {}): Promise<{ partition: number; offset: number }> {
      const ids = idsOf(fields);
      const key = ids[0] ?? `event:${event}`;
      const partition = appender.partitionFor(topics.canonical, key);
      const [offset] = await appender.append(topics.canonical, [{ partition, key: Buffer.from(key), value, headers: headers(event, ids, 1000, more) }]);
      return { partition, offset: offset! };
    },
    async all(topic: string): Promise<Decoded[]> {
      const found: Decoded[] = [];
      const take = (partition: number, record: LogRecord) => {
        if (record.value === null) return;
        found.push({ partition, offset: record.offset, key: record.key?.toString() ?? '', ...serde.decode(record.value) });
      };
      for (const [partition, end] of await admin.endOffsets(topic)) if (end > 0) await reader.read(topic, partition, 0, end, (batch) => batch.records.forEach((r) => take(partition, r)));
      return found;
    },
    async close() {
      await (await maker)?.stop();
      await Promise.all([appender.close(), reader.close(), admin.close()]);
      await log.close();
    },
  };
}
