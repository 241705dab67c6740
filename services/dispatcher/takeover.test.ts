import { WeirError, type ErrorCode } from '@weir/errors';
import type { LogRecord } from '@weir/log';
import type { Serde } from '@weir/log';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createLedgerStore } from './ledger-store.ts';
import { pruneLedger, type PrunePorts } from './prune.ts';
import { createTakeover, type TakeoverProgress } from './takeover.ts';
import type { EndValue } from './types.ts';

const hour = 3_600_000;
const serde = { decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) }) } as unknown as Serde;

/** A ledger of one end per hour, oldest first; `waiting` = hour of the first record that is not committed. */
function world(hours: number, options: { waiting?: number; lastGone?: boolean } = {}) {
  const records = Array.from({ length: hours }, (_, h): LogRecord => {
    const end: Partial<EndValue> = { key: `k${h}`, state: 'delivered', subject: 's', operation: 'put', acceptedAt: h * hour, at: h * hour, itemHash: 'h' };
    return { offset: h, timestamp: h * hour, key: Buffer.from(`k${h}#end`), value: Buffer.from(JSON.stringify(end)), headers: [] };
  });
  const told: TakeoverProgress[] = [];
  const reads: [number, number][] = [];
  const ledger = createLedgerStore(createDisk().open({ path: 'x' }), serde);
  const clock = { at: 0, monotonic: () => clock.at, setTimer: (run: () => void) => setImmediate(run) };
  const away: { times: number; code: ErrorCode } = { times: 0, code: 'log-deadline' };
  /** What a leader that was cut off shows, for so many questions. */
  const cutOff = { end: 0, times: 0 };
  const end = (): number => (cutOff.times-- > 0 ? Math.min(cutOff.end, records.length) : records.length);
  const takeover = createTakeover({
    ledger, clock, ledgerTopic: 'ledger', dispatchTopic: 'dispatch', windowMs: () => 7 * 24 * hour, progress: (p) => told.push(p), smallRecords: 50,
    admin: {
      endOffsets: async () => {
        if (away.times-- > 0) throw new WeirError(away.code);
        return new Map([[0, end()]]);
      },
      beginningOffsets: async () => new Map([[0, 0]]),
      offsetsAt: async (_topic, time) => {
        const found = records.find((r) => r.timestamp >= time);
        return new Map(found === undefined ? [] : [[0, found.offset]]);
      },
    },
    reader: {
      readOne: async (topic, _partition, offset) => (topic === 'ledger' ? (options.lastGone === true ? undefined : records[offset]) : options.waiting === undefined ? undefined : { ...records[0]!, timestamp: options.waiting * hour }),
      read: async (topic, partition, from, to, onBatch) => {
        reads.push([from, to]);
        const shown = Math.min(to, end());
        for (let at = from; at < shown; at += 20) await onBatch({ topic, partition, epoch: 0, records: records.slice(at, Math.min(shown, at + 20)).filter((r) => r !== undefined), nextOffset: Math.min(shown, at + 20), highWatermark: records.length });
      },
    },
  });
  return { takeover, ledger, reads, told, records, clock, away, cutOff };
}

test('without a cache, a take-over reads one dedupe window before the last sign of life, not the whole ledger', async () => {
  const { takeover, ledger, reads, told } = world(1000);
  await takeover.load(0, 5);
  expect(reads).toEqual([[999 - 168, 1000]]);
  expect(ledger.end('k999')).toBeDefined();
  expect(ledger.end('k100')).toBeUndefined();
  expect(told[0]).toEqual({ partition: 0, total: 169, read: 0 });
  expect(told.at(-1)).toEqual({ partition: 0, total: 169, read: 169 });
});

test('records that wait since long take the take-over back to a window before them', async () => {
  const { takeover, reads } = world(1000, { waiting: 400 });
  await takeover.load(0, 5);
  expect(reads).toEqual([[400 - 168, 1000]]);
});

test('an old record makes it read what it needs and no more, once, and the cache does not lose its place', async () => {
  const { takeover, ledger, reads } = world(1000);
  await takeover.load(0, 5);
  expect(takeover.reach(0, 900 * hour)).toBeUndefined();
  await Promise.all([takeover.reach(0, 500 * hour), takeover.reach(0, 600 * hour)]);
  expect(reads.slice(1)).toEqual([[500, 1000 - 168]]);
  expect(ledger.end('k500')).toBeDefined();
  expect(ledger.end('k499')).toBeUndefined();
  expect(ledger.position(0)).toBe(1000);
  expect(takeover.reach(0, 500 * hour)).toBeUndefined();
  await takeover.reach(0, -1);
  expect(ledger.end('k0')).toBeDefined();
  expect(takeover.reach(0, -1)).toBeUndefined();
});

