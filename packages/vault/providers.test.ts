import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync, writeFileSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Provider } from 'oidc-provider';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createKvProvider, loadSecrets, migrateSecrets, openVault, removeSecret, rotateRootKey, setSecret, type KvOptions, type Vault } from './index.ts';

let dataDir: string;
const servers: Server[] = [];
beforeEach(() => { dataDir = mkdtempSync(join(tmpdir(), 'weir-vault-')); });
afterEach(() => {
  for (const server of servers.splice(0)) { server.closeAllConnections(); server.close(); }
  rmSync(dataDir, { recursive: true, force: true });
});
const listen = async (handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> => {
  const server = createServer(handler);
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
};
const local = () => ({ dataDir, env: {} });
const leaf = 'leaf_00000000-0000-4000-8000-000000000001';

test('the sealed file shows no secret, and a changed byte, a moved box or a foreign key is refused', () => {
  setSecret(local(), 'A', 'hunter2-hunter2', 0, 1, leaf);
  setSecret(local(), 'B', 'other', 0, 1, leaf);
  const file = join(dataDir, 'secrets.sealed.json');
  const text = readFileSync(file, 'utf8');
  expect(text).not.toContain('hunter2');
  const sealed = JSON.parse(text);
  writeFileSync(file, JSON.stringify({ ...sealed, secrets: { A: sealed.secrets.B, B: sealed.secrets.A } }));
  expect(() => loadSecrets(local())).toThrow(/secret A was changed/);
  const flipped = Buffer.from(sealed.secrets.A, 'base64url');
  flipped[14]! ^= 1;
  writeFileSync(file, JSON.stringify({ ...sealed, secrets: { A: flipped.toString('base64url') } }));
  expect(() => loadSecrets(local())).toThrow(/was changed/);
  writeFileSync(file, text);
  expect(() => loadSecrets({ dataDir, env: { WEIR_KEY: Buffer.alloc(32, 7).toString('base64url') } })).toThrow(/sealed with a key/);
  expect(loadSecrets(local())['A']!.value).toBe('hunter2-hunter2');
});

test('a running vault reads on through key rotations, and the old key opens nothing afterwards', () => {
  setSecret(local(), 'A', 'v1', 0, 1, leaf);
  const vault = openVault(local());
  const before = readFileSync(join(dataDir, 'secrets.sealed.json'), 'utf8');
  for (let i = 0; i < 3; i++) {
    rotateRootKey(local(), leaf);
    expect(vault.get('A').reveal()).toBe('v1');
  }
  const once = readFileSync(join(dataDir, 'secrets.sealed.json'), 'utf8');
  expect(JSON.parse(once).root).not.toBe(JSON.parse(before).root);
  rmSync(join(dataDir, 'vault.key'));
  expect(() => loadSecrets(local())).toThrow(/sealed with a key/);
});

test('migrate seals the plain file and removes it', () => {
  writeFileSync(join(dataDir, 'secrets.json'), JSON.stringify({ A: { value: 'plain', signingValue: 's' } }));
  expect(openVault(local()).get('A').reveal()).toBe('plain');
  expect(migrateSecrets(local(), leaf)).toBe(1);
  expect(existsSync(join(dataDir, 'secrets.json'))).toBe(false);
  expect(openVault(local()).get('A').reveal()).toBe('plain');
  expect(openVault(local()).signing('A')?.reveal()).toBe('s');
  expect(migrateSecrets(local(), leaf)).toBe(0);
});

test('a rotated secret keeps its predecessor until the overlap ends, not longer', () => {
  let now = 1000;
  setSecret(local(), 'A', 'old', 0, now, leaf);
  setSecret(local(), 'A', 'new', 500, now, leaf);
  const vault = openVault({ ...local(), now: () => now });
  expect([vault.get('A').reveal(), vault.previous('A')?.reveal()]).toEqual(['new', 'old']);
  now = 1500;
  expect(vault.previous('A')).toBeUndefined();
  expect(removeSecret(local(), 'A', leaf)).toBe(true);
  expect(removeSecret(local(), 'A', leaf)).toBe(false);
});

/** Speaks what the HTTP API documentation of KV v2, AppRole and token renewal says. */
async function startKv() {
  const kv = {
    versions: [{ CRM: 'one' }] as Record<string, string>[], created: Date.now(), times: [] as number[], mode: 'ok' as 'ok' | 'sealed' | 'slow' | 'denied' | 'garbage' | 'huge',
    logins: 0, renewals: 0, reads: 0, tokens: new Set<string>(), lease: 3600, url: '',
    /** What lookup-self says of a token, and whether it may be renewed. */
    given: { ttl: 3600, renewable: true }, renews: true,
  };
  kv.url = await listen((request, response) => {
    const json = (status: number, body: unknown): void => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)); };
    const url = new URL(request.url!, 'http://x');
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      if (kv.mode === 'slow') return;
      if (kv.mode === 'sealed') return json(503, { errors: ['Vault is sealed'] });
      if (kv.mode === 'garbage') return void response.writeHead(200).end('<html>one</html>');
      if (kv.mode === 'huge') return void response.writeHead(200).end('x'.repeat(2_000_000));
      const grant = (): void => {
        const token = `hvs.${Math.random()}`;
        kv.tokens.add(token);
        json(200, { auth: { client_token: token, lease_duration: kv.lease, renewable: true } });
      };
      if (url.pathname === '/v1/auth/approle/login') {
        kv.logins++;
        const { role_id, secret_id } = JSON.parse(body);
        return role_id === 'role' && secret_id === 'sid' ? grant() : json(400, { errors: ['invalid role or secret ID'] });
      }
      if (kv.mode === 'denied' || !kv.tokens.has(String(request.headers['x-vault-token']))) return json(403, { errors: ['permission denied'] });
      if (url.pathname === '/v1/auth/token/lookup-self') return json(200, { data: kv.given });
      if (url.pathname === '/v1/auth/token/renew-self') {
        if (!kv.renews) return json(400, { errors: ['lease is not renewable'] });
        kv.renewals++;
        return json(200, { auth: { client_token: request.headers['x-vault-token'], lease_duration: kv.lease, renewable: true } });
      }
      if (url.pathname !== '/v1/secret/data/weir') return json(404, { errors: [] });
      kv.reads++;
      const version = Number(url.searchParams.get('version') ?? kv.versions.length);
      json(200, { data: { data: kv.versions[version - 1], metadata: { version, created_time: new Date(kv.times[version - 1] ?? kv.created).toISOString() } } });
    });
  });
  return kv;
}
const settings = (url: string, now: () => number = Date.now, over: Partial<KvOptions> = {}): KvOptions => ({ address: url, path: 'secret/weir', auth: { kind: 'approle', roleId: 'role', secretId: 'sid' }, timeoutMs: 20_000, overlapMs: 60_000, now, ...over });

