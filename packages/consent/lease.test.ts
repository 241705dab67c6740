import type { Appender, OutRecord, Reader, RecordBatch, Serde } from '@weir/log';
import { expect, test } from 'vitest';
import { createConsentBarrier } from './barrier.ts';
import { createConsentLease, holdsLease, reportKey, type ConsentLease, type ConsentReport } from './lease.ts';

/** Time that only moves when told to; timers run in order. */
function fakeTime() {
  let now = 0;
  const timers = new Map<number, { at: number; run: () => void }>();
  let ids = 0;
  let wallShift = 0;
  const clock = {
    now: () => 1e12 + now + wallShift, monotonic: () => now, random: () => (++ids % 1000) / 1000,
    setTimer: (run: () => void, ms: number): unknown => {
      timers.set(++ids, { at: now + ms, run });
      return ids;
    },
    clearTimer: (id: unknown) => { timers.delete(id as number); },
  };
  const settle = async (): Promise<void> => { for (let i = 0; i < 60; i++) await Promise.resolve(); };
  async function pass(ms: number): Promise<void> {
    const end = now + ms;
    await settle();
    for (;;) {
      const [next] = [...timers].sort((a, b) => a[1].at - b[1].at);
      if (next === undefined || next[1].at > end) break;
      timers.delete(next[0]);
      now = next[1].at;
      next[1].run();
      await settle();
    }
    now = end;
    await settle();
  }
  return { clock, pass, suspend: (ms: number) => { wallShift += ms; } };
}

/** One partition of reports; `hold` keeps appends of instances from being acknowledged. */
function fakeWorld() {
  const time = fakeTime();
  const records: OutRecord[] = [];
  const followers: ((batch: RecordBatch) => void | Promise<void>)[] = [];
  let holding: (() => void)[] | undefined;
  /** What followers have. */
  let told = 0;
  const serde = { encode: (_name: string, value: unknown) => Buffer.from(JSON.stringify(value)), decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) as unknown }), known: () => true, prepare: () => Promise.resolve() } as unknown as Serde;
  const batchOf = (from: number): RecordBatch => ({ topic: 't', partition: 0, epoch: 0, records: records.slice(from).map((r, i) => ({ offset: from + i, timestamp: 0, key: r.key, value: r.value, headers: [] })), nextOffset: records.length, highWatermark: records.length });
  const appender = {
    append: async (_topic: string, list: readonly OutRecord[]) => {
      if (holding !== undefined && !list[0]!.key!.toString().startsWith('fence/')) await new Promise<void>((go) => { holding!.push(go); });
      const from = records.length;
      records.push(...list);
      for (const follow of followers) await follow(batchOf(told));
      told = records.length;
      return list.map((_, i) => from + i);
    },
  } as unknown as Appender;
  const reader = {
    read: async (_t: string, _p: number, _from: number, _to: number, take: (batch: RecordBatch) => unknown) => { await take(batchOf(0)); },
    follow: async (_t: string, _at: unknown, take: (batch: RecordBatch) => void) => {
      followers.push(take);
      return { positions: () => new Map(), close: () => Promise.resolve() };
    },
  } as unknown as Reader;
  const listeners: (() => void)[] = [];
  /** `links`: what instances have read; `own`: what the one who waits has, if it is not the same; `linksOf`: as far as the links of who is asked about reach. */
  const state = { folded: 0, links: 0, own: undefined as number | undefined, linksOf: undefined as number | undefined, others: [] as string[], linkEnd: 0, keys: 0, keysAway: false, readToEnds: 0, hurried: 0, hurriedThere: 0 };
  const tables = {
    folded: () => state.folded, consentPositions: () => [state.folded], identityPositions: () => [state.links], readToEnd: () => { state.readToEnds++; return Promise.resolve(); },
    onAdvance: (listener: () => void) => { listeners.push(listener); }, caughtUp: () => true, linked: (ids: readonly string[]) => [...ids, ...state.others], hurryLinks: () => { state.hurriedThere++; },
  };
  const ringWaits: { readonly to: number; readonly go: () => void }[] = [];
  const keys = { positions: () => [state.keys], readToEnd: () => (state.keysAway ? new Promise<void>(() => undefined) : Promise.resolve()), waitFor: ([to = 0]: readonly number[]) => (state.keys >= to ? Promise.resolve() : new Promise<void>((go) => { ringWaits.push({ to, go }); })) };
  const own = (): number => state.own ?? state.links;
  const waiter = { ...tables, identityPositions: () => [own()], identityPosition: own, linksEnd: () => (state.linksOf === undefined ? undefined : [state.linksOf]), hurryLinks: () => { state.hurried++; } };
  const fail = (error: unknown): void => { throw error as Error; };
  const lease = (leaseMs = 6000, of: { readonly instance?: string; readonly control?: () => number; readonly keys?: undefined } = {}): ConsentLease => createConsentLease({ appender, reader, serde, topic: 'reports', tables, instance: 'd1', keys, ...of, leaseMs, clock: time.clock, fail });
  const barrier = () => createConsentBarrier({ reader, admin: { endOffsets: (topic) => Promise.resolve(new Map([[0, topic === 'reports' ? records.length : state.linkEnd]])) }, appender, serde, topics: { consentApplied: 'reports', identity: 'links' }, tables: waiter, keys, clock: time.clock, fail });
  const fold = (to: number): void => {
    state.folded = to;
    for (const listener of listeners) listener();
  };
  const last = (): ConsentReport => records.filter((r) => r.value !== null).map((r) => JSON.parse(r.value!.toString()) as ConsentReport).findLast(holdsLease)!;
  const hold = (on: boolean): void => {
    const waiting = holding ?? [];
    holding = on ? [] : undefined;
    if (!on) for (const go of waiting) go();
  };
  return { ...time, state, records, lease, barrier, fold, last, hold, advance: () => { for (const listener of listeners) listener(); }, readKeys: (to: number) => {
    state.keys = to;
    for (const { to: wanted, go } of ringWaits) if (wanted <= to) go();
  } };
}

