import { WeirError } from '@weir/errors';
import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import type { DestinationConfig, SecondVendor } from '@weir/release';
import { expect, test } from 'vitest';
import { closed, onFailure, type BreakerState } from './breaker.ts';
import { createEndPace } from './end-pace.ts';
import { createEndWriter } from './ends.ts';
import { failOver, secondDelivery, secondOf, type SecondState } from './fail-over.ts';
import { createLeaving } from './leaving.ts';
import type { DestinationPorts } from './ports.ts';
import type { EndValue, Task } from './types.ts';

const second: SecondVendor = { destination: 'two', operation: 'put', afterMs: 60_000, prefer: 'order' };
const destination = (over: Partial<SecondVendor> = {}): DestinationConfig => ({ name: 'one', seconds: new Map([['Profile/send', { ...second, ...over }]]), operations: {} }) as unknown as DestinationConfig;
const standby = { destination: 'two', operation: 'put', refused: null, rule: 'other', payload: null, notBefore: 7 };
const task = (over: Partial<Task> = {}, given: object | null = standby): Task => ({
  delivery: { outputId: 'out_1', eventId: 'evt_1', destination: 'one', operation: 'send', recordType: 'weir.canonical.Profile', payload: Buffer.from('p'), itemHash: 'h', purpose: 'service', channel: null, intent: '0', consent: [], rule: 'all', standby: given },
  subject: 's', offset: 9, parkedOffset: -1, redrive: '', key: 'dlv_one', generation: 0, attempts: 0, maybeSince: 0, readBacks: 0, path: '', last: undefined,
  record: { key: Buffer.from('s'), value: Buffer.from('v'), headers: [['weir-event', Buffer.from('evt_1')], ['weir-dispatched', Buffer.from('9:1')]], offset: 9, timestamp: 1 }, ...over,
}) as unknown as Task;
const never = { neverCalledBefore: () => true };
const there = (state: SecondState | undefined = { usable: true, cost: () => 100, given: () => undefined }) => ({ name: 'one', second: () => state }) as unknown as DestinationPorts;

test('only what surely had no effect, by nobody, may go to a second vendor, and only while the release has the pair', () => {
  expect(secondOf(there(), never as never, destination(), task())).toEqual(second);
  expect(secondOf(there(), never as never, destination(), task({ maybeSince: 5 }))).toBeUndefined();
  expect(secondOf(there(), { neverCalledBefore: () => false } as never, destination(), task())).toBeUndefined();
  expect(secondOf(there(), never as never, destination(), task({ redrive: 'rpl_1' }))).toBeUndefined();
  expect(secondOf(there(), never as never, destination(), task({}, null))).toBeUndefined();
  expect(secondOf(there(), never as never, destination(), task({}, { ...standby, refused: 'residency:eu' }))).toBeUndefined();
  expect(secondOf(there(), never as never, { name: 'one' } as DestinationConfig, task())).toBeUndefined();
  expect(secondOf(there(), never as never, destination({ destination: 'three' }), task())).toBeUndefined();
  expect(secondOf(there({ usable: false, cost: () => 1, given: () => undefined }), never as never, destination(), task())).toBeUndefined();
});

test('what the second vendor gets is what was decided for it, with the history of the first', () => {
  const ending = failOver(task(), second, 'vendor-unavailable', 'away');
  const end = { key: 'dlv_one', code: 'vendor-unavailable', reason: 'away', attempts: 2, status: 503, at: 5 } as EndValue;
  const delivery = secondDelivery(task({}, { ...standby, payload: Buffer.from('less') }).delivery, end, ending.handOver!);
  expect(delivery).toMatchObject({ outputId: 'out_1', destination: 'two', operation: 'put', rule: 'other', notBefore: 7, standby: null, failedOver: { destination: 'one', operation: 'send', key: 'dlv_one', reason: 'vendor-unavailable', attempts: 2, status: 503 } });
  expect(delivery.payload.toString()).toBe('less');
  expect(secondDelivery(task().delivery, end, ending.handOver!).payload.toString()).toBe('p');
});

/** When the head leaves, with a breaker and a clock of the test. */
function leaving(over: { prefer?: SecondVendor['prefer']; closedMs?: number; here?: number; there?: number } = {}) {
  let now = 0;
  let breaker: BreakerState = closed;
  let given = 0;
  const ports = { ...there({ usable: true, cost: () => over.there ?? 100, given: () => { given++; } }), clock: { monotonic: () => now, now: () => 5000 + now }, quota: { state: () => ({ closedMs: over.closedMs ?? 0 }) } } as unknown as DestinationPorts;
  const put: unknown[] = [];
  const wakes: number[] = [];
  const it = createLeaving({ destination: ports, ready: { putBack: (next) => { put.push(next); } }, breaker: () => breaker, cost: () => over.here ?? 100, wakeIn: (ms) => { wakes.push(ms); } });
  return {
    put, wakes, it,
    given: () => given,
    at: (ms: number) => { now = ms; },
    set: (state: BreakerState) => { breaker = state; it.breakerChanged(); },
    instead: (t = task()) => it.instead(never as never, destination({ prefer: over.prefer ?? 'order' }), t, {} as never)?.code,
  };
}
const open = (now: number, until: number): BreakerState => ({ ...onFailure(closed, now, 'vendor-unavailable', { force: true }), until });

