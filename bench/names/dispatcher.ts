/** Deliveries of one call each to a sink that answers at once: the dispatcher with ledger and order on, beside bare undici that sends bodies of the same size. */
import { createLog, createSerde, partitionOf } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { readWorkspaceKey } from '@weir/vault';
import { deliveryRecord, destination, fill } from '../deliveries.ts';
import { cpuOf, type Benchmark, type Cluster, type Party, type Sample } from '../harness.ts';
import { createWorld, startHelper } from '../world.ts';

const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 60_000);
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 20_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const subjects = 50_000;
const concurrency = 64;

interface Counted { readonly calls: number; readonly distinct: number; readonly twice: number }

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const total = warm + measured;

  /** A workspace, a topic and a ledger of its own for every run: nothing is delivered already. */
  async function weir(): Promise<Sample> {
    const sink = await startHelper('sink.ts', []);
    const port = await sink.ask<number>('listen');
    const world = await createWorld(cluster, {
      'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n', 'destinations/crm.yaml': destination(`http://127.0.0.1:${port}`),
    });
    const topics = topicNames(world.prefix);
    const topic = topics.dispatch('crm');
    const appender = await log.appender({ maxPendingBytes: 1e9 });
    const partitions = await appender.partitions(topic);
    const key = readWorkspaceKey(world.env['WEIR_DATA']!, undefined);
    await fill(total, (i) => deliveryRecord(serde, key, i, (i * 7919) % subjects, 'rel_0123456789abcdef', (bytes) => partitionOf(bytes, partitions)), (records) => appender.append(topic, records));
    const child = await world.start('dispatcher');
    try {
      await Promise.race([sink.ask('until', warm), child.failed]);
      const [cpu, broker, began] = [cpuOf(child.pid), cluster.brokerCpu(), performance.now()];
      await Promise.race([sink.ask('until', total), child.failed]);
      const ends = await ended(topics.ledger('crm'), total, child.failed);
      const [cpuUs, brokerCpuUs, wallMs] = [cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker, performance.now() - began];
      const counted = await sink.ask<Counted>('result');
      if (counted.calls !== total || counted.distinct !== total || counted.twice > 0) throw new Error(`${counted.calls} calls, ${counted.distinct} keys, ${counted.twice} twice, of ${total}`);
      const { anon, file } = await child.memory();
      return { records: measured, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { ends } };
    } finally {
      await child.stop();
      sink.stop();
      await appender.close();
    }
  }

  /** Every delivery has an end on the ledger. */
  async function ended(topic: string, count: number, failed: Promise<never>): Promise<number> {
    const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
    const found = new Set<string>();
    const at = new Map<number, number>();
    const end = performance.now() + 60_000;
    while (found.size < count) {
      if (performance.now() > end) throw new Error(`${found.size} ends of ${count}`);
      for (const [partition, to] of await admin.endOffsets(topic)) {
        await Promise.race([failed, reader.read(topic, partition, at.get(partition) ?? 0, to, (batch) => {
          for (const { key } of batch.records) if (key?.toString('latin1').endsWith('#end') === true) found.add(key.toString('latin1'));
        })]);
        at.set(partition, to);
      }
    }
    await reader.close();
    return found.size;
  }

  async function bare(): Promise<Sample> {
    const sink = await startHelper('sink.ts', []);
    const caller = await startHelper('bare-undici.ts', [String(await sink.ask<number>('listen')), String(concurrency)]);
    try {
      await caller.ask('run', warm);
      const [cpu, began] = [cpuOf(caller.pid), performance.now()];
      await caller.ask('run', measured);
      const [cpuUs, wallMs] = [cpuOf(caller.pid) - cpu, performance.now() - began];
      const counted = await sink.ask<Counted>('result');
      if (counted.distinct !== total) throw new Error(`${counted.distinct} calls of ${total}`);
      return { records: measured, wallMs, cpuUs, brokerCpuUs: 0, rssAnonMb: 0, rssFileMb: 0 };
    } finally {
      caller.stop();
      sink.stop();
    }
  }

  const parties: Party[] = [{ name: 'weir', run: weir }, { name: 'bare-undici', run: bare }];
  return {
    name: 'dispatcher', rounds, parties, parameters: { deliveries: measured, warmUp: warm, subjects, concurrency },
    ratios: (of): Record<string, number> => ({ 'bare undici to weir, CPU per call (1 = the same)': of('bare-undici').cpuUsPerRecord / of('weir').cpuUsPerRecord }),
    async close() {
      await log.close();
    },
  };
}