test('nothing is covered before the instance is announced and has read its tables after that', async () => {
  const world = fakeWorld();
  const lease = world.lease();
  expect(lease.covers(0)).toBe(false);
  world.hold(true);
  const starting = lease.start();
  await world.pass(10);
  expect([lease.covers(0), world.state.readToEnds]).toEqual([false, 0]);
  world.hold(false);
  await starting;
  expect([lease.covers(1000), lease.covers(6000), world.state.readToEnds]).toEqual([true, false, 1]);
});

test('a lease that is not renewed ends by itself; a report that is acknowledged after its end renews nothing, and the tables are read anew', async () => {
  const world = fakeWorld();
  const lease = world.lease();
  await lease.start();
  await world.pass(20);
  world.hold(true);
  await world.pass(6500);
  expect(lease.covers(0)).toBe(false);
  const before = world.last().incarnation;
  world.hold(false);
  await world.pass(0);
  expect(lease.covers(0)).toBe(false);
  await world.pass(1500);
  expect(world.last().incarnation).not.toBe(before);
  expect(world.state.readToEnds).toBe(2);
  expect(lease.covers(1000)).toBe(true);
});

test('a machine that was suspended holds no lease when it goes on, though its monotonic clock stood still', async () => {
  const world = fakeWorld();
  const lease = world.lease();
  await lease.start();
  await world.pass(20);
  world.suspend(60_000);
  expect(lease.covers(0)).toBe(false);
});

test('a change is not reported while a call that it refuses is open, and is when the call has ended', async () => {
  const world = fakeWorld();
  const lease = world.lease();
  await lease.start();
  await world.pass(20);
  let refused = false;
  const over = lease.began(() => refused);
  refused = true;
  world.fold(5);
  await world.pass(3000);
  expect(world.last().folded[0] ?? 0).toBe(0);
  expect(lease.covers(1000)).toBe(true);
  over();
  await world.pass(20);
  expect(world.last().folded).toEqual([5]);
});

