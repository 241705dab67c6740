import { WeirError } from '@weir/errors';
import type { Incident } from '@weir/release';
import { createHandClock } from '@weir/testing';
import { openVault, Secret, type Vault } from '@weir/vault';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createCredentials } from './credentials.ts';

test('a credential that ends with a line end pauses its destination, as one that is missing does, until it is mended', async () => {
  const secrets: Record<string, string> = { KEY: 'k1\n', SIGN: 'line\n' };
  let revision = 1;
  const incidents: Incident[] = [];
  const adapter = { manifest: { destination: { config: { apiKey: { type: 'string', doc: '', secret: true }, signing: { type: 'string', doc: '', secret: true, signs: true } } } } };
  const logged: unknown[] = [];
  const log = (...of: unknown[]): void => { logged.push(of); };
  const clock = createHandClock(1000, Math.random);
  const credentials = createCredentials({
    vault: { onChange: () => () => undefined, revision: () => revision, get: (name: string) => new Secret(secrets[name]!), refresh: () => Promise.resolve() } as unknown as Vault,
    releases: { current: () => ({ hash: 'a', destinations: new Map([['crm', { name: 'crm', adapter, config: { apiKey: { secret: 'KEY' }, signing: { secret: 'SIGN' } } }]]) }), incidents: () => new Map() } as never,
    sandboxUrl: '', logger: { warn: log, error: log, info: log } as never, registry: new Registry(), clock, save: (incident) => { incidents.push(incident); return Promise.resolve(); }, changed: () => undefined,
  });
  expect(credentials.destination('crm')).toBeUndefined();
  secrets['KEY'] = 'k1';
  revision++;
  expect(credentials.destination('crm')!.config).toEqual({ apiKey: 'k1', signing: 'line\n' });
  await credentials.close();
  expect(incidents).toMatchObject([{ destination: 'crm', code: 'config-invalid', until: null }, { destination: 'crm', code: 'config-invalid', until: 1000 }]);
  expect(JSON.stringify(logged)).toContain('secret KEY ');
  expect(JSON.stringify(logged)).not.toContain('k1');
});

test('the config of a destination stays the same object until one of its own values changes, so that what is known of its credential does', () => {
  const secrets: Record<string, string> = { KEY: 'k1', OTHER: 'o1' };
  let revision = 1;
  let release = { hash: 'a', destinations: new Map([['crm', { name: 'crm', adapter: { manifest: {} }, config: { apiKey: { secret: 'KEY' }, headers: { list: ['x'] } } }]]) };
  const credentials = createCredentials({
    vault: { onChange: () => () => undefined, revision: () => revision, get: (name: string) => new Secret(secrets[name]!), refresh: () => Promise.resolve() } as unknown as Vault,
    releases: { current: () => release, incidents: () => new Map() } as never, sandboxUrl: '', logger: {} as never, registry: new Registry(), clock: createHandClock(1000), save: () => Promise.resolve(), changed: () => undefined,
  });
  const first = credentials.destination('crm')!.config;
  secrets['OTHER'] = 'o2';
  revision++;
  expect(credentials.destination('crm')!.config).toBe(first);
  release = { ...release, hash: 'b' };
  expect(credentials.destination('crm')!.config).toBe(first);
  secrets['KEY'] = 'k2';
  revision++;
  expect(credentials.destination('crm')!.config).not.toBe(first);
  expect(credentials.destination('crm')!.config).toMatchObject({ apiKey: 'k2' });
});

