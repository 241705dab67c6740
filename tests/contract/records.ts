import type { JsonObject } from '@weir/adapter';
import { loadSchemas, type AvroRecord } from '@weir/schemas';
import fc from 'fast-check';

/** Text as strangers send it. No half surrogate pairs: Avro text is UTF-8, none can come out of it. */
const hostile = ['', ' ', 'a\r\nX-Injected: 1', '..', '.', '/', '../../admin', '%2e%2e', '?a=b#c', '{{record.email}}', '"', '\u0000', '\u2028', 'ü€😀', '__proto__', '{"a":', '[1]', 'null', 'x'.repeat(3000)];
const text = fc.oneof({ weight: 3, arbitrary: fc.string({ unit: 'grapheme', maxLength: 30 }) }, fc.constantFrom(...hostile));
const long = fc.oneof(fc.integer({ min: 0, max: 4e12 }), fc.constantFrom(0, -1, Number.MAX_SAFE_INTEGER, 1_767_323_045_000));

type Schema = string | readonly Schema[] | { readonly type: Schema; readonly items?: Schema; readonly values?: Schema; readonly fields?: AvroRecord['fields'] };

function valueOf(schema: Schema): fc.Arbitrary<unknown> {
  if (Array.isArray(schema)) return fc.oneof(...(schema as Schema[]).map(valueOf));
  if (typeof schema === 'string') {
    switch (schema) {
      case 'null': return fc.constant(null);
      case 'string': return text;
      case 'long': return long;
      case 'int': return fc.integer();
      case 'double': return fc.double({ noNaN: true });
      case 'boolean': return fc.boolean();
      default: throw new Error(`a canonical schema has ${schema}`);
    }
  }
  const { type, items, values, fields } = schema as { type: Schema; items?: Schema; values?: Schema; fields?: AvroRecord['fields'] };
  if (type === 'array') return fc.array(valueOf(items!), { maxLength: 3 });
  if (type === 'map') return fc.dictionary(text, valueOf(values!), { maxKeys: 4, noNullPrototype: true });
  if (type === 'record') return fc.record(Object.fromEntries(fields!.map((f) => [f.name, valueOf(f.type as Schema)])));
  return valueOf(type);
}

/** What a text field is read as by adapters that give it a meaning. */
const meant: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  state: fc.oneof({ weight: 5, arbitrary: fc.constantFrom('granted', 'withdrawn', 'denied', 'unknown') }, text),
  channel: fc.oneof({ weight: 5, arbitrary: fc.constantFrom('email', 'sms', 'push', null) }, text),
  topic: fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, text),
  properties: fc.oneof(fc.json(), fc.constant(null), text),
  email: fc.oneof(fc.constantFrom('ann@larkspur.example', null), text),
};

/** Any record that the schema admits, as it comes out of Avro. */
export function recordOf(recordType: string): fc.Arbitrary<JsonObject> {
  const schema = loadSchemas().get(recordType)!;
  return fc.record(Object.fromEntries(schema.fields.map((f) => [f.name, meant[f.name] ?? valueOf(f.type as Schema)]))) as fc.Arbitrary<JsonObject>;
}
