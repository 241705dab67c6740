import { WeirError } from '@weir/errors';
import fc from 'fast-check';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import type { Ending } from './ends.ts';
import { createLane, type Lane } from './lane.ts';
import { createParking, type Parking } from './parking.ts';
import type { DestinationPorts } from './ports.ts';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import type { Task } from './types.ts';

interface Item { readonly n: number; readonly kind: 'use' | 'restrict'; readonly purpose: string; readonly recordType?: string; readonly acceptedAt?: number }

/** A subject over real parking: the topic is a list, the clock is turned by hand. `sent` is what was called, in order. */
function createWorld() {
  const records: { offset: number; timestamp: number; key: Buffer; value: Buffer; headers: [] }[] = [];
  const refused = new Set<string>();
  /** So many reads of the parked topic find no broker. */
  const away = { reads: 0 };
  const sent: number[] = [];
  const ended: Ending[] = [];
  const endedKeys = new Set<number>();
  const clock = createHandClock(1000);
  const ports = {
    name: 'crm', topics: { parked: () => 'parked', ledger: () => 'ledger' }, instance: '1', clock, fail: (error: unknown) => { throw error; },
    serde: { known: () => true, encode: () => Buffer.alloc(0), decode: (bytes: Buffer) => ({ name: 'weir.internal.Delivery', value: Buffer.isBuffer(bytes) ? JSON.parse(bytes.toString()) as unknown : bytes }) },
    parkedTable: createDisk().open({ path: 'parked' }), window: () => ({ records: 500, bytes: 1e6, heads: 1 }), ledger: { parks: () => [] }, turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true },
    metrics: { parked: { inc: () => undefined, dec: () => undefined } }, retention: { parkedMs: () => Number.POSITIVE_INFINITY }, dedupeWindowMs: () => 1e9,
    keys: undefined,
    consent: { atLeast: () => true, allows: (_ids: unknown, purpose: string) => (refused.has(purpose) ? { ok: false, reason: 'consent-withdrawn' } : { ok: true }) },
    reader: { read: (_topic: string, _partition: number, from: number, _to: number, take: (batch: object) => unknown) => away.reads-- > 0 ? Promise.reject(new WeirError('log-deadline')) : Promise.resolve(take({ records: records.filter((r) => r.offset >= from) })).then(() => undefined) },
    appender: { append: (topic: string, list: readonly { value: Buffer }[]) => Promise.resolve(list.map(({ value }) => (topic === 'ledger' ? 0 : records.push({ offset: records.length, timestamp: clock.at, key: Buffer.from('anna'), value, headers: [] }) - 1))) },
  } as unknown as DestinationPorts;
  /** While somebody has it in hand. */
  let lane: Lane | undefined;
  const laneOf = (): Lane => (lane ??= parking.rouse('anna') ?? createLane('anna'));
  const taskOf = (value: object, offset: number, parkedOffset: number): Task => ({ delivery: value, offset, parkedOffset, queuedAt: 0, subject: 'anna', redrive: '', record: { key: Buffer.from('anna'), value: Buffer.from(JSON.stringify(value)), headers: [], timestamp: clock.at }, sealedBy: '', key: '', generation: 0, attempts: 0, maybeSince: 0, readBacks: 0, path: '', ahead: '', last: undefined }) as never;
  let verdict: (task: Task) => 'sent' | { due: number; maybeSince?: number } = () => 'sent';
  const parking: Parking = createParking({
    ports, laneOf, forget: () => { lane = undefined; }, partition: 0, epoch: 1, createTask: (delivery, _record, offset, parkedOffset) => taskOf(delivery, offset, parkedOffset),
    finished: () => undefined, applyLedger: () => undefined, endOf: () => undefined, reach: () => undefined, written: () => Promise.resolve(true), hurry: () => undefined,
    end(ending) {
      ended.push(ending);
      endedKeys.add((ending.task.delivery as unknown as Item).n);
    },
    offer(offered) {
      if (offered.busy || offered.queue.length === 0) return;
      offered.busy = true;
      const head = offered.queue[0]!;
      const found = verdict(head);
      if (found !== 'sent') {
        head.maybeSince = found.maybeSince ?? 0;
        return parking.park(offered, found.due, 'delay-until');
      }
      sent.push((head.delivery as unknown as Item).n);
      if (head.ahead !== '') named.set((head.delivery as unknown as Item).n, head.ahead);
      offered.queue.shift();
      if (head.parkedOffset >= 0) parking.headEnded(offered, head);
      offered.busy = false;
      if (offered.queue.length > 0) this.offer(offered);
      else if (offered.parked !== undefined) parking.next(offered);
    },
  });
  const opened = parking.load();
  const named = new Map<number, string>();
  /** Everything that needs no time is done. */
  const quiet = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve); });
  return {
    away, parkedNow: () => lane?.parked !== undefined || parking.count() > 0, sent, ended, endedKeys, refused, named, clock, parking,
    judge(by: typeof verdict) { verdict = by; },
    async arrive(item: Item): Promise<void> {
      await opened;
      const task = taskOf({ outputId: `o${item.n}`, destination: 'crm', operation: item.kind, channel: null, topic: null, ids: [], legalBasis: null, intent: '0', itemHash: 'h', consentOffsets: [], identityOffsets: [], recordType: item.recordType ?? (item.kind === 'use' ? 'weir.canonical.Profile' : 'weir.canonical.ConsentChange'), payload: { purpose: item.purpose, channel: null, topic: null, state: 'withdrawn' }, acceptedAt: item.n, ...item }, item.n, -1);
      const current = laneOf();
      if (current.parked !== undefined) parking.behind(current, task);
      else {
        current.queue.push(task);
        if (!current.busy) offer(current);
      }
      await quiet();
    },
    async pass(ms: number): Promise<void> {
      for (const _ of clock.turn(ms)) await quiet();
      await quiet();
    },
  };
  function offer(lane: Lane): void {
    // What the partition does with a lane that is not parked.
    const head = lane.queue[0]!;
    lane.busy = true;
    const found = verdict(head);
    if (found !== 'sent') {
      head.maybeSince = found.maybeSince ?? 0;
      return parking.park(lane, found.due, 'delay-until');
    }
    sent.push((lane.queue.shift()!.delivery as unknown as Item).n);
    lane.busy = false;
  }
}

