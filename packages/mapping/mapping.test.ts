import type { WorkspaceError } from '@weir/errors';
import fc from 'fast-check';
import { cpuMs } from '@weir/testing';
import { expect, test } from 'vitest';
import { compileContract, compileMapping } from './index.ts';
import { ExtrasText, extrasText } from './path.ts';

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
  ['a path with a bad escape', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      email: \'a["\\q"]\'', 6, /not a path/],
  ['yes for true', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    when: { path: a, exists: yes }\n    fields: {}', 5, /exists takes true or false/],
  ['two tests in one condition', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    when: { path: a, exists: true, equals: b }\n    fields: {}', 5, /exactly one/],
  ['a list where one value belongs', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    when: { path: a, equals: [b, c] }\n    fields: {}', 5, /equals takes one value/],
  ['an unknown key of a drop rule', 'mapping: x\ndrop:\n  - { name: a, wehn: x, when: { path: a, equals: b } }\noutputs:\n  a: { record: Profile }', 3, /unknown key wehn/],
  ['an option that the field does not take', 'mapping: x\noutputs:\n  a:\n    record: Order\n    fields:\n      orderId: id\n      status: { const: completed }\n      items: { each: list, pipe: [lower], fields: { sku: $item.sku } }', 8, /items: unknown key pipe/],
  ['an unknown onError', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      email: { from: x, onError: skp }', 6, /onError takes skip or fail/],
  ['a country that does not exist', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    fields:\n      phone: { from: x, pipe: [{ phone: { country: XX } }] }', 6, /phone takes/],
  ['bad CEL', 'mapping: x\noutputs:\n  a:\n    record: Profile\n    when: { cel: "item." }\n    fields: {}', 5, /CEL/],
  ['a constant of the wrong type', 'mapping: x\noutputs:\n  a:\n    record: Order\n    fields:\n      orderId: id\n      status: { const: 5 }\n      total: { const: much }', 8, /takes a number/],
  ['a record that only Weir makes', 'mapping: x\noutputs:\n  a:\n    record: ConsentApplied\n    fields: {}', 4, /no canonical record "ConsentApplied"/],
])('%s is a problem with its line', (_name, content, line, message) => {
  try {
    compileMapping(file(content));
    expect.unreachable('it compiled');
  } catch (error) {
    expect((error as WorkspaceError).problems[0]).toMatchObject({ file: 'm.yaml', line, message: expect.stringMatching(message) });
  }
});

const mapped = (content: string, value: unknown): Record<string, unknown>[] => {
  const result = compileMapping(file(`mapping: x\noutputs:\n${content}`)).apply(value as never, undefined, meta);
  if (result.kind !== 'mapped') throw new Error(JSON.stringify(result).slice(0, 500));
  return result.outputs.map((o) => o.record);
};
const extrasOf = (record: Record<string, unknown>): unknown => (record['extras'] === null ? null : JSON.parse(record['extras'] as string));

test('fields of list elements that no path names are kept, at their places', () => {
  const [order] = mapped('  a:\n    record: Order\n    fields:\n      orderId: id\n      status: { const: completed }\n      items: { each: cart.lines, fields: { sku: $item.sku } }\n', { id: 1, cart: { lines: [{ sku: 'a' }, { sku: 'b', gift: true }] } });
  expect(extrasOf(order!)).toEqual({ cart: { lines: [null, { gift: true }] } });
});

test('with each, what the element leaves over is kept beside what the item around it does, and a root field of the same name is not taken for used', () => {
  const records = mapped('  a:\n    record: Order\n    each: orders\n    objectKey: $item.id\n    fields:\n      orderId: $item.id\n      status: { const: completed }\n      items: { each: $item.lines, fields: { sku: $item.sku } }\n', { lines: 'mine', orders: [{ id: 1, note: 'n', lines: [{ sku: 's' }] }, { id: 2, lines: [] }] });
  expect(records.map(extrasOf)).toEqual([{ lines: 'mine', $item: { note: 'n' } }, { lines: 'mine' }]);
});

test('extras are bounded: what fits is kept, the rest is counted, and the elements of one item share the room', () => {
  const [profile] = mapped('  a:\n    record: Profile\n    fields: { userId: id }\n', { id: 'u', small: 1, big: 'x'.repeat(100_000), list: Array(200_000).fill(1e20), last: true });
  expect(extrasOf(profile!)).toEqual({ small: 1, last: true, $omitted: 2 });
  const many = mapped('  a:\n    record: Profile\n    each: list\n    objectKey: $item\n    fields: { userId: $item }\n', { list: Array.from({ length: 1000 }, (_, i) => i), rest: 'x'.repeat(50_000) });
  expect(many.reduce((sum, r) => sum + (r['extras'] as string).length, 0)).toBeLessThan(1_100_000);
});

/** Extras as they were made before: the whole of what is left over, as text, for each element. */
function plainExtras(rest: Record<string, unknown>, max: number): string {
  const whole = JSON.stringify(rest);
  if (whole.length <= max) return whole;
  const parts: string[] = [];
  let room = max - 32;
  for (const [key, value] of Object.entries(rest)) {
    const text = `${JSON.stringify(key)}:${JSON.stringify(value)}`;
    if (text.length + 1 > room) continue;
    parts.push(text);
    room -= text.length + 1;
  }
  return `{${[...parts, `"$omitted":${Object.keys(rest).length - parts.length}`].join(',')}}`;
}
const anything = fc.oneof(fc.json({ maxDepth: 3 }).map((text) => JSON.parse(text) as unknown), fc.string({ maxLength: 60, unit: 'binary' }), fc.integer({ min: 0, max: 900 }).map((n) => 'é"'.repeat(n)));
const table = fc.dictionary(fc.string({ maxLength: 8 }).filter((key) => key !== '__proto__' && key !== '$item' && key !== '$parent'), anything, { maxKeys: 6 });

test('extras are what the plain way gives, to the character, whatever is left over and however much room there is', () => {
  fc.assert(fc.property(table, table, fc.integer({ min: 2, max: 4000 }), (shared, own, max) => {
    expect(extrasText(shared as never, max)).toBe(plainExtras(shared, max));
    const begun = new ExtrasText(max);
    for (const key of Object.keys(shared)) begun.add(key, shared[key] as never);
    expect(begun.copy().add('$item', own as never).end()).toBe(plainExtras({ ...shared, $item: own }, max));
    // The copy went on by itself.
    expect(begun.end()).toBe(plainExtras(shared, max));
  }), { numRuns: 500 });
});

test('the extras of elements are theirs beside what they share, by the plain way', () => {
  const mapping = compileMapping(file('mapping: x\noutputs:\n  a:\n    record: Profile\n    each: [people, $item.choices]\n    objectKey: { all: [$parent.id, $item.id] }\n    fields: { userId: $item.id }\n'));
  const person = fc.record({ left: table, choices: fc.array(table, { minLength: 1, maxLength: 6 }) });
  fc.assert(fc.property(table, fc.array(person, { minLength: 1, maxLength: 20 }), (around, people) => {
    const item = { ...around, people: people.map(({ left, choices }, id) => ({ ...left, id, choices: choices.map((choice, i) => ({ ...choice, id: i })) })) };
    delete (around as Record<string, unknown>)['people'];
    const result = mapping.apply(item as never, undefined, meta);
    if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
    const max = Math.max(1024, Math.floor(65_536 / result.outputs.length));
    const without = ({ id: _id, choices: _choices, ...rest }: Record<string, unknown>) => rest;
    const withoutId = ({ id: _id, ...rest }: Record<string, unknown>) => rest;
    const wanted = item.people.flatMap((parent) => parent.choices.map((choice) => {
      const [ofParent, own] = [without(parent), withoutId(choice)];
      const rest = { ...around, ...(Object.keys(ofParent).length > 0 ? { $parent: ofParent } : {}), ...(Object.keys(own).length > 0 ? { $item: own } : {}) };
      return Object.keys(rest).length === 0 ? null : plainExtras(rest, max);
    }));
    expect(result.outputs.map((o) => o.record['extras'])).toEqual(wanted);
  }), { numRuns: 100 });
});

test('a field of the item that is called as what an element leaves gives way to it', () => {
  const records = mapped('  a:\n    record: Profile\n    each: list\n    objectKey: $item.id\n    fields: { userId: $item.id }\n', { $item: 'mine', $parent: 'too', list: [{ id: 1, note: 'n' }, { id: 2 }] });
  expect(records.map(extrasOf)).toEqual([{ $parent: 'too', $item: { note: 'n' } }, { $item: 'mine', $parent: 'too' }]);
});

test('what elements share is read once for all of them, and no further than has room', () => {
  const reads = { around: 0, parent: 0 };
  const large = (of: 'around' | 'parent') => Object.assign(Object.defineProperty({}, 'first', { enumerable: true, get: () => { reads[of]++; return 1; } }), { rest: 'x'.repeat(480_000) });
  const choices = Array.from({ length: 900 }, (_, id) => ({ id, note: 'n' }));
  const records = mapped('  a:\n    record: Profile\n    each: [people, $item.choices]\n    objectKey: $item.id\n    fields: { userId: $item.id }\n', { properties: large('around'), plan: 'gold', people: [{ large: large('parent'), choices }] });
  expect([...new Set(records.map((r) => r['extras']))]).toEqual(['{"plan":"gold","$item":{"note":"n"},"$omitted":2}']);
  expect(reads.around + reads.parent).toBeLessThan(10);
});

test('an item that would give too many records or elements is one failure, not a flood', () => {
  const one = 'mapping: x\noutputs:\n  a:\n    record: Profile\n    each: list\n    objectKey: $item.id\n    fields: { email: { from: $item.id, pipe: [email] } }\n';
  expect(compileMapping(file(one)).apply({ list: Array.from({ length: 1001 }, (_, id) => ({ id })) }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ message: expect.stringMatching(/more than 1000/), line: 3 }] });
  const wide = 'mapping: x\noutputs:\n  a:\n    record: Order\n    fields: { orderId: id, status: { const: completed }, items: { each: list, fields: {} } }\n';
  expect(compileMapping(file(wide)).apply({ id: 1, list: Array.from({ length: 10_001 }, () => ({})) }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ field: 'items', path: 'list' }] });
});

