import type { Adapter } from '@weir/adapter';
import type { WorkspaceProblem } from '@weir/errors';
import { expect, test } from 'vitest';
import { advise } from './advice.ts';
import { compileRelease } from './compile.ts';
import type { Release } from './types.ts';

const release = (routes: { destination: string; on: string; kind: 'use' | 'restrict'; purpose?: string }[], sources: readonly object[] = [], head = 'name: shop\n', mapping = ''): Release => ({
  files: [{ path: 'weir.yaml', content: head }, ...(mapping === '' ? [] : [{ path: 'mappings/m.yaml', content: mapping }])],
  destinations: new Map(),
  sources: new Map(sources.map((source, i) => [`s${i}`, { name: `s${i}`, mapping: { file: 'mappings/m.yaml' }, ...source }])),
  policy: { rules: [], routes: Map.groupBy(routes.map((r) => ({ ...r, file: `destinations/${r.destination}.yaml`, line: 9 })), (r) => r.on), purposes: new Map([['marketing', { name: 'marketing', doc: '', legalBasis: 'consent' }], ['service', { name: 'service', doc: '', legalBasis: 'contract' }]]) },
} as unknown as Release);

test('a destination that is sent people by consent and cannot be told of a withdrawal is named, once, and no other', () => {
  const found = advise(release([
    { destination: 'ads', on: 'Profile', kind: 'use', purpose: 'marketing' },
    { destination: 'ads', on: 'Event', kind: 'use', purpose: 'marketing' },
    { destination: 'crm', on: 'Profile', kind: 'use', purpose: 'service' },
    { destination: 'mail', on: 'Profile', kind: 'use', purpose: 'marketing' },
    { destination: 'mail', on: 'ConsentChange', kind: 'restrict' },
    { destination: 'copies', on: 'Profile', kind: 'use', purpose: 'marketing' },
    { destination: 'copies', on: 'ConsentChange', kind: 'use', purpose: 'service' },
  ]));
  expect(found.map(({ file, line, message }) => [file, line, message.split(' ')[0]])).toEqual([['destinations/ads.yaml', 9, 'ads'], ['destinations/copies.yaml', 9, 'copies']]);
});

const rule = { idempotency: { scheme: 'natural-upsert', pastWindow: 'hold' } };
const sink = {
  manifest: { name: 'sink', title: 'Sink', docs: '', apiVersion: '1', destination: { config: {}, operations: { put: { ...rule, kind: 'use', accepts: ['weir.canonical.Profile'] }, drop: { ...rule, kind: 'restrict', accepts: ['weir.canonical.ConsentChange'], identifiers: ['email'] } } } },
  destination: {},
} as unknown as Adapter;
test('a destination that gets an address hashed and is told of a restriction in the clear is named with its route, until the route hashes, too', () => {
  const advice = (hash: string, when = ''): WorkspaceProblem[] => advise(compileRelease(Object.entries({
    'weir.yaml': 'name: shop\n', 'purposes.yaml': 'purposes:\n  ads: { legalBasis: consent, doc: Ads. }\n',
    'destinations/ads.yaml': `adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: ads }\n  - { on: ConsentChange, operation: drop${hash} }\n`,
    'policies/a.yaml': `rules:\n  - { name: all, effect: allow }\n  - { name: hashes, effect: hash, ${when}hash: { as: meta, fields: [email] } }\n`,
  }).map(([path, content]) => ({ path, content })), { adapters: new Map([['sink', sink]]) }));
  expect(advice('')).toEqual([{ file: 'destinations/ads.yaml', line: 4, message: 'ads gets email hashed, and drop tells it that in the clear: it may know nobody by that', remedy: expect.stringContaining('hash: { as:') }]);
  expect(advice('', 'when: record.country == "DE", ')).toHaveLength(1);
  expect(advice('', 'when: destination == "mail", ')).toEqual([]);
  expect(advice(', hash: { as: meta }')).toEqual([]);
});

test('a polled source that names no version of its objects is named, and no other', () => {
  const poll = { source: { kind: 'poll' }, manifest: { source: { config: { version: {} } } } };
  const found = advise(release([], [{ adapter: poll, config: {} }, { adapter: poll, config: { version: 'updated_at' } }, { adapter: { source: { kind: 'webhook' }, manifest: { source: { config: {} } } }, config: {} }, { adapter: { source: { kind: 'poll' }, manifest: { source: { config: {} } } }, config: {} }]));
  expect(found).toMatchObject([{ file: 'sources/s0.yaml', message: expect.stringContaining('taken for a repetition') }]);
});