/** A vault with a token that was given, and what it warned of. */
function given(kv: Awaited<ReturnType<typeof startKv>>, now: () => number) {
  kv.tokens.add('hvs.given');
  const warnings: string[] = [];
  const vault = openVault({ ...local(), remote: createKvProvider(settings(kv.url, now, { auth: { kind: 'token', token: 'hvs.given' }, warn: (message) => warnings.push(message) })), now });
  return { vault, warnings };
}

test('a token that was given is renewed ahead of its end, as long as it lives, and one that does not expire never', async () => {
  const kv = await startKv();
  let now = Date.now();
  const { vault, warnings } = given(kv, () => now);
  for (let i = 0; i < 6; i++, now += 1_300_000) await vault.refresh();
  expect([kv.renewals, kv.logins, vault.status().available, warnings]).toEqual([2, 0, true, []]);
  kv.given = { ttl: 0, renewable: false };
  const root = given(kv, () => now);
  for (let i = 0; i < 3; i++, now += 9_000_000) await root.vault.refresh();
  expect([kv.renewals, root.warnings, root.vault.status().available]).toEqual([2, [], true]);
});

test('a token that cannot be renewed is told of once, with its end, while it still opens the vault', async () => {
  const kv = await startKv();
  let now = Date.parse('2026-03-01T00:00:00Z');
  kv.renews = false;
  const { vault, warnings } = given(kv, () => now);
  for (let i = 0; i < 5; i++, now += 700_000) await vault.refresh();
  expect(warnings).toEqual([expect.stringMatching(/ends at 2026-03-01T01:00:\d\d\.\d{3}Z and cannot be renewed: answered 400$/)]);
  expect(warnings.join()).not.toContain('hvs.given');
  expect(vault.status().available).toBe(true);
  kv.tokens.clear();
  await vault.refresh();
  expect(vault.status().available).toBe(false);
  kv.given = { ttl: 1800, renewable: false };
  const fixed = given(kv, () => now);
  await fixed.vault.refresh();
  expect(fixed.warnings).toEqual([expect.stringContaining('it is not renewable')]);
});

