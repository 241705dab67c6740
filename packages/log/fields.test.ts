import { loadSchemas } from '@weir/schemas';
import { createLocalSerde, refusalOf } from '@weir/testing';
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fieldReader } from './fields.ts';

const names = ['weir.internal.DeadLetter', 'weir.internal.Delivery', 'weir.internal.Outcome', 'weir.internal.Attempt', 'weir.internal.LedgerEnd'];
const serde = await createLocalSerde();

const text = fc.string({ unit: 'binary', maxLength: 40 }).map((s) => s.toWellFormed());
/** Values of a type of the schemas. */
function arbitrary(type: any): fc.Arbitrary<unknown> {
  if (type === 'null') return fc.constant(null);
  if (type === 'int') return fc.integer();
  if (type === 'long') return fc.integer({ min: -(2 ** 52), max: 2 ** 52 });
  if (type === 'double') return fc.double({ noNaN: true });
  if (type === 'boolean') return fc.boolean();
  if (type === 'string') return fc.oneof(text, fc.constantFrom('crm', 'crn', ''));
  if (type === 'bytes') return fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes));
  if (Array.isArray(type)) return fc.oneof(...type.map(arbitrary));
  if (type.type === 'array') return fc.array(arbitrary(type.items), { maxLength: 4 });
  if (type.type === 'record') return fc.record(Object.fromEntries(type.fields.map((f: any) => [f.name, arbitrary(f.type)])));
  return arbitrary(type.type);
}

test.each(names)('some fields of a %s are those that decoding it whole gives, whatever stood there before', (name) => {
  const schema = loadSchemas().get(name)!;
  const all = schema.fields.map((f) => f.name);
  const some = all.filter((_, i) => i % 2 === 1);
  const [readAll, readSome] = [fieldReader<any>(name, all), fieldReader<any>(name, some)];
  fc.assert(fc.property(fc.array(arbitrary(schema), { minLength: 1, maxLength: 3 }), (values) => {
    for (const value of values) {
      const bytes = serde.encode(name, value);
      const whole = { ...serde.decode(bytes).value };
      expect(readAll(serde, bytes)).toEqual(whole);
      expect(readSome(serde, bytes)).toEqual(Object.fromEntries(some.map((field) => [field, whole[field]])));
    }
  }), { numRuns: 200 });
});

test('a record cut short, with bytes behind it, of any bytes or of another schema is refused as decoding refuses it, and never read past its end', () => {
  const name = 'weir.internal.DeadLetter';
  const read = fieldReader<any>(name, ['id', 'headers', 'value']);
  const head = serde.encode(name, avsc.Type.forSchema(loadSchemas().get(name) as unknown as avsc.Schema).random()).subarray(0, 5);
  fc.assert(fc.property(arbitrary(loadSchemas().get(name)), fc.nat(400), fc.uint8Array({ minLength: 1, maxLength: 80 }), (value, cut, junk) => {
    const bytes = serde.encode(name, value);
    for (const broken of [bytes.subarray(0, Math.max(0, bytes.length - 1 - cut)), Buffer.concat([bytes, junk]), Buffer.concat([head, junk])]) expect(refusalOf(() => read(serde, broken))).toBe(refusalOf(() => serde.decode(broken)));
  }), { numRuns: 300 });
  expect(read(serde, serde.encode('weir.internal.LedgerOwner', { partition: 1, token: 2, owner: 'x', at: 3 }))).toBeUndefined();
  expect(() => fieldReader<any>(name, ['nothing'])).toThrow('cannot be read alone');
});
