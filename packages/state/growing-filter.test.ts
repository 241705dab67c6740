import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createGrowingFilter } from './growing-filter.ts';

const nameOf = (i: number): string => `b|userId:${i.toString(36).padStart(22, 'A')}`;

test('a key that was added is never told to be away, from the first part to the third one', () => {
  const filter = createGrowingFilter();
  fc.assert(fc.property(fc.array(fc.string({ unit: 'binary' })), (keys) => {
    for (const key of keys) filter.add(key);
    expect(keys.every((key) => filter.may(key))).toBe(true);
  }));
  for (let i = 0; i < 100_000; i++) filter.add(nameOf(i));
  for (let i = 0; i < 100_000; i++) if (!filter.may(nameOf(i))) expect.fail(`${nameOf(i)} was added`);
});

test('memory follows the keys, and nearly all that are away are told', () => {
  const budget = { bytes: 64 * 1024 * 1024 };
  const taken = (): number => 64 * 1024 * 1024 - budget.bytes;
  const filter = createGrowingFilter(budget);
  expect([taken(), filter.may('a')]).toEqual([0, false]);
  filter.add('a');
  expect(taken()).toBe(65_536);
  for (let i = 0; i < 1_000_000; i++) filter.add(nameOf(i));
  expect(taken()).toBeLessThan(5.5 * 1024 * 1024);
  // Told again, they take no room.
  for (let i = 0; i < 1_000_000; i++) filter.add(nameOf(i));
  expect(taken()).toBeLessThan(5.5 * 1024 * 1024);
  let through = 0;
  for (let i = 1_000_000; i < 1_100_000; i++) if (filter.may(nameOf(i))) through++;
  expect(through).toBeLessThan(1000);
  filter.drop();
  expect([taken(), filter.may(nameOf(1_200_000)), filter.dropped()]).toEqual([0, true, true]);
});

test('where the budget is spent it gives its part back and tells of nothing', () => {
  const budget = { bytes: 5 * 65_536 };
  const filter = createGrowingFilter(budget);
  for (let i = 0; i < 80_000; i++) filter.add(nameOf(i));
  expect(filter.dropped()).toBe(false);
  for (let i = 80_000; i < 100_000; i++) filter.add(nameOf(i));
  expect([filter.dropped(), budget.bytes, filter.may('away')]).toEqual([true, 5 * 65_536, true]);
  filter.add('away');
  expect(budget.bytes).toBe(5 * 65_536);
});