test('KV v2 by AppRole: read, rotate with overlap, renewed lease, a new login after 403', async () => {
  const kv = await startKv();
  let now = Date.now();
  const vault = openVault({ ...local(), remote: createKvProvider(settings(kv.url, () => now)), now: () => now });
  expect(() => vault.get('CRM')).toThrow(expect.objectContaining({ code: 'secret-unavailable' }));
  let changes = 0;
  vault.onChange(() => { changes++; });
  await Promise.all([vault.refresh(), vault.refresh(), vault.refresh()]);
  expect([vault.get('CRM').reveal(), kv.logins, kv.reads, changes]).toEqual(['one', 1, 1, 1]);
  kv.versions.push({ CRM: 'two' });
  kv.created = now;
  await vault.refresh();
  expect([vault.get('CRM').reveal(), vault.previous('CRM')?.reveal(), changes]).toEqual(['two', 'one', 2]);
  now += 2_500_000;
  await vault.refresh();
  expect([kv.logins, kv.renewals, vault.previous('CRM')]).toEqual([1, 1, undefined]);
  kv.tokens.clear();
  await vault.refresh();
  expect([kv.logins, vault.status().available]).toEqual([2, true]);
});

test('KV v2: the value before a rotation is accepted for its whole overlap, whatever other fields are written meanwhile', async () => {
  const kv = await startKv();
  const began = Date.now();
  let now = began + 59_000;
  kv.versions = [{ CRM: 'one', ADS: 'x' }, { CRM: 'two', ADS: 'x' }, { CRM: 'two', ADS: 'y' }];
  kv.times = [began - 1000, began, began + 30_000];
  const vault = openVault({ ...local(), remote: createKvProvider(settings(kv.url, () => now)), now: () => now });
  await vault.refresh();
  expect([vault.previous('CRM')?.reveal(), vault.previous('ADS')?.reveal()]).toEqual(['one', 'x']);
  now = began + 60_000;
  await vault.refresh();
  expect([vault.previous('CRM'), vault.previous('ADS')?.reveal()]).toEqual([undefined, 'x']);
});

test.each(['sealed', 'slow', 'denied', 'garbage', 'huge'] as const)('a vault that is %s: what was read serves until it is stale, then it is unavailable, and it heals alone', async (mode) => {
  const kv = await startKv();
  let now = Date.now();
  const vault = openVault({ ...local(), remote: createKvProvider(settings(kv.url, () => now, mode === 'slow' ? { timeoutMs: 2000 } : {})), maxStaleMs: 10_000, now: () => now });
  await vault.refresh();
  kv.mode = mode;
  await vault.refresh();
  expect(vault.status()).toMatchObject({ available: false, since: now });
  expect(JSON.stringify(vault.status())).not.toMatch(/one|hvs\.|sid/);
  expect(vault.get('CRM').reveal()).toBe('one');
  now += 10_001;
  expect(() => vault.get('CRM')).toThrow(expect.objectContaining({ code: 'secret-unavailable' }));
  kv.mode = 'ok';
  await vault.refresh();
  expect(vault.status()).toEqual({ available: true });
  expect(vault.get('CRM').reveal()).toBe('one');
});

