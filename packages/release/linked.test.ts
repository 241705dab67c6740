import { registry } from '@weir/adapters';
import { compilePurposes, compileRoutes, decide, type CompiledRoute, type ConsentState } from '@weir/policy';
import { parseYaml } from '@weir/yaml';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { changeDecisions } from './change-decisions.ts';
import { shownOnward } from './linked.ts';
import type { Release } from './types.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Newsletter. }\n' });
const http = registry.get('http')!;
const operations = http.destination!.operations!({ baseUrl: 'https://vendor.example', operations: {
  unsubscribe: { kind: 'restrict', accepts: ['ConsentChange'], path: '/unsubscribes', body: { email: '{{record.email}}', person: '{{ record.userId }}' } },
  suppress: { kind: 'restrict', accepts: ['ConsentChange'], path: '/numbers/{{record.phone}}' },
  stop: { kind: 'restrict', accepts: ['ConsentChange'], path: '/people/{{record.userId}}' },
  note: { kind: 'use', accepts: ['ConsentChange'], path: '/notes/{{record.email}}' },
} } as never);

/** Destinations with their routes; `shop` is a source, told by `mail` where they are of one tool. */
function releaseOf(routes: Readonly<Record<string, string>>, over: object = {}): Release {
  const compiled = Object.entries(routes).flatMap(([destination, lines]): CompiledRoute[] => {
    const file = { path: `destinations/${destination}.yaml`, content: `routes:\n${lines}` };
    const yaml = parseYaml(file);
    const problems: never[] = [];
    const found = compileRoutes((yaml.value as { routes: never }).routes, destination, operations, purposes, file, yaml, problems);
    expect(problems).toEqual([]);
    return [...found];
  });
  const adapterOf = (name: string) => ({ manifest: { name: `tool-${name}` } });
  return {
    hash: 'rel', linkedIdentifiers: true, files: [], policy: { purposes, rules: [], routes: new Map([['ConsentChange', compiled]]) },
    sources: new Map([['shop', { adapter: adapterOf('shop') }]]), destinations: new Map(Object.keys(routes).map((name) => [name, { adapter: adapterOf(name), operations }])), ...over,
  } as unknown as Release;
}
const clear: Readonly<Record<string, string>> = { 'email:e': 'ann@larkspur.example', 'email:f': 'ann@home.example', 'phone:p': '+4930901820', 'userId:u': 'u-1' };

interface Asked { readonly value: Readonly<Record<string, unknown>>; readonly ids: readonly string[]; readonly linked: readonly string[] | undefined; readonly known?: readonly string[]; readonly said?: Readonly<Record<string, string>>; readonly source?: string; readonly acceptedAt?: number }
function decided(release: Release, { value, ids, linked, known = Object.keys(clear), said = {}, source = 'shop', acceptedAt = 1 }: Asked) {
  const record = { purpose: 'news', channel: null, topic: null, state: 'withdrawn', userId: null, email: null, phone: null, ...value };
  const subject = { recordName: 'ConsentChange', record, source, key: ids[0] ?? '', ids: linked, acceptedAt };
  const tables = { stored: (key: string) => (said[key.split('|')[0]!] === undefined ? undefined : { state: { setBy: said[key.split('|')[0]!]!, state: 'withdrawn' } as ConsentState }) };
  const found = changeDecisions(decide(release.policy, subject, { now: 1, take: () => false, consent: () => ({ ok: false, reason: 'consent-missing', seen: [] }) }), { outputId: 'out_own', subject, ids, now: 1 }, release, tables, (id) => (known.includes(id) ? clear[id] : undefined));
  return {
    ...found,
    own: found.decisions.map((d) => `${d.route?.destination}/${d.route?.operation} ${d.effect === 'allow' ? 'allow' : d.reason}`),
    further: found.onward.flatMap((o) => o.decisions.map((d) => [o.id, `${d.route!.destination}/${d.route!.operation} ${d.effect === 'allow' ? 'allow' : d.reason}`, o.record['userId'], o.record['email'], o.record['phone']])),
  };
}
const day = 86_400_000;
const [U, E, F, P] = ['userId:u', 'email:e', 'email:f', 'phone:p'];
const user = { userId: 'u-1' };
const all = releaseOf({ mail: '  - { on: ConsentChange, operation: unsubscribe, when: record.email != null && record.state == "withdrawn" }\n' });