test('scopes that a token lacks are told once for what is lacking, and with the incident; nothing that the token server said is', async () => {
  let given: readonly string[] | undefined = ['lists', 'said-by-the-server'];
  let revision = 1;
  const logged: { readonly message: string; readonly lacks?: string }[] = [];
  const log = (fields: object, message: string): void => { logged.push({ ...fields, message }); };
  const schema = { auth: { type: 'string', doc: '', secret: true, scopesIn: 'scopes' }, apiKey: { type: 'string', doc: '', secret: true, scopes: ['events'] } };
  const config = { auth: { secret: 'CRM' }, scopes: ['contacts', 'lists'], apiKey: { secret: 'PLAIN' } };
  const credentials = createCredentials({
    vault: { onChange: () => () => undefined, revision: () => revision, get: () => new Secret('t0ken'), scopes: (name: string) => (name === 'CRM' ? given : undefined), refresh: () => Promise.resolve() } as unknown as Vault,
    releases: { current: () => ({ hash: 'a', destinations: new Map([['crm', { name: 'crm', adapter: { manifest: { destination: { config: schema } } }, config }]]) }), incidents: () => new Map() } as never,
    sandboxUrl: '', logger: { warn: log, error: log, info: log } as never, registry: new Registry(), clock: createHandClock(1000), save: () => Promise.resolve(), changed: () => undefined,
  });
  for (const next of [given, given, ['contacts', 'lists'], undefined, ['lists']]) {
    given = next;
    revision++;
    expect(credentials.destination('crm')!.config).toMatchObject({ auth: 't0ken' });
  }
  expect(logged).toMatchObject([{ destination: 'crm', lacks: 'CRM: contacts' }, { destination: 'crm', lacks: 'CRM: contacts' }]);
  credentials.rejected('crm');
  expect(logged.at(-1)).toMatchObject({ message: 'destination paused: credential', lacks: 'CRM: contacts' });
  await credentials.close();
  expect(JSON.stringify(logged)).not.toMatch(/t0ken|said-by-the-server/);
});

/** Dispatchers, one after the other, before a vault whose secrets are undefined while they cannot be had, and one weir.control. */
function world(names: readonly string[] = ['crm']) {
  const clock = createHandClock(1000);
  const state = { secrets: {} as Record<string, string | undefined>, revision: 1, refreshes: 0, /** What a read of the vault does. */ read: async (): Promise<void> => undefined, saved: [] as Incident[], changes: 0, logged: [] as string[] };
  const control = new Map<string, Incident>();
  const destinations = new Map(names.map((name) => [name, { name, adapter: { manifest: {} }, config: { apiKey: { secret: name.toUpperCase() } } }]));
  const vault = (has: () => boolean) => ({
    onChange: () => () => undefined, revision: () => state.revision,
    get(name: string) {
      const value = state.secrets[name];
      if (value === undefined || !has()) throw new WeirError('secret-unavailable', `secret ${name} cannot be had`);
      return new Secret(value);
    },
    refresh() { state.refreshes++; return state.read(); },
  }) as unknown as Vault;
  const line = (_fields: object, message: string): void => { state.logged.push(message); };
  /** `has`: it can have secrets. */
  const start = (has = () => true) => createCredentials({
    vault: vault(has), releases: { current: () => ({ hash: 'a', destinations }), incidents: () => control } as never, sandboxUrl: '', logger: { warn: line, error: line, info: line } as never, registry: new Registry(), clock,
    save: async (incident) => { state.saved.push(incident); control.set(incident.destination, { ...incident }); }, changed: () => { state.changes++; },
  });
  /** The secret has another value, or none, and the vault has noticed it. */
  const set = (name: string, value: string | undefined): void => { state.secrets[name] = value; state.revision++; };
  const pass = async (ms: number): Promise<void> => { for (const _ of clock.turn(ms)) await new Promise(setImmediate); await new Promise(setImmediate); };
  return { clock, state, control, start, set, pass };
}