test('lists of all records of an item are bounded together: a list from the root in each of many records would be millions of objects before their bytes are known', () => {
  const squared = 'mapping: x\noutputs:\n  a:\n    record: Order\n    each: orders\n    objectKey: $item.id\n    fields: { orderId: $item.id, status: { const: completed }, items: { each: list, fields: {} } }\n';
  const item = (orders: number): Record<string, unknown> => ({ orders: Array.from({ length: orders }, (_, id) => ({ id })), list: Array.from({ length: 5000 }, () => ({})) });
  const apply = (orders: number) => compileMapping(file(squared)).apply(item(orders) as never, undefined, meta);
  expect(apply(10).kind).toBe('mapped');
  expect(apply(11)).toMatchObject({ kind: 'failed', reasons: [{ field: 'items', message: expect.stringContaining('too many elements together') }] });
});

test('a condition that CEL cannot decide fails the item instead of losing the record', () => {
  const mapping = compileMapping(file('mapping: x\noutputs:\n  a: { record: Profile, fields: { userId: id } }\n  b: { record: Profile, when: { cel: \'item.kind == "x"\' }, fields: { userId: id } }\n'));
  expect(mapping.apply({ id: 1, kind: 'y' }, undefined, meta)).toMatchObject({ kind: 'mapped', outputs: [{ name: 'a' }] });
  expect(mapping.apply({ id: 1 }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ message: expect.stringMatching(/^when of b: CEL: /), line: 4 }] });
});

