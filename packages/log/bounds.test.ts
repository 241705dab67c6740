import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileBounds } from './bounds.ts';

const limits = { maxBytes: 10_000, maxItems: 500, maxDepth: 16 };
const refused = expect.objectContaining({ code: 'avro-undecodable' });
const long = (n: number): Buffer => avsc.Type.forSchema('long').toBuffer(n);

const schema = {
  type: 'record', name: 'Node', namespace: 'a.b', fields: [
    { name: 'kind', type: { type: 'enum', name: 'Kind', symbols: ['A', 'B'] } },
    { name: 'next', type: ['null', 'Node'], default: null },
    { name: 'list', type: { type: 'array', items: ['null', 'long', 'string'] } },
    { name: 'map', type: { type: 'map', values: { type: 'fixed', name: 'F', size: 3 } } },
    { name: 'other', type: ['null', 'a.b.Kind', 'double', 'boolean', 'bytes'] },
  ],
} as const;

test('what avsc writes is let through, and every cut of it is refused', () => {
  const type = avsc.Type.forSchema(schema as unknown as avsc.Schema);
  const check = compileBounds(schema, { ...limits, maxBytes: 1e6, maxItems: 1e5, maxDepth: 200 });
  for (let i = 0; i < 200; i++) {
    const datum = type.toBuffer(type.random());
    check(datum);
    for (let cut = 0; cut < datum.length; cut += 1 + Math.floor(datum.length / 20)) expect(() => check(datum.subarray(0, cut))).toThrow(refused);
    expect(() => check(Buffer.concat([datum, Buffer.from([0])]))).toThrow(refused);
  }
});

test('bytes of any kind are refused or decodable within the limits, never a crash', () => {
  const type = avsc.Type.forSchema(schema as unknown as avsc.Schema);
  const check = compileBounds(schema, limits);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    const datum = Buffer.from(bytes);
    try {
      check(datum);
    } catch (error) {
      expect(error).toMatchObject({ code: 'avro-undecodable' });
      return;
    }
    type.fromBuffer(datum);
  }), { numRuns: 2000 });
});

test.each([
  ['20 million nulls in five bytes', { type: 'array', items: 'null' }, Buffer.concat([long(20_000_000), Buffer.from([0])])],
  ['a block of negative count and a size past the end', { type: 'array', items: 'null' }, Buffer.concat([long(-3), long(1e9), Buffer.from([0])])],
  ['items over the limit in many blocks', { type: 'array', items: 'null' }, Buffer.concat([...Array.from({ length: 6 }, () => long(100)), Buffer.from([0])])],
  ['a string longer than the datum', 'string', Buffer.concat([long(1e12), Buffer.from('x')])],
  ['a string of negative length', 'string', long(-1)],
  ['a union branch that is not there', ['null', 'string'], long(2)],
  ['an enum symbol that is not there', { type: 'enum', name: 'E', symbols: ['A'] }, long(1)],
  ['a number of eleven bytes', 'long', Buffer.concat([Buffer.alloc(10, 255), Buffer.from([1])])],
  ['a long that no number can hold', 'long', Buffer.from('feffffffffffffffff01', 'hex')],
  ['a long that the decoder refuses', 'long', Buffer.from('feffffffffffff1f', 'hex')],
  ['the reserved key __proto__', { type: 'map', values: 'long' }, Buffer.concat([long(1), avsc.Type.forSchema('string').toBuffer('__proto__'), long(1), Buffer.from([0])])],
  ['more bytes than the limit', 'bytes', avsc.Type.forSchema('bytes').toBuffer(Buffer.alloc(10_001))],
])('refused: %s', (_what, of, datum) => {
  expect(() => compileBounds(of, limits)(datum)).toThrow(refused);
});

test('nesting over the limit is refused before the stack is used up', () => {
  const list = { type: 'record', name: 'L', fields: [{ name: 'next', type: ['null', 'L'] }] };
  const check = compileBounds(list, limits);
  check(Buffer.concat([Buffer.alloc(15, 2), Buffer.from([0])]));
  expect(() => check(Buffer.concat([Buffer.alloc(9000, 2), Buffer.from([0])]))).toThrow(refused);
});

test('a schema with a reserved field name is refused', () => {
  const evil = { type: 'record', name: 'R', fields: [{ name: '__proto__', type: 'string' }] };
  expect(() => compileBounds(evil, limits)).toThrow(refused);
});