const night = 60_000;
/** Uses wait for the morning, restricts go. */
const quietHours = (world: ReturnType<typeof createWorld>) => (task: Task) => (task.delivery.kind === 'use' && world.clock.at < night ? { due: night } : 'sent' as const);

test('a withdrawal does not wait behind a use that waits for the morning; the use ends denied, and a new grant does not let it', async () => {
  const world = createWorld();
  world.judge(quietHours(world));
  await world.arrive({ n: 1, kind: 'use', purpose: 'news' });
  await world.arrive({ n: 2, kind: 'use', purpose: 'service' });
  await world.arrive({ n: 3, kind: 'restrict', purpose: 'news' });
  expect(world.sent).toEqual([3]);
  expect(world.ended.map((e) => [(e.task.delivery as unknown as Item).n, e.state, e.code, e.effect])).toEqual([[1, 'denied', 'consent-withdrawn', 'none']]);
  expect(world.named.get(3)).toBe('ahead of 1 that wait, 1 to 1 on the parked topic');
  await world.arrive({ n: 4, kind: 'use', purpose: 'news' });
  await world.pass(night);
  // What another purpose waits for goes when it is due, and nothing overtakes it.
  expect(world.sent).toEqual([3, 2, 4]);
  expect(world.parkedNow()).toBe(false);
});

test('a restrict that has to be tried again is not overtaken by a use, and goes again before it', async () => {
  const world = createWorld();
  let failures = 2;
  world.judge((task) => (task.delivery.kind === 'use' ? (world.clock.at < 5000 ? { due: 5000 } : 'sent') : failures-- > 0 ? { due: world.clock.at + 4500, maybeSince: world.clock.at } : 'sent'));
  await world.arrive({ n: 1, kind: 'use', purpose: 'service' });
  await world.arrive({ n: 2, kind: 'restrict', purpose: '' });
  await world.pass(6000);
  expect(world.sent).toEqual([]);
  await world.pass(6000);
  expect(world.sent).toEqual([2, 1]);
});

