import { parseJson, type Json, type JsonObject } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { compileEncoder, type Sink } from '@weir/log';
import { loadSchemas } from '@weir/schemas';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileContract, compileMapping } from '../index.ts';

const content = `mapping: people
drop:
  - name: heartbeat
    when: { path: type, equals: ping }
outputs:
  profile:
    record: Profile
    when: [{ path: type, in: [contact, both, null] }]
    objectKey: [data.id, data.user.id]
    fields:
      occurredAt: { from: [at, data.at], pipe: [timestamp] }
      userId: [data.id, data.user.id]
      email: { from: data.email, pipe: [email], onError: skip }
      phone: { from: data.phone, pipe: [trim] }
      website: { from: data.phone, pipe: [{ phone: { country: DE } }], onError: skip }
      firstName: { from: data.first, pipe: [trim, upper] }
      lastName: { from: data.last, pipe: [lower], default: none }
      country: { from: data.address.country, pipe: [country], onError: skip, default: DE }
      currency: { from: data.currency, pipe: [currency], onError: skip }
      title: { from: data.title, when: { path: data.vip, equals: true }, onError: skip }
      plan: { from: data.plan, map: { a: pro, '*': free }, onError: skip }
      lifecycleStage: { const: known }
      city: { from: data.address.city, onError: skip }
      balance: { from: data.balance, pipe: [integer], onError: skip }
      createdAt: { from: data.created, pipe: [{ timestamp: s }], onError: skip }
      updatedAt: { from: data.updated, pipe: [timestamp], onError: skip }
      deleted: { from: data.gone, pipe: [boolean], onError: skip }
      locale: { from: data.locales, pipe: [first], onError: skip }
  event:
    record: Event
    when: { path: type, in: [event, both] }
    objectKey: data.id
    fields:
      name: { from: data.name, default: Unnamed }
      category: { const: track }
      value: { from: data.balance, pipe: [number], onError: skip }
      properties: { from: data.address, pipe: [json] }
      reason: { from: data, pipe: [json], when: { path: data.vip, exists: true } }
`;
const contract = `apiVersion: v3.1.0
kind: DataContract
id: people
version: 1.0.0
status: active
schema:
  - name: Profile
    properties:
      - { name: userId, required: true }
      - { name: lastName, logicalTypeOptions: { maxLength: 5 } }
      - { name: balance, logicalTypeOptions: { minimum: -1 } }
`;
const compiled = compileMapping({ path: 'm.yaml', content });
const checks = compileContract({ path: 'c.yaml', content: contract });
const idOf = (name: string): number => name.length;
const newDirect = () => compiled.direct({ rules: (type) => checks.fieldRules(type), idOf })!;
const meta = { eventId: 'evt_1', source: 'shop', acceptedAt: 1_700_000_000_000 };
const encoders = new Map([...loadSchemas()].map(([name, schema]) => [name, compileEncoder(schema)!]));

type Result = 'no' | { readonly dropped: string } | readonly { readonly name: string; readonly outputId: string; readonly bytes: string; readonly fields: Json }[];
const shown = ['userId', 'email', 'phone', 'anonymousId', 'balance', 'occurredAt', 'extras', 'locale'];

function general(bytes: Buffer, depth: number): Result {
  let item: Json;
  try {
    item = parseJson(bytes, depth);
  } catch (error) {
    if (error instanceof WeirError) return 'no';
    throw error;
  }
  const result = compiled.apply(item, undefined, meta);
  if (result.kind === 'dropped') return { dropped: result.reason };
  if (result.kind === 'failed' || result.outputs.some((o) => checks.check(o.recordType, o.record).length > 0)) return 'no';
  return result.outputs.map((o) => {
    const sink: Sink = { bytes: Buffer.alloc(16), at: 5 };
    encoders.get(o.recordType)!(sink, o.record);
    sink.bytes[0] = 0;
    sink.bytes.writeInt32BE(idOf(o.recordType), 1);
    return { name: o.name, outputId: o.outputId, bytes: sink.bytes.toString('latin1', 0, sink.at), fields: JSON.parse(JSON.stringify(shown.map((f) => o.record[f] ?? null))) };
  });
}

const sink: Sink = { bytes: Buffer.alloc(16), at: 0 };
function direct(mapping: ReturnType<typeof newDirect>, bytes: Buffer, depth: number): Result {
  sink.at = 3;
  const around = Buffer.concat([Buffer.from('{"x'), bytes, Buffer.from('"}')]);
  const count = mapping.run(around, 3, 3 + bytes.length, depth, meta, sink);
  if (mapping.dropped !== undefined) return { dropped: mapping.dropped };
  if (count < 0) {
    expect(sink.at).toBe(3);
    return 'no';
  }
  return Array.from({ length: count }, (_, i) => {
    const o = mapping.output(i);
    return { name: o.name, outputId: o.outputId, bytes: sink.bytes.toString('latin1', o.from, o.to), fields: JSON.parse(JSON.stringify(shown.map((f) => (o.recordType === 'weir.canonical.Profile' || !['balance', 'locale', 'phone'].includes(f) ? o.value(f) : null) ?? null))) as Json };
  });
}

