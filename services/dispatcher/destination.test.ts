import type { Assignment, RecordBatch } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDestinationRunner } from './destination.ts';
import type { DestinationPorts } from './ports.ts';
import { createDisk } from '../../tests/integrity/sim/table.ts';

const topic = 't.dispatch.one';
const dayMs = 86_400_000;

/** A call as the vendor gets it. */
interface Sent { readonly operation: string; readonly items: readonly string[] }
/** As an adapter sees a delivery of this world. */
interface Given { readonly operation: string; readonly record: { readonly outputId: string } }
interface Over {
  /** So many deliveries at most in a call. */
  batch?: number;
  /** Beside `put` there is `bulk`, with items of so many bytes together at most. */
  bulk?: number;
  /** Calls with these items are answered with 400. */
  refuses?: (items: readonly string[]) => boolean;
  /** What that may have done. */
  effect?: 'none' | 'maybe';
  keyless?: boolean;
  callMs?: number;
  /** Calls are let through by the quota. */
  calls?: boolean;
  /** What a vendor that is away asks for, ms. */
  retryAfterMs?: number;
  enabled?: boolean; atLeast?: () => boolean; parked?: readonly object[]; now?: number;
}

/** A destination over an empty ledger, by a clock that is turned by hand. Nothing of it is called, but by `batch` and `bulk`. */
function world(over: Over = {}) {
  /** Offset of the next record on the ledger. */
  let appended = 40;
  const hand = createHandClock(over.now ?? 1000);
  /** When each timer rings that is set. */
  const timers = new Map<object, number>();
  const clock = Object.assign(hand, { setTimer: ((set) => (run: () => void, ms: number) => {
    const handle = set(() => {
      timers.delete(handle);
      run();
    }, ms);
    timers.set(handle, hand.at + ms);
    return handle;
  })(hand.setTimer), clearTimer: ((clear) => (handle: object) => {
    timers.delete(handle);
    clear(handle);
  })(hand.clearTimer) });
  const state = { covered: true, secret: true, away: false, takes: 0, tries: 0, /** Partitions held, as the quota was told of a change. */ shares: [] as number[] };
  let mark = { token: 0, owner: '' };
  const ended: string[] = [];
  /** The same, with what was delivered. */
  const ends: string[] = [];
  const gauge = Object.assign(() => undefined, { set: () => undefined, inc: () => undefined, dec: () => undefined, remove: () => undefined, observe: () => undefined });
  const batches: number[] = [];
  const calls: Sent[] = [];
  const text = ({ record }: Given, key: string): string => `${record.outputId} ${key}`;
  const classify = ({ status }: { status: number }): object => (status === 503 ? { kind: 'retry', effect: 'none', code: 'vendor-unavailable', ...(over.retryAfterMs === undefined ? {} : { retryAfterMs: over.retryAfterMs }) } : status === 200 ? { kind: 'ok', effect: 'done' } : { kind: 'permanent', effect: over.effect ?? 'none', code: 'delivery-rejected', detail: `HTTP ${status}` });
  const adapter = { destination: {
    request: (given: Given, key: string): Sent => ({ operation: given.operation, items: [text(given, key)] }), classify,
    batch: { item: text, request: (items: readonly { delivery: Given; text: string }[]): Sent => ({ operation: items[0]!.delivery.operation, items: items.map((item) => item.text) }), classify },
  } };
  const manifest = { kind: 'use', idempotency: over.keyless === true ? { scheme: 'none', pastWindow: 'hold' } : { scheme: 'natural-upsert', pastWindow: 'resend' } };
  const operations = { restrict: { ...manifest, kind: 'restrict' }, put: { ...manifest, ...(over.batch === undefined ? {} : { batch: { maxItems: over.batch, maxBytes: 1e6 } }) }, bulk: { ...manifest, batch: { maxItems: 50, maxBytes: over.bulk ?? 0 } } };
  const destination = { adapter, config: {}, enabled: over.enabled ?? true, concurrency: 10, caps: [], paths: new Map<string, string[]>(over.bulk === undefined ? [] : [['put', ['put', 'bulk']]]), seconds: undefined, operations, retryHorizonMs: dayMs };
  const delivery = { eventId: 'e', outputId: 'o', destination: 'one', operation: 'put', kind: 'use', intent: '0', itemHash: 'h', acceptedAt: clock.at, source: '', notBefore: null, payload: Buffer.from('p'), consentOffsets: [], identityOffsets: [], ids: [] };
  const ports = {
    name: 'one', instance: 'a', topics: topicNames('t'), keys: undefined, clock, fail: (error: unknown) => { throw error; },
    window: () => ({ records: 5000, bytes: 1e9, heads: 50 }), dedupeWindowMs: () => 7 * dayMs, logger: { warn: () => undefined, info: () => undefined },
    progress: { committed: () => undefined, lag: () => undefined },
    metrics: new Proxy({}, { get: () => gauge }),
    retention: { ledgerMs: () => Number.POSITIVE_INFINITY, dispatchMs: () => 30 * dayMs, parkedMs: () => 30 * dayMs, oldest: () => undefined },
    ledger: { overwritten: () => [], owner: () => mark, position: () => 40, intent: () => undefined, parks: (_partition: number, after?: string) => (after === undefined ? over.parked ?? [] : []), apply: () => undefined, end: () => undefined, lastDelivered: () => undefined },
    serde: {
      known: () => true, decode: (bytes: Buffer) => ({ name: 'weir.internal.Delivery', value: { ...delivery, outputId: bytes.toString(), payload: bytes, ...(bytes[0] === 114 ? { kind: 'restrict', operation: 'restrict' } : {}) } }),
      encode: (name: string, value: { owner?: string; token?: number; state?: string; outputId?: string }) => {
        if (name === 'weir.internal.LedgerOwner') mark = { token: value.token!, owner: value.owner! };
        if (name === 'weir.internal.LedgerEnd') {
          ended.push(value.state!);
          ends.push(`${value.state!} ${value.outputId!}`);
        }
        return Buffer.from(name);
      },
    },
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly unknown[]) => Promise.resolve(records.map(() => (topic.includes('.parked.') ? 8 : appended++))) },
    admin: { beginningOffsets: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), endOffsets: () => Promise.resolve(new Map([[0, 8]])) },
    reader: { read: (_topic: string, _partition: number, _from: number, _to: number, take: (batch: object) => unknown) => Promise.resolve(take({ records: [{ offset: 7, timestamp: clock.at - 28 * dayMs, key: Buffer.from('anna'), value: Buffer.from('v'), headers: [] }], nextOffset: 8 })).then(() => undefined) },
    consumer: () => ({ holds: () => true, assignments: () => [], pause: () => undefined, resume: () => undefined, commit: () => Promise.resolve(), leaseUntil: () => 1e15 }),
    parkedTable: createDisk().open({ path: 'parked' }), turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true },
    takeover: { load: () => Promise.resolve(), reach: () => undefined, catchUp: () => Promise.resolve() },
    quota: { lost: () => undefined, shareChanged: () => { state.shares.push(runner.held()); }, take: () => (over.batch === undefined && over.bulk === undefined && over.calls !== true ? 1e9 : state.takes++ * 0), state: () => ({ available: 1, perSecond: Number.POSITIVE_INFINITY, closedMs: 0 }), finished: () => undefined },
    workspaceKey: Buffer.alloc(32), callTimeoutMs: 1000, inLaneTries: 4, lease: { covers: () => state.covered, began: () => () => undefined }, credential: { accepted: () => undefined },
    http: { call: (request: Sent, { onBeforeWrite }: { onBeforeWrite: () => boolean }) => {
      state.tries++;
      if (!onBeforeWrite()) throw new Error('kept back');
      calls.push(request);
      batches.push(request.items.length);
      clock.at += over.callMs ?? 0;
      return Promise.resolve({ status: state.away ? 503 : over.refuses?.(request.items) === true ? 400 : 200, headers: {} });
    } },
    consent: { atLeast: over.atLeast ?? (() => true), allows: () => ({ ok: true }) },
    destination: () => (state.secret ? destination : undefined), configured: () => destination,
  } as unknown as DestinationPorts;
  const runner = createDestinationRunner(ports);
  const turns = async (): Promise<void> => { for (let i = 0; i < 10; i++) await new Promise((done) => { setImmediate(done); }); };
  return {
    runner, ended, ends, turns, batches, calls, state,
    /** Timers that ring in more than a minute. */
    far: () => [...timers.values()].filter((at) => at > clock.at + 60_000).length,
    /** One assignment with so many records of different people. */
    async assign(epoch: number, records: number, value = (offset: number): string => `v${offset}`): Promise<Assignment> {
      const assignment: Assignment = { topic, partition: 0, epoch, position: 0 };
      await runner.handlers.assigned([assignment]);
      const list = Array.from({ length: records }, (_, offset) => ({ offset, timestamp: clock.at, key: Buffer.from(`s${offset}`), value: Buffer.from(value(offset)), headers: [] }));
      if (records > 0) runner.handlers.batch({ topic, partition: 0, epoch, records: list, nextOffset: records, highWatermark: records } as unknown as RecordBatch);
      await turns();
      return assignment;
    },
    pass(ms: number): void {
      for (const _ of clock.turn(ms));
    },
  };
}

