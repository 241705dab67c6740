import type { Assignment, RecordBatch } from '@weir/log';
import { WeirError } from '@weir/errors';
import { topicNames } from '@weir/pipeline';
import { sealedMagic, sealOverhead } from '@weir/seal';
import { expect, test, vi } from 'vitest';
import { createEndPace } from './end-pace.ts';
import { createPartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import type { Task } from './types.ts';

const assignment: Assignment = { topic: 't.dispatch.one', partition: 0, epoch: 1, position: 5 };
const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

test('a ledger that takes long to read, or whose brokers are away for a while, ends nothing and holds up neither the group nor what else the process does: nothing is called before it is read, and a partition that goes meanwhile goes at once', async () => {
  const ready: unknown[] = [];
  const failed: unknown[] = [];
  let batches = 0;
  let away = 2;
  const ports = {
    name: 'one', instance: 'a', topics: topicNames('t'), fail: (error: unknown) => { failed.push(error); },
    clock: { now: () => 1, random: () => 0.5, monotonic: () => 0, setTimer: setTimeout, clearTimer: clearTimeout },
    window: () => ({ records: 500, bytes: 1e6, heads: 50 }), progress: { lag: () => undefined }, metrics: { lag: { set: () => undefined, remove: () => undefined } },
    ledger: { owner: () => undefined, position: () => 0 }, consumer: () => ({ holds: () => true, pause: () => undefined }), parkedTable: createDisk().open({ path: 'parked' }), turns: { next: () => { throw new Error('a record was taken'); } },
    // As long as the partition is held.
    takeover: { async load(_partition: number, _position: number, gone: () => boolean) {
      if (away-- > 0) throw new WeirError('log-unavailable');
      while (!gone()) {
        batches++;
        await turn();
      }
      throw new WeirError('log-assignment-stale');
    } },
  } as unknown as DestinationPorts;
  const runner = createPartitionRunner(ports, assignment, createEndPace(ports.clock), { ready: (lane) => { ready.push(lane); }, restrict: () => undefined, together: (offers) => { offers(); }, end: () => undefined });
  runner.open();
  runner.accept({ topic: assignment.topic, partition: 0, epoch: 1, records: [{ offset: 5, timestamp: 1, key: null, value: Buffer.from('v'), headers: [] }], nextOffset: 6, highWatermark: 6 } as unknown as RecordBatch);
  while (batches < 3) await turn();
  await runner.close('rebalance');
  expect([ready, failed, runner.closed()]).toEqual([[], [], true]);
});

interface Written { readonly name: string; readonly at: number; readonly owner: string; readonly token: number }

/** Of a ledger whose ends were let go by their age. */
const begin = 40;

/** An owner over a ledger in which nothing is left; what it appends is in `written`. Records of the topic are taken as deliveries, those with the value `broken` are not. */
function world(over: { reach?: DestinationPorts['takeover']['reach']; load?: () => Promise<void>; ledger?: { begin: number }; commit?: (offsets: readonly { readonly offset: number }[]) => Promise<void>; onReady?: (subject: string, head: Task) => void; known?: (bytes: Buffer) => boolean; prepare?: (bytes: Buffer) => Promise<void>; open?: () => undefined } = {}) {
  const written: Written[] = [];
  /** What stands of intents, by key. */
  const intents = new Map<string, Written & { readonly fromOffset: number; readonly toOffset: number }>();
  const failed: unknown[] = [];
  const ready: string[] = [];
  const lags: number[] = [];
  let appended = 0;
  const gauge = new Map<number, number>();
  const clock = { at: 1000 };
  const delivery = { eventId: 'e', acceptedAt: 1, source: '', payload: Buffer.from('p') };
  const ports = {
    name: 'one', instance: 'a', topics: topicNames('t'), fail: (error: unknown) => { failed.push(error); }, keys: over.open === undefined ? undefined : { open: over.open }, logger: { warn: () => undefined }, admin: { beginningOffsets: () => Promise.resolve(new Map([[0, over.ledger?.begin ?? begin]])), committed: () => Promise.resolve(new Map([[0, 5]])) },
    clock: { now: () => clock.at, random: () => 0.5, monotonic: () => 0, setTimer: setTimeout, clearTimer: clearTimeout },
    window: () => ({ records: 500, bytes: 1e6, heads: 50 }), dedupeWindowMs: () => 1,
    progress: { committed: () => undefined, lag: (_partition: string, records: number) => { lags.push(records); } },
    metrics: { end: () => undefined, lag: { set: ({ partition }: { partition: number }, value: number) => { gauge.set(partition, value); }, remove: ({ partition }: { partition: number }) => { gauge.delete(partition); } } },
    ledger: { overwritten: () => [], owner: () => written.findLast((w) => w.name === 'weir.internal.LedgerOwner'), position: () => over.ledger?.begin ?? begin, intent: () => undefined, parks: () => [], apply: () => undefined },
    serde: {
      known: over.known ?? (() => true), prepare: over.prepare ?? (() => Promise.resolve()), encode: (name: string, value: object) => Buffer.from(JSON.stringify({ name, ...value })),
      decode: (bytes: Buffer) => {
        if (bytes.toString() === 'broken') throw new WeirError('avro-undecodable');
        return { name: 'weir.internal.Delivery', value: { ...delivery, payload: bytes.toString() === 'sealed' ? Buffer.concat([Buffer.from([sealedMagic, 1]), Buffer.alloc(sealOverhead)]) : delivery.payload } };
      },
    },
    appender: {
      partitionFor: () => 0,
      append: (_topic: string, records: readonly { key: Buffer; value: Buffer | null }[]) => {
        const first = appended;
        appended += records.length;
        for (const { key, value } of records) {
          if (value !== null) written.push(JSON.parse(value.toString()) as Written);
          if (key.toString().startsWith('#intent/')) {
            if (value === null) intents.delete(key.toString());
            else intents.set(key.toString(), JSON.parse(value.toString()) as never);
          }
        }
        return Promise.resolve(records.map((_, i) => (over.ledger?.begin ?? begin) + first + i));
      },
    },
    consumer: () => ({ holds: () => true, assignments: () => [assignment], pause: () => undefined, resume: () => undefined, commit: over.commit ?? (() => Promise.resolve()) }),
    parkedTable: createDisk().open({ path: 'parked' }), turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true },
    takeover: { load: over.load ?? (() => Promise.resolve()), reach: over.reach ?? (() => undefined), catchUp: () => Promise.resolve() },
  } as unknown as DestinationPorts;
  const runner = createPartitionRunner(ports, assignment, createEndPace(ports.clock), { restrict: () => undefined, together: (offers) => { offers(); }, end: () => undefined, ready: (lane) => {
    ready.push(lane.subject);
    over.onReady?.(lane.subject, lane.queue[0]!);
  } });
  const accept = (offset: number, subject: string, value = 'v'): void => runner.accept({ topic: assignment.topic, partition: 0, epoch: 1, records: [{ offset, timestamp: 1, key: Buffer.from(subject), value: Buffer.from(value), headers: [] }], nextOffset: offset + 1, highWatermark: 1000 } as unknown as RecordBatch);
  return { runner, accept, intents, written, failed, ready, lags, gauge, clock };
}