test('a no by user id goes once more to who knows the address, under every address whose value is known', () => {
  expect(decided(all, { value: user, ids: [U], linked: [U, E, F] })).toMatchObject({ own: ['undefined/undefined no-route'], further: [[E, 'mail/unsubscribe allow', 'u-1', clear[E], null], [F, 'mail/unsubscribe allow', 'u-1', clear[F], null]] });
  expect(decided(all, { value: user, ids: [U], linked: [U, E, F], known: [F] })).toMatchObject({ further: [[F, 'mail/unsubscribe allow', 'u-1', clear[F], null]], own: ['undefined/undefined no-route', 'mail/unsubscribe (not by email) identifier-unknown'] });
  expect(decided(all, { value: user, ids: [U], linked: [U, E], known: [] })).toMatchObject({ further: [], own: ['undefined/undefined no-route', 'mail/unsubscribe identifier-unknown'] });
  // A second address stands alone: of the first its own delivery tells.
  expect(decided(all, { value: { email: clear[E], phone: 'x' }, ids: [E, P], linked: [E, P, F] })).toMatchObject({ own: ['mail/unsubscribe allow'], further: [[F, 'mail/unsubscribe allow', null, clear[F], null]] });
  const shown = shownOnward(decided(all, { value: user, ids: [U], linked: [U, E] }).onward);
  expect(shown.map((d) => d.route!.operation)).toEqual(['unsubscribe (by email:e)']);
});

test.each([['gpc', 'consent-echo', null], ['gpp', 'consent-echo', null], ['tcf', 'consent-echo', true], ['unsubscribed', 'allow', null]])('a no of %s that was told before and comes again is %s', (reason, end, standing) => {
  const stop = releaseOf({ crm: '  - { on: ConsentChange, operation: stop, when: record.userId != null }\n' });
  expect(decided(stop, { value: { ...user, state: 'denied', reason, standing }, ids: [U], linked: [U], said: { [U]: 'out_before' } }).own).toEqual([`crm/stop ${end}`]);
});

test('a grant, a use, too many identifiers, and a workspace that keeps none: nothing more goes out', () => {
  expect(decided(all, { value: { ...user, state: 'granted' }, ids: [U], linked: [U, E] }).onward).toEqual([]);
  expect(decided(all, { value: { ...user, state: 'unknown' }, ids: [U], linked: [U, E] }).onward).toEqual([]);
  expect(decided(all, { value: user, ids: [U], linked: undefined }).onward).toEqual([]);
  expect(decided({ ...all, linkedIdentifiers: false }, { value: user, ids: [U], linked: [U, E] })).toMatchObject({ onward: [], own: [expect.anything(), 'mail/unsubscribe identifier-unknown'] });
  const uses = releaseOf({ mail: '  - { on: ConsentChange, operation: note, purpose: news }\n' });
  expect(decided(uses, { value: user, ids: [U], linked: [U, E] }).onward).toEqual([]);
});

test('it is decided as a record of its own: conditions see the value', () => {
  const some = releaseOf({ mail: '  - { on: ConsentChange, operation: unsubscribe, when: record.email != null && record.email.endsWith("@home.example") }\n' });
  expect(decided(some, { value: user, ids: [U], linked: [U, E, F] })).toMatchObject({ own: ['undefined/undefined no-route'], further: [[F, 'mail/unsubscribe allow', 'u-1', clear[F], null]] });
  // Who needs two at once that the change lacks is not told, and that is said.
  const both = releaseOf({ mail: '  - { on: ConsentChange, operation: unsubscribe, when: record.email != null && record.phone != null }\n  - { on: ConsentChange, operation: suppress, when: record.phone != null }\n' });
  const found = decided(both, { value: user, ids: [U], linked: [U, E, P] });
  expect(found.further).toEqual([[P, 'mail/suppress allow', 'u-1', null, clear[P]]]);
  expect(found.own).toEqual(['undefined/undefined no-route', 'mail/unsubscribe identifier-unknown']);
});