test('a credential that was refused keeps its incident while the vault is away, over a restart, and until the vendor takes it', async () => {
  const { clock, state, control, start, set, pass } = world();
  set('CRM', 'bad');
  let credentials = start();
  expect(credentials.destination('crm')!.config).toEqual({ apiKey: 'bad' });
  credentials.rejected('crm');
  const turns: (() => Promise<unknown> | unknown)[] = [
    () => set('CRM', undefined),
    () => set('CRM', 'bad'),
    () => credentials.rejected('crm'),
    () => set('CRM', undefined),
    async () => { await credentials.close(); credentials = start(); },
    () => set('CRM', 'bad'),
    async () => { await credentials.close(); credentials = start(); },
    () => credentials.rejected('crm'),
    () => set('CRM', 'good'),
  ];
  for (const [i, turn] of turns.entries()) {
    await pass(60_000);
    await turn();
    credentials.destination('crm');
    await pass(60_000);
    expect(credentials.destination('crm')?.config, `turn ${i}`).toEqual(state.secrets['CRM'] === undefined ? undefined : { apiKey: state.secrets['CRM'] });
    expect(control.get('crm'), `turn ${i}`).toEqual({ destination: 'crm', code: 'credential-rejected', since: 1000, until: null });
  }
  credentials.accepted('crm');
  await credentials.close();
  expect(control.get('crm')).toEqual({ destination: 'crm', code: 'credential-rejected', since: 1000, until: clock.at });
  // Nor is it told again and again while nothing changes.
  expect(state.logged.length).toBeLessThan(20);
});

test('of another instance that finds the secret away the start and the refusal are kept, too', async () => {
  const { control, start, set, pass } = world();
  set('CRM', 'bad');
  const [one, other] = [start(), start()];
  one.destination('crm');
  one.rejected('crm');
  await pass(60_000);
  set('CRM', undefined);
  other.destination('crm');
  await pass(60_000);
  other.destination('crm');
  set('CRM', 'bad');
  other.destination('crm');
  await pass(1000);
  expect(control.get('crm')).toEqual({ destination: 'crm', code: 'credential-rejected', since: 1000, until: null });
  await Promise.all([one.close(), other.close()]);
});

test('what begins right after an incident was ended is one of its own, although weir.control tells the one before as open yet', async () => {
  const { clock, state, control, start, set, pass } = world();
  set('CRM', 'bad');
  const credentials = start();
  credentials.destination('crm');
  credentials.rejected('crm');
  await pass(60_000);
  const before = control.get('crm')!;
  credentials.accepted('crm');
  await pass(0);
  control.set('crm', before);
  set('CRM', undefined);
  credentials.destination('crm');
  await pass(0);
  credentials.destination('crm');
  await pass(0);
  expect(state.saved.at(-1)).toEqual({ destination: 'crm', code: 'secret-unavailable', since: clock.at, until: null });
  await credentials.close();
});

test('a token that was not asked for before is fetched before it counts as missing: no incident, and the others are called meanwhile', async () => {
  const { state, start, set, pass } = world(['crm', 'ads']);
  const answer = Promise.withResolvers<void>();
  state.read = async () => { await answer.promise; set('CRM', 'token'); };
  set('ADS', 'key');
  const credentials = start();
  expect([credentials.destination('crm'), credentials.destination('ads')?.config]).toEqual([undefined, { apiKey: 'key' }]);
  await pass(2000);
  expect([credentials.destination('crm'), credentials.destination('ads')?.config, state.refreshes]).toEqual([undefined, { apiKey: 'key' }, 1]);
  answer.resolve();
  await pass(1);
  expect(state.changes).toBeGreaterThan(0);
  expect(credentials.destination('crm')?.config).toEqual({ apiKey: 'token' });
  await pass(60_000);
  await credentials.close();
  expect([state.saved, state.logged]).toEqual([[], []]);
});

test('a vault that was stale for a moment, and a token of a client in it that could not be asked for before, are no incident', async () => {
  const { state, control, start, set, pass } = world();
  const credentials = start();
  let found = false;
  // The first read finds the client; only one after it was looked up asks for its token.
  state.read = async () => {
    if (found) set('CRM', 'token');
    found = true;
  };
  credentials.destination('crm');
  await pass(0);
  expect([credentials.destination('crm')?.config, state.refreshes, state.changes]).toEqual([{ apiKey: 'token' }, 2, 1]);
  await credentials.close();
  expect(control.size).toBe(0);
});

