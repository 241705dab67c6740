import { mostInWindow } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { costOf, createAccountQuota, planBuckets, readRateHeaders, steadyPerSecond, timeFor, type Limit, type QuotaShare, type Want } from './index.ts';

const whole: QuotaShare = { operation: { slots: 1, held: () => 1 }, account: { slots: 1, held: () => 1 } };
const quotaOf = (share: () => QuotaShare = () => whole, limit?: Limit) => createAccountQuota({ share, limit: () => limit, random: () => 0.5, now: () => 1_800_000_000_000 });
const want = (limit: Want['limit'], over: Partial<Want> = {}): Want => ({ bucket: 'send', limit, class: 'live', who: 'crm', ...over });
const ended = { throttled: false, answered: true };

test('in no window are more calls let through than the limit says, burst and steady, for one holder', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 10 }), fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 50, maxLength: 500 }), (burst, factor, gaps) => {
    const limit = { burst: { count: burst, perMs: 1000 }, steady: { count: burst * factor, perMs: 20_000 } };
    const quota = quotaOf();
    const taken: number[] = [];
    let now = 0;
    for (const gap of gaps) {
      now += gap;
      while (quota.take(want(limit), now) === 0) {
        taken.push(now);
        quota.finished('send', ended, now);
      }
    }
    expect(mostInWindow(taken, 1000)).toBeLessThanOrEqual(burst);
    expect(mostInWindow(taken, 20_000)).toBeLessThanOrEqual(burst * factor);
  }));
});

test('shares over instances: partitions move, instances crash and come back, and the vendor sees no more than the limit and one call for each restart', () => {
  const slots = 6;
  const move = fc.record({ gap: fc.integer({ min: 0, max: 300 }), partition: fc.integer({ min: 0, max: slots - 1 }), to: fc.integer({ min: 0, max: 2 }), crash: fc.boolean() });
  fc.assert(fc.property(fc.integer({ min: 24, max: 200 }), fc.array(move, { minLength: 20, maxLength: 200 }), (count, moves) => {
    const limit = { steady: { count, perMs: 2000 } };
    const owner = Array.from({ length: slots }, (_, p) => p % 3);
    const create = (instance: number) => quotaOf(() => {
      const part = { slots, held: () => owner.filter((o) => o === instance).length };
      return { operation: part, account: part };
    });
    const instances = [create(0), create(1), create(2)];
    const taken: number[] = [];
    let restarts = 0;
    let now = 0;
    for (const { gap, partition, to, crash } of moves) {
      now += gap;
      if (crash) {
        instances[to] = create(to);
        restarts++;
      } else owner[partition] = to;
      for (const quota of instances) while (quota.take(want(limit), now) === 0) { taken.push(now); quota.finished('send', ended, now); }
    }
    expect(mostInWindow(taken, 2000)).toBeLessThanOrEqual(count + restarts);
  }));
});

/** Calls that start at once at this time. */
const drain = (quota: ReturnType<typeof quotaOf>, limit: Limit, now: number): number => {
  let n = 0;
  for (; quota.take(want(limit), now) === 0; n++) quota.finished('send', ended, now);
  return n;
};

test('a crash loop is no way around the limit: a restart is worth one call, not a full bucket', () => {
  const limit = { steady: { count: 200, perMs: 60_000 } };
  let calls = 0;
  for (let i = 0; i < 30; i++) calls += drain(quotaOf(), limit, i * 100);
  expect(calls).toBe(30);
});

test('a share that is gained is not paid for the time before: what its owner of then has used is not used twice', () => {
  const limit = { steady: { count: 1200, perMs: 60_000 } };
  let a = 5;
  const shareOf = (held: () => number) => () => ({ operation: { slots: 6, held }, account: { slots: 6, held } });
  const one = quotaOf(shareOf(() => a));
  const two = quotaOf(shareOf(() => 6 - a));
  for (const quota of [one, two]) quota.state('send', limit, 0);
  const first = drain(one, limit, 60_000);
  expect(first).toBe(100);
  a = 0;
  expect(first + drain(two, limit, 60_000)).toBeLessThanOrEqual(120);
});

test('a share that was lost in between and is gained back is not paid for the time without it', () => {
  const limit = { steady: { count: 1200, perMs: 60_000 } };
  let held = 5;
  const part = { slots: 6, held: () => held };
  const quota = quotaOf(() => ({ operation: part, account: part }), { steady: { count: 1200, perMs: 60_000 } });
  drain(quota, limit, 0);
  const shared = (share: number, now: number): void => {
    held = share;
    quota.shareChanged(now);
  };
  shared(0, 100);
  shared(5, 60_000);
  expect(drain(quota, limit, 60_000)).toBe(0);
  expect(drain(quota, limit, 61_000)).toBeGreaterThan(10);
});

