/**
 * `node --expose-gc --max-semi-space-size=16 bench/normalize-path.ts [records]`: µs of CPU a record of the normalizer with everything on
 * (sealed items, event ids, identity, sealed records, metrics) over its real table and keys, in one process without a broker: where
 * the time goes, steadier than the whole.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registry as adapters } from '@weir/adapters';
import { partitionOf, type Appender, type ConsumerHandlers, type GroupConsumer, type Log, type OutRecord } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { compileRelease } from '@weir/release';
import { createKeyRing, sealedSerde } from '@weir/seal';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { createLocalSerde } from '@weir/testing';
import { Registry } from 'prom-client';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { createNormalizer } from '../services/normalizer/app.ts';
import { benchWorkspaceKey, contract, eventOf, mapping, rawOwners, sealedContact } from './contacts.ts';
import { memoryOf } from './harness.ts';
import { measurePieces, startProfile } from './measure.ts';

const measured = Number(process.argv[2] ?? 120_000);
const warm = 40_000;
const partitions = 6;
/** What a fetch brings of a partition. */
const batchSize = 700;
const pieceRecords = 4000;
const topics = topicNames('path');
const groups = groupNames('path');
const stateDir = mkdtempSync(join(tmpdir(), 'weir-normalize-path-'));
const release = compileRelease([
  { path: 'weir.yaml', content: 'name: bench\n' }, { path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Letters. }\n' },
  { path: 'mappings/contacts.yaml', content: mapping }, { path: 'contracts/contacts.odcs.yaml', content: contract },
  { path: 'sources/contacts.yaml', content: 'adapter: standard-webhooks\nconfig: { secret: { secret: SECRET } }\nmapping: contacts.yaml\n' },
], { adapters });

let handlers: ConsumerHandlers | undefined;
const ends = new Map<string, number[]>();
const appended = new Map<string, number>();
const followers = new Map<string, (batch: any) => void | Promise<void>>();
let written: OutRecord | undefined;
const endsOf = (topic: string): number[] => {
  let list = ends.get(topic);
  if (list === undefined) ends.set(topic, list = new Array<number>(partitions).fill(0));
  return list;
};
/** Puts batches together as the one of packages/log does. */
const appender: Appender = {
  append(topic, records) {
    const next = endsOf(topic);
    const offsets = new Array<number>(records.length);
    const by: number[][] = Array.from({ length: partitions }, () => []);
    records.forEach((record, i) => by[record.partition]!.push(i));
    for (const [partition, list] of by.entries()) {
      if (list.length === 0) continue;
      const bytes = encodeBatch(list.map((i) => records[i]!), 1_790_000_000_000);
      const base = next[partition]!;
      next[partition] = base + list.length;
      list.forEach((i, at) => { offsets[i] = base + at; });
      const follow = followers.get(topic);
      if (follow !== undefined) void follow({ topic, partition, epoch: 0, records: decodeBatches(bytes, 0).records.map((r, i) => ({ key: r.key, value: r.value, headers: r.headers, timestamp: r.timestamp, offset: base + i })), nextOffset: base + list.length, highWatermark: base + list.length });
    }
    appended.set(topic, (appended.get(topic) ?? 0) + records.length);
    if (topic === topics.canonical && records.length > 0) written = { partition: 0, key: null, value: Buffer.from(records[0]!.value!) };
    return Promise.resolve(offsets);
  },
  partitionFor: (_topic, key) => partitionOf(key as Buffer, partitions),
  partitions: () => Promise.resolve(partitions), pendingBytes: () => 0, close: () => Promise.resolve(),
};
const toMap = (list: readonly number[]): Map<number, number> => new Map(list.map((n, i) => [i, n]));
const raw = topics.raw('contacts');
const log = {
  driver: 'platformatic',
  appender: () => Promise.resolve(appender),
  reader: () => Promise.resolve({
    read: () => Promise.resolve(), readOne: () => Promise.resolve(undefined),
    follow: (topic: string, _positions: unknown, onBatch: (batch: any) => void | Promise<void>) => {
      followers.set(topic, onBatch);
      return Promise.resolve({ positions: () => new Map(), close: () => Promise.resolve() });
    },
    close: () => Promise.resolve(),
  }),
  admin: () => Promise.resolve({
    listTopics: () => Promise.resolve([raw]), partitions: () => Promise.resolve(partitions), endOffsets: (topic: string) => Promise.resolve(toMap(endsOf(topic))), beginningOffsets: () => Promise.resolve(toMap(new Array<number>(partitions).fill(0))),
    describeTopics: () => Promise.resolve([]), offsetsAt: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), close: () => Promise.resolve(),
  }),
  consumer({ handlers: given }: { handlers: ConsumerHandlers }): GroupConsumer {
    handlers = given;
    return {
      start: () => given.assigned(Array.from({ length: partitions }, (_, partition) => ({ topic: raw, partition, epoch: 1, position: 0 }))),
      pause: () => {}, resume: () => {}, commit: () => Promise.resolve(), leaseUntil: () => Infinity, holds: () => true, assignments: () => [], close: () => Promise.resolve(),
    } as unknown as GroupConsumer;
  },
  close: () => Promise.resolve(),
} as unknown as Log;