/** What a sender may write, and what it should not: every form that the two ways could read differently. */
const text = fc.oneof(fc.constantFrom('', ' ', 'Ann', ' Ann ', 'ä', ' ñ ', ' x', 'ÀB', 'i̇', 'ANN@Example.COM', ' a@b.co', 'a@b', 'a@-b.co', 'a@b.c_m', 'a"b\\c/d\n', '2024-02-29T10:11:12.123Z', '2024-02-30T00:00:00.000Z', '2024-01-01', '1700000000', 'de', 'DE ', 'eur', 'a', 'contact', 'true', '12', '9007199254740993', '__proto__', '😀', ' '), fc.string({ unit: 'binary', maxLength: 8 }).filter((s) => s.isWellFormed()), fc.string({ maxLength: 70 }));
const numeral = fc.oneof(fc.constantFrom('0', '-0', '1', '-1', '1.0', '1.50', '0.5', '0.05', '0.0000001', '1e3', '1E-7', '1e400', '12345678901234', '123456789012345', '1234567890123456', '12345678901234567890', '-123456789012345', '1700000000', '1700000000000', '0.1234567890123456', '01', '1.', '-'), fc.integer().map(String), fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => JSON.stringify(n)));
const jsonText = (s: string): fc.Arbitrary<string> => fc.constantFrom(JSON.stringify(s), JSON.stringify(s).replaceAll('/', '\\/'), JSON.stringify(s).replaceAll('a', '\\u0061'));
const scalar = fc.oneof({ weight: 4, arbitrary: text.chain(jsonText) }, { weight: 2, arbitrary: numeral }, fc.constantFrom('true', 'false', 'null', 'nul', '"open', '"\u0001"', '"\\x"', '"\\ud800"'));
const space = fc.oneof({ weight: 8, arbitrary: fc.constant('') }, fc.constantFrom(' ', '\n  ', '\t', '\u00a0'));
const keyName = fc.oneof({ weight: 30, arbitrary: fc.constantFrom('type', 'at', 'data', 'id', 'user', 'email', 'phone', 'first', 'last', 'address', 'country', 'city', 'currency', 'title', 'vip', 'plan', 'balance', 'created', 'updated', 'gone', 'locales', 'name', 'note', 'tags', 'owner', 'a', 'b') }, fc.constantFrom('1', '10', '__proto__', 'constructor', 'length', 'ä', '', 'a"b', 'toString'));
const value: fc.Memo<string> = fc.memo((n) => (n <= 1 ? scalar : fc.oneof({ weight: 4, arbitrary: scalar }, objectOf(n - 1), fc.array(value(n - 1), { maxLength: 3 }).map((list) => `[${list.join(',')}]`))));
const objectOf = (n: number): fc.Arbitrary<string> => fc.array(fc.tuple(keyName, space, space, value(n)), { maxLength: 6 }).map((list) => `{${list.map(([k, a, b, v]) => `${a}${JSON.stringify(k)}${b}:${a}${v}${b}`).join(',')}}`);
/** Mostly an item that maps: each part is there or not, in any order, with others between. */
const part = (name: string, of: fc.Arbitrary<string>): fc.Arbitrary<string> => of.map((v) => `${JSON.stringify(name)}:${v}`);
const several = (parts: readonly fc.Arbitrary<string>[]): fc.Arbitrary<string> => fc.tuple(fc.shuffledSubarray([...parts.keys()], { minLength: Math.ceil(parts.length / 2) }), ...parts).map(([order, ...made]) => `{${order.map((i) => made[i]).join(',')}}`);
const quoted = (...words: string[]): fc.Arbitrary<string> => fc.constantFrom(...words.map((w) => JSON.stringify(w)));
const item = several([
  part('type', quoted('contact', 'both', 'event', 'contact', 'ping')), part('at', fc.oneof(quoted('2024-02-28T10:11:12.123Z', '2024-03-01'), fc.constant('1700000000'))), part('note', value(3)), part('tags', value(2)),
  part('data', several([
    part('id', fc.oneof(quoted('u1', 'usr_00000017'), fc.constantFrom('17', '-3', '""', 'null'))), part('user', fc.oneof(objectOf(1), several([part('id', quoted('u2')), part('team', scalar)]))), part('email', fc.oneof(quoted('Ann@Example.COM', 'b.c+d@x-y.example.org'), scalar)), part('phone', fc.oneof(quoted(' +49 30 1 ', 'x'), scalar)),
    part('first', quoted('Ann', 'Jürgen', ' Bo ')), part('last', fc.oneof(quoted('Bell', 'ÄB', 'Longer than five'), scalar)), part('address', fc.oneof({ weight: 3, arbitrary: several([part('country', quoted('de', 'DEU', ' fr', 'uk', 'EL', 'Germany', ' ')), part('city', scalar), part('floor', value(2))]) }, value(1))),
    part('currency', quoted('eur', 'EURO', 'xx1')), part('title', scalar), part('vip', fc.constantFrom('true', 'false', 'null', '"true"')), part('plan', quoted('a', 'b')), part('balance', fc.oneof(fc.integer({ min: -3, max: 1e9 }).map(String), numeral)), part('created', numeral), part('updated', fc.oneof(quoted('2024-02-29T23:59:59.999Z', '1970-01-01T00:00:00.000Z', '2199-12-31T23:59:59.999Z'), numeral)),
    part('gone', scalar), part('locales', value(2)), part('name', scalar), part('owner', value(3)),
  ])),
]);
const body = fc.oneof({ weight: 5, arbitrary: item }, objectOf(4), fc.tuple(space, value(4), space).map((parts) => parts.join('')), fc.tuple(item, fc.nat(300)).map(([text_, at]) => text_.slice(0, at))).map((s) => Buffer.from(s));

