/** Canonical bytes in, deliveries out: 4 destinations, 20 rules, 3 identifiers a person; every route of every record is decided. */
import { createLog, createSerde, partitionOf } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { readWorkspaceKey } from '@weir/vault';
import { canonicalRecord, destination, fill, hex } from '../deliveries.ts';
import { cpuOf, type Benchmark, type Child, type Cluster, type Party, type Sample } from '../harness.ts';
import { createWorld } from '../world.ts';

const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 200_000);
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 50_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const subjects = Number(process.env['WEIR_BENCH_SUBJECTS'] ?? 1_000_000);
const destinations = ['crm', 'warehouse', 'mail', 'ads'];
const pollMs = 25;
const deadlineMs = 240_000;
const rules = [
  "  - { name: all, effect: allow, when: 'purpose == \"service\"' }",
  ...Array.from({ length: 19 }, (_, i) => `  - { name: never-${i}, effect: deny, when: 'record.country == "X${String.fromCharCode(65 + i)}" && record.plan != "p${i}"' }`),
].join('\n');

/** Uniform over the subjects, and the same in every run (Knuth, multiplicative hashing). */
const subjectOf = (i: number): number => Number((BigInt(i) * 2_654_435_761n) % BigInt(subjects));

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const admin = await log.admin();
  const total = warm + measured;

  async function until(group: string, topic: string, count: number, child: Child): Promise<number> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const done = [...(await admin.committed(group, topic)).values()].reduce((a, b) => a + b, 0);
      if (done >= count) return done;
      if (performance.now() > end) throw new Error(`${done} of ${count} records within ${deadlineMs / 1000} s`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), child.failed]);
    }
  }

  /** One delivery of every record at every destination. */
  async function check(topics: ReturnType<typeof topicNames>): Promise<void> {
    const reader = await log.reader();
    for (const name of destinations) {
      const seen = new Set<string>();
      for (const [partition, end] of await admin.endOffsets(topics.dispatch(name))) await reader.read(topics.dispatch(name), partition, 0, end, (batch) => {
        for (const { value } of batch.records) seen.add((serde.decode(value!).value as { outputId: string }).outputId);
      });
      if (seen.size !== total || !seen.has(`out_${hex(0)}`) || !seen.has(`out_${hex(total - 1)}`)) throw new Error(`${name}: ${seen.size} deliveries of ${total}`);
    }
    await reader.close();
  }

  async function weir(): Promise<Sample> {
    const world = await createWorld(cluster, {
      'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': `rules:\n${rules}\n`,
      ...Object.fromEntries(destinations.map((name) => [`destinations/${name}.yaml`, destination('http://127.0.0.1:9')])),
    });
    const topics = topicNames(world.prefix);
    const appender = await log.appender({ maxPendingBytes: 1e9 });
    const partitions = await appender.partitions(topics.canonical);
    const key = readWorkspaceKey(world.env['WEIR_DATA']!, undefined);
    await fill(total, (i) => canonicalRecord(serde, key, i, subjectOf(i), 'rel_0123456789abcdef', (bytes) => partitionOf(bytes, partitions)), (records) => appender.append(topics.canonical, records));
    await appender.close();
    const child = await world.start('policy');
    try {
      const group = `${world.prefix}.policy`;
      const from = await until(group, topics.canonical, warm, child);
      const [cpu, broker, began] = [cpuOf(child.pid), cluster.brokerCpu(), performance.now()];
      await until(group, topics.canonical, total, child);
      const [cpuUs, brokerCpuUs, wallMs] = [cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker, performance.now() - began];
      const { anon, file } = await child.memory();
      await check(topics);
      const records = (total - from) * destinations.length;
      return { records, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { decidedPerCore: Math.round(records / cpuUs * 1e6) } };
    } finally {
      await child.stop();
    }
  }
  const parties: Party[] = [{ name: 'weir', run: weir }];
  return {
    name: 'policy', rounds, parties, parameters: { records: measured, warmUp: warm, subjects, identifiers: 3, destinations: destinations.length, rules: 20 },
    ratios: (of): Record<string, number> => ({ 'deliveries decided per second and core': of('weir').more['decidedPerCore']! }),
    close: () => log.close(),
  };
}
