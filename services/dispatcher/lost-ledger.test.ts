import type { Assignment, LogRecord, OutRecord, RecordBatch } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createEndPace } from './end-pace.ts';
import { createLedgerStore, type LedgerStore } from './ledger-store.ts';
import { createPartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import { createTakeover } from './takeover.ts';

const turn = (): Promise<void> => new Promise((done) => setImmediate(done));
const turns = async (n: number): Promise<void> => { for (let i = 0; i < n; i++) await turn(); };
const parse = (bytes: Buffer): Record<string, unknown> => JSON.parse(bytes.toString()) as Record<string, unknown>;
const topics = topicNames('t');
const dispatch = topics.dispatch('one');

interface Faults {
  /** The answer to its first mark is lost, and it is sent again. */
  markTwice?: boolean;
  /** Its process is killed when its mark is on the ledger. */
  diesMarked?: boolean;
  /** The ledger is deleted and made anew right before its first mark. */
  lostBeforeMark?: boolean;
}

/** One partition: its dispatch topic, of which `position` is committed, and its ledger, over real owners and their caches. */
function world(position: number, deliveries: number, options: { committed?: boolean; owners?: boolean } = {}) {
  let time = 1000;
  let owners = 0;
  const clock = { now: () => ++time, random: () => 0.5, monotonic: () => 0, setTimer: setTimeout, clearTimer: clearTimeout };
  const queue: LogRecord[] = Array.from({ length: deliveries }, (_, offset) => ({ offset, timestamp: 1, key: Buffer.from(`s${offset}`), value: Buffer.from('v'), headers: [] }));
  const ledger: (LogRecord | undefined)[] = [];
  const state = { position, begin: 0, committed: options.committed ?? true, told: undefined as number | undefined };
  const of = (topic: string): (LogRecord | undefined)[] => (topic === dispatch ? queue : ledger);
  const serde = { known: () => true, prepare: () => Promise.resolve(), encode: (name: string, value: object) => Buffer.from(JSON.stringify({ name, ...value })), decode: (bytes: Buffer) => (bytes.toString() === 'v' ? { name: 'weir.internal.Delivery', value: { eventId: 'e', acceptedAt: 1, source: '', payload: Buffer.from('p') } } : { name: parse(bytes)['name'], value: parse(bytes) }) };
  const store = (): LedgerStore => createLedgerStore(createDisk().open({ path: `x${owners}` }), serde as never);
  const append = (topic: string, records: readonly OutRecord[]): number[] => records.map(({ key, value }) => of(topic).push({ offset: of(topic).length, timestamp: ++time, key, value, headers: [] }) - 1);
  const admin = {
    endOffsets: async (topic: string) => new Map([[0, topic === dispatch ? state.told ?? queue.length : ledger.length]]), beginningOffsets: async () => new Map([[0, state.begin]]),
    offsetsAt: async (_topic: string, at: number) => new Map(ledger.filter((r) => r !== undefined && r.timestamp >= at).slice(0, 1).map((r) => [0, r!.offset])),
    committed: async () => new Map(state.committed ? [[0, state.position]] : []),
  };
  const reader = {
    readOne: async (topic: string, _partition: number, offset: number) => of(topic)[offset],
    read: async (topic: string, partition: number, from: number, to: number, onBatch: (batch: RecordBatch) => unknown) => {
      const end = Math.min(to, of(topic).length);
      if (from < end) await onBatch({ topic, partition, epoch: 0, records: of(topic).slice(from, end).filter((r) => r !== undefined), nextOffset: end, highWatermark: end } as RecordBatch);
    },
  };

  /** A new owner, which has read nothing yet. `cache`: of a process that had the partition before. */
  function owner(cache = store(), faults: Faults = {}) {
    const assignment: Assignment = { topic: dispatch, partition: 0, epoch: ++owners, position: state.position };
    const called: { offset: number; maybeSince: number }[] = [];
    const failed: unknown[] = [];
    const told: string[] = [];
    let dead = false;
    const ports = {
      name: 'one', instance: `i${owners}`, topics, group: 't.dispatcher.one', fail: (error: unknown) => { failed.push(error); dead = true; }, keys: undefined, logger: { warn: () => undefined, error: (_about: object, message: string) => { told.push(message); } }, admin, clock, serde, ledger: cache,
      window: () => ({ records: 500, bytes: 1e6, heads: 50 }), dedupeWindowMs: () => 1, progress: { committed: () => undefined, lag: () => undefined }, metrics: { end: () => undefined, lag: { set: () => undefined, remove: () => undefined } },
      appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
        if (dead) return new Promise(() => undefined);
        const isMark = records[0]?.key?.toString().startsWith('#owner/') === true;
        if (isMark && faults.lostBeforeMark === true) ledger.length = 0;
        if (isMark && faults.markTwice === true) append(topic, records);
        faults.lostBeforeMark = faults.markTwice = false;
        const offsets = append(topic, records);
        dead ||= isMark && faults.diesMarked === true;
        return dead ? new Promise(() => undefined) : Promise.resolve(offsets);
      } },
      consumer: () => ({ holds: () => !dead, assignments: () => [assignment], pause: () => undefined, resume: () => undefined, commit: () => Promise.resolve() }),
      parkedTable: createDisk().open({ path: 'parked' }), turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true },
      takeover: createTakeover({ ledger: cache, clock, ledgerTopic: topics.ledger('one'), dispatchTopic: dispatch, windowMs: () => 1, progress: () => undefined, admin, reader }),
    } as unknown as DestinationPorts;
    const runner = createPartitionRunner(ports, assignment, createEndPace(clock), { restrict: () => undefined, together: (offers) => { offers(); }, end: () => undefined, ready: (lane) => {
      const { offset, maybeSince } = lane.queue[0]!;
      called.push({ offset, maybeSince });
    } });
    runner.open();
    return {
      runner, called, failed, told, cache,
      /** Reads up to `to`, and calls all of it. */
      read: async (to: number): Promise<void> => {
        const records = queue.slice(state.position, to);
        runner.accept({ topic: dispatch, partition: 0, epoch: assignment.epoch, records, nextOffset: to, highWatermark: queue.length } as RecordBatch);
        await turns(20);
      },
      die: (): void => { dead = true; void runner.close('lost'); },
    };
  }
  /** Of which the next owner may not say that it was never called. */
  const firstNeverCalled = (runner: { neverCalledBefore(offset: number): boolean }): number => {
    for (let offset = 0; ; offset++) if (runner.neverCalledBefore(offset)) return offset;
  };
  // Of the owner that committed.
  if (options.owners ?? true) append(topics.ledger('one'), [{ partition: 0, key: Buffer.from('#owner/0/1/i0'), value: serde.encode('weir.internal.LedgerOwner', { partition: 0, token: 1, owner: 'i0', at: 1 }) }]);
  return { owner, ledger, queue, state, append, firstNeverCalled, lose: () => { ledger.length = 0; } };
}