const turns = async (n: number): Promise<void> => { for (let i = 0; i < n; i++) await turn(); };
const settled = async (work: Promise<unknown>): Promise<boolean> => Promise.race([work.then(() => true), turns(30).then(() => false)]);

test('old ends that a replay asks for may take longer to read than the group waits: who loses the partition meanwhile does not wait for them, and takes up nothing', async () => {
  let gone: (() => boolean) | undefined;
  const { runner, accept, ready, failed } = world({ reach: (_partition, _time, asked) => {
    gone = asked;
    return new Promise(() => undefined);
  } });
  runner.open();
  accept(5, 'anna');
  while (gone === undefined) await turn();
  expect(gone()).toBe(false);
  expect(await settled(runner.close('rebalance'))).toBe(true);
  expect([gone(), ready, failed]).toEqual([true, [], []]);
});

test('one read of the ledger that does not come back holds up nobody who loses the partition', async () => {
  const { runner, failed } = world({ load: () => new Promise(() => undefined) });
  runner.open();
  await turn();
  expect(await settled(runner.close('rebalance'))).toBe(true);
  expect(failed).toEqual([]);
});

test('a ledger that cannot be read begins nothing in the moment that the process takes to end', async () => {
  const { runner, accept, ready, failed, written } = world({ load: () => Promise.reject(new Error('disk full')) });
  runner.open();
  accept(5, 'anna');
  await turns(10);
  accept(6, 'bob');
  await turns(10);
  expect([failed, ready, written, runner.closed()]).toEqual([[new Error('disk full')], [], [], true]);
});

