import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createUnreserved, mostReserved, type QuotaReserve } from './index.ts';

const reserves = new Map<string, QuotaReserve>();
let wall = 1_800_000_000_000;
let monotonic = 0;
const create = () => createUnreserved({ reserves: () => reserves, now: () => wall, monotonic: () => monotonic });

test('a reserve is left from the first look for its time by the own clock, whatever the clocks of two machines say, and then ends by itself', () => {
  fc.assert(fc.property(fc.integer({ min: -1_000_000, max: 1_000_000 }), fc.integer({ min: 1, max: 60_000 }), fc.double({ min: -1, max: 2, noNaN: true }), (skew, forMs, share) => {
    const unreserved = create();
    reserves.set('crm', { account: 'crm', share, at: wall + skew, forMs });
    const left = 1 - Math.min(mostReserved, Math.max(0, share));
    expect([unreserved('crm'), unreserved('other')]).toEqual([left, 1]);
    monotonic += forMs - 1;
    expect(unreserved('crm')).toBe(left);
    monotonic += 1;
    expect(unreserved('crm')).toBe(1);
  }));
});

test('a renewal begins anew; one that its announcer left on the topic long ago is nothing to who reads it today', () => {
  const unreserved = create();
  reserves.set('crm', { account: 'crm', share: 0.5, at: wall, forMs: 1000 });
  expect(unreserved('crm')).toBe(0.5);
  monotonic += 900;
  wall += 900;
  reserves.set('crm', { account: 'crm', share: 0.2, at: wall, forMs: 1000 });
  expect(unreserved('crm')).toBe(0.8);
  monotonic += 900;
  expect(unreserved('crm')).toBe(0.8);
  wall += 2 * 3_600_000;
  expect(create()('crm')).toBe(1);
});
