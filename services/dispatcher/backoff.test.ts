import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backoffMs, boundedRetryAfter } from './backoff.ts';

test('backoff never exceeds its cap and never falls under half the base', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 1000 }), fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }), (attempt, random) => {
    const ms = backoffMs(attempt, random);
    expect(ms).toBeGreaterThanOrEqual(100);
    expect(ms).toBeLessThanOrEqual(60_000);
  }));
});

test('an absurd Retry-After is bounded and a broken one is ignored', () => {
  expect(boundedRetryAfter(10 ** 15)).toBe(3_600_000);
  expect(boundedRetryAfter(Number.NaN)).toBeUndefined();
  expect(boundedRetryAfter(-5)).toBeUndefined();
  expect(boundedRetryAfter(2_000)).toBe(2_000);
});
