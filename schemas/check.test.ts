import { expect, test } from 'vitest';
import { check, incompatibility, styleProblems } from './check.ts';
import type { AvroRecord } from './index.ts';

const record = (fields: unknown[]): AvroRecord => ({ type: 'record', name: 'R', namespace: 'n', doc: 'd', fields: fields as AvroRecord['fields'] });

test('a required field that is added, and one that is removed, are seen', () => {
  const a = record([{ name: 'x', type: 'string', doc: 'd' }]);
  const b = record([{ name: 'x', type: 'string', doc: 'd' }, { name: 'y', type: 'string', doc: 'd' }]);
  const c = record([{ name: 'x', type: 'string', doc: 'd' }, { name: 'y', type: ['null', 'string'], default: null, doc: 'd' }]);
  expect(incompatibility(b, a)).toMatch(/y/);
  expect(incompatibility(a, b)).toBeUndefined();
  expect([incompatibility(c, a), incompatibility(a, c)]).toEqual([undefined, undefined]);
});

test('a nested field without a doc and a reserved name are seen', () => {
  expect(styleProblems(record([{ name: '__proto__', doc: 'd', type: { type: 'array', items: record([{ name: 'z', type: 'int' }]) } }]))).toHaveLength(2);
});

test('the schemas of this version are compatible with every recorded one', () => {
  expect(check()).toEqual([]);
});
