import { expect, test } from 'vitest';
import { closed, onAlive, onCancelled, onFailure, onStart, onSuccess, waitMs } from './breaker.ts';

test('a few failures between successes never open it', () => {
  let b = closed;
  for (let i = 0; i < 100; i++) {
    for (let k = 0; k < 4; k++) b = onFailure(b, i, 'x');
    expect(waitMs(b, i)).toBe(0);
    b = onSuccess();
  }
});

test('five failures in a row open it; one probe at a time; waits grow and stay bounded', () => {
  let b = closed;
  for (let k = 0; k < 5; k++) b = onFailure(b, 0, 'down');
  expect(waitMs(b, 0)).toBe(500);
  let now = 0;
  let last = 0;
  for (let i = 0; i < 20; i++) {
    now += waitMs(b, now);
    b = onStart(b);
    expect(waitMs(b, now)).toBe(Number.POSITIVE_INFINITY);
    b = onFailure(b, now, 'down');
    const wait = waitMs(b, now);
    expect(wait).toBeGreaterThanOrEqual(last);
    expect(wait).toBeLessThanOrEqual(30_000);
    last = wait;
  }
  expect(onAlive()).toEqual(closed);
});

test('a call that was in flight when it opened does not shorten what the vendor asked', () => {
  let b = onFailure(closed, 0, '429', { force: true, retryAfterMs: 60_000 });
  b = onFailure(b, 1, 'reset');
  expect(waitMs(b, 1)).toBe(59_999);
});

test('a probe that did not start is given back', () => {
  let b = onFailure(closed, 0, '429', { force: true, retryAfterMs: 10 });
  b = onStart(b);
  b = onCancelled(b, 50);
  expect(waitMs(b, 50)).toBe(0);
});
