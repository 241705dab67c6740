import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSerde, type OutRecord, type Serde } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { openTable, type Table } from '@weir/state';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLane, type Lane } from './lane.ts';
import { createLedgerStore, type LedgerStore, type ParkMark } from './ledger-store.ts';
import { joinMarks } from './park-load.ts';
import { createParking, type Parking } from './parking.ts';
import type { DestinationPorts } from './ports.ts';
import type { ParkValue } from './types.ts';

const topics = topicNames('t');
let dir: string;
let table: Table;
let parkedTable: Table;
let serde: Serde;
let ledger: LedgerStore;
let written: { key: string; value: Buffer | null }[];
/** The gauge of parked subjects. */
let counted: number;
beforeEach(async () => {
  const known: string[] = [];
  const registry = { register: (schema: { schema: string }) => Promise.resolve({ id: known.push(schema.schema) }), getSchema: (id: number) => Promise.resolve(JSON.parse(known[id - 1]!) as unknown) };
  serde = createSerde({ registryUrl: '', registry: registry as never });
  await serde.start();
  dir = mkdtempSync(join(tmpdir(), 'weir-parking-'));
  table = openTable({ path: join(dir, 'ledger') });
  parkedTable = openTable({ path: join(dir, 'parked') });
  ledger = createLedgerStore(table, serde);
  written = [];
  counted = 0;
});
const opened: Parking[] = [];
afterEach(async () => {
  for (const parking of opened.splice(0)) await parking.drained();
  await Promise.all([table.close(), parkedTable.close()]);
  rmSync(dir, { recursive: true, force: true });
});

const value: ParkValue = { subject: 'anna', fromOffset: 7, due: 1e15, reason: 'http-5xx', attempts: 3, maybeSince: 0, since: 10 };
const apply = (entries: readonly { key: string; value: Buffer | null }[]): void => ledger.apply(0, entries.map((e, i) => ({ ...e, offset: i })), 0);
const foreign = (key: string): { key: string; value: Buffer } => ({ key, value: serde.encode('weir.internal.LedgerPark', value) });

type Lanes = Map<string, Lane> & { readonly parking: Parking; laneOf(subject: string): Lane };

/** Parking of a new owner, over the ledger as it stands; what it appends to the ledger is in `written`. Lanes are in the map while somebody has them in hand. */
async function takeOver(epoch = 1, acknowledged: Promise<boolean> = Promise.resolve(true), { now = 1000, clock = (): number => now, parkedMs = Number.POSITIVE_INFINITY, parkedAt = 0, setTimer = (_f: () => void, _ms: number): unknown => undefined, offer = (_lane: Lane): void => undefined, shows = (): boolean => true, dispatched = '' } = {}): Promise<Lanes> {
  const lanes: Map<string, Lane> = new Map();
  const ports = {
    name: 'crm', topics, serde: { ...serde, known: () => true, decode: (bytes: Buffer) => ({ ...serde.decode(bytes), name: 'weir.internal.Delivery' }) }, ledger, instance: '1', fail: (error: unknown) => { throw error; },
    parkedTable, window: () => ({ records: 500, bytes: 1e6, heads: 10 }), turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true },
    clock: { now: clock, monotonic: clock, random: Math.random, setTimer, clearTimer: () => undefined },
    metrics: { parked: { inc: () => { counted++; }, dec: (_labels: object, n = 1) => { counted -= n; } } },
    retention: { parkedMs: () => parkedMs }, dedupeWindowMs: () => 7 * 86_400_000,
    admin: { beginningOffsets: () => Promise.resolve(new Map([[0, 0]])) },
    reader: { read: (_topic: string, _partition: number, _from: number, _to: number, take: (batch: object) => Promise<void>) => !shows() ? Promise.resolve() : take({ records: [{ offset: 7, timestamp: parkedAt, key: Buffer.from('anna'), value: foreign('').value, headers: dispatched === '' ? [] : [[H.dispatched, Buffer.from(dispatched)]] }], nextOffset: 8 }) },
    appender: { append: (_topic: string, records: readonly OutRecord[]) => Promise.resolve(records.map((r) => (r.key === null ? 8 : written.push({ key: r.key.toString(), value: r.value }) - 1))) },
  } as unknown as DestinationPorts;
  function laneOf(subject: string): Lane {
    const lane = lanes.get(subject) ?? parking.rouse(subject) ?? createLane(subject);
    lanes.set(subject, lane);
    return lane;
  }
  const parking: Parking = createParking({
    ports, laneOf, forget: (lane) => { lanes.delete(lane.subject); }, partition: 0, epoch, createTask: (_delivery, record, offset, parkedOffset) => ({ delivery: { outputId: 'out', destination: 'crm', operation: 'upsert', kind: 'use', intent: '' }, record, redrive: '', offset, parkedOffset, attempts: 0, readBacks: 0, last: undefined, maybeSince: 0 }) as never, finished: () => undefined, endOf: () => undefined, reach: () => undefined, offer, hurry: () => undefined, end: () => undefined, written: () => acknowledged,
    applyLedger: (records, keys) => apply(records.map((r, i) => ({ key: keys[i]!, value: r.value }))),
  });
  opened.push(parking);
  await parking.load();
  return Object.assign(lanes, { parking, laneOf });
}

