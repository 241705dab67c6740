/** The local platform: Apache Kafka (KRaft, 1 or 3 brokers) and Apicurio Registry as child processes. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { fetchBinaries, type Binaries } from './fetch.ts';
import { startGuarded, type Guarded } from './guarded.ts';
import { findJava, minimumJava } from './java.ts';

const run = promisify(execFile);

export interface PlatformOptions {
  /** Everything the platform writes; it can be started again on the same folder, with other ports. */
  readonly dataDir: string;
  readonly brokers?: 1 | 3;
  /** Where the binaries are kept; default <repository>/.cache/platform. */
  readonly cacheDir?: string;
  readonly registry?: boolean;
  /** More listeners per broker, e.g. behind proxies: a client that comes in by one is told its advertised addresses. */
  readonly listeners?: ReadonlyArray<{ readonly listen: readonly number[]; readonly advertised: readonly number[] }>;
  /** Users of SCRAM-SHA-256 and SCRAM-SHA-512 that a new cluster begins with. For tests: the password is seen on a command line. */
  readonly scram?: ReadonlyArray<{ readonly name: string; readonly password: string }>;
  /** Settings of the brokers beside, or instead of, those that are chosen here. */
  readonly properties?: Readonly<Record<string, string>>;
  /** For what does not live long, or is killed all the time: the JVM compiles quickly instead of well, and a start costs less. */
  readonly shortLived?: boolean;
  /** Lines for a person: what is being waited for. */
  readonly say?: (line: string) => void;
}

export interface Broker {
  readonly address: string;
  readonly process: () => Guarded;
  /** Start it again after a kill or a stop, on the same port and data. */
  restart(): Promise<void>;
}

export interface Platform {
  readonly brokers: readonly Broker[];
  readonly bootstrap: readonly string[];
  readonly registryUrl: string;
  readonly registry: () => Guarded;
  restartRegistry(): Promise<void>;
  stop(): Promise<void>;
}

/** Ports that this process gave out: whoever got one may not listen on it yet. */
const givenOut = new Set<number>();

/**
 * Different ports that nobody listens on now, below the range that the kernel takes for outgoing connections: a broker
 * comes back on its port, and meanwhile no client must have got it. All are held until the last is known. Those from
 * 21,000 on are for services and their helpers (packages/testing/port.ts).
 */
export async function freePorts(count: number): Promise<number[]> {
  const held: Server[] = [];
  while (held.length < count) {
    const port = 10_000 + Math.floor(Math.random() * 11_000);
    if (givenOut.has(port)) continue;
    const server = await new Promise<Server | undefined>((done) => {
      const attempt = createServer();
      attempt.once('error', () => done(undefined));
      attempt.listen(port, '127.0.0.1', () => done(attempt));
    });
    if (server !== undefined) held.push(server);
  }
  const found = held.map((server) => (server.address() as { port: number }).port);
  for (const port of found) givenOut.add(port);
  await Promise.all(held.map((server) => new Promise((done) => { server.close(done); })));
  return found;
}

