import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Adapter, ConfigSchema } from '@weir/adapter';
import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { compileRelease, readWorkspace, releaseHash, resolveConfig, runPolicyTests, secretNames, withDefaults, type ReleaseFile } from './index.ts';

/** An adapter as packages see one: nothing of adapters/ is imported here. */
const shop: Adapter = {
  manifest: {
    name: 'shop', title: 'Shop', docs: 'https://example.com', apiVersion: '1',
    source: { config: { secret: { doc: 'Key.', secret: true, required: true }, tolerance: { doc: 'Seconds.', type: 'number', default: 300 } }, limits: { bodyBytes: 1000, items: 10, depth: 8 }, mapping: 'mappings/shop.yaml', retryHorizonMs: 86_400_000 },
  },
  source: { kind: 'webhook' },
} as unknown as Adapter;
const sink: Adapter = {
  manifest: { name: 'sink', title: 'Sink', docs: 'https://example.com', apiVersion: '1', destination: { config: {}, operations: { put: { kind: 'use', accepts: ['weir.canonical.Profile', 'weir.canonical.Event'] } } } },
  destination: {},
} as unknown as Adapter;
const adapters = new Map([['shop', shop], ['sink', sink]]);
const defaultMapping = 'mapping: shop\noutputs:\n  profile: { record: Profile, fields: { userId: id } }\n';
const base: Readonly<Record<string, string>> = {
  'weir.yaml': 'name: acme\n',
  'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: What was bought. }\n',
  'sources/web.yaml': 'adapter: shop\nconfig: { secret: { secret: SHOP_KEY } }\n',
};
const filesOf = (over: Readonly<Record<string, string>> = {}): ReleaseFile[] => withDefaults(Object.entries({ ...base, ...over }).map(([path, content]) => ({ path, content })), adapters, () => defaultMapping);
const compile = (over?: Readonly<Record<string, string>>) => compileRelease(filesOf(over), { adapters });
function problems(over: Readonly<Record<string, string>>): readonly WorkspaceProblem[] {
  try {
    compile(over);
  } catch (error) {
    if (error instanceof WorkspaceError) return error.problems;
    throw error;
  }
  return [];
}

test('the hash is of names and contents only, and every byte counts', () => {
  const files = filesOf();
  expect(compile().hash).toBe(releaseHash([...files].reverse()));
  expect(compile().hash).toMatch(/^rel_[0-9a-f]{16}$/);
  expect(releaseHash(files.map((f, i) => (i === 0 ? { ...f, content: `${f.content} ` } : f)))).not.toBe(compile().hash);
  expect(releaseHash(files.map((f, i) => (i === 0 ? { ...f, path: `x${f.path}` } : f)))).not.toBe(compile().hash);
});

test('the adapter\'s own mapping is part of the release, so that it does not change under it', () => {
  expect(filesOf().map((f) => f.path)).toContain('adapters/shop/mappings/shop.yaml');
  expect(compile().sources.get('web')!.mapping.name).toBe('shop');
  expect(compile().sources.get('web')!.config).toMatchObject({ tolerance: 300, secret: { secret: 'SHOP_KEY' } });
});

test('a test of policies says what is known of where a person is: an event that does not say it is judged by that, and not by its source', () => {
  const event = '    record: { type: Event, userId: u-7, name: Order Completed, category: track }\n    source: web\n';
  const table = (regions: string): string => `  - name: "${regions}"\n${event}${regions === '' ? '' : `    regions: ${regions}\n`}    expect:\n      - { destination: us, effect: deny, reason: "residency:stay" }\n`;
  const profile = '  - name: her profile\n    record: { type: Profile, userId: u-7, country: DE }\n    source: web\n    expect: [{ destination: us, effect: deny, reason: "residency:stay" }]\n';
  const release = compile({
    'sources/web.yaml': `${base['sources/web.yaml']}region: US\n`,
    'destinations/us.yaml': 'adapter: sink\nregion: US\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n  - { on: Event, operation: put, purpose: service }\n',
    'policies/a.yaml': 'rules:\n  - { name: all, effect: allow }\n  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n',
    'policies/a.test.yaml': `tests:\n${profile}${['DE', '[US, FR]', 'US', '', 'Europe'].map(table).join('')}`,
  });
  expect(runPolicyTests(release).map(({ name, problems: of }) => `${name}: ${of.map((p) => p.message).join()}`)).toEqual([
    'her profile: ', 'DE: ', '[US, FR]: ', 'US: test "US": us: expected deny, got allow (rule all)', ': test "": us: expected deny, got allow (rule all)', 'Europe: unknown region "Europe"',
  ]);
});

