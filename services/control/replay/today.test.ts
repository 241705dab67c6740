import type { Adapter } from '@weir/adapter';
import type { LogRecord } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { canonicalSchemas, dependsOnTime, planOf } from '@weir/policy';
import { compileRelease, type Release } from '@weir/release';
import { createLocalSerde } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createDeriver } from './derive.ts';
import { createAsksToday, type SelectPorts } from './select.ts';
import { createToday, isWithin, type DecidedDelivery, type Today } from './today.ts';

const put = { kind: 'use', accepts: ['weir.canonical.Profile'], idempotency: { scheme: 'natural-upsert', pastWindow: 'hold' } };
const sink = { manifest: { name: 'sink', title: 'Sink', docs: '', apiVersion: '1', destination: { config: {}, operations: { put, other: put } } }, destination: {} } as unknown as Adapter;
const allow = '  - { name: all, effect: allow }\n';
const route = 'adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n';
function release(rules: string, files: Readonly<Record<string, string>> = {}): Release {
  const all = { 'weir.yaml': 'name: acme\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: S. }\n', 'policies/a.yaml': `rules:\n${rules}`, 'destinations/crm.yaml': route, ...files };
  return compileRelease(Object.entries(all).map(([path, content]) => ({ path, content })), { adapters: new Map([['sink', sink]]) });
}

const serde = await createLocalSerde();
const emptied = Object.fromEntries(canonicalSchemas().get('Profile')!.fields.map(({ name }) => [name, null]));
const base = { ...emptied, id: 'o', source: 'shop', occurredAt: 5, externalIds: [], attributes: {} };
const bytesOf = (fields: object): Buffer => serde.encode('weir.canonical.Profile', { ...base, ...fields });
const canonical = (fields: object, approval = ''): LogRecord => {
  const headers = { [H.event]: 'evt_1', [H.output]: 'out_1', [H.source]: 'shop', [H.accepted]: '1000', [H.hash]: 'h', [H.ids]: 'email:x', ...(approval === '' ? {} : { [H.approval]: approval }) };
  return { offset: 0, timestamp: 0, key: Buffer.from('email:x'), value: bytesOf(fields), headers: Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)] as const) };
};

interface Asked { readonly before: Release; readonly today: Release; readonly fields: object; readonly kept?: readonly LogRecord[]; readonly now?: number; readonly destination?: string; readonly over?: Partial<DecidedDelivery> }
/** What policy says today of the delivery that `before` made of a record; the records that are kept are asked for at most once. */
async function today({ before, today: release, fields, kept, now = 2_000_000, destination = 'crm', over = {} }: Asked): Promise<{ readonly says: Today; readonly reads: number }> {
  const ports = { serde, release: () => release, workspaceKey: Buffer.alloc(32), tables: { linked: (ids: readonly string[]) => ids, check: () => ({ ok: true as const, seen: [] }), regions: () => undefined }, keys: undefined, open: (b: Buffer) => b, standing: { mayRead: () => true }, now: () => now };
  const whole = bytesOf(fields);
  const made = createDeriver({ ...ports, release: () => before }).now(canonical(fields), destination, 'put');
  let reads = 0;
  const one = createToday({ ...ports, canonicalOf: async () => { reads++; return kept ?? [canonical(fields)]; }, decidedLater: () => false, prepare: async () => undefined, decideNow: createDeriver(ports).now });
  const delivery: DecidedDelivery = { outputId: 'out_1', eventId: 'evt_1', destination, operation: 'put', recordType: 'weir.canonical.Profile', release: before.hash, decidedAt: 1000, notBefore: null, payload: made.kind === 'allowed' ? made.payload : whole, ...over };
  return { says: one.stands(delivery) ? 'same' : await one.decide(delivery), reads };
}
const person = { email: 'ann@larkspur.example', phone: '+4930901820', country: 'DE', firstName: 'Ann' };
const cut = (fields: readonly string[], name = 'cut'): string => (fields.length === 0 ? '' : `  - { name: ${name}, effect: minimise, fields: [${fields.join(', ')}] }\n`);

test('what the running release decided stands without a read', async () => {
  const one = release(allow);
  expect(await today({ before: one, today: one, fields: person })).toEqual({ says: 'same', reads: 0 });
});

