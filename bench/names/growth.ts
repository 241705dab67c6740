/** One normalizer, everything on, over a topic that grows to millions of events: CPU per event and memory at every mark. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createLog, partitionOf } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { rawContact } from '../contacts.ts';
import { fill } from '../deliveries.ts';
import { cpuOf, startNode, type Benchmark, type Cluster, type Sample } from '../harness.ts';

const marks = (process.env['WEIR_BENCH_MARKS'] ?? '10000,100000,300000,1000000,2000000,3000000').split(',').map(Number);
const partitions = 6;
const pollMs = 25;
const deadlineMs = 900_000;

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const prefix = 'growth';
  const topics = topicNames(prefix);
  const raw = topics.raw('contacts');
  const out = `${prefix}.out.run`;
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const admin = await log.admin();
  await admin.createTopics([raw, topics.consentChanges, topics.identity, topics.dlq, topics.outcome, out].map((name) => ({ name, partitions, replicationFactor: 1, config: { 'max.message.bytes': '2097152' } })));
  const appender = await log.appender({ maxPendingBytes: 1e9 });
  await appender.partitions(raw);
  const env = { KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl, WEIR_DATA: join(cluster.dir, 'growth') };
  mkdirSync(env.WEIR_DATA, { recursive: true });

  async function until(count: number, failed: Promise<never>): Promise<void> {
    const end = performance.now() + deadlineMs;
    while ([...(await admin.committed(`${prefix}.run`, raw)).values()].reduce((a, b) => a + b, 0) < count) {
      if (performance.now() > end) throw new Error(`not ${count} records within ${deadlineMs / 1000} s`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), failed]);
    }
  }

  async function run(): Promise<Sample> {
    const child = startNode('bench/parties/normalizer.ts', ['service', prefix, 'run'], env, join(cluster.dir, 'growth.log'));
    const more: Record<string, number> = {};
    const began = performance.now();
    const broker = cluster.brokerCpu();
    let before = 0;
    let memory = { anon: 0, file: 0 };
    try {
      for (const mark of marks) {
        const from = before;
        await fill(mark - from, (i) => rawContact(from + i, (key) => partitionOf(key, partitions)), (records) => appender.append(raw, records));
        const cpu = cpuOf(child.pid);
        await until(mark, child.failed);
        memory = await child.memory();
        more[`at ${mark}: µs`] = Math.round((cpuOf(child.pid) - (from === 0 ? 0 : cpu)) / (mark - from) * 100) / 100;
        more[`at ${mark}: RssAnon MB`] = Math.round(memory.anon);
        before = mark;
      }
      if ([...(await admin.endOffsets(out)).values()].reduce((a, b) => a + b, 0) !== before) throw new Error('not one record of each event');
      return { records: before, wallMs: performance.now() - began, cpuUs: cpuOf(child.pid), brokerCpuUs: cluster.brokerCpu() - broker, rssAnonMb: memory.anon, rssFileMb: memory.file, more };
    } finally {
      await child.stop();
    }
  }
  return {
    name: 'growth', rounds: 1, parties: [{ name: 'normalizer', run }], parameters: { marks, partitions },
    ratios: (of): Record<string, number> => {
      const { more } = of('normalizer');
      const last = marks[marks.length - 1]!;
      return { 'CPU per event, last mark to 100,000 (0.9 to 1.1)': more[`at ${last}: µs`]! / (more['at 100000: µs'] ?? more[`at ${last}: µs`]!), 'RssAnon at the last mark, MB (limit 300)': more[`at ${last}: RssAnon MB`]! };
    },
    close: () => log.close(),
  };
}
