import { fork, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { readAdapterFile, registry } from '@weir/adapters';
import { createLog, createSerde, type Appender, type OutRecord, type Serde } from '@weir/log';
import { H, planTopics, topicNames, type TopicNames } from '@weir/pipeline';
import { applyAudited, compileRelease, withDefaults, type Release } from '@weir/release';
import { imageSettings, testPrefix, waitFor } from '@weir/testing';
import type { Look as DispatcherLook, Order as DispatcherOrder } from './dispatcher.ts';
import type { Look as VendorLook, Order as VendorOrder } from './vendor.ts';

/** Dispatcher, vendor and topics of a load that is written straight to weir.dispatch.<destination>. */
export interface LoadWorld {
  readonly topics: TopicNames;
  /** Deliveries of as many people in turn, n growing; resolves when all are acknowledged. */
  write(destination: string, count: number): Promise<void>;
  advance(ms: number): void;
  look(): Promise<DispatcherLook>;
  down(...destinations: string[]): void;
  vendor(destination: string): Promise<VendorLook>;
  /** Records on the dispatch topic that are not committed. */
  lag(destination: string): Promise<number>;
  dispose(): Promise<void>;
}

export interface LoadOptions {
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly people: number;
  /** Per destination: calls at once. */
  readonly destinations: Readonly<Record<string, number>>;
}

const here = import.meta.dirname;
const image = imageSettings();
const batch = 500;
const ahead = 20;

function destinationYaml(url: string, name: string, concurrency: number): string {
  return `adapter: http\nconcurrency: ${concurrency}\nconfig:\n  baseUrl: ${url}\n  operations:\n    insert:\n      kind: use\n      accepts: [Event]\n      method: POST\n      path: /${name}\n      body: { who: "{{record.userId}}", n: "{{record.value}}", at: "{{record.occurredAt}}" }\n      idempotency: { scheme: header, name: Idempotency-Key, window: 24h, pastWindow: hold }\nroutes:\n  - { on: Event, operation: insert, purpose: service }\n`;
}

function child<M>(file: string, env: Readonly<Record<string, string>>, execArgv: readonly string[]): Promise<{ process: ChildProcess; first: M }> {
  return new Promise((done, reject) => {
    const process = fork(join(here, file), { env: { ...globalThis.process.env, ...env }, execArgv: [...execArgv] });
    process.once('message', (first) => done({ process, first: first as M }));
    process.once('exit', (code) => reject(new Error(`${file} ended with ${code}`)));
  });
}

function ask<O, A>(process: ChildProcess, order: O): Promise<A> {
  return new Promise((done, reject) => {
    const ended = (): void => reject(new Error('the process has ended'));
    process.once('exit', ended);
    process.once('message', (answer) => {
      process.off('exit', ended);
      done(answer as A);
    });
    process.send(order as never);
  });
}

export async function startLoad(options: LoadOptions): Promise<LoadWorld> {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-load-'));
  const prefix = testPrefix('load');
  const topics = topicNames(prefix);
  const vendor = await child<number>('vendor.ts', {}, []);
  const url = `http://127.0.0.1:${vendor.first}`;
  const files = { 'weir.yaml': 'name: load\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow }\n', ...Object.fromEntries(Object.entries(options.destinations).map(([name, concurrency]) => [`destinations/${name}.yaml`, destinationYaml(url, name, concurrency)])) };
  const release = compileRelease(withDefaults(Object.entries(files).map(([path, content]) => ({ path, content })), registry, readAdapterFile), { adapters: registry });
  const log = createLog({ brokers: options.brokers, clientId: 'load' });
  const serde = createSerde({ registryUrl: options.registryUrl });
  await serde.start();
  const [admin, appender] = await Promise.all([log.admin(), log.appender({ deadlineMs: 60_000, maxPendingBytes: 256 * 1024 * 1024 })]);
  const declared = resolve(here, '../../../infra/topics.yaml');
  await admin.createTopics(planTopics({ path: 'infra/topics.yaml', content: readFileSync(declared, 'utf8') }, release, { prefix, brokers: 1 }));
  await applyAudited({ appender, serde, topic: topics.control, auditTopic: topics.audit, release, by: 'test', message: null, now: Date.now });
  const env = { WEIR_DATA: dataDir, WEIR_TOPIC_PREFIX: prefix, WEIR_LOG_LEVEL: 'error', KAFKA_BROKERS: options.brokers.join(','), SCHEMA_REGISTRY_URL: options.registryUrl, WEIR_ALLOW_PRIVATE_DESTINATIONS: 'true' };
  const dispatcher = await child<string>('dispatcher.ts', { ...image.env, ...env }, [...image.execArgv, '--expose-gc']);
  const writer = createWriter({ appender, serde, topics, release, people: options.people });
  for (const name of Object.keys(options.destinations)) await appender.partitions(topics.dispatch(name));

  return {
    topics,
    write: writer,
    advance: (ms) => { dispatcher.process.send({ advance: ms } satisfies DispatcherOrder); },
    look: () => ask<DispatcherOrder, DispatcherLook>(dispatcher.process, { look: true }),
    down: (...down) => { vendor.process.send({ down } satisfies VendorOrder); },
    vendor: (name) => ask<VendorOrder, VendorLook>(vendor.process, { look: name }),
    async lag(name) {
      const [ends, committed] = await Promise.all([admin.endOffsets(topics.dispatch(name)), admin.committed(`${prefix}.dispatcher.${name}`, topics.dispatch(name))]);
      return [...ends].reduce((sum, [partition, end]) => sum + end - (committed.get(partition) ?? 0), 0);
    },
    async dispose() {
      for (const { process } of [dispatcher, vendor]) {
        if (process.exitCode !== null || process.signalCode !== null) continue;
        const ended = new Promise((done) => process.once('exit', done));
        process.kill('SIGKILL');
        await ended;
      }
      await log.close();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** Deliveries as the policy stage writes them. */
function createWriter(ports: { appender: Appender; serde: Serde; topics: TopicNames; release: Release; people: number }): LoadWorld['write'] {
  const { appender, serde, topics, release, people } = ports;
  const next = new Map<string, number>();

  function record(destination: string, n: number): OutRecord {
    const at = Date.now();
    const who = `p${n % people}`;
    const topic = topics.dispatch(destination);
    const payload = serde.encode('weir.canonical.Event', { id: `out_${destination}_${n}`, source: 'load', userId: who, externalIds: [], name: 'Load', category: 'track', occurredAt: at, value: n });
    const value = serde.encode('weir.internal.Delivery', {
      outputId: `out_${destination}_${n}`, eventId: `evt_${destination}_${n}`, destination, operation: 'insert', kind: 'use', recordType: 'weir.canonical.Event', payload, itemHash: 'h', source: 'load',
      acceptedAt: at, decidedAt: at, release: release.hash, rule: 'all', purpose: 'service', channel: null, topic: null, legalBasis: 'contract', consent: [], consentOffsets: [], identityOffsets: [], ids: [who], notBefore: null, intent: '0',
    });
    return { partition: appender.partitionFor(topic, who), key: Buffer.from(who), value, headers: [[H.event, Buffer.from(`evt_${destination}_${n}`)], [H.accepted, Buffer.from(String(at))]] };
  }

  return async (destination, count) => {
    const from = next.get(destination) ?? 0;
    next.set(destination, from + count);
    const running = new Set<Promise<unknown>>();
    for (let n = from; n < from + count; n += batch) {
      const records = Array.from({ length: Math.min(batch, from + count - n) }, (_, i) => record(destination, n + i));
      const sent = appender.append(topics.dispatch(destination), records).finally(() => running.delete(sent));
      running.add(sent);
      if (running.size >= ahead) await Promise.race(running);
    }
    await Promise.all(running);
  };
}

export interface OutageFigures {
  /** Deliveries before the outage, as fast as they go. */
  readonly before: number;
  readonly events: number;
  readonly simulatedHours: number;
  readonly anonBeforeMb: number;
  readonly anonMostMb: number;
  readonly anonGrowthMb: number;
  readonly otherP99BeforeMs: number;
  /** In the first part of the outage, in which time passes ten times as fast as it does. */
  readonly otherP99DuringMs: number;
  readonly otherMeasured: number;
  readonly probes: number;
  readonly deliveredAfter: number;
  readonly outOfOrder: number;
  readonly repeated: number;
  readonly deliveredPerSecond: number;
}

const hour = 3_600_000;
const mb = (bytes: number): number => Math.round(bytes / 1024 / 1024 * 10) / 10;

/** One destination down for two simulated hours with `events` deliveries behind it, another one that goes on meanwhile; `before` deliveries as fast as they go come first. */
export async function runOutage(world: LoadWorld, options: { readonly before: number; readonly events: number; readonly otherPerSecond: number; readonly baselineMs: number; readonly steps: number }): Promise<OutageFigures> {
  let stop = false;
  let other = 0;
  /** Small batches at an even pace, as traffic comes. */
  const traffic = (async () => {
    const everyMs = 20;
    for (let due = performance.now(); !stop; due += everyMs) {
      const n = Math.max(1, Math.round(options.otherPerSecond * everyMs / 1000));
      await world.write('steady', n);
      other += n;
      await new Promise((done) => setTimeout(done, Math.max(0, due + everyMs - performance.now())));
    }
  })();
  try {
    // Both destinations at full work, so that what any traffic needs is not counted as of the outage.
    await world.write('down', options.before);
    await waitFor('the first deliveries', async () => (await world.vendor('down')).effects >= options.before, 60_000);
    await world.vendor('steady');
    await new Promise((done) => setTimeout(done, options.baselineMs));
    const before = await world.vendor('steady');
    const anonBefore = (await world.look()).rssAnon;
    world.down('down');
    await world.write('down', options.events);
    let most = (await world.look()).rssAnon;
    // What waited while the events were written is of the writing, not of the outage.
    await waitFor('the other destination has caught up', async () => (await world.lag('steady')) < options.otherPerSecond / 4, 120_000);
    await world.vendor('steady');
    const refusedBefore = (await world.vendor('down')).refused;
    const pass = async (simulatedMs: number, steps: number, everyMs: number, after?: (i: number) => Promise<void>): Promise<void> => {
      for (let i = 0; i < steps; i++) {
        world.advance(Math.ceil(simulatedMs / steps));
        await new Promise((done) => setTimeout(done, everyMs));
        await after?.(i);
      }
    };
    // Latencies while time passes ten times as fast, memory while it passes some hundred times as fast: what is done every few seconds would
    // come as often as an event there, and a look collects three times, for which whatever arrives waits.
    const measured = 10 * options.baselineMs;
    await pass(measured, 40, options.baselineMs / 40);
    const during = await world.vendor('steady');
    await pass(2 * hour - measured, options.steps, Math.max(50, options.baselineMs / options.steps), async (i) => {
      if (i % Math.ceil(options.steps / 8) === 0) most = Math.max(most, (await world.look()).rssAnon);
    });
    most = Math.max(most, (await world.look()).rssAnon);
    const probes = (await world.vendor('down')).refused - refusedBefore;
    world.down();
    const upAt = performance.now();
    // What the breaker still waits, at most half a minute of simulated time.
    world.advance(60_000);
    await waitFor('everything behind the outage is delivered', async () => (await world.lag('down')) === 0, 1_500_000);
    const seconds = (performance.now() - upAt) / 1000;
    stop = true;
    await traffic;
    await waitFor('the other destination is through', async () => (await world.lag('steady')) === 0, 60_000);
    const after = await world.vendor('down');
    const steady = await world.vendor('steady');
    if (steady.effects !== other) throw new Error(`${steady.effects} of ${other} of the other destination`);
    return {
      before: options.before, events: options.events, simulatedHours: 2, anonBeforeMb: mb(anonBefore), anonMostMb: mb(most), anonGrowthMb: mb(most - anonBefore),
      otherP99BeforeMs: before.p99, otherP99DuringMs: during.p99, otherMeasured: during.measured, probes, deliveredAfter: after.effects - options.before, outOfOrder: after.outOfOrder + steady.outOfOrder, repeated: after.repeated + steady.repeated,
      deliveredPerSecond: Math.round(options.events / seconds),
    };
  } finally {
    stop = true;
    await traffic.catch(() => undefined);
  }
}
