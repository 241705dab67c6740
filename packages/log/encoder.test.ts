import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import { expect, test } from 'vitest';
import { compileEncoder, type Sink } from './encoder.ts';

function encode(schema: unknown, value: unknown): Buffer {
  const sink: Sink = { bytes: Buffer.allocUnsafe(1), at: 0 };
  compileEncoder(schema)!(sink, value);
  return sink.bytes.subarray(0, sink.at);
}

test.each([...loadSchemas().keys()])('the bytes of %s are those of avsc, for 300 random values', (name) => {
  const schema = loadSchemas().get(name)!;
  const type = avsc.Type.forSchema(schema as avsc.Schema);
  for (let i = 0; i < 300; i++) {
    const value = type.random();
    expect(encode(schema, value).equals(type.toBuffer(value))).toBe(true);
  }
});

test('text of every length and script, and longs of every size, are those of avsc', () => {
  const schema = { type: 'record', name: 'R', fields: [{ name: 's', type: 'string' }, { name: 'n', type: 'long' }] };
  const type = avsc.Type.forSchema(schema as avsc.Schema);
  for (const unit of ['a', 'é', '語', '😀', '\u0000']) {
    for (let length = 0; length < 200; length++) {
      for (const n of [0, -1, 63, 64, -64, -65, 2 ** 30 - 1, 2 ** 30, -(2 ** 30), -(2 ** 30) - 1, 2 ** 31, 2 ** 52, -(2 ** 52), -(2 ** 52) + 1, 2 ** 53 - 2, 1_790_000_000_000]) {
        const value = { s: 'x'.repeat(length % 7) + unit.repeat(length), n };
        expect(encode(schema, value).equals(type.toBuffer(value))).toBe(true);
      }
    }
  }
});

test.each([['string', 1], ['long', 1.5], ['long', 2 ** 60], ['long', Number.MAX_SAFE_INTEGER], ['int', 2 ** 31], ['boolean', 'true'], ['double', '1'], ['bytes', 'x'], [['null', 'string'], 3], [['null', 'string'], undefined], [{ type: 'array', items: 'string' }, {}], [{ type: 'map', values: 'string' }, []], [{ type: 'map', values: 'string' }, { a: 1 }]])('a value that does not fit %j is refused: %j', (schema, value) => {
  expect(() => encode(schema, value)).toThrow(TypeError);
});

test('a type that it does not know is said at once', () => {
  expect(compileEncoder({ type: 'fixed', name: 'F', size: 4 })).toBeUndefined();
  expect(compileEncoder(['string', 'long'])).toBeUndefined();
});
