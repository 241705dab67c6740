import { expect, test } from 'vitest';
import { createFetchPace } from './fetch-pace.ts';

test('after an answer of little the next request begins 8 ms after the last, or later while timers fire late; after one of much it may begin at once, and for who is in a hurry not later than that', () => {
  const pace = createFetchPace();
  pace.began(100);
  expect(pace.dueAt({ bytes: 64 * 1024 - 1, urgent: false })).toBe(108);
  expect(pace.dueAt({ bytes: 64 * 1024, urgent: false })).toBe(100);
  pace.fired(6);
  pace.began(200);
  expect(pace.dueAt({ bytes: 0, urgent: false })).toBe(212);
  expect(pace.dueAt({ bytes: 0, urgent: false }, true)).toBe(208);
});

test('of urgent answers four go at once, and the fifth request begins no sooner than four spacings after the first', () => {
  const pace = createFetchPace();
  for (const now of [100, 101, 102]) {
    pace.began(now);
    expect(pace.dueAt({ bytes: 1, urgent: true })).toBe(-Infinity);
  }
  pace.began(103);
  expect(pace.dueAt({ bytes: 1, urgent: true })).toBe(132);
  pace.began(132);
  expect(pace.dueAt({ bytes: 1, urgent: true })).toBe(133);
});