test('records behind those that could not be taken up are not called before them in the moment that the process takes to end', async () => {
  const asked: number[] = [];
  const { runner, accept, ready, failed } = world({ reach: () => (asked.push(1) === 1 ? Promise.reject(new WeirError('log-out-of-range')) : undefined) });
  runner.open();
  accept(5, 'anna');
  await turns(10);
  accept(6, 'anna');
  await turns(10);
  expect([failed.length, ready]).toEqual([1, []]);
});

test('brokers that are away for longer than a read or a commit may take end nothing: both are done when they are back, in order', async () => {
  let away = 3;
  let refused = 2;
  const commits: number[] = [];
  const { runner, accept, ready, failed } = world({
    reach: () => (away-- > 0 ? Promise.reject(new WeirError(away % 2 === 0 ? 'log-deadline' : 'log-unavailable')) : undefined),
    commit: ([first]) => {
      if (refused-- > 0) return Promise.reject(new WeirError('log-deadline'));
      commits.push(first!.offset);
      return Promise.resolve();
    },
  });
  runner.open();
  accept(5, 'x', 'broken');
  accept(6, 'anna');
  accept(7, 'anna');
  await turns(20);
  expect([ready, failed]).toEqual([[], []]);
  await vi.waitFor(() => { expect([ready, commits]).toEqual([['anna'], [6]]); }, 5000);
  expect([failed, runner.closed()]).toEqual([[], false]);
});

test('a commit that has no answer when the partition is another one\'s is left to the next owner', async () => {
  const answer = Promise.withResolvers<void>();
  const { runner, accept, failed } = world({ commit: () => answer.promise });
  runner.open();
  accept(5, 'x', 'broken');
  await turns(10);
  const closing = runner.close('rebalance');
  answer.reject(new WeirError('log-deadline'));
  expect(await settled(closing)).toBe(true);
  expect(failed).toEqual([]);
});

test.each([1, 2, 3, 4, 5, 6])('a batch that comes %s microtasks after the one before was done with does not wait for a third', async (microtasks) => {
  const { runner, accept, ready } = world({ onReady: (subject) => {
    let later = Promise.resolve();
    if (subject === 'anna') for (let i = 0; i < microtasks; i++) later = later.then(i === microtasks - 1 ? () => accept(6, 'bob') : () => undefined);
  } });
  runner.open();
  accept(5, 'anna');
  await turns(10);
  expect(ready).toEqual(['anna', 'bob']);
});

test('an intent tells the next owner since when the oldest delivery that it covers may have been called, not when it was written itself', async () => {
  const { runner, accept, written, clock } = world();
  runner.open();
  for (let offset = 5; offset < 10; offset++) {
    accept(offset, `s${offset}`);
    await turns(5);
    clock.at += 3_600_000;
  }
  expect(written.filter((w) => w.name === 'weir.internal.LedgerIntent').map((w) => w.at)).toEqual([1000, 1000, 1000, 1000, 1000]);
});

test('a rebalance or a stop in order makes nothing of what only waited look as if it had been called; what may have taken effect does', async () => {
  for (const maybeSince of [0, 700]) {
    const { runner, accept, intents } = world({ onReady: (subject, head) => { if (subject === 's6') head.maybeSince = maybeSince; } });
    runner.open();
    for (let offset = 5; offset < 9; offset++) {
      accept(offset, `s${offset}`);
      await turns(3);
    }
    expect(Math.max(...[...intents.values()].map((i) => i.toOffset))).toBe(9);
    await runner.close('rebalance');
    expect([...intents.values()].map(({ fromOffset, toOffset, at }) => ({ fromOffset, toOffset, at }))).toEqual(maybeSince === 0 ? [] : [{ fromOffset: 5, toOffset: 7, at: 700 }]);
  }
});

test('who has lost the partition, or fails, says nothing of what it may have called', async () => {
  for (const ends of ['lost', 'fails'] as const) {
    const { runner, accept, intents } = world();
    runner.open();
    accept(5, 'anna');
    await turns(3);
    if (ends === 'fails') runner.fail(new Error('an answer that nobody understands'));
    await runner.close(ends === 'lost' ? 'lost' : 'rebalance');
    expect([...intents.values()].map((i) => i.toOffset)).toEqual([6]);
  }
});

