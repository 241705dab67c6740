/**
 * Records per second through the log port, both drivers, against a real broker: KAFKA_BROKERS when it is set,
 * else a broker of its own.   node bench/log.ts [records] [bytes]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, type Log, type OutRecord } from '@weir/log';
import { startPlatform, type Platform } from '../infra/local/platform.ts';

const count = Number(process.argv[2] ?? 400_000);
const bytes = Number(process.argv[3] ?? 600);
const partitions = 6;
const perCall = 200;
const headers = [['weir-event', Buffer.from('evt_0123456789abcdef0123456789abcdef')], ['weir-hash', Buffer.from('0123456789abcdef0123456789abcdef')], ['weir-source', Buffer.from('segment')], ['weir-accepted', Buffer.from('1790000000000')], ['traceparent', Buffer.from('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')]] as const;

async function append(log: Log, topic: string, pace: 'batches' | 'one by one', total: number): Promise<number> {
  const appender = await log.appender({ maxPendingBytes: 1e9 });
  await appender.partitions(topic);
  const value = Buffer.alloc(bytes, 'x');
  const size = pace === 'batches' ? perCall : 1;
  const calls = Math.ceil(total / size);
  let next = 0;
  const record = (i: number): OutRecord => {
    const key = Buffer.from(`user:${i % 10_007}`);
    return { partition: appender.partitionFor(topic, key), key, value, headers };
  };
  const began = performance.now();
  // As many appends at a time as a busy service has.
  await Promise.all(Array.from({ length: pace === 'batches' ? 100 : 500 }, async () => {
    while (next < calls) {
      const from = next++ * size;
      await appender.append(topic, Array.from({ length: size }, (_, i) => record(from + i)));
    }
  }));
  const rate = total / (performance.now() - began) * 1000;
  await appender.close();
  return rate;
}

async function consume(log: Log, topic: string, total: number, look: boolean): Promise<number> {
  let seen = 0;
  let began = 0;
  let touched = 0;
  const done = Promise.withResolvers<void>();
  const consumer = log.consumer({
    groupId: `bench-${topic}-${look}`, topics: [topic], handlers: {
      async assigned() { began = performance.now(); },
      async revoked() {},
      batch(batch) {
        seen += batch.records.length;
        if (look) for (const r of batch.records) touched += r.headers.length + r.value!.length;
        if (seen >= total) done.resolve();
      },
      failed: done.reject,
    },
  });
  await consumer.start();
  await done.promise;
  const rate = total / (performance.now() - began) * 1000;
  await consumer.close();
  if (look && touched === 0) throw new Error('no record was looked at');
  return rate;
}

async function latency(log: Log, topic: string): Promise<string> {
  const appender = await log.appender();
  const times: number[] = [];
  for (let i = 0; i < 500; i++) {
    const began = performance.now();
    await appender.append(topic, [{ partition: i % partitions, key: null, value: Buffer.alloc(bytes) }]);
    times.push(performance.now() - began);
  }
  times.sort((a, b) => a - b);
  return `p50 ${times[250]!.toFixed(2)} ms, p99 ${times[495]!.toFixed(2)} ms`;
}

let platform: Platform | undefined;
let dataDir = '';
let brokers = process.env['KAFKA_BROKERS']?.split(',');
if (brokers === undefined) {
  dataDir = mkdtempSync(join(tmpdir(), 'weir-bench-'));
  platform = await startPlatform({ dataDir, registry: false });
  brokers = [...platform.bootstrap];
}
try {
  for (const driver of ['platformatic', 'kafkajs'] as const) {
    const log = createLog({ brokers, clientId: 'bench', driver });
    const admin = await log.admin();
    const [warm, topic, single] = ['warm', 'batches', 'single'].map((kind) => `bench-${kind}-${driver}-${Date.now()}`) as [string, string, string];
    await admin.createTopics([warm, topic, single].map((name) => ({ name, partitions, replicationFactor: 1, config: {} })));
    await append(log, warm, 'batches', 50_000);
    const show = (what: string, rate: number): void => console.log(`${driver.padEnd(13)} ${what.padEnd(34)} ${Math.round(rate).toLocaleString('en').padStart(9)} records/s`);
    show(`append, ${perCall} a call, 100 calls at once`, await append(log, topic, 'batches', count));
    show('append, 1 a call, 500 calls at once', await append(log, single, 'one by one', Math.min(count, 100_000)));
    show('consume', await consume(log, topic, count, false));
    show('consume, value and headers read', await consume(log, topic, count, true));
    console.log(`${driver.padEnd(13)} append of one, idle: ${await latency(log, warm)}`);
    await admin.deleteTopics([warm, topic, single]);
    await log.close();
  }
} finally {
  await platform?.stop();
  if (dataDir !== '') rmSync(dataDir, { recursive: true, force: true });
}