test('what CEL counts can stand in JSON text: an item that makes the stage throw would stop every source, again after each restart', () => {
  const mapping = compileMapping(file('mapping: x\noutputs:\n  a: { record: Profile, fields: { userId: id, plan: { cel: "[size(item.tags), 7]", pipe: json } } }\n'));
  const result = mapping.apply({ id: 'u', tags: ['a', 'b'] }, undefined, meta);
  expect(result.kind === 'mapped' && result.outputs[0]!.record['plan']).toBe('[2,7]');
});

test('a default has the type of its field', () => {
  expect(mapped('  a:\n    record: Profile\n    fields: { plan: { from: plan, default: 5 } }\n', {})[0]!['plan']).toBe('5');
});

test.each([['2024-02-29', true], ['2023-02-29', false], ['2023-02-30T10:00:00Z', false], ['2023-12-31T10:00:00+01:00', true], ['2023-04-31 10:00', false], ['2023-13-01', false]])('the day of %s is taken: %s', (at, taken) => {
  const mapping = compileMapping(file('mapping: x\noutputs:\n  a: { record: Profile, fields: { occurredAt: { from: at, pipe: [timestamp] }, birthday: { from: at, pipe: [date] } } }\n'));
  const result = mapping.apply({ at }, undefined, meta);
  expect(result.kind === 'failed' ? result.reasons.map((r) => r.field) : []).toEqual(taken ? [] : ['occurredAt', 'birthday']);
});

