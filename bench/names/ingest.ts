/** Signed webhooks to the acknowledged append, beside bare fastify that checks the same signature and keeps nothing, and one that appends the body as it came (acknowledged by all, too); all at the same steady rate. */
import { join } from 'node:path';
import { freePort } from '@weir/testing';
import { createLog, createSerde } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { contact, mapping } from '../contacts.ts';
import { cpuByThread, cpuOf, startNode, type Benchmark, type Child, type Cluster, type Party, type Sample } from '../harness.ts';
import { createWorld, judge, ready, startHelper, type Load } from '../world.ts';

const rate = Number(process.env['WEIR_BENCH_RATE'] ?? 2500);
const measured = Number(process.env['WEIR_BENCH_RECORDS'] ?? 40_000);
const warm = Number(process.env['WEIR_BENCH_WARM'] ?? 10_000);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const connections = 64;
const sampled = 97;
const source = 'adapter: standard-webhooks\nconfig: { secret: { secret: CONTACTS_SECRET } }\nmapping: contacts.yaml\n';

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const world = await createWorld(cluster, { 'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'sources/contacts.yaml': source, 'mappings/contacts.yaml': mapping });
  const secret = world.secret('CONTACTS_SECRET');
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const raw = topicNames(world.prefix).raw('contacts');
  const plain = 'bare.ingest';
  await (await log.admin()).createTopics([{ name: plain, partitions: 6, replicationFactor: 1, config: {} }]);
  let number = 0;

  /** What was accepted since `from`, once each, and the sampled ones byte for byte. */
  async function check(ends: ReadonlyMap<number, number>, from: number, count: number): Promise<void> {
    const [admin, reader, keys] = await Promise.all([log.admin(), log.reader(), world.keys(log, serde)]);
    const seen = new Set<number>();
    for (const [partition, end] of await admin.endOffsets(raw)) await reader.read(raw, partition, ends.get(partition) ?? 0, end, (batch) => {
      for (const { headers, value } of batch.records) {
        const envelope = JSON.parse(keys.open(headers.find(([name]) => name === H.envelope)![1])!.toString()) as { id: string };
        const n = Number(envelope.id.slice(4));
        if (seen.has(n)) throw new Error(`${envelope.id} twice`);
        seen.add(n);
        if (n % sampled === 0 && !contact(n).equals(keys.open(value!)!)) throw new Error(`${envelope.id} has other bytes than were sent`);
      }
    });
    await Promise.all([reader.close(), keys.stop()]);
    if (seen.size !== count || !seen.has(from)) throw new Error(`${seen.size} records of ${count} accepted requests`);
  }

  function party(name: string, keeps: boolean, start: () => Promise<Child & { url: string }>): Party {
    return {
      name,
      async run(): Promise<Sample> {
        const child = await start();
        const load = await startHelper('load.ts', [`${child.url}/webhooks/contacts`, secret], {}, true);
        try {
          const ends = await (await log.admin()).endOffsets(raw);
          const first = number;
          number += warm + measured;
          judge(await load.ask<Load>('run', { rate, count: warm, first, stamped: false, connections }));
          const [cpu, threads, broker, began] = [cpuOf(child.pid), cpuByThread(child.pid), cluster.brokerCpu(), performance.now()];
          const result = await load.ask<Load>('run', { rate, count: measured, first: first + warm, stamped: false, connections });
          const [cpuUs, brokerCpuUs, wallMs] = [cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker, performance.now() - began];
          const used = cpuByThread(child.pid);
          judge(result);
          const { anon, file } = await child.memory();
          if (keeps) await check(ends, first, warm + measured);
          return { records: measured, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { p50: result.p50, p99: result.p99, senderShare: result.share, 'own code: µs': (used.user - threads.user) / measured, 'kernel: µs': (used.system - threads.system) / measured, 'other threads: µs': (used.others - threads.others) / measured } };
        } finally {
          load.stop();
          await child.stop();
        }
      },
    };
  }
  const parties = [
    party('weir', true, () => world.start('ingest')),
    party('bare-fastify', false, async () => {
      const port = await freePort();
      const url = `http://127.0.0.1:${port}`;
      const child = startNode('bench/parties/bare-fastify.ts', [secret], { PORT: String(port) }, join(cluster.dir, 'bare-fastify.log'));
      await Promise.race([ready(url), child.failed]);
      return { ...child, url };
    }),
    party('bare-append', false, async () => {
      const port = await freePort();
      const url = `http://127.0.0.1:${port}`;
      const child = startNode('bench/parties/bare-hop.ts', ['accept', plain, secret], { KAFKA_BROKERS: cluster.brokers.join(','), PORT: String(port) }, join(cluster.dir, 'bare-append.log'));
      await Promise.race([ready(url), child.failed]);
      return { ...child, url };
    }),
  ];
  return {
    name: 'ingest', rounds, parties, parameters: { requests: measured, warmUp: warm, ratePerSecond: rate, connections, meanBytes: 857 },
    figures: (of) => [{ what: 'bare fastify with HMAC to weir, CPU per request (1 = the same)', value: of('bare-fastify').cpuUsPerRecord / of('weir').cpuUsPerRecord, atLeast: 0.6 }, { what: 'bare fastify that appends to weir, CPU per request (1 = the same)', value: of('bare-append').cpuUsPerRecord / of('weir').cpuUsPerRecord }, { what: 'RssAnon, MB', value: of('weir').rssAnonMb, atMost: 300 }],
    close: () => log.close(),
  };
}