test('a call that no change refuses holds back nothing, and one call does not hold back what came before it was refused', async () => {
  const world = fakeWorld();
  const lease = world.lease();
  await lease.start();
  let refused = false;
  lease.began(() => refused);
  world.fold(5);
  await world.pass(20);
  expect(world.last().folded).toEqual([5]);
  refused = true;
  world.fold(9);
  await world.pass(2000);
  expect(world.last().folded).toEqual([5]);
});

async function announced(world: ReturnType<typeof fakeWorld>) {
  const lease = world.lease();
  await lease.start();
  const barrier = world.barrier();
  await barrier.start();
  await world.pass(20);
  return { lease, barrier };
}
const answer = (promise: Promise<boolean>): { value: boolean | undefined } => {
  const seen: { value: boolean | undefined } = { value: undefined };
  void promise.then((value) => { seen.value = value; });
  return seen;
};

test('applied is answered when every instance has reported the change, and not before', async () => {
  const world = fakeWorld();
  const { lease, barrier } = await announced(world);
  let refused = false;
  const over = lease.began(() => refused);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  await world.pass(500);
  expect(seen.value).toBeUndefined();
  refused = true;
  world.fold(5);
  await world.pass(1000);
  expect(seen.value).toBeUndefined();
  over();
  await world.pass(50);
  expect(seen.value).toBe(true);
});

test('links that were acknowledged before are waited for, too', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  world.state.linkEnd = 3;
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  world.fold(5);
  await world.pass(1500);
  expect(seen.value).toBeUndefined();
  world.state.links = 3;
  world.advance();
  await world.pass(1500);
  expect(seen.value).toBe(true);
});

test('links of others are not waited for; those of who is asked about are, also one that came behind the ends that were told', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  Object.assign(world.state, { linkEnd: 90, own: 96, links: 3, linksOf: 3 });
  world.fold(5);
  await world.pass(100);
  const old = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  await world.pass(10);
  expect(old.value).toBe(true);
  world.state.linksOf = 95;
  const fresh = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  for (const links of [90, 94]) {
    world.state.links = links;
    world.advance();
    await world.pass(1500);
    expect(fresh.value).toBeUndefined();
  }
  world.state.links = 95;
  world.advance();
  await world.pass(100);
  expect(fresh.value).toBe(true);
});

test('with nobody in particular, or where it is not known whose links are where, all links are waited for', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  Object.assign(world.state, { linkEnd: 90, own: 96, links: 3, linksOf: 3 });
  world.fold(5);
  await world.pass(100);
  const nobody = answer(barrier.applied(new Map([[0, 4]]), [], 30_000));
  await world.pass(1500);
  expect(nobody.value).toBeUndefined();
  world.state.linksOf = undefined;
  const unknown = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  world.state.links = 95;
  world.advance();
  await world.pass(1500);
  expect([nobody.value, unknown.value]).toEqual([undefined, undefined]);
  world.state.links = 96;
  world.advance();
  await world.pass(1500);
  expect([nobody.value, unknown.value]).toEqual([true, true]);
});

test('who waits reads the links itself before it says whose count, and asks for them at once', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  Object.assign(world.state, { linkEnd: 9, own: 4, links: 4, linksOf: 0 });
  world.fold(5);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  await world.pass(1500);
  expect(seen.value).toBeUndefined();
  expect(world.state.hurried).toBeGreaterThan(0);
  // What it has read now says that the person was linked a moment ago: who stands at 4 does not know it.
  Object.assign(world.state, { own: 9, linksOf: 9 });
  world.advance();
  await world.pass(1500);
  expect(seen.value).toBeUndefined();
  world.state.links = 9;
  world.advance();
  await world.pass(1500);
  expect(seen.value).toBe(true);
});

