/**
 * `node --expose-gc bench/replay-path.ts [letters]`: µs of CPU a dead letter of each step of a replay (select, put back, index what was put back) over the
 * real index, in one process without a broker: where the time goes, steadier than the whole. Consent is answered by nothing. With WEIR_BENCH_PROFILE a CPU
 * profile of the measured part is written there.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Packer, partitionOf, type LogRecord, type OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { sealKey } from '@weir/seal';
import { openTable } from '@weir/state';
import { createLocalSerde } from '@weir/testing';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { createIndexer } from '../services/control/indexer.ts';
import { parseRequest, type ReplayOrder } from '../services/control/replay/order.ts';
import { createRecords } from '../services/control/replay/put-back.ts';
import type { ScannedRecord } from '../services/control/replay/scan.ts';
import { createSelector, goesBack, type SelectPorts } from '../services/control/replay/select.ts';
import { objectReader } from '../services/control/replay/standing.ts';
import { createStore } from '../services/control/store.ts';
import { endRecord, letterRecord, type Maker } from './deliveries.ts';
import { createSteps, startProfile } from './measure.ts';

const letters = Number(process.argv[2] ?? 40_000);
const subjects = 50_000;
const partitions = 6;
const chunk = 1000;
const topics = topicNames('path');
const dispatch = topics.dispatch('crm');
const serde = await createLocalSerde();
const dir = mkdtempSync(join(tmpdir(), 'weir-replay-path-'));
const store = createStore(openTable({ path: dir }));
const index = createIndexer(store, serde, topics, (topic) => { throw new Error(`${topic} holds what cannot be decoded`); });
const key = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 3));
const maker: Maker = { serde, workspaceKey: Buffer.alloc(32, 7), keys: { ensure: () => Promise.resolve(), current: () => key }, release: 'rel_0123456789abcdef', partitionFor: (key) => partitionOf(key, partitions) };
const subject = (i: number): number => (i * 7919) % subjects;
const ends = new Map<string, number[]>();
const steps = createSteps();

/** As a fetch gives them: by partition. */
async function append(topic: string, records: readonly OutRecord[]): Promise<ScannedRecord[]> {
  const next = ends.get(topic) ?? new Array<number>(partitions).fill(0);
  ends.set(topic, next);
  const found: ScannedRecord[] = [];
  for (const [partition, list] of Map.groupBy(records, (r) => r.partition)) {
    const bytes = steps.step('append', () => encodeBatch(list, 1_790_000_000_000));
    bytes.writeBigInt64BE(BigInt(next[partition]!), 0);
    const batch = steps.step('fetch', () => decodeBatches(bytes, 0));
    next[partition]! += list.length;
    await steps.step('index', () => index({ topic, partition, epoch: 0, records: batch.records, nextOffset: next[partition]!, highWatermark: next[partition]! }));
    for (const record of batch.records) found.push({ topic, partition, record });
  }
  return found;
}

const chunks: ScannedRecord[][] = [];
for (let at = 0; at < letters; at += chunk) {
  const of = Array.from({ length: Math.min(chunk, letters - at) }, (_, i) => at + i);
  await append(topics.ledger('crm'), of.map((i) => endRecord(maker, i, i, subject(i))));
  chunks.push(await append(topics.dlq, of.map((i) => letterRecord(maker, dispatch, i, i, subject(i), (key) => partitionOf(key, partitions)))));
}
store.flush();

const operation = { kind: 'use', idempotency: { scheme: 'header', windowMs: 86_400_000, pastWindow: 'hold' } };
const destinations = new Map([['crm', { operations: { 'upsert-contact': operation }, adapter: {} }]]);
const policy = { purposes: new Map(), rules: [], routes: new Map([['Profile', [{ destination: 'crm', on: 'Profile', operation: 'upsert-contact', kind: 'use', when: undefined }]]]) };
const ports: SelectPorts = {
  serde, topics, tables: {} as never, keys: undefined, release: () => ({ hash: maker.release, policy, sources: new Map(), destinations }) as never, canonicalOf: () => { throw new Error('what the running release decided is not decided again'); }, decidedLater: () => { throw new Error('what the running release decided is not looked up'); }, workspaceKey: maker.workspaceKey, endedAs: store.endedAs, now: () => Date.now(), open: (bytes) => bytes, hasKey: () => true, keysToEnd: () => Promise.resolve(),
  standing: { end: store.end, newest: store.newest, objectOf: objectReader(serde, maker.workspaceKey), deliveryState: store.deliveryState, destination: (name) => destinations.get(name) as never, allows: () => true, mayRead: () => true, oldestSent: () => Number.POSITIVE_INFINITY },
};
const order = { ...parseRequest({ from: 'dlq', all: true }, { sources: new Map(), destinations: new Map() }, maker.workspaceKey, 1), id: 'rpl_0123456789abcdef0123456789abcdef' } as unknown as ReplayOrder;
const record = createRecords(order);
const packer = new Packer();
const selector = createSelector(ports, order);
let put = 0;
const endProfile = await startProfile();
steps.clear();
const whole = process.cpuUsage();
let flushed = performance.now();
for (const records of chunks) {
  const fresh = steps.step('fetch', () => records.map(({ topic, partition, record }) => ({ topic, partition, record: record as LogRecord })));
  const items = await steps.step('select', () => selector.take(fresh));
  packer.reset();
  const out = steps.step('record', () => items.filter((item) => goesBack(item, order)).map((item) => record(packer, item)));
  put += out.length;
  await append(dispatch, out);
  if (performance.now() - flushed < 200) continue;
  steps.step('write', () => store.flush());
  flushed = performance.now();
}
steps.step('write', () => store.flush());
const { user, system } = process.cpuUsage(whole);
await endProfile();
if (put !== letters) throw new Error(`${put} of ${letters} were put back: ${JSON.stringify(selector.passed)}`);
steps.print(letters);
console.log(`all    ${((user + system) / letters).toFixed(2)} µs`);
await store.close();
rmSync(dir, { recursive: true, force: true });
