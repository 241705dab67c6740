import { createAccountQuota, createUnreserved, type AccountQuota, type Draw, type QuotaReserve } from '@weir/http';
import type { Release } from '@weir/release';
import { mostInWindow } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createAskQuota } from './ask-quota.ts';

const ended = { throttled: false, answered: true };
const till = { name: 'till', account: 'till' };
const releaseOf = (accountLimit?: object): Release => ({ sources: new Map(), destinations: new Map([['till', { ...till, accountLimit }]]) }) as unknown as Release;

/** One account: dispatchers that follow a topic, and control. */
function world(draw: Draw, accountLimit?: object) {
  const clock = { at: 0, now: () => 1_800_000_000_000 + clock.at, monotonic: () => clock.at, random: () => 0.5, setTimer: () => 0, clearTimer: () => undefined };
  const slots = 6;
  const topic: { readonly at: number; readonly reserve: QuotaReserve }[] = [];
  const dispatchers = [4, 2].map((held, i) => {
    const read = new Map<string, QuotaReserve>();
    let position = 0;
    const unreserved = createUnreserved({ reserves: () => read, now: clock.now, monotonic: clock.monotonic });
    const part = { slots, held: () => held * unreserved('till') };
    const quota: AccountQuota = createAccountQuota({ share: () => ({ operation: part, account: part }), limit: () => accountLimit as never, random: () => 0.5, now: clock.now });
    return {
      /** Reads what was written so long ago, then makes every call that it may. */
      work(lagMs: number): number {
        for (; position < topic.length && topic[position]!.at + lagMs <= clock.at; position++) read.set('till', topic[position]!.reserve);
        let calls = 0;
        for (; quota.take({ ...draw, class: 'live', who: `d${i}` }, clock.at) === 0; calls++) quota.finished(draw.bucket, ended, clock.at);
        return calls;
      },
    };
  });
  const control = () => createAskQuota({ release: () => releaseOf(accountLimit), partitions: async () => slots, save: async (reserve) => { topic.push({ at: clock.at, reserve }); }, clock });
  return { clock, dispatchers, control, topic };
}

interface Phase {
  readonly ms: number;
  /** Dispatchers have work. */
  readonly live: boolean;
  readonly asks: boolean;
  readonly share: number;
  readonly dies: boolean;
}

/** When calls were made, and how often control began anew. */
async function play(count: number, whose: string, lagMs: number, phases: readonly Phase[]): Promise<{ readonly times: readonly number[]; readonly restarts: number }> {
  const limit = { steady: { count, perMs: 2000 }, cite: '' };
  const draw: Draw = { bucket: 'put', limit: whose === 'operation' ? limit : undefined };
  const { clock, dispatchers, control } = world(draw, whose === 'account' ? limit : undefined);
  let asker = control();
  let restarts = 0;
  const times: number[] = [];
  for (const { ms, live, asks, share, dies } of phases) {
    if (dies) {
      asker = control();
      restarts++;
    }
    for (const end = clock.at + ms; clock.at < end; clock.at += 50) {
      for (const dispatcher of live ? dispatchers : []) for (let n = dispatcher.work(lagMs); n > 0; n--) times.push(clock.at);
      for (let i = 0; asks && i < 1000 && await asker.take(till, draw, share) === 0; i++) {
        times.push(clock.at);
        asker.finished('till', 'put', ended);
      }
    }
  }
  return { times, restarts };
}

test('live traffic at the limit and questions beside it: together never more than the limit, through shares that change, dispatchers that read late, and a control that dies', async () => {
  const phase = fc.record({ ms: fc.integer({ min: 100, max: 20_000 }), live: fc.boolean(), asks: fc.boolean(), share: fc.double({ min: 0.02, max: 1, noNaN: true }), dies: fc.boolean() });
  await fc.assert(fc.asyncProperty(fc.integer({ min: 24, max: 200 }), fc.constantFrom('operation', 'account'), fc.integer({ min: 0, max: 1900 }), fc.array(phase, { minLength: 2, maxLength: 6 }), async (count, whose, lagMs, phases) => {
    const { times, restarts } = await play(count, whose, lagMs, phases);
    // A bucket begins with one token, and holds one whole at the least.
    expect(mostInWindow(times, 2000)).toBeLessThanOrEqual(count + restarts + 1);
  }), { numRuns: 40 });
});

