import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { rawOwner } from './raw.ts';

test('the owner is of the source and the day that are asked for, whichever was asked for before', () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.constantFrom('shop', 'crm'), fc.constantFrom(0, 1, 20_000, 20_001), fc.constantFrom(0, 1, 43_200_000, 86_399_999)), { minLength: 1 }), (asked) => {
    for (const [source, day, ms] of asked) expect(rawOwner(source, day * 86_400_000 + ms)).toBe(`raw/${source}/${new Date(day * 86_400_000).toISOString().slice(0, 10)}`);
  }));
});