test('a destination that is off keeps in line what it owns, and nothing of what each rebalance left behind', async () => {
  const { runner, assign } = world({ enabled: false });
  for (let epoch = 1; epoch <= 5; epoch++) {
    const assignment = await assign(epoch, 100);
    expect(runner.status().ready).toBe(100);
    await runner.handlers.revoked([assignment], epoch % 2 === 0 ? 'lost' : 'rebalance');
    expect(runner.status().ready).toBe(0);
  }
});

test('what is parked and stands ready for a destination that is off leaves as expiring, too, though nothing waits on its own topic', async () => {
  const now = 100 * dayMs;
  const { runner, assign, ended, turns } = world({ enabled: false, now, parked: [{ key: '#park/x/0/anna', subject: 'anna', fromOffset: 7, due: 1, reason: 'http-5xx', attempts: 4, maybeSince: 0, since: now - 28 * dayMs }] });
  await assign(1, 0);
  expect([runner.status().ready, ended]).toEqual([1, []]);
  runner.sweep();
  await turns();
  expect(ended).toEqual(['dead-lettered']);
});

test('deliveries that wait for the tables of consent are not looked at so often that nobody has time to read them', async () => {
  let looks = 0;
  const { assign, pass } = world({ atLeast: () => {
    if (++looks > 30_000) throw new Error('too many looks');
    return false;
  } });
  await assign(1, 1000);
  looks = 0;
  pass(1000);
  expect(looks).toBeGreaterThan(1000);
  expect(looks).toBeLessThan(12_000);
});