test('a test of policies says how much of a limit is used up, and each delivery of the record takes of it', () => {
  const table = (used: string, effects: readonly [string, string]): string => `  - name: '${used}'\n    record: { type: Profile, userId: u-7 }\n    source: web\n${used === '' ? '' : `    used: ${used}\n`}    expect: [{ destination: aa, effect: ${effects[0]} }, { destination: bb, effect: ${effects[1]}, reason: ${effects[1] === 'deny' ? '"limit:three"' : 'null'} }]\n`;
  const sink = 'adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n';
  const release = compile({
    'destinations/aa.yaml': sink, 'destinations/bb.yaml': sink,
    'policies/a.yaml': 'rules:\n  - { name: all, effect: allow }\n  - { name: three, effect: limit, limit: { count: 3, per: 1d, by: subject }, when: "destination == \'aa\' || destination == \'bb\'" }\n',
    'policies/a.test.yaml': `tests:\n${table('', ['allow', 'allow'])}${table('{ three: 1 }', ['allow', 'allow'])}${table('{ three: 2 }', ['allow', 'deny'])}${table('{ three: 3 }', ['deny', 'deny'])}${table('{ all: 1, three: -1 }', ['allow', 'allow'])}${table('3', ['allow', 'allow'])}`,
  });
  expect(runPolicyTests(release).map(({ name, problems: of }) => `${name}: ${of.map((p) => p.message).join()}`)).toEqual([': ', '{ three: 1 }: ', '{ three: 2 }: ', '{ three: 3 }: ', '{ all: 1, three: -1 }: no limit rule all,-1 is no count', '3: used is a table']);
});

test('a source with the name of the consent API is refused: what comes by either could not be told apart', () => {
  expect(problems({ 'sources/consent-api.yaml': base['sources/web.yaml']! })).toMatchObject([{ file: 'sources/consent-api.yaml', message: expect.stringContaining('consent API') }]);
});

test('problems of every file are told at once, each with file, line and remedy', () => {
  const found = problems({
    'weir.yaml': 'name: acme\nregoin: DE\n',
    'sources/web.yaml': 'adapter: shop\nconfig:\n  secret: { secret: SHOP_KEY }\n  tolerence: 5\n',
    'sources/other.yaml': 'adapter: shpo\n',
    'mappings/unused.yaml': 'mapping: x\noutputs:\n  a: { record: Person }\n',
    'contracts/a.odcs.yaml': 'kind: Nothing\n',
  });
  expect(found.map((p) => `${p.file}:${p.line}`)).toEqual(expect.arrayContaining(['weir.yaml:2', 'sources/web.yaml:4', 'sources/other.yaml:1', 'mappings/unused.yaml:3', 'contracts/a.odcs.yaml:1']));
  expect(found.every((p) => p.remedy !== '')).toBe(true);
  expect(found.find((p) => p.file === 'weir.yaml')!.message).toMatch(/did you mean region/);
  expect(found.find((p) => p.file === 'sources/web.yaml')!.message).toMatch(/did you mean tolerance/);
});

test.each([
  ['a secret by value', 'adapter: shop\nconfig: { secret: hunter2 }\n', 2, /given by name/],
  ['a missing option', 'adapter: shop\n', 1, /option secret is missing/],
  ['a limit without bound', 'adapter: shop\nconfig: { secret: { secret: K } }\nlimits: { depth: 100000 }\n', 3, /limit depth/],
  ['a limit of the prototype', 'adapter: shop\nconfig: { secret: { secret: K } }\nlimits: { toString: 5 }\n', 3, /limit toString/],
  ['an option of the prototype', 'adapter: shop\nconfig: { secret: { secret: K }, toString: 5 }\n', 2, /unknown option toString/],
  ['limits that are no table', 'adapter: shop\nconfig: { secret: { secret: K } }\nlimits: 5\n', 3, /limits is a table/],
  ['a mapping that is not there', 'adapter: shop\nconfig: { secret: { secret: K } }\nmapping: nope.yaml\n', 3, /no file mappings\/nope.yaml/],
  ['a window shorter than the sender retries', 'adapter: shop\nconfig: { secret: { secret: K } }\ndedupeWindow: 1h\n', 3, /dedupeWindow/],
])('%s is refused with its line, and no value is repeated', (_name, content, line, message) => {
  const [first] = problems({ 'sources/web.yaml': content });
  expect(first).toMatchObject({ file: 'sources/web.yaml', line, message: expect.stringMatching(message) });
  expect(JSON.stringify(first)).not.toContain('hunter2');
});