/** What it called that an owner before it had called, as if nobody had. */
const twice = (before: readonly { offset: number }[], now: readonly { offset: number; maybeSince: number }[]): number[] => now.filter(({ offset, maybeSince }) => maybeSince === 0 && before.some((b) => b.offset === offset)).map(({ offset }) => offset);

async function calledThenLost(w: ReturnType<typeof world>) {
  const first = w.owner();
  await first.read(12);
  first.die();
  w.lose();
  return first;
}

test('of a ledger that was deleted and made anew all that waits counts as perhaps called since ever, and so says the intent; what comes later does not', async () => {
  const w = world(5, 20);
  const first = await calledThenLost(w);
  const second = w.owner();
  await second.read(20);
  expect([twice(first.called, second.called), second.called.length, second.told]).toEqual([[], 15, [expect.stringContaining('made anew')]]);
  expect(parse(w.ledger.at(-1)!.value!)).toMatchObject({ name: 'weir.internal.LedgerIntent', toOffset: 20, at: 1 });
  expect([w.firstNeverCalled(second.runner), w.queue.length]).toEqual([20, 21]);
  await second.read(21);
  expect([second.called.length, second.failed]).toEqual([15, []]);
});

test.each([['is killed', { diesMarked: true }], ['loses the partition', {}]] as const)('an owner that marked the new ledger and %s before its first intent leaves it to the next', async (_what, faults) => {
  const w = world(5, 20);
  const first = await calledThenLost(w);
  const marked = w.owner(undefined, { ...faults });
  await turns(20);
  if ('diesMarked' in faults) marked.die();
  else await marked.runner.close('rebalance');
  const next = w.owner();
  await next.read(20);
  expect([twice(first.called, next.called), next.called.length]).toEqual([[], 15]);
});

test('a mark whose answer was lost stands twice: the guard holds, for its owner and the next', async () => {
  const w = world(5, 20);
  const first = await calledThenLost(w);
  const second = w.owner(undefined, { markTwice: true });
  await second.read(20);
  second.die();
  expect([twice(first.called, second.called), second.called.length]).toEqual([[], 15]);
  const third = w.owner();
  await third.read(20);
  expect(twice(first.called, third.called)).toEqual([]);
});