test('a partition that is gone leaves no lag behind, though its last commit is acknowledged later', async () => {
  const commit = Promise.withResolvers<void>();
  const { runner, accept, lags, gauge } = world({ commit: () => commit.promise });
  runner.open();
  accept(5, 'anna', 'broken');
  accept(6, 'bob');
  await turns(10);
  expect([...gauge.values()]).toEqual([993]);
  const closing = runner.close('rebalance');
  await turns(3);
  commit.resolve();
  await closing;
  expect([lags.at(-1), gauge.size]).toEqual([0, 0]);
});

test('what ends one by one is committed together, and the last of it when the partition goes', async () => {
  const commits: number[] = [];
  const answers: (() => void)[] = [];
  const { runner, accept, failed } = world({ commit: ([first]) => {
    commits.push(first!.offset);
    return new Promise<void>((done) => { answers.push(done); });
  } });
  runner.open();
  for (let offset = 5; offset < 15; offset++) {
    accept(offset, 'anna', 'broken');
    await turns(5);
  }
  expect(commits).toEqual([6]);
  answers.shift()!();
  await turns(5);
  expect(commits).toEqual([6, 15]);
  accept(15, 'anna', 'broken');
  await turns(5);
  expect(commits).toEqual([6, 15]);
  const closing = runner.close('rebalance');
  answers.shift()!();
  await turns(10);
  expect([commits, failed]).toEqual([[6, 15, 16], []]);
  answers.shift()!();
  await closing;
});

test('a delivery whose schema or key cannot be looked up now is no dead letter and no end of the process: it waits uncommitted, and is called when they answer', async () => {
  let away = 3;
  let known = false;
  const commits: number[] = [];
  const { runner, accept, ready, failed, written } = world({
    known: () => known,
    prepare: () => {
      if (away-- > 0) return Promise.reject(new WeirError(away % 2 === 0 ? 'log-unavailable' : 'log-deadline'));
      known = true;
      return Promise.resolve();
    },
    commit: ([first]) => {
      commits.push(first!.offset);
      return Promise.resolve();
    },
  });
  runner.open();
  accept(5, 'anna');
  await vi.waitFor(() => { expect(ready).toEqual(['anna']); }, 5000);
  expect([failed, commits, written.filter(({ name }) => name === 'weir.internal.DeadLetter')]).toEqual([[], [], []]);
  // Who loses the partition meanwhile waits for nobody.
  away = Number.POSITIVE_INFINITY;
  known = false;
  accept(6, 'bob');
  await turns(5);
  expect(await settled(runner.close('lost'))).toBe(true);
  expect(failed).toEqual([]);
});

test('a key ring that cannot be opened under this WEIR_KEY ends the process: its deliveries are no dead letters', async () => {
  const { runner, accept, ready, failed, written } = world({ open: () => { throw new WeirError('config-invalid'); } });
  runner.open();
  accept(5, 'anna', 'sealed');
  await turns(20);
  expect([failed.map((error) => (error as WeirError).code), ready, written.filter(({ name }) => name === 'weir.internal.DeadLetter')]).toEqual([['config-invalid'], [], []]);
});

test.each(['avro-undecodable', 'schema-unknown', 'subject-erased'] as const)('%s is a fault of the bytes: dead letter and outcome, then it is committed', async (code) => {
  const commits: number[] = [];
  const { runner, accept, failed, written } = world({ known: () => false, prepare: () => Promise.reject(new WeirError(code)), commit: ([first]) => {
    commits.push(first!.offset);
    return Promise.resolve();
  } });
  runner.open();
  accept(5, 'anna');
  await vi.waitFor(() => { expect(commits).toEqual([6]); });
  expect([failed, written.filter(({ name }) => name === 'weir.internal.DeadLetter')]).toEqual([[], [expect.objectContaining({ reasons: [expect.objectContaining({ code })] })]]);
});

test('a ledger that is made anew while its partition is owned ends the process, before anything is called under an intent of the new one', async () => {
  const ledger = { begin: 40 };
  const { runner, accept, ready, failed } = world({ ledger });
  runner.open();
  accept(5, 'anna');
  await turns(10);
  ledger.begin = -2;
  accept(6, 'bob');
  await turns(10);
  expect([ready, failed.map((error) => (error as WeirError).code), runner.closed()]).toEqual([['anna'], ['log-fatal'], true]);
});
