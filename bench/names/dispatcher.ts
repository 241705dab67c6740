/** Deliveries to a sink that answers at once, one call each and in batches: the dispatcher with ledger and order on, beside bare undici that sends bodies of the same size, one call each. */
import { createLog, createSerde, partitionOf } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { deliveryRecord, destination, ensureKeys, fill, type Maker } from '../deliveries.ts';
import { cpuOf, type Benchmark, type Cluster, type Party, type Sample } from '../harness.ts';
import { createWorld, startHelper } from '../world.ts';

const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 60_000);
/** Each of the people has been met once when it begins, as by a service that runs. */
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 50_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const batches = { warm: warm * 2, measured: measured * 4 };
const batchItems = 500;
const subjects = 50_000;
const concurrency = 64;
const pollMs = 25;
const deadlineMs = 60_000;

interface Counted { readonly calls: number; readonly items: number; readonly distinct: number; readonly twice: number }

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  /** A workspace, a topic and a ledger of its own for every run: nothing is delivered already. */
  const weir = ({ warm, measured, batch }: { readonly warm: number; readonly measured: number; readonly batch?: number }) => async (): Promise<Sample> => {
    const total = warm + measured;
    const sink = await startHelper('sink.ts', []);
    const port = await sink.ask<number>('listen');
    const world = await createWorld(cluster, {
      'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n', 'destinations/crm.yaml': destination(`http://127.0.0.1:${port}`, batch === undefined ? {} : { batch, concurrency: 8 }),
    });
    const topics = topicNames(world.prefix);
    const topic = topics.dispatch('crm');
    const [appender, keys] = await Promise.all([log.appender({ maxPendingBytes: 1e9 }), world.keys(log, serde)]);
    const partitions = await appender.partitions(topic);
    const maker: Maker = { serde, workspaceKey: world.workspaceKey, keys, release: 'rel_0123456789abcdef', partitionFor: (bytes) => partitionOf(bytes, partitions) };
    const subject = (i: number): number => (i * 7919) % subjects;
    await fill(0, total, (i) => deliveryRecord(maker, i, subject(i)), (records) => appender.append(topic, records), (from, to) => ensureKeys(maker, from, to, subject));
    await Promise.all([appender.close(), keys.stop()]);
    const child = await world.start('dispatcher');
    try {
      await Promise.race([sink.ask('until', warm), child.failed]);
      const [cpu, broker, began] = [cpuOf(child.pid), cluster.brokerCpu(), performance.now()];
      await Promise.race([sink.ask('until', total), child.failed]);
      await committed(groupNames(world.prefix).dispatcher('crm'), topic, total, child.failed);
      const [cpuUs, brokerCpuUs, wallMs] = [cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker, performance.now() - began];
      const ends = await ended(topics.ledger('crm'), total, child.failed);
      const counted = await sink.ask<Counted>('result');
      if (counted.items !== total || counted.distinct !== total || counted.twice > 0) throw new Error(`${counted.items} deliveries, ${counted.distinct} keys, ${counted.twice} twice, of ${total}`);
      const { anon, file } = await child.memory();
      return { records: measured, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { ends, itemsPerCall: counted.items / counted.calls } };
    } finally {
      await child.stop();
      sink.stop();
    }
  };

  /** What is committed has ended, and its end is acknowledged. */
  async function committed(group: string, topic: string, count: number, failed: Promise<never>): Promise<void> {
    const admin = await log.admin();
    const end = performance.now() + deadlineMs;
    for (let done = 0; done < count;) {
      done = [...(await admin.committed(group, topic)).values()].reduce((a, b) => a + b, 0);
      if (performance.now() > end) throw new Error(`${done} of ${count} deliveries are committed`);
      if (done < count) await Promise.race([new Promise((next) => setTimeout(next, pollMs)), failed]);
    }
  }

  /** Every delivery has an end on the ledger. */
  async function ended(topic: string, count: number, failed: Promise<never>): Promise<number> {
    const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
    const found = new Set<string>();
    const at = new Map<number, number>();
    const end = performance.now() + deadlineMs;
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
      if (counted.distinct !== warm + measured) throw new Error(`${counted.distinct} calls of ${warm + measured}`);
      return { records: measured, wallMs, cpuUs, brokerCpuUs: 0, rssAnonMb: 0, rssFileMb: 0 };
    } finally {
      caller.stop();
      sink.stop();
    }
  }

  const parties: Party[] = [{ name: 'weir', run: weir({ warm, measured }) }, { name: 'bare-undici', run: bare }, { name: 'weir-batches', run: weir({ warm: batches.warm, measured: batches.measured, batch: batchItems }) }];
  return {
    name: 'dispatcher', rounds, parties, parameters: { deliveries: measured, warmUp: warm, subjects, concurrency, batched: batches.measured, batchedWarmUp: batches.warm, itemsABatch: batchItems },
    figures: (of) => [
      { what: 'bare undici to weir, CPU per call (1 = the same)', value: of('bare-undici').cpuUsPerRecord / of('weir').cpuUsPerRecord, atLeast: 0.6 },
      { what: 'records in batches, a second', value: of('weir-batches').median, atLeast: 20_000 },
      { what: 'records in batches, a second of a core', value: 1e6 / of('weir-batches').cpuUsPerRecord },
      { what: 'RssAnon, MB', value: Math.max(of('weir').rssAnonMb, of('weir-batches').rssAnonMb), atMost: 300 },
    ],
    async close() {
      await log.close();
    },
  };
}