/** oidc-provider, a certified server: client credentials that live `ttl` seconds. */
async function startTokenServer(ttl: number) {
  const seen = { requests: 0, broken: false };
  let handler: (request: IncomingMessage, response: ServerResponse) => void = () => {};
  const url = await listen((request, response) => {
    seen.requests++;
    if (seen.broken) return void response.writeHead(400).end(JSON.stringify({ error: 'invalid_client', error_description: 'bad secret s3cr3t-of-the-client' }));
    handler(request, response);
  });
  const provider = new Provider(url, { clients: [{ client_id: 'weir', client_secret: 's3cr3t-of-the-client', grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: 'contacts' }], scopes: ['contacts'], features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } }, ttl: { ClientCredentials: ttl } } as never);
  handler = provider.callback();
  return { seen, tokenUrl: `${url}/token` };
}

test('client credentials against a real server: one request for many callers, refreshed ahead, nothing of a refusal is repeated', async () => {
  const { seen, tokenUrl } = await startTokenServer(100);
  let now = Date.now();
  setSecret(local(), 'CRM', JSON.stringify({ type: 'oauth2', tokenUrl, clientId: 'weir', clientSecret: 's3cr3t-of-the-client', scope: 'contacts' }), 0, now, leaf);
  const vault = openVault({ ...local(), now: () => now });
  expect(() => vault.get('CRM')).toThrow(expect.objectContaining({ code: 'secret-unavailable' }));
  await Promise.all(Array.from({ length: 20 }, () => vault.refresh()));
  const first = vault.get('CRM').reveal();
  expect(first).not.toContain('oauth2');
  expect(seen.requests).toBe(1);
  now += 79_000;
  await vault.refresh();
  expect(seen.requests).toBe(1);
  now += 2000;
  await vault.refresh();
  expect(vault.get('CRM').reveal()).not.toBe(first);
  expect(seen.requests).toBe(2);
  seen.broken = true;
  now += 200_000;
  await vault.refresh();
  expect(() => vault.get('CRM')).toThrow(/invalid_client/);
  expect(vault.status().reason).not.toContain('s3cr3t');
});

test('what looks like an OAuth2 client and is none is told by its name, quotes nothing, and never stands for itself', () => {
  const client = { type: 'oauth2', tokenUrl: 'https://id.example/token', clientId: 'c', clientSecret: 's3cr3t' };
  const text = JSON.stringify(client);
  const got = (value: string) => () => openVault({ dataDir, env: { WEIR_SECRET_CRM: value } }).get('CRM').reveal();
  const { type: _type, ...typeless } = client;
  for (const wrong of [
    text.slice(0, -1), `${text},`, text.replaceAll('"', "'"), JSON.stringify(typeless), JSON.stringify({ ...client, type: 'OAuth2' }), JSON.stringify({ ...client, type: 'client_credentials' }), JSON.stringify({ ...client, clientId: '' }),
    JSON.stringify({ client_id: 'c', client_secret: 's3cr3t' }), JSON.stringify({ token_url: 'https://id.example/token', secret: 's3cr3t' }), `\n ${JSON.stringify({ installed: { client_secret: 's3cr3t' } })}\n`, `\ufeff${text.slice(0, -1)}`,
  ]) {
    expect(got(wrong), wrong).toThrow(expect.objectContaining({ code: 'config-invalid', message: expect.stringMatching(/^(?!.*s3cr3t)secret CRM: /s) }));
  }
  // A client, whatever stands around it; it has no token yet.
  for (const right of [text, `\n ${text}\n`, `\ufeff${text}`]) expect(got(right)).toThrow(expect.objectContaining({ code: 'secret-unavailable' }));
  for (const ordinary of ['{', '{"a":1}', '{clientless}', 'x{"clientSecret":1}', '{"type":"service_account","private_key":"k"}']) expect(got(ordinary)()).toBe(ordinary);
});

