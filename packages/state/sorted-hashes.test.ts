import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSortedHashes, hashOf, hexOf } from './sorted-hashes.ts';

type Shown = [high: number, low: number, value: number, second: number];
const all = (hashes: ReturnType<typeof createSortedHashes>, limit: number): Shown[] => {
  const shown: Shown[] = [];
  for (let place = 0; place >= 0;) place = hashes.each(place, limit, (...entry) => shown.push(entry));
  return shown;
};

test('hashes are kept as a map keeps them, in their order, also many that begin alike, at the end of the room and while it grows', () => {
  const high = fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 2 ** 52 - 3, max: 2 ** 52 - 1 }), fc.maxSafeInteger().map((n) => Math.abs(n) % 2 ** 52));
  const step = fc.record({ high, low: fc.integer({ min: 0, max: 4 }), many: fc.constantFrom(1, 1, 200, 1500), remove: fc.boolean(), clear: fc.integer({ min: 0, max: 9 }).map((n) => n === 0) });
  fc.assert(fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: 1, max: 700 }), fc.boolean(), (steps, limit, seconds) => {
    const hashes = createSortedHashes(seconds);
    const model = new Map<string, number>();
    const secondOf = (value: number | undefined): number => (seconds ? (value ?? 0) % 7 : 0);
    for (const [i, { high, low, many, remove, clear }] of steps.entries()) {
      if (clear) {
        hashes.clear();
        model.clear();
      }
      for (let n = 0; n < many; n++) {
        const key = hexOf(high, low + n);
        if (remove) {
          hashes.delete(high, low + n);
          model.delete(key);
        } else {
          hashes.set(high, low + n, i + 1, (i + 1) % 7);
          model.set(key, i + 1);
        }
      }
    }
    expect(hashes.size()).toBe(model.size);
    expect(all(hashes, limit).map(([h, l, value, second]) => [hexOf(h, l), value, second])).toEqual([...model].sort(([a], [b]) => (a < b ? -1 : 1)).map(([hex, value]) => [hex, value, secondOf(value)]));
    for (const { high, low } of steps) {
      expect([hashes.get(high, low), hashes.second(high, low)]).toEqual([model.get(hexOf(high, low)), secondOf(model.get(hexOf(high, low)))]);
      const under: [string, number][] = [];
      hashes.under(high, (second, value) => under.push([hexOf(high, second), value]));
      expect(under).toEqual([...model].filter(([key]) => key.startsWith(hexOf(high, 0).slice(0, 13))).sort(([a], [b]) => (a < b ? -1 : 1)));
    }
  }), { numRuns: 25 });
});

test('a hash is told from its digits and its digits from it', () => {
  fc.assert(fc.property(fc.array(fc.constantFrom(...'0123456789abcdef'), { minLength: 26, maxLength: 40 }), (digits) => {
    const hex = digits.join('');
    expect(hexOf(...hashOf(hex))).toBe(hex.slice(0, 26));
    expect(hashOf(`dlv_${hex}`, 4)).toEqual([Number.parseInt(hex.slice(0, 13), 16), Number.parseInt(hex.slice(13, 26), 16)]);
  }));
});
