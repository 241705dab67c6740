/** Canonical bytes in, deliveries out: 4 destinations, 20 rules, 3 identifiers a person; every route of every record is decided. */
import { personRegion, regionKey } from '@weir/consent';
import { createLog, createSerde, partitionOf } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { saidRegion } from '@weir/policy';
import { linksOf } from '@weir/release';
import { isSealed } from '@weir/seal';
import { canonicalRecord, consentOf, ensureKeys, fill, homeOf, idsOf, policyDestinations, policyFiles, subjectOf, type Maker } from '../deliveries.ts';
import { hex } from '../contacts.ts';
import { cpuOf, type Benchmark, type Child, type Cluster, type Party, type Sample } from '../harness.ts';
import { createWorld } from '../world.ts';

const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 100_000);
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 50_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const subjects = Number(process.env['WEIR_BENCH_SUBJECTS'] ?? 1_000_000);
const destinations = policyDestinations;
const total = warm + measured;
const pollMs = 25;
const deadlineMs = 240_000;
const sampled = 997;
/** One workspace for all rounds, each goes on where the one before ended: its people, their links and consent are written and read once. */
export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const admin = await log.admin();
  const world = await createWorld(cluster, policyFiles);
  const topics = topicNames(world.prefix);
  const appender = await log.appender({ maxPendingBytes: 1e9 });
  const { workspaceKey } = world;
  const partitions = await appender.partitions(topics.canonical);
  for (const topic of [topics.identity, topics.consent]) await appender.partitions(topic);
  const keys = await world.keys(log, serde);
  const maker: Maker = { serde, workspaceKey, keys, release: 'rel_0123456789abcdef', partitionFor: (bytes) => partitionOf(bytes, partitions) };
  await people();

  /** What the tables of policy hold of each subject: links of three identifiers, where the person is, and a consent. */
  async function people(): Promise<void> {
    const size = 5000;
    for (let at = 0; at < subjects; at += size) {
      const ids = Array.from({ length: Math.min(size, subjects - at) }, (_, i) => idsOf(workspaceKey, at + i));
      const links = ids.flatMap((of) => linksOf(of)).map((link) => {
        const [a, b] = link.split('~');
        return { partition: appender.partitionFor(topics.identity, link), key: Buffer.from(link), value: serde.encode('weir.internal.IdentityLink', { a, b, source: 'contacts', at: 1_790_000_000_000 }) };
      });
      const states = ids.map(([, email], i) => ({ partition: appender.partitionFor(topics.consent, email!), ...consentOf(serde, email!, at + i) }));
      const regions = ids.map(([id], i) => {
        const key = Buffer.from(regionKey(id!));
        return { partition: appender.partitionFor(topics.identity, key), key, value: serde.encode(personRegion, { id, region: saidRegion(homeOf(at + i)), source: 'contacts', at: 1_790_000_000_000 }) };
      });
      await Promise.all([appender.append(topics.identity, links), appender.append(topics.identity, regions), appender.append(topics.consent, states)]);
    }
  }

  async function until(count: number, child: Child): Promise<number> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const done = [...(await admin.committed(`${world.prefix}.policy`, topics.canonical)).values()].reduce((a, b) => a + b, 0);
      if (done >= count) return done;
      if (performance.now() > end) throw new Error(`${done} of ${count} records within ${deadlineMs / 1000} s`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), child.failed]);
    }
  }

  /** One delivery of every record of this round at every destination, sealed like its record; sampled ones are of its person. */
  async function check(begins: ReadonlyMap<string, ReadonlyMap<number, number>>, first: number): Promise<void> {
    const reader = await log.reader();
    for (const name of destinations) {
      const topic = topics.dispatch(name);
      const seen = new Set<string>();
      for (const [partition, end] of await admin.endOffsets(topic)) await reader.read(topic, partition, begins.get(name)!.get(partition) ?? 0, end, (batch) => {
        for (const { value } of batch.records) {
          const delivery = serde.decode(value!).value as { readonly outputId: string; readonly payload: Buffer };
          if (!isSealed(delivery.payload)) throw new Error(`${name}: ${delivery.outputId} is not sealed`);
          seen.add(delivery.outputId);
          const number = Number.parseInt(delivery.outputId.slice(-16), 16);
          if (number % sampled !== 0) continue;
          const { userId } = serde.decode(keys.open(delivery.payload)!).value as { readonly userId: string };
          if (userId !== `usr_${subjectOf(number, subjects)}`) throw new Error(`${name}: ${delivery.outputId} is of ${userId}`);
        }
      });
      if (seen.size !== total || !seen.has(`out_${hex(first)}`) || !seen.has(`out_${hex(first + total - 1)}`)) throw new Error(`${name}: ${seen.size} deliveries of ${total}`);
    }
    await reader.close();
  }

  async function weir(round: number): Promise<Sample> {
    const first = round * total;
    const subject = (i: number): number => subjectOf(i, subjects);
    await fill(first, first + total, (i) => canonicalRecord(maker, i, subject(i)), (records) => appender.append(topics.canonical, records), (from, to) => ensureKeys(maker, from, to, subject));
    const begins = new Map(await Promise.all(destinations.map(async (name) => [name, await admin.endOffsets(topics.dispatch(name))] as const)));
    const child = await world.start('policy');
    try {
      const from = await until(first + warm, child);
      const [cpu, broker, began] = [cpuOf(child.pid), cluster.brokerCpu(), performance.now()];
      await until(first + total, child);
      const [cpuUs, brokerCpuUs, wallMs] = [cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker, performance.now() - began];
      const { anon, file } = await child.memory();
      await check(begins, first);
      const records = (first + total - from) * destinations.length;
      return { records, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { decidedPerCore: Math.round(records / cpuUs * 1e6) } };
    } finally {
      await child.stop();
    }
  }
  const parties: Party[] = [{ name: 'weir', run: weir }];
  return {
    name: 'policy', rounds, parties, parameters: { records: measured, warmUp: warm, subjects, identifiers: 3, destinations: destinations.length, rules: 20 },
    figures: (of) => [{ what: 'deliveries decided per second and core', value: of('weir').more['decidedPerCore']!, atLeast: 40_000 }, { what: 'RssAnon, MB', value: of('weir').rssAnonMb, atMost: 300 }],
    async close() {
      await Promise.all([keys.stop(), appender.close()]);
      await log.close();
    },
  };
}
