/** The consent table of an instance that lost its cache, per key: read from the topic, decoded, and on disk. */
import { execFileSync } from 'node:child_process';
import { createLog, createSerde, partitionOf } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { consentKey } from '@weir/policy';
import { fill, restoredId } from '../deliveries.ts';
import { type Benchmark, type Cluster, type Sample } from '../harness.ts';
import { startHelper } from '../world.ts';

const keys = Number(process.env['WEIR_BENCH_RECORDS'] ?? 1_000_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const partitions = 6;

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const topics = topicNames('restore');
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const admin = await log.admin();
  await admin.createTopics([topics.consent, topics.identity].map((name) => ({ name, partitions, replicationFactor: 1, config: { 'cleanup.policy': 'compact' } })));
  const appender = await log.appender({ maxPendingBytes: 1e9 });
  await appender.partitions(topics.consent);
  let bytes = 0;
  await fill(0, keys, (i) => {
    const id = restoredId(i);
    const key = Buffer.from(consentKey(id, 'news', 'email', ''));
    const value = serde.encode('weir.internal.ConsentState', { id, purpose: 'news', channel: 'email', topic: '', state: 'granted', version: i, changedAt: 1_790_000_000_000 + i, source: 'contacts', legalBasis: 'consent', proof: null, expiresAt: null, changeId: `evt_${i.toString(16).padStart(32, '0')}`, seen: [], jurisdiction: null, noticeVersion: null, closedBy: [] });
    bytes += key.length + value.length;
    return { partition: partitionOf(Buffer.from(id), partitions), key, value };
  }, (records) => appender.append(topics.consent, records));
  const env = { KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl };

  async function run(): Promise<Sample> {
    const child = await startHelper('restore.ts', [topics.consent, topics.identity, String(keys)], env);
    try {
      const broker = cluster.brokerCpu();
      const { wallMs, cpuUs, stateDir } = await child.ask<{ wallMs: number; cpuUs: number; stateDir: string }>('run');
      const brokerCpuUs = cluster.brokerCpu() - broker;
      const { anon, file } = await child.memory();
      const disk = Number(execFileSync('du', ['-sb', stateDir], { encoding: 'utf8' }).split('\t')[0]);
      await child.ask('clear', stateDir);
      return { records: keys, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { topicBytesPerKey: Math.round(bytes / keys), diskBytesPerKey: Math.round(disk / keys), keysPerCoreSecond: Math.round(keys / cpuUs * 1e6) } };
    } finally {
      child.stop();
    }
  }
  return {
    name: 'restore', rounds, parties: [{ name: 'consent', run }], parameters: { keys, partitions },
    figures: (of) => [{ what: 'keys per second', value: of('consent').median, atLeast: 150_000 }, { what: 'keys per second of a core', value: of('consent').more['keysPerCoreSecond']! }],
    close: () => log.close(),
  };
}
