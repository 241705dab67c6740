import { WeirError } from '@weir/errors';
import type { RecordBatch } from '@weir/log';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createCommits } from './commits.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

const turn = (): Promise<void> => new Promise((resume) => { setImmediate(resume); });

/** A partition read from offset 0, with a window of four records; `commit` is the broker's. */
function world(commit: (offset: number) => Promise<void> = () => Promise.resolve()) {
  const committed: number[] = [];
  const failed: unknown[] = [];
  const lags: number[] = [];
  const state = { closed: false, paused: false, lagOf: 0 };
  const ports = {
    name: 'crm', window: () => ({ records: 4, bytes: 1e6, heads: 1 }), clock: { setTimer: (run: () => void) => { setImmediate(run); } }, fail: (error: unknown) => { failed.push(error); },
    progress: { committed: () => undefined, lag: (_of: string, n: number) => { lags.push(n); } }, metrics: { lag: { set: (_of: object, n: number) => { state.lagOf = n; }, remove: () => { state.lagOf = -1; } } },
    consumer: () => ({ pause: () => { state.paused = true; }, resume: () => { state.paused = false; }, async commit([{ offset }]: [{ offset: number }]) {
      await commit(offset);
      committed.push(offset);
    } }),
  } as unknown as DestinationPorts;
  const commits = createCommits(ports, { topic: 't', partition: 0, epoch: 1, position: 0 }, () => state.closed);
  /** Records written at ten times their offset. */
  const read = (offsets: readonly number[], nextOffset: number, highWatermark = nextOffset): void => commits.read({ records: offsets.map((offset) => ({ offset, timestamp: offset * 10, key: null, value: null })), nextOffset, highWatermark } as unknown as RecordBatch);
  return { commits, read, committed, failed, lags, state };
}

test('whatever order records finish in, exactly the finished prefix is committed, and reading stops while too much is unfinished', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.oneof(fc.record({ read: fc.integer({ min: 0, max: 3 }) }), fc.record({ done: fc.nat(30) }), fc.constant('turn' as const)), { maxLength: 40 }), async (steps) => {
    const { commits, read, committed, state } = world();
    const open = new Set<number>();
    let next = 0;
    for (const step of steps) {
      if (step === 'turn') await turn();
      else if ('read' in step) {
        if (state.paused) continue;
        const offsets = Array.from({ length: step.read }, (_, i) => next + i);
        for (const offset of offsets) open.add(offset);
        read(offsets, next += step.read);
      } else {
        open.delete(step.done);
        commits.done(step.done);
      }
      const first = open.size === 0 ? next : Math.min(...open);
      expect([commits.upTo(), commits.full(), state.paused]).toEqual([first, next - first >= 4, next - first >= 4]);
    }
    await commits.drained();
    expect(committed.at(-1) ?? 0).toBe(commits.upTo());
    expect(committed).toEqual([...new Set(committed)].toSorted((a, b) => a - b));
  }));
});

test('one commit at a time: what finishes meanwhile goes with the next, and what was read from the parked topic is none of it', async () => {
  const gate = Promise.withResolvers<void>();
  const { commits, read, committed } = world((offset) => (offset === 1 ? gate.promise : Promise.resolve()));
  read([0, 1, 2], 3);
  commits.done(0);
  commits.finished([{ offset: 2, parkedOffset: 9 }, { offset: 1, parkedOffset: -1 }] as Task[]);
  await turn();
  expect(committed).toEqual([]);
  gate.resolve();
  await turn();
  expect(committed).toEqual([1, 2]);
  commits.done(2);
  await commits.drained();
  expect(committed).toEqual([1, 2, 3]);
});

test('brokers that are away are asked again while the partition is held; what ended the assignment ends the commits, and anything else the process', async () => {
  let away = 2;
  const first = world(() => (away-- > 0 ? Promise.reject(new WeirError('log-unavailable')) : Promise.resolve()));
  first.read([0], 1);
  first.commits.done(0);
  await first.commits.drained();
  expect([first.committed, first.failed]).toEqual([[1], []]);
  for (const [error, told] of [[new WeirError('log-assignment-stale'), 0], [new Error('odd'), 1]] as const) {
    const { commits, read, committed, failed } = world(() => Promise.reject(error));
    read([0, 1], 2);
    commits.done(0);
    await commits.drained();
    commits.done(1);
    await commits.drained();
    expect([committed, failed.length]).toEqual([[], told]);
  }
});

test('lag counts what is unfinished and what was not read, and is told no more once the partition is given up; the oldest is that of the first batch with something unfinished', async () => {
  const { commits, read, lags, state } = world();
  read([2, 3], 4, 9);
  expect([lags, state.lagOf, commits.oldest()]).toEqual([[7], 5, 20]);
  read([4], 5, 9);
  commits.done(2);
  expect(commits.oldest()).toBe(20);
  commits.done(3);
  await turn();
  expect([lags.at(-1), commits.oldest()]).toEqual([5, 40]);
  state.closed = true;
  commits.leave();
  commits.done(4);
  await commits.drained();
  expect([lags.at(-1), state.lagOf, commits.oldest()]).toEqual([0, -1, undefined]);
});