test('what was counted for a call that was not sent is given back: tokens, and what the vendor said is left', () => {
  const limit = { steady: { count: 600, perMs: 60_000 } };
  const quota = quotaOf(undefined, { steady: { count: 600, perMs: 60_000 } });
  quota.take(want(limit), 0);
  quota.finished('send', { ...ended, headers: { 'ratelimit-remaining': '20', 'ratelimit-reset': '3600' } }, 0);
  const now = 600_000;
  const before = quota.state('send', limit, now);
  expect(before.told).toBe(20);
  for (let i = 0; i < 100; i++) {
    expect(quota.take(want(limit), now)).toBe(0);
    quota.finished('send', { sent: false, throttled: false, answered: false }, now);
  }
  expect(quota.state('send', limit, now)).toEqual(before);
});

test('an instance that may have lost its assignment uses none, and what came meanwhile is not its own', () => {
  let held = 3;
  const part = { slots: 6, held: () => held };
  const quota = quotaOf(() => ({ operation: part, account: part }));
  const limit = { steady: { count: 60, perMs: 1000 } };
  expect(quota.take(want(limit), 0)).toBe(0);
  held = 0;
  expect(quota.take(want(limit), 5000)).toBeGreaterThan(0);
  expect(quota.state('send', limit, 5000).available).toBe(0);
  quota.lost(5000);
  held = 3;
  expect(quota.take(want(limit), 5000)).toBeGreaterThan(0);
});

test('a limit under another object changes nothing that was learnt and brings no token: interleaved, two of them never let more through than the larger one', () => {
  const rate = fc.record({ count: fc.integer({ min: 1, max: 200 }), perMs: fc.constantFrom(200, 1000, 3000) });
  fc.assert(fc.property(rate, rate, fc.array(fc.record({ gap: fc.integer({ min: 0, max: 50 }), first: fc.boolean() }), { minLength: 100, maxLength: 400 }), (a, b, calls) => {
    const quota = quotaOf();
    const taken: number[] = [];
    let now = 0;
    for (const { gap, first } of calls) {
      now += gap;
      // A new object for each call, as the worst caller would.
      if (quota.take(want({ steady: { ...(first ? a : b) } }), now) > 0) continue;
      taken.push(now);
      quota.finished('send', ended, now);
    }
    const most = Math.max(...[a, b].map((r) => planBuckets({ steady: r }, 1)[0]!.perMs)) * now;
    expect(taken.length).toBeLessThanOrEqual(1 + Math.max(...[a, b].map((r) => planBuckets({ steady: r }, 1)[0]!.capacity)) + most);
  }));
});

test('what headers and a refusal taught outlives a call under another limit, an equal or a different one', () => {
  for (const other of [{ steady: { count: 1000, perMs: 1000 } }, { steady: { count: 900, perMs: 1000 } }]) {
    const quota = quotaOf();
    const limit = { steady: { count: 1000, perMs: 1000 } };
    expect(quota.take(want(limit), 0)).toBe(0);
    quota.finished('send', { ...ended, headers: { 'ratelimit-limit': '5, 5;w=1', 'ratelimit-remaining': '4', 'ratelimit-reset': '1' } }, 0);
    expect(quota.take(want(other), 5000)).toBe(0);
    quota.finished('send', ended, 5000);
    const times: number[] = [];
    for (let now = 5001; now < 8000; now += 5) if (quota.take(want(now % 2 === 0 ? limit : other), now) === 0) { times.push(now); quota.finished('send', ended, now); }
    expect(mostInWindow(times, 1000)).toBeLessThanOrEqual(5);
    expect(times.length).toBeGreaterThan(5);
  }
});

test('a rate that a vendor told is taken back by the same vendor, when it tells one that is no less than the stated one', () => {
  const limit = { steady: { count: 150, perMs: 1000 } };
  const quota = quotaOf();
  const answer = (rate: number, now: number): void => {
    expect(quota.take(want(limit), now)).toBe(0);
    quota.finished('send', { ...ended, headers: { 'ratelimit-limit': `${rate}, ${rate};w=1`, 'ratelimit-remaining': String(rate - 1), 'ratelimit-reset': '1' } }, now);
  };
  const stated = quota.state('send', limit, 0).perSecond;
  answer(10, 0);
  expect(quota.state('send', limit, 1).perSecond).toBeLessThan(stated / 2);
  answer(300, 5000);
  expect(quota.state('send', limit, 5001).perSecond).toBe(stated);
});