test('text made to keep a number pattern busy takes no time', () => {
  const mapping = compileMapping(file('mapping: x\noutputs:\n  a: { record: Profile, fields: { balance: { from: n, pipe: [integer] } } }\n'));
  expect(cpuMs(() => expect(mapping.apply({ n: `${'1'.repeat(400_000)}x` }, undefined, meta).kind).toBe('failed'))).toBeLessThan(1000);
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

const governed = (property: string): string => contract.replace(/properties:[^]*$/, `properties:\n      - ${property}\n`);

test.each([
  ['properties that are no list', contract.replace(/properties:[^]*$/, 'properties: { email: required }\n'), 8, /not a list/],
  ['a record that is none', contract.replace(/schema:[^]*$/, 'schema:\n  - null\n'), 6, /not a list/],
  ['a type that the field never has', governed('{ name: email, logicalType: integer }'), 9, /never one of type integer/],
  ['a pattern for a number', governed('{ name: balance, logicalTypeOptions: { pattern: "^1" } }'), 9, /takes a whole number/],
  ['a length of a time', governed('{ name: createdAt, logicalTypeOptions: { minLength: 2 } }'), 9, /takes a whole number/],
  ['a format of the prototype', governed('{ name: email, logicalTypeOptions: { format: constructor } }'), 9, /unknown format/],
  ['a share of many records', governed('{ name: email, quality: [ { metric: nullValues, mustBeLessThan: 5, unit: percent } ] }'), 9, /quality key mustBeLessThan/],
  ['a metric over many records', governed('{ name: email, quality: [ { metric: duplicateValues, mustBe: 0 } ] }'), 9, /one record/],
  ['a metric without its arguments', governed('{ name: email, quality: [ { metric: invalidValues, mustBe: 0 } ] }'), 9, /expected validValues or pattern/],
  ['SQL', governed('{ name: email, quality: [ { type: sql, query: SELECT, mustBe: 0 } ] }'), 9, /one record/],
])('a contract with %s is a problem with its line', (_name, content, line, message) => {
  try {
    compileContract(file(content));
    expect.unreachable('it compiled');
  } catch (error) {
    expect((error as WorkspaceError).problems[0]).toMatchObject({ file: 'm.yaml', line, message: expect.stringMatching(message) });
  }
});

test('library metrics of a property hold on each record', () => {
  const compiled = compileContract(file(governed(`{ name: plan, quality: [ { metric: nullValues, mustBe: 0 }, { metric: missingValues, mustBe: 0, arguments: { missingValues: ['', n/a] } }, { metric: invalidValues, mustBe: 0, name: known-plan, arguments: { validValues: [free, pro] } } ] }`)));
  const broken = (plan: unknown): string[] => compiled.check('weir.canonical.Profile', { plan }).map((r) => r.message);
  expect(broken('pro')).toEqual([]);
  expect(broken(null)).toEqual(['plan breaks nullValues']);
  expect(broken('n/a')).toEqual(['plan breaks missingValues', 'plan breaks known-plan']);
  expect(broken('gold')).toEqual(['plan breaks known-plan']);
});

const nested = (key: string, extra = '') => `mapping: centre
outputs:
  topic:
    record: ConsentChange
    each: [person.lists, $item.topics]
    objectKey: ${key}
    fields:
      userId: person.id
      purpose: $parent.name
      topic: $item.name
      state: { from: $item.on, map: { 'true': granted, 'false': withdrawn } }
${extra}`;

test('each over a list in a list: $item is the inner element, $parent the one around it, and the key takes a part of both', () => {
  const mapping = compileMapping(file(nested('{ all: [$parent.id, $item.id] }')));
  const lists = [{ id: 'a/1', name: 'news', topics: [{ id: 1, name: 'x', on: true, color: 'red' }, { id: 2, name: 'y', on: false }] }, { id: 'b', name: 'sms', size: 3, topics: [{ id: 1, name: 'x', on: false }] }, { id: 'c', topics: [] }, { id: 'd' }];
  const result = mapping.apply(JSON.parse(JSON.stringify({ person: { id: 'u', lists } })), undefined, meta);
  if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
  expect(result.outputs.map(({ record: r }) => [r['objectKey'], r['purpose'], r['topic'], r['state'], r['extras']])).toEqual([
    ['a%2F1/1', 'news', 'x', 'granted', '{"$item":{"color":"red"}}'], ['a%2F1/2', 'news', 'y', 'withdrawn', null], ['b/1', 'sms', 'x', 'withdrawn', '{"$parent":{"size":3}}'],
  ]);
  const ids = (items: object[]) => {
    const again = mapping.apply(JSON.parse(JSON.stringify({ person: { id: 'u', lists: items } })), undefined, meta);
    return again.kind === 'mapped' ? again.outputs.map((o) => o.outputId).sort() : [];
  };
  expect(new Set(ids(lists)).size).toBe(3);
  expect(ids([...lists].reverse().map((list) => ({ ...list, topics: [...(list.topics ?? [])].reverse() })))).toEqual(ids(lists));
});

test('a list in a list gives what a plain loop gives, whatever stands in it, and at most 1000 records', () => {
  const mapping = compileMapping(file(nested('{ all: [$parent.id, $item.id] }')));
  const topics = fc.uniqueArray(fc.record({ id: fc.nat(9), name: fc.string({ minLength: 1 }), on: fc.boolean() }), { selector: (t) => t.id, maxLength: 5 });
  fc.assert(fc.property(fc.uniqueArray(fc.record({ id: fc.string({ unit: 'binary' }), name: fc.string({ minLength: 1 }), topics }), { selector: (l) => l.id, minLength: 1, maxLength: 5 }), (lists) => {
    const expected = lists.flatMap((list) => list.topics.map((t) => [list.name, t.name, t.on ? 'granted' : 'withdrawn']));
    const result = mapping.apply({ person: { id: 'u', lists } }, undefined, meta);
    if (expected.length === 0) expect(result).toMatchObject({ kind: 'failed', reasons: [{ code: 'mapping-no-output' }] });
    else expect(result.kind === 'mapped' ? result.outputs.map(({ record: r }) => [r['purpose'], r['topic'], r['state']]) : result).toEqual(expected);
  }));
  const many = (n: number) => mapping.apply({ person: { id: 'u', lists: Array.from({ length: 10 }, (_, i) => ({ id: i, name: 'p', topics: Array.from({ length: n }, (__, t) => ({ id: t, name: 'x', on: true })) })) } }, undefined, meta);
  expect([many(100).kind, many(101)]).toMatchObject(['mapped', { kind: 'failed', reasons: [{ message: 'one item gives more than 1000 records' }, { code: 'consent-unresolved' }] }]);
});

test.each([
  ['a key that lacks a part', [{ id: 'a', name: 'n', topics: [{ name: 'x', on: false }] }], 'topic.objectKey needs every part of it'],
  ['topics that are no list', [{ id: 'a', name: 'n', topics: { id: 1, name: 'x', on: false } }], 'each of topic: expected a list'],
  ['lists that are no list', { id: 'a' }, 'each of topic: expected a list'],
])('a change of consent in a list in a list: %s goes to the dead letters as one that binds nobody', (_name, lists, message) => {
  expect(compileMapping(file(nested('{ all: [$parent.id, $item.id] }'))).apply({ person: { id: 'u', lists } }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ message }, { code: 'consent-unresolved' }] });
});

