import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { openVault } from '@weir/vault';
import { runCli, type CliRun } from './cli.ts';
import { freePort } from './port.ts';
import { callSegment } from './segment.ts';
import { spawnTied } from './tied.ts';
import { testPrefix, waitFor } from './wait.ts';

const root = resolve(import.meta.dirname, '../..');
export const fleetServices = ['sandbox', 'ingest', 'normalizer', 'policy', 'dispatcher', 'control'] as const;
export type FleetService = (typeof fleetServices)[number];

const portVariable: Record<FleetService, string> = { sandbox: 'WEIR_SANDBOX_PORT', ingest: 'WEIR_INGEST_PORT', control: 'WEIR_CONTROL_PORT', normalizer: 'WEIR_NORMALIZER_PORT', policy: 'WEIR_POLICY_PORT', dispatcher: 'WEIR_DISPATCHER_PORT' };
const portOffset: Record<FleetService, number> = { ingest: 0, control: 1, normalizer: 2, policy: 3, dispatcher: 4, sandbox: 10 };

/** Every service as a process of its own (`node services/<name>/main.ts`), on the cluster of the test run. */
export interface Fleet {
  readonly prefix: string;
  readonly base: number;
  readonly dataDir: string;
  readonly ingest: string;
  readonly sandbox: string;
  secret(name: string): string;
  /** Sends to the source `segment` under its write key: `path` is `identify`, `track`, `batch` and the like. */
  segment(path: string, body: unknown): Promise<Response>;
  /** SIGKILL and start again; resolves when it is ready. A second instance of a stage has a number. */
  restart(service: FleetService): Promise<void>;
  /** `env` is for this process only. Rejects when it ends before it is ready. */
  start(service: FleetService, instance?: number, env?: Readonly<Record<string, string>>): Promise<void>;
  /** Where an instance listens, also before its first start. */
  url(service: FleetService, instance?: number): string;
  logFile(service: FleetService, instance?: number): string;
  process(service: FleetService, instance?: number): ChildProcess;
  status(): Promise<any>;
  settled(deadlineMs?: number): Promise<any>;
  /** Runs `weir` as a user of this data folder. */
  cli(...args: string[]): Promise<CliRun>;
  dispose(): Promise<void>;
}

