import { registry } from '@weir/adapters';
import type { OperationManifest } from '@weir/adapter';
import { compilePurposes, compileRoutes, decide, type CompiledRoute } from '@weir/policy';
import { parseYaml } from '@weir/yaml';
import { expect, test } from 'vitest';
import { untold, untoldDenial } from './untold.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Newsletter. }\n' });
const http = registry.get('http')!.destination!;
const operations = http.operations!({ baseUrl: 'https://vendor.example', operations: {
  unsubscribe: { kind: 'restrict', accepts: ['ConsentChange'], path: '/unsubscribes', body: { email: '{{record.email}}', person: '{{ record.userId }}' } },
  suppress: { kind: 'restrict', accepts: ['ConsentChange'], path: '/numbers/{{record.phone}}' },
  copy: { kind: 'restrict', accepts: ['ConsentChange'], path: '/copies' },
  note: { kind: 'use', accepts: ['ConsentChange'], path: '/notes/{{record.email}}' },
} } as never);

/** What one destination `mail` with these routes is not told of a change. */
function untoldBy(routes: string, change: Record<string, unknown>, ids: readonly string[], linked: readonly string[] | undefined, known: Readonly<Record<string, OperationManifest>> = operations) {
  const file = { path: 'destinations/mail.yaml', content: `routes:\n${routes}` };
  const yaml = parseYaml(file);
  const problems: never[] = [];
  const compiled = compileRoutes((yaml.value as { routes: never }).routes, 'mail', known, purposes, file, yaml, problems);
  expect(problems).toEqual([]);
  const policy = { purposes, rules: [], routes: new Map<string, readonly CompiledRoute[]>([['ConsentChange', compiled]]) };
  const value = { purpose: 'news', channel: null, topic: null, state: 'withdrawn', userId: null, email: null, phone: null, ...change };
  const on = (record: Readonly<Record<string, unknown>>) => decide(policy, { recordName: 'ConsentChange', record, source: 'shop', key: ids[0] ?? '', ids: linked }, { now: 1, take: () => false, consent: () => ({ ok: false, reason: 'consent-missing', seen: [] }) });
  return (untold({ value, ids, linked }, on(value), { destinations: new Map([['mail', { operations: known } as never]]) }, on)?.missed ?? []).map(untoldDenial).map((d) => [d.route!.operation, d.effect === 'deny' ? `${d.reason}: ${d.detail}` : d.effect]);
}
const user = { userId: 'u' };
const [U, E, E2, P] = ['userId:u', 'email:e', 'email:f', 'phone:p'];

test('a no by user id, to a route that needs the address, is not lost without a word', () => {
  const route = '  - { on: ConsentChange, operation: unsubscribe, when: record.state == "withdrawn" && record.email != null }\n';
  expect(untoldBy(route, user, [U], [U, E])).toEqual([['unsubscribe', 'identifier-unknown: linked, and not in the change: email']]);
  // Nobody knows an address of this person: there is nothing that a vendor could have been told.
  expect(untoldBy(route, user, [U], [U])).toEqual([]);
  expect(untoldBy(route, user, [U], [U, P])).toEqual([]);
  expect(untoldBy(route, { ...user, email: 'e' }, [U, E], [U, E])).toEqual([]);
  // Its condition does not take the change anyway.
  expect(untoldBy(route.replace('"withdrawn"', '"denied"'), user, [U], [U, E])).toEqual([]);
});

test('where the change goes there, but not under the address, that is said beside the delivery', () => {
  const route = '  - { on: ConsentChange, operation: unsubscribe }\n';
  expect(untoldBy(route, user, [U], [U, E])).toEqual([['unsubscribe (not by email)', expect.stringContaining('email')]]);
  // A second address of the person stays subscribed.
  expect(untoldBy(route, { email: 'e' }, [E], [E, U, E2])).toEqual([['unsubscribe (not by email)', expect.stringContaining('email')]]);
  // Told under the address, the vendor knows the person: its user id is no second subscription.
  expect(untoldBy(route, { email: 'e' }, [E], [E, U])).toEqual([]);
});

test('only of a change that closes, of an operation that names the identifier, and of restricts', () => {
  const all = ['unsubscribe', 'suppress', 'copy'].map((operation) => `  - { on: ConsentChange, operation: ${operation} }\n`).join('') + '  - { on: ConsentChange, operation: note, purpose: news }\n';
  expect(untoldBy(all, user, [U], [U, E, P]).map(([operation]) => operation)).toEqual(['unsubscribe (not by email)', 'suppress (not by phone)']);
  expect(untoldBy(all, { ...user, state: 'granted' }, [U], [U, E, P])).toEqual([]);
  expect(untoldBy(all, user, [U], undefined)).toEqual([]);
  // A no to e-mail is none to the phone, and the other way round.
  expect(untoldBy(all, { ...user, channel: 'email' }, [U], [U, E, P]).map(([operation]) => operation)).toEqual(['unsubscribe (not by email)']);
  expect(untoldBy(all, { ...user, channel: 'sms' }, [U], [U, E, P]).map(([operation]) => operation)).toEqual(['suppress (not by phone)']);
});

test('Klaviyo says by what it knows people', () => {
  const klaviyo = registry.get('klaviyo')!.manifest.destination!.operations;
  expect(untoldBy('  - { on: ConsentChange, operation: unsubscribe, when: record.email != null }\n', user, [U], [U, E], klaviyo)).toEqual([['unsubscribe', expect.stringContaining('email')]]);
});
