/** Contact webhooks → Avro with registry framing, Kafka to Kafka: Weir beside a Kafka Streams application that does the same by hand. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLog, createSerde, partitionOf } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import { findJava } from '../../infra/local/java.ts';
import { benchKeys, eventOf, numberOf, rawContact, rawOwners, sealedContact } from '../contacts.ts';
import { cpuOf, root, startJava, startNode, type Benchmark, type Child, type Cluster, type Party, type Sample } from '../harness.ts';

const partitions = 6;
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 200_000);
const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 300_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const pollMs = 25;
const deadlineMs = 180_000;
const sampled = 997;
const peer = join(root, 'bench/peers/kafka-streams');

function buildPeer(): void {
  const jar = join(peer, 'target/peer.jar');
  const changed = (file: string): number => statSync(join(peer, file)).mtimeMs;
  const newest = Math.max(changed('pom.xml'), ...['Peer', 'Normalize'].map((name) => changed(`src/main/java/dev/weir/bench/${name}.java`)));
  if (!existsSync(jar) || statSync(jar).mtimeMs < newest) execFileSync('mvn', ['-q', '-B', '-f', join(peer, 'pom.xml'), 'package'], { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Made once and kept: what is sent is the same in every run. */
export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const java = await findJava();
  if (java === undefined) throw new Error('the peer needs Java');
  buildPeer();
  const prefix = 'bench';
  const [topics, sealed] = [topicNames(prefix), topicNames('sealed')];
  const raw = topics.raw('contacts');
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const admin = await log.admin();
  const config = { 'max.message.bytes': '2097152' };
  const spec = (name: string) => ({ name, partitions, replicationFactor: 1, config });
  await admin.createTopics([raw, topics.consentChanges, topics.identity, topics.dlq, topics.outcome, topics.keys, ...[sealed.raw('contacts'), sealed.consentChanges, sealed.identity, sealed.dlq, sealed.outcome, sealed.keys]].map(spec));
  const appender = await log.appender({ maxPendingBytes: 1e9 });
  for (const topic of [raw, sealed.raw('contacts')]) await appender.partitions(topic);
  const keys = await benchKeys(log, serde, sealed.keys, join(cluster.dir, 'keys'));
  const total = warm + measured;
  let bytes = 0;
  for (let at = 0; at < total; at += 5000) {
    const records = Array.from({ length: Math.min(5000, total - at) }, (_, i) => rawContact(at + i, (key) => partitionOf(key, partitions)));
    for (const record of records) bytes += record.value!.length;
    await appender.append(raw, records);
    await keys.ensure(rawOwners(total));
    await appender.append(sealed.raw('contacts'), Array.from({ length: records.length }, (_, i) => sealedContact(at + i, (key) => partitionOf(key, partitions), keys)));
  }
  const schemaFile = join(cluster.dir, 'profile.avsc');
  writeFileSync(schemaFile, JSON.stringify(loadSchemas().get('weir.canonical.Profile')));
  const env = { KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl, WEIR_DATA: join(cluster.dir, 'data') };
  mkdirSync(env.WEIR_DATA, { recursive: true });
  /** Value of each sampled event as the first party made it: the others make the same bytes. */
  const expected = new Map<string, Buffer>();

  /** The committed position decides what is done: what is before it is written, whoever it is. */
  async function until(group: string, records: number, child: Child, topic: string): Promise<number> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const done = [...(await admin.committed(group, topic)).values()].reduce((a, b) => a + b, 0);
      if (done >= records) return done;
      if (performance.now() > end) throw new Error(`${group}: ${done} of ${records} records within ${deadlineMs / 1000} s`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), child.failed]);
    }
  }

  /** Every event once, and the sampled ones byte for byte. */
  async function check(out: string, converts: boolean): Promise<void> {
    await keys.readToEnd();
    const reader = await log.reader();
    const seen = new Set<string>();
    for (const [partition, end] of await admin.endOffsets(out)) {
      await reader.read(out, partition, 0, end, (batch) => {
        for (const { headers, value } of batch.records) {
          const event = headers.find(([name]) => name === H.event)![1].toString('latin1');
          if (seen.has(event)) throw new Error(`${out}: ${event} twice`);
          seen.add(event);
          const number = numberOf(event);
          if (!converts || number % sampled !== 0) continue;
          const known = expected.get(event);
          if (known === undefined) expected.set(event, Buffer.from(keys.open(value!)!));
          else if (!known.equals(keys.open(value!)!)) throw new Error(`${out}: ${event} has other bytes than the first party made:\n${JSON.stringify(serde.decode(known).value)}\n${JSON.stringify(serde.decode(keys.open(value!)!).value)}`);
        }
      });
    }
    await reader.close();
    if (seen.size !== total || !seen.has(eventOf(0)) || !seen.has(eventOf(total - 1))) throw new Error(`${out}: ${seen.size} events of ${total}`);
  }

  function party(name: string, converts: boolean, start: (run: string, logFile: string) => Child, of = prefix): Party {
    return {
      name,
      async run(round): Promise<Sample> {
        const run = `${name}-${round}`;
        const group = `${of}.${run}`;
        const out = `${of}.out.${run}`;
        const from = topicNames(of).raw('contacts');
        await admin.createTopics([spec(out)]);
        const child = start(run, join(cluster.dir, `${run}.log`));
        try {
          const begun = await until(group, warm, child, from);
          const [began, cpu, broker] = [performance.now(), cpuOf(child.pid), cluster.brokerCpu()];
          await until(group, total, child, from);
          const [wallMs, cpuUs, brokerCpuUs] = [performance.now() - began, cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker];
          const { anon, file } = await child.memory();
          await check(out, converts);
          return { records: total - begun, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file };
        } finally {
          await child.stop();
          await admin.deleteTopics([out]);
        }
      },
    };
  }
  const streams = (guarantee: string) => (run: string, logFile: string): Child => startJava(java, ['-Xms512m', '-Xmx512m', '-XX:+UseParallelGC', '-XX:+AlwaysPreTouch', '-cp', `${join(peer, 'target/peer.jar')}:${join(peer, 'target/lib')}/*`, 'dev.weir.bench.Peer', env.KAFKA_BROKERS, `${prefix}.${run}`, raw, `${prefix}.out.${run}`, guarantee, schemaFile, `${serde.idOf('weir.canonical.Profile')}/rel_0123456789abcdef`, join(cluster.dir, 'streams')], logFile);
  const weir = (kind: string, of = prefix) => (run: string, logFile: string): Child => startNode('bench/parties/normalizer.ts', [kind, of, run], env, logFile);
  const parties = [
    party('weir', true, weir('like-for-like')), party('streams-exactly-once', true, streams('exactly_once_v2')), party('weir-everything-on', true, weir('service', 'sealed'), 'sealed'), party('weir-unsealed', true, weir('unsealed')), party('streams-at-least-once', true, streams('at_least_once')),
    party('weir-pass-through', false, weir('pass-through')), party('bare-client-loop', false, (run, logFile) => startNode('bench/parties/bare-loop.ts', [prefix, run], env, logFile)),
  ];
  return {
    name: 'normalizer', rounds, parties, parameters: { records: measured, warmUp: warm, partitions, meanBytes: Math.round(bytes / total), fields: 26 },
    figures: (of) => [
      { what: 'weir to Kafka Streams exactly_once_v2, like for like: identity and sealing off, CPU per record (1 or more = Weir needs no more)', value: of('streams-exactly-once').cpuUsPerRecord / of('weir').cpuUsPerRecord, atLeast: 1 },
      { what: 'weir to Kafka Streams exactly_once_v2, like for like: identity and sealing off, CPU with the broker', value: (of('streams-exactly-once').cpuUsPerRecord + of('streams-exactly-once').brokerCpuUsPerRecord) / (of('weir').cpuUsPerRecord + of('weir').brokerCpuUsPerRecord) },
      { what: 'weir to Kafka Streams at_least_once, like for like: identity and sealing off, CPU per record', value: of('streams-at-least-once').cpuUsPerRecord / of('weir').cpuUsPerRecord },
      { what: 'the service with all but sealing (event ids, identity, metrics) to Kafka Streams exactly_once_v2, CPU per record', value: of('streams-exactly-once').cpuUsPerRecord / of('weir-unsealed').cpuUsPerRecord },
      { what: 'everything on to weir like for like, CPU per record', value: of('weir').cpuUsPerRecord / of('weir-everything-on').cpuUsPerRecord, atLeast: 0.6 },
      { what: 'weir like for like over pass-through, µs per record', value: of('weir').cpuUsPerRecord - of('weir-pass-through').cpuUsPerRecord, atMost: 6 },
      { what: 'pass-through to the bare loop, CPU per record', value: of('bare-client-loop').cpuUsPerRecord / of('weir-pass-through').cpuUsPerRecord, atLeast: 0.9 },
      { what: 'RssAnon of everything on, MB', value: of('weir-everything-on').rssAnonMb, atMost: 300 },
    ],
    async close() {
      await keys.stop();
      await log.close();
    },
  };
}
