import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { afterEach, expect, test } from 'vitest';
import { createTransit, openTransit, Secret, startVault, unwrapWorkspaceKey, type VaultSettings } from './index.ts';

const servers: Server[] = [];
afterEach(() => { for (const server of servers.splice(0)) { server.closeAllConnections(); server.close(); } });

/** Speaks what the HTTP API documentation of Transit and AppRole says; its keys are real ones (AES-256-GCM). */
async function startTransit() {
  const engine = { keys: [randomBytes(32)], mode: 'ok' as 'ok' | 'sealed' | 'slow', token: '', logins: 0, seen: [] as string[], url: '' };
  const server = createServer((request, response) => {
    const json = (status: number, body: unknown): void => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)); };
    let text = '';
    request.on('data', (part) => { text += part; });
    request.on('end', () => {
      if (engine.mode === 'slow') return;
      if (engine.mode === 'sealed') return json(503, { errors: ['Vault is sealed'] });
      engine.seen.push(`${request.method} ${request.url}`);
      const body = JSON.parse(text);
      if (request.url === '/v1/auth/approle/login') {
        engine.logins++;
        engine.token = `hvs.${engine.logins}`;
        return json(200, { auth: { client_token: engine.token, lease_duration: 3600, renewable: true } });
      }
      if (request.headers['x-vault-token'] !== engine.token) return json(403, { errors: ['permission denied'] });
      if (request.url === '/v1/transit/encrypt/weir') {
        const nonce = randomBytes(12);
        const cipher = createCipheriv('aes-256-gcm', engine.keys.at(-1)!, nonce);
        const out = Buffer.concat([nonce, cipher.update(Buffer.from(body.plaintext, 'base64')), cipher.final()]);
        return json(200, { data: { ciphertext: `vault:v${engine.keys.length}:${Buffer.concat([out, cipher.getAuthTag()]).toString('base64')}` } });
      }
      if (request.url !== '/v1/transit/decrypt/weir') return json(404, { errors: [] });
      const [, version, data] = /^vault:v(\d+):(.+)$/.exec(body.ciphertext)!;
      const bytes = Buffer.from(data!, 'base64');
      try {
        const plain = createDecipheriv('aes-256-gcm', engine.keys[Number(version) - 1]!, bytes.subarray(0, 12)).setAuthTag(bytes.subarray(-16));
        return json(200, { data: { plaintext: Buffer.concat([plain.update(bytes.subarray(12, -16)), plain.final()]).toString('base64') } });
      } catch {
        return json(400, { errors: ['cipher: message authentication failed'] });
      }
    });
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  engine.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return engine;
}
const settings = (url: string | undefined, over: Partial<VaultSettings> = {}): VaultSettings => ({ vaultAddr: url, vaultAllowHttp: false, vaultPath: 'secret/weir', vaultNamespace: undefined, vaultToken: undefined, vaultRoleId: 'role', vaultSecretId: new Secret('sid'), vaultTimeoutMs: 1000, vaultRefreshMs: 1000, vaultMaxStaleMs: 1000, vaultOverlapMs: 0, vaultTransitKey: 'transit/weir', ...over });
const transitOf = (url: string, key = 'transit/weir') => createTransit({ address: url, auth: { kind: 'approle', roleId: 'role', secretId: 'sid' }, timeoutMs: 1000, now: Date.now, key });

test('a workspace key wrapped by Transit is opened, also after the key was rotated there, and by a new login after 403', async () => {
  const engine = await startTransit();
  const key = randomBytes(32);
  const transit = transitOf(engine.url);
  const wrapped = await transit.encrypt(key);
  expect(wrapped).toMatch(/^vault:v1:/);
  expect(wrapped).not.toContain(key.toString('base64'));
  engine.keys.push(randomBytes(32));
  expect(await unwrapWorkspaceKey(wrapped, settings(engine.url))).toBe(key.toString('base64url'));
  expect(await transit.encrypt(key)).toMatch(/^vault:v2:/);
  engine.token = 'revoked';
  expect(await transit.decrypt(wrapped)).toEqual(key);
});

test('a key that is not wrapped is taken as it is, without a vault; a wrapped one without a vault is refused', async () => {
  expect(await unwrapWorkspaceKey('plain', settings(undefined))).toBe('plain');
  expect(await unwrapWorkspaceKey(undefined, settings(undefined))).toBeUndefined();
  await expect(unwrapWorkspaceKey('vault:v1:AAAA', settings(undefined))).rejects.toMatchObject({ code: 'config-invalid', message: expect.stringContaining('WEIR_VAULT_ADDR') });
});

test('a changed or foreign wrapped key is refused at once, and nothing of it is repeated', async () => {
  const engine = await startTransit();
  const wrapped = await transitOf(engine.url).encrypt(randomBytes(32));
  const changed = wrapped.slice(0, -6) + (wrapped.at(-6) === 'A' ? 'B' : 'A') + wrapped.slice(-5);
  const error = await unwrapWorkspaceKey(changed, settings(engine.url)).catch((e: Error) => e);
  expect(error).toMatchObject({ code: 'config-invalid' });
  expect((error as Error).message).not.toContain(changed.slice(10));
  for (const bad of ['vault:v1:', 'vault:vx:AAAA', `vault:v1:${'A'.repeat(3000)}`, 'vault:v1:AA AA']) await expect(unwrapWorkspaceKey(bad, settings(engine.url))).rejects.toMatchObject({ code: 'config-invalid' });
  for (const key of ['../sys/seal', 'weir', 'transit/', 'transit/..', 'transit/a?b', '/weir']) expect(() => transitOf(engine.url, key)).toThrow(/expected <mount>/);
});

test('a vault that is sealed or slow is waited for, and then the key is opened', async () => {
  const engine = await startTransit();
  const key = randomBytes(32);
  const wrapped = await transitOf(engine.url).encrypt(key);
  engine.mode = 'sealed';
  const opened = unwrapWorkspaceKey(wrapped, settings(engine.url), 30_000);
  engine.mode = 'ok';
  expect(await opened).toBe(key.toString('base64url'));
  engine.mode = 'slow';
  await expect(unwrapWorkspaceKey(wrapped, settings(engine.url, { vaultTimeoutMs: 100 }), 300)).rejects.toMatchObject({ code: 'secret-unavailable' });
});

test('a vault that would be sent its credentials in the clear is refused before it is, unless that is asked for', async () => {
  for (const address of ['http://vault.example:8200', 'http://10.0.0.7:8200', 'http://127.0.0.1.example:8200', 'ftp://127.0.0.1/', 'vault.example:8200', 'nothing']) {
    expect(() => openTransit(settings(address))).toThrow(/must be an https URL/);
  }
  for (const address of ['https://vault.example:8200', 'http://127.0.0.1:8200', 'http://localhost:8200', 'http://[::1]:8200']) expect(() => openTransit(settings(address))).not.toThrow();
  expect(() => openTransit(settings('http://vault.example:8200', { vaultAllowHttp: true }))).not.toThrow();
  expect(() => openTransit(settings('nothing', { vaultAllowHttp: true }))).toThrow(/must be an https URL/);
  await expect(startVault({ dataDir: tmpdir(), env: {}, settings: settings('http://vault.example:8200'), logger: { info() {}, warn() {} } })).rejects.toMatchObject({ code: 'config-invalid' });
});
