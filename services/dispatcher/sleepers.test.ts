import { deliveryKey } from '@weir/pipeline';
import fc from 'fast-check';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createLane, createParked, type Lane } from './lane.ts';
import { createLedgerStore } from './ledger-store.ts';
import { loadParked } from './park-load.ts';
import { createParking, type Parking } from './parking.ts';
import type { DestinationPorts } from './ports.ts';
import { createSleepers } from './sleepers.ts';
import type { EndValue, Task } from './types.ts';

interface Item { readonly n: number; readonly subject: string; readonly kind: 'use' | 'restrict'; readonly notBefore: number }

const heads = 2;
const dayMs = 86_400_000;

/** People over real parking, ledger and tables; the topic is a list, the clock is turned by hand, and a call takes effect at once while the destination is on. */
function createWorld() {
  const disk = createDisk();
  const tables = { ledger: disk.open({ path: 'ledger' }), parked: disk.open({ path: 'parked' }) };
  const serde = { known: () => true, encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)), decode: (bytes: Buffer) => ({ name: 'weir.internal.Delivery', value: JSON.parse(bytes.toString()) as unknown }) };
  const ledger = createLedgerStore(tables.ledger, serde as never);
  const log: { offset: number; timestamp: number; key: Buffer; value: Buffer; headers: [string, Buffer][] }[] = [];
  const ends = new Map<string, EndValue>();
  const items: Item[] = [];
  const sent: number[] = [];
  /** Read from the dispatch topic and not finished. */
  const open = new Map<number, Item>();
  const clock = createHandClock(1000, Math.random);
  let gauge = 0;
  const state = { on: true, renewals: 0, shown: 0, oldFor: 0 };
  /** Of a leader that was cut off: an old end, for so many questions. */
  const shown = (): number => (state.oldFor-- > 0 ? Math.min(state.shown, log.length) : log.length);
  const ports = {
    name: 'crm', topics: { parked: () => 'parked', ledger: () => 'ledger' }, instance: '1', clock, ledger, parkedTable: tables.parked, serde, fail: (error: unknown) => { throw error; },
    window: () => ({ records: 500, bytes: 1e6, heads }), turns: { next: () => Promise.resolve(), over: () => true }, keys: undefined,
    metrics: { parked: { inc: () => { gauge++; }, dec: (_labels: object, n = 1) => { gauge -= n; } } }, retention: { parkedMs: () => 30 * dayMs }, dedupeWindowMs: () => 7 * dayMs,
    consent: { atLeast: () => true, allows: () => ({ ok: true }) },
    admin: { endOffsets: () => Promise.resolve(new Map([[0, shown()]])) },
    reader: { read: async (_topic: string, _partition: number, from: number, to: number, take: (batch: object) => unknown) => {
      const end = Math.min(to, shown());
      if (from < end) await take({ records: log.slice(from, end), nextOffset: end });
    } },
    appender: { append: (topic: string, list: readonly { key: Buffer; value: Buffer; headers: [string, Buffer][] }[]) => Promise.resolve(list.map((r) => (topic === 'ledger' ? state.renewals++ : log.push({ offset: log.length, timestamp: clock.at, key: r.key, value: r.value, headers: r.headers }) - 1))) },
  } as unknown as DestinationPorts;

  function taskOf(item: Item, offset: number, parkedOffset: number, timestamp: number): Task {
    const delivery = { ...item, outputId: `o${item.n}`, destination: 'crm', operation: item.kind, channel: null, topic: null, ids: [], purpose: 'service', legalBasis: null, intent: '0', itemHash: 'h', consentOffsets: [], identityOffsets: [], recordType: 'weir.canonical.Profile', payload: Buffer.alloc(0), acceptedAt: item.n };
    return { delivery, offset, parkedOffset, queuedAt: 0, subject: item.subject, redrive: '', record: { offset: parkedOffset, key: Buffer.from(item.subject), value: Buffer.from(JSON.stringify(delivery)), headers: [], timestamp }, sealedBy: '', key: '', generation: 0, attempts: 0, maybeSince: 0, readBacks: 0, path: '', ahead: '', last: undefined } as never;
  }
  const keyOf = (item: Item): string => deliveryKey(`o${item.n}`, 'crm', item.kind, '0', 0);

  function createOwner(epoch: number) {
    const lanes = new Map<string, Lane>();
    const ready: Lane[] = [];
    const laneOf = (subject: string): Lane => {
      const lane = lanes.get(subject) ?? parking.rouse(subject) ?? createLane(subject);
      lanes.set(subject, lane);
      return lane;
    };
    function offer(lane: Lane): void {
      if (lane.busy || lane.dead || lane.queue.length === 0) return;
      lane.busy = true;
      ready.push(lane);
    }
    const parking: Parking = createParking({
      ports, partition: 0, epoch, laneOf, forget: (lane) => { lanes.delete(lane.subject); }, offer, hurry: () => undefined,
      createTask: (delivery, record, offset, parkedOffset) => taskOf(delivery as unknown as Item, offset, parkedOffset, record.timestamp),
      finished(tasks) { for (const task of tasks) if (task.parkedOffset < 0) open.delete(task.offset); },
      applyLedger: (records, keys) => ledger.apply(0, records.map((r, i) => ({ key: keys[i]!, value: r.value, offset: 0 })), 0),
      endOf: (key) => ends.get(key), reach: () => undefined, written: () => Promise.resolve(true), end: () => undefined,
    });
    function call(lane: Lane): void {
      const head = lane.queue[0]!;
      const item = head.delivery as unknown as Item;
      if (item.notBefore > clock.at) return parking.park(lane, item.notBefore, 'delay-until');
      if (!ends.has(keyOf(item))) sent.push(item.n);
      ends.set(keyOf(item), { state: 'delivered', itemHash: 'h', effect: 'done', offset: head.offset } as EndValue);
      if (head.parkedOffset < 0) open.delete(head.offset);
      lane.queue.shift();
      if (head.parkedOffset >= 0) parking.headEnded(lane, head);
      lane.busy = false;
      if (lane.queue.length > 0) offer(lane);
      else if (lane.parked !== undefined) parking.next(lane);
      else lanes.delete(lane.subject);
    }
    return {
      parking, lanes, laneOf,
      callAll(): boolean {
        if (!state.on || ready.length === 0) return false;
        for (const lane of ready.splice(0)) if (!lane.dead) call(lane);
        return true;
      },
      enqueue(item: Item): void {
        const lane = laneOf(item.subject);
        const task = taskOf(item, item.n, -1, clock.at);
        if (lane.parked !== undefined) return parking.behind(lane, task);
        lane.queue.push(task);
        offer(lane);
      },
    };
  }

  let owner = createOwner(1);
  let epoch = 1;
  let loaded = owner.parking.load();
  async function quiet(): Promise<void> {
    await loaded;
    do {
      await owner.parking.drained();
      await new Promise((resolve) => { setImmediate(resolve); });
      await owner.parking.drained();
    } while (owner.callAll());
  }
  return {
    items, sent, state, clock, quiet,
    get owner() { return owner; },
    gauge: () => gauge,
    /** The topic is deleted and made anew. */
    forgetParked: () => { log.length = 0; },
    /** Subjects with something on the parked topic that has not ended. */
    waiting: () => new Set(log.filter((r) => r.key !== null).map((r) => JSON.parse(r.value.toString()) as Item).filter((item) => !ends.has(keyOf(item))).map((item) => item.subject)),
    arrive(subject: string, kind: Item['kind'], waitMs: number): void {
      const item = { n: items.length, subject, kind, notBefore: kind === 'use' && waitMs > 0 ? clock.at + waitMs : 0 };
      items.push(item);
      open.set(item.n, item);
      owner.enqueue(item);
    },
    async pass(ms: number): Promise<void> {
      for (const _ of clock.turn(ms)) await quiet();
      owner.parking.renew();
      await quiet();
    },
    /** The partition goes and another owner takes it over, from what is on the topics. */
    async restart(): Promise<void> {
      await quiet();
      owner.parking.close();
      for (const lane of owner.lanes.values()) lane.dead = true;
      expect(gauge).toBe(0);
      owner = createOwner(++epoch);
      loaded = owner.parking.load();
      await loaded;
      for (const item of [...open.values()].sort((a, b) => a.n - b.n)) owner.enqueue(item);
      await quiet();
    },
  };
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('arrive' as const), subject: fc.constantFrom('anna', 'bob', 'carla', 'dan', 'eva', 'finn', 'gus'), kind: fc.constantFrom('use' as const, 'use' as const, 'use' as const, 'restrict' as const), waitMs: fc.constantFrom(0, 50, 1000, 5 * dayMs) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(10, 60, 2000, 4 * dayMs) }) },
  { weight: 1, arbitrary: fc.constantFrom({ do: 'off' as const }, { do: 'on' as const }, { do: 'restart' as const }) },
);