test('a client that was set wrong takes no token from the others, and heals when it is set right', async () => {
  const { tokenUrl } = await startTokenServer(100);
  const text = JSON.stringify({ type: 'oauth2', tokenUrl, clientId: 'weir', clientSecret: 's3cr3t-of-the-client', scope: 'contacts' });
  let now = Date.now();
  const env: Record<string, string> = { WEIR_SECRET_CRM: text, WEIR_SECRET_ADS: text };
  const vault = openVault({ dataDir, env, now: () => now });
  for (const name of ['CRM', 'ADS']) expect(() => vault.get(name)).toThrow(/cannot be had/);
  await vault.refresh();
  env['WEIR_SECRET_CRM'] = text.slice(0, -1);
  now += 101_000;
  await vault.refresh();
  expect(vault.get('ADS').reveal()).not.toBe('');
  expect(() => vault.get('CRM')).toThrow(expect.objectContaining({ code: 'config-invalid' }));
  expect(vault.status()).toMatchObject({ available: false, reason: expect.stringMatching(/^(?!.*s3cr3t)secret CRM: /s) });
  env['WEIR_SECRET_CRM'] = text;
  await vault.refresh();
  expect([vault.get('CRM').reveal() !== '', vault.status()]).toEqual([true, { available: true }]);
});

/** A token server that puts another refresh token in place of each that it is given, and takes each once. */
async function startRotating() {
  const given: string[] = [];
  const tokenUrl = await listen((request, response) => {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      const token = new URLSearchParams(body).get('refresh_token')!;
      if (token !== `refresh-${given.length}`) return void response.writeHead(400).end(JSON.stringify({ error: 'invalid_grant' }));
      given.push(token);
      response.writeHead(200).end(JSON.stringify({ access_token: `a${given.length}`, refresh_token: `refresh-${given.length}`, expires_in: 10 }));
    });
  });
  return { given, text: JSON.stringify({ type: 'oauth2', tokenUrl, clientId: 'c', clientSecret: 's', refreshToken: 'refresh-0' }) };
}

test.each(['the sealed file', 'the environment', 'the remote provider'] as const)('a refresh token that the server replaces is sealed before the access token is used: one that was given by %s', async (where) => {
  const { given, text } = await startRotating();
  let now = Date.now();
  if (where === 'the sealed file') setSecret(local(), 'CRM', text, 0, now, leaf);
  const open = () => openVault({
    dataDir, env: where === 'the environment' ? { WEIR_SECRET_CRM: text } : {}, now: () => now,
    ...(where === 'the remote provider' ? { remote: { read: async () => new Map([['CRM', { value: text }]]) } } : {}),
  });
  const vault = open();
  await vault.refresh();
  expect(() => vault.get('CRM')).toThrow(/cannot be had/);
  await vault.refresh();
  expect(vault.get('CRM').reveal()).toBe('a1');
  now += 9000;
  await vault.refresh();
  expect(vault.get('CRM').reveal()).toBe('a2');
  // A process that starts now goes on with the last one, and the first keeps the access token that it has.
  const other = open();
  await other.refresh();
  expect(() => other.get('CRM')).toThrow(/cannot be had/);
  await other.refresh();
  expect([other.get('CRM').reveal(), vault.get('CRM').reveal()]).toEqual(['a3', 'a2']);
  now += 9000;
  await vault.refresh();
  expect(vault.get('CRM').reveal()).toBe('a4');
  expect(given).toEqual(['refresh-0', 'refresh-1', 'refresh-2', 'refresh-3']);
  expect(readFileSync(join(dataDir, 'secrets.sealed.json'), 'utf8')).not.toContain('refresh-4');
});

