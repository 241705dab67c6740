/** A workspace on the cluster of a benchmark, its services as the processes that they are, a sink to deliver to, and a pinned open-loop sender. */
import { execFileSync, fork, type ChildProcess } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import type { Log, Serde } from '@weir/log';
import type { KeyRing } from '@weir/seal';
import { freePort, readKeys } from '@weir/testing';
import { openVault, readWorkspaceKey } from '@weir/vault';
import { image, memoryOf, root, startNode, type Child, type Cluster } from './harness.ts';

export type ServiceName = 'ingest' | 'normalizer' | 'policy' | 'dispatcher' | 'control';

export interface World {
  readonly prefix: string;
  readonly env: Readonly<Record<string, string>>;
  secret(name: string): string;
  /** Of the workspace, with which identifiers are keyed. */
  readonly workspaceKey: Buffer;
  /** What its services seal with. */
  keys(log: Log, serde: Serde): Promise<KeyRing>;
  /** Resolves when it is ready. */
  start(service: ServiceName, env?: Readonly<Record<string, string>>): Promise<Child & { readonly url: string }>;
}

let worlds = 0;

/** Applies the workspace of these files: topics, schemas, secrets and release are there when it resolves. */
export async function createWorld(cluster: Cluster, files: Readonly<Record<string, string>>): Promise<World> {
  const prefix = `bench${++worlds}`;
  const dir = join(cluster.dir, prefix);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, 'workspace', path)), { recursive: true });
    writeFileSync(join(dir, 'workspace', path), text);
  }
  const env = {
    KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl, WEIR_DATA: join(dir, 'data'), WEIR_TOPIC_PREFIX: prefix, WEIR_LOG_LEVEL: 'warn',
    WEIR_ALLOW_PRIVATE_DESTINATIONS: 'true', WEIR_ALLOW_PRIVATE_SOURCES: 'true', WEIR_NORMALIZER_SESSION_MS: '30000', WEIR_POLICY_SESSION_MS: '30000', WEIR_DISPATCHER_SESSION_MS: '30000',
  };
  execFileSync(process.execPath, [join(root, 'scripts/prepare.ts'), join(dir, 'workspace')], { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'inherit'] });
  return {
    prefix, env,
    workspaceKey: readWorkspaceKey(env.WEIR_DATA, undefined),
    keys: (log, serde) => readKeys({ log, serde, prefix, dataDir: env.WEIR_DATA }),
    secret: (name) => openVault({ dataDir: env.WEIR_DATA, env: {} }).get(name).reveal(),
    async start(service, own = {}) {
      const port = await freePort();
      const child = startNode(`services/${service}/main.ts`, [], { ...env, ...own, [`WEIR_${service.toUpperCase()}_PORT`]: String(port) }, join(dir, `${service}.log`));
      const url = `http://127.0.0.1:${port}`;
      await Promise.race([ready(url), child.failed]);
      return { ...child, url };
    },
  };
}

/** Tables of millions of states are read before a service is ready. */
const readyMs = 300_000;

export async function ready(url: string): Promise<void> {
  const end = performance.now() + readyMs;
  for (;;) {
    const found = await fetch(`${url}/readyz`).catch(() => undefined);
    if (found?.ok === true) return;
    if (performance.now() > end) throw new Error(`${url} is not ready within ${readyMs / 1000} s`);
    await new Promise((next) => setTimeout(next, 50));
  }
}

/** A helper process that answers messages; `ask` resolves with the answer of the same kind. */
export interface Helper {
  readonly pid: number;
  ask<T>(kind: string, value?: unknown): Promise<T>;
  /** Waits for a message of this kind. */
  told<T>(kind: string): Promise<T>;
  /** Memory after a full collection. */
  memory(): Promise<{ anon: number; file: number }>;
  stop(): void;
}

/** Started with bench/parties/<script>.ts; pinned to the last core when it generates load. */
export async function startHelper(script: string, args: readonly string[], env: Readonly<Record<string, string>> = {}, pinned = false): Promise<Helper> {
  const child: ChildProcess = fork(join(root, 'bench/parties', script), args, { cwd: root, env: { ...process.env, ...image.env, ...env }, stdio: ['ignore', 'inherit', 'inherit', 'ipc'], execArgv: [...image.execArgv, '--expose-gc'] });
  const failed = new Promise<never>((_, reject) => child.once('exit', (code) => reject(new Error(`${script} ended with ${code}`))));
  failed.catch(() => {});
  const told = <T>(kind: string): Promise<T> => Promise.race([failed, new Promise<T>((done) => {
    const look = (message: unknown): void => {
      const { kind: seen, value } = message as { kind: string; value: T };
      if (seen !== kind) return;
      child.off('message', look);
      done(value);
    };
    child.on('message', look);
  })]);
  const helper: Helper = {
    pid: child.pid!, told,
    ask<T>(kind: string, value?: unknown) {
      const answer = told<T>(kind);
      child.send({ kind, value });
      return answer;
    },
    async memory() {
      await helper.ask('collect');
      return memoryOf(child.pid!);
    },
    stop: () => { child.kill('SIGKILL'); },
  };
  if (pinned && availableParallelism() > 1) execFileSync('taskset', ['-acp', String(availableParallelism() - 1), String(child.pid)], { stdio: 'ignore' });
  await helper.ask('ready');
  return helper;
}

export interface Load {
  /** When the first was due, ms of the machine's monotonic clock. */
  readonly begin: number;
  readonly sent: number;
  readonly accepted: number;
  /** Share of its core that the sender used. */
  readonly share: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/** A run whose sender had no core left measured the sender. */
export function judge(load: Load): void {
  if (load.share > 0.8) throw new Error(`void: the sender used ${Math.round(load.share * 100)} % of its core`);
  if (load.accepted !== load.sent) throw new Error(`${load.sent - load.accepted} of ${load.sent} requests were not accepted`);
}