test.each([['refuses', 0], ['hangs', 5000]] as const)('a token server that %s: the incident begins after one read of the vault (at the latest after %d ms), with the time at which the secret was missed', async (how, ms) => {
  const { state, control, start, set, pass } = world(['crm', 'ads']);
  if (how === 'hangs') state.read = () => new Promise(() => undefined);
  set('ADS', 'key');
  const credentials = start();
  expect(credentials.destination('crm')).toBeUndefined();
  expect(state.saved).toEqual([]);
  await pass(ms);
  expect([state.changes, credentials.destination('crm')]).toEqual([1, undefined]);
  await pass(0);
  expect([...control.values()]).toEqual([{ destination: 'crm', code: 'secret-unavailable', since: 1000, until: null }]);
  expect(credentials.destination('ads')?.config).toEqual({ apiKey: 'key' });
  expect(state.logged).toEqual(['no usable secret', 'destination paused: credential']);
  // It is tried again, and ends as soon as the secret is there; what is missed then is a case of its own.
  state.read = async () => set('CRM', 'token');
  await pass(500);
  expect(credentials.destination('crm')?.config).toEqual({ apiKey: 'token' });
  await pass(0);
  expect(control.get('crm')!.until).toBe(1000 + ms + 500);
  state.read = async () => undefined;
  set('CRM', undefined);
  credentials.destination('crm');
  expect(control.get('crm')!.until).not.toBeNull();
  await credentials.close();
});

test('a vendor that refuses its token ten times over has no token of another vendor asked for anew', async () => {
  const clock = createHandClock(1_800_000_000_000);
  const asked: string[] = [];
  const client = (name: string): string => JSON.stringify({ type: 'oauth2', tokenUrl: `https://${name}.example/token`, clientId: 'c', clientSecret: 's' });
  const vault = openVault({
    dataDir: '/nonexistent', env: { WEIR_SECRET_CRM: client('crm'), WEIR_SECRET_ADS: client('ads') }, now: clock.now,
    callTokenServer: async (url) => ({ status: 200, body: { access_token: `${asked.push(new URL(url).hostname)}`, expires_in: 3600 } }),
  });
  const destinations = new Map(['crm', 'ads'].map((name) => [name, { name, adapter: { manifest: {} }, config: { auth: { token: { secret: name.toUpperCase() } } } }]));
  const silent = (): void => undefined;
  const credentials = createCredentials({
    vault, releases: { current: () => ({ hash: 'a', destinations }), incidents: () => new Map() } as never, sandboxUrl: '', logger: { warn: silent, error: silent, info: silent } as never, registry: new Registry(), clock,
    save: async () => undefined, changed: () => undefined,
  });
  const pass = async (ms: number): Promise<void> => { for (const _ of clock.turn(ms)) await new Promise(setImmediate); await new Promise(setImmediate); };
  credentials.destination('crm');
  await pass(0);
  for (let i = 0; i < 10; i++) {
    expect(credentials.destination('crm')).toBeDefined();
    credentials.rejected('crm');
    await pass(30_000);
  }
  expect(['crm', 'ads'].map((name) => asked.filter((host) => host === `${name}.example`).length)).toEqual([11, 1]);
  await credentials.close();
  vault.close();
});

test('an incident of an instance that is gone ends when the vendor has taken the credential from another one for a minute, and not before', async () => {
  const { clock, state, control, start, set, pass } = world();
  set('CRM', 'good');
  const one = start();
  one.destination('crm');
  control.set('crm', { destination: 'crm', code: 'credential-rejected', since: 500, until: null });
  one.accepted('crm');
  await pass(59_000);
  one.accepted('crm');
  expect(state.saved).toEqual([]);
  await pass(2000);
  one.accepted('crm');
  one.accepted('crm');
  await pass(0);
  expect(state.saved).toEqual([{ destination: 'crm', code: 'credential-rejected', since: 500, until: clock.now() }]);
  await one.close();
});

