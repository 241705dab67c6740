import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createFewAtOnce, createInTurn } from './in-turn.ts';

test('whatever each takes and comes to, they go one at a time and in order, and each caller gets his own', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ turns: fc.nat(3), fails: fc.boolean(), sync: fc.boolean() }), { maxLength: 8 }), async (works) => {
    const inTurn = createInTurn();
    const told: string[] = [];
    const end = (i: number): number => {
      told.push(`end ${i}`);
      if (works[i]!.fails) throw new Error(`failed ${i}`);
      return i;
    };
    const results = await Promise.allSettled(works.map(({ turns, sync }, i) => inTurn(() => {
      told.push(`begin ${i}`);
      return sync ? end(i) : (async () => {
        for (let n = 0; n < turns; n++) await new Promise(setImmediate);
        return end(i);
      })();
    })));
    expect(told).toEqual(works.flatMap((_, i) => [`begin ${i}`, `end ${i}`]));
    expect(results.map((r) => (r.status === 'fulfilled' ? r.value : (r.reason as Error).message))).toEqual(works.map(({ fails }, i) => (fails ? `failed ${i}` : i)));
  }), { numRuns: 50 });
});

test('whatever each takes and comes to, no more than so many go at once, each gets his turn in order, and no place is lost', async () => {
  await fc.assert(fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(fc.record({ turns: fc.nat(3), fails: fc.boolean() }), { maxLength: 12 }), async (atOnce, works) => {
    const few = createFewAtOnce(atOnce);
    const begun: number[] = [];
    let [underWay, most] = [0, 0];
    const results = await Promise.allSettled(works.map(({ turns, fails }, i) => few(async () => {
      begun.push(i);
      most = Math.max(most, ++underWay);
      for (let n = 0; n < turns; n++) await new Promise(setImmediate);
      underWay--;
      if (fails) throw new Error(`failed ${i}`);
      return i;
    })));
    expect(begun).toEqual(works.map((_, i) => i));
    // Work that waits for nothing is over before the next begins.
    const longest = Math.min(atOnce, works.length);
    expect(most).toBeLessThanOrEqual(longest);
    if (works.every(({ turns }) => turns > 0)) expect(most).toBe(longest);
    expect(results.map((r) => (r.status === 'fulfilled' ? r.value : (r.reason as Error).message))).toEqual(works.map(({ fails }, i) => (fails ? `failed ${i}` : i)));
  }), { numRuns: 50 });
});