test('heads that stay are looked at again when the breaker lets one through or one of them may go, also when nobody else is in line and a probe has failed', () => {
  const world = leaving();
  const head = { class: 'live', bucket: 'b', item: {} } as never;
  world.set(open(0, 100_000));
  world.it.stays(head, 100_000);
  expect(world.wakes).toEqual([100_000]);
  world.at(100_000);
  world.it.comeBack(0);
  expect(world.put).toEqual([head]);
  // The probe failed: the breaker is open again.
  world.it.stays(head, 80_000);
  world.at(110_000);
  world.it.comeBack(70_000);
  expect([world.put.length, world.wakes]).toEqual([1, [100_000, 80_000, 70_000]]);
});

test('without a secret each head goes when its own route says, though nothing else happens', () => {
  const world = leaving();
  const head = { class: 'live', bucket: 'b', item: {} } as never;
  world.it.configured(false);
  world.at(20_000);
  expect(world.it.withoutSecret(never as never, destination(), task())).toBeUndefined();
  world.it.staysAway(head);
  world.at(24_000);
  world.it.comeBack(Infinity);
  expect([world.wakes, world.put]).toEqual([[5000, 1000], []]);
  world.at(25_000);
  world.it.comeBack(Infinity);
  expect(world.put).toEqual([head]);
  world.at(58_000);
  expect(world.it.withoutSecret(never as never, destination(), task())).toBeUndefined();
  world.it.staysAway(head);
  expect(world.wakes.at(-1)).toBe(2000);
  // What stays is a question to the second vendor, and no delivery.
  expect(world.given()).toBe(0);
  world.at(60_000);
  expect(world.it.withoutSecret(never as never, destination(), task())?.code).toBe('secret-unavailable');
  expect(world.given()).toBe(1);
});

test('a vendor that is away is waited for as long as the route says, one call at a time finds out whether it is back', () => {
  const world = leaving();
  expect(world.instead()).toBeUndefined();
  world.set(open(0, 30_000));
  world.at(29_000);
  expect(world.instead()).toBeUndefined();
  expect(world.it.untilAwayMs(destination())).toBe(31_000);
  world.at(60_000);
  world.set(open(0, 90_000));
  expect(world.instead()).toBe('vendor-unavailable');
  // The wait of the breaker is over: this head is the probe, but for one that has been it already.
  world.at(90_000);
  expect(world.instead()).toBeUndefined();
  const called = (at: number) => task({ attempts: 1, last: { at: 5000 + at, durationMs: 1, verdict: 'retry', effect: 'none', status: 503, path: null } });
  expect(world.instead(called(59_000))).toBeUndefined();
  expect(world.instead(called(61_000))).toBe('vendor-unavailable');
  world.set(closed);
  expect(world.instead()).toBeUndefined();
  expect(world.it.untilAwayMs(destination())).toBe(Infinity);
});

test('a vendor that asks to be left alone for longer than that is not waited for', () => {
  expect(leaving({ closedMs: 59_000 }).instead()).toBeUndefined();
  expect(leaving({ closedMs: 60_000 }).instead()).toBe('vendor-throttled');
});

test('by measure the sooner of two vendors is taken, before the first call only and not for a hair', () => {
  expect(leaving({ prefer: 'measured', here: 120, there: 100 }).instead()).toBeUndefined();
  expect(leaving({ prefer: 'measured', here: 130, there: 100 }).instead()).toBe('preferred');
  expect(leaving({ prefer: 'measured', here: 130, there: 100 }).instead(task({ attempts: 1 }))).toBeUndefined();
  expect(leaving({ prefer: 'order', here: 9000, there: 1 }).instead()).toBeUndefined();
});

test('without a secret the heads go when that has lasted, and those that stay come back in their order', () => {
  const world = leaving();
  world.it.configured(false);
  world.at(59_999);
  expect(world.it.withoutSecret(never as never, destination(), task())).toBeUndefined();
  world.it.staysAway('a' as never);
  world.it.staysAway('b' as never);
  world.it.comeBack(Infinity);
  expect(world.put).toEqual([]);
  world.at(60_000);
  expect(world.it.withoutSecret(never as never, destination(), task())?.code).toBe('secret-unavailable');
  world.it.comeBack(Infinity);
  expect(world.put).toEqual(['b', 'a']);
});

