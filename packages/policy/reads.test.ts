import { parseYaml } from '@weir/yaml';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compilePurposes, compileRoutes, type CompiledPolicy, type CompiledRoute } from './compile.ts';
import { decide, type DecisionContext } from './decide.ts';
import { planOf } from './plan.ts';
import { canonicalSchemas } from './record-view.ts';
import { compileRegions } from './regions.ts';
import { compileRules } from './rules.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: News. }\n  service: { legalBasis: contract, doc: Service. }\n' });
const operations = { send: { kind: 'use', accepts: ['weir.canonical.Profile'] }, stop: { kind: 'restrict', accepts: ['weir.canonical.Profile'] } } as const;
const regions = compileRegions({ path: 'regions.yaml', content: 'regions:\n  dach: [DE, AT, CH]\n' });

const rules = [
  "{ name: gold, effect: deny, when: 'record.plan == \"gold\" && purpose == \"news\"' }", "{ name: whole, effect: deny, when: '\"balance\" in record && record.balance > 7.0' }",
  "{ name: home, effect: deny, when: 'region == \"AT\"' }", '{ name: quiet, effect: delay, quietHours: { from: "22:00", to: "08:00", timezone: Europe/Berlin, timezoneField: timezone } }',
  '{ name: inside, effect: residency, residency: { subject: [dach], destinations: [CH] } }', "{ name: big, effect: require-approval, when: 'record.balance > 5.0' }", "{ name: less, effect: minimise, fields: [phone], when: 'record.city == \"Bern\"' }",
  "{ name: cap, effect: limit, limit: { count: 3, per: 1h, by: subject }, when: 'record.lifecycleStage == \"lead\"' }",
];
const routes = ['{ on: Profile, operation: send, purpose: news, channel: email }', "{ on: Profile, operation: send, purpose: service, when: 'record.company != \"x\"' }", '{ on: Profile, operation: stop }'];

function policyOf(chosen: readonly string[], at: readonly string[]): CompiledPolicy {
  const list: CompiledRoute[] = at.flatMap((line, i) => {
    const file = { path: `destinations/d${i}.yaml`, content: `routes:\n  - ${line}\n` };
    const yaml = parseYaml(file);
    return compileRoutes((yaml.value as { routes: never }).routes, `d${i}`, operations, purposes, file, yaml, [], { regions });
  });
  return {
    purposes, rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n${[...chosen, '{ name: all, effect: allow }'].map((line) => `  - ${line}\n`).join('')}` }, purposes, regions), routes: new Map([['Profile', list]]),
    governance: { regions, sourceRegions: new Map([['shop', 'DE']]), destinationRegions: new Map([['d0', ['US']], ['d1', ['CH']]]), fields: new Map() },
  };
}

const defaults = Object.fromEntries(canonicalSchemas().get('Profile')!.fields.map((field) => [field.name, 'default' in field ? field.default : 5]));
const orNull = (...texts: string[]): fc.Arbitrary<string | null> => fc.constantFrom(null, ...texts);
const record = fc.record({
  id: fc.constant('o'), source: fc.constant('shop'), country: orNull('DE', 'AT', 'US', 'zz'), region: orNull('CA', '9'), plan: orNull('gold', 'x'), balance: fc.constantFrom(null, 1, 6, 9), timezone: orNull('Asia/Tokyo', 'nowhere'),
  city: orNull('Bern', 'Ulm'), company: orNull('x', 'y'), lifecycleStage: orNull('lead'), phone: orNull('+49301234567'), email: orNull('a@b.example'),
});

test('what is decided on the fields that a plan reads is what is decided on the whole record, of which nothing else is looked at', () => {
  fc.assert(fc.property(fc.subarray(rules), fc.subarray(routes, { minLength: 1 }), record, fc.integer({ min: 0, max: 23 }), (chosen, at, whole, hour) => {
    const policy = policyOf(chosen, at);
    const { reads } = planOf(policy, 'Profile')!;
    const all: Record<string, unknown> = { ...defaults, ...whole };
    const fields: Record<string, unknown> = Object.fromEntries(reads.map((name) => [name, all[name]]));
    const guarded = new Proxy(fields, { get: (of, name: string) => (Object.hasOwn(of, name) || name === 'jurisdiction' ? of[name] : expect.unreachable(`reads ${name}`)) });
    const context: DecisionContext = { now: hour * 3_600_000, consent: () => ({ ok: true, seen: [] }), take: () => true };
    const decided = (of: Readonly<Record<string, unknown>>) => decide(policy, { recordName: 'Profile', record: of, source: 'shop', key: 'k', ids: ['email:x'] }, context);
    expect(decided(guarded)).toEqual(decided(all));
  }), { numRuns: 300 });
});
