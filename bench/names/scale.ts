/** The same events by one, two and four normalizer processes of one group, everything on: what an event costs does not grow with their number. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createLog, createSerde, partitionOf } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { benchKeys, rawOwners, sealedContact } from '../contacts.ts';
import { fill } from '../deliveries.ts';
import { cpuOf, startNode, type Benchmark, type Cluster, type Party, type Sample } from '../harness.ts';

const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 200_000);
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 100_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 2);
const partitions = 8;
const pollMs = 25;
const deadlineMs = 300_000;

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const prefix = 'scale';
  const topics = topicNames(prefix);
  const raw = topics.raw('contacts');
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const admin = await log.admin();
  const spec = (name: string) => ({ name, partitions, replicationFactor: 1, config: { 'max.message.bytes': '2097152' } });
  await admin.createTopics([raw, topics.consentChanges, topics.identity, topics.dlq, topics.outcome, topics.keys].map(spec));
  const appender = await log.appender({ maxPendingBytes: 1e9 });
  await appender.partitions(raw);
  const total = warm + measured;
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const keys = await benchKeys(log, serde, topics.keys, join(cluster.dir, 'keys'));
  await keys.ensure(rawOwners(total));
  await fill(0, total, (i) => sealedContact(i, (key) => partitionOf(key, partitions), keys), (records) => appender.append(raw, records));
  await keys.stop();
  const env = { KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl, WEIR_DATA: join(cluster.dir, 'scale') };
  mkdirSync(env.WEIR_DATA, { recursive: true });

  async function until(group: string, count: number, failed: Promise<never>): Promise<number> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const done = [...(await admin.committed(group, raw)).values()].reduce((a, b) => a + b, 0);
      if (done >= count) return done;
      if (performance.now() > end) throw new Error(`${done} of ${count} records within ${deadlineMs / 1000} s`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), failed]);
    }
  }

  /** So many events there are on a topic, however often each. */
  async function eventsOn(topic: string): Promise<number> {
    const reader = await log.reader();
    const seen = new Set<string>();
    for (const [partition, end] of await admin.endOffsets(topic)) await reader.read(topic, partition, 0, end, (batch) => {
      for (const { headers } of batch.records) seen.add(headers.find(([name]) => name === H.event)![1].toString('latin1'));
    });
    await reader.close();
    return seen.size;
  }

  const party = (processes: number): Party => ({
    name: `${processes} process${processes === 1 ? '' : 'es'}`,
    async run(round): Promise<Sample> {
      const run = `${processes}-${round}`;
      const out = `${prefix}.out.${run}`;
      await admin.createTopics([spec(out)]);
      const children = Array.from({ length: processes }, (_, i) => startNode('bench/parties/normalizer.ts', ['service', prefix, run], env, join(cluster.dir, `scale-${run}-${i}.log`)));
      const failed = Promise.race(children.map((child) => child.failed));
      const cpu = (): number => children.reduce((sum, child) => sum + cpuOf(child.pid), 0);
      try {
        const from = await until(`${prefix}.${run}`, warm, failed);
        const [before, broker, began] = [cpu(), cluster.brokerCpu(), performance.now()];
        await until(`${prefix}.${run}`, total, failed);
        const [cpuUs, brokerCpuUs, wallMs] = [cpu() - before, cluster.brokerCpu() - broker, performance.now() - began];
        const memory = await Promise.all(children.map((child) => child.memory()));
        // A rebalance while they join may repeat some: none may be missing.
        const distinct = await eventsOn(out);
        const written = [...(await admin.endOffsets(out)).values()].reduce((a, b) => a + b, 0);
        if (distinct !== total) throw new Error(`${distinct} events of ${total}`);
        return { records: total - from, wallMs, cpuUs, brokerCpuUs, rssAnonMb: Math.max(...memory.map((m) => m.anon)), rssFileMb: Math.max(...memory.map((m) => m.file)), more: { repeated: written - total } };
      } finally {
        await Promise.all(children.map((child) => child.stop()));
        await admin.deleteTopics([out]);
      }
    },
  });
  return {
    name: 'scale', rounds, parties: [1, 2, 4].map(party), parameters: { records: measured, warmUp: warm, partitions },
    figures: (of) => [2, 4].map((processes) => ({ what: `CPU per event, ${processes} processes to 1`, value: of(`${processes} processes`).cpuUsPerRecord / of('1 process').cpuUsPerRecord })),
    close: () => log.close(),
  };
}
