import { closure } from '@weir/policy';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { linkedWith } from './links.ts';

const id = fc.integer({ min: 0, max: 14 }).map((n) => `email:${n}`);

test('the short way over the links of a record leaves out nobody that the closure has, whoever is linked with whom', () => {
  fc.assert(fc.property(fc.uniqueArray(id, { maxLength: 10 }), fc.array(fc.tuple(id, id), { maxLength: 12 }), (ids, pairs) => {
    const links = (of: string): string[] => pairs.flatMap(([a, b]) => (a === of ? [b] : b === of ? [a] : []));
    expect(new Set(linkedWith(ids, links))).toEqual(new Set(closure(ids, links)));
  }), { numRuns: 500 });
});

test('who is linked with more than may be decided on is not decided on, also when he is among few', () => {
  const wide = Array.from({ length: 65 }, (_, i) => `phone:${i}`);
  expect(linkedWith(['email:1', 'email:2'], (of) => (of === 'email:2' ? wide : []))).toBeUndefined();
});
