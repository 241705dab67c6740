import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLinkAges } from './link-ages.ts';

const record = (key: string | null, value: Buffer | null = Buffer.alloc(1)): { key: Buffer | null; value: Buffer | null } => ({ key: key === null ? null : Buffer.from(key), value });
const nothing = (): boolean => false;

test('nothing is known before the begin; then an identifier is as far as the batch that named it last, and one that was not named as far as the begin', () => {
  const ages = createLinkAges();
  ages.note(0, 9, [record('a~b')], nothing);
  expect(ages.needed(['a'])).toBeUndefined();
  ages.begin([20, 30]);
  expect([ages.needed(['a']), ages.needed([])]).toEqual([[20, 30], [20, 30]]);
  for (let i = 0; i < 32; i++) ages.note(1, 31 + i, [record(`x${i}~y${i}`)], nothing);
  ages.note(0, 25, [record('c~ü'), record('@c'), record(null)], nothing);
  expect(ages.needed(['a', 'b'])).toEqual([20, 30]);
  expect(ages.needed(['x0'])).toEqual([20, 62]);
  expect(ages.needed(['ü'])).toEqual([25, 62]);
  expect(ages.needed(['a', 'c'])).toEqual([25, 62]);
});

test('a link that is known is said again without moving anybody; one that is taken away moves both', () => {
  const ages = createLinkAges();
  ages.begin([20]);
  const known = (a: string, b: string): boolean => `${a}~${b}` === 'a~b';
  ages.note(0, 30, [record('a~b')], known);
  expect(ages.needed(['a', 'b'])).toEqual([20]);
  ages.note(0, 31, [record('a~b', null)], known);
  expect([ages.needed(['a']), ages.needed(['b'])]).toEqual([[31], [31]]);
});

test('an instance that has read as far as is needed has every record of the identifiers, whatever came, however long ago', () => {
  const ids = ['userId:1', 'email:2', 'phone:3', 'x:long-identifier-of-somebody', 'y:long-identifier-of-somebody', 'ü'];
  fc.assert(fc.property(
    fc.array(fc.record({ partition: fc.nat(2), links: fc.array(fc.tuple(fc.constantFrom(...ids), fc.constantFrom(...ids)), { maxLength: 3 }), others: fc.nat(40), many: fc.constantFrom(0, 0, 0, 40_000) }), { maxLength: 30 }),
    fc.nat(30), fc.uniqueArray(fc.constantFrom(...ids)),
    (batches, begin, asked) => {
      const ages = createLinkAges();
      const positions = [0, 0, 0];
      /** By identifier: the next offset behind its last record of each partition. */
      const behind = new Map<string, number[]>();
      for (const [i, { partition, links, others, many }] of batches.entries()) {
        if (i === begin) ages.begin(positions);
        const records = links.map(([a, b]) => record(`${a}~${b}`));
        for (let o = 0; o < others + (i % 10 === 0 ? many : 0); o++) records.push(record(`o${o}~p${o}`));
        for (const [n, pair] of links.entries()) for (const id of pair) (behind.get(id) ?? behind.set(id, [0, 0, 0]).get(id)!)[partition] = positions[partition]! + n + 1;
        positions[partition] = positions[partition]! + records.length;
        ages.note(partition, positions[partition], records, nothing);
      }
      if (begin >= batches.length) ages.begin(positions);
      const needed = ages.needed(asked)!;
      for (const id of asked) for (const [p, offset] of (behind.get(id) ?? []).entries()) expect(needed[p] ?? 0).toBeGreaterThanOrEqual(offset);
      for (const [p, position] of positions.entries()) expect(needed[p] ?? 0).toBeLessThanOrEqual(position);
    },
  ), { numRuns: 60 });
});