test('a loop between two tools ends: who told it is not told, and an answer under the other identifier goes back under none that has said no', () => {
  const release = releaseOf({ crm: '  - { on: ConsentChange, operation: stop, when: record.userId != null }\n', mail: '  - { on: ConsentChange, operation: unsubscribe, when: record.email != null }\n' }, { sources: new Map([['crm', { adapter: { manifest: { name: 'tool-crm' } } }], ['mail', { adapter: { manifest: { name: 'tool-mail' } } }]]) });
  // The CRM says no by user id: the mail tool is told under the address.
  const first = decided(release, { value: user, ids: [U], linked: [U, E], source: 'crm' });
  expect([first.own, first.further.map((f) => f[1])]).toEqual([['crm/stop consent-origin'], ['mail/unsubscribe allow']]);
  // It answers by the address, which is new: the CRM would be told of what it said itself.
  const answer = decided(release, { value: { email: clear[E] }, ids: [E], linked: [E, U], source: 'mail', said: { [U]: 'out_first' } });
  expect([answer.own, answer.further.map((f) => f.slice(0, 2))]).toEqual([['mail/unsubscribe consent-origin'], [[U, 'crm/stop consent-echo']]]);
  // And an answer by an identifier that has said no goes nowhere, also where another one has not.
  const echo = decided(release, { value: user, ids: [U], linked: [U, E], source: 'crm', said: { [U]: 'out_first' } });
  expect(echo.further.map((f) => f[1])).toEqual(['mail/unsubscribe consent-echo']);
});

test('whoever is linked and known: each missing identifier of each restrict operation is told under its own value or named as not told, never another', () => {
  const lines: Readonly<Record<string, string>> = { mail: '  - { on: ConsentChange, operation: unsubscribe }\n', sms: '  - { on: ConsentChange, operation: suppress, when: record.phone != null }\n', crm: '  - { on: ConsentChange, operation: stop, when: record.userId != null }\n', notes: '  - { on: ConsentChange, operation: note, purpose: news }\n' };
  const named: Readonly<Record<string, readonly string[]>> = { mail: ['email', 'userId'], sms: ['phone'], crm: ['userId'], notes: [] };
  const release = releaseOf(lines);
  const every = [U, E, F, P] as string[];
  fc.assert(fc.property(fc.subarray(every, { minLength: 1 }), fc.subarray(every), fc.subarray(every), fc.constantFrom('withdrawn', 'denied', 'granted', 'unknown'), (own, more, known, state) => {
    const ids = own.filter((id) => id !== F || !own.includes(E));
    const linked = [...new Set([...ids, ...more])];
    const value: Record<string, unknown> = { state };
    for (const id of ids) value[id.split(':')[0]!] = clear[id];
    const found = decided(release, { value, ids, linked, known });
    for (const { id, type, record, decisions } of found.onward) {
      expect([ids.includes(id), linked.includes(id), known.includes(id), record[type]]).toEqual([false, true, true, clear[id]]);
      // Beside it nothing that the change did not say itself.
      for (const other of ['userId', 'email', 'phone']) if (other !== type && record[other] !== null) expect(record[other]).toBe(value[other]);
      for (const d of decisions) expect([d.route!.kind, named[d.route!.destination]!.includes(type)]).toEqual(['restrict', true]);
    }
    if (state !== 'withdrawn' && state !== 'denied') {
      expect(found.onward).toEqual([]);
      return;
    }
    for (const destination of ['mail', 'sms', 'crm']) for (const id of linked.filter((of) => !ids.includes(of))) {
      const type = id.split(':')[0]!;
      if (!named[destination]!.includes(type)) continue;
      const told = found.onward.some((o) => o.id === id && o.decisions.some((d) => d.route!.destination === destination && d.effect === 'allow'));
      const denied = found.decisions.some((d) => d.effect === 'deny' && d.reason === 'identifier-unknown' && d.route!.destination === destination && d.detail!.includes(type));
      // Told under an address, a vendor knows the person by it.
      const knows = type === 'userId' && named[destination]!.some((of) => value[of] !== undefined);
      expect(told || denied || knows).toBe(true);
      expect(told).toBe(known.includes(id) && !knows);
    }
  }), { numRuns: 500 });
});

test('the Privacy Control of a browser is said with every call; the same word as a reason of the consent API is an act, and heard each time', () => {
  const said = { [E]: 'out_before' };
  const value = { email: clear[E], reason: 'gpc' };
  const ends = (source: string, acceptedAt = 1, more = {}): string[] => decided(all, { value: { ...value, ...more }, ids: [E], linked: [E], said, source, acceptedAt }).own;
  expect([ends('shop'), ends('consent-api'), ends('shop', 1, { reason: 'other' }), ends('shop', 1, { reason: null, standing: true })]).toEqual([['mail/unsubscribe consent-echo'], ['mail/unsubscribe allow'], ['mail/unsubscribe allow'], ['mail/unsubscribe consent-echo']]);
  expect([ends('shop', day - 1), ends('shop', day)]).toEqual([['mail/unsubscribe consent-echo'], ['mail/unsubscribe allow']]);
});
