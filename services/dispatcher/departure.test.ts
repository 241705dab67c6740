import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createLane, type Lane } from './lane.ts';
import { createLedgerStore } from './ledger-store.ts';
import { createParking, type Parking } from './parking.ts';
import type { DestinationPorts } from './ports.ts';
import type { EndValue, ParkValue, Task } from './types.ts';

const hourMs = 3_600_000;
interface Item { readonly n: number; readonly kind: 'use' | 'restrict' }
interface Owner { readonly parking: Parking; readonly lanes: Map<string, Lane>; readonly offered: Lane[]; park(item: Item, due: number, over?: Partial<Task>): Promise<void>; behind(item: Item): Promise<void>; leave(): Promise<void> }

/** Owners of one partition, one after another, over the real ledger; the parked topic is a list. All is of one person. */
function createWorld() {
  const clock = createHandClock(10 * hourMs);
  const state = { heads: 50 };
  const disk = createDisk();
  const serde = { known: () => true, encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)), decode: (bytes: Buffer) => ({ name: 'weir.internal.Delivery', value: JSON.parse(bytes.toString()) as unknown }) };
  const ledger = createLedgerStore(disk.open({ path: 'ledger' }), serde as never);
  const log: { offset: number; timestamp: number; key: Buffer | null; value: Buffer | null; headers: [string, Buffer][] }[] = [];
  const ends = new Map<string, EndValue>();
  let epoch = 0;
  const tell = (key: string, value: Buffer | null): void => { ledger.apply(0, [{ key, value, offset: 0 }], 0); };
  const ports = {
    name: 'crm', topics: { parked: () => 'parked', ledger: () => 'ledger' }, instance: '1', clock, ledger, parkedTable: disk.open({ path: 'parked' }), serde, fail: (error: unknown) => { throw error; }, keys: undefined,
    window: () => ({ records: 500, bytes: 1e6, heads: state.heads }), turns: { next: () => Promise.resolve(), over: () => false }, metrics: { parked: { inc: () => undefined, dec: () => undefined } }, retention: { parkedMs: () => 1000 * hourMs }, dedupeWindowMs: () => 168 * hourMs,
    consent: { atLeast: () => true, allows: () => ({ ok: true }) },
    reader: { read: async (_topic: string, _partition: number, from: number, to: number, take: (batch: object) => unknown) => { if (from < to) await take({ records: log.slice(from, to), nextOffset: to }); } },
    appender: { append: (topic: string, list: readonly { key: Buffer | null; value: Buffer | null; headers?: [string, Buffer][] }[]) => Promise.resolve(list.map((r) => (topic === 'ledger' ? 0 : log.push({ offset: log.length, timestamp: clock.at, key: r.key, value: r.value, headers: r.headers ?? [] }) - 1))) },
  } as unknown as DestinationPorts;

  function taskOf(item: Item, offset: number, parkedOffset: number): Task {
    const delivery = { ...item, outputId: `o${item.n}`, destination: 'crm', operation: item.kind, ids: [], purpose: 'service', intent: '0', itemHash: 'h', consentOffsets: [], identityOffsets: [], recordType: 'weir.canonical.Profile', acceptedAt: item.n };
    return { delivery, offset, parkedOffset, queuedAt: clock.at, subject: 'anna', redrive: '', record: { offset: parkedOffset, key: Buffer.from('anna'), value: Buffer.from(JSON.stringify(delivery)), headers: [], timestamp: clock.at }, sealedBy: '', key: '', generation: 0, attempts: 0, maybeSince: 0, readBacks: 0, batchLimit: 0, path: '', ahead: '' } as never;
  }

  async function takeOver(): Promise<Owner> {
    const lanes = new Map<string, Lane>();
    const offered: Lane[] = [];
    const laneOf = (subject: string): Lane => {
      const lane = lanes.get(subject) ?? parking.rouse(subject) ?? createLane(subject);
      lanes.set(subject, lane);
      return lane;
    };
    const parking: Parking = createParking({
      ports, partition: 0, epoch: ++epoch, laneOf, forget: (lane) => { lanes.delete(lane.subject); }, hurry: () => undefined, end: () => undefined, finished: () => undefined, endOf: (key) => ends.get(key), reach: () => undefined, written: () => Promise.resolve(true),
      offer(lane) {
        lane.busy = true;
        offered.push(lane);
      },
      createTask: (delivery, record, offset, parkedOffset) => ({ ...taskOf(delivery as unknown as Item, offset, parkedOffset), record }),
      applyLedger: (records, keys) => { records.forEach((r, i) => { tell(keys[i]!, r.value); }); },
    });
    await parking.load();
    await parking.drained();
    return {
      parking, lanes, offered,
      async park(item, due, over = {}) {
        const lane = laneOf('anna');
        lane.queue.push(Object.assign(taskOf(item, item.n, -1), over));
        parking.park(lane, due, 'delay-until');
        await parking.drained();
      },
      async behind(item) {
        parking.behind(laneOf('anna'), taskOf(item, item.n, -1));
        await parking.drained();
      },
      async leave() {
        parking.close();
        for (const puts of parking.forNext(lanes.values())) for (const { key, value } of puts) tell(key, value);
      },
    };
  }
  return { clock, state, ledger, takeOver, tell, marks: (): ParkValue[] => ledger.parks(0), async pass(owner: Owner, ms: number): Promise<void> { for (const _ of clock.turn(ms)) { await new Promise(setImmediate); await owner.parking.drained(); } await owner.parking.drained(); } };
}
type World = ReturnType<typeof createWorld>;

