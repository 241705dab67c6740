/**
 * `node --expose-gc bench/dispatch-path.ts [records] [subjects] [batch]`: µs of CPU a delivery of the dispatcher over its real tables, keys, client and
 * appender, in one process, to a sink in another, without a broker: where the time goes, steadier than the whole. With `batch` so many go in one call;
 * without it each is a call of its own. Of some 40,000 records on, RssAnon is mostly that of the records, which are made before.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readAdapterFile, registry as adapters } from '@weir/adapters';
import { partitionOf, type Appender, type ConsumerHandlers, type GroupConsumer, type Log, type LogRecord, type OutRecord } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { compileRelease, withDefaults } from '@weir/release';
import { createKeyRing, sealedSerde } from '@weir/seal';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { createLocalSerde } from '@weir/testing';
import { Registry } from 'prom-client';
import { createAppender, type ProducePort } from '../packages/log/appender.ts';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { createDispatcher } from '../services/dispatcher/app.ts';
import { deliveryRecord, destination, idsOf, type Maker } from './deliveries.ts';
import { memoryOf } from './harness.ts';
import { measurePieces, startProfile } from './measure.ts';
import { startHelper } from './world.ts';

const measured = Number(process.argv[2] ?? 20_000);
const subjects = Number(process.argv[3] ?? 50_000);
const batch = process.argv[4] === undefined ? undefined : Number(process.argv[4]);
const warm = 6000;
const total = warm + measured;
const partitions = 6;
/** As a fetch brings them: 256 KiB of a partition. */
const fetched = 180;
const ackMs = 3;
const pieceRecords = 2000;
const topics = topicNames('path');
const groups = groupNames('path');
const workspaceKey = Buffer.alloc(32, 7);
const sink = await startHelper('sink.ts', []);
const port = await sink.ask<number>('listen');
const files = { 'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n', 'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose == "service"\' }\n', 'destinations/crm.yaml': destination(`http://127.0.0.1:${port}`, batch === undefined ? {} : { batch, concurrency: 8 }) };
const release = compileRelease(withDefaults(Object.entries(files).map(([path, content]) => ({ path, content })), adapters, readAdapterFile), { adapters, workspaceKey });

/** The first records of each partition: those of a takeover are read again. */
const kept = new Map<string, LogRecord[]>();
const ends = new Map<string, number>();
const followers = new Map<string, (batch: any) => void | Promise<void>>();
const counts = { requests: 0, bytes: 0, ends: 0, commits: 0 };
function write(topic: string, partition: number, records: readonly OutRecord[]): number {
  const bytes = encodeBatch(records, Date.now());
  const at = `${topic}/${partition}`;
  const base = ends.get(at) ?? 0;
  ends.set(at, base + records.length);
  counts.bytes += bytes.length;
  if (base < 50 || followers.has(topic)) {
    const list = kept.get(at) ?? [];
    const read = decodeBatches(bytes, 0).records.map((r, i): LogRecord => ({ key: r.key, value: r.value, headers: r.headers, timestamp: r.timestamp, offset: base + i }));
    kept.set(at, [...list, ...read].slice(0, 50));
    void followers.get(topic)?.({ topic, partition, epoch: 0, records: read, nextOffset: base + read.length, highWatermark: base + read.length });
  }
  if (topic === topics.ledger('crm')) for (const { key } of records) if (key!.toString('latin1').endsWith('#end')) counts.ends++;
  return base;
}
const produce: ProducePort = {
  partitions: () => Promise.resolve(partitions), partitionsKnown: () => partitions, leader: () => 1, refresh: () => Promise.resolve(), close: () => {},
  produce(_leader, batches) {
    counts.requests++;
    const acks = batches.map(({ topic, partition, records }) => ({ kind: 'acked' as const, baseOffset: write(topic, partition, records) }));
    return new Promise((done) => setTimeout(done, ackMs, acks));
  },
};
const appender = (urgent = false): Appender => createAppender(produce, { deadlineMs: 30_000, maxPendingBytes: 1e9, requestTimeoutMs: 10_000, urgent });
const endsOf = (topic: string): Map<number, number> => new Map(Array.from({ length: partitions }, (_, p) => [p, ends.get(`${topic}/${p}`) ?? 0]));
const paused = new Set<number>();
let handlers: ConsumerHandlers | undefined;
const log = {
  driver: 'platformatic',
  appender: ({ urgent }: { urgent?: boolean } = {}) => Promise.resolve(appender(urgent)),
  reader: () => Promise.resolve({
    async read(topic: string, partition: number, from: number, to: number, onBatch: (batch: any) => void | Promise<void>) {
      const records = (kept.get(`${topic}/${partition}`) ?? []).filter(({ offset }) => offset >= from && offset < to);
      if (records.length > 0) await onBatch({ topic, partition, epoch: 0, records, nextOffset: records.at(-1)!.offset + 1, highWatermark: to });
    },
    readOne: () => Promise.resolve(undefined),
    follow: (topic: string, _positions: unknown, onBatch: (batch: any) => void | Promise<void>) => {
      followers.set(topic, onBatch);
      return Promise.resolve({ positions: () => new Map(), close: () => Promise.resolve() });
    },
    close: () => Promise.resolve(),
  }),
  admin: () => Promise.resolve({
    partitions: () => Promise.resolve(partitions), endOffsets: (topic: string) => Promise.resolve(endsOf(topic)), beginningOffsets: () => Promise.resolve(new Map(Array.from({ length: partitions }, (_, p) => [p, 0]))),
    describeTopics: (names: readonly string[]) => Promise.resolve(names.map((name) => ({ name, partitions, replicas: 1, config: { 'retention.ms': '2592000000', 'cleanup.policy': 'delete' } }))), offsetsAt: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), close: () => Promise.resolve(),
  }),
  consumer({ handlers: given }: { groupId: string; handlers: ConsumerHandlers }): GroupConsumer {
    handlers = given;
    const assignments = Array.from({ length: partitions }, (_, partition) => ({ topic: topics.dispatch('crm'), partition, epoch: 1, position: 0 }));
    return {
      start: async () => { await given.assigned(assignments); },
      pause: (_topic: string, partition: number) => { paused.add(partition); }, resume: (_topic: string, partition: number) => { paused.delete(partition); },
      commit: () => {
        counts.commits++;
        return new Promise((done) => setTimeout(done, 100));
      },
      leaseUntil: () => Infinity, holds: () => true, assignments: () => assignments, close: () => given.revoked(assignments, 'close'),
    } as unknown as GroupConsumer;
  },
  close: () => Promise.resolve(),
} as unknown as Log;