test('whatever the bytes are: what the direct way gives is what the general way gives, and it gives up where that fails', () => {
  const mapping = newDirect();
  let hits = 0;
  let mapped = 0;
  fc.assert(fc.property(fc.oneof(body, fc.tuple(body, fc.nat(400), fc.integer({ min: 0, max: 255 })).map(([bytes, at, byte]) => {
    const bad = Buffer.from(bytes);
    if (at < bad.length) bad[at] = byte;
    return bad;
  })), fc.integer({ min: 2, max: 6 }), (bytes, depth) => {
    const wanted = general(bytes, depth);
    if (wanted !== 'no') mapped++;
    // Twice: the second time the keys are known.
    for (let turn = 0; turn < 2; turn++) {
      const got = direct(mapping, bytes, depth);
      if (got === 'no') continue;
      hits++;
      expect(got).toEqual(wanted);
    }
  }), { numRuns: 2000 });
  expect(mapped).toBeGreaterThan(80);
  expect(hits).toBeGreaterThan(mapped / 3);
});

test('an item of which it is told from its bytes that it gives no record of a type gives none', () => {
  const may = ['weir.canonical.Profile', 'weir.canonical.Event'].map((type) => [type, compiled.mayGive(type)!] as const);
  let never = 0;
  fc.assert(fc.property(body, fc.integer({ min: 2, max: 6 }), (bytes, depth) => {
    let item: Json;
    try {
      item = parseJson(bytes, depth);
    } catch (error) {
      if (!(error instanceof WeirError)) throw error;
      return;
    }
    const result = compiled.apply(item, undefined, meta);
    const given = new Set((result.kind === 'dropped' ? [] : result.outputs ?? []).map(({ recordType }) => recordType));
    const around = Buffer.concat([Buffer.from('{"x'), bytes, Buffer.from('"}')]);
    for (const [type, mayGive] of may) {
      if (mayGive(around, 3, 3 + bytes.length, depth, () => ({ envelope: undefined, meta }))) continue;
      never++;
      expect([...given]).not.toContain(type);
    }
  }), { numRuns: 2000 });
  expect(never).toBeGreaterThan(100);
});

test('of an output without a condition any item may give the record', () => {
  const of = (when: string): unknown => compileMapping({ path: 'm.yaml', content: `mapping: x\noutputs:\n  a: { record: Profile, ${when}fields: { userId: id } }\n` }).mayGive('weir.canonical.Profile');
  expect([of(''), typeof of('when: { path: a, equals: b }, ')]).toEqual([undefined, 'function']);
});

test('a condition on the elements of a list is asked of each of them, not of the item', () => {
  const may = compileMapping({ path: 'm.yaml', content: 'mapping: x\noutputs:\n  a: { record: Profile, each: list, objectKey: $item.id, when: { path: $item.kind, equals: no }, fields: { userId: $item.id } }\n' }).mayGive('weir.canonical.Profile')!;
  const of = (text: string): boolean => may(Buffer.from(text), 0, text.length, 8, () => ({ envelope: undefined, meta }));
  expect(['{"list":[{"id":"a","kind":"yes"},{"id":"b","kind":"no"}]}', '{"kind":"no","list":[{"id":"a","kind":"yes"}]}', '{"kind":"no"}'].map(of)).toEqual([true, false, false]);
});