test('two hosts that were given one refresh token that rotates: the second is refused, and is told what that may be', async () => {
  const { text } = await startRotating();
  const hosts = ['a', 'b'].map((name) => openVault({ dataDir: join(dataDir, name), env: { WEIR_SECRET_CRM: text, WEIR_KEY: Buffer.alloc(32, 1).toString('base64url') } }));
  for (const vault of hosts) {
    mkdirSync(join(dataDir, vault === hosts[0] ? 'a' : 'b'), { recursive: true });
    await vault.refresh();
    expect(() => vault.get('CRM')).toThrow(/cannot be had/);
    await vault.refresh();
  }
  expect(hosts[0]!.get('CRM').reveal()).toBe('a1');
  expect(() => hosts[1]!.get('CRM')).toThrow(/invalid_grant.*used by somebody else: one that the server replaces serves the processes of one data folder only/);
});

test('the answer to a client that was replaced meanwhile takes no refresh token from its successor; what was kept of it goes in two days, or with the secret', async () => {
  const given: string[] = [];
  const slow = Promise.withResolvers<void>();
  // Takes each refresh token once; the first that it is given it thinks over.
  const tokenUrl = await listen((request, response) => {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      const token = new URLSearchParams(body).get('refresh_token')!;
      if (given.includes(token)) return void response.writeHead(400).end(JSON.stringify({ error: 'invalid_grant' }));
      const [client, n] = token.split('-') as [string, string];
      void (given.push(token) === 1 ? slow.promise : Promise.resolve()).then(() => response.writeHead(200).end(JSON.stringify({ access_token: `by ${token}`, refresh_token: `${client}-${Number(n) + 1}`, expires_in: 10 })));
    });
  });
  let now = Date.now();
  const set = (client: string): void => setSecret(local(), 'CRM', JSON.stringify({ type: 'oauth2', tokenUrl, clientId: client, clientSecret: 's', refreshToken: `${client}-0` }), 0, now, leaf);
  const [first, second] = [0, 1].map(() => openVault({ ...local(), now: () => now })) as [Vault, Vault];
  set('a');
  expect(() => first.get('CRM')).toThrow(/cannot be had/);
  const answered = first.refresh();
  await expect.poll(() => given).toEqual(['a-0']);
  set('b');
  expect(() => second.get('CRM')).toThrow(/cannot be had/);
  await second.refresh();
  expect(second.get('CRM').reveal()).toBe('by b-0');
  slow.resolve();
  await answered;
  expect([first.get('CRM').reveal(), given]).toEqual(['by b-1', ['a-0', 'b-0', 'b-1']]);
  const kept = (): number => Object.keys(loadSecrets(local())).filter((name) => name.startsWith('CRM#refreshed/')).length;
  const counts = [kept()];
  for (const days of [1, 2]) {
    now += days * 86_400_000;
    set('b');
    counts.push(kept());
  }
  removeSecret(local(), 'CRM', leaf);
  expect([...counts, kept()]).toEqual([2, 2, 1, 0]);
});

test('a replaced refresh token that cannot be kept is told and kept later; the access token serves meanwhile', async () => {
  const { given, text } = await startRotating();
  const options = { dataDir, env: { WEIR_SECRET_CRM: text } };
  const inTheWay = join(dataDir, `secrets.sealed.json.${process.pid}.part`);
  mkdirSync(inTheWay);
  const vault = openVault(options);
  expect(() => vault.get('CRM')).toThrow(/cannot be had/);
  await vault.refresh();
  expect(vault.get('CRM').reveal()).toBe('a1');
  expect(vault.status()).toMatchObject({ available: false, reason: 'oauth2 token for CRM: the new refresh token cannot be kept (EISDIR)' });
  rmdirSync(inTheWay);
  await vault.refresh();
  expect(vault.status()).toEqual({ available: true });
  const next = openVault(options);
  expect(() => next.get('CRM')).toThrow(/cannot be had/);
  await next.refresh();
  expect([next.get('CRM').reveal(), given]).toEqual(['a2', ['refresh-0', 'refresh-1']]);
});