const plain = await createLocalSerde();
const logger = createLogger({ service: 'bench', level: 'warn' });
const fail = (error: Error): void => { throw error; };
const keys = await createKeyRing({ log, serde: plain, topic: topics.keys, workspaceKey: benchWorkspaceKey, stateDir, logger, now: Date.now }, fail);
await keys.start();
const total = warm + measured;
await keys.ensure(rawOwners(total));

/** As bytes: what is kept as objects would be looked at in every collection. */
const batches: { partition: number; from: number; count: number; bytes: Buffer }[] = [];
{
  const lists = Array.from({ length: partitions }, (): OutRecord[] => []);
  const offsets = new Array<number>(partitions).fill(0);
  const cut = (partition: number): void => {
    const list = lists[partition]!;
    if (list.length === 0) return;
    batches.push({ partition, from: offsets[partition]!, count: list.length, bytes: encodeBatch(list, Date.now()) });
    offsets[partition]! += list.length;
    lists[partition] = [];
  };
  for (let i = 0; i < total; i++) {
    const record = sealedContact(i, (key) => partitionOf(key, partitions), keys);
    if (lists[record.partition]!.push(record) === batchSize) cut(record.partition);
  }
  for (let partition = 0; partition < partitions; partition++) cut(partition);
}

const context = {
  name: 'normalizer', config: {}, log, serde: sealedSerde(plain, keys), keys, topics, groups, vault: undefined, workspaceKey: benchWorkspaceKey, logger, registry: new Registry(), clock: systemClock, stateDir,
  releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, close: () => Promise.resolve() },
} as unknown as ServiceContext;
const service = createNormalizer(context, { sessionTimeoutMs: 30_000 });
void service.failed.then(fail);
await service.start();
let fed = 0;
const done = (): number => appended.get(topics.canonical) ?? 0;

async function run(until: number): Promise<void> {
  while (fed < until && batches.length > 0) {
    const { partition, from, count, bytes } = batches.shift()!;
    const { records } = decodeBatches(bytes, 0);
    for (const [i, record] of records.entries()) Object.defineProperty(record, 'offset', { value: from + i });
    fed += count;
    handlers!.batch({ topic: raw, partition, epoch: 1, records, nextOffset: from + count, highWatermark: from + count });
    while (done() < fed) await new Promise((next) => setImmediate(next));
  }
}
await run(warm);
const endProfile = await startProfile();
const pieces = await measurePieces(() => fed, total, () => run(Math.min(total, fed + pieceRecords)));
await endProfile();
if (keys.open(written!.value!) === undefined || done() !== total) throw new Error(`${done()} records of ${total}, the last of ${eventOf(total - 1)}`);
global.gc?.();
const { anon, file } = memoryOf(process.pid);
const { heapUsed, heapTotal, external, arrayBuffers } = process.memoryUsage();
const mb = (bytes: number): string => (bytes / 2 ** 20).toFixed(0);
console.log(`${pieces.least.toFixed(1)} µs a record at least, ${pieces.quarter.toFixed(1)} at the first quarter, ${pieces.median.toFixed(1)} at the median; RssAnon ${anon.toFixed(0)} MB (heap ${mb(heapUsed)} of ${mb(heapTotal)}, external ${mb(external)}, array buffers ${mb(arrayBuffers)}), mapped ${file.toFixed(0)} MB`);
await service.stop();
await keys.stop();
rmSync(stateDir, { recursive: true });
process.exit(0);
