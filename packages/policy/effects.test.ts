import { hash } from 'node:crypto';
import type { WorkspaceError } from '@weir/errors';
import { loadSchemas } from '@weir/schemas';
import { parseYaml } from '@weir/yaml';
import avsc from 'avsc';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkPolicy } from './check.ts';
import { dataClass, fieldUses, type ClassPurposes, type DataClass, type FieldTerms } from './classes.ts';
import { compilePurposes, compilePurposesFile, compileRoutes, type CompiledPolicy, type CompiledRoute } from './compile.ts';
import { decide, regionsOf, type Decision, type DecisionContext, type Subject } from './decide.ts';
import { compileRegions, isRegionCode, standardRegions, type Regions } from './regions.ts';
import { compileRules } from './rules.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: News. }\n  service: { legalBasis: contract, doc: Service. }\n  kyc: { legalBasis: legal-obligation, doc: Know your customer. }\n' });
const operations = { send: { kind: 'use', accepts: ['weir.canonical.Profile', 'weir.canonical.Event'] }, stop: { kind: 'restrict', accepts: ['weir.canonical.Profile', 'weir.canonical.CampaignMetric'] } } as const;
const regions = compileRegions({ path: 'regions.yaml', content: 'regions:\n  dach: [DE, AT, CH]\n  trusted: [dach, EEA]\n' });