export interface FleetOptions {
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly workspace: string;
  /** Of topics and groups; default: one of its own. */
  readonly prefix?: string;
  /** First of 20 free ports. */
  readonly base?: number;
  readonly env?: Readonly<Record<string, string>>;
  /**
   * Each process in a session of its own. Linux schedules a session as one group (sched_autogroup), so that services of one
   * session share what one other process of the machine gets; apart they share as services do that have a container each.
   */
  readonly apart?: boolean;
  /** What differs between processes, e.g. the way to the brokers. */
  readonly envOf?: (service: FleetService, instance: number) => Readonly<Record<string, string>>;
}

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const base = options.base ?? await freePort(20);
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-fleet-'));
  const prefix = options.prefix ?? testPrefix('fleet');
  const env = {
    ...process.env, NODE_COMPILE_CACHE: join(root, '.cache/compiled'), WEIR_LOG_LEVEL: 'warn', WEIR_DATA: dataDir, WEIR_TOPIC_PREFIX: prefix, KAFKA_BROKERS: options.brokers.join(','), SCHEMA_REGISTRY_URL: options.registryUrl,
    WEIR_SANDBOX_URL: `http://127.0.0.1:${base + 10}`, WEIR_ALLOW_PRIVATE_DESTINATIONS: 'true', WEIR_ALLOW_PRIVATE_SOURCES: 'true',
    WEIR_NORMALIZER_SESSION_MS: '4000', WEIR_POLICY_SESSION_MS: '4000', WEIR_DISPATCHER_SESSION_MS: '8000', WEIR_CALL_TIMEOUT_MS: '3000', ...options.env,
  };
  const running = new Map<string, ChildProcess>();
  const ports = new Map<string, number>();
  const keyOf = (service: FleetService, instance: number): string => `${service}/${instance}`;
  const run = (script: string, args: readonly string[]): Promise<string> => new Promise((done, reject) => {
    const child = spawn(process.execPath, [join(root, script), ...args], { env, cwd: root });
    let text = '';
    child.stdout.on('data', (d: Buffer) => { text += d.toString(); });
    child.stderr.on('data', (d: Buffer) => { text += d.toString(); });
    child.on('close', (code) => (code === 0 ? done(text) : reject(new Error(text))));
  });
  await run('scripts/prepare.ts', [options.workspace]);

  const fleet: Fleet = {
    prefix, base, dataDir, ingest: `http://127.0.0.1:${base}`, sandbox: `http://127.0.0.1:${base + 10}`,
    secret: (name) => openVault({ dataDir, env: {} }).get(name).reveal(),
    segment: (path, body) => callSegment(fleet.ingest, fleet.secret('SEGMENT_WRITE_KEY'), path, body),
    url: (service, instance = 1) => `http://127.0.0.1:${instance === 1 ? base + portOffset[service] : ports.get(keyOf(service, instance)) ?? 0}`,
    logFile: (service, instance = 1) => join(dataDir, `${service}-${instance}.log`),
    async start(service, instance = 1, own = {}) {
      const before = running.get(keyOf(service, instance));
      // Its own readiness would be taken for that of the one that runs.
      if (before !== undefined && before.exitCode === null && before.signalCode === null) throw new Error(`${service} ${instance} runs already`);
      const port = instance === 1 ? base + portOffset[service] : ports.get(keyOf(service, instance)) ?? await freePort();
      ports.set(keyOf(service, instance), port);
      const child = spawnTied([join(root, `services/${service}/main.ts`)], { env: { ...env, ...options.envOf?.(service, instance), ...own, [portVariable[service]]: String(port), WEIR_INSTANCE: String(instance) }, cwd: root, detached: options.apart === true });
      const log = createWriteStream(fleet.logFile(service, instance), { flags: 'a' });
      child.stdout!.pipe(log, { end: false });
      child.stderr!.pipe(log, { end: false });
      running.set(keyOf(service, instance), child);
      await waitFor(`${service} is ready`, async () => {
        if (child.exitCode !== null || child.signalCode !== null) return true;
        return (await fetch(`http://127.0.0.1:${port}/readyz`)).ok;
      }, 60_000);
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${service} ended (${child.exitCode ?? child.signalCode}): ${readFileSync(fleet.logFile(service, instance), 'utf8').slice(-2000)}`);
    },
    process: (service, instance = 1) => running.get(keyOf(service, instance))!,
    async restart(service) {
      const child = fleet.process(service);
      const ended = new Promise((done) => child.once('exit', done));
      child.kill('SIGKILL');
      await ended;
      await fleet.start(service);
    },
    async status() {
      return (await fetch(`http://127.0.0.1:${base + 1}/v1/status`, { headers: { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}` } })).json();
    },
    settled: (deadlineMs = 60_000) => waitFor('everything accepted has ended', async () => {
      const status = await fleet.status();
      if (status.events.pending === 0 && status.deliveries.pending === 0) return status;
      throw new Error(JSON.stringify({ events: status.events, deliveries: status.deliveries, lag: status.lag, incidents: status.incidents }));
    }, deadlineMs),
    cli: (...args) => runCli(args, { WEIR_DATA: dataDir, WEIR_PORT: String(base) }),
    async dispose() {
      await Promise.all([...running.values()].map((child) => new Promise<void>((done) => {
        if (child.exitCode !== null || child.signalCode !== null) return done();
        child.once('exit', () => done());
        child.kill('SIGKILL');
      })));
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
  try {
    await fleet.start('sandbox');
    await Promise.all(fleetServices.filter((s) => s !== 'sandbox').map((s) => fleet.start(s)));
  } catch (error) {
    await fleet.dispose();
    throw error;
  }
  return fleet;
}
