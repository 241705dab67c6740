import { hash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createIdSet } from './seen.ts';

const word = fc.oneof(fc.constantFrom('00000000', '00000001', 'ffffffff'), fc.integer({ min: 0, max: 0xffffffff }).map((n) => n.toString(16).padStart(8, '0')));

test('an id is new once, by all of its 24 digits, however many there are and however alike', () => {
  fc.assert(fc.property(fc.array(fc.tuple(word, word, word), { maxLength: 600 }), (list) => {
    const set = createIdSet();
    const known = new Set<string>();
    for (const id of list.map((words) => words.join(''))) {
      expect(set.add(`${id}0123`)).toBe(!known.has(id));
      known.add(id);
    }
    expect(set.size).toBe(known.size);
  }), { numRuns: 200 });
});

test.each([['that are hashes', (i: number): string => hash('sha256', String(i))], ['that count', (i: number): string => i.toString(16).padStart(24, '0')], ['that count in front', (i: number): string => i.toString(16).padStart(8, '0').padEnd(24, 'a')]])('of a hundred thousand ids %s each is found again', (_what, id) => {
  const set = createIdSet();
  for (let i = 0; i < 100_000; i++) if (!set.add(id(i))) throw new Error(`${i} is taken for another`);
  for (let i = 0; i < 100_000; i += 7) if (set.add(id(i))) throw new Error(`${i} is forgotten`);
  expect(set.size).toBe(100_000);
});