interface World {
  readonly rules?: string;
  readonly routes?: Readonly<Record<string, readonly string[]>>;
  readonly terms?: Readonly<Record<string, FieldTerms>>;
  readonly classes?: ClassPurposes;
  readonly where?: Readonly<Record<string, readonly string[]>>;
  readonly sources?: Readonly<Record<string, string>>;
  readonly regions?: Regions;
}
function policyOf(world: World): CompiledPolicy {
  const problems: never[] = [];
  const list: CompiledRoute[] = [];
  for (const [destination, lines] of Object.entries(world.routes ?? { crm: ['{ on: Profile, operation: send, purpose: news, channel: email }'] })) {
    const file = { path: `destinations/${destination}.yaml`, content: `routes:\n${lines.map((l) => `  - ${l}\n`).join('')}` };
    const yaml = parseYaml(file);
    list.push(...compileRoutes((yaml.value as { routes: never }).routes, destination, operations, purposes, file, yaml, problems, { regions }));
  }
  expect(problems).toEqual([]);
  const byRecord = new Map<string, CompiledRoute[]>();
  for (const route of list) byRecord.set(route.on, [...(byRecord.get(route.on) ?? []), route]);
  const terms = new Map(Object.entries(world.terms ?? {}));
  return {
    purposes, rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n${world.rules ?? ''}  - { name: all, effect: allow }\n` }, purposes, regions), routes: byRecord,
    governance: {
      regions, sourceRegions: new Map(Object.entries(world.sources ?? {})), destinationRegions: new Map(Object.entries(world.where ?? {})),
      fields: new Map(['Profile', 'Event'].map((name) => [name, fieldUses(name, terms, world.classes, purposes.keys())])),
    },
  };
}

const types = new Map([...loadSchemas()].map(([name, schema]) => [name, avsc.Type.forSchema(schema as avsc.Schema)]));
function decoded(name: string, fields: Record<string, unknown>): Record<string, unknown> {
  const type = types.get(`weir.canonical.${name}`)!;
  return type.fromBuffer(type.toBuffer(type.clone({ id: 'o', source: 'shop', occurredAt: 5, ...fields }, { wrapUnions: false }))) as Record<string, unknown>;
}
const ada = { email: 'ada@gmail.com', phone: '+49301234567', firstName: 'Ada', birthday: '1985-02-06', country: 'DE', attributes: { tier: 'gold' }, balance: 5 };
const subject = (over: Partial<Subject> = {}, fields: Record<string, unknown> = ada): Subject => ({ recordName: 'Profile', record: decoded('Profile', fields), source: 'shop', key: 'email:x', ids: ['email:x'], eventId: 'evt_1', acceptedAt: 1000, ...over });
const context = (over: Partial<DecisionContext> = {}): DecisionContext => ({ now: 1_000_000, consent: () => ({ ok: true, seen: [] }), take: () => true, ...over });
const short = (d: Decision): string => (d.effect === 'allow' ? 'allow' : `${d.effect} ${d.reason}`);
const outcomes = (policy: CompiledPolicy, s = subject()) => decide(policy, s, context()).map((d) => `${d.route?.destination}: ${short(d)}`);
function sent(policy: CompiledPolicy, s = subject()): Record<string, unknown> {
  const [decision] = decide(policy, s, context());
  if (decision?.effect !== 'allow') throw new Error(short(decision!));
  const record = decision.minimiser.record(s.record);
  return Object.fromEntries(Object.entries(record).filter(([, v]) => v !== null && typeof v !== 'undefined' && (typeof v !== 'object' || Object.keys(v).length > 0)));
}

const classes = (table: Partial<Record<DataClass, string[]>>): ClassPurposes => new Map(Object.entries(table) as [DataClass, string[]][]);

test('only fields whose purpose the route has are sent', () => {
  const policy = policyOf({ classes: classes({ identifier: ['news', 'service'], personal: ['service'], internal: ['service'] }) });
  expect(Object.keys(sent(policy)).sort()).toEqual(['email', 'id', 'occurredAt', 'phone', 'source']);
});

test('a contract speaks for its fields: class, purposes, and the strictest of several words', () => {
  const own = policyOf({ classes: classes({ identifier: ['news'], personal: ['news'] }), terms: { firstName: { purposes: ['service'] }, birthday: { class: dataClass(['personal', 'kyc-sensitive']) } } });
  expect(Object.keys(sent(own)).sort()).toEqual(['attributes', 'country', 'email', 'id', 'occurredAt', 'phone', 'source']);
});

test('sensitive classes go nowhere unless a purpose is named for them', () => {
  const without = policyOf({ terms: { birthday: { class: 'kyc-sensitive' }, attributes: { class: 'special-category' } } });
  expect(sent(without)).not.toHaveProperty('birthday');
  expect(sent(without)).not.toHaveProperty('attributes');
  expect(sent(without)).toHaveProperty('firstName');
  const kyc = policyOf({ routes: { registry: ['{ on: Profile, operation: send, purpose: kyc }'] }, terms: { birthday: { class: 'kyc-sensitive' } }, classes: classes({ 'kyc-sensitive': ['kyc'], identifier: ['kyc'] }) });
  expect(Object.keys(sent(kyc)).sort()).toEqual(['birthday', 'email', 'id', 'occurredAt', 'phone', 'source']);
});

test('keys of a map have classes of their own: one that may not go stays here, one that may goes without the others', () => {
  const fields = { ...ada, attributes: { tier: 'gold', passport: 'P1', note: 'n' } };
  const terms = { 'attributes.passport': { class: 'kyc-sensitive' as const }, 'attributes.note': { purposes: ['service'] } };
  expect(sent(policyOf({ terms }), subject({}, fields))['attributes']).toEqual({ tier: 'gold' });
  const closed = policyOf({ terms: { ...terms, 'attributes': { class: 'special-category' }, 'attributes.tier': { purposes: ['news'] } } });
  expect(sent(closed, subject({}, fields))['attributes']).toEqual({ tier: 'gold' });
  const without = policyOf({ terms, rules: '  - { name: no-attributes, effect: minimise, fields: [attributes] }\n' });
  expect(sent(without, subject({}, fields))).not.toHaveProperty('attributes');
});

test.each<[string, Readonly<Record<string, FieldTerms>>, readonly string[]]>([
  ['the purposes that the contract gives the field', { attributes: { purposes: ['service'] }, 'attributes.tier': {} }, []],
  ['the class that the contract gives the field', { attributes: { class: 'special-category' }, 'attributes.tier': {} }, []],
  ['those purposes less what its class may not', { attributes: { purposes: ['service'] }, 'attributes.tier': { class: 'public' } }, []],
  ['no sensitive class, whatever the field may', { attributes: { purposes: ['news'] }, 'attributes.tier': { class: 'kyc-sensitive' } }, []],
  ['its class within those purposes', { attributes: { purposes: ['news'] }, 'attributes.tier': { class: 'public' } }, ['tier']],
  ['purposes of its own', { attributes: { purposes: ['service'] }, 'attributes.tier': { purposes: ['news'] } }, ['tier']],
])('a key of a map goes by %s: what describes it sends it for nothing more', (_name, terms, keys) => {
  expect(Object.keys(sent(policyOf({ terms }))['attributes'] ?? {})).toEqual(keys);
});

test('a restriction carries who it is and nothing else', () => {
  const policy = policyOf({ routes: { crm: ['{ on: Profile, operation: stop }'] } });
  expect(Object.keys(sent(policy)).sort()).toEqual(['email', 'id', 'occurredAt', 'phone', 'source']);
});

const sha = (text: string): string => hash('sha256', text, 'hex');
test('a restriction tells identifiers hashed where its route says so, whatever the rules say, as the vendor normalises them: else nobody is found by them', () => {
  const change = (fields: object) => subject({}, { ...ada, email: 'Ada.L@gmail.com', userId: 'u1', ...fields });
  const told = (hash: string, fields: object = {}) => sent(policyOf({ routes: { ads: [`{ on: Profile, operation: stop, hash: ${hash} }`] }, rules: '  - { name: other, effect: hash, hash: { as: sha256, fields: [email, phone] } }\n' }), change(fields));
  expect(told('{ as: google }')).toMatchObject({ email: sha('adal@gmail.com'), phone: sha('+49301234567'), userId: 'u1' });
  expect(told('{ as: meta }')).toMatchObject({ email: sha('ada.l@gmail.com'), phone: sha('49301234567'), userId: sha('u1') });
  expect(told('{ as: meta, fields: [phone] }')).toMatchObject({ email: 'Ada.L@gmail.com', phone: sha('49301234567') });
  expect(told('{ as: meta }', { phone: 'none' })).not.toHaveProperty('phone');
  expect(Object.keys(told('{ as: meta }')).sort()).toEqual(['email', 'id', 'occurredAt', 'phone', 'source', 'userId']);
});

test.each([
  ['{ on: Profile, operation: send, purpose: news, hash: { as: meta } }', /for operations of kind restrict/],
  ['{ on: Profile, operation: stop, hash: { as: acme } }', /unknown hash acme/],
  ['{ on: Profile, operation: stop, hash: meta }', /unknown hash/],
  ['{ on: Profile, operation: stop, hash: { as: meta, fields: [firstName] } }', /Profile\.firstName is no identifier/],
  ['{ on: Profile, operation: stop, hash: { as: sha256 } }', /field/],
  ['{ on: CampaignMetric, operation: stop, hash: { as: google } }', /CampaignMetric has no identifier that it would hash/],
])('%s is refused', (line, message) => {
  const problems: { message: string; line: number; remedy: string }[] = [];
  const file = { path: 'destinations/ads.yaml', content: `routes:\n  - ${line}\n` };
  const yaml = parseYaml(file);
  compileRoutes((yaml.value as { routes: never }).routes, 'ads', operations, purposes, file, yaml, problems as never, { regions });
  expect(problems).toEqual([expect.objectContaining({ message: expect.stringMatching(message), line: 2, remedy: expect.stringMatching(/./) })]);
});

test('rules leave out, hash and mask; leaving out wins, then hashing, whatever their order', () => {
  const rules = ['  - { name: drop, effect: minimise, fields: [birthday] }\n', '  - { name: google, effect: hash, hash: { as: google, fields: [email] } }\n', '  - { name: tail, effect: mask, mask: { fields: [phone, birthday, email], last: 2 } }\n'];
  for (const order of [rules, rules.toReversed()]) {
    expect(sent(policyOf({ rules: order.join('') }))).toMatchObject({ email: expect.stringMatching(/^[0-9a-f]{64}$/), phone: '**********67', firstName: 'Ada' });
    expect(sent(policyOf({ rules: order.join('') }))).not.toHaveProperty('birthday');
  }
  expect(sent(policyOf({ rules: '  - { name: a, effect: hash, hash: { as: google, fields: [email] } }\n  - { name: b, effect: hash, hash: { as: sha256, fields: [email] } }\n' }))).not.toHaveProperty('email');
  expect(Object.keys(sent(policyOf({ rules: '  - { name: few, effect: minimise, keep: [email] }\n' }))).sort()).toEqual(['email', 'id', 'occurredAt', 'source']);
  expect(sent(policyOf({ rules: '  - { name: not-now, effect: minimise, when: record.country == "US", fields: [email] }\n' }))).toHaveProperty('email');
  expect(outcomes(policyOf({ rules: '  - { name: bad, effect: mask, when: record.lastName.startsWith("x"), mask: { fields: [email], last: 2 } }\n' }))).toEqual(['crm: deny policy-error']);
});

const everyField = [...loadSchemas().get('weir.canonical.Profile')!.fields.map((f) => f.name)].filter((name) => name !== 'extras');
test('whatever classes, contracts and rules say, a field without the purpose is never in what is sent', () => {
  const purposeLists = fc.subarray(['news', 'service', 'kyc']);
  fc.assert(fc.property(
    fc.dictionary(fc.constantFrom(...everyField), fc.record({ purposes: fc.option(purposeLists, { nil: undefined }), class: fc.option(fc.constantFrom<DataClass>('identifier', 'personal', 'kyc-sensitive', 'internal'), { nil: undefined }) })),
    fc.option(fc.dictionary(fc.constantFrom<DataClass>('identifier', 'personal', 'internal', 'kyc-sensitive'), purposeLists), { nil: undefined }),
    fc.subarray(['minimise, fields: [phone]', 'mask, mask: { fields: [email], last: 2 }', 'hash, hash: { as: meta }', 'minimise, keep: [firstName, email]']),
    (terms, table, rules) => {
      const policy = policyOf({ terms, classes: table === undefined ? undefined : classes(table), rules: rules.map((r, i) => `  - { name: r${i}, effect: ${r} }\n`).join('') });
      const uses = policy.governance!.fields.get('Profile')!;
      for (const field of Object.keys(sent(policy))) expect(uses.get(field)!.purposes.has('news')).toBe(true);
    }), { numRuns: 150 });
});

test('a route rule sends to its own of several destinations and leaves others alone', () => {
  const routes = { 'crm-eu': ['{ on: Profile, operation: send, purpose: service }'], 'crm-us': ['{ on: Profile, operation: send, purpose: service }'], mail: ['{ on: Profile, operation: send, purpose: service }'] };
  const policy = policyOf({ routes, rules: '  - { name: europeans, effect: route, when: \'inRegion(region, "EU")\', route: { to: [crm-eu], among: [crm-eu, crm-us] } }\n' });
  expect(outcomes(policy)).toEqual(['crm-eu: allow', 'crm-us: deny route:europeans', 'mail: allow']);
  expect(outcomes(policy, subject({}, { ...ada, country: 'US' }))).toEqual(['crm-eu: allow', 'crm-us: allow', 'mail: allow']);
  expect(outcomes(policy, subject({}, { ...ada, country: null }))).toEqual(['crm-eu: allow', 'crm-us: deny policy-error', 'mail: allow']);
});

test.each([
  ['inside', 'DE', ['FR'], 'allow'], ['to a country that is allowed', 'DE', ['CH'], 'allow'], ['outside', 'DE', ['US'], 'deny residency:stay'],
  ['to a subdivision outside', 'DE', ['US-CA'], 'deny residency:stay'], ['to several, one of them outside', 'DE', ['FR', 'US'], 'deny residency:stay'],
  ['somebody else', 'BR', ['US'], 'allow'], ['nobody knows where', null, ['US'], 'deny residency:stay'], ['nobody knows where, and it stays inside', null, ['FR'], 'allow'], ['a country that is none', 'XX', ['US'], 'deny residency:stay'],
  ['Iceland is in the EEA', 'IS', ['US'], 'deny residency:stay'], ['Switzerland is not', 'CH', ['US'], 'allow'], ['a destination without a region', 'DE', [], 'deny residency:stay'],
])('residency: %s', (_name, country, where, expected) => {
  const policy = policyOf({ where: { crm: where }, rules: '  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA, CH] } }\n' });
  expect(outcomes(policy, subject({}, { ...ada, country }))).toEqual([`crm: ${expected}`]);
});

test.each([
  ['by the country alone', { country: 'US' }, 'deny residency:stay'], ['by the country and a text that is no code', { country: 'US', region: 'California' }, 'deny residency:stay'],
  ['in the part', { country: 'US', region: 'CA' }, 'deny residency:stay'], ['in another part', { country: 'US', region: 'NY' }, 'allow'], ['in another country', { country: 'MX' }, 'allow'],
])('residency of people in a part of a country, for one who is known %s', (_name, where, expected) => {
  const policy = policyOf({ where: { crm: ['US'] }, rules: '  - { name: stay, effect: residency, residency: { subject: [US-CA], destinations: [DE] } }\n' });
  expect(outcomes(policy, subject({}, { ...ada, ...where }))).toEqual([`crm: ${expected}`]);
});

const event = (fields: Record<string, unknown>, known: readonly string[]) => subject({ recordName: 'Event', record: decoded('Event', { name: 'Order Completed', category: 'track', ...fields }), regions: () => known }, {});
test.each<[string, readonly string[], string]>([
  ['of a person who is known to be inside, from a source outside', ['DE'], 'deny residency:stay'], ['of one who is known to be outside', ['US-CA'], 'allow'], ['of one of whom nothing is known', [], 'allow'],
  ['of one who is known to be inside and outside', ['US', 'DE'], 'deny residency:stay'], ['of one who is known to be outside, twice', ['US', 'BR'], 'allow'], ['of one who is said to be where nobody can read', ['US', ''], 'deny residency:stay'],
])('residency of a record without a country, %s', (_name, known, expected) => {
  const routes = { crm: ['{ on: Event, operation: send, purpose: news, channel: email }'] };
  const policy = policyOf({ routes, where: { crm: ['US'] }, sources: { shop: 'US' }, rules: '  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n' });
  expect(outcomes(policy, event({}, known))).toEqual([`crm: ${expected}`]);
  const inside = policyOf({ routes, where: { crm: ['FR'] }, sources: { shop: 'US' }, rules: '  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n' });
  expect(outcomes(inside, event({}, known))).toEqual(['crm: allow']);
});

test('what a record says itself counts before what is known of its identifiers, and beside what is known of linked ones', () => {
  const policy = policyOf({ where: { crm: ['US'] }, rules: '  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n' });
  const known = (linked: readonly string[]) => subject({ regions: (own) => (own ? linked : ['DE']) }, { ...ada, country: 'US' });
  expect(outcomes(policy, known([]))).toEqual(['crm: allow']);
  expect(outcomes(policy, known(['US-CA']))).toEqual(['crm: allow']);
  expect(outcomes(policy, known(['DE']))).toEqual(['crm: deny residency:stay']);
});

test('of several regions the stricter counts: what allows must hold in each, what restricts in one', () => {
  const routes = { crm: ['{ on: Event, operation: send, purpose: service }'] };
  const rules = (text: string) => policyOf({ routes, rules: text });
  const both = event({}, ['US', 'DE']);
  expect(outcomes(rules('  - { name: out, effect: deny, when: region == "US" }\n'), both)).toEqual(['crm: deny rule:out']);
  expect(outcomes(rules('  - { name: out, effect: deny, when: region == "DE" }\n'), both)).toEqual(['crm: deny rule:out']);
  expect(outcomes(rules('  - { name: out, effect: deny, when: region == "BR" }\n'), both)).toEqual(['crm: allow']);
  expect(outcomes(rules('  - { name: out, effect: deny, when: \'inRegion(region, "EU")\' }\n'), event({}, ['US', '']))).toEqual(['crm: deny policy-error']);
  const only = policyOf({ routes: { crm: ['{ on: Event, operation: send, purpose: service, when: region == "US" }'] } });
  expect([outcomes(only, both), outcomes(only, event({}, ['US']))]).toEqual([['undefined: deny no-route'], ['crm: allow']]);
  const allowing = (code: string) => ({ ...policyOf({ routes }), rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n  - { name: here, effect: allow, when: 'region == "${code}" || region == "US"' }\n` }, purposes, regions) });
  expect([outcomes(allowing('DE'), both), outcomes(allowing('BR'), both)]).toEqual([['crm: allow'], ['crm: deny no-allow-rule']]);
  const [later] = decide(rules('  - { name: wait, effect: delay, until: \'region == "DE" ? 5000000 : 2000000\' }\n'), event({}, ['DE', 'US']), context());
  expect(later).toMatchObject({ effect: 'allow', notBefore: 5_000_000 });
});