test('what a fetch brought goes in full batches: its first delivery does not go in a call of its own', async () => {
  const { assign, batches } = world({ batch: 50 });
  await assign(1, 220);
  expect(batches).toEqual([50, 50, 50, 50, 20]);
});

/** Deliveries without their keys. */
const namesOf = (items: readonly string[]): string[] => items.map((item) => item.split(' ')[0]!);

test('one delivery for which the vendor refuses whatever it stands in ends alone: the others of its batch go in smaller ones, each applied once', async () => {
  const refuses = (items: readonly string[]): boolean => namesOf(items).includes('v3');
  const { assign, pass, turns, batches, calls, ends } = world({ batch: 8, refuses });
  await assign(1, 8);
  pass(50);
  await turns();
  expect(batches).toEqual([8, 4, 4, 2, 2, 1, 1]);
  expect(ends.toSorted()).toEqual(['dead-lettered v3', ...[0, 1, 2, 4, 5, 6, 7].map((n) => `delivered v${n}`)]);
  expect(calls.flatMap(({ items }) => (refuses(items) ? [] : namesOf(items))).toSorted()).toEqual([0, 1, 2, 4, 5, 6, 7].map((n) => `v${n}`));
  // Each under one key in all its calls.
  expect(new Set(calls.flatMap(({ items }) => items)).size).toBe(8);
});

test('batches that are refused for their size, or whose answers are too large to read, go in halves until they pass, not one by one', async () => {
  const { assign, pass, turns, batches, ends } = world({ batch: 200, refuses: (items) => items.length > 20, effect: 'maybe', callMs: 1 });
  await assign(1, 300);
  pass(50);
  await turns();
  expect(ends.filter((end) => end.startsWith('delivered '))).toHaveLength(300);
  // 24 that pass and 22 before them, where none is mixed with another.
  expect(batches.length).toBeLessThan(100);
});

test.each([0, 1])('what a batch that was refused may have applied is called no more at a vendor without keys, but held (a call of %i ms)', async (callMs) => {
  const { assign, pass, turns, batches, ends } = world({ batch: 8, refuses: () => true, effect: 'maybe', keyless: true, callMs });
  await assign(1, 4);
  pass(50);
  await turns();
  expect(batches).toEqual([4]);
  expect(ends.toSorted()).toEqual([0, 1, 2, 3].map((n) => `quarantined v${n}`));
});

