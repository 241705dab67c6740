import type { WorkspaceError } from '@weir/errors';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileContract, compileMapping } from './index.ts';

const meta = { eventId: 'evt_1', source: 'shop', acceptedAt: 1_700_000_000_000 };
const file = (content: string) => ({ path: 'm.yaml', content });

const shop = `mapping: shop
drop:
  - name: heartbeat
    when: { path: type, equals: ping }
outputs:
  profile:
    record: Profile
    when: { path: customer.email, exists: true }
    objectKey: customer.id
    fields:
      email: { from: customer.email, pipe: [email] }
      phone: { from: customer.phone, pipe: [{ phone: { country: customer.country } }], onError: skip }
      userId: customer.id
      occurredAt: { from: [at, created], pipe: [timestamp] }
      plan: { from: customer.plan, map: { p1: pro, '*': free }, default: none }
      name: { cel: 'item.customer.first + " " + item.customer.last', when: { path: customer.first, exists: true } }
      externalIds: { list: [{ type: { const: shop }, value: customer.id }] }
      attributes: { entries: { tier: customer.tier } }
  order:
    record: Order
    each: orders
    objectKey: $item.id
    fields:
      orderId: $item.id
      status: { const: completed }
      total: { from: $item.total, pipe: [number] }
      items: { each: $item.lines, fields: { sku: $item.sku, quantity: { from: $item.n, pipe: [number] } } }
`;
const item = { at: '2023-11-14T22:13:20Z', customer: { id: 7, email: ' Ann@Example.COM ', phone: '030 123456', country: 'DE', plan: 'p1', first: 'Ann', last: 'B', tier: 'gold', secret: 'x' }, orders: [{ id: 'o1', total: '12.5', lines: [{ sku: 'a', n: 2 }] }, { id: 'o2', total: 3, lines: [] }], strange: [1] };

test('one item gives every output, with transforms, fallbacks and what nobody mapped kept aside', () => {
  const result = compileMapping(file(shop)).apply(item, undefined, meta);
  if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
  expect(result.outputs.map((o) => o.name)).toEqual(['profile', 'order', 'order']);
  expect(result.outputs[0]!.record).toMatchObject({ email: 'ann@example.com', phone: '+4930123456', userId: '7', occurredAt: 1_700_000_000_000, plan: 'pro', name: 'Ann B', externalIds: [{ type: 'shop', value: '7' }], attributes: { tier: 'gold' }, objectKey: '7', source: 'shop' });
  expect(JSON.parse(result.outputs[0]!.record['extras'] as string)).toMatchObject({ customer: { secret: 'x' }, strange: [1] });
  expect(result.outputs[0]!.record['extras']).not.toContain('example.com');
  expect(result.outputs[1]!.record).toMatchObject({ orderId: 'o1', total: 12.5, items: [{ sku: 'a', quantity: 2, price: null }] });
  expect(new Set(result.outputs.map((o) => o.outputId)).size).toBe(3);
});

test('an output id does not depend on the position of its element', () => {
  const mapping = compileMapping(file(shop));
  const ids = (value: typeof item) => {
    const result = mapping.apply(value, undefined, meta);
    return result.kind === 'mapped' ? new Map(result.outputs.map((o) => [o.record['orderId'] ?? 'profile', o.outputId])) : new Map();
  };
  expect(ids({ ...item, orders: [...item.orders].reverse() })).toEqual(ids(item));
});

test('every failure is named with file, line, field and path, not only the first', () => {
  const result = compileMapping(file(shop)).apply({ ...item, at: 'yesterday', customer: { ...item.customer, email: 'nobody' } }, undefined, meta);
  expect(result).toMatchObject({ kind: 'failed', reasons: [{ file: 'm.yaml', line: 14, field: 'occurredAt', path: 'at | created' }, { file: 'm.yaml', line: 11, field: 'email', path: 'customer.email' }] });
});

test('a dropped item names its rule; an item that nothing matches is a failure', () => {
  const mapping = compileMapping(file(shop));
  expect(mapping.apply({ type: 'ping' }, undefined, meta)).toEqual({ kind: 'dropped', reason: 'heartbeat' });
  expect(mapping.apply({ type: 'other' }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ code: 'mapping-no-output' }] });
});

test('any JSON at all gives a result, twice the same, and touches no prototype', () => {
  const mapping = compileMapping(file(shop));
  fc.assert(fc.property(fc.jsonValue(), fc.jsonValue(), (customer, orders) => {
    const value = JSON.parse(JSON.stringify({ customer, orders }));
    expect(mapping.apply(value, undefined, meta)).toEqual(mapping.apply(value, undefined, meta));
  }));
  expect(({} as Record<string, unknown>)['email']).toBeUndefined();
});

test.each([
  ['an unknown field', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      emial: x', 6, /no field emial/],
  ['an unknown transform', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      email: { from: x, pipe: [shout] }', 6, /unknown transform/],
  ['an unknown record', 'mapping: x\noutputs:\n  a:\n    record: Person\n    fields: {}', 4, /no canonical record/],
  ['a missing required field', 'mapping: x\noutputs:\n  a:\n    record: Event\n    fields:\n      name: x', 5, /category is required/],
  ['each without a key', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    each: list\n    fields: {}', 5, /objectKey/],
  ['a bad path', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      email: "a..b"', 6, /not a path/],
  ['a prototype path', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      email: "a.constructor"', 6, /not a path/],
  ['bad CEL', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    when: { cel: "item." }\n    fields: {}', 5, /CEL/],
  ['a constant of the wrong type', 'mapping: x\noutputs:\n  a:\n    record: Order\n    fields:\n      orderId: id\n      status: { const: 5 }\n      total: { const: much }', 8, /takes a number/],
])('%s is a problem with its line', (_name, content, line, message) => {
  try {
    compileMapping(file(content));
    expect.unreachable('it compiled');
  } catch (error) {
    expect((error as WorkspaceError).problems[0]).toMatchObject({ file: 'm.yaml', line, message: expect.stringMatching(message) });
  }
});

const contract = `apiVersion: v3.1.0
kind: DataContract
id: profiles
version: 1.0.0
status: active
schema:
  - name: Profile
    properties:
      - name: email
        logicalType: string
        required: true
        logicalTypeOptions: { format: email, maxLength: 20 }
      - name: country
        logicalTypeOptions: { pattern: '^[A-Z]{2}$' }
    quality:
      - { type: custom, engine: cel, name: has-an-id, implementation: 'record.userId != null' }
`;

test('a breach lists every reason with its line', () => {
  const compiled = compileContract(file(contract));
  expect(compiled.check('weir.canonical.Profile', { email: 'x', country: 'Germany', userId: null }).map((r) => [r.line, r.field])).toEqual([[12, 'email'], [14, 'country'], [16, undefined]]);
  expect(compiled.check('weir.canonical.Profile', { email: 'a@b.de', country: null, userId: 'u' })).toEqual([]);
  expect(compiled.check('weir.canonical.Profile', { email: null, country: null, userId: 'u' }).map((r) => r.message)).toEqual(['email is required']);
});

test('a contract that says what cannot be checked is refused', () => {
  expect(() => compileContract(file(contract.replace('required: true', 'unique: true')))).toThrow(/cannot be checked/);
  expect(() => compileContract(file(contract.replace('v3.1.0', 'v2')))).toThrow(/v3.1/);
  expect(() => compileContract(file(contract.replace('name: country', 'name: land')))).toThrow(/no field land/);
});
