/**
 * `node --expose-gc bench/restore-path.ts [keys]`: µs of CPU a key of each step of a restore of the consent table (fetch decoded, states, table), in one
 * process without a broker. With WEIR_BENCH_PROFILE a CPU profile of it is written there.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { partitionOf, type OutRecord } from '@weir/log';
import { consentKey } from '@weir/policy';
import { openTable } from '@weir/state';
import { createLocalSerde } from '@weir/testing';
import { createStateIndex } from '../packages/consent/states.ts';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { restoredId } from './deliveries.ts';
import { createSteps, startProfile } from './measure.ts';

const keys = Number(process.argv[2] ?? 1_000_000);
const partitions = 6;
/** About what a fetch of 4 MiB brings. */
const fetched = 22_000;
const serde = await createLocalSerde();
const dir = mkdtempSync(join(tmpdir(), 'weir-restore-path-'));
const table = openTable({ path: dir, tellsAbsent: true });
const states = createStateIndex(table, serde, (_record, partition, error) => { throw new Error(`${partition}: ${error.message}`); });
const steps = createSteps();
let endProfile: (() => Promise<void>) | undefined;

const waiting: OutRecord[][] = Array.from({ length: partitions }, () => []);
const next = new Array<number>(partitions).fill(0);
async function take(partition: number): Promise<void> {
  const list = waiting[partition]!;
  waiting[partition] = [];
  const bytes = encodeBatch(list, 1_790_000_000_000);
  bytes.writeBigInt64BE(BigInt(next[partition]!), 0);
  next[partition]! += list.length;
  // From the first batch on: before it records are made.
  endProfile ??= await startProfile();
  const { records } = steps.step('fetch', () => decodeBatches(bytes, 0));
  const puts = steps.step('states', () => states.puts({ topic: 't', partition, epoch: 0, records, nextOffset: next[partition]!, highWatermark: next[partition]! }));
  steps.step('table', () => table.putBatch(puts, new Map([[partition, next[partition]!]]), new Map([[partition, { offset: next[partition]! - 1, timestamp: 1, currentAt: 0 }]])));
}
table.loading();
for (let i = 0; i < keys; i++) {
  const id = restoredId(i);
  const key = Buffer.from(consentKey(id, 'news', 'email', ''));
  const value = serde.encode('weir.internal.ConsentState', { id, purpose: 'news', channel: 'email', topic: '', state: 'granted', version: i, changedAt: 1_790_000_000_000 + i, source: 'contacts', legalBasis: 'consent', proof: null, expiresAt: null, changeId: `evt_${i.toString(16).padStart(32, '0')}`, seen: [], jurisdiction: null, noticeVersion: null, closedBy: [] });
  const partition = partitionOf(Buffer.from(id), partitions);
  if (waiting[partition]!.push({ partition, key, value }) >= fetched) await take(partition);
}
for (let partition = 0; partition < partitions; partition++) await take(partition);
steps.step('table', () => table.loaded());
await endProfile?.();
if (next.reduce((sum, n) => sum + n, 0) !== keys || table.get(`b|${restoredId(keys - 1)}`) === undefined) throw new Error('a state is not there');
steps.print(keys);
console.log(`all    ${(steps.sum() / keys).toFixed(2)} µs`);
console.log(`file   ${Math.round(table.bytes() / keys)} bytes a key, rss ${Math.round(process.memoryUsage().rss / 1e6)} MB`);
await table.close();
rmSync(dir, { recursive: true, force: true });
