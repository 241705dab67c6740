/** From the time a webhook is due to the call that arrives: Weir with four processes, beside a bare chain of as many produce and consume hops. */
import { join } from 'node:path';
import { createLog } from '@weir/log';
import { freePort } from '@weir/testing';
import { destination } from '../deliveries.ts';
import { mapping } from '../contacts.ts';
import { cpuOf, startNode, type Benchmark, type Child, type Cluster, type Party, type Sample } from '../harness.ts';
import { createWorld, judge, ready, startHelper, type Helper, type Load } from '../world.ts';

const rate = Number(process.env['WEIR_BENCH_RATE'] ?? 1000);
const seconds = Number(process.env['WEIR_BENCH_SECONDS'] ?? 60);
const warmSeconds = Number(process.env['WEIR_BENCH_WARM'] ?? 10);
const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 2);
/** Rates that are tried for the highest steady one, and those below when the first is not; a rate is steady when the 99th percentile stays below `steadyMs`. */
const ladder = (process.env['WEIR_BENCH_LADDER'] ?? '1500,2000,2500,3000,4000').split(',').map(Number);
const below = [750, 500, 250].filter((perSecond) => perSecond < rate);
const steadyMs = 1000;
const ladderSeconds = Math.min(15, seconds);
const connections = 64;
const hops = { weir: ['ingest', 'normalizer', 'policy', 'dispatcher'], bare: ['accept', 'hop', 'hop 2', 'call'] } as const;

interface Times { readonly calls: number; readonly distinct: number; readonly twice: number; readonly p50: number; readonly p95: number; readonly p99: number; readonly max: number }
interface Chain { readonly url: string; readonly secret: string; /** In the order of `hops`. */ readonly children: readonly Child[]; stop(): Promise<void> }

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  let number = 0;
  const files = (port: number): Record<string, string> => ({
    'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n',
    'sources/contacts.yaml': 'adapter: standard-webhooks\nconfig: { secret: { secret: CONTACTS_SECRET } }\nmapping: contacts.yaml\n', 'mappings/contacts.yaml': mapping, 'destinations/crm.yaml': destination(`http://127.0.0.1:${port}`),
  });

  async function weir(sinkPort: number): Promise<Chain> {
    const world = await createWorld(cluster, files(sinkPort));
    const children = await Promise.all(hops.weir.map((name) => world.start(name)));
    return { url: children[0]!.url, secret: world.secret('CONTACTS_SECRET'), children, stop: async () => { await Promise.all(children.map((child) => child.stop())); } };
  }

  /** Accept, two hops from topic to topic, and the call: three topics, as Weir has them. */
  async function bare(sinkPort: number, run: string): Promise<Chain> {
    const admin = await log.admin();
    const topics = [1, 2, 3].map((n) => `bare.${run}.${n}`);
    await admin.createTopics(topics.map((name) => ({ name, partitions: 6, replicationFactor: 1, config: {} })));
    const port = await freePort();
    const secret = 'whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';
    const env = { KAFKA_BROKERS: cluster.brokers.join(','), PORT: String(port) };
    const start = (...args: string[]): Child => startNode('bench/parties/bare-hop.ts', args, env, join(cluster.dir, `bare-${run}-${args[0]}.log`));
    const children = [start('accept', topics[0]!, secret), start('hop', topics[0]!, topics[1]!), start('hop', topics[1]!, topics[2]!), start('call', topics[2]!, String(sinkPort))];
    const url = `http://127.0.0.1:${port}`;
    await Promise.race([ready(url), ...children.map((child) => child.failed)]);
    return { url, secret, children, stop: async () => { await Promise.all(children.map((child) => child.stop())); } };
  }

  async function offer(load: Helper, sink: Helper, perSecond: number, forSeconds: number, chain: Chain): Promise<Times> {
    const count = perSecond * forSeconds;
    const first = number;
    number += count;
    const arrived = sink.ask('until', count);
    const sent = await load.ask<Load>('run', { rate: perSecond, count, first, stamped: true, connections });
    judge(sent);
    await Promise.race([arrived, ...chain.children.map((child) => child.failed), new Promise((_, reject) => setTimeout(() => reject(new Error('not all arrived within 120 s')), 120_000).unref())]);
    const times = await sink.ask<Times>('result', sent.begin);
    // The bare chain has no keys.
    if (times.calls !== count || times.twice > 0 || (times.distinct > 0 && times.distinct !== count)) throw new Error(`${times.calls} calls with ${times.distinct} keys, ${times.twice} of them twice, for ${count} webhooks`);
    return times;
  }

  async function highest(load: Helper, sink: Helper, chain: Chain): Promise<number> {
    const steady = async (perSecond: number): Promise<boolean> => (await offer(load, sink, perSecond, ladderSeconds, chain)).p99 <= steadyMs;
    if (!(await steady(rate))) {
      for (const perSecond of below) if (await steady(perSecond)) return perSecond;
      return 0;
    }
    let best = rate;
    for (const perSecond of ladder) {
      if (!(await steady(perSecond))) break;
      best = perSecond;
    }
    return best;
  }

  function party(name: keyof typeof hops, start: (sinkPort: number, run: string) => Promise<Chain>, climbs: boolean): Party {
    return { name, async run(round): Promise<Sample> {
      const sink = await startHelper('sink.ts', []);
      const chain = await start(await sink.ask<number>('listen'), String(round));
      const load = await startHelper('load.ts', [`${chain.url}/webhooks/contacts`, chain.secret], {}, true);
      try {
        await offer(load, sink, rate, warmSeconds, chain);
        const cpu = (): number[] => chain.children.map((child) => cpuOf(child.pid));
        const [before, broker, began] = [cpu(), cluster.brokerCpu(), performance.now()];
        const { p50, p95, p99, max } = await offer(load, sink, rate, seconds, chain);
        const [each, brokerCpuUs, wallMs] = [cpu().map((us, i) => us - before[i]!), cluster.brokerCpu() - broker, performance.now() - began];
        const names = hops[name];
        const memory = await Promise.all(chain.children.map((child) => child.memory()));
        const steady: Record<string, number> = climbs && round === 0 ? { highestSteady: await highest(load, sink, chain) } : {};
        return { records: rate * seconds, wallMs, cpuUs: each.reduce((a, b) => a + b, 0), brokerCpuUs, rssAnonMb: Math.max(...memory.map((m) => m.anon)), rssFileMb: Math.max(...memory.map((m) => m.file)), more: { ...steady, p50, p95, p99, max, ...Object.fromEntries(names.map((hop, i) => [`${hop}: µs`, each[i]! / (rate * seconds)])) } };
      } finally {
        load.stop();
        await chain.stop();
        sink.stop();
      }
    } };
  }
  return {
    name: 'end-to-end', rounds, parties: [party('weir', weir, ladder.some((r) => r > 0)), party('bare', bare, false)], parameters: { ratePerSecond: rate, seconds, people: 5000, newPeople: 0.05, hops: 3, processes: 4, connections },
    figures: (of) => [{ what: 'p50, ms', value: of('weir').more['p50']!, atMost: 15 }, { what: 'p99 over twice the bare chain, ms', value: of('weir').more['p99']! - 2 * of('bare').more['p99']!, atMost: 20 }, ...(of('weir').more['highestSteady'] === undefined ? [] : [{ what: 'highest steady rate, events a second', value: of('weir').more['highestSteady']! }]), { what: 'RssAnon of the largest service, MB', value: of('weir').rssAnonMb, atMost: 300 }],
    close: () => log.close(),
  };
}