/** An end writer whose appends are in `log`, over an owner that holds the partition, or not any more when the end is acknowledged. */
function writer(owned: boolean, partitions: () => Promise<number> = () => Promise.resolve(1), overwritten: EndValue[] = []) {
  const log: string[] = [];
  const applied: string[] = [];
  const finished: number[] = [];
  const ports = {
    name: 'one', topics: topicNames('t'), clock: { now: () => 1, monotonic: () => 0, setTimer: (run: () => void) => setImmediate(run) }, admin: { partitions }, fail: (error: unknown) => { throw error; },
    serde: { encode: (name: string, value: { state?: string; destination?: string }) => Buffer.from(`${name.slice(14)} ${value.state ?? value.destination ?? ''}`) },
    logger: { warn: () => undefined },
    ledger: { overwritten: () => overwritten.splice(0), end: () => undefined, position: () => 0, apply: (_p: number, entries: { key: string }[]) => { applied.push(...entries.map((e) => e.key)); } },
    appender: { partitions: () => Promise.resolve(1), partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => { log.push(...records.map((r) => `${topic} ${r.value!.toString()} ${r.headers?.length ?? ''}`)); return Promise.resolve(records.map((_, i) => i)); } },
  } as unknown as DestinationPorts;
  return { log, applied, finished, it: createEndWriter(ports, 0, { name: 'me', owned: () => Promise.resolve(owned), gone: () => false }, createEndPace(ports.clock), (tasks) => { finished.push(...tasks.map((t) => t.offset)); }) };
}

test('the second vendor\'s topic has the delivery after the end of the first is acknowledged, and the offset is finished after both', async () => {
  const world = writer(true);
  world.it.push(failOver(task(), second, 'vendor-unavailable', 'away'));
  await world.it.drained();
  expect(world.log).toEqual(['t.ledger.one LedgerEnd failed-over ', 't.dispatch.two Delivery two 1', 't.outcome Outcome failed-over 2']);
  expect(world.finished).toEqual([9]);
  expect(world.applied).toEqual(['dlv_one#end']);
});

test('one whose second vendor has lost its topic is a dead letter of that vendor, and the process goes on', async () => {
  let looks = 0;
  const world = writer(true, () => Promise.reject(new WeirError(++looks === 2 ? 'log-unavailable' : 'log-fatal')));
  world.it.push(failOver(task(), second, 'vendor-unavailable', 'away'));
  await world.it.drained();
  expect(world.log).toEqual(['t.ledger.one LedgerEnd failed-over ', 't.dlq DeadLetter two 2', 't.outcome Outcome failed-over 2', 't.outcome Outcome dead-lettered 2']);
  expect([world.finished, looks]).toEqual([[9], 6]);
});

test('a topic that a broker does not know for a moment is no topic that is gone', async () => {
  let looks = 0;
  const world = writer(true, () => (++looks < 3 ? Promise.reject(new WeirError('log-fatal')) : Promise.resolve(1)));
  world.it.push(failOver(task(), second, 'vendor-unavailable', 'away'));
  await world.it.drained();
  expect(world.log.map((line) => line.split(' ')[0])).toEqual(['t.ledger.one', 't.dispatch.two', 't.outcome']);
});

test('an end without effect of who is not the owner any more is not known by the cache that the next owner of this process reads; one that may have had one is', async () => {
  const [denied, held] = [writer(false), writer(false)];
  denied.it.push({ task: task(), state: 'denied', effect: 'none', code: 'consent-withdrawn', detail: null, deadLetter: false });
  held.it.push({ task: task(), state: 'quarantined', effect: 'maybe', code: 'delivery-held', detail: null, deadLetter: false });
  await Promise.all([denied.it.drained(), held.it.drained()]);
  expect([denied.applied, denied.finished, held.applied, held.finished]).toEqual([[], [], ['dlv_one#end'], [9]]);
});

test('what a late writer overwrote is written again by the owner', async () => {
  const world = writer(true, undefined, [{ key: 'dlv_two', state: 'delivered', owner: 'before' } as EndValue]);
  await world.it.writeAgain();
  expect([world.log, world.applied]).toEqual([['t.ledger.one LedgerEnd delivered '], ['dlv_two#end']]);
  await world.it.writeAgain();
  expect(world.log).toHaveLength(1);
});

test('who is not the owner any more when the end is acknowledged gives nothing over and finishes nothing', async () => {
  const world = writer(false);
  world.it.push(failOver(task(), second, 'vendor-unavailable', 'away'));
  await world.it.drained();
  expect(world.log.filter((line) => line.includes('dispatch'))).toEqual([]);
  expect(world.finished).toEqual([]);
  expect(world.applied).toEqual([]);
});

test('an end that an earlier owner wrote is not written again, its delivery is given over again', async () => {
  const world = writer(true);
  const first = failOver(task(), second, 'vendor-unavailable', 'away');
  world.it.push({ ...first, repeated: { state: 'failed-over', toDestination: 'two' } as EndValue });
  await world.it.drained();
  expect(world.log.map((line) => line.split(' ')[0])).toEqual(['t.dispatch.two', 't.outcome']);
});