test.each([
  ['US', 'deny policy-error'], ['US-CA', 'deny rule:out'], ['US-NY', 'allow'], ['DE', 'deny rule:out'], ['MX', 'allow'], ['', 'deny policy-error'],
])('inRegion of a group that holds a part of a country, where the person is known by %o: the country alone is not known to be outside', (code, expected) => {
  const west = compileRegions({ path: 'regions.yaml', content: 'regions:\n  west: [US-CA, DE]\n' });
  const routes = { crm: ['{ on: Event, operation: send, purpose: service }'] };
  const rules = compileRules({ path: 'policies/a.yaml', content: 'rules:\n  - { name: out, effect: deny, when: \'inRegion(region, "west")\' }\n  - { name: all, effect: allow }\n' }, purposes, west);
  expect(outcomes({ ...policyOf({ routes }), rules }, event({}, [code]))).toEqual([`crm: ${expected}`]);
});

test('where a person is: the record, with its subdivision, then the source', () => {
  const policy = policyOf({ sources: { shop: 'AT' } });
  const at = (fields: Record<string, unknown>) => regionsOf(policy, { record: fields, source: 'shop' }).join();
  expect([at({ country: 'US', region: 'CA' }), at({ country: 'DE', region: 'Bavaria' }), at({}), regionsOf(policy, { record: {}, source: 'other' }).join()]).toEqual(['US-CA', 'DE', 'AT', '']);
});