test.each<[string, string, Today, Readonly<Record<string, string>>?]>([
  ['another release with the same policy', allow, 'same', { 'mappings/x.yaml': 'mapping: x\noutputs: {}\n' }],
  ['a deny rule by purpose', `${allow}  - { name: no, effect: deny, purpose: service }\n`, 'denied'],
  ['a deny rule that reads a field which the delivery does not carry', `${allow}  - { name: no, effect: deny, when: record.country == "DE" }\n`, 'denied'],
  ['a deny rule that does not apply', `${allow}  - { name: no, effect: deny, when: record.country == "FR" }\n`, 'same'],
  ['no allow rule', '  - { name: some, effect: allow, when: record.country == "FR" }\n', 'denied'],
  ['an approval that is wanted', `${allow}  - { name: ask, effect: require-approval }\n`, 'denied'],
  ['residency', `${allow}  - { name: stay, effect: residency, residency: { subject: [DE], destinations: [DE] } }\n`, 'denied', { 'destinations/crm.yaml': `region: [US]\n${route}` }],
  ['no route any more', allow, 'denied', { 'destinations/crm.yaml': route.replace('service }', 'service, when: "false" }') }],
  ['a field less', `${allow}${cut(['phone'])}`, 'otherwise'],
  ['another text', `${allow}  - { name: hide, effect: hash, hash: { as: sha256, fields: [email] } }\n`, 'otherwise'],
  ['a delay until later', `${allow}  - { name: later, effect: delay, until: "now + 5000" }\n`, 'denied'],
])('today: %s', async (_what, rules, says, files = {}) => {
  const before = release(`${allow}${cut(['country'], 'old')}`);
  if (files['mappings/x.yaml'] !== undefined) files = {};
  const now = release(`${rules}${cut(['country'], 'old')}`, { 'weir.yaml': 'name: other\n', ...files });
  expect(await today({ before, today: now, fields: person })).toEqual({ says, reads: 1 });
});

test('by the same release, what time can change is decided again', async () => {
  const until = release(`${allow}  - { name: over, effect: deny, when: "int(now) >= 1000" }\n`);
  expect(await today({ before: until, today: until, fields: person })).toMatchObject({ says: 'denied', reads: 1 });
  expect(await today({ before: until, today: until, fields: person, now: 999 })).toMatchObject({ says: 'same' });
  const quiet = release(`${allow}  - { name: night, effect: delay, quietHours: { from: "00:00", to: "06:00", timezone: UTC } }\n`);
  expect(await today({ before: quiet, today: quiet, fields: person, now: 3_600_000 })).toMatchObject({ says: 'denied' });
  // It waits for that anyway.
  expect(await today({ before: quiet, today: quiet, fields: person, now: 3_600_000, over: { notBefore: 6 * 3_600_000 } })).toMatchObject({ says: 'same' });
  expect(await today({ before: quiet, today: quiet, fields: person, now: 7 * 3_600_000 })).toMatchObject({ says: 'same' });
});

test('without a record that can be read it stays closed', async () => {
  const [before, now] = [release(allow), release(allow, { 'weir.yaml': 'name: other\n' })];
  const foreign = { ...canonical(person), value: Buffer.from('no Avro') };
  for (const kept of [[], [{ ...canonical(person), headers: [] }], [foreign]]) expect(await today({ before, today: now, fields: person, kept })).toEqual({ says: 'undecided', reads: 1 });
});

test('what an approver let through is not held again by the same rule, and by another one it is', async () => {
  const ask = (name: string): string => `${allow}  - { name: ${name}, effect: require-approval }\n`;
  const kept = [canonical(person), canonical(person, 'crm/put/ask')];
  expect(await today({ before: release(ask('ask')), today: release(ask('ask'), { 'weir.yaml': 'name: other\n' }), fields: person, kept })).toMatchObject({ says: 'same' });
  expect(await today({ before: release(ask('ask')), today: release(ask('more')), fields: person, kept })).toMatchObject({ says: 'denied' });
});

test('of an item that was mapped anew the newest record is decided, and the values may be of any', async () => {
  const at = (timestamp: number, fields: object): LogRecord => ({ ...canonical(fields), timestamp });
  const [before, no] = [release(allow), release(`${allow}  - { name: no, effect: deny, when: record.country == "DE" }\n`)];
  const [old, mended] = [{ ...person, country: 'FR' }, { ...person, country: 'FR', firstName: 'Anna' }];
  for (const kept of [[at(1, old), at(2, mended)], [at(2, mended), at(1, old)]]) for (const fields of [old, mended]) expect(await today({ before, today: no, fields, kept })).toMatchObject({ says: 'same' });
  expect(await today({ before, today: no, fields: old, kept: [at(1, old), at(2, person)] })).toMatchObject({ says: 'denied' });
  expect(await today({ before, today: no, fields: person, kept: [at(1, person), at(2, old)] })).toMatchObject({ says: 'otherwise' });
});

test('a delivery at the second vendor of a route is decided as such', async () => {
  const pair = (more: string): Release => release(`${allow}${more}`, { 'destinations/crm.yaml': route.replace('service }', 'service, via: [{ destination: two, after: 5m }] }'), 'destinations/two.yaml': 'adapter: sink\nroutes:\n  - { on: Profile, operation: other, purpose: service, when: "false" }\n' });
  const before = pair('');
  expect(planOf(before.policy, 'Profile')!.routes.some((r) => r.second?.route.destination === 'two')).toBe(true);
  for (const [rule, says] of [['  - { name: x, effect: deny, when: destination == "elsewhere" }\n', 'same'], ['  - { name: x, effect: deny, when: destination == "two" }\n', 'denied'], ['  - { name: x, effect: deny, when: destination == "crm" }\n', 'denied']] as const) expect([rule, await today({ before, today: pair(rule), fields: person, destination: 'two' })]).toMatchObject([rule, { says }]);
});

