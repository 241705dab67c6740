/**
 * `node --expose-gc bench/policy-path.ts [subjects] [records]`: µs of CPU a delivery of the policy stage over its real tables and keys, in one
 * process without a broker: where the time goes, steadier than the whole. The tables are kept in WEIR_PATH_DIR between runs.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readAdapterFile, registry as adapters } from '@weir/adapters';
import { personRegion, regionKey } from '@weir/consent';
import { partitionOf, type Appender, type ConsumerHandlers, type GroupConsumer, type Log, type LogRecord, type OutRecord } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { compileRelease, linksOf, withDefaults } from '@weir/release';
import { createKeyRing, sealedSerde } from '@weir/seal';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { createLocalSerde } from '@weir/testing';
import { Registry } from 'prom-client';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { createPolicy } from '../services/policy/app.ts';
import { canonicalRecord, consentOf, idsOf, policyDestinations, policyFiles, subjectOf, type Maker } from './deliveries.ts';
import { memoryOf } from './harness.ts';
import { measurePieces, startProfile } from './measure.ts';

const subjects = Number(process.argv[2] ?? 200_000);
const measured = Number(process.argv[3] ?? 30_000);
const warm = 6000;
const partitions = 6;
const batchSize = 500;
const pieceRecords = 1000;
const dir = join(process.env['WEIR_PATH_DIR'] ?? join(tmpdir(), 'weir-policy-path'), String(subjects));
mkdirSync(dir, { recursive: true });
const endsFile = join(dir, 'ends.json');
const ends: Record<string, number[]> = existsSync(endsFile) ? JSON.parse(readFileSync(endsFile, 'utf8')) as Record<string, number[]> : {};
const topics = topicNames('path');
const groups = groupNames('path');
const names = policyDestinations;
const workspaceKey = Buffer.alloc(32, 7);
const release = compileRelease(withDefaults(Object.entries(policyFiles).map(([path, content]) => ({ path, content })), adapters, readAdapterFile), { adapters, workspaceKey });

/** What is to be read into the tables in this run, by topic and partition. */
const content = new Map<string, OutRecord[][]>();
const handlers = new Map<string, ConsumerHandlers>();
const appended = new Map<string, number>();
let committed = 0;
const endsOf = (topic: string): number[] => (ends[topic] ??= new Array<number>(partitions).fill(0));
const followers = new Map<string, (batch: any) => void | Promise<void>>();
let written: OutRecord | undefined;
const appender: Appender = {
  append(topic, records) {
    const by = Map.groupBy(records, (r) => r.partition);
    const next = endsOf(topic);
    const places = [...next];
    const offsets = records.map(({ partition }) => places[partition]!++);
    for (const [partition, list] of by) {
      const bytes = encodeBatch(list, 1_790_000_000_000);
      const base = next[partition]!;
      next[partition] = base + list.length;
      if (followers.has(topic)) {
        const batch = decodeBatches(bytes, 0);
        void followers.get(topic)!({ topic, partition, epoch: 0, records: batch.records.map((r, i) => ({ key: r.key, value: r.value, headers: r.headers, timestamp: r.timestamp, offset: base + i })), nextOffset: base + list.length, highWatermark: base + list.length });
      }
    }
    appended.set(topic, (appended.get(topic) ?? 0) + records.length);
    written = records[0];
    return Promise.resolve(offsets);
  },
  partitionFor: (_topic, key) => partitionOf(key as Buffer, partitions),
  partitions: () => Promise.resolve(partitions), pendingBytes: () => 0, close: () => Promise.resolve(),
};
const toMap = (list: readonly number[]): Map<number, number> => new Map(list.map((n, i) => [i, n]));
const log = {
  driver: 'platformatic',
  appender: () => Promise.resolve(appender),
  reader: () => Promise.resolve({
    async read(topic: string, partition: number, from: number, _to: number, onBatch: (batch: any) => void | Promise<void>) {
      const list = content.get(topic)?.[partition] ?? [];
      for (let at = from; at < list.length; at += 5000) {
        const records = list.slice(at, at + 5000).map((r, i): LogRecord => ({ offset: at + i, timestamp: 1_790_000_000_000, key: r.key, value: r.value, headers: [] }));
        await onBatch({ topic, partition, epoch: 0, records, nextOffset: at + records.length, highWatermark: list.length });
      }
    },
    readOne: () => Promise.resolve(undefined),
    follow: (topic: string, _positions: unknown, onBatch: (batch: any) => void | Promise<void>) => {
      followers.set(topic, onBatch);
      return Promise.resolve({ positions: () => new Map(), close: () => Promise.resolve() });
    },
    close: () => Promise.resolve(),
  }),
  admin: () => Promise.resolve({
    partitions: () => Promise.resolve(partitions), endOffsets: (topic: string) => Promise.resolve(toMap(endsOf(topic))), beginningOffsets: (topic: string) => Promise.resolve(toMap(endsOf(topic).map(() => 0))),
    describeTopics: () => Promise.resolve([]), offsetsAt: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), close: () => Promise.resolve(),
  }),
  consumer({ groupId, handlers: given }: { groupId: string; handlers: ConsumerHandlers }): GroupConsumer {
    handlers.set(groupId, given);
    return {
      start: () => (groupId === groups.policy ? given.assigned(Array.from({ length: partitions }, (_, partition) => ({ topic: topics.canonical, partition, epoch: 1, position: 0 }))) : Promise.resolve()),
      pause: () => {}, resume: () => {}, commit: (offsets: readonly { offset: number; partition: number }[]) => {
        for (const o of offsets) positions[o.partition] = o.offset;
        committed = positions.reduce((a, b) => a + b, 0);
        return new Promise((done) => setTimeout(done, 100));
      },
      leaseUntil: () => Infinity, holds: () => true, assignments: () => [], close: () => Promise.resolve(),
    } as unknown as GroupConsumer;
  },
  close: () => Promise.resolve(),
} as unknown as Log;
const positions = new Array<number>(partitions).fill(0);