test('what the long run loses to the bound is a tenth where no burst is stated, and the stated burst where it is', () => {
  expect(steadyPerSecond({ steady: { count: 1000, perMs: 10_000 } })).toBeCloseTo(90.1);
  expect(steadyPerSecond({ burst: { count: 75, perMs: 1000 }, steady: { count: 750, perMs: 60_000 } })).toBeCloseTo(676 / 60);
  expect(steadyPerSecond({ burst: { count: 1, perMs: 1000 } })).toBeCloseTo(1);
  expect(steadyPerSecond(undefined)).toBe(Number.POSITIVE_INFINITY);
  expect(planBuckets({ steady: { count: 0, perMs: 1000 } }, 1)).toEqual([]);
});

test('no stated limit never waits', () => {
  const quota = quotaOf();
  for (let i = 0; i < 1000; i++) expect(quota.take(want(undefined), 0)).toBe(0);
});

test('the wait it names is enough, whatever the limit and the share', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 1000 }), fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 1, max: 12 }), (count, perMs, slots) => {
    const part = { slots, held: () => 1 };
    const quota = quotaOf(() => ({ operation: part, account: part }), { steady: { count, perMs } });
    let now = 0;
    for (let i = 0; i < 50; i++) {
      const wait = quota.take(want({ burst: { count, perMs } }), now);
      now += wait;
      if (wait > 0) expect(quota.take(want({ burst: { count, perMs } }), now)).toBe(0);
      quota.finished('send', ended, now);
    }
  }));
});

test.each([['seconds', 2000, 2000], ['absurd: ten years', 3e11, 250], ['negative', -5, 250], ['none', undefined, 250], ['not a number', Number.NaN, 250], ['hours: looked at once an hour', 40_000_000, 3_600_000]])('a refusal with Retry-After %s closes, then one call at a time until one is let through', (_name, retryAfterMs, least) => {
  const quota = quotaOf();
  for (let i = 0; i < 5; i++) expect(quota.take(want(undefined), 0)).toBe(0);
  for (let i = 0; i < 5; i++) quota.finished('send', { throttled: true, answered: true, retryAfterMs }, 1);
  const wait = quota.take(want(undefined), 2);
  expect(wait).toBeGreaterThanOrEqual(least - 2);
  expect(wait).toBeLessThanOrEqual(3_600_000);
  const then = 2 + wait;
  expect(quota.take(want(undefined), then)).toBe(0);
  expect(quota.take(want(undefined), then)).toBeGreaterThan(0);
  quota.finished('send', ended, then + 10);
  expect(quota.take(want(undefined), then + 1000)).toBe(0);
});

test('refusals without a pause of the vendor back off further and further, up to five minutes', () => {
  const quota = quotaOf();
  let now = 0;
  const waits: number[] = [];
  for (let i = 0; i < 14; i++) {
    expect(quota.take(want(undefined), now)).toBe(0);
    quota.finished('send', { throttled: true, answered: true }, now);
    const wait = quota.take(want(undefined), now);
    waits.push(wait);
    now += wait;
  }
  expect(waits[0]).toBe(500);
  expect(waits[1]).toBe(1000);
  expect(Math.max(...waits)).toBeLessThanOrEqual(300_000);
  expect(waits.at(-1)).toBe(300_000);
});

test('a refusal at an operation whose limit nobody stated teaches a rate below the one that was refused, which grows again', () => {
  const quota = quotaOf();
  for (let i = 0; i < 100; i++) {
    expect(quota.take(want(undefined), 2000 + i)).toBe(0);
    quota.finished('send', i === 99 ? { throttled: true, answered: true, retryAfterMs: 1000 } : ended, 2000 + i);
  }
  const times: number[] = [];
  for (let now = 4000; now < 12_000; now += 5) while (quota.take(want(undefined), now) === 0) { times.push(now); quota.finished('send', ended, now); }
  expect(mostInWindow(times, 1000)).toBeLessThanOrEqual(70);
  expect(times.length).toBeGreaterThan(300);
  times.length = 0;
  for (let now = 12_000; now < 100_000; now += 5) for (let i = 0; i < 10 && quota.take(want(undefined), now) === 0; i++) { times.push(now); quota.finished('send', ended, now); }
  expect(mostInWindow(times, 1000)).toBeGreaterThan(1000);
});