const plain = await createLocalSerde();
const logger = createLogger({ service: 'bench', level: 'warn' });
const fail = (error: Error): void => { throw error; };
const stateDir = mkdtempSync(join(tmpdir(), 'weir-dispatch-path-'));
const keys = await createKeyRing({ log, serde: plain, topic: topics.keys, workspaceKey, stateDir, logger, now: Date.now }, fail);
await keys.start();
const subject = (i: number): number => (i * 7919) % subjects;
const maker: Maker = { serde: plain, workspaceKey, keys, release: 'rel_0123456789abcdef', partitionFor: (bytes) => partitionOf(bytes, partitions) };
for (let at = 0; at < total; at += 5000) await keys.ensure(Array.from({ length: Math.min(5000, total - at) }, (_, i) => idsOf(workspaceKey, subject(at + i))[0]!));
const lists = Array.from({ length: partitions }, (): OutRecord[] => []);
for (let i = 0; i < total; i++) {
  const record = deliveryRecord(maker, i, subject(i));
  lists[record.partition]!.push(record);
}
/** As bytes: what is kept as objects would be looked at in every collection. */
const batches = lists.map((list) => Array.from({ length: Math.ceil(list.length / fetched) }, (_, i) => ({ from: i * fetched, count: Math.min(fetched, list.length - i * fetched), bytes: encodeBatch(list.slice(i * fetched, (i + 1) * fetched), Date.now()) })));
lists.length = 0;

const context = {
  name: 'dispatcher', config: { instance: 'd', host: '127.0.0.1' }, log, serde: sealedSerde(plain, keys), keys, topics, groups, workspaceKey, logger, registry: new Registry(), clock: systemClock, stateDir,
  vault: { revision: () => 1, onChange: () => () => {}, refresh: () => Promise.resolve(), get: () => undefined },
  releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, close: () => Promise.resolve() },
} as unknown as ServiceContext;
const service = createDispatcher(context, { sessionTimeoutMs: 30_000, callTimeoutMs: 10_000, inLaneTries: 3, allowPrivate: true, sandboxUrl: '' });
void service.failed.then(fail);
await service.start();
const heads = batches.map(() => 0);
let feeding = 0;

/** Gives out what a window takes until so many have an end. */
async function run(until: number): Promise<void> {
  while (counts.ends < until) {
    for (let partition = 0; partition < partitions; partition++) {
      const next = paused.has(partition) || feeding >= until ? undefined : batches[partition]![heads[partition]!];
      if (next === undefined) continue;
      heads[partition]!++;
      feeding += next.count;
      const records = decodeBatches(next.bytes, 0).records.map((r, i) => Object.defineProperty(r, 'offset', { value: next.from + i }));
      handlers!.batch({ topic: topics.dispatch('crm'), partition, epoch: 1, records, nextOffset: next.from + next.count, highWatermark: total } as never);
    }
    await new Promise((done) => setTimeout(done, 8));
  }
}
await run(warm);
const endProfile = await startProfile();
const [requests, began, first] = [counts.requests, performance.now(), counts.ends];
const { least, median, system } = await measurePieces(() => counts.ends, total, () => run(Math.min(total, counts.ends + pieceRecords)), pieceRecords / 2);
const took = (performance.now() - began) / 1000;
await endProfile();
global.gc?.();
console.log(`${least.toFixed(1)} µs a delivery at least, ${median.toFixed(1)} at the median (${system.toFixed(1)} of it in the kernel); ${Math.round((counts.ends - first) / took)}/s, ${((counts.requests - requests) / (counts.ends - first)).toFixed(3)} produce requests a delivery, RssAnon ${memoryOf(process.pid).anon.toFixed(0)} MB`);
const counted = await sink.ask<{ distinct: number; twice: number }>('result');
if (counted.distinct < counts.ends || counted.twice > 0) throw new Error(JSON.stringify(counted));
sink.stop();
await service.stop();
await keys.stop();
rmSync(stateDir, { recursive: true });
process.exit(0);
