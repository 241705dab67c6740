/** Dead letters of a destination that refused them: selected, and put back on its dispatch topic, by the control service. No dispatcher runs: what is measured is the replay. */
import { createLog, createSerde, partitionOf } from '@weir/log';
import { registry } from '@weir/adapters';
import { H, topicNames } from '@weir/pipeline';
import { compileRelease } from '@weir/release';
import { destination, endRecord, ensureKeys, fill, letterRecord, type Maker } from '../deliveries.ts';
import { hex, numberOf } from '../contacts.ts';
import { cpuOf, type Benchmark, type Child, type Cluster, type Sample } from '../harness.ts';
import { createWorld } from '../world.ts';

const letters = Number(process.env['WEIR_BENCH_RECORDS'] ?? 1_000_000);
const subjects = 50_000;
const pollMs = 100;
const deadlineMs = 600_000;
const sampled = 997;

interface Order { readonly id: string; readonly state: string; readonly counts: Readonly<Record<string, number>> }

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const log = createLog({ brokers: cluster.brokers, clientId: 'bench' });
  const serde = createSerde({ registryUrl: cluster.registryUrl });
  await serde.start();
  const admin = await log.admin();
  const files = {
    'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n', 'destinations/crm.yaml': destination('http://127.0.0.1:9'),
  };
  const world = await createWorld(cluster, files);
  const topics = topicNames(world.prefix);
  const dispatch = topics.dispatch('crm');
  const [appender, keys] = await Promise.all([log.appender({ maxPendingBytes: 1e9 }), world.keys(log, serde)]);
  const [partitions, letterPartitions] = await Promise.all([appender.partitions(dispatch), appender.partitions(topics.dlq)]);
  // They were decided by the release that runs: of another one policy would decide anew, on canonical records that are not here.
  const { hash: release } = compileRelease(Object.entries(files).map(([path, content]) => ({ path, content })), { adapters: registry });
  const maker: Maker = { serde, workspaceKey: world.workspaceKey, keys, release, partitionFor: (bytes) => partitionOf(bytes, partitions) };
  const subject = (i: number): number => (i * 7919) % subjects;
  const began = performance.now();
  const step = (what: string): void => { process.stderr.write(`replay: ${what} after ${Math.round((performance.now() - began) / 1000)} s\n`); };
  await fill(0, letters, (i) => letterRecord(maker, dispatch, i, i, subject(i), (key) => partitionOf(key, letterPartitions)), (records) => appender.append(topics.dlq, records), (from, to) => ensureKeys(maker, from, to, subject));
  step('letters written');
  await appender.partitions(topics.ledger('crm'));
  await fill(0, letters, (i) => endRecord(maker, i, i, subject(i)), (records) => appender.append(topics.ledger('crm'), records));
  await Promise.all([appender.close(), keys.stop()]);
  step('ends written');

  /** The index of the control API knows every letter and how its delivery ended. */
  async function indexed(child: Child & { readonly url: string }): Promise<void> {
    const end = performance.now() + deadlineMs;
    while ((await api<{ readonly lag: Readonly<Record<string, number>> }>(child.url, '/v1/status')).lag['index']! > 0) {
      if (performance.now() > end) throw new Error(`the index is not at the end of its topics within ${deadlineMs / 1000} s`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), child.failed]);
    }
  }

  async function api<T = Order>(url: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(`${url}${path}`, { method: body === undefined ? 'GET' : 'POST', headers: { authorization: `Bearer ${world.secret('ADMIN_TOKEN')}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  }

  async function until(child: Child & { readonly url: string }, id: string, state: string): Promise<Order> {
    const end = performance.now() + deadlineMs;
    for (;;) {
      const order = await api(child.url, `/v1/replays/${id}`);
      if (order.state === state) return order;
      if (['failed', 'cancelled', 'finished'].includes(order.state) || performance.now() > end) throw new Error(`the order is ${order.state}, not ${state}: ${JSON.stringify(order.counts)}`);
      await Promise.race([new Promise((next) => setTimeout(next, pollMs)), child.failed]);
    }
  }

  /** Each letter once, with its order on it, and the delivery that it kept; that of sampled ones opened: it is of its person. */
  async function check(order: string): Promise<void> {
    const [reader, ring] = await Promise.all([log.reader(), world.keys(log, serde)]);
    const seen = new Set<string>();
    for (const [partition, end] of await admin.endOffsets(dispatch)) await reader.read(dispatch, partition, 0, end, (batch) => {
      for (const { headers, value } of batch.records) {
        const text = (name: string): string => headers.find(([n]) => n === name)![1].toString();
        const event = text(H.event);
        if (seen.has(event)) throw new Error(`${event} twice`);
        seen.add(event);
        if (text(H.intent) !== order) throw new Error(`${event} is of order ${text(H.intent)}`);
        const { eventId, destination: to, payload } = serde.decode(value!).value as { eventId: string; destination: string; payload: Buffer };
        if (eventId !== event || to !== 'crm') throw new Error(`${event} has the delivery of ${eventId} for ${to}`);
        const number = numberOf(event);
        if (number % sampled !== 0) continue;
        const { userId } = serde.decode(ring.open(payload)!).value as { readonly userId: string };
        if (userId !== `usr_${subject(number)}`) throw new Error(`${event} has the payload of ${userId}`);
      }
    });
    await Promise.all([reader.close(), ring.stop()]);
    if (seen.size !== letters || !seen.has(`evt_${hex(0)}`) || !seen.has(`evt_${hex(letters - 1)}`)) throw new Error(`${seen.size} deliveries of ${letters} letters`);
  }

  async function run(): Promise<Sample> {
    const starting = performance.now();
    const child = await world.start('control');
    try {
      await indexed(child);
      const indexedMs = performance.now() - starting;
      step('indexed');
      const previewed = performance.now();
      const { id } = await api(child.url, '/v1/replays', { from: 'dlq', all: true, ahead: 0 });
      await until(child, id, 'previewed');
      const previewMs = performance.now() - previewed;
      step('previewed');
      const [cpu, broker, began] = [cpuOf(child.pid), cluster.brokerCpu(), performance.now()];
      await api(child.url, `/v1/replays/${id}/start`, {});
      const { counts } = await until(child, id, 'delivering');
      const [cpuUs, brokerCpuUs, wallMs] = [cpuOf(child.pid) - cpu, cluster.brokerCpu() - broker, performance.now() - began];
      if (counts['requeued'] !== letters) throw new Error(`${JSON.stringify(counts)} for ${letters} letters`);
      step('put back');
      const { anon, file } = await child.memory();
      await check(id);
      step('checked');
      return { records: letters, wallMs, cpuUs, brokerCpuUs, rssAnonMb: anon, rssFileMb: file, more: { indexedPerSecond: Math.round(2 * letters / indexedMs * 1000), previewedPerSecond: Math.round(letters / previewMs * 1000), perCoreSecond: Math.round(letters / cpuUs * 1e6) } };
    } finally {
      await child.stop();
    }
  }
  return {
    name: 'replay', rounds: 1, parties: [{ name: 'dead-letters', run }], parameters: { letters, subjects },
    figures: (of) => [{ what: 'dead letters requeued a second', value: of('dead-letters').median, atLeast: 30_000 }, { what: 'requeued a second of a core', value: of('dead-letters').more['perCoreSecond']! }, { what: 'RssAnon, MB', value: of('dead-letters').rssAnonMb, atMost: 300 }],
    close: () => log.close(),
  };
}