test('a delivery that is too large for the batches of the better path goes by the other one, and holds up nobody', async () => {
  const { assign, pass, turns, calls, ends } = world({ bulk: 1000 });
  await assign(1, 5, (offset) => (offset === 3 ? 'v3'.padEnd(1000, '-') : `v${offset}`));
  pass(50);
  await turns();
  expect(calls.map(({ operation, items }) => [operation, ...namesOf(items).map((name) => name.slice(0, 2))])).toEqual([['bulk', 'v0', 'v1', 'v2'], ['put', 'v3'], ['bulk', 'v4']]);
  expect(ends.map((end) => end.slice(0, 12)).toSorted()).toEqual([0, 1, 2, 3, 4].map((n) => `delivered v${n}`));
});

test('while the lease of consent covers no call nothing of the quota is taken and no connection is made for a use; what restricts goes, and they go at once when it does', async () => {
  const { assign, pass, turns, state, calls } = world({ calls: true });
  state.covered = false;
  await assign(1, 20, (offset) => (offset === 19 ? 'r19' : `v${offset}`));
  for (let i = 0; i < 20; i++) {
    pass(100);
    await turns();
  }
  expect([state.takes, state.tries, calls.map(({ operation }) => operation)]).toEqual([1, 1, ['restrict']]);
  state.covered = true;
  for (let i = 0; i < 3; i++) {
    pass(50);
    await turns();
  }
  expect([state.takes, calls.length]).toEqual([20, 20]);
});

test('what came while no secret could be had goes in the order of its account when one can: what restricts first', async () => {
  const { runner, assign, state, turns, calls } = world({ calls: true });
  state.secret = false;
  await assign(1, 20, (offset) => (offset === 19 ? 'r19' : `v${offset}`));
  state.secret = true;
  runner.changed();
  await turns();
  expect([calls.length, calls[0]!.operation]).toEqual([20, 'restrict']);
});

test('of a partition that is gone no timer is left that keeps it in memory', async () => {
  const { runner, assign, pass, turns, state, far } = world({ calls: true, retryAfterMs: 3_600_000, parked: [{ key: '#park/x/0/anna', subject: 'anna', fromOffset: 7, due: 5 * dayMs, reason: 'delay-until', attempts: 0, maybeSince: 0, since: 1000 }] });
  state.away = true;
  const assignment = await assign(1, 3);
  pass(10);
  await turns();
  expect(far()).toBeGreaterThan(1);
  await runner.handlers.revoked([assignment], 'rebalance');
  expect(far()).toBe(0);
});

test('the quota is told of each share that is gained or lost, as it is from then on', async () => {
  const { runner, assign, state } = world();
  const assignment = await assign(1, 0);
  await runner.handlers.revoked([assignment], 'rebalance');
  expect(state.shares).toEqual([1, 0]);
});

test('an instance that has nothing of a destination knows nothing of its breaker; one for which nothing waits may be a second vendor again when it would let a probe through', async () => {
  const { runner, assign, pass, turns, state } = world({ calls: true });
  const open = async (epoch: number): Promise<Assignment> => {
    state.away = true;
    const assignment = await assign(epoch, 10);
    for (let i = 0; i < 100 && runner.status().breaker === 'closed'; i++) {
      pass(100);
      await turns();
    }
    expect([runner.status().breaker, runner.asSecond('put')!.usable]).toEqual(['open', false]);
    return assignment;
  };
  await runner.handlers.revoked([await open(1)], 'rebalance');
  // It gets another one in a moment: the vendor has been away all the time.
  const { openSince } = runner.health();
  const next = await assign(2, 0);
  expect([runner.status().breaker, runner.health().openSince, runner.asSecond('put')!.usable]).toEqual(['open', openSince, false]);
  pass(60_000);
  expect(runner.asSecond('put')!.usable).toBe(true);
  await runner.handlers.revoked([next], 'rebalance');
  await runner.handlers.assigned([]);
  expect([runner.status().breaker, runner.health().openSince, runner.asSecond('put')!.usable]).toEqual(['closed', undefined, true]);
  await runner.handlers.revoked([await open(3)], 'lost');
  expect(runner.status().breaker).toBe('closed');
});
