/**
 * `node --expose-gc --max-semi-space-size=16 bench/parked.ts [subjects]`: what a parked subject costs the dispatcher: anonymous memory and CPU to park it, to look
 * whether one is parked, to take all over as a new owner, and to let all of them go. In one process, without a broker; the tables are real.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSerde, type LogRecord, type OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { openTable } from '@weir/state';
import { createLane, type Lane } from '../services/dispatcher/lane.ts';
import { createLedgerStore } from '../services/dispatcher/ledger-store.ts';
import { createParking, type Parking } from '../services/dispatcher/parking.ts';
import type { DestinationPorts } from '../services/dispatcher/ports.ts';
import type { Task } from '../services/dispatcher/types.ts';

const subjects = Number(process.argv[2] ?? 300_000);
const collect = (globalThis as { gc?: () => void }).gc;
if (collect === undefined || !(subjects > 0)) throw new Error('node --expose-gc bench/parked.ts [subjects]');
const hour = 3_600_000;
const chunk = 500;
const dir = mkdtempSync(join(tmpdir(), 'weir-parked-'));
const known: string[] = [];
const serde = createSerde({ registryUrl: '', registry: { register: (schema: { schema: string }) => Promise.resolve({ id: known.push(schema.schema) }), getSchema: (id: number) => Promise.resolve(JSON.parse(known[id - 1]!) as unknown) } as never });
await serde.start();
const ledgerTable = openTable({ path: join(dir, 'ledger') });
const parkedTable = openTable({ path: join(dir, 'parked') });
const ledger = createLedgerStore(ledgerTable, serde);
const subjectOf = (n: number): string => `sub_${(n * 2_654_435_761 % 2 ** 32).toString(16).padStart(8, '0')}${String(n).padStart(24, '0')}`;

const clock = { at: 1_790_000_000_000 };
let timers: { at: number; run: () => void }[] = [];
let ledgerEnd = 0;
let parkedEnd = 0;
let sent = 0;
const value = Buffer.from('v');
const recordAt = (offset: number): LogRecord => ({ offset, timestamp: clock.at, key: Buffer.from(subjectOf(offset)), value, headers: [] });
let turns = 0;
/** Memory is what is held, not what nobody has collected yet. */
async function turn(): Promise<void> {
  await new Promise((done) => { setImmediate(done); });
  if (++turns % 20 === 0) collect!();
}
const ports = {
  name: 'crm', topics: topicNames('t'), instance: '1', ledger, parkedTable, serde: { ...serde, known: () => true, decode: () => ({ value: { kind: 'use', outputId: 'o', destination: 'crm', operation: 'upsert', intent: '', payload: value } }) },
  fail: (error: unknown) => { throw error; }, window: () => ({ records: 6000, bytes: 1e7, heads: 1000 }), turns: { next: turn, over: () => ++turns % 500 === 0 },
  clock: { now: () => clock.at, monotonic: () => clock.at, random: Math.random, setTimer: (run: () => void, ms: number) => timers.push({ at: clock.at + ms, run }), clearTimer: () => undefined },
  metrics: { parked: { inc: () => undefined, dec: () => undefined } }, retention: { parkedMs: () => 30 * 24 * hour }, dedupeWindowMs: () => 7 * 24 * hour,
  admin: { beginningOffsets: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), endOffsets: () => Promise.resolve(new Map([[0, parkedEnd]])) },
  reader: { async read(_topic: string, _partition: number, from: number, to: number, take: (batch: object) => unknown) {
    for (let at = from; at < Math.min(to, parkedEnd); at += chunk) await take({ records: Array.from({ length: Math.min(chunk, to - at, parkedEnd - at) }, (_, i) => recordAt(at + i)), nextOffset: Math.min(at + chunk, to, parkedEnd) });
  } },
  appender: { append: (topic: string, records: readonly OutRecord[]) => Promise.resolve(records.map(() => (topic.includes('ledger') ? ledgerEnd++ : parkedEnd++))) },
} as unknown as DestinationPorts;