test('secrets are revealed where they stand, also inside tables, and the release keeps their names only', () => {
  const vault = { get: (name: string) => ({ reveal: () => `value of ${name}` }), signing: () => undefined } as never;
  const config = { a: { secret: 'A_KEY' }, headers: { 'x-key': { secret: 'B_KEY' } }, list: [{ secret: 'C_KEY' }], url: 'sandbox://crm' };
  expect(resolveConfig(config, { vault, sandboxUrl: 'http://127.0.0.1:1' })).toEqual({ a: 'value of A_KEY', headers: { 'x-key': 'value of B_KEY' }, list: ['value of C_KEY'], url: 'http://127.0.0.1:1/d/crm' });
  expect(secretNames(config)).toEqual([{ option: 'a', name: 'A_KEY' }, { option: 'headers.x-key', name: 'B_KEY' }, { option: 'list.0', name: 'C_KEY' }]);
  expect(JSON.stringify(compile().files)).not.toContain('value of');
});

test('a secret that cannot stand in a header is told by its name where it is resolved for one, and not repeated; one that signs may hold any text', () => {
  const schema: ConfigSchema = { auth: { type: 'string', doc: '', secret: true }, key: { type: 'string', doc: '', secret: true, signs: true }, headers: { type: 'object', doc: '' } };
  const resolved = (value: string, config: object) => () => resolveConfig(config, { vault: { get: () => ({ reveal: () => value }) } as never, sentBy: schema });
  for (const value of ['t0ken\n', 't0ken\r\nx: y', 't0k\u0000en', 't0ken€']) for (const config of [{ auth: { secret: 'A_KEY' } }, { headers: { 'x-key': { secret: 'A_KEY' } } }]) {
    expect(resolved(value, config)).toThrow(expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining('secret A_KEY ') }));
    expect(resolved(value, config)).not.toThrow('t0k');
  }
  expect(resolved('t0ken', { auth: { secret: 'A_KEY' } })()).toEqual({ auth: 't0ken' });
  expect(resolved('k1\n', { key: { secret: 'A_KEY' } })()).toEqual({ key: 'k1\n' });
});

const crm = 'adapter: sink\nregion: [DE, US-CA]\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n';
const contract = (name: string, properties: string) => `apiVersion: v3.1.0\nkind: DataContract\nid: ${name}\nversion: 1.0.0\nstatus: active\nschema:\n  - name: Profile\n    properties:\n${properties}`;

test('contracts say class and purposes of fields, and the contract of a destination governs only what goes there', () => {
  const release = compile({
    'purposes.yaml': 'purposes:\n  service: { legalBasis: contract }\n  ads: { legalBasis: consent }\nclasses:\n  personal: [service]\n  identifier: [service, ads]\n',
    'contracts/a.odcs.yaml': contract('a', '      - { name: birthday, classification: personal, tags: [kyc-sensitive, owner-crm] }\n      - { name: plan, customProperties: [{ property: purposes, value: [ads] }] }\n      - name: attributes\n        properties:\n          - { name: passport, classification: kyc-sensitive }\n          - { name: tier, customProperties: [{ property: purposes, value: [ads] }] }\n'),
    'contracts/crm.odcs.yaml': contract('crm', '      - { name: email, required: true }\n'),
    'destinations/crm.yaml': `${crm}contract: crm.odcs.yaml\n`,
    'sources/web.yaml': 'adapter: shop\nregion: AT\nconfig: { secret: { secret: SHOP_KEY } }\n',
    'regions.yaml': 'regions:\n  dach: [DE, AT, CH]\n',
  });
  const fields = release.policy.governance!.fields.get('Profile')!;
  const view = (name: string) => [fields.get(name)!.class, ...fields.get(name)!.purposes].join(' ');
  expect(['birthday', 'plan', 'firstName', 'email', 'lifecycleStage', 'id'].map(view)).toEqual(['kyc-sensitive', 'internal ads', 'personal service', 'identifier service ads', 'internal', 'technical service ads']);
  expect([...fields.get('attributes')!.keys!].map(([key, purposes]) => [key, ...purposes])).toEqual([['passport'], ['tier', 'ads']]);
  expect(release.contracts.get('weir.canonical.Profile')!.map((c) => c.id)).toEqual(['a']);
  expect(release.destinations.get('crm')!.contract!.check('weir.canonical.Profile', { email: null }).map((r) => r.message)).toEqual(['email is required']);
  expect([[...release.policy.governance!.sourceRegions], [...release.policy.governance!.destinationRegions]]).toEqual([[['web', 'AT']], [['crm', ['DE', 'US-CA']]]]);
});