test('somebody who is linked while reports are waited for is asked about, too, also in the place of one who is not any more', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  Object.assign(world.state, { linkEnd: 9, own: 9, links: 4, linksOf: 9, others: ['b'] });
  world.fold(5);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  await world.pass(1500);
  Object.assign(world.state, { own: 12, linksOf: 12, others: ['d'], links: 9 });
  world.advance();
  await world.pass(1500);
  expect(seen.value).toBeUndefined();
  world.state.links = 12;
  world.advance();
  await world.pass(1500);
  expect(seen.value).toBe(true);
});

test('after a change of consent the links are asked for at once; the first that come are reported at once, those of others a quarter of a second apart', async () => {
  const world = fakeWorld();
  await announced(world);
  await world.pass(100);
  const reports = (): number => world.records.filter((r) => r.value !== null).length;
  world.fold(5);
  await world.pass(10);
  expect(world.state.hurriedThere).toBeGreaterThan(0);
  const before = reports();
  for (let i = 1; i <= 100; i++) {
    world.state.links = i;
    world.advance();
    await world.pass(1);
    if (i === 10) expect([reports() - before, world.last().identity[0]! > 0]).toEqual([1, true]);
  }
  expect(reports() - before).toBe(1);
  await world.pass(250);
  expect(world.last().identity).toEqual([100]);
});

test('an erasure has come to hold when every instance has read its mark and no call is open that the mark forbids', async () => {
  const world = fakeWorld();
  const { lease, barrier } = await announced(world);
  world.fold(5);
  await world.pass(20);
  let refused = false;
  const over = lease.began(() => refused);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000, [7]));
  await world.pass(1500);
  expect(seen.value).toBeUndefined();
  refused = true;
  world.readKeys(7);
  await world.pass(1500);
  expect([seen.value, world.last().keys]).toEqual([undefined, [0]]);
  over();
  await world.pass(1500);
  expect(seen.value).toBe(true);
});

test('one that announces itself behind an erasure that holds covers nothing before it has read its mark, though brokers tell it an older end', async () => {
  const world = fakeWorld();
  world.state.folded = 5;
  world.readKeys(7);
  const barrier = world.barrier();
  await barrier.start();
  expect(await barrier.applied(new Map([[0, 4]]), ['a'], 1000, [7])).toBe(true);
  await barrier.stop();
  world.readKeys(6);
  const lease = world.lease();
  const starting = lease.start();
  await world.pass(500);
  expect(lease.covers(0)).toBe(false);
  world.readKeys(7);
  await starting;
  expect(lease.covers(1000)).toBe(true);
});

test('one that is closed while it cannot read the marks of erasure ends, and has covered nothing', async () => {
  const world = fakeWorld();
  world.state.keysAway = true;
  const lease = world.lease();
  let started = false;
  const starting = lease.start().then(() => { started = true; });
  await world.pass(20_000);
  expect([started, lease.covers(0)]).toEqual([false, false]);
  let closed = false;
  const closing = lease.close().then(() => { closed = true; });
  await world.pass(10);
  expect([started, closed]).toEqual([true, true]);
  await Promise.all([starting, closing]);
});

test('an instance of a version that says nothing of marks keeps an erasure waiting, and nobody else', async () => {
  const world = fakeWorld();
  const barrier = world.barrier();
  await barrier.start();
  world.fold(5);
  await world.lease(6000, { instance: 'old', keys: undefined }).start();
  await world.pass(20);
  expect(await barrier.applied(new Map([[0, 4]]), ['a'], 1000)).toBe(true);
  const erased = answer(barrier.applied(new Map([[0, 4]]), ['a'], 500, [7]));
  await world.pass(1000);
  expect(erased.value).toBe(false);
});

test('a silent instance is waited for until its lease is over, not less and hardly more', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  world.hold(true);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  world.fold(5);
  await world.pass(5900);
  expect(seen.value).toBeUndefined();
  await world.pass(500);
  expect(seen.value).toBe(true);
});