/** An owner of the partition; what it offers is called and applied at once. */
function createOwner(epoch: number) {
  const lanes = new Map<string, Lane>();
  const ended: Lane[] = [];
  const laneOf = (subject: string): Lane => {
    const lane = lanes.get(subject) ?? parking.rouse(subject) ?? createLane(subject);
    lanes.set(subject, lane);
    return lane;
  };
  const parking: Parking = createParking({
    ports, partition: 0, epoch, laneOf, forget: (lane) => { lanes.delete(lane.subject); }, endOf: () => undefined, reach: () => undefined, written: () => Promise.resolve(true), finished: () => undefined, end: () => undefined, hurry: () => undefined, offer: (lane) => { ended.push(lane); },
    createTask: (delivery, record, offset, parkedOffset) => ({ delivery, record, redrive: '', offset, parkedOffset, attempts: 0, readBacks: 0, last: undefined, maybeSince: 0, sealedBy: '' }) as never,
    applyLedger: (records, keys, offsets) => ledger.apply(0, records.map((r, i) => ({ key: keys[i]!, value: r.value, offset: offsets[i]! })), ledgerEnd),
  });
  return {
    parking, laneOf,
    async settle(): Promise<void> {
      for (;;) {
        await turn();
        await parking.drained();
        const due = timers.filter((t) => t.at <= clock.at);
        timers = timers.filter((t) => t.at > clock.at);
        if (ended.length === 0 && due.length === 0) return;
        for (const lane of ended.splice(0)) {
          sent++;
          parking.headEnded(lane, lane.queue.shift()!);
          parking.next(lane);
        }
        for (const { run } of due) run();
      }
    },
  };
}

const anonMb = (): number => Number(/^RssAnon:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))![1]) / 1024;
let most = 0;
async function step(name: string, each: number, work: () => Promise<void>): Promise<void> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  for (let i = 0; i < 4; i++) {
    collect!();
    await turn();
  }
  const mb = anonMb();
  most = Math.max(most, mb);
  console.log(`${name}: ${((user + system) / each).toFixed(1)} µs each, RssAnon ${mb.toFixed(1)} MB`);
}

async function parkAll(owner: ReturnType<typeof createOwner>, count: number, first: number): Promise<void> {
  for (let from = first; from < first + count; from += chunk) {
    for (let n = from; n < Math.min(first + count, from + chunk); n++) {
      const lane = owner.laneOf(subjectOf(n));
      lane.queue.push({ delivery: { kind: 'use' }, record: recordAt(n), subject: lane.subject, offset: n, parkedOffset: -1, attempts: 0, readBacks: 0, maybeSince: 0 } as unknown as Task);
      owner.parking.park(lane, clock.at + hour + n, 'delay-until');
    }
    await owner.settle();
  }
}

const first = createOwner(1);
await first.parking.load();
const warm = 20_000;
await step('warm up', warm, () => parkAll(first, warm, 0));
const before = anonMb();
await step('parked', subjects, () => parkAll(first, subjects, warm));
const bytes = (anonMb() - before) * 1024 * 1024 / subjects;
console.log(`${bytes.toFixed(0)} bytes of anonymous memory per parked subject, ${first.parking.count()} parked`);
await step('look for one that is not parked', 20_000, async () => { for (let n = 0; n < 20_000; n++) if (first.parking.rouse(`sub_${n}`) !== undefined) throw new Error('parked'); });
first.parking.close();
const second = createOwner(2);
await step('taken over', subjects + warm, () => second.parking.load());
if (second.parking.count() !== subjects + warm) throw new Error(`${second.parking.count()} of ${subjects + warm} taken over`);
clock.at += hour + subjects + warm;
await step('due and gone', subjects + warm, () => second.settle());
if (sent !== subjects + warm || second.parking.count() !== 0) throw new Error(`${sent} sent, ${second.parking.count()} left`);
console.log(`most after a step: ${(most - before).toFixed(1)} MB over the start`);
await Promise.all([ledgerTable.close(), parkedTable.close()]);
rmSync(dir, { recursive: true, force: true });