const phaseOf = (ms: number, over: Partial<Phase>): Phase => ({ ms, live: true, asks: true, share: 0.9, dies: false, ...over });
test.each([
  ['a smaller share that follows a greater one holds here before others read of it', [phaseOf(20_000, {}), phaseOf(60_000, { share: 0.05 })]],
  ['a share that comes back is not paid for the time in which the whole was left to others', [phaseOf(5000, {}), phaseOf(40_000, { asks: false }), phaseOf(5000, { live: false, asks: false }), phaseOf(50, { live: false }), phaseOf(5000, {})]],
])('%s', async (_name, phases) => {
  expect(mostInWindow((await play(200, 'operation', 1950, phases)).times, 2000)).toBeLessThanOrEqual(201);
});

test('questions get their share, which live traffic has back after they end', async () => {
  const draw: Draw = { bucket: 'put', limit: { steady: { count: 100, perMs: 1000 }, cite: '' } };
  const { clock, dispatchers, control, topic } = world(draw);
  const asker = control();
  let [live, asked] = [0, 0];
  const pass = async (ms: number, asks: boolean): Promise<[number, number]> => {
    [live, asked] = [0, 0];
    for (const end = clock.at + ms; clock.at < end; clock.at += 10) {
      for (const dispatcher of dispatchers) live += dispatcher.work(100);
      for (; asks && await asker.take(till, draw, 0.2) === 0; asked++) asker.finished('till', 'put', ended);
    }
    return [live / ms * 1000, asked / ms * 1000];
  };
  await pass(10_000, false);
  await pass(5000, true);
  const [rest, share] = await pass(60_000, true);
  expect(share).toBeGreaterThan(15);
  expect(share).toBeLessThan(20);
  expect(rest).toBeGreaterThan(65);
  expect(rest).toBeLessThan(75);
  // Renewed twice in its time, not with every question.
  expect(topic.length).toBeLessThan(8);
  await pass(31_000, false);
  expect((await pass(10_000, false))[0]).toBeGreaterThan(88);
});

test('nothing is asked before the dispatchers had time to leave the share, nor by who did not renew it', async () => {
  const draw: Draw = { bucket: 'put', limit: undefined };
  const { clock, control } = world(draw);
  const asker = control();
  expect(await asker.take(till, draw, 0.1)).toBe(2000);
  expect(asker.stands('till')).toBe(false);
  clock.at = 2000;
  expect(await asker.take(till, draw, 0.1)).toBe(0);
  expect(asker.stands('till')).toBe(true);
  clock.at = 30_000;
  expect(asker.stands('till')).toBe(false);
  expect(await asker.take(till, draw, 0.1)).toBe(2000);
});

test('a refusal closes the account for whoever asks', async () => {
  const draw: Draw = { bucket: 'put', limit: undefined };
  const { clock, control } = world(draw);
  const asker = control();
  await asker.take(till, draw, 0.1);
  clock.at = 2000;
  for (let i = 0; i < 8; i++) expect(await asker.take(till, draw, 0.1)).toBe(0);
  for (let i = 0; i < 8; i++) asker.finished('till', 'put', { throttled: true, answered: true, retryAfterMs: 5000 });
  expect([await asker.take(till, draw, 0.1), asker.closedMs('till', 'put')]).toEqual([5000, 5000]);
});

test('an announcement that the log does not take is told to who asks, and is tried again', async () => {
  let fails = true;
  const clock = { now: () => 0, monotonic: () => 0, random: () => 0.5, setTimer: () => 0, clearTimer: () => undefined };
  const asker = createAskQuota({ release: () => releaseOf(), partitions: async () => 6, save: () => (fails ? Promise.reject(new Error('away')) : Promise.resolve()), clock });
  await expect(asker.take(till, { bucket: 'put', limit: undefined }, 0.1)).rejects.toThrow('away');
  fails = false;
  expect(await asker.take(till, { bucket: 'put', limit: undefined }, 0.1)).toBe(2000);
});