test('a refusal at a few calls a second teaches no rate: Retry-After says enough', () => {
  const quota = quotaOf();
  expect(quota.take(want(undefined), 0)).toBe(0);
  quota.finished('send', { throttled: true, answered: true, retryAfterMs: 1000 }, 0);
  expect(quota.take(want(undefined), 1000)).toBe(0);
  quota.finished('send', ended, 1001);
  for (let i = 0; i < 100; i++) expect(quota.take(want(undefined), 1002)).toBe(0);
});

test('the headers of a vendor bind: what is left, until when, and each instance takes its part of it', () => {
  const part = { slots: 4, held: () => 1 };
  const quota = quotaOf(() => ({ operation: part, account: part }));
  expect(quota.take(want(undefined), 0)).toBe(0);
  quota.finished('send', { ...ended, headers: { 'ratelimit-limit': '100', 'ratelimit-remaining': '8', 'ratelimit-reset': '10' } }, 0);
  expect(quota.state('send', undefined, 0).told).toBe(2);
  expect(quota.take(want(undefined), 1)).toBe(0);
  expect(quota.take(want(undefined), 1)).toBe(0);
  expect(quota.take(want(undefined), 1)).toBe(9999);
  expect(quota.take(want(undefined), 10_000)).toBe(0);
});

