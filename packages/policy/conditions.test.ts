import { parseYaml } from '@weir/yaml';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compilePurposes, compileRoutes, type CompiledPolicy } from './compile.ts';
import { decide, type DecisionContext } from './decide.ts';
import { planOf } from './plan.ts';
import { canonicalSchemas } from './record-view.ts';
import { compileRegions } from './regions.ts';
import { compileRules, type CompiledRule } from './rules.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: News. }\n  service: { legalBasis: contract, doc: Service. }\n' });
const operations = { send: { kind: 'use', accepts: ['weir.canonical.Profile'] }, stop: { kind: 'restrict', accepts: ['weir.canonical.Profile'] } } as const;
const regions = compileRegions({ path: 'regions.yaml', content: 'regions:\n  dach: [DE, AT, CH]\n' });

/** Counts how often each condition is evaluated, by its text. */
function policyOf(conditions: readonly string[], routes: readonly string[], counts = new Map<string, number>()): CompiledPolicy {
  const counted = <T extends { readonly when: CompiledRule['when'] }>(of: T): T => ({ ...of, when: of.when && { source: of.when.source, evaluate: (variables) => {
    counts.set(of.when!.source, (counts.get(of.when!.source) ?? 0) + 1);
    return of.when!.evaluate(variables);
  } } });
  const effects = ['deny', 'allow', 'require-approval'];
  const rules = conditions.map((when, i) => `  - { name: r${i}, effect: ${effects[i % 3]!}, when: ${JSON.stringify(when)} }\n`).join('');
  const list = routes.flatMap((route, i) => {
    const file = { path: `destinations/d${i}.yaml`, content: `routes:\n  - ${route}\n` };
    const yaml = parseYaml(file);
    return compileRoutes((yaml.value as { routes: never }).routes, `d${i}`, operations, purposes, file, yaml, [], { regions }).map(counted);
  });
  return { purposes, rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n${rules}` }, purposes, regions).map(counted), routes: new Map([['Profile', list]]), governance: { regions, sourceRegions: new Map([['shop', 'DE']]), destinationRegions: new Map(), fields: new Map() } };
}

const context = (now: number): DecisionContext => ({ now, consent: () => ({ ok: true, seen: [] }), take: () => true });
interface Asked { readonly record: Record<string, unknown>; readonly source: string; readonly now: number; readonly known: readonly string[] }
function decided(policy: CompiledPolicy, { record, source, now, known }: Asked): unknown {
  return decide(policy, { recordName: 'Profile', record, source, key: 'k', ids: ['email:x'], regions: () => known }, context(now)).map((decision) => ({ ...decision, minimiser: undefined, route: `${decision.route?.destination} ${decision.route?.operation}` }));
}
const defaults: Readonly<Record<string, unknown>> = Object.fromEntries(canonicalSchemas().get('Profile')!.fields.map((field) => [field.name, 'default' in field ? field.default : 5]));
const wholeOf = (policy: CompiledPolicy, values: Record<string, unknown>): Record<string, unknown> => Object.fromEntries(planOf(policy, 'Profile')!.reads.map((name) => [name, values[name] ?? defaults[name]]));

const pool = [
  'record.plan == "1:a"', 'record.plan != "a" && record.city != "1:a"', 'record.city == null || record.plan == null', 'record.plan.size() > 1', 'record.plan == record.city', 'record.deleted == true || record.plan == "t"',
  'record.plan == "a" && now > 5', 'record.plan == "a" && meta.hour > 3', 'region == "AT" && record.plan == "a"', 'inRegion(record.country, "dach")', 'source == "shop" && record.plan == "a"', 'record.balance > 5.0', 'record.balance == 0.0 && record.plan == "a"',
  'purpose == "news" && record.plan == "a"', '"plan" in record', 'record.plan == "a" // \'\'\'\n|| record.city == "x" // \'\'\'', 'record.city + record.plan == "aab"', 'record.lastName == "n" && record.plan == "n"',
];
const text = fc.constantFrom(null, 'a', '1:a', 'aa', 'ab', 'b', 'n', 't', '\\', 'x', 'a'.repeat(65), 'a'.repeat(66));
const asked = fc.record({
  record: fc.record({ plan: text, city: text, lastName: text, country: fc.constantFrom(null, 'DE', 'US'), deleted: fc.constantFrom(null, true, false), balance: fc.constantFrom(null, 0, -0, 6, 9) }),
  source: fc.constantFrom('shop', 'other'), now: fc.constantFrom(0, 6, 5 * 3_600_000), known: fc.subarray(['AT', 'US', '']),
});
const routes = ['{ on: Profile, operation: send, purpose: news, channel: email, when: \'record.plan != "b"\' }', '{ on: Profile, operation: send, purpose: service, when: \'record.plan != "b"\' }', '{ on: Profile, operation: stop, when: \'record.plan != "b"\' }'];

test('what is decided on a record is the same whatever records came before', () => {
  fc.assert(fc.property(fc.uniqueArray(fc.constantFrom(...pool), { minLength: 3 }), fc.array(asked, { minLength: 2, maxLength: 30 }), (conditions, all) => {
    const policy = policyOf(conditions, routes);
    for (const one of all) {
      const record = wholeOf(policy, one.record);
      // A copy has a plan of its own, which met no record yet.
      expect(decided(policy, { ...one, record })).toEqual(decided({ ...policy }, { ...one, record }));
    }
  }), { numRuns: 200 });
});

const three = ['record.plan == "a"', 'record.plan == "b"', 'record.plan == "c"'];
const ask = (policy: CompiledPolicy, values: Record<string, unknown>): unknown => decided(policy, { record: wholeOf(policy, values), source: 'shop', now: 0, known: [] });

test('conditions are asked once for all routes, and once for all records with the same in what they read', () => {
  const counts = new Map<string, number>();
  const policy = policyOf(three, routes, counts);
  for (let i = 0; i < 50; i++) ask(policy, { plan: i % 2 === 0 ? 'a' : 'c', email: `person.${i}@larkspur.example` });
  expect(counts.get(three[0]!)).toBe(2);
  expect(counts.get('record.plan != "b"')).toBe(4);
});

test('where nearly every record has values of its own they are not looked for, and after a while they are again', () => {
  const counts = new Map<string, number>();
  const policy = policyOf(three, routes.slice(0, 1), counts);
  for (let i = 0; i < 1024; i++) ask(policy, { plan: `p${i}` });
  const before = counts.get(three[0]!)!;
  for (let i = 0; i < 1024 * 16; i++) ask(policy, { plan: 'a' });
  expect(counts.get(three[0]!)! - before).toBe(1024 * 16);
  for (let i = 0; i < 100; i++) ask(policy, { plan: 'a' });
  expect(counts.get(three[0]!)! - before).toBe(1024 * 16 + 1);
});