test('a tombstone that an earlier owner writes late hides no marker of its successor', async () => {
  apply([foreign('#park/1/1/abc/0/anna')]);
  expect((await takeOver()).laneOf('anna').parked).toBeDefined();
  // The earlier owner was stopped just before it lifted its marker, and goes on now.
  apply([{ key: '#park/1/1/abc/0/anna', value: null }]);
  expect(ledger.parks(0).map((m) => m.subject)).toEqual(['anna']);
});

test('an instance that is back under the same name and epoch is another owner', async () => {
  await takeOver();
  apply([foreign('#park/anna')]);
  await takeOver();
  const [first] = ledger.parks(0);
  await takeOver();
  expect(ledger.parks(0).map((m) => m.key)).not.toContain(first!.key);
  expect(ledger.parks(0)).toHaveLength(1);
});

test('a marker of the version before is taken over and ended', async () => {
  apply([foreign('#park/anna')]);
  await takeOver();
  expect(written.map((w) => [w.key, w.value === null])).toEqual([[expect.stringMatching(/^#park\/1\/1\/\w+\/0\/anna$/), false], ['#park/anna', true]]);
});

test('markers of several owners: everything from the least offset may be unfinished, the head is that of the furthest', () => {
  const mark = (over: Partial<ParkMark>): ParkMark => ({ ...value, key: '', ...over });
  expect(joinMarks([mark({ fromOffset: 7, attempts: 3, maybeSince: 50 }), mark({ fromOffset: 9, attempts: 1, due: 20 })])).toMatchObject({ fromOffset: 7, attempts: 1, due: 20, maybeSince: 0 });
  expect(joinMarks([mark({ maybeSince: 50 }), mark({ maybeSince: 0 })]).maybeSince).toBe(50);
  // What one tells that left in order counts less than what was told without that, of the same head, and less than that more was called.
  const left = [mark({ restrictCalledSince: 0, due: 30 }), mark({ restrictCalledSince: 9, due: 20 })];
  for (const marks of [left, left.toReversed()]) expect(joinMarks(marks).restrictCalledSince).toBe(9);
  for (const marks of [[...left, mark({ due: 10 })], [mark({ due: 10 }), joinMarks(left)]]) expect([joinMarks(marks).restrictCalledSince ?? -1, joinMarks(marks).due]).toEqual([-1, 10]);
  expect(joinMarks([mark({ fromOffset: 9, restrictCalledSince: 0 }), mark({ fromOffset: 7 })]).restrictCalledSince).toBe(-1);
});

// Simulation seed 887: five parked deliveries ended, their marker was gone, and the process died before the ends were written.
test.each([true, false])('a marker stands until the ends of what was parked are acknowledged (still the owner: %s)', async (mine) => {
  const ends = Promise.withResolvers<boolean>();
  apply([foreign('#park/1/1/abc/0/anna')]);
  const lanes = await takeOver(1, ends.promise);
  const lane = lanes.laneOf('anna');
  lanes.parking.headEnded(lane, { delivery: { kind: 'use' } } as never);
  lanes.parking.next(lane);
  await new Promise((turn) => { setImmediate(turn); });
  expect(ledger.parks(0)).toHaveLength(1);
  ends.resolve(mine);
  await lanes.parking.drained();
  expect(ledger.parks(0)).toHaveLength(mine ? 0 : 1);
});

// Simulation seed 204: the next owner made the call of the delivery before once more, behind what was parked here.
test.each([true, false])('no marker stands before the ends of what went before it in its lane are acknowledged (still the owner: %s)', async (mine) => {
  const ends = Promise.withResolvers<boolean>();
  const lanes = await takeOver(1, ends.promise);
  const lane = createLane('bob');
  lane.queue.push({ delivery: { kind: 'use' }, record: { key: Buffer.from('bob'), value: Buffer.from('v'), headers: [] }, subject: 'bob', offset: 9, parkedOffset: -1, attempts: 3, readBacks: 0, maybeSince: 0 } as never);
  lanes.parking.park(lane, 1e15, 'http-5xx');
  await new Promise((turn) => { setImmediate(turn); });
  expect(ledger.parks(0)).toEqual([]);
  ends.resolve(mine);
  await lanes.parking.drained();
  expect(ledger.parks(0).map((m) => m.subject)).toEqual(mine ? ['bob'] : []);
});

test('a parked record that is acknowledged and not shown, by a leader that was cut off, is waited for, and not said to be lost', async () => {
  apply([{ key: '#park/1/1/abc/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, due: 500 }) }]);
  let questions = 0;
  const offered: Lane[] = [];
  const lanes = await takeOver(1, undefined, { setTimer: (run) => setImmediate(run), shows: () => ![1, 2, 3].includes(questions++), offer: (lane) => { offered.push(lane); } });
  await lanes.parking.drained();
  expect([offered.map((lane) => lane.subject), questions]).toEqual([['anna'], 5]);
});

test('a partition that goes while a parked record is not shown leaves it to the next owner: nothing is said to be lost, and the process goes on', async () => {
  apply([{ key: '#park/1/1/abc/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, due: 500 }) }]);
  let questions = 0;
  const lanes = await takeOver(1, undefined, { setTimer: (run) => setImmediate(run), shows: () => {
    if (++questions === 4) lanes.parking.close();
    return questions === 1;
  } });
  await lanes.parking.drained();
  expect([ledger.parks(0).map((m) => m.subject), questions]).toEqual([['anna'], 4]);
});

test('what is parked and due, and was not called, is not taken for called by the owner after a rebalance; what may have taken effect is', async () => {
  for (const maybeSince of [0, 400]) {
    apply([...ledger.parks(0).map((m) => ({ key: m.key, value: null })), { key: '#park/1/1/abc/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, due: 5000 }) }]);
    // It is due in a moment, waits in line for a call then, and is not called: the destination is off.
    const lanes = await takeOver();
    const lane = lanes.laneOf('anna');
    lane.queue.push({ parkedOffset: 7, attempts: 3, maybeSince } as never);
    lanes.parking.close();
    apply([...lanes.parking.forNext(lanes.values())].flat());
    expect((await takeOver(2, undefined, { now: 10_000 })).laneOf('anna').parked!.uses.maybeSince).toBe(maybeSince === 0 ? 0 : 5000);
  }
});

test('that the vendor has answered "not applied", since when calls fail, and in how small a batch it goes, is known of a parked head as long as its owner has it, also while it sleeps; the next owner asks again', async () => {
  apply([{ key: '#park/1/1/abc/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, due: 500 }) }]);
  const offered: Lane[] = [];
  const lanes = await takeOver(1, undefined, { offer: (lane) => offered.push(lane) });
  await lanes.parking.drained();
  const trouble = { since: 100, at: 200 };
  Object.assign(offered[0]!.queue[0]!, { attempts: 1, readBacks: 1, notApplied: true, trouble, batchLimit: 4 });
  lanes.parking.park(offered[0]!, 500, 'http-5xx');
  await lanes.parking.drained();
  expect(offered[1]!.queue.map((task) => [task.readBacks, task.notApplied, task.trouble, task.batchLimit])).toEqual([[1, true, trouble, 4]]);
  lanes.parking.park(offered[1]!, 1e15, 'http-5xx');
  await lanes.parking.drained();
  expect(lanes.get('anna')).toBeUndefined();
  expect(lanes.laneOf('anna').parked!.uses).toMatchObject({ readBacks: 1, notApplied: true, trouble, batchLimit: 4 });
  expect((await takeOver(2)).laneOf('anna').parked!.uses).toMatchObject({ readBacks: 0, notApplied: false });
});

test('what is parked while the partition goes is in the log and no longer in the gauge of who leaves', async () => {
  apply([foreign('#park/1/1/abc/0/anna')]);
  const { parking } = await takeOver();
  expect(counted).toBe(1);
  parking.close();
  const lane = createLane('bob');
  lane.queue.push({ delivery: { kind: 'use' }, record: { key: Buffer.from('bob'), value: Buffer.from('v'), headers: [] }, subject: 'bob', offset: 9, parkedOffset: -1, attempts: 3, readBacks: 0, maybeSince: 0 } as never);
  parking.park(lane, 1e15, 'http-5xx');
  await parking.drained();
  expect([ledger.parks(0).map((m) => m.subject).toSorted(), counted]).toEqual([['anna', 'bob'], 0]);
});

const dayMs = 86_400_000;

/** A subject that has been parked without a break for 28 days, with one record that waits since a day and is due in an hour. */
async function longStay(parkedAt: number) {
  const now = 100 * dayMs;
  const timers: number[] = [];
  const offered: Lane[] = [];
  apply([{ key: '#park/1/1/abc/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, due: now + 3_600_000, since: now - 28 * dayMs }) }]);
  const lanes = await takeOver(1, undefined, { now, parkedMs: 30 * dayMs, parkedAt, setTimer: (_f, ms) => timers.push(ms), offer: (lane) => offered.push(lane) });
  await lanes.parking.drained();
  return { now, timers, offered, laneOf: lanes.laneOf, parking: lanes.parking };
}

test('a record that waits behind others for a day is not tried before it is due because its subject is parked for a month', async () => {
  const { now, timers, offered, laneOf, parking } = await longStay(100 * dayMs - dayMs);
  expect(offered).toHaveLength(0);
  expect(timers).toEqual([3_600_000]);
  expect(parking.oldest()).toBe(now - dayMs);
  expect(laneOf('anna').busy).toBe(true);
});

test('a head that is parked again waits out its back-off, and its marker tells its own age to the next owner', async () => {
  const { now, timers, offered, laneOf, parking } = await longStay(100 * dayMs - dayMs);
  const lane = laneOf('anna');
  lane.parked!.uses.due = now;
  parking.next(lane);
  await parking.drained();
  expect(offered).toHaveLength(1);
  parking.park(lane, now + 60_000, 'http-5xx');
  await parking.drained();
  expect(offered).toHaveLength(1);
  expect(timers.at(-1)).toBe(60_000);
  expect(ledger.parks(0)[0]).toMatchObject({ since: now - dayMs, due: now + 60_000 });
});

test('a record that has itself waited for nine tenths of the retention is looked at before it is due', async () => {
  const { timers, offered } = await longStay(100 * dayMs - 27 * dayMs);
  expect(timers).toEqual([]);
  expect(offered).toHaveLength(1);
});

test('what its owner may have called is taken for called by the next one, whose clock is behind', async () => {
  const marker = (due: number) => ({ key: '#park/a/1/x/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, due, reason: 'due', restrictCalledSince: -1 }) });
  apply([marker(23_744)]);
  const next = await takeOver(2, undefined, { now: 9587 });
  await next.parking.drained();
  const { parked, queue: [head] } = next.laneOf('anna');
  expect([parked!.uses.due, head!.maybeSince]).toEqual([9587, 9587]);
});

test('before a head that waited is called its marker is replaced by one that says so: the next owner need not ask its own clock', async () => {
  const offered: Lane[] = [];
  let now = 1000;
  const lanes = await takeOver(1, undefined, { clock: () => now, offer: (lane) => offered.push(lane) });
  const lane = createLane('anna');
  lane.queue.push({ delivery: { kind: 'use' }, record: { key: Buffer.from('anna'), value: Buffer.from('v'), headers: [] }, subject: 'anna', offset: 9, parkedOffset: -1, attempts: 2, readBacks: 0, maybeSince: 0 } as never);
  lanes.parking.park(lane, 5000, 'http-5xx');
  await lanes.parking.drained();
  const marks = (): (ParkValue & { readonly key: string })[] => ledger.parks(0);
  expect(marks()).toMatchObject([{ due: 5000, attempts: 2, reason: 'http-5xx' }]);
  const [{ key: waiting }] = marks() as [ParkValue & { readonly key: string }];
  apply([{ key: waiting, value: serde.encode('weir.internal.LedgerPark', { ...marks()[0]!, fromOffset: 7 }) }]);
  expect((await takeOver(2, undefined, { now: 4000 })).laneOf('anna').parked!.uses.maybeSince).toBe(0);
  // The owner of before comes to its time.
  now = 6000;
  lane.parked!.uses.offsets[0] = 7;
  lanes.parking.next(lane);
  await lanes.parking.drained();
  expect(offered).toHaveLength(1);
  expect(written.filter((w) => w.key.startsWith('#park') && w.value !== null).map((w) => serde.decode(w.value!).value as ParkValue).at(-1)).toMatchObject({ due: 5000, reason: 'due' });
  // It failed, and waits again.
  lanes.parking.park(lane, 60_000, 'http-5xx');
  await lanes.parking.drained();
  expect(written.filter((w) => w.key.startsWith('#park') && w.value !== null).map((w) => serde.decode(w.value!).value as ParkValue).at(-1)).toMatchObject({ due: 60_000, reason: 'http-5xx' });
});

test('of a delivery behind one that has ended its own record knows since when it may have been called, and no attempt of the other is its own', async () => {
  apply([{ key: '#park/a/1/x/0/anna', value: serde.encode('weir.internal.LedgerPark', { ...value, fromOffset: 5, due: 9000, reason: 'due', restrictCalledSince: -1 }) }]);
  const next = await takeOver(2, undefined, { now: 9587, dispatched: '9:0:400:' });
  await next.parking.drained();
  const [head] = next.laneOf('anna').queue;
  expect([head!.maybeSince, head!.attempts]).toEqual([400, 0]);
});

test.each([true, false])('a marker tells of less than the one before when what it leaves out has its end in the ledger, and not sooner (still the owner: %s)', async (mine) => {
  const offered: Lane[] = [];
  const ends = Promise.withResolvers<boolean>();
  apply([foreign('#park/a/1/x/0/anna')]);
  const { parking, laneOf } = await takeOver(1, ends.promise, { offer: (lane) => offered.push(lane) });
  const lane = laneOf('anna');
  Object.assign(lane.parked!, { markedFrom: 5 });
  lane.parked!.uses.due = 0;
  const before = written.length;
  parking.next(lane);
  await new Promise((turn) => { setImmediate(turn); });
  expect([offered.length, written.length]).toEqual([0, before]);
  ends.resolve(mine);
  await parking.drained();
  expect([offered.length, written.length > before]).toEqual(mine ? [1, true] : [0, false]);
});

test('what waits for a quota is not taken for called by the owner after a crash, however long it has been due; once it may be called it is', async () => {
  const offered: Lane[] = [];
  const lanes = await takeOver(1, undefined, { offer: (lane) => offered.push(lane) });
  const lane = createLane('anna');
  lane.queue.push({ delivery: { kind: 'use' }, record: { key: Buffer.from('anna'), value: Buffer.from('v'), headers: [] }, subject: 'anna', offset: 9, parkedOffset: -1, attempts: 0, readBacks: 0, maybeSince: 0 } as never);
  lanes.parking.park(lane, 5000, 'quota:upsert');
  await lanes.parking.drained();
  // What it wrote says where the record is; the topic of this test has it at 7.
  const asOn = (): void => apply(ledger.parks(0).map((m) => ({ key: m.key, value: serde.encode('weir.internal.LedgerPark', { ...m, fromOffset: 7 }) })));
  asOn();
  const before = written.length;
  const next = await takeOver(2, undefined, { now: 10_000, offer: (lane) => offered.push(lane) });
  await next.parking.drained();
  expect(offered.map((l) => l.queue[0]!.maybeSince)).toEqual([0]);
  const own = written.slice(before).filter((w) => w.value !== null).map((w) => ({ key: w.key, value: serde.decode(w.value!).value as ParkValue }));
  expect(own.map((m) => [m.value.reason, m.value.maybeSince])).toEqual([['quota:upsert', 0], ['due', 0]]);
  // Another key: the marker from before, written late by a request that was given up, does not speak for it.
  expect(ledger.parks(0).map((m) => m.key)).toEqual([own[1]!.key]);
  apply([{ key: own[0]!.key, value: serde.encode('weir.internal.LedgerPark', own[0]!.value) }]);
  const third = await takeOver(3, undefined, { now: 20_000 });
  expect(third.laneOf('anna').parked!.uses.maybeSince).toBe(5000);
});