test('a route depends on time by a delay or a condition that reads the time, of the rules that are looked at there', () => {
  const of = (rules: string, more = {}): boolean => dependsOnTime(release(rules, more).policy, 'Profile', 'crm', 'put');
  expect([of(allow), of(`${allow}  - { name: x, effect: deny, when: record.country == "DE" }\n`)]).toEqual([false, false]);
  for (const rule of ['deny, when: "int(now) > 5"', 'deny, when: meta.hour > 5', 'delay, quietHours: { from: "22:00", to: "06:00", timezone: UTC }', 'delay, until: "now"', 'minimise, fields: [phone], when: meta.hour > 5']) expect([rule, of(`${allow}  - { name: x, effect: ${rule} }\n`)]).toEqual([rule, true]);
  expect(of(`${allow}  - { name: x, effect: deny, when: destination == "two" && int(now) > 5 }\n`, { 'destinations/crm.yaml': route.replace('service }', 'service, when: "int(now) > 5" }') })).toBe(true);
  expect(dependsOnTime(release(allow).policy, 'Event', 'crm', 'put')).toBe(true);
});

const names = ['email', 'phone', 'firstName', 'city'] as const;
const some = fc.subarray([...names]);
test('it goes as it stands where, and only where, today\'s policy lets all of it through', async () => {
  await fc.assert(fc.asyncProperty(fc.record({ has: some, dropped: some, drops: some, country: fc.constantFrom('DE', 'FR'), denied: fc.option(fc.constantFrom('DE', 'FR')) }), async ({ has, dropped, drops, country, denied }) => {
    const before = release(`${allow}${cut([...dropped, 'country'])}`);
    const now = release(`${allow}${cut([...drops, 'country'])}${denied === null ? '' : `  - { name: no, effect: deny, when: record.country == "${denied}" }\n`}`, { 'weir.yaml': 'name: other\n' });
    const fields = { country, ...Object.fromEntries(has.map((name) => [name, `${name}@x`])) };
    const more = has.some((name) => !dropped.includes(name) && drops.includes(name));
    expect((await today({ before, today: now, fields })).says).toBe(denied === country ? 'denied' : more ? 'otherwise' : 'same');
  }), { numRuns: 100 });
}, 60_000);

test('one delivery as it stands on its topic: what uses data is asked of, what restricts it, has no operation any more or cannot be read is left to its dispatcher', async () => {
  const [before, no] = [release(allow), release(`${allow}  - { name: no, effect: deny, when: record.country == "DE" }\n`)];
  const kinds: Readonly<Record<string, string>> = { put: 'use', off: 'restrict' };
  const asks = (now: Release) => createAsksToday({
    serde, topics: topicNames('t'), release: () => now, workspaceKey: Buffer.alloc(32), tables: { linked: (ids: readonly string[]) => ids, check: () => ({ ok: true as const, seen: [] }), regions: () => undefined }, keys: undefined, open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined,
    canonicalOf: async () => [canonical(person)], decidedLater: () => false, now: () => 2_000_000, standing: { mayRead: () => true, destination: () => ({ operations: Object.fromEntries(Object.entries(kinds).map(([name, kind]) => [name, { kind }])) }) },
  } as unknown as SelectPorts);
  const delivery = (operation: string): Buffer => serde.encode('weir.internal.Delivery', { outputId: 'out_1', eventId: 'evt_1', destination: 'crm', operation, kind: 'use', recordType: 'weir.canonical.Profile', payload: bytesOf(person), decidedAt: 1000, itemHash: 'h', source: 'shop', acceptedAt: 1000, purpose: 'service', channel: null, topic: null, legalBasis: 'contract', rule: 'all', ids: ['email:x'], consent: [], consentOffsets: [], identityOffsets: [], intent: '0', release: before.hash, notBefore: null });
  const says = async (now: Release, value: Buffer | null): Promise<Today> => asks(now)({ topic: 't.dispatch.crm', value });
  expect([await says(before, delivery('put')), await says(no, delivery('put'))]).toEqual(['same', 'denied']);
  for (const value of [delivery('off'), delivery('gone'), Buffer.from('no Avro'), null]) expect(await says(no, value)).toBe('same');
});

test('a payload is within another one when each field, and each key of its maps, is there with the same value', () => {
  expect([isWithin({ a: 1, m: { x: 1 }, n: null, l: [], extras: { z: '1' } }, { a: 1, m: { x: 1, y: 2 }, n: 5, l: [1], extras: {} }), isWithin({ a: 1 }, { a: 2 }), isWithin({ m: { x: 1 } }, { m: { x: 2 } }), isWithin({ m: { x: 1 } }, { m: {} }), isWithin({ l: [1] }, { l: [1, 2] }), isWithin({ a: 1 }, { a: null })]).toEqual([true, false, false, false, false, false]);
});