async function until(what: string, process: Guarded, logFile: string, deadlineMs: number, ready: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    if (!process.running()) throw new Error(`${what} ended while starting; last lines of ${logFile}:\n${(await readFile(logFile, 'utf8')).split('\n').slice(-15).join('\n')}`);
    if (await ready()) return;
    if (performance.now() > end) throw new Error(`${what} was not ready within ${deadlineMs / 1000} s; see ${logFile}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

function portOpen(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => { socket.destroy(); done(true); });
    socket.once('error', () => done(false));
  });
}

/** It is asked a few times at a start, and hardly after that: what the second compiler takes then is never given back. */
const registryLevel = 1;
const levelOf = (options: PlatformOptions): number => (options.shortLived === true ? 1 : 4);

function heap(mb: number, archive: string, level = 4): string[] {
  return [`-Xmx${mb}m`, '-XX:+UseSerialGC', `-XX:TieredStopAtLevel=${level}`, '-Xshare:auto', `-XX:SharedArchiveFile=${archive}`, '-XX:+AutoCreateSharedArchive', '-Xlog:cds=off', '-Xlog:cds+dynamic=off', '-Djava.awt.headless=true'];
}

function serverProperties(id: number, brokers: number, port: number, controllers: readonly number[], logDir: string, options: Pick<PlatformOptions, 'listeners' | 'properties'>): string {
  const replicas = brokers === 3 ? 3 : 1;
  const more = options.listeners ?? [];
  return Object.entries({
    'process.roles': 'broker,controller',
    'node.id': id,
    'controller.quorum.voters': controllers.map((p, i) => `${i + 1}@127.0.0.1:${p}`).join(','),
    'listeners': [`PLAINTEXT://127.0.0.1:${port}`, `CONTROLLER://127.0.0.1:${controllers[id - 1]}`, ...more.map((l, i) => `MORE${i}://127.0.0.1:${l.listen[id - 1]}`)].join(','),
    'advertised.listeners': [`PLAINTEXT://127.0.0.1:${port}`, ...more.map((l, i) => `MORE${i}://127.0.0.1:${l.advertised[id - 1]}`)].join(','),
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': ['PLAINTEXT', 'CONTROLLER', ...more.map((_, i) => `MORE${i}`)].map((name) => `${name}:PLAINTEXT`).join(','),
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': logDir,
    'num.partitions': 6,
    'default.replication.factor': replicas,
    'min.insync.replicas': brokers === 3 ? 2 : 1,
    'offsets.topic.replication.factor': replicas,
    'offsets.topic.num.partitions': 8,
    // Commits outlive every record that a stage reads: a group that has lost them begins behind what retention took, and cannot tell.
    'offsets.retention.minutes': 527_040,
    'transaction.state.log.replication.factor': replicas,
    'transaction.state.log.min.isr': 1,
    'transaction.state.log.num.partitions': 2,
    'share.coordinator.state.topic.replication.factor': replicas,
    'share.coordinator.state.topic.min.isr': 1,
    'group.min.session.timeout.ms': 1000,
    'group.max.session.timeout.ms': 1_800_000,
    'group.initial.rebalance.delay.ms': 0,
    'auto.create.topics.enable': 'false',
    'num.network.threads': 2,
    'num.io.threads': 4,
    'log.segment.bytes': 134_217_728,
    'log.cleaner.dedupe.buffer.size': 16_777_216,
    'log.cleaner.threads': 1,
    'controlled.shutdown.enable': brokers === 3 ? 'true' : 'false',
    // A broker that was killed may register again only when its last session is over (9 s by default): a lone one has nobody to be confused with.
    ...(brokers === 1 ? { 'broker.session.timeout.ms': 1500, 'broker.heartbeat.interval.ms': 400 } : {}),
    ...options.properties,
  }).map(([k, v]) => `${k}=${v}\n`).join('');
}

interface Ports {
  readonly kafka: number[];
  readonly controllers: number[];
  readonly registry: number;
}

/** Ports of the last start where they are still free, so that clients find the platform again; else new ones. */
async function ports(dataDir: string, count: number): Promise<Ports> {
  const file = join(dataDir, 'ports.json');
  const fresh = await freePorts(2 * count + 1);
  const known = existsSync(file) ? (JSON.parse(await readFile(file, 'utf8')) as Ports) : undefined;
  const wanted = known === undefined ? [] : [...known.kafka, ...known.controllers, known.registry];
  const list = await Promise.all(fresh.map(async (port, i) => (wanted[i] !== undefined && !(await portOpen(wanted[i])) ? wanted[i] : port)));
  const chosen = { kafka: list.slice(0, count), controllers: list.slice(count, 2 * count), registry: list[2 * count]! };
  await writeFile(file, JSON.stringify(chosen));
  return chosen;
}

/** Start Kafka and the registry side by side; resolves when both answer. Throws with one line and a remedy when a tool is missing. */
export async function startPlatform(options: PlatformOptions): Promise<Platform> {
  const java = await findJava();
  if (java === undefined) throw new Error(`Java >= ${minimumJava} is missing: install a JDK (e.g. temurin-25-jdk) or set JAVA_HOME, or run a Docker engine, or set KAFKA_BROKERS and SCHEMA_REGISTRY_URL`);
  const dataDir = resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true });
  const cache = options.cacheDir ?? resolve(import.meta.dirname, '../../.cache/platform');
  const binaries = await fetchBinaries(cache);
  const count = options.brokers ?? 1;
  const chosen = await ports(dataDir, count);
  const started: (() => Promise<void>)[] = [];
  try {
    const [brokers, registry] = await Promise.all([
      Promise.all(Array.from({ length: count }, (_, i) => startBroker(java, binaries, cache, dataDir, i + 1, count, chosen, started, options))),
      options.registry === false ? undefined : startRegistry(java, binaries, cache, dataDir, chosen.registry, started),
    ]);
    await until('Kafka', brokers[0]!.process(), join(dataDir, 'broker-1.log'), 60_000, async () => (await Promise.all(chosen.kafka.map(portOpen))).every(Boolean));
    return {
      brokers,
      bootstrap: brokers.map((b) => b.address),
      registryUrl: registry?.url ?? '',
      registry: () => registry!.process(),
      restartRegistry: async () => registry!.restart(),
      stop: async () => { await Promise.all(started.map((stop) => stop())); },
    };
  } catch (error) {
    await Promise.all(started.map((stop) => stop()));
    throw error;
  }
}