test('a condition in CEL is asked of the item, one that fails and an item that is none may give anything', () => {
  const may = compileMapping({ path: 'm.yaml', content: 'mapping: x\noutputs:\n  a: { record: Profile, when: { cel: "item.n > 3" }, fields: { userId: id } }\n  c: { record: Profile, when: { cel: "has(envelope.gpc) && envelope.gpc == \\"on\\"" }, fields: { userId: id } }\n' }).mayGive('weir.canonical.Profile')!;
  const of = (text: string, envelope?: JsonObject): boolean => may(Buffer.from(`x${text}`), 1, text.length + 1, 8, () => ({ envelope, meta }));
  expect(['{"n":4,"id":"a"}', '{"n":3,"id":"a"}', '{"id":"a"}', '{"n":', '{"n":"x"}'].map((text) => of(text))).toEqual([true, false, true, true, true]);
  expect([of('{"n":3,"id":"a"}', { gpc: 'on' }), of('{"n":3,"id":"a"}', { gpc: 'off' })]).toEqual([true, false]);
});

test.each([
  ['the keys in another order', '{"data":{"last":"B","id":"u1","zip":"1"},"type":"contact","at":1700000000}'],
  ['spaces and line ends', '{ "type" : "contact",\n "data": { "id": "u1",\t"tags": [ 1, "a b", { "c" : null } ] }, "at": 1700000000 }'],
  ['numbers in other forms, escapes, other scripts', '{"type":"contact","at":1700000000,"data":{"id":"u\\"1","last":"ÄÖ","price":12.50,"url":"https:\\/\\/x","note":"a\\nb"}}'],
  ['an empty object and an empty array beside what is used', '{"type":"contact","at":1700000000,"data":{"id":"u1","address":{},"more":{},"list":[]}}'],
])('the plain form of an item is taken: %s', (_what, json) => {
  const bytes = Buffer.from(json);
  const mapping = newDirect();
  for (let turn = 0; turn < 2; turn++) {
    const got = direct(mapping, bytes, 32);
    expect(got).not.toBe('no');
    expect(got).toEqual(general(bytes, 32));
  }
});

test.each([
  ['a repeated key', '{"type":"contact","at":1700000000,"at":1800000000,"data":{"id":"u1"}}'],
  ['a repeated key that no path names', '{"type":"contact","x":1,"at":1700000000,"x":2,"data":{"id":"u1"}}'],
  ['__proto__', '{"type":"contact","at":1700000000,"data":{"id":"u1","__proto__":{}}}'],
  ['too deep', `{"type":"contact","at":1700000000,"data":{"id":"u1"},"x":${'['.repeat(40)}${']'.repeat(40)}}`],
  ['bad UTF-8', Buffer.from([...Buffer.from('{"type":"contact","at":1700000000,"x":"'), 0xed, 0xa0, 0x80, ...Buffer.from('","data":{"id":"u1"}}')])],
  ['bytes behind the item', '{"type":"contact","at":1700000000,"data":{"id":"u1"}}}'],
])('the direct way does not decide %s', (_what, json) => {
  const mapping = newDirect();
  for (let turn = 0; turn < 3; turn++) expect(direct(mapping, Buffer.from(json), 32)).toBe('no');
});

test('a sender who invents keys does not make it grow without end, nor wrong', () => {
  const mapping = newDirect();
  let taken = 0;
  for (let i = 0; i < 2000; i++) {
    const bytes = Buffer.from(`{"type":"contact","at":1700000000,"k${i}":{"n${i}":[{"m${i}":1}]},"data":{"id":"u1","x${i}":1}}`);
    const got = direct(mapping, bytes, 32);
    if (got === 'no') continue;
    taken++;
    expect(got).toEqual(general(bytes, 32));
  }
  expect(taken).toBeGreaterThan(50);
  expect(taken).toBeLessThan(200);
});

test('a mapping that needs JSON values says so', () => {
  const with_ = (fields: string, more = ''): boolean => compileMapping({ path: 'm.yaml', content: `mapping: x\noutputs:\n  a:\n    record: Profile\n    objectKey: id\n${more}    fields:\n      userId: id\n${fields}` }).direct({ rules: () => [], idOf: () => 1 }) !== undefined;
  expect(with_('')).toBe(true);
  expect(with_("      name: { cel: 'item.a' }\n")).toBe(false);
  expect(with_("      externalIds: { list: [{ type: { const: a }, value: id }] }\n")).toBe(false);
  expect(with_('      name: a[0].b\n')).toBe(false);
  expect(with_('      name: $envelope.b\n')).toBe(false);
  expect(with_('', "    when: { cel: 'has(item.a)' }\n")).toBe(false);
  expect(compileMapping({ path: 'm.yaml', content: 'mapping: x\noutputs:\n  a: { record: Profile, fields: { userId: id } }\n' }).direct({ rules: () => undefined, idOf: () => 1 })).toBeUndefined();
});