test('one that withdraws its announcement is not waited for; with nobody announced the state is enough', async () => {
  const world = fakeWorld();
  const { lease, barrier } = await announced(world);
  await lease.close();
  expect(world.records.at(-1)).toMatchObject({ value: null });
  expect(barrier.instances()).toBe(0);
  world.fold(5);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  await world.pass(10);
  expect(seen.value).toBe(true);
  expect(reportKey('a', 'b')).toBe('a/b');
});

test('one that stops while a call is open says nothing: others wait until its lease is over', async () => {
  const world = fakeWorld();
  const { lease, barrier } = await announced(world);
  lease.began(() => true);
  await lease.close();
  expect([lease.covers(0), barrier.instances()]).toEqual([false, 1]);
  world.fold(5);
  const seen = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  await world.pass(5500);
  expect(seen.value).toBeUndefined();
  await world.pass(1000);
  expect(seen.value).toBe(true);
});

test('what does not come to hold in time, or when the barrier stops, is not answered as applied', async () => {
  const world = fakeWorld();
  const { barrier } = await announced(world);
  const first = answer(barrier.applied(new Map([[0, 4]]), ['a'], 300));
  await world.pass(400);
  expect(first.value).toBe(false);
  const second = answer(barrier.applied(new Map([[0, 4]]), ['a'], 30_000));
  barrier.giveUp();
  await world.pass(10);
  expect(second.value).toBe(false);
});

test('a change is reported in the turn in which it came, by no timer: a timer comes behind a slice of bulk work', async () => {
  const world = fakeWorld();
  await announced(world);
  await world.pass(100);
  world.fold(5);
  world.fold(6);
  await world.pass(0);
  expect([world.last().folded, world.records.filter((r) => r.value !== null).length]).toEqual([[6], 3]);
  // A flood is told in few reports.
  for (let to = 7; to < 40; to++) {
    world.fold(to);
    await world.pass(1);
  }
  await world.pass(20);
  expect(world.last().folded).toEqual([39]);
  expect(world.records.length).toBeLessThan(12);
});

test('one that starts from tables which a broker showed as they were covers nothing until it has what was told as applied before its announcement, by whoever told it', async () => {
  const world = fakeWorld();
  world.state.folded = 7;
  const barrier = world.barrier();
  await barrier.start();
  // Nobody may call: the state is enough, and all that tells of it is the fence of who was answered.
  expect(await barrier.applied(new Map([[0, 6]]), ['a'], 1000)).toBe(true);
  await barrier.stop();
  world.state.folded = 5;
  const lease = world.lease();
  const starting = lease.start();
  await world.pass(500);
  expect([lease.covers(0), world.state.readToEnds]).toEqual([false, 1]);
  world.fold(7);
  await starting;
  expect(lease.covers(1000)).toBe(true);
});

test('one that does not reach it within its lease announces itself anew, and one that is closed meanwhile ends', async () => {
  const world = fakeWorld();
  world.state.folded = 7;
  const first = world.lease();
  await first.start();
  await world.pass(20);
  expect(world.last().folded).toEqual([7]);
  await first.close();
  world.state.folded = 5;
  const lease = world.lease();
  const starting = lease.start();
  await world.pass(50);
  const announced = world.last().incarnation;
  await world.pass(6100);
  expect([world.last().incarnation === announced, lease.covers(0)]).toEqual([false, false]);
  await lease.close();
  await starting;
  expect(lease.covers(0)).toBe(false);
});

test('who waits reads the reports up to a record of its own: an end that is told may be older than an announcement', async () => {
  const world = fakeWorld();
  const barrier = world.barrier();
  await barrier.start();
  const lease = world.lease();
  await lease.start();
  world.records.push({ partition: 0, key: Buffer.from('d2/x'), value: Buffer.from(JSON.stringify({ instance: 'd2', incarnation: 'x', leaseMs: 6000, folded: [], identity: [], at: 0 })) });
  // The announcement of d2 reaches nobody by itself; behind the fence it does.
  world.fold(3);
  let value: boolean | undefined;
  void barrier.applied(new Map([[0, 2]]), ['a'], 3000).then((found) => { value = found; });
  await world.pass(1000);
  expect(value).toBeUndefined();
  await world.pass(3000);
  expect(value).toBe(false);
  await barrier.stop();
});