test('a replay of old records reads its range once, however long it takes, and what it read goes an hour or two after its last record', async () => {
  const { takeover, ledger, reads, clock } = world(1000);
  await takeover.load(0, 5);
  const metrics = { cached: { set: () => undefined }, pruned: { inc: () => undefined } } as unknown as PrunePorts['metrics'];
  const sweep = (): void => { while (pruneLedger({ name: 'crm', ledger, takeover, oldestAsked: () => Number.POSITIVE_INFINITY, windowMs: () => 7 * 24 * hour, clock: { now: () => 999 * hour }, metrics })); };
  await takeover.reach(0, 500 * hour);
  for (let minute = 0; minute < 300; minute += 30) {
    clock.at = minute * 60_000;
    sweep();
    await takeover.reach(0, (500 + minute / 30) * hour);
  }
  expect(reads.slice(1)).toEqual([[500, 1000 - 168]]);
  clock.at += 2 * hour;
  sweep();
  expect(ledger.end('k600')).toBeUndefined();
  expect(ledger.end('k900')).toBeDefined();
  await takeover.reach(0, 700 * hour);
  expect(ledger.end('k700')).toBeDefined();
});

test('an end that was forgotten by the time that it states, and was written a while later, is read again: it does not lie between what is read and what is kept', async () => {
  const { takeover, ledger, records } = world(1000);
  // Ended at hour 850, on the topic ten minutes later.
  records[850] = { ...records[850]!, timestamp: 850 * hour + 600_000 };
  await takeover.load(0, 5);
  ledger.prune(850 * hour + 1, 10_000);
  expect([ledger.end('k850'), ledger.floor(0)]).toEqual([undefined, 850 * hour + 1]);
  await takeover.reach(0, 800 * hour);
  expect(ledger.end('k850')).toBeDefined();
});

test('who loses the partition does not read on, keeps no place that was not read to, and holds up nobody who asks next', async () => {
  const { takeover, ledger } = world(1000);
  await takeover.load(0, 5);
  let asked = 0;
  // Gone after some of it was read.
  const lost = takeover.reach(0, 500 * hour, () => asked++ > 4);
  const next = takeover.reach(0, 500 * hour);
  await expect(lost).rejects.toMatchObject({ code: 'log-assignment-stale' });
  await next;
  expect([ledger.end('k500'), ledger.end('k700'), ledger.floor(0)]).toEqual([expect.anything(), expect.anything(), 500 * hour]);
  await expect(takeover.reach(0, 100 * hour, () => true)).rejects.toMatchObject({ code: 'log-assignment-stale' });
  expect(ledger.floor(0)).toBe(500 * hour);
});

test('a small ledger, a cache that is nearly there, and a ledger whose newest record is gone are read without a question of time', async () => {
  const small = world(40);
  await small.takeover.load(0, 5);
  expect(small.reads).toEqual([[0, 40]]);
  const gone = world(1000, { lastGone: true });
  await gone.takeover.load(0, 5);
  expect(gone.reads).toEqual([[0, 1000]]);
  expect(gone.takeover.reach(0, 1)).toBeUndefined();
  const cached = world(1000);
  await cached.takeover.load(0, 5);
  const more = { ...cached.records[0]!, offset: 1000, timestamp: 1000 * hour };
  cached.records.push(more);
  await cached.takeover.load(0, 5);
  expect(cached.reads.at(-1)).toEqual([1000, 1001]);
});

test('an owner that looks for what it does not know waits for brokers that are away; one that has lost the partition meanwhile is told nothing', async () => {
  const around = world(30);
  await around.takeover.load(0, 5);
  const { takeover, ledger, records } = around;
  records.push({ ...records.at(-1)!, offset: records.length, key: Buffer.from('late#end'), value: Buffer.from(JSON.stringify({ key: 'late', state: 'delivered', subject: 's', operation: 'put', acceptedAt: hour, at: hour, itemHash: 'h' })) });
  around.away.times = 3;
  await takeover.catchUp(0, () => false);
  expect(ledger.end('late')).toBeDefined();
  around.away.times = Number.POSITIVE_INFINITY;
  let asked = 0;
  await takeover.catchUp(0, () => ++asked > 3);
  around.away.times = 1;
  around.away.code = 'log-out-of-range';
  await expect(takeover.catchUp(0, () => false)).rejects.toMatchObject({ code: 'log-out-of-range' });
});

const markOf = (offset: number, token: number, owner: string, timestamp: number): LogRecord => ({ offset, timestamp, key: Buffer.from(`#owner/0/${token}/${owner}`), value: Buffer.from(JSON.stringify({ token, owner })), headers: [] });
const goneTo = (offset: number, key: string, owner: string, timestamp: number): LogRecord => ({ offset, timestamp, key: Buffer.from(`${key}#end`), value: Buffer.from(JSON.stringify({ key, state: 'failed-over', effect: 'none', subject: 's', operation: 'put', acceptedAt: timestamp, at: timestamp, itemHash: 'h', owner })), headers: [] });