test.each(['Germany', 'UK', 'XX', 'ZZ', 'de', ' '])('a record that says %o said something that is no code: it is not known, and neither the source nor the person opens', (country) => {
  const known = (codes: readonly string[]) => (own: boolean): readonly string[] => (own ? [] : codes);
  const policy = policyOf({ sources: { shop: 'US' }, where: { crm: ['US'] }, routes: { crm: ['{ on: Profile, operation: send, purpose: service }'] }, rules: '  - { name: stay, effect: residency, residency: { subject: [EEA, GB], destinations: [EEA] } }\n' });
  expect(regionsOf(policy, { record: { country }, source: 'shop', regions: known(['US']) })).toEqual(['']);
  expect(regionsOf(policy, { record: { jurisdiction: country }, source: 'shop' })).toEqual(['']);
  expect(outcomes(policy, subject({ source: 'shop' }, { ...ada, country }))).toEqual(['crm: deny residency:stay']);
  expect(outcomes(policy, subject({ source: 'shop' }, { ...ada, country: 'US' }))).toEqual(['crm: allow']);
});

test('every country code is one that CLDR names, and there are the 249 of ISO 3166-1', () => {
  const names = new Intl.DisplayNames('en', { type: 'region', fallback: 'none' });
  const letters = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ'];
  const codes = letters.flatMap((a) => letters.map((b) => a + b)).filter(isRegionCode);
  expect(codes).toHaveLength(249);
  expect(codes.filter((code) => names.of(code) === undefined)).toEqual([]);
  expect([...standardRegions.groups].map(([name, set]) => `${name} ${set.size}`)).toEqual(['EU 27', 'EEA 30', 'EFTA 4']);
});

