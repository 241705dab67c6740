import type { Adapter } from '@weir/adapter';
import { WorkspaceError } from '@weir/errors';
import { expect, test } from 'vitest';
import { compileRelease, secondKey } from './index.ts';

const put = { kind: 'use', accepts: ['weir.canonical.Profile', 'weir.canonical.Event'], idempotency: { scheme: 'natural-upsert', pastWindow: 'hold' } };
const sink: Adapter = {
  manifest: { name: 'sink', title: 'Sink', docs: '', apiVersion: '1', destination: { config: {}, operations: { put, copy: put, orders: { ...put, accepts: ['weir.canonical.Order'] }, drop: { ...put, kind: 'restrict', accepts: ['weir.canonical.ConsentChange', 'weir.canonical.Profile'] } } } },
  destination: {},
} as unknown as Adapter;
const base = { 'weir.yaml': 'name: acme\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: S. }\n  ads: { legalBasis: contract, doc: A. }\n' };
const two = 'adapter: sink\nroutes:\n  - { on: Event, operation: copy, purpose: service }\n';
const one = (via: string, more = ''): string => `adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: service, via: ${via} }\n${more}`;
const compile = (files: Readonly<Record<string, string>>) => compileRelease(Object.entries({ ...base, ...files }).map(([path, content]) => ({ path, content })), { adapters: new Map([['sink', sink]]) });
function problems(files: Readonly<Record<string, string>>): string {
  try {
    compile(files);
  } catch (error) {
    if (error instanceof WorkspaceError) return error.problems.map((p) => `${p.file}:${p.line}: ${p.message}`).join('\n');
    throw error;
  }
  return '';
}

test('a second vendor is decided with the route and by no route of its own; operations of the own destination may stand beside it', () => {
  const release = compile({ 'destinations/one.yaml': one('[put, copy, { destination: two, after: 5m }]'), 'destinations/two.yaml': two });
  const [route] = release.policy.routes.get('Profile')!;
  expect(release.policy.routes.get('Profile')).toHaveLength(1);
  expect(route!.second).toMatchObject({ destination: 'two', operation: 'put', purpose: 'service', kind: 'use' });
  expect(release.destinations.get('one')!.seconds).toEqual(new Map([[secondKey('weir.canonical.Profile', 'put'), { destination: 'two', operation: 'put', afterMs: 300_000, prefer: 'order' }]]));
  expect(release.destinations.get('one')!.paths.get('put')).toEqual(['put', 'copy']);
  expect(release.destinations.get('two')!.seconds).toBeUndefined();
});

test.each<[what: string, via: string, problem: RegExp, twoText?: string, more?: string]>([
  ['a name that is not there', '[{ destination: tow }]', /one.yaml:3: no destination tow: did you mean two\?/],
  ['itself', '[{ destination: one }]', /one is this destination/],
  ['an operation that is not there', '[{ destination: two, operation: ptu }]', /two has no operation ptu: did you mean put\?/],
  ['an operation that does not take the record', '[{ destination: two, operation: orders }]', /does not take Profile/],
  ['an operation of another kind', '[{ destination: two, operation: drop }]', /is of kind restrict/],
  ['two of them', '[{ destination: two }, { destination: two, operation: copy }]', /one second vendor/],
  ['a key that is not known', '[{ destination: two, aftr: 5m }]', /unknown key aftr: did you mean after\?/],
  ['a wait that is none', '[{ destination: two, after: soon }]', /after is no duration/],
  ['a wait of a month', '[{ destination: two, after: 30d }]', /longer than 7d/],
  ['a choice that is none', '[{ destination: two, prefer: cheap }]', /prefer "cheap"/],
  ['one that may not use the data', '[{ destination: two }]', /two may not use data for service/, 'adapter: sink\npurposes: [ads]\nroutes:\n  - { on: Event, operation: copy, purpose: ads }\n'],
  ['one that gets the record by itself', '[{ destination: two }]', /the record would go to both/, 'adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n'],
  ['one that would not hear of a withdrawal', '[{ destination: two }]', /one is told to restrict by ConsentChange, two is not/, two, '  - { on: ConsentChange, operation: drop }\n'],
  ['another for the same operation', '[{ destination: two }]', /has another second vendor/, two, '  - { on: Profile, operation: put, purpose: ads, via: [{ destination: two, after: 1m }] }\n'],
  ['a place that is taken', '[{ destination: two }]', /two stands in for one, Profile\/put with put already/, two, '  - { on: Profile, operation: copy, purpose: service, via: [{ destination: two, operation: put }] }\n'],
])('%s is refused as a second vendor, by file and line', (_what, via, problem, twoText = two, more = '') => {
  expect(problems({ 'destinations/one.yaml': one(via, more), 'destinations/two.yaml': twoText })).toMatch(problem);
});

test('a restriction is told to everybody and has no second vendor', () => {
  const restrict = 'adapter: sink\nroutes:\n  - { on: ConsentChange, operation: drop, via: [{ destination: two }] }\n';
  expect(problems({ 'destinations/one.yaml': restrict, 'destinations/two.yaml': two })).toMatch(/ConsentChange to drop has no second vendor/);
});

test('where the second hears of what restricts too, the pair is taken', () => {
  const told = `${two}  - { on: ConsentChange, operation: drop }\n`;
  expect(problems({ 'destinations/one.yaml': one('[{ destination: two }]', '  - { on: ConsentChange, operation: drop }\n'), 'destinations/two.yaml': told })).toBe('');
});

test('residency asks where the second keeps its data, too', () => {
  const files = { 'destinations/one.yaml': one('[{ destination: two }]').replace('routes:', 'region: DE\nroutes:'), 'destinations/two.yaml': 'adapter: sink\nroutes:\n  - { on: ConsentChange, operation: drop }\n', 'policies/all.yaml': 'rules:\n  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n' };
  expect(problems(files)).toMatch(/asks where two keeps its data/);
});