test('what is due while the brokers are away is read when they are back, and the process does not end', async () => {
  const world = createWorld();
  world.judge((task) => (task.delivery.kind === 'use' && world.clock.at < 3000 ? { due: 3000 } : 'sent'));
  await world.arrive({ n: 1, kind: 'use', purpose: 'service' });
  world.away.reads = 4;
  await world.arrive({ n: 2, kind: 'restrict', purpose: '' });
  await world.pass(400);
  expect(world.sent).toEqual([]);
  await world.pass(3000);
  expect(world.sent).toEqual([2, 1]);
});

test('a use that may have taken effect gets the time that its last call would have had, then the restrict goes first', async () => {
  const world = createWorld();
  let tries = 0;
  world.judge((task) => (task.delivery.kind === 'use' && tries++ < 1 ? { due: 3000, maybeSince: world.clock.at } : 'sent'));
  await world.arrive({ n: 1, kind: 'use', purpose: 'service' });
  await world.arrive({ n: 2, kind: 'restrict', purpose: '' });
  expect(world.sent).toEqual([]);
  await world.pass(3000);
  expect(world.sent).toEqual([2, 1]);
});

test('an erasure ends everything of the person from before it that waits', async () => {
  const world = createWorld();
  world.judge(quietHours(world));
  await world.arrive({ n: 1, kind: 'use', purpose: 'service' });
  await world.arrive({ n: 2, kind: 'restrict', purpose: '', recordType: 'weir.canonical.Erasure' });
  await world.arrive({ n: 3, kind: 'use', purpose: 'service' });
  await world.pass(night);
  expect(world.sent).toEqual([2, 3]);
  expect(world.ended[0]).toMatchObject({ state: 'denied', code: 'subject-erased' });
});

test('whatever waits and comes: each once, restricts at once, uses in order and behind every restrict before them, none that a withdrawal met', () => fc.assert(fc.asyncProperty(
  fc.array(fc.record({ kind: fc.constantFrom('use', 'use', 'restrict' as const), purpose: fc.constantFrom('news', 'service'), refuse: fc.constantFrom('news', 'service', 'none', 'again'), ms: fc.constantFrom(0, 10, 20_000) }), { maxLength: 20 }),
  async (steps) => {
    const world = createWorld();
    world.judge(quietHours(world));
    await world.arrive({ n: 0, kind: 'use', purpose: 'service' });
    const kinds: ('use' | 'restrict')[] = ['use'];
    const met = new Set<number>();
    const purposes = ['service'];
    for (const { kind, purpose, refuse, ms } of steps) {
      const n = kinds.length;
      if (refuse === 'again') world.refused.clear();
      else if (refuse !== 'none') world.refused.add(refuse);
      kinds.push(kind);
      purposes.push(purpose);
      if (kind === 'restrict') kinds.forEach((k, i) => { if (k === 'use' && (world.refused.has(purposes[i]!) || purposes[i] === purpose) && !world.sent.includes(i)) met.add(i); });
      await world.arrive({ n, kind, purpose });
      if (kind === 'restrict') expect(world.sent.at(-1)).toBe(n);
      await world.pass(ms);
    }
    await world.pass(night);
    expect([...world.sent, ...world.endedKeys].toSorted((a, b) => a - b)).toEqual(kinds.map((_, i) => i));
    for (const n of met) expect(world.sent).not.toContain(n);
    const uses = world.sent.filter((n) => kinds[n] === 'use');
    expect(uses).toEqual(uses.toSorted((a, b) => a - b));
    const restricts = world.sent.filter((n) => kinds[n] === 'restrict');
    expect(restricts).toEqual(restricts.toSorted((a, b) => a - b));
    for (const use of uses) expect(world.sent.slice(world.sent.indexOf(use)).every((n) => kinds[n] === 'use' || n > use)).toBe(true);
  }), { numRuns: 100 }));