test('an approval rule holds what everything else allows, and only what the approver let through goes on', () => {
  const routes = { crm: ['{ on: Profile, operation: send, purpose: news }'], mail: ['{ on: Profile, operation: send, purpose: news }'] };
  const policy = policyOf({ routes, rules: '  - { name: big, effect: require-approval, when: destination == "crm" && record.balance > 1, expires: 48h }\n  - { name: odd, effect: escalate, when: destination == "crm" && record.balance > 4 }\n' });
  expect(decide(policy, subject(), context())[0]).toMatchObject({ effect: 'hold', rule: 'odd', escalate: true, reason: 'escalate:odd' });
  const first = subject({ approval: { destination: 'crm', operation: 'send', rules: ['odd'] } });
  expect(outcomes(policy, first)).toEqual(['crm: hold approval:big']);
  expect(outcomes(policy, subject({ approval: { destination: 'crm', operation: 'send', rules: ['odd', 'big'] } }))).toEqual(['crm: allow']);
  const closed = { consent: () => ({ ok: false, reason: 'consent-withdrawn', seen: [] }) } as const;
  expect(decide(policy, subject({ approval: { destination: 'crm', operation: 'send', rules: ['odd', 'big'] } }), context(closed)).map(short)).toEqual(['deny consent-withdrawn']);
  let taken = 0;
  decide(policyOf({ rules: '  - { name: hold, effect: require-approval }\n  - { name: cap, effect: limit, limit: { count: 1, per: 1d } }\n' }), subject(), context({ take: () => { taken++; return true; } }));
  expect(taken).toBe(0);
});