test('a polled source that counts the pages of a list which moves (since) is named with its line, and no other', () => {
  const poll = { source: { kind: 'poll' }, manifest: { source: { config: {} } } };
  const base = release([], [{ adapter: poll, config: { cursor: 'page', since: 'updated_at' } }, { adapter: poll, config: { cursor: 'page' } }, { adapter: poll, config: { cursor: 'token', since: 'updated_at' } }, { adapter: { ...poll, source: { kind: 'webhook' } }, config: { cursor: 'page', since: 'updated_at' } }]);
  const found = advise({ ...base, files: [{ path: 'sources/s0.yaml', content: 'adapter: http-poll\nconfig:\n  since: updated_at\n  cursor: page\n' }] });
  expect(found).toMatchObject([{ file: 'sources/s0.yaml', line: 4, message: expect.stringContaining('those changes are lost') }]);
});

test('a region of the workspace, which no residency rule asks for, is named with its line', () => {
  expect(advise(release([], [], 'name: shop\nregion: DE\n'))).toMatchObject([{ file: 'weir.yaml', line: 2, message: expect.stringContaining('read by nothing') }]);
  expect(advise(release([], [], 'name: shop\n'))).toEqual([]);
});

const consent = (fields: string): string => `mapping: m\noutputs:\n  profile:\n    record: Profile\n    fields: { email: email }\n  consent:\n    record: ConsentChange\n    fields: { email: email, ${fields} }\n`;
test.each([
  ['state: newsletter', 'poll', 1],
  ['state: newsletter, standing: { const: true }', 'poll', 0],
  ['state: newsletter, standing: { const: false }', 'poll', 0],
  ['state: { const: withdrawn }', 'poll', 0],
  ['state: { const: granted }', 'poll', 1],
  ['state: newsletter', 'webhook', 0],
])('a mapping with %s, of a source that is a %s, is warned of %d times: an old yes that is said again opens what was closed elsewhere', (fields, kind, times) => {
  const found = advise(release([], [{ adapter: { source: { kind }, manifest: { source: { config: {} } } }, config: {} }], undefined, consent(fields)));
  expect(found.map(({ file, line }) => `${file}:${line}`)).toEqual(times === 0 ? [] : ['mappings/m.yaml:6']);
});

test('a header that looks like a credential and stands in the clear is named with its line and without its value; one by name or by a template is not', () => {
  const files = [{ path: 'destinations/crm.yaml', content: `adapter: http
config:
  operations:
    put:
      headers:
        X-App-Key: hunter2
        x-api-key: { secret: CRM_KEY }
        Idempotency-Key: '{{key}}'
        x-region: eu
      verify:
        headers: { Authorization: Bearer hunter2, cookie: '' }
      limit: { headers: { remaining: x-left-token } }
` }, { path: 'mappings/m.yaml', content: 'headers: { x-token: hunter2 }' }];
  const found = advise({ ...release([]), files });
  expect(found.map(({ file, line, message }) => [file, line, message.split(' ')[2]])).toEqual([['destinations/crm.yaml', 6, 'X-App-Key'], ['destinations/crm.yaml', 11, 'Authorization']]);
  expect(JSON.stringify(found)).not.toContain('hunter2');
});

test('limits of one bucket that contradict each other are named with file and line, and the one that is kept; equal ones and one without numbers are not', () => {
  const operations: Record<string, Record<string, object>> = {
    crm: { send: { limit: { steady: { count: 10, perMs: 1000 } } }, bare: { limit: { bucket: 'all' } } },
    mail: { send: { limit: { steady: { count: 100, perMs: 1000 } } }, both: { limit: { bucket: 'all', burst: { count: 5, perMs: 1000 } } } },
    copy: { send: { limit: { steady: { count: 10, perMs: 1000 } } } },
    other: { send: { limit: { steady: { count: 7, perMs: 1000 } } } },
  };
  const text = 'adapter: http\nconfig:\n  operations:\n    send:\n      limit: { steady: { count: 1, per: 1s } }\n';
  const files = Object.keys(operations).map((name) => ({ path: `destinations/${name}.yaml`, content: text }));
  const destinations = new Map(Object.entries(operations).map(([name, own]) => [name, { name, account: name === 'other' ? 'other' : 'acme', config: {}, operations: {}, adapter: { manifest: { name: 'http', destination: { operations: {} } }, destination: { operations: () => own } } }]));
  const found = advise({ ...release([]), files, destinations: destinations as never });
  expect(found).toMatchObject([{ file: 'destinations/mail.yaml', line: 5, message: expect.stringMatching(/send of mail has another limit \(100 per 1000 ms\) than send of crm in destinations\/crm\.yaml:5 \(10 per 1000 ms\).*account acme/) }]);
  expect(found[0]!.message).toContain('kept is 10 per 1000 ms');
});
