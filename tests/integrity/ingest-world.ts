import type { ChildProcess } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createLog, createSerde, type Log, type LogRecord, type Serde } from '@weir/log';
import { freePort, readKeys, spawnTied, testPrefix, waitFor } from '@weir/testing';
import { openVault } from '@weir/vault';

const root = resolve(import.meta.dirname, '../..');

/** A vendor with pages. It answers by itself, or, while held, keeps the answer of each call back for the test to give. */
export interface Vendor {
  readonly url: string;
  /** Cursor of each call, '' = none. */
  readonly calls: string[];
  readonly held: ServerResponse[];
  hold: boolean;
  answer: (cursor: string) => { status?: number; headers?: Record<string, string>; body?: unknown };
  close(): void;
}

export async function startVendor(): Promise<Vendor> {
  const server = createServer((request, response) => {
    const cursor = new URL(request.url!, 'http://x').searchParams.get('cursor') ?? '';
    vendor.calls.push(cursor);
    if (vendor.hold) {
      vendor.held.push(response);
      return;
    }
    const { status = 200, headers = {}, body = { data: [] } } = vendor.answer(cursor);
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const vendor: Vendor = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/members`, calls: [], held: [], hold: false, answer: () => ({}),
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
  return vendor;
}

export interface Ingest {
  readonly child: ChildProcess;
  readonly url: string;
  /** Resolves with the exit code. */
  readonly ended: Promise<number | null>;
  text(path: string): Promise<string>;
}

/** ingest alone, as processes of its own on the cluster of the run, with one polled source and one of Segment. */
export interface IngestWorld {
  readonly prefix: string;
  readonly authorization: string;
  readonly log: Log;
  readonly serde: Serde;
  start(instance: number): Promise<Ingest>;
  /** Every record of a topic, copied. */
  records(topic: string): Promise<{ key: string; value: string; headers: Record<string, string>; raw: LogRecord }[]>;
  cursor(): Promise<{ cursor: unknown; instance: string } | undefined>;
  dispose(): Promise<void>;
}

export async function startIngestWorld(cluster: { brokers: readonly string[]; registryUrl: string }, vendorUrl: string): Promise<IngestWorld> {
  const dir = mkdtempSync(join(tmpdir(), 'weir-ingest-'));
  const workspace = join(dir, 'workspace');
  cpSync(join(root, 'workspace'), workspace, { recursive: true });
  mkdirSync(join(workspace, 'mappings'), { recursive: true });
  writeFileSync(join(workspace, 'mappings/members.yaml'), 'mapping: members\noutputs:\n  profile:\n    record: Profile\n    objectKey: id\n    fields:\n      userId: id\n');
  writeFileSync(join(workspace, 'sources/members.yaml'), `adapter: http-poll\nmapping: members.yaml\nconfig:\n  url: ${vendorUrl}\n  items: data\n  cursor: token\n  every: 1\n  requestsPerMinute: 6000\n`);
  const prefix = testPrefix('ingest');
  const env = { ...process.env, WEIR_LOG_LEVEL: 'info', WEIR_DATA: dir, WEIR_TOPIC_PREFIX: prefix, KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl, WEIR_ALLOW_PRIVATE_SOURCES: 'true', WEIR_POLLER_SESSION_MS: '3000' };
  const children: ChildProcess[] = [];
  const run = (args: readonly string[], more: Record<string, string> = {}): ChildProcess => {
    const child = spawnTied(args, { cwd: root, env: { ...env, ...more } });
    children.push(child);
    return child;
  };
  const ended = (child: ChildProcess): Promise<number | null> => new Promise((done) => child.once('exit', (code) => done(code)));
  const prepare = run(['scripts/prepare.ts', workspace]);
  let problem = '';
  prepare.stderr!.on('data', (d: Buffer) => { problem += d.toString(); });
  if (await ended(prepare) !== 0) throw new Error(problem);
  const log = createLog({ brokers: cluster.brokers, clientId: 'test' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const keys = await readKeys({ log, serde, prefix, dataDir: dir });

  const world: IngestWorld = {
    prefix, log, serde,
    authorization: `Basic ${Buffer.from(`${openVault({ dataDir: dir, env: {} }).get('SEGMENT_WRITE_KEY').reveal()}:`).toString('base64')}`,
    async start(instance) {
      const port = await freePort();
      const child = run(['services/ingest/main.ts'], { WEIR_INGEST_PORT: String(port), WEIR_INSTANCE: String(instance) });
      let output = '';
      for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (d: Buffer) => { output += d.toString(); });
      const url = `http://127.0.0.1:${port}`;
      const text = async (path: string): Promise<string> => (await fetch(url + path)).text();
      const end = ended(child);
      await waitFor('ingest is ready', async () => {
        if (child.exitCode !== null) throw new Error(`it ended: ${output.slice(-2000)}`);
        return (await fetch(`${url}/readyz`)).ok;
      });
      return { child, url, ended: end, text };
    },
    async records(topic) {
      const found: Awaited<ReturnType<IngestWorld['records']>> = [];
      await keys.readToEnd();
      const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
      for (const [partition, endOffset] of await admin.endOffsets(topic)) {
        await reader.read(topic, partition, 0, endOffset, (batch) => {
          for (const r of batch.records) found.push({ key: r.key!.toString(), value: keys.open(r.value!)!.toString(), headers: Object.fromEntries(r.headers.map(([name, value]) => [name, keys.open(value)!.toString()])), raw: { offset: r.offset, timestamp: r.timestamp, key: r.key, headers: r.headers, value: Buffer.from(r.value!) } });
        });
      }
      await reader.close();
      return found;
    },
    async cursor() {
      const last = (await world.records(`${prefix}.control`)).filter((r) => r.key === 'cursor/members').at(-1);
      if (last === undefined) return undefined;
      const { cursor, instance } = serde.decode(last.raw.value!).value as { cursor: string; instance: string };
      return { cursor: JSON.parse(cursor).cursor, instance };
    },
    async dispose() {
      await Promise.all(children.filter((c) => c.exitCode === null && c.signalCode === null).map((child) => {
        child.kill('SIGCONT');
        child.kill('SIGKILL');
        return ended(child);
      }));
      await keys.stop();
      await log.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  return world;
}
