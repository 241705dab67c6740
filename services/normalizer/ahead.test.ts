import { WeirError } from '@weir/errors';
import type { LogRecord, RecordBatch } from '@weir/log';
import { waitFor } from '@weir/testing';
import { expect, test } from 'vitest';
import { createAhead, type AheadPart } from './ahead.ts';

const least = 100;
const recordAt = (offset: number): LogRecord => ({ offset, timestamp: 0, key: null, value: null, headers: [] });

/** Topics of `end` records, read a hundred at a time; timers are run by hand. */
function world(end: number, read: (topic: string, from: number, to: number) => void = () => undefined) {
  const looked: string[] = [];
  const timers = new Set<() => void>();
  const failed: unknown[] = [];
  const state = { end, now: 0 };
  const ahead = createAhead({
    reader: { async read(topic, partition, from, to, take) {
      read(topic, from, to);
      for (let at = from; at < to; at += 100) await take({ topic, partition, epoch: 0, records: Array.from({ length: Math.min(100, to - at) }, (_, i) => recordAt(at + i)), nextOffset: Math.min(to, at + 100), highWatermark: state.end } as unknown as RecordBatch);
    } },
    clock: { monotonic: () => ++state.now, setTimer: (run) => { timers.add(run); return run; }, clearTimer: (timer) => { timers.delete(timer as () => void); } },
    logger: { warn: () => undefined } as never, fail: (error) => { failed.push(error); },
    close: async ({ topic }, records) => { looked.push(...records.map(({ offset }) => `${topic}/${offset}`)); },
  }, least);
  /** Until nothing is looked at any more. */
  const idle = async (): Promise<void> => {
    for (let turns = 0; turns < 5; turns++) {
      await new Promise((done) => { setImmediate(done); });
      for (const run of [...timers]) {
        run();
        turns = 0;
      }
    }
  };
  return { ahead, looked, timers, failed, state, idle };
}
const part = (topic: string): AheadPart & { over: boolean } => {
  const one = { topic, partition: 0, over: false, gone: () => one.over };
  return one;
};

test('what the stage is not done with is looked at once, up to the end of the topic as it grows; nothing is while the stage is near', async () => {
  const w = world(5000);
  const web = part('web');
  w.ahead.behind(web, 4900, 5000);
  await w.idle();
  expect(w.looked).toEqual([]);
  w.ahead.behind(web, 4900, 5101);
  w.state.end = 5200;
  await w.idle();
  // What was read said where the topic ends by then.
  expect(w.looked).toEqual(Array.from({ length: 300 }, (_, i) => `web/${4900 + i}`));
  w.ahead.behind(web, 5050, 5300);
  await w.idle();
  expect(w.looked.slice(300)).toEqual(Array.from({ length: 100 }, (_, i) => `web/${5200 + i}`));
  expect(w.failed).toEqual([]);
});

test('partitions are looked at in turn, and one that went to another owner no more', async () => {
  const w = world(12_000);
  const [web, till] = [part('web'), part('till')];
  w.ahead.behind(web, 0, 12_000);
  w.ahead.behind(till, 0, 12_000);
  await waitFor('both were looked at', () => {
    for (const run of w.timers) run();
    return w.looked.some((at) => at.startsWith('till'));
  });
  expect(w.looked.filter((at) => at.startsWith('web')).length).toBeLessThanOrEqual(8000);
  web.over = true;
  w.ahead.drop(web);
  const before = w.looked.filter((at) => at.startsWith('web')).length;
  await w.idle();
  expect([w.looked.filter((at) => at.startsWith('web')).length, w.looked.filter((at) => at.startsWith('till')).length]).toEqual([before, 12_000]);
});

test('brokers that are away for a while stop nothing: it is looked at when they are back, and what is broken ends the service', async () => {
  let away = 2;
  const w = world(1000, () => { if (away-- > 0) throw new WeirError('log-unavailable'); });
  w.ahead.behind(part('web'), 0, 1000);
  await w.idle();
  expect([w.looked.length, w.failed]).toEqual([1000, []]);
  const broken = world(1000, () => { throw new Error('broken'); });
  broken.ahead.behind(part('web'), 0, 1000);
  await broken.idle();
  expect(broken.failed).toHaveLength(1);
});

test('it stops at once, also while it rests', async () => {
  const w = world(12_000);
  w.ahead.behind(part('web'), 0, 12_000);
  await waitFor('it rests', () => w.timers.size > 0);
  await w.ahead.stop();
  const { length } = w.looked;
  w.ahead.behind(part('web'), 0, 12_000);
  await w.idle();
  expect([w.looked.length, w.timers.size]).toEqual([length, 0]);
});