/** Every kind of rule, in every state it can be in for this record. */
const anyRule = fc.constantFrom(
  'allow', 'allow, when: "false"', 'allow, when: record.lastName.startsWith("x")', 'deny', 'deny, when: "false"', 'deny, when: record.lastName.startsWith("x")', 'deny, purpose: kyc', 'deny, when: destination == "other"',
  'delay, until: now + 5', 'delay, until: record.lastName', 'limit, limit: { count: 1, per: 1d }', 'require-approval', 'escalate, when: "false"', 'route, route: { to: [other], among: [crm, other] }', 'route, route: { to: [crm], among: [crm, other] }',
  'residency, residency: { subject: [EU], destinations: [EU] }', 'residency, residency: { subject: [US], destinations: [EU] }', 'minimise, fields: [birthday]', 'mask, when: record.lastName.startsWith("x"), mask: { fields: [email], last: 1 }',
);
/** The meaning of the rules, written down a second time. */
function expected(rules: readonly string[]): string {
  const has = (...starts: string[]) => rules.some((r) => starts.includes(r));
  if (has('deny', 'route, route: { to: [other], among: [crm, other] }', 'residency, residency: { subject: [EU], destinations: [EU] }', 'deny, when: record.lastName.startsWith("x")', 'delay, until: record.lastName', 'mask, when: record.lastName.startsWith("x"), mask: { fields: [email], last: 1 }')) return 'deny';
  if (!has('allow')) return 'deny';
  return has('require-approval') ? 'hold' : 'allow';
}
test('default deny, and what forbids wins, under any order of any rules', () => {
  fc.assert(fc.property(fc.array(anyRule, { maxLength: 8 }).chain((rules) => fc.tuple(fc.constant(rules), fc.shuffledSubarray(rules.map((_, i) => i), { minLength: rules.length, maxLength: rules.length }))), ([rules, order]) => {
    const compiled = (list: readonly number[]) => ({ ...policyOf({ where: { crm: ['US'] } }), rules: list.length === 0 ? [] : compileRules({ path: 'a.yaml', content: `rules:\n${list.map((i) => `  - { name: r${i}, effect: ${rules[i]} }\n`).join('')}` }, purposes, regions) });
    const written = rules.map((_, i) => i);
    const results = [written, order].map((list) => decide(compiled(list), subject(), context())[0]!.effect);
    expect(results).toEqual([expected(rules), expected(rules)]);
  }), { numRuns: 300 });
});