test('where its people are is said for good by a source whose key is secret, and is added by one whose key is public, unless the workspace says other', () => {
  const open: Adapter = { ...shop, manifest: { ...shop.manifest, name: 'open', source: { ...shop.manifest.source!, publicKey: true } } };
  const moves = (adapter: string, line: string): boolean | undefined => {
    const known = new Map([...adapters, ['open', open]]);
    const files = withDefaults(Object.entries({ ...base, 'sources/web.yaml': `adapter: ${adapter}\n${line}config: { secret: { secret: SHOP_KEY } }\n` }).map(([path, content]) => ({ path, content })), known, () => defaultMapping);
    return compileRelease(files, { adapters: known }).sources.get('web')!.movesPeople;
  };
  expect([moves('shop', ''), moves('shop', 'saysRegion: adds\n'), moves('open', ''), moves('open', 'saysRegion: last\n')]).toEqual([true, false, false, true]);
});

test('links are trusted of a source whose key is secret, and not of one whose key is public, unless the workspace says other', () => {
  const open: Adapter = { ...shop, manifest: { ...shop.manifest, name: 'open', source: { ...shop.manifest.source!, publicKey: true } } };
  const trusts = (adapter: string, line: string): boolean | undefined => {
    const known = new Map([...adapters, ['open', open]]);
    const files = withDefaults(Object.entries({ ...base, 'sources/web.yaml': `adapter: ${adapter}\n${line}config: { secret: { secret: SHOP_KEY } }\n` }).map(([path, content]) => ({ path, content })), known, () => defaultMapping);
    return compileRelease(files, { adapters: known }).sources.get('web')!.trustsLinks;
  };
  expect([trusts('shop', ''), trusts('shop', 'identityLinks: untrusted\n'), trusts('open', ''), trusts('open', 'identityLinks: trusted\n')]).toEqual([true, false, false, true]);
});

test.each<[string, Record<string, string>, string, RegExp]>([
  ['a classification nobody knows', { 'contracts/a.odcs.yaml': contract('a', '      - { name: email, classification: topsecret }\n') }, 'contracts/a.odcs.yaml:9', /unknown classification topsecret/],
  ['a class of a key that nobody knows', { 'contracts/a.odcs.yaml': contract('a', '      - name: attributes\n        properties:\n          - { name: x, classification: topsecret }\n') }, 'contracts/a.odcs.yaml:11', /unknown classification topsecret/],
  ['a key of what is no map', { 'contracts/a.odcs.yaml': contract('a', '      - name: email\n        properties:\n          - { name: x, classification: personal }\n') }, 'contracts/a.odcs.yaml:10', /email takes text, which has no keys/],
  ['a check of a key that nobody makes', { 'contracts/a.odcs.yaml': contract('a', '      - name: attributes\n        properties:\n          - { name: x, required: true }\n') }, 'contracts/a.odcs.yaml:11', /required of a key of a map cannot be checked/],
  ['a purpose of a field that is not declared', { 'contracts/a.odcs.yaml': contract('a', '      - { name: email, customProperties: [{ property: purposes, value: [spying] }] }\n') }, 'contracts/a.odcs.yaml:9', /unknown purpose spying/],
  ['a region of a destination that is none', { 'destinations/crm.yaml': crm.replace('US-CA', 'EU') }, 'destinations/crm.yaml:2', /unknown region "EU"/],
  ['a word for who moves people that is none', { 'sources/web.yaml': 'adapter: shop\nsaysRegion: first\nconfig: { secret: { secret: SHOP_KEY } }\n' }, 'sources/web.yaml:2', /saysRegion "first"/],
  ['a word for whose links are trusted that is none', { 'sources/web.yaml': 'adapter: shop\nidentityLinks: yes\nconfig: { secret: { secret: SHOP_KEY } }\n' }, 'sources/web.yaml:2', /identityLinks/],
  ['two regions of a source', { 'sources/web.yaml': 'adapter: shop\nregion: [DE, AT]\nconfig: { secret: { secret: SHOP_KEY } }\n' }, 'sources/web.yaml:2', /expected one region/],
  ['a route for what the destination may not', { 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract }\n  ads: { legalBasis: consent }\n', 'destinations/crm.yaml': `${crm}purposes: [ads]\n` }, 'destinations/crm.yaml:4', /may not use data for service/],
  ['a purpose of a destination that is not declared', { 'destinations/crm.yaml': `${crm}purposes: [service, nope]\n` }, 'destinations/crm.yaml:5', /unknown purpose "nope"/],
  ['a contract that is not there', { 'destinations/crm.yaml': `${crm}contract: nope.yaml\n` }, 'destinations/crm.yaml:5', /no file contracts\/nope.yaml/],
  ['residency without a region of the destination', { 'destinations/crm.yaml': crm.replace('region: [DE, US-CA]\n', ''), 'policies/a.yaml': 'rules:\n  - { name: all, effect: allow }\n  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n' }, 'destinations/crm.yaml:1', /asks where crm keeps its data/],
  ['an own group with a code that is none', { 'regions.yaml': 'regions:\n  mine: [DE, ZZ]\n' }, 'regions.yaml:2', /unknown region "ZZ"/],
])('%s is refused at validate with file and line', (_name, over, at, message) => {
  const found = problems({ 'destinations/crm.yaml': crm, 'policies/a.yaml': 'rules:\n  - { name: all, effect: allow }\n', ...over });
  expect(found.map((p) => `${p.file}:${p.line}`)).toContain(at);
  expect(found.find((p) => `${p.file}:${p.line}` === at)!.message).toMatch(message);
});

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-ws-'));
  for (const [path, content] of Object.entries(base)) put(path, content);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));