test('a ledger that is made anew under its owner begins with what that one writes: an end, a marker; the next is guarded all the same', async () => {
  const w = world(5, 20);
  const first = w.owner();
  await first.read(12);
  w.lose();
  w.append(topics.ledger('one'), [{ partition: 0, key: Buffer.from('#park/i1/0/s'), value: null }]);
  first.die();
  const next = w.owner();
  await next.read(20);
  expect([twice(first.called, next.called), next.called.length]).toEqual([[], 15]);
});

test('what the cache knew of intents is joined with what was lost', async () => {
  const w = world(5, 400);
  const early = w.owner();
  await early.read(200);
  early.die();
  const later = w.owner();
  await later.read(400);
  later.die();
  w.lose();
  const again = w.owner(early.cache);
  await again.read(400);
  expect([twice(later.called, again.called), again.called.length, w.firstNeverCalled(again.runner)]).toEqual([[], 395, 400]);
});

test('the end of the dispatch topic that a broker tells may be an old one', async () => {
  const w = world(5, 20);
  const first = await calledThenLost(w);
  w.state.told = 6;
  const second = w.owner();
  await second.read(20);
  expect(twice(first.called, second.called)).toEqual([]);
});

test.each([['once', false], ['twice, for its answer was lost', true]] as const)('a mark that was on its way when the ledger was made anew is not of it: written %s', async (_what, markTwice) => {
  const w = world(5, 20);
  const first = w.owner();
  await first.read(12);
  first.die();
  w.lose();
  w.owner(undefined, { diesMarked: true });
  await turns(20);
  const marked = w.owner(undefined, { lostBeforeMark: true, markTwice, diesMarked: true });
  await turns(20);
  marked.die();
  const next = w.owner();
  await next.read(20);
  expect([twice(first.called, next.called), next.called.length]).toEqual([[], 15]);
});

test.each([['a destination of which nothing was committed, though its first deliveries fell out of the topic', { committed: false, owners: false }, 0], ['a ledger whose first records fell out of it by their age', { owners: false }, 7]] as const)('%s lost no ledger', async (_what, options, begin) => {
  const w = world(5, 20, options);
  w.state.begin = begin;
  for (let i = 0; i < begin; i++) w.ledger.push(undefined);
  const first = w.owner();
  await first.read(20);
  expect([first.called.map(({ maybeSince }) => maybeSince), first.told, w.queue.length]).toEqual([Array<number>(15).fill(0), [], 20]);
});

test('a destination of which only its begin was committed, at the first assignment, lost no ledger', async () => {
  const w = world(0, 20, { owners: false });
  const first = w.owner();
  await first.read(20);
  expect([first.called.map(({ maybeSince }) => maybeSince), first.told, w.queue.length]).toEqual([Array<number>(20).fill(0), [], 20]);
});

test('a healthy ledger of which compaction left the marks alone is not lost', async () => {
  const w = world(5, 20, { committed: false, owners: false });
  const first = w.owner();
  await first.read(20);
  first.die();
  w.state.committed = true;
  w.state.position = 20;
  for (const [i, record] of w.ledger.entries()) if (!record!.key!.toString().startsWith('#owner/')) w.ledger[i] = undefined;
  const next = w.owner();
  await turns(20);
  expect([next.told, w.queue.length, w.firstNeverCalled(next.runner)]).toEqual([[], 20, 20]);
});

const step = fc.record({
  lose: fc.boolean(), cache: fc.boolean(), reads: fc.nat(20), ends: fc.constantFrom('killed', 'left' as const),
  faults: fc.record({ markTwice: fc.boolean(), diesMarked: fc.boolean(), lostBeforeMark: fc.boolean() }), leftover: fc.boolean(),
});

test('whenever a ledger is lost, and whatever becomes of the owners, none takes for never called what one before it called', async () => {
  let lost = 0;
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 6 }), async (steps) => {
    const w = world(5, 26);
    const called: { offset: number }[] = [];
    const caches: LedgerStore[] = [];
    for (const { lose, cache, reads, ends, faults, leftover } of steps) {
      if (lose) {
        w.lose();
        lost++;
        if (leftover) w.append(topics.ledger('one'), [{ partition: 0, key: Buffer.from('#park/i/0/s'), value: null }]);
      }
      const owner = w.owner(cache ? caches.at(-1) : undefined, { ...faults });
      await turns(12);
      if (reads > 0) await owner.read(Math.min(5 + reads, 26));
      const now = owner.called.map(({ offset, maybeSince }) => ({ offset, maybeSince }));
      expect(twice(called, now)).toEqual([]);
      called.push(...now);
      // What it called is open when it goes: nothing is left behind in order.
      if (ends === 'killed' || now.length > 0 || faults.diesMarked) owner.die();
      else await owner.runner.close('rebalance');
      if (!owner.failed.length) caches.push(owner.cache);
    }
  }), { numRuns: 150 });
  expect(lost).toBeGreaterThan(100);
});