/** Dispatchers that have read weir.control up to `control`, and who waits for a switch. */
async function dispatchers(world: ReturnType<typeof fakeWorld>, ...names: readonly string[]) {
  const control: Record<string, number> = Object.fromEntries(names.map((name) => [name, 7]));
  const leases = new Map(names.map((instance) => [instance, world.lease(6000, { instance, control: () => control[instance]! })]));
  for (const lease of leases.values()) await lease.start();
  const barrier = world.barrier();
  await barrier.start();
  await world.pass(20);
  /** Who is left, once it is answered. */
  const pull = (offset: number, deadlineMs = 20_000): { left: readonly string[] | undefined } => {
    const seen: { left: readonly string[] | undefined } = { left: undefined };
    void barrier.switchedOff(offset, deadlineMs).then((left) => { seen.left = left; });
    return seen;
  };
  const read = (instance: string, to: number): void => {
    control[instance] = to;
    leases.get(instance)!.switched();
  };
  return { barrier, leases, pull, read };
}

test('a kill switch is acknowledged when every dispatcher has read it, in the turn in which the last one has, and not before', async () => {
  const world = fakeWorld();
  const { pull, read } = await dispatchers(world, 'd1', 'd2');
  const seen = pull(7);
  await world.pass(500);
  expect(seen.left).toBeUndefined();
  read('d1', 8);
  await world.pass(100);
  expect(seen.left).toBeUndefined();
  read('d2', 8);
  await world.pass(0);
  expect(seen.left).toEqual([]);
  // What was read before it was asked for is asked for all the same.
  const again = pull(7);
  await world.pass(0);
  expect(again.left).toEqual([]);
});

test('one that goes on with its reports and has not read the switch is named, and so is one of a version that does not say', async () => {
  const world = fakeWorld();
  const { pull, read } = await dispatchers(world, 'd1', 'd2');
  await world.lease(6000, { instance: 'old' }).start();
  const seen = pull(7);
  read('d1', 9);
  await world.pass(19_900);
  expect(seen.left).toBeUndefined();
  await world.pass(200);
  expect(seen.left).toEqual(['d2', 'old']);
});

test('one that is silent keeps who pulls the switch waiting for a lease from the switch on, however long it had been silent before', async () => {
  const world = fakeWorld();
  const { barrier, pull } = await dispatchers(world, 'd1');
  world.hold(true);
  // It may read weir.control still: it is forgotten for its silence only in two seconds.
  await world.pass(4000);
  const seen = pull(7);
  await world.pass(3000);
  expect([barrier.instances(), seen.left]).toEqual([0, undefined]);
  await world.pass(3000);
  expect(seen.left).toBeUndefined();
  await world.pass(200);
  expect(seen.left).toEqual([]);
});

test('one that announces itself while a switch is waited for has to have read it, too; with nobody announced it is applied at once', async () => {
  const world = fakeWorld();
  const { pull, read } = await dispatchers(world, 'd1');
  const seen = pull(7);
  await world.pass(10);
  await world.lease(6000, { instance: 'd3', control: () => 5 }).start();
  read('d1', 8);
  await world.pass(1000);
  expect(seen.left).toBeUndefined();
  const none = await dispatchers(fakeWorld());
  expect(await none.barrier.switchedOff(7, 1000)).toEqual([]);
});

test('a switch that was read before the lease is entered anew is told by the announcement', async () => {
  const world = fakeWorld();
  const { pull, read } = await dispatchers(world, 'd1');
  world.hold(true);
  await world.pass(6500);
  const seen = pull(7);
  read('d1', 8);
  world.hold(false);
  await world.pass(200);
  expect(world.last().control).toBe(8);
  await world.pass(6000);
  expect(seen.left).toEqual([]);
});