test('each over the pairs of a table', () => {
  const mapping = compileMapping(file(`mapping: banner
outputs:
  choice:
    record: ConsentChange
    each: { entries: consent }
    when: { path: $item.value, exists: true }
    objectKey: $item.key
    fields: { userId: id, purpose: $item.key, state: { from: $item.value, map: { 'true': granted, 'false': denied } } }
`));
  const result = mapping.apply(JSON.parse('{"id":"u","consent":{"ads":false,"stats":true,"none":null,"__proto_":true},"page":1}'), undefined, meta);
  if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
  expect(result.outputs.map(({ record: r }) => [r['objectKey'], r['purpose'], r['state'], r['extras']])).toEqual([['ads', 'ads', 'denied', '{"page":1}'], ['stats', 'stats', 'granted', '{"page":1}'], ['__proto_', '__proto_', 'granted', '{"page":1}']]);
  expect(mapping.apply({ id: 'u', consent: [true] }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ message: 'each of choice: expected a table' }, { code: 'consent-unresolved' }] });
});

test.each([
  ['each: [person.lists, topics]', 'the second list stands in the elements of the first'],
  ['each: [a, $item.b, $item.c]', 'each takes one list, or 2'],
  ['each: { entries: a, of: b }', 'not a path'],
  ['each: []', 'each takes one list, or 2'],
  ['each: a', '$parent is the element around $item: there is none'],
])('%s is refused: %s', (each, message) => {
  const yaml = `mapping: m\noutputs:\n  o:\n    record: ConsentChange\n    ${each}\n    objectKey: { all: [$parent.a, $item.id] }\n    fields: { userId: id, purpose: p, state: s }\n`;
  let problems: readonly string[] = [];
  try {
    compileMapping(file(yaml));
  } catch (error) {
    problems = (error as WorkspaceError).problems.map((p) => p.message);
  }
  expect(problems).toContain(message);
});

test.each([
  ['DE', 'DE'], [' de ', 'DE'], ['UK', 'GB'], ['uk', 'GB'], ['EL', 'GR'], ['XX', 'XX'], ['Germany', 'ZZ'], ['DEU', 'ZZ'], ['276', 'ZZ'], [276, 'ZZ'], [true, 'ZZ'], [{ code: 'DE' }, 'ZZ'], [['DE'], 'ZZ'],
  ['', null], [' ', null], [null, null], [undefined, null],
])('the country %o is %o: what is said and is no code is not as good as not said', (said, expected) => {
  const mapping = compileMapping({ path: 'm.yaml', content: 'mapping: m\noutputs:\n  profile:\n    record: Profile\n    fields:\n      userId: user\n      country: { from: country, pipe: [country] }\n' });
  const result = mapping.apply({ user: 'u', ...(said === undefined ? {} : { country: said }) } as never, undefined, { eventId: 'evt_1', source: 's', acceptedAt: 1000 });
  expect(result.kind === 'mapped' ? result.outputs[0]!.record['country'] : result).toBe(expected);
});