const bad = (rules: string): { message: string; line: number; file: string }[] => {
  try {
    compileRules({ path: 'policies/a.yaml', content: `rules:\n  - { name: fine, effect: allow }\n${rules}` }, purposes, regions);
    return [];
  } catch (error) {
    return (error as WorkspaceError).problems as never;
  }
};
test.each([
  ['an unknown region in residency', '  - { name: a, effect: residency, residency: { subject: [EUU], destinations: [EU] } }\n', /unknown region "EUU"/],
  ['an unknown region in an expression', '  - { name: a, effect: deny, when: \'inRegion(region, "Atlantis")\' }\n', /unknown region Atlantis/],
  ['a region from the payload', '  - { name: a, effect: deny, when: "inRegion(region, record.country)" }\n', /written out/],
  ['an unknown field to leave out', '  - { name: a, effect: minimise, fields: [emial] }\n', /unknown field "emial"/],
  ['a vendor that is none', '  - { name: a, effect: hash, hash: { as: mySpace, fields: [email] } }\n', /unknown hash/],
  ['a field that the vendor wants plain', '  - { name: a, effect: hash, hash: { as: google, fields: [country] } }\n', /unknown field "country"/],
  ['a mask of no kind', '  - { name: a, effect: mask, mask: { fields: [email] } }\n', /needs one of/],
  ['a mask that keeps everything', '  - { name: a, effect: mask, mask: { fields: [email], last: 99 } }\n', /needs one of/],
  ['a route to elsewhere', '  - { name: a, effect: route, route: { to: [x], among: [y] } }\n', /unknown destination "x"/],
  ['an approval that never ends', '  - { name: a, effect: require-approval, expires: 400d }\n', /expires/],
  ['an effect that is none', '  - { name: a, effect: constructor }\n', /effect "constructor"/],
  ['a key of another effect', '  - { name: a, effect: allow, quietHours: { from: "21:00", to: "08:00" } }\n', /unknown key quietHours/],
  ['an unknown purpose', '  - { name: a, effect: deny, purpose: nope }\n', /unknown purpose nope/],
  ['a depth bomb in an expression', `  - { name: a, effect: deny, when: '${'('.repeat(200)}true${')'.repeat(200)}' }\n`, /CEL/],
  ['a list bomb in an expression', `  - { name: a, effect: deny, when: '[${'1,'.repeat(400)}1].exists(x, x == 2)' }\n`, /CEL/],
  ['a regular expression that multiplies', `  - { name: a, effect: deny, when: 're(record.email, "((a{100}){100}){100}")' }\n`, /bad pattern/],
  ['a long regular expression', `  - { name: a, effect: deny, when: 're(record.email, "${'a?'.repeat(600)}")' }\n`, /bad pattern/],
])('%s is refused with file, line and reason', (_name, rules, message) => {
  const [problem] = bad(rules);
  expect(problem).toMatchObject({ file: 'policies/a.yaml', line: 3, message: expect.stringMatching(message) });
});

