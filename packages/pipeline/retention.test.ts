import { expect, test } from 'vitest';
import { expiringBefore, retentionOf } from './retention.ts';

test('a record leaves at nine tenths of the retention, and never where nothing is deleted by age', () => {
  expect(expiringBefore(1000, 10_000)).toBe(9100);
  expect(expiringBefore(Number.POSITIVE_INFINITY, 10_000)).toBe(Number.NEGATIVE_INFINITY);
});

test('retention is what the broker applies: -1 and a topic that is only compacted keep for ever', () => {
  expect(retentionOf({ 'retention.ms': '604800000', 'cleanup.policy': 'delete' })).toBe(604_800_000);
  expect(retentionOf({ 'retention.ms': '604800000', 'cleanup.policy': 'compact,delete' })).toBe(604_800_000);
  expect(retentionOf({ 'retention.ms': '604800000', 'cleanup.policy': 'compact' })).toBe(Number.POSITIVE_INFINITY);
  expect(retentionOf({ 'retention.ms': '-1' })).toBe(Number.POSITIVE_INFINITY);
  expect(retentionOf({ 'retention.ms': '0' })).toBe(0);
});

test('a retention that the brokers do not tell is not known: for ever, or what the caller takes then, and never 7 days', () => {
  for (const config of [undefined, {} as Record<string, string>, { 'retention.ms': '' }, { 'retention.ms': 'week' }, { 'cleanup.policy': 'delete' }]) {
    expect([config, retentionOf(config)]).toEqual([config, Number.POSITIVE_INFINITY]);
    expect([config, retentionOf(config, 5)]).toEqual([config, 5]);
  }
  // That is told: it deletes nothing by age.
  expect(retentionOf({ 'cleanup.policy': 'compact' }, 5)).toBe(Number.POSITIVE_INFINITY);
});
