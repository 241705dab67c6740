import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLimiter } from './limiter.ts';

test('in no window are more calls let through than the limit plus one bucket', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 50 }), fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 50, maxLength: 400 }), (count, gaps) => {
    const perMs = 1000;
    const limiter = createLimiter({ steady: { count, perMs }, cite: '' }, () => 1);
    const taken: number[] = [];
    let now = 0;
    for (const gap of gaps) {
      now += gap;
      if (limiter.take(now) === 0) taken.push(now);
    }
    for (let i = 0; i < taken.length; i++) {
      const inWindow = taken.filter((t) => t >= taken[i]! && t < taken[i]! + perMs).length;
      expect(inWindow).toBeLessThanOrEqual(2 * count);
    }
  }));
});

test('the wait it names is enough', () => {
  const limiter = createLimiter({ burst: { count: 2, perMs: 1000 }, cite: '' }, () => 1);
  expect(limiter.take(0)).toBe(0);
  expect(limiter.take(0)).toBe(0);
  const wait = limiter.take(0);
  expect(wait).toBe(500);
  expect(limiter.take(wait)).toBe(0);
});

test('no stated limit never waits', () => {
  const limiter = createLimiter(undefined, () => 1);
  for (let i = 0; i < 1000; i++) expect(limiter.take(0)).toBe(0);
});