test('what an instance that cannot have the secret tells is not ended by one that serves it from memory, nor by one that starts meanwhile, but by itself, once', async () => {
  const { clock, state, control, start, set, pass } = world();
  set('CRM', 'good');
  let had = false;
  const away = start(() => had);
  const well = start();
  well.destination('crm');
  away.destination('crm');
  for (let second = 0; second < 600; second += 5) {
    well.accepted('crm');
    away.destination('crm');
    await pass(5000);
    if (second === 300) start().destination('crm');
  }
  expect(new Set(state.saved.map(({ code, since, until }) => `${code} ${since} ${until}`))).toEqual(new Set(['secret-unavailable 1000 null']));
  expect(state.saved.length).toBeLessThan(30);
  had = true;
  await pass(30_000);
  away.destination('crm');
  const at = clock.at;
  for (let second = 0; second < 120; second += 5) {
    well.accepted('crm');
    await pass(5000);
  }
  expect([control.get('crm')!.until, state.saved.filter(({ until }) => until !== null).length]).toEqual([at, 1]);
});

test('what an instance left open that is gone ends a minute later where the secret can be had, without a call, and where the destination is no more', async () => {
  const { control, start, set, pass } = world();
  set('CRM', 'good');
  control.set('crm', { destination: 'crm', code: 'secret-unavailable', since: 500, until: null });
  control.set('ads', { destination: 'ads', code: 'credential-rejected', since: 500, until: null });
  const one = start();
  one.destination('crm');
  await pass(59_000);
  expect([control.get('crm')!.until, control.get('ads')!.until]).toEqual([null, null]);
  await pass(60_000);
  expect([control.get('crm')!.until, control.get('ads')!.until]).not.toContain(null);
  await one.close();
});

test('an instance that was refused and has nothing more to call leaves the end to one whose calls pass', async () => {
  const { control, start, set, pass } = world();
  set('CRM', 'bad');
  const [idle, well] = [start(), start()];
  for (const one of [idle, well]) one.destination('crm');
  idle.rejected('crm');
  await pass(0);
  for (let second = 0; second < 300; second += 5) {
    well.accepted('crm');
    await pass(5000);
    if (second === 100) expect(control.get('crm')!.until).toBeNull();
  }
  expect(control.get('crm')!.until).not.toBeNull();
  await Promise.all([idle.close(), well.close()]);
});

test('who is refused again after another instance ended its incident begins a new one, and a refusal of its own is not ended for another', async () => {
  const { clock, state, control, start, set, pass } = world();
  set('CRM', 'good');
  const one = start();
  one.destination('crm');
  one.rejected('crm');
  await pass(0);
  expect(state.saved).toMatchObject([{ since: 1000, until: null }]);
  control.set('crm', { ...state.saved[0]!, until: 1500 });
  await pass(5000);
  one.rejected('crm');
  one.rejected('crm');
  await pass(0);
  expect(state.saved.slice(1)).toEqual([{ destination: 'crm', code: 'credential-rejected', since: clock.now(), until: null }]);
  await one.close();
});

test('two instances that notice it at once, each with a start of its own, keep to the one that was written last: nobody is told anew each half minute', async () => {
  const { clock, state, control, start, pass } = world();
  const one = start();
  const look = async (ms: number): Promise<void> => {
    for (let gone = 0; gone < ms; gone += 1000) {
      await pass(1000);
      one.destination('crm');
    }
  };
  await look(10_000);
  expect(state.saved).toHaveLength(1);
  // What the other one wrote at the same time.
  control.set('crm', { ...state.saved[0]!, since: state.saved[0]!.since + 7 });
  await look(90_000);
  expect(new Set(state.saved.slice(1).map(({ since }) => since))).toEqual(new Set([state.saved[0]!.since + 7]));
  // The other one has the secret again and ends it; this one has not: that is told, too.
  control.set('crm', { ...state.saved[0]!, since: state.saved[0]!.since + 7, until: clock.now() });
  const before = state.saved.length;
  await look(40_000);
  expect(state.saved.slice(before).every(({ since, until }) => until === null && since > state.saved[0]!.since + 7)).toBe(true);
  expect(state.saved.length).toBeGreaterThan(before);
  await one.close();
});
