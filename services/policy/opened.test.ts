import { canonicalSchemas, planOf, type CompiledPolicy } from '@weir/policy';
import { createLocalSerde, refusalOf } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createOpener } from './opened.ts';

const serde = await createLocalSerde();
let decodings = 0;
const open = createOpener({ idOf: serde.idOf, decode: (bytes) => {
  decodings++;
  return serde.decode(bytes);
} });
const policy = {
  purposes: new Map(), rules: [],
  routes: new Map(['Profile', 'Event', 'ConsentChange'].map((on) => [on, [{ destination: 'd', operation: 'send', on, kind: 'use', purpose: 'p', when: { source: 'record.country == "DE" && record.source == "shop" && record.occurredAt > 5', evaluate: () => ({ ok: true, value: true }) } }]])),
} as unknown as CompiledPolicy;

const defaults = (type: string): Record<string, unknown> => Object.fromEntries(canonicalSchemas().get(type)!.fields.map((field) => [field.name, 'default' in field ? field.default : null]));
const some = fc.option(fc.string({ unit: 'grapheme', maxLength: 20 }));
const profile = fc.record({ id: fc.string(), source: fc.constantFrom('shop', 'crm'), occurredAt: fc.nat(), country: some, city: some, email: some, firstName: some }).map((fields) => serde.encode('weir.canonical.Profile', { ...defaults('Profile'), ...fields }));

test('of a record the fields that a decision reads are those that decoding gives; the whole is decoded once, when it is asked for', () => {
  fc.assert(fc.property(profile, (bytes) => {
    const { name, value } = serde.decode(bytes);
    const whole = value as Record<string, unknown>;
    decodings = 0;
    const opened = open(bytes, policy);
    expect([opened.name, opened.fields]).toEqual([name, Object.fromEntries(planOf(policy, 'Profile')!.reads.map((field) => [field, whole[field]]))]);
    expect(decodings).toBe(0);
    expect([{ ...opened.value() }, opened.value() === opened.value(), decodings]).toEqual([{ ...whole }, true, 1]);
  }));
});

test('bytes that were cut, have more behind them or are of no canonical record are refused as decoding refuses them', () => {
  fc.assert(fc.property(profile, fc.nat(200), fc.uint8Array({ minLength: 1, maxLength: 60 }), (bytes, cut, junk) => {
    for (const broken of [bytes.subarray(0, Math.max(0, bytes.length - 1 - cut)), Buffer.concat([bytes, junk]), Buffer.concat([bytes.subarray(0, 5), junk]), Buffer.from(junk)]) expect(refusalOf(() => open(broken, policy))).toBe(refusalOf(() => serde.decode(broken)));
  }));
});

test('a change of consent, of which more is looked at, and a type without a route are decoded whole', () => {
  for (const type of ['ConsentChange', 'Company']) {
    const required = Object.fromEntries(canonicalSchemas().get(type)!.fields.flatMap(({ name, type: of }) => (of === 'string' ? [[name, 'x']] : [])));
    const bytes = serde.encode(`weir.canonical.${type}`, { ...defaults(type), ...required, occurredAt: 1 });
    const { name, value } = serde.decode(bytes);
    const opened = open(bytes, policy);
    expect([opened.name, { ...opened.fields }]).toEqual([name, { ...(value as object) }]);
  }
});