function put(path: string, content: string): void {
  mkdirSync(join(dir, path, '..'), { recursive: true });
  writeFileSync(join(dir, path), content);
}

test('a folder and its copy give the same release; what is no workspace file is left out', () => {
  put('notes.txt', 'x');
  put('sources/readme.md', 'x');
  const copy = `${dir}-copy`;
  cpSync(dir, copy, { recursive: true });
  try {
    expect(readWorkspace(dir).map((f) => f.path).sort()).toEqual(Object.keys(base).sort());
    expect(releaseHash(readWorkspace(copy))).toBe(releaseHash(readWorkspace(dir)));
  } finally {
    rmSync(copy, { recursive: true });
  }
});

test('links out of the workspace are not read, neither a file nor a folder; nor is a huge file', () => {
  const outside = mkdtempSync(join(tmpdir(), 'weir-out-'));
  writeFileSync(join(outside, 'secret.yaml'), 'a: 1');
  try {
    symlinkSync(outside, join(dir, 'mappings'));
    expect(() => readWorkspace(dir)).toThrow(/mappings.*not a plain folder/);
    rmSync(join(dir, 'mappings'));
    symlinkSync(join(outside, 'secret.yaml'), join(dir, 'sources/link.yaml'));
    expect(() => readWorkspace(dir)).toThrow(/sources\/link.yaml.*not a plain file/);
    rmSync(join(dir, 'sources/link.yaml'));
    put('sources/huge.yaml', 'x'.repeat(300_000));
    expect(() => readWorkspace(dir)).toThrow(/huge.yaml.*larger/);
  } finally {
    rmSync(outside, { recursive: true });
  }
});

test('what looks as if it were read and is not is refused, not left out: a policy in a folder of its own, or with an ending in capitals', () => {
  put('policies/eu/forbid.yaml', 'rules: []\n');
  expect(() => readWorkspace(dir)).toThrow(/policies\/eu:0: a folder, which is not read/);
  rmSync(join(dir, 'policies/eu'), { recursive: true });
  put('policies/forbid.YAML', 'rules: []\n');
  expect(() => readWorkspace(dir)).toThrow(/policies\/forbid.YAML.*not allowed/);
  rmSync(join(dir, 'policies/forbid.YAML'));
  mkdirSync(join(dir, 'policies/.git'), { recursive: true });
  expect(readWorkspace(dir).length).toBe(Object.keys(base).length);
});

test.each([['', true], ['consent: { linkedIdentifiers: keep }\n', true], ['consent: { conflict: strictest, linkedIdentifiers: leave-out }\n', false]] as const)('links keep sealed identifiers unless weir.yaml says otherwise (%s)', (line, keeps) => {
  expect(compile({ 'weir.yaml': `name: acme\n${line}` }).linkedIdentifiers).toBe(keeps);
});

test.each([
  ['consent: { conflict: newest }', 'conflict names no rule'],
  ['consent: { conflict: source-priority }', 'priority goes with'],
  ['consent: { conflict: strictest, priority: [web] }', 'priority goes with'],
  ['consent: { conflict: source-priority, priority: [web, web] }', 'no list of source names'],
  ['consent: { linkedIdentifiers: false }', 'linkedIdentifiers says neither keep nor leave-out'],
  ['consent: { wat: 1 }', 'unknown key wat'],
  ['consent: strictest', 'consent is a table'],
])('%s in weir.yaml is refused with its line: %s', (line, message) => {
  const found = problems({ 'weir.yaml': `name: acme\n${line}\n` });
  expect(found.filter((p) => p.file === 'weir.yaml')).toMatchObject([{ line: 2, message: expect.stringContaining(message) }]);
});
