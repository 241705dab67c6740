import type { Cap } from '@weir/release';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { cappedBy, countedOf, dayOf, type Counted } from './caps.ts';
import type { EndValue } from './types.ts';

const cap = (over: Partial<Cap> = {}): Cap => ({ name: 'mail', max: 2, purpose: 'email-marketing', channel: undefined, operation: undefined, destination: undefined, timezone: 'UTC', over: 'deny', file: 'x', line: 1, ...over });
const noon = Date.UTC(2026, 5, 1, 12);
const one = (at: number, over: Partial<Counted> = {}): Counted => ({ key: 'k', at, purpose: 'email-marketing', channel: 'email', operation: 'send', ...over });
const delivery = { purpose: 'email-marketing', channel: 'email', operation: 'send' };
const capped = (caps: readonly Cap[], counted: readonly Counted[], of: { purpose: string | null; channel: string | null; operation: string } = delivery, now = noon) => cappedBy(caps, of, () => counted, now)?.cap.name;

test('what was delivered today counts, of the purpose, channel and operation that the cap names; yesterday does not', () => {
  expect(capped([cap()], [one(noon - 1)])).toBeUndefined();
  expect(capped([cap()], [one(noon - 1), one(noon - 2)])).toBe('mail');
  expect(capped([cap()], [one(noon - 1), one(noon - 13 * 3_600_000)])).toBeUndefined();
  expect(capped([cap()], [one(noon - 1), one(noon - 2, { purpose: 'service' })])).toBeUndefined();
  expect(capped([cap({ channel: 'sms' })], [one(noon - 1), one(noon - 2)])).toBeUndefined();
  expect(capped([cap({ purpose: undefined })], [one(noon - 1), one(noon - 2, { purpose: 'service' })])).toBe('mail');
  expect(capped([cap({ name: 'a', channel: 'sms', max: 1 }), cap({ name: 'b' })], [one(1), one(noon), one(noon)])).toBe('b');
});

test('restrict is never capped and never counts', () => {
  expect(capped([cap({ purpose: undefined, max: 1 })], [one(noon), one(noon)], { purpose: null, channel: null, operation: 'unsubscribe' })).toBeUndefined();
  expect(countedOf({ state: 'delivered', effect: 'done', purpose: null } as EndValue)).toBeUndefined();
});

test('what may have taken effect counts as if it had: the cap is hard', () => {
  const end = { purpose: 'p', channel: null, operation: 'o', at: 5 };
  expect(countedOf({ ...end, state: 'dead-lettered', effect: 'maybe' } as EndValue)).toMatchObject({ at: 5, purpose: 'p' });
  expect(countedOf({ ...end, state: 'dead-lettered', effect: 'none' } as EndValue)).toBeUndefined();
  expect(countedOf({ ...end, state: 'denied', effect: 'none' } as EndValue)).toBeUndefined();
});

test('a day begins where the cap says, also on the days on which the clock is changed', () => {
  const iso = (at: number): string => new Date(at).toISOString();
  const of = (at: string, zone: string): string[] => { const day = dayOf(Date.parse(at), zone); return [iso(day.start), iso(day.end)]; };
  expect(of('2026-06-01T12:00:00Z', 'UTC')).toEqual(['2026-06-01T00:00:00.000Z', '2026-06-02T00:00:00.000Z']);
  expect(of('2026-06-01T23:30:00Z', 'Europe/Berlin')).toEqual(['2026-06-01T22:00:00.000Z', '2026-06-02T22:00:00.000Z']);
  expect(of('2026-03-29T12:00:00Z', 'Europe/Berlin')).toEqual(['2026-03-28T23:00:00.000Z', '2026-03-29T22:00:00.000Z']);
  expect(of('2026-10-25T12:00:00Z', 'Europe/Berlin')).toEqual(['2026-10-24T22:00:00.000Z', '2026-10-25T23:00:00.000Z']);
  expect(of('2026-06-01T12:00:00Z', 'Asia/Kathmandu')).toEqual(['2026-05-31T18:15:00.000Z', '2026-06-01T18:15:00.000Z']);
  // Midnight itself is skipped there: the day begins at one.
  expect(of('2024-04-26T12:00:00Z', 'Africa/Cairo')).toEqual(['2024-04-25T22:00:00.000Z', '2024-04-26T21:00:00.000Z']);
});

test('every time is within its day, and days follow one another without a gap', () => {
  fc.assert(fc.property(fc.integer({ min: Date.UTC(2024, 0, 1), max: Date.UTC(2028, 0, 1) }), fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York', 'Africa/Cairo', 'Australia/Lord_Howe', 'Pacific/Auckland'), (at, zone) => {
    const day = dayOf(at, zone);
    expect(day.start).toBeLessThanOrEqual(at);
    expect(day.end).toBeGreaterThan(at);
    expect(dayOf(day.end, zone).start).toBe(day.end);
  }), { numRuns: 300 });
});