const at = 1_800_000_000_000;
test.each([
  ['draft 03–06', { 'ratelimit-limit': '100, 100;w=60, 1000;w=3600', 'ratelimit-remaining': '42', 'ratelimit-reset': '30' }, { remaining: 42, resetMs: 30_000, rates: [{ count: 100, perMs: 60_000 }, { count: 1000, perMs: 3_600_000 }] }],
  ['draft 07 and later', { 'ratelimit-policy': '"burst";q=100;w=60,"daily";q=1000;w=86400', ratelimit: '"burst";r=50;t=30,"daily";r=7;t=4000' }, { remaining: 7, resetMs: 4_000_000, rates: [{ count: 100, perMs: 60_000 }, { count: 1000, perMs: 86_400_000 }] }],
  ['X-, epoch seconds', { 'x-ratelimit-limit': '60', 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': String(at / 1000 + 20) }, { remaining: 0, resetMs: 20_000, rates: [] }],
  ['X-, epoch ms', { 'x-ratelimit-remaining': '3', 'x-ratelimit-reset': String(at + 1500) }, { remaining: 3, resetMs: 1500, rates: [] }],
  ['a reset in another century', { 'ratelimit-remaining': '0', 'ratelimit-reset': '99999999999999' }, { remaining: 0, resetMs: undefined, rates: [] }],
  ['nothing', { date: 'x' }, undefined],
])('rate headers: %s', (_name, headers, expected) => {
  expect(readRateHeaders(headers, undefined, at)).toEqual(expected);
});

test('whatever the headers hold, nothing throws and no number is out of bounds', () => {
  const value = fc.oneof(fc.string({ maxLength: 600 }), fc.stringMatching(/^[\d.;=wqrt", ]{0,60}$/));
  const names = ['ratelimit', 'ratelimit-policy', 'ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset', 'x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset'];
  fc.assert(fc.property(fc.dictionary(fc.constantFrom(...names), value), (headers) => {
    const told = readRateHeaders(headers, undefined, at);
    for (const n of [told?.remaining, told?.resetMs, ...(told?.rates ?? []).flatMap((r) => [r.count, r.perMs])]) if (n !== undefined) expect(Number.isFinite(n) && n >= 0).toBe(true);
    const quota = quotaOf();
    quota.take(want(undefined), 0);
    quota.finished('send', { ...ended, headers }, 0);
    for (const now of [1, 2]) {
      const wait = quota.take(want(undefined), now);
      expect(wait).toBeLessThanOrEqual(3_600_000);
      if (wait === 0) quota.finished('send', ended, now);
    }
  }));
});

test('a rate that a vendor tells with a window of a month stops nobody for a month: one call an hour looks whether it still stands; what is stated holds for as long as it says', () => {
  const month = { count: 1, perMs: 31 * 86_400_000 };
  const quota = quotaOf();
  expect(quota.take(want(undefined), 0)).toBe(0);
  quota.finished('send', { ...ended, headers: { 'ratelimit-policy': '"month";q=1;w=2678400' } }, 0);
  expect(quota.take(want(undefined), 1)).toBe(0);
  quota.finished('send', ended, 1);
  expect(quota.take(want(undefined), 2)).toBe(3_600_000 - 1);
  expect(quota.take(want(undefined), 3_600_001)).toBe(0);
  expect(quota.take(want(undefined), 3_600_001)).toBe(3_600_000);
  const stated = quotaOf();
  expect(stated.take(want({ steady: month }), 0)).toBe(0);
  stated.finished('send', ended, 0);
  expect(stated.take(want({ steady: month }), 1)).toBeGreaterThan(month.perMs / 2);
});

test('a class that waits elsewhere in the account goes before a lower one, restrict always; each tenth call goes to who is below', () => {
  const limit = { steady: { count: 100, perMs: 1000 } };
  const run = (above: Want['class'], below: Want['class']): [number, number] => {
    const quota = quotaOf();
    let a = 0;
    let b = 0;
    for (let now = 0; now < 20_000; now += 3) {
      if (quota.take(want(limit, { class: below, who: 'b' }), now) === 0) { b++; quota.finished('send', ended, now); }
      if (quota.take(want(limit, { class: above, who: 'a' }), now) === 0) { a++; quota.finished('send', ended, now); }
    }
    return [a, b];
  };
  const [live, replay] = run('live', 'replay');
  expect(replay / (live + replay)).toBeGreaterThan(0.05);
  expect(replay / (live + replay)).toBeLessThan(0.2);
  const [restrict, other] = run('restrict', 'live');
  expect(other / (restrict + other)).toBeLessThan(0.02);
});

test('a higher class that waits for another bucket holds nobody up', () => {
  const quota = quotaOf();
  expect(quota.take(want(undefined, { bucket: 'a' }), 0)).toBe(0);
  quota.finished('a', { throttled: true, answered: true, retryAfterMs: 60_000 }, 0);
  for (let now = 1; now < 100; now++) {
    expect(quota.take(want(undefined, { bucket: 'a', class: 'restrict', who: 'other' }), now)).toBeGreaterThan(0);
    expect(quota.take(want(undefined, { bucket: 'b' }), now)).toBe(0);
  }
});

test('an account\'s own limit holds over all its operations, and a refusal closes all of them', () => {
  const quota = quotaOf(() => whole, { burst: { count: 10, perMs: 1000 } });
  const times: number[] = [];
  for (let now = 0; now < 5000; now += 10) for (const bucket of ['a', 'b', 'c']) if (quota.take(want(undefined, { bucket }), now) === 0) { times.push(now); quota.finished(bucket, ended, now); }
  expect(mostInWindow(times, 1000)).toBeLessThanOrEqual(10);
  expect(times.length).toBeGreaterThan(30);
  expect(quota.take(want(undefined, { bucket: 'a' }), 9000)).toBe(0);
  quota.finished('a', { throttled: true, answered: true, retryAfterMs: 5000 }, 9000);
  expect(quota.take(want(undefined, { bucket: 'b' }), 9001)).toBe(4999);
});

test('an account that was refused under a limit of its own is not held to one call at a time for ever when a release takes that limit away', () => {
  let limit: Limit | undefined = { burst: { count: 100, perMs: 1000 } };
  const quota = createAccountQuota({ share: () => whole, limit: () => limit, random: () => 0.5, now: () => 0 });
  expect(quota.take(want(undefined), 0)).toBe(0);
  quota.finished('send', { throttled: true, answered: true, retryAfterMs: 1000 }, 0);
  limit = undefined;
  expect(quota.take(want(undefined), 2000)).toBe(0);
  expect(quota.take(want(undefined), 2000)).toBeGreaterThan(0);
  quota.finished('send', ended, 2000);
  for (let i = 0; i < 5; i++) expect(quota.take(want(undefined), 2001)).toBe(0);
});

test('a preview tells the time: at once what fits, the rest at the rate of the tightest limit and the share', () => {
  const limit = { burst: { count: 75, perMs: 1000 }, steady: { count: 750, perMs: 60_000 } };
  expect(timeFor(1_000_000, [undefined])).toBe(0);
  expect(timeFor(75, [{ steady: { count: 750, perMs: 60_000 } }])).toBe(0);
  expect(timeFor(60_000, [limit])).toBeCloseTo((60_000 - 75) / (676 / 60_000), 0);
  expect(timeFor(60_000, [limit], 0.1) / timeFor(60_000, [limit])).toBeCloseTo(10, 1);
  expect(timeFor(100, [limit], 0)).toBe(Number.POSITIVE_INFINITY);
  expect(costOf(1500, [limit, { steady: { count: 250_000, perMs: 86_400_000 } }])).toMatchObject({ calls: 1500, windows: 20 });
});