test('a file of policies has rules or caps, and no other key', () => {
  const problems = (content: string): string[] => {
    try {
      compileRules({ path: 'a.yaml', content }, purposes);
      return [];
    } catch (error) {
      return (error as WorkspaceError).problems.map((p) => p.message);
    }
  };
  expect([problems('caps: []\n'), problems('doc: x\n'), problems('rulez: []\nrules: []\n'), problems('rules: {}\ncaps: []\n'), problems('- a\n')]).toEqual([[], ['no rules'], ['unknown key rulez'], ['no rules'], ['no rules']]);
});

test('more rules than anybody reads are refused', () => {
  expect(bad(Array.from({ length: 600 }, (_, i) => `  - { name: r${i}, effect: deny }\n`).join(''))[0]!.message).toMatch(/more than 500/);
});

test('what only the whole release shows: missing destinations, required fields that may not go, residency without a region', () => {
  const events = { crm: ['{ on: Event, operation: send, purpose: news }'] };
  const problems = (world: World) => checkPolicy(policyOf(world), new Set(['crm'])).map((p) => `${p.file}:${p.line} ${p.message}`);
  expect(problems({})).toEqual([]);
  expect(problems({ rules: '  - { name: a, effect: route, route: { to: [crm], among: [crm, gone] } }\n' })).toEqual([expect.stringMatching(/^policies\/a\.yaml:2 .*gone/)]);
  expect(problems({ routes: events, classes: classes({ identifier: ['news'] }) })).toEqual(expect.arrayContaining([expect.stringMatching(/^destinations\/crm\.yaml:2 Event\.name \(internal\) is required/)]));
  expect(problems({ terms: { email: { purposes: ['service'], required: true } } })).toEqual([expect.stringMatching(/Profile\.email .*required/)]);
  expect(problems({ routes: events, rules: '  - { name: a, effect: minimise, fields: [category] }\n' })).toEqual([expect.stringMatching(/Event\.category is required/)]);
  expect(problems({ routes: events, rules: '  - { name: a, effect: mask, mask: { fields: [name], last: 1 } }\n' })).toEqual([expect.stringMatching(/Event\.name can not be hashed/)]);
  expect(problems({ rules: '  - { name: a, effect: residency, residency: { destinations: [EU] } }\n' })).toEqual([expect.stringMatching(/^destinations\/crm\.yaml:1 .*keeps its data/)]);
});

test.each([
  ['an unknown class', 'classes:\n  secret: [news]\n', /unknown class secret/], ['a purpose that is not in the file', 'classes:\n  personal: [other]\n', /unknown purpose "other"/], ['one class twice', 'classes:\n  personal: [news]\n  pii: [news]\n', /already/], ['an unknown key', 'clases: {}\n', /unknown key clases/],
])('purposes.yaml: %s', (_name, text, message) => {
  expect(() => compilePurposesFile({ path: 'purposes.yaml', content: `purposes:\n  news: { legalBasis: consent }\n${text}` })).toThrow(message);
});
test.each([['a code that is none', 'regions:\n  mine: [DE, XX]\n', /unknown region "XX"/], ['the name of a standard group', 'regions:\n  EU: [DE]\n', /group name EU/], ['a group that stands below', 'regions:\n  one: [two]\n  two: [DE]\n', /unknown region "two"/]])('regions.yaml: %s', (_name, content, message) => {
  expect(() => compileRegions({ path: 'regions.yaml', content })).toThrow(message);
});
