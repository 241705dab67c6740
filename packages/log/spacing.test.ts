import { expect, test } from 'vitest';
import { createSpacing } from './spacing.ts';

test('requests go as far apart as was asked for while timers fire in time, and further while they are late', () => {
  const spacing = createSpacing(8);
  for (let i = 0; i < 100; i++) spacing.fired(i % 6);
  expect(spacing.ms()).toBe(8);
  spacing.fired(6);
  expect(spacing.ms()).toBe(12);
  for (let i = 0; i < 20; i++) spacing.fired(40);
  expect(spacing.ms()).toBe(128);
});

test('one late timer now and then keeps nothing apart, and all is as before soon after the processor is free', () => {
  const spacing = createSpacing(4);
  for (let i = 0; i < 50; i++) spacing.fired(i % 10 === 0 ? 20 : 0);
  expect(spacing.ms()).toBe(4);
  for (let i = 0; i < 20; i++) spacing.fired(40);
  for (let i = 0; i < 27; i++) spacing.fired(0);
  expect(spacing.ms()).toBe(4);
});
