import { loadSchemas, type AvroRecord } from '@weir/schemas';
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { changeable, compileMinimiser, droppable, type FieldAction } from './minimise.ts';

const canonical = [...loadSchemas()].filter(([name]) => name.startsWith('weir.canonical.'));
const header = Buffer.from([0, 0, 0, 0, 7]);

/** Any record of a schema: every union branch, empty and full lists and maps, long texts. */
function anyValue(type: unknown): fc.Arbitrary<unknown> {
  if (Array.isArray(type)) return fc.oneof(...type.map(anyValue));
  switch (typeof type === 'string' ? type : (type as { type: unknown }).type) {
    case 'null': return fc.constant(null);
    case 'string': return fc.string({ unit: 'binary', maxLength: 200 }).map((s) => s.toWellFormed());
    case 'long': return fc.integer({ min: -(2 ** 40), max: 2 ** 40 });
    case 'int': return fc.integer();
    case 'double': return fc.double({ noNaN: true });
    case 'boolean': return fc.boolean();
    case 'array': return fc.array(anyValue((type as { items: unknown }).items), { maxLength: 4 });
    case 'map': return fc.dictionary(fc.string({ maxLength: 8 }), anyValue((type as { values: unknown }).values), { maxKeys: 4 });
    default: return anyRecord(type as AvroRecord);
  }
}
function anyRecord(schema: AvroRecord): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(Object.fromEntries(schema.fields.map((f) => [f.name, anyValue(f.type)])));
}

test.each(canonical)('%s: the bytes that leave have exactly the fields that may go, hashed where they must be, and extras never', (_name, schema) => {
  const type = avsc.Type.forSchema(schema as avsc.Schema);
  const names = schema.fields.map((f) => f.name);
  const upper = (text: string) => (text === '' ? null : `<${text.length}>`.padEnd(70, '#'));
  const shortKeys: FieldAction = { keeps: (key) => key.length < 3, withheld: [] };
  fc.assert(fc.property(anyRecord(schema), fc.array(fc.constantFrom<FieldAction>('keep', 'drop', upper, shortKeys), { minLength: names.length, maxLength: names.length }), (record, actions) => {
    const wanted = new Map(names.map((name, i) => [name, actions[i]!]));
    const minimiser = compileMinimiser(schema, (field) => wanted.get(field)!);
    const out = minimiser.bytes(Buffer.concat([header, type.toBuffer(record)]));
    expect(out.subarray(0, 5).equals(header)).toBe(true);
    const left = type.fromBuffer(Buffer.from(out.subarray(5))) as Record<string, unknown>;
    expect({ ...left }).toEqual({ ...minimiser.record(type.fromBuffer(type.toBuffer(record)) as never) });
    for (const field of schema.fields) {
      const action = field.name === 'extras' ? 'drop' : wanted.get(field.name)!;
      const isMap = !Array.isArray(field.type) && (field.type as { type?: unknown }).type === 'map';
      if (action === shortKeys && isMap) expect(left[field.name]).toEqual(Object.fromEntries(Object.entries(record[field.name] as object).filter(([key]) => key.length < 3)));
      else if ((action === 'drop' || action === shortKeys) && droppable(field)) expect(left[field.name] === null || Object.keys(left[field.name] as object).length === 0).toBe(true);
      else if (typeof action === 'function' && changeable(field)) expect(left[field.name]).toBe(typeof record[field.name] === 'string' ? action(record[field.name] as string) : null);
    }
  }), { numRuns: 60 });
});

test('bytes that are no record of the schema are an error, not a half record', () => {
  const schema = loadSchemas().get('weir.canonical.Profile')!;
  const minimiser = compileMinimiser(schema, () => 'drop');
  const type = avsc.Type.forSchema(schema as avsc.Schema);
  const whole = Buffer.concat([header, type.toBuffer(type.clone({ id: 'o', source: 's', occurredAt: 1 }, { wrapUnions: false }))]);
  expect(() => minimiser.bytes(Buffer.concat([whole, Buffer.from([1])]))).toThrow(RangeError);
  expect(() => minimiser.bytes(whole.subarray(0, whole.length - 3))).toThrow(RangeError);
});

test('keys of a map that was written in several blocks, with their sizes or without, are told apart, too', () => {
  const schema: AvroRecord = { type: 'record', name: 'R', fields: [{ name: 'm', type: { type: 'map', values: 'string' } }] } as never;
  const entry = (key: string) => Buffer.from([2 * key.length, ...Buffer.from(key), 2, 0x78]);
  const sized = Buffer.concat([entry('bb'), entry('c')]);
  const bytes = Buffer.concat([header, Buffer.from([2]), entry('a'), Buffer.from([3, sized.length * 2]), sized, Buffer.from([0])]);
  const only = (...keys: string[]) => compileMinimiser(schema, () => ({ keeps: (key) => keys.includes(key), withheld: ['zz'] }));
  const type = avsc.Type.forSchema(schema as never);
  expect({ ...(type.fromBuffer(Buffer.from(only('a', 'bb').bytes(bytes).subarray(5))) as { m: object }).m }).toEqual({ a: 'x', bb: 'x' });
  expect(only().bytes(bytes).subarray(5)).toEqual(Buffer.from([0]));
  expect(only().withheld).toEqual(['m.zz']);
  expect(() => only('a').bytes(bytes.subarray(0, bytes.length - 4))).toThrow(RangeError);
});
