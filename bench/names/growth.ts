/** Normalizer and dispatcher, everything on, through millions of events: CPU per event and memory between the marks. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { createLog, createSerde, partitionOf } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { benchKeys, rawOwners, sealedContact } from '../contacts.ts';
import { deliveryRecord, destination, ensureKeys, fill, type Maker } from '../deliveries.ts';
import { cpuOf, startNode, type Benchmark, type Child, type Cluster, type Figure, type PartyResult, type Sample } from '../harness.ts';
import { createWorld, startHelper } from '../world.ts';

const marks = (process.env['WEIR_BENCH_MARKS'] ?? '10000,100000,300000,1000000,2000000,3000000').split(',').map(Number);
const total = marks[marks.length - 1]!;
/** From here on the cost of an event must stay: before, the process is still being compiled. */
const steadyFrom = Number(process.env['WEIR_BENCH_WARM'] ?? 100_000);
const partitions = 6;
const subjects = 100_000;
const batchItems = 500;
const pollMs = 25;
const deadlineMs = 900_000;
const digits = (n: number): number => Math.round(n * 100) / 100;

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const admin = await log.admin();
  const sum = (offsets: ReadonlyMap<number, number>): number => [...offsets.values()].reduce((a, b) => a + b, 0);

  /** The process at work: what each event cost between two marks, and its memory at each. */
  async function watch(child: Child, group: string, topic: string): Promise<Sample> {
    const more: Record<string, number> = {};
    const [began, broker] = [performance.now(), cluster.brokerCpu()];
    const end = began + deadlineMs;
    let [doneBefore, cpuBefore] = [0, 0];
    let [doneSteady, cpuSteady] = [0, 0];
    let [largest, smallest] = [0, Infinity];
    let memory = { anon: 0, file: 0 };
    for (const mark of marks) {
      let done = 0;
      while ((done = sum(await admin.committed(group, topic))) < mark) {
        if (performance.now() > end) throw new Error(`${done} of ${mark} records within ${deadlineMs / 1000} s`);
        await Promise.race([new Promise((next) => setTimeout(next, pollMs)), child.failed]);
      }
      const cpu = cpuOf(child.pid);
      const each = (cpu - cpuBefore) / (done - doneBefore);
      if (doneBefore >= steadyFrom) {
        [largest, smallest] = [Math.max(largest, each), Math.min(smallest, each)];
        [doneSteady, cpuSteady] = [doneSteady + done - doneBefore, cpuSteady + cpu - cpuBefore];
      }
      memory = await child.memory();
      more[`to ${mark}: µs`] = digits(each);
      more[`at ${mark}: RssAnon MB`] = Math.round(memory.anon);
      // The collection for the look at the memory is not the events'.
      [doneBefore, cpuBefore] = [done, cpuOf(child.pid)];
    }
    const mean = cpuSteady / doneSteady;
    return { records: total, wallMs: performance.now() - began, cpuUs: cpuBefore, brokerCpuUs: cluster.brokerCpu() - broker, rssAnonMb: memory.anon, rssFileMb: memory.file, more: { ...more, largestToMean: digits(largest / mean), smallestToMean: digits(smallest / mean) } };
  }

  async function normalizer(): Promise<Sample> {
    const prefix = 'growth';
    const topics = topicNames(prefix);
    const [raw, out] = [topics.raw('contacts'), `${prefix}.out.run`];
    await admin.createTopics([raw, topics.consentChanges, topics.identity, topics.dlq, topics.outcome, topics.keys, out].map((name) => ({ name, partitions, replicationFactor: 1, config: { 'max.message.bytes': '2097152' } })));
    const appender = await log.appender({ maxPendingBytes: 1e9 });
    await appender.partitions(raw);
    const keys = await benchKeys(log, serde, topics.keys, join(cluster.dir, 'keys'));
    await keys.ensure(rawOwners(total));
    await fill(0, total, (i) => sealedContact(i, (key) => partitionOf(key, partitions), keys), (records) => appender.append(raw, records));
    await Promise.all([keys.stop(), appender.close()]);
    const env = { KAFKA_BROKERS: cluster.brokers.join(','), SCHEMA_REGISTRY_URL: cluster.registryUrl, WEIR_DATA: join(cluster.dir, 'growth') };
    mkdirSync(env.WEIR_DATA, { recursive: true });
    const child = startNode('bench/parties/normalizer.ts', ['service', prefix, 'run'], env, join(cluster.dir, 'growth.log'));
    try {
      const sample = await watch(child, `${prefix}.run`, raw);
      if (sum(await admin.endOffsets(out)) !== total) throw new Error('not one record of each event');
      return sample;
    } finally {
      await child.stop();
      await admin.deleteTopics([raw, out]);
    }
  }

  async function dispatcher(): Promise<Sample> {
    const sink = await startHelper('sink.ts', []);
    const port = await sink.ask<number>('listen');
    const world = await createWorld(cluster, {
      'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n', 'destinations/crm.yaml': destination(`http://127.0.0.1:${port}`, { batch: batchItems, concurrency: 8 }),
    });
    const topic = topicNames(world.prefix).dispatch('crm');
    const [appender, keys] = await Promise.all([log.appender({ maxPendingBytes: 1e9 }), world.keys(log, serde)]);
    const count = await appender.partitions(topic);
    const maker: Maker = { serde, workspaceKey: world.workspaceKey, keys, release: 'rel_0123456789abcdef', partitionFor: (bytes) => partitionOf(bytes, count) };
    const subject = (i: number): number => (i * 7919) % subjects;
    await fill(0, total, (i) => deliveryRecord(maker, i, subject(i)), (records) => appender.append(topic, records), (from, to) => ensureKeys(maker, from, to, subject));
    await Promise.all([keys.stop(), appender.close()]);
    const child = await world.start('dispatcher');
    try {
      const sample = await watch(child, groupNames(world.prefix).dispatcher('crm'), topic);
      const counted = await sink.ask<{ readonly items: number; readonly distinct: number; readonly twice: number }>('result');
      if (counted.items !== total || counted.distinct !== total || counted.twice > 0) throw new Error(`${counted.items} deliveries, ${counted.distinct} keys, ${counted.twice} twice, of ${total}`);
      return sample;
    } finally {
      await child.stop();
      sink.stop();
    }
  }

  const parties = [{ name: 'normalizer', run: normalizer }, { name: 'dispatcher', run: dispatcher }];
  const figures = ({ name, more }: PartyResult): Figure[] => [
    { what: `${name}: CPU per event, dearest stretch behind ${steadyFrom} to the mean`, value: more['largestToMean']!, atMost: 1.1 },
    { what: `${name}: CPU per event, cheapest stretch behind ${steadyFrom} to the mean`, value: more['smallestToMean']!, atLeast: 0.9 },
    { what: `${name}: RssAnon at ${total} to that at ${steadyFrom}`, value: more[`at ${total}: RssAnon MB`]! / (more[`at ${steadyFrom}: RssAnon MB`] ?? NaN) },
    { what: `${name}: RssAnon, MB`, value: Math.max(...marks.map((mark) => more[`at ${mark}: RssAnon MB`]!)), atMost: 300 },
  ];
  return { name: 'growth', rounds: 1, parties, parameters: { marks, partitions, subjects, itemsABatch: batchItems }, figures: (of) => parties.flatMap(({ name }) => figures(of(name))), close: () => log.close() };
}