async function startBroker(java: string, binaries: Binaries, cache: string, dataDir: string, id: number, count: number, chosen: Ports, started: (() => Promise<void>)[], options: PlatformOptions): Promise<Broker> {
  const folder = join(dataDir, `broker-${id}`);
  const properties = join(dataDir, `broker-${id}.properties`);
  const logFile = join(dataDir, `broker-${id}.log`);
  const port = chosen.kafka[id - 1]!;
  await writeFile(properties, serverProperties(id, count, port, chosen.controllers, folder, options));
  const log4j = resolve(import.meta.dirname, 'log4j2.yaml');
  const common = ['-cp', `${binaries.kafka}/*`, `-Dlog4j2.configurationFile=${log4j}`];
  if (!existsSync(join(folder, 'meta.properties'))) {
    const users = (options.scram ?? []).flatMap(({ name, password }) => ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => ['--add-scram', `${mechanism}=[name=${name},password=${password}]`]));
    const clusterId = 'd2Vpci1sb2NhbC1rYWZrYQ';
    await run(java, [...heap(256, join(cache, 'format.jsa')), ...common, 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', properties, ...users], { cwd: dataDir });
  }
  let process: Guarded | undefined;
  const start = async (): Promise<void> => {
    process = await startGuarded(java, [...heap(512, join(cache, 'kafka.jsa'), levelOf(options)), ...common, 'kafka.Kafka', properties], { cwd: dataDir, logFile });
  };
  started.push(async () => { await process?.stop(); });
  await start();
  return {
    address: `127.0.0.1:${port}`,
    process: () => process!,
    async restart() {
      await process!.stop();
      await start();
      await until(`broker ${id}`, process!, logFile, 60_000, () => portOpen(port));
    },
  };
}

async function startRegistry(java: string, binaries: Binaries, cache: string, dataDir: string, port: number, started: (() => Promise<void>)[]): Promise<{ url: string; process: () => Guarded; restart: () => Promise<void> }> {
  const logFile = join(dataDir, 'registry.log');
  const env = {
    QUARKUS_HTTP_PORT: String(port), QUARKUS_HTTP_HOST: '127.0.0.1', APICURIO_STORAGE_KIND: 'sql', APICURIO_STORAGE_SQL_KIND: 'h2',
    APICURIO_DATASOURCE_URL: `jdbc:h2:file:${join(dataDir, 'registry')}`, QUARKUS_MANAGEMENT_PORT: '0', QUARKUS_MANAGEMENT_HOST: '127.0.0.1', QUARKUS_LOG_LEVEL: 'WARN',
    // Two lines for each request otherwise, written under one lock, and megabytes of them.
    QUARKUS_HTTP_ACCESS_LOG_ENABLED: 'false', QUARKUS_LOG_CATEGORY__IO_APICURIO_REGISTRY_LOGGING_AUDIT__LEVEL: 'WARN',
  };
  let process: Guarded | undefined;
  const start = async (): Promise<void> => {
    process = await startGuarded(java, [...heap(384, join(cache, 'registry.jsa'), registryLevel), '-jar', join(binaries.registry, 'quarkus-run.jar')], { cwd: dataDir, logFile, env });
    await until('the schema registry', process, logFile, 90_000, () => answers(`http://127.0.0.1:${port}/apis/ccompat/v7/subjects`));
  };
  started.push(async () => { await process?.stop(); });
  await start();
  return { url: `http://127.0.0.1:${port}/apis/ccompat/v7`, process: () => process!, async restart() { await process!.stop(); await start(); } };
}

async function answers(url: string): Promise<boolean> {
  return fetch(url, { signal: AbortSignal.timeout(2000) }).then((r) => r.ok, () => false);
}