const plain = await createLocalSerde();

if (ends[topics.identity] === undefined) {
  const of = (topic: string): OutRecord[][] => {
    const lists = Array.from({ length: partitions }, (): OutRecord[] => []);
    content.set(topic, lists);
    return lists;
  };
  const [links, states] = [of(topics.identity), of(topics.consent)];
  for (let i = 0; i < subjects; i++) {
    const ids = idsOf(workspaceKey, i);
    for (const link of linksOf(ids)) links[partitionOf(Buffer.from(link), partitions)]!.push({ partition: 0, key: Buffer.from(link), value: Buffer.alloc(1) });
    // Every profile of this path says where its person is, and has said so before.
    const region = Buffer.from(regionKey(ids[0]!));
    links[partitionOf(region, partitions)]!.push({ partition: 0, key: region, value: plain.encode(personRegion, { id: ids[0]!, region: 'DE-BE', source: 'shop', at: 1_700_000_000_000 }) });
    const email = ids[1]!;
    states[partitionOf(Buffer.from(email), partitions)]!.push({ partition: 0, ...consentOf(plain, email, i) });
  }
  ends[topics.identity] = links.map((l) => l.length);
  ends[topics.consent] = states.map((l) => l.length);
}
const logger = createLogger({ service: 'bench', level: 'warn' });
const fail = (error: Error): void => { throw error; };
const stateDir = join(dir, 'state');
mkdirSync(stateDir, { recursive: true });
const ring = (): ReturnType<typeof createKeyRing> => createKeyRing({ log, serde: plain, topic: topics.keys, workspaceKey, stateDir, logger, now: Date.now }, fail);

/** Canonical records by partition, sealed by a ring of its own: that of the service has no key ready. */
const canonical = Array.from({ length: partitions }, (): OutRecord[] => []);
const total = warm + measured;
const makers = await ring();
await makers.start();
for (let at = 0; at < total; at += 5000) await makers.ensure(Array.from({ length: Math.min(5000, total - at) }, (_, i) => idsOf(workspaceKey, subjectOf(at + i, subjects))[0]!));
const maker: Maker = { serde: plain, workspaceKey, keys: makers, release: 'rel_0123456789abcdef', partitionFor: (bytes) => partitionOf(bytes, partitions) };
for (let i = 0; i < total; i++) {
  const record = canonicalRecord(maker, i, subjectOf(i, subjects));
  canonical[record.partition]!.push(record);
}
await makers.stop();
/** As bytes: what is kept as objects would be looked at in every collection. */
const batches = canonical.map((list, partition) => Array.from({ length: Math.ceil(list.length / batchSize) }, (_, i) => ({ partition, from: i * batchSize, count: Math.min(batchSize, list.length - i * batchSize), bytes: encodeBatch(list.slice(i * batchSize, (i + 1) * batchSize), Date.now()) })));
canonical.length = 0;

const keys = await ring();
await keys.start();
const context = {
  name: 'policy', config: { instance: 'p', host: '127.0.0.1' }, log, serde: sealedSerde(plain, keys), keys, topics, groups, vault: undefined, workspaceKey, logger, registry: new Registry(), clock: systemClock, stateDir,
  releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, close: () => Promise.resolve() },
} as unknown as ServiceContext;
const service = await createPolicy(context, { sessionTimeoutMs: 30_000, windowRecords: 10_000, windowBytes: 16_777_216 });
void service.failed.then(fail);
await service.start();
content.clear();
const stage = handlers.get(groups.policy)!;
const heads = batches.map(() => 0);
const sent = (): number => names.reduce((sum, name) => sum + (appended.get(topics.dispatch(name)) ?? 0), 0);
let fed = 0;

/** Feeds batches in turn until so many records are decided. */
async function run(until: number): Promise<void> {
  for (let partition = 0; fed < until; partition = (partition + 1) % partitions) {
    const next = batches[partition]![heads[partition]!++];
    if (next === undefined) continue;
    const records = decodeBatches(next.bytes, 0).records.map((r, i) => Object.defineProperty(r, 'offset', { value: next.from + i }));
    fed += next.count;
    stage.batch({ topic: topics.canonical, partition, epoch: 1, records, nextOffset: next.from + next.count, highWatermark: total });
    while (sent() < fed * names.length) await new Promise((done) => setImmediate(done));
  }
}
await run(warm);
const endProfile = await startProfile();
const { least, median } = await measurePieces(sent, total * names.length, () => run(Math.min(total, fed + pieceRecords)));
await endProfile();
global.gc?.();
const { anon, file } = memoryOf(process.pid);
const sample = keys.open((plain.decode(written!.value!).value as { payload: Buffer }).payload);
if (sample === undefined || plain.decode(sample).name !== 'weir.canonical.Profile') throw new Error('a delivery cannot be read');
console.log(`${least.toFixed(1)} µs a delivery at least, ${median.toFixed(1)} at the median; ${Math.round(1e6 / least)} and ${Math.round(1e6 / median)} deliveries/s of a core; ${committed} committed, RssAnon ${anon.toFixed(0)} MB, mapped ${file.toFixed(0)} MB`);
await service.stop();
await keys.stop();
writeFileSync(endsFile, JSON.stringify(ends));
process.exit(0);