const use: Item = { n: 1, kind: 'use' };
const restrict: Item = { n: 2, kind: 'restrict' };
/** What of the head that was offered may have been called, or undefined where none was. */
const heads = ({ offered }: Owner): [string, number][] => offered.map(({ queue: [head] }) => [head!.delivery.kind, head!.maybeSince]);

test('behind a use that an earlier owner may have called and that is parked for an hour a withdrawal waits for a minute after the take-over', async () => {
  const world = createWorld();
  const one = await world.takeOver();
  await one.park(use, world.clock.at + hourMs, { maybeSince: world.clock.at, attempts: 1, last: { at: world.clock.at, durationMs: 100, verdict: 'retry', effect: 'maybe', status: 500, path: null } });
  await world.pass(one, 1000);
  one.parking.close();
  const two = await world.takeOver();
  await two.behind(restrict);
  await world.pass(two, 59_000);
  expect(heads(two)).toEqual([]);
  await world.pass(two, 1000);
  expect(heads(two)).toEqual([['restrict', 0]]);
});

test.each([true, false])('a withdrawal that only waited behind a use of tomorrow is taken for called by the next owner after a crash alone (left in order: %s)', async (inOrder) => {
  const world = createWorld();
  const one = await world.takeOver();
  await one.park(use, world.clock.at + 14 * hourMs);
  one.parking.close();
  // Parked behind it, and not called: the destination is off.
  const off = await world.takeOver();
  await off.behind(restrict);
  const parkedAt = world.clock.at;
  await world.pass(off, 5 * 60_000);
  if (inOrder) await off.leave();
  else off.parking.close();
  const two = await world.takeOver();
  expect(heads(two)).toEqual([['restrict', inOrder ? 0 : parkedAt]]);
});

test('a withdrawal that was called says so to the next owner, though its marker tells of the use before it', async () => {
  const world = createWorld();
  const one = await world.takeOver();
  await one.park(use, world.clock.at + 14 * hourMs);
  await one.behind(restrict);
  one.offered[0]!.queue[0]!.maybeSince = 4711;
  await one.leave();
  expect(heads(await world.takeOver())).toEqual([['restrict', 4711]]);
});

test('who leaves in order moves nothing: what was due is due for the next owner at once, and is not taken for called, however often the partition moves', async () => {
  const world = createWorld();
  let owner = await world.takeOver();
  await owner.park(use, world.clock.at + 1000);
  await world.pass(owner, 2000);
  for (let i = 0; i < 4; i++) {
    expect([i, heads(owner)]).toEqual([i, [['use', 0]]]);
    await owner.leave();
    await world.pass(owner, 10_000);
    owner = await world.takeOver();
  }
  expect(world.marks()).toHaveLength(1);
});

test('an owner that goes before it has begun, and one that takes up again after an error, know what the one before left', async () => {
  const world = createWorld();
  const one = await world.takeOver();
  await one.park(use, world.clock.at + 1000);
  await world.pass(one, 2000);
  await one.leave();
  const [left] = world.ledger.parks(0);
  world.state.heads = 0;
  for (let i = 0; i < 2; i++) {
    const two = await world.takeOver();
    expect([two.offered, world.ledger.parks(0)[0]!.key === left!.key]).toEqual([[], false]);
    await (i === 0 ? two.leave() : two.parking.close());
  }
  world.state.heads = 50;
  expect(heads(await world.takeOver())).toEqual([['use', 0]]);
});

async function calledByTwo(world: World): Promise<{ readonly key: string; readonly value: Buffer }> {
  const one = await world.takeOver();
  await one.park(use, world.clock.at + 1000);
  await world.pass(one, 2000);
  one.parking.close();
  const late = [...one.parking.forNext(one.lanes.values())].flat();
  await world.pass(one, 10_000);
  const two = await world.takeOver();
  // It calls its head and dies.
  expect(two.offered).toHaveLength(1);
  two.parking.close();
  return late[0] as { key: string; value: Buffer };
}

test('what an owner left and the log wrote late, behind its successor\'s take-over, hides no call of that', async () => {
  const world = createWorld();
  const { key, value } = await calledByTwo(world);
  world.tell(key, value);
  const [[, maybeSince]] = heads(await world.takeOver()) as [[string, number]];
  expect(maybeSince).toBeGreaterThan(0);
});

test('what was spared is no longer when it was called after the take-over', async () => {
  const world = createWorld();
  const one = await world.takeOver();
  await one.park(use, world.clock.at + 1000);
  await one.behind(restrict);
  await one.leave();
  const two = await world.takeOver();
  expect(heads(two)).toEqual([['restrict', 0]]);
  two.parking.close();
  const three = await world.takeOver();
  expect(heads(three)).toEqual([['restrict', world.clock.at]]);
});
