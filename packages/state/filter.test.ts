import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createKeyFilter } from './filter.ts';

test('a key that was added is never told to be away', () => {
  const filter = createKeyFilter();
  fc.assert(fc.property(fc.array(fc.string({ unit: 'binary' })), (keys) => {
    for (const key of keys) filter.add(key);
    expect(keys.every((key) => filter.may(key))).toBe(true);
  }));
});

test('of keys that are away, like those that are there, it tells nearly all', () => {
  const filter = createKeyFilter();
  for (let i = 0; i < 1_000_000; i++) filter.add(`b|userId:${i.toString(36).padStart(22, 'A')}`);
  let through = 0;
  for (let i = 1_000_000; i < 1_100_000; i++) if (filter.may(`b|userId:${i.toString(36).padStart(22, 'A')}`)) through++;
  expect(through).toBeLessThan(1000);
});