test('whoever waits, comes, sleeps and is taken over: each once and when it is due, in order, counted, and no more in memory than have a head in hand', () => fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
  const world = createWorld();
  const { items, sent, state } = world;
  async function look(): Promise<void> {
    await world.quiet();
    const waiting = world.waiting();
    expect(world.owner.parking.count()).toBe(waiting.size);
    expect(world.gauge()).toBe(waiting.size);
    const inMemory = [...world.owner.lanes.values()].filter((lane) => lane.parked !== undefined);
    expect(inMemory.length).toBeLessThanOrEqual(3 * heads);
    expect(world.owner.parking.oldest() === undefined).toBe(waiting.size === 0);
    if (state.on) for (const item of items) if (item.kind === 'restrict' || item.notBefore === 0 && !items.some((o) => o.subject === item.subject && o.n < item.n && o.notBefore > world.clock.at)) expect(sent).toContain(item.n);
  }
  for (const one of steps) {
    if (one.do === 'arrive') world.arrive(one.subject, one.kind, one.waitMs);
    else if (one.do === 'pass') await world.pass(one.ms);
    else if (one.do === 'restart') await world.restart();
    else {
      state.on = one.do === 'on';
    }
    if (one.do !== 'arrive' || one.waitMs === 50) await look();
    for (const n of sent) expect(items[n]!.notBefore).toBeLessThanOrEqual(world.clock.at);
  }
  state.on = true;
  await world.pass(6 * dayMs);
  await look();
  expect(sent.toSorted((a, b) => a - b)).toEqual(items.map(({ n }) => n));
  expect(world.owner.parking.count()).toBe(0);
  expect(world.owner.lanes.size).toBe(0);
  for (const subject of new Set(items.map((i) => i.subject))) for (const kind of ['use', 'restrict']) {
    const order = sent.filter((n) => items[n]!.subject === subject && items[n]!.kind === kind);
    expect(order).toEqual(order.toSorted((a, b) => a - b));
  }
}), { numRuns: 150 }), 60_000);

