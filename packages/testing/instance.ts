import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { runCli, type CliRun } from './cli.ts';
import { freePort } from './port.ts';
import { callSegment } from './segment.ts';
import { spawnTied } from './tied.ts';
import { testPrefix, waitFor } from './wait.ts';

const root = resolve(import.meta.dirname, '../..');

export interface InstanceOptions {
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly workspace?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** `npm start` of this repository as a process of its own, on the cluster of the test run, with its own topics, ports and data. */
export interface Instance {
  readonly base: number;
  readonly dataDir: string;
  readonly prefix: string;
  readonly ingest: string;
  readonly control: string;
  readonly sandbox: string;
  writeKey(): string;
  /** Sends to the source `segment` under its write key: `path` is `identify`, `track`, `batch` and the like. */
  segment(path: string, body: unknown): Promise<Response>;
  /** Standard output so far. */
  output(): string;
  status(): Promise<any>;
  /** Until nothing is pending. */
  settled(deadlineMs?: number): Promise<any>;
  api(path: string, init?: RequestInit): Promise<Response>;
  effects(destination: string): Promise<any[]>;
  cli(...args: string[]): Promise<CliRun>;
  /** Ends the process: by SIGINT and a clean stop, or by SIGKILL. */
  stop(signal?: 'SIGINT' | 'SIGKILL'): Promise<number | null>;
  /** @param extra environment of this run only */
  start(extra?: Readonly<Record<string, string | undefined>>): Promise<void>;
  /** Resolves when the process has ended by itself, or was killed by a point of WEIR_FAILPOINTS. */
  ended(): Promise<void>;
  /** Ends it and removes its data. */
  dispose(): Promise<void>;
}

export async function startInstance(options: InstanceOptions): Promise<Instance> {
  const base = await freePort(11);
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-instance-'));
  const prefix = testPrefix();
  const env = { ...process.env, NODE_COMPILE_CACHE: join(root, '.cache/compiled'), ...options.env, WEIR_PORT: String(base), WEIR_DATA: dataDir, WEIR_TOPIC_PREFIX: prefix, KAFKA_BROKERS: options.brokers.join(','), SCHEMA_REGISTRY_URL: options.registryUrl, ...(options.workspace === undefined ? {} : { WEIR_WORKSPACE: options.workspace }) };
  const url = (offset: number): string => `http://127.0.0.1:${base + offset}`;
  let child: ChildProcess | undefined;
  let text = '';

  const instance: Instance = {
    base, dataDir, prefix, ingest: url(0), control: url(1), sandbox: url(10),
    writeKey: () => /^segment write key: (.+)$/m.exec(text)![1]!,
    segment: (path, body) => callSegment(instance.ingest, instance.writeKey(), path, body),
    output: () => text,
    async status() {
      const response = await instance.api('/v1/status');
      return response.json();
    },
    settled: (deadlineMs = 60_000) => waitFor('everything accepted has ended', async () => {
      const status = await instance.status();
      return status.events.pending === 0 && status.deliveries.pending === 0 ? status : undefined;
    }, deadlineMs),
    api: (path, init) => fetch(url(1) + path, { ...init, headers: { authorization: `Bearer ${/^admin token: (.+)$/m.exec(text)![1]!}`, 'content-type': 'application/json', ...init?.headers } }),
    effects: async (destination) => (await (await fetch(`${url(10)}/effects?destination=${destination}`)).json()) as any[],
    cli: (...args) => runCli(args, env),
    async stop(signal = 'SIGINT') {
      const running = child;
      if (running === undefined || running.exitCode !== null || running.signalCode !== null) return running?.exitCode ?? null;
      const ended = new Promise<number | null>((done) => running.once('exit', (code) => done(code)));
      running.kill(signal);
      // As npm and a terminal do: the same signal reaches the process more than once.
      if (signal === 'SIGINT') running.kill(signal);
      return ended;
    },
    async ended() {
      await waitFor('weir has ended', () => child === undefined || child.exitCode !== null || child.signalCode !== null, 60_000);
    },
    async start(extra = {}) {
      text = '';
      child = spawnTied([join(root, 'scripts/start.ts')], { env: { ...env, ...extra }, cwd: root });
      child.stdout!.on('data', (d: Buffer) => { text += d.toString(); });
      child.stderr!.on('data', (d: Buffer) => { text += d.toString(); });
      await waitFor('weir ready', () => {
        if (child!.exitCode !== null) throw new Error(`it ended: ${text.slice(-2000)}`);
        return /^weir ready/m.test(text);
      }, 60_000);
    },
    async dispose() {
      await instance.stop('SIGKILL');
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
  await instance.start();
  return instance;
}