test('an owner that is shown an old end reads up to its own acknowledged mark all the same, and an older range up to where its cache began', async () => {
  const around = world(30);
  around.cutOff.end = 12;
  around.cutOff.times = 5;
  await around.takeover.load(0, 5, undefined, 30);
  expect([around.ledger.position(0), around.ledger.end('k29')]).toEqual([30, expect.anything()]);
  const { takeover, ledger, cutOff } = world(1000);
  await takeover.load(0, 5);
  cutOff.end = 600;
  cutOff.times = 5;
  await takeover.reach(0, 500 * hour);
  expect([ledger.end('k500'), ledger.end('k831')]).toEqual([expect.anything(), expect.anything()]);
});

test('who loses the partition while it is shown an old end waits for nothing', async () => {
  const { takeover, cutOff } = world(30);
  cutOff.end = 12;
  cutOff.times = Number.POSITIVE_INFINITY;
  let asked = 0;
  await expect(takeover.load(0, 5, () => asked++ > 5, 30)).rejects.toMatchObject({ code: 'log-assignment-stale' });
});

test('without a cache an end that was given over by an owner of before does not count, though the mark behind which it was written lies before all that is asked for', async () => {
  const { takeover, ledger, records } = world(1000);
  const start = (999 - 168) * hour;
  records[829] = markOf(829, 830, 'b', start - 600_000);
  records[830] = markOf(830, 700, 'a', start - 300_000);
  records[831] = goneTo(831, 'late', 'a', start + 1000);
  records[832] = goneTo(832, 'mine', 'b', start + 2000);
  await takeover.load(0, 5);
  expect([ledger.owner(0)?.owner, ledger.end('late'), ledger.end('mine')]).toEqual(['b', undefined, expect.anything()]);
  // The same for a range that is read later.
  records[329] = markOf(329, 330, 'b', 330 * hour - 600_000);
  records[330] = goneTo(330, 'late', 'a', 330 * hour + 1000);
  records[331] = goneTo(331, 'mine before', 'b', 331 * hour);
  await takeover.reach(0, 330 * hour);
  expect([ledger.end('late'), ledger.end('mine before')]).toEqual([undefined, expect.anything()]);
});

test('without a cache a mark that was written late makes nobody the owner over one that was passed over', async () => {
  const { takeover, ledger, records } = world(1000);
  records[500] = markOf(500, 501, 'b', 500 * hour);
  records[900] = markOf(900, 400, 'a', 900 * hour);
  records[901] = goneTo(901, 'mine', 'b', 901 * hour);
  await takeover.load(0, 5);
  expect(ledger.end('mine')).toBeDefined();
});

test('a ledger topic that was made anew is read from its beginning, also when it is longer than the one before; its tokens do not go on from that one', async () => {
  const { takeover, ledger, records, reads } = world(40);
  await takeover.load(0, 5);
  // As long as before, and longer: another record stands where the last one was read.
  for (const [i, record] of records.entries()) records[i] = { ...record, timestamp: record.timestamp + 1, key: Buffer.from(`new${i}#end`) };
  records.push({ ...records[0]!, offset: 40, timestamp: 41 * hour, key: Buffer.from('new40#end') });
  await takeover.load(0, 5);
  expect([reads.at(-1), ledger.end('new3')]).toEqual([[0, 41], expect.anything()]);
  records.length = 0;
  await takeover.load(0, 5);
  expect([ledger.position(0), ledger.owner(0)?.token ?? 0]).toEqual([0, 0]);
});

test.each([
  ['another record', (i: number): LogRecord => ({ offset: i, timestamp: (50 + i) * hour, key: Buffer.from(`new${i}#attempt/1`), value: null, headers: [] })],
  ['another mark', (i: number): LogRecord => markOf(i, i + 1, 'b', (50 + i) * hour)],
  ['nothing', (i: number): LogRecord | undefined => (i === 10 ? undefined : markOf(i, 1, 'b', (50 + i) * hour))],
] as const)('a ledger topic that was made anew and has a hole where the last record was read is told by the mark, where %s stands now; one that was compacted there is read on', async (_what, anew) => {
  const { takeover, ledger, records, reads } = world(40);
  records[10] = markOf(10, 5, 'a', 10 * hour);
  await takeover.load(0, 5);
  const nothing = undefined as unknown as LogRecord;
  records[39] = nothing;
  records.push({ ...records[0]!, offset: 40, timestamp: 41 * hour, key: Buffer.from('more40#end') });
  await takeover.load(0, 5);
  expect([reads.at(-1), ledger.owner(0)?.owner]).toEqual([[40, 41], 'a']);
  for (let i = 0; i < 45; i++) records[i] = anew(i) ?? nothing;
  records[40] = nothing;
  await takeover.load(0, 5);
  expect(reads.at(-1)).toEqual([0, 45]);
});