test('while the destination is off, of all who are due only so many are in memory as may have a head in hand, what restricts is not behind uses, and all go when it is on again', async () => {
  const world = createWorld();
  for (let i = 0; i < 40; i++) world.arrive(`s${i}`, 'use', 1000);
  await world.quiet();
  expect(world.owner.lanes.size).toBe(0);
  world.state.on = false;
  await world.pass(2000);
  expect(world.owner.lanes.size).toBe(heads);
  for (let i = 0; i < 20; i++) world.arrive(`s${i}`, 'restrict', 0);
  await world.quiet();
  expect(world.owner.lanes.size).toBeLessThanOrEqual(2 * heads);
  expect(world.owner.parking.count()).toBe(40);
  world.state.on = true;
  await world.quiet();
  expect(world.sent).toHaveLength(60);
  expect([world.owner.parking.count(), world.gauge(), world.owner.lanes.size]).toEqual([0, 0, 0]);
});

test('markers of those who sleep are written again before a take-over would not look for them, some at a time, and nobody stays in memory for it', async () => {
  const world = createWorld();
  for (let i = 0; i < 1200; i++) world.arrive(`s${i}`, 'use', 20 * dayMs);
  await world.quiet();
  const before = world.state.renewals;
  await world.pass(3 * dayMs);
  expect(world.state.renewals).toBe(before);
  await world.pass(dayMs);
  expect(world.state.renewals).toBe(before + 500);
  for (let i = 0; i < 3; i++) await world.pass(1);
  expect(world.state.renewals).toBe(before + 1200);
  expect(world.owner.lanes.size).toBe(0);
});

test('more people than are taken over in one go, some with many records, are all found by the next owner and by the one after it', async () => {
  const world = createWorld();
  for (let i = 0; i < 600; i++) world.arrive(`s${i}`, 'use', dayMs);
  for (let i = 0; i < 300; i++) world.arrive('s7', 'use', 0);
  await world.restart();
  world.arrive('s8', 'use', 0);
  await world.restart();
  expect(world.owner.parking.count()).toBe(600);
  expect(world.sent).toEqual([]);
  await world.pass(2 * dayMs);
  expect(world.sent).toHaveLength(901);
  const ofOne = world.sent.filter((n) => world.items[n]!.subject === 's7');
  expect(ofOne).toEqual(ofOne.toSorted((a, b) => a - b));
});

test('what was parked behind an old end, which a leader that was cut off shows to the next owner, is found all the same', async () => {
  const world = createWorld();
  for (let i = 0; i < 12; i++) world.arrive(`s${i % 4}`, 'use', i < 4 ? dayMs : 0);
  world.state.shown = 5;
  world.state.oldFor = 3;
  await world.restart();
  expect(world.owner.parking.count()).toBe(4);
  await world.pass(2 * dayMs);
  expect(world.sent.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 12 }, (_, i) => i));
});

test('a parked topic that was made anew is refused, with the offsets: what a marker stands for is not there, and must not be taken for ended', async () => {
  const world = createWorld();
  for (let i = 0; i < 4; i++) world.arrive(`s${i}`, 'use', dayMs);
  await world.quiet();
  world.forgetParked();
  await expect(world.restart()).rejects.toMatchObject({ code: 'log-out-of-range', message: expect.stringMatching(/parked\/0 ends at 0, and ledger has a marker of what was parked at 3: the topic was made anew/) as string });
});

test('an owner that loses the partition while it empties its part of the table takes nothing from the next one of the same process', async () => {
  const table = createDisk().open({ path: 'parked' });
  const sleepers = createSleepers(table, 0);
  for (let i = 0; i < 3000; i++) sleepers.put(`s${i}`, { parked: createParked(`k${i}`, 1), fence: 0 });
  let turns = 0;
  const ports = { name: 'crm', topics: { parked: () => 'parked' }, ledger: { parks: () => [] }, turns: { next: () => Promise.resolve(turns++) } } as unknown as DestinationPorts;
  await expect(loadParked({ ports, partition: 0, sleepers, closed: () => turns > 0 } as never)).rejects.toMatchObject({ code: 'log-assignment-stale' });
  expect([...table.range('0/')]).not.toHaveLength(0);
});
