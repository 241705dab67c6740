/**
 * `node --expose-gc bench/restore-path.ts [keys]`: µs of CPU a key of each step of a restore of the consent table (fetch decoded, states, table), in one
 * process without a broker. With WEIR_BENCH_PROFILE a CPU profile of it is written there.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSerde, partitionOf, type OutRecord } from '@weir/log';
import { consentKey } from '@weir/policy';
import { openTable } from '@weir/state';
import { createStateIndex } from '../packages/consent/states.ts';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { restoredId } from './deliveries.ts';

const keys = Number(process.argv[2] ?? 1_000_000);
const partitions = 6;
/** About what a fetch of 4 MiB brings. */
const fetched = 22_000;
let schemaIds = 0;
const serde = createSerde({ registryUrl: '', registry: { register: async () => ({ id: ++schemaIds }), getSchema: () => Promise.reject(new Error('no registry')) } });
await serde.start();
const dir = mkdtempSync(join(tmpdir(), 'weir-restore-path-'));
const table = openTable({ path: dir, tellsAbsent: true });
const states = createStateIndex(table, serde, (_record, partition, error) => { throw new Error(`${partition}: ${error.message}`); });
const spent = new Map<string, number>();
const span = <T>(name: string, work: () => T): T => {
  const before = process.cpuUsage();
  const result = work();
  const { user, system } = process.cpuUsage(before);
  spent.set(name, (spent.get(name) ?? 0) + user + system);
  return result;
};
const profile = process.env['WEIR_BENCH_PROFILE'];
const session = new Session();
if (profile !== undefined) {
  session.connect();
  await session.post('Profiler.enable');
}

const waiting: OutRecord[][] = Array.from({ length: partitions }, () => []);
const next = new Array<number>(partitions).fill(0);
let measured = false;
async function take(partition: number): Promise<void> {
  const list = waiting[partition]!;
  waiting[partition] = [];
  const bytes = encodeBatch(list, 1_790_000_000_000);
  bytes.writeBigInt64BE(BigInt(next[partition]!), 0);
  next[partition]! += list.length;
  if (profile !== undefined) {
    if (!measured) await session.post('Profiler.start');
    measured = true;
  }
  const { records } = span('fetch', () => decodeBatches(bytes, 0));
  const puts = span('states', () => states.puts({ topic: 't', partition, epoch: 0, records, nextOffset: next[partition]!, highWatermark: next[partition]! }));
  span('table', () => table.putBatch(puts, new Map([[partition, next[partition]!]]), new Map([[partition, { offset: next[partition]! - 1, timestamp: 1, currentAt: 0 }]])));
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
span('table', () => table.loaded());
if (profile !== undefined) writeFileSync(join(profile, 'restore-path.cpuprofile'), JSON.stringify((await session.post('Profiler.stop')).profile));
if (next.reduce((sum, n) => sum + n, 0) !== keys || table.get(`b|${restoredId(keys - 1)}`) === undefined) throw new Error('a state is not there');
for (const [name, us] of [...spent, ['all', [...spent.values()].reduce((a, b) => a + b, 0)] as const]) console.log(`${name.padEnd(8)} ${(us / keys).toFixed(2)} µs`);
console.log(`file     ${Math.round(table.bytes() / keys)} bytes a key, rss ${Math.round(process.memoryUsage().rss / 1e6)} MB`);
await table.close();
rmSync(dir, { recursive: true, force: true });
