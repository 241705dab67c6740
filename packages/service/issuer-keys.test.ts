import { createServer, type Server, type ServerResponse } from 'node:http';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createAuthenticate } from './authenticate.ts';
import { createIssuerKeys } from './issuer-keys.ts';

const { privateKey, publicKey } = await generateKeyPair('RS256');
let server: Server;
let issuer: string;
let asked: string[] = [];
let now = Date.parse('2026-03-01T00:00:00Z');
let answers: Record<string, (response: ServerResponse) => void> = {};

const json = (value: unknown, status = 200) => (response: ServerResponse): void => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value)); };
const discovery = '/.well-known/openid-configuration';
const metadata = (changes: object = {}) => json({ issuer, jwks_uri: `${issuer}/keys`, ...changes });

beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(request.url!);
    (answers[request.url!] ?? json({}, 404))(response);
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  issuer = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(async () => {
  asked = [];
  answers = { [discovery]: metadata(), '/keys': json({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'RS256' }] }) };
});

const signed = (kid = 'k1') => new SignJWT({ iss: issuer, aud: 'weir', sub: 's', exp: Math.floor(now / 1000) + 60 }).setProtectedHeader({ alg: 'RS256', typ: 'at+jwt', kid }).sign(privateKey);
const create = () => createAuthenticate({ adminToken: () => 'the-admin-token', principalOf: () => undefined, oidc: { issuer, audience: 'weir', tokenType: 'at+jwt', rolesClaim: 'weir_roles' }, now: () => now });
const codeOf = async (result: Promise<unknown>): Promise<unknown> => result.then(() => 'ok', (error: { code?: unknown }) => error.code);

test('a good issuer is asked once for its document and once for its keys, whoever comes at the same time', async () => {
  const authenticate = create();
  const bearer = `Bearer ${await signed()}`;
  expect(await Promise.all(Array.from({ length: 20 }, () => codeOf(authenticate(bearer))))).toEqual(Array.from({ length: 20 }, () => 'ok'));
  expect(asked).toEqual([discovery, '/keys']);
});

const huge = (response: ServerResponse): void => {
  response.writeHead(200, { 'content-type': 'application/json' });
  const part = Buffer.alloc(64 * 1024, ' ');
  const more = (): void => { while (!response.destroyed && response.write(part)); if (!response.destroyed) response.once('drain', more); };
  more();
};
test.each<[string, string, () => (response: ServerResponse) => void]>([
  ['a document without an end', discovery, () => huge],
  ['another issuer', discovery, () => metadata({ issuer: 'https://other.example' })],
  ['keys over http elsewhere', discovery, () => metadata({ jwks_uri: 'http://192.0.2.1/keys' })],
  ['keys in a file', discovery, () => metadata({ jwks_uri: 'file:///etc/passwd' })],
  ['no address of keys', discovery, () => metadata({ jwks_uri: undefined })],
  ['a redirect of the document', discovery, () => (response) => { response.writeHead(302, { location: `${issuer}/elsewhere` }).end(); }],
  ['null', discovery, () => json(null)],
  ['no JSON', discovery, () => (response) => { response.end('<html>'); }],
  ['500', discovery, () => json({}, 500)],
  ['keys without an end', '/keys', () => huge],
  ['a redirect of the keys', '/keys', () => (response) => { response.writeHead(302, { location: `${issuer}/elsewhere` }).end(); }],
  ['keys that are no JSON', '/keys', () => (response) => { response.end('<html>'); }],
  ['keys that are no set', '/keys', () => json({ keys: 'none' })],
  ['keys with 503', '/keys', () => json({}, 503)],
])('%s: 503 for every token, one fetch, and again after the pause', async (_name, path, answer) => {
  const good = answers[path]!;
  answers[path] = answer();
  const authenticate = create();
  const bearer = `Bearer ${await signed()}`;
  const codes = [...(await Promise.all(Array.from({ length: 10 }, () => codeOf(authenticate(bearer))))), await codeOf(authenticate('Bearer a.b.c')), await codeOf(authenticate(bearer))];
  expect([...new Set(codes.filter((_, i) => i !== 10))]).toEqual(['issuer-unavailable']);
  expect(asked).toEqual(path === discovery ? [discovery] : [discovery, '/keys']);
  now += 4999;
  expect(await codeOf(authenticate(bearer))).toBe('issuer-unavailable');
  answers[path] = good;
  now += 1;
  expect(await codeOf(authenticate(`Bearer ${await signed()}`))).toBe('ok');
});

test('a key id that nobody knows does not have the keys fetched for each token, also while they cannot be', async () => {
  const authenticate = create();
  expect(await codeOf(authenticate(`Bearer ${await signed()}`))).toBe('ok');
  answers['/keys'] = json({}, 503);
  for (let i = 0; i < 5; i++) expect(await codeOf(authenticate(`Bearer ${await signed('other')}`))).toMatch(/unauthorized|issuer-unavailable/);
  expect(asked.filter((url) => url === '/keys').length).toBeLessThanOrEqual(2);
  expect(await codeOf(authenticate(`Bearer ${await signed()}`))).toBe('ok');
});

test('a body that never ends in time is given up', async () => {
  answers[discovery] = (response) => { response.writeHead(200, { 'content-type': 'application/json' }).write('{'); };
  const keys = createIssuerKeys({ issuer, timeoutMs: 50, now: () => now });
  await expect(keys()).rejects.toThrow(/not within 50 ms/);
});

test('a clock that is set back does not make the pause longer', async () => {
  answers[discovery] = json({}, 500);
  const authenticate = create();
  const bearer = `Bearer ${await signed()}`;
  expect(await codeOf(authenticate(bearer))).toBe('issuer-unavailable');
  answers[discovery] = metadata();
  now -= 3_600_000;
  expect(await codeOf(authenticate(bearer))).toBe('ok');
});

test('an issuer over http elsewhere is refused at the start', () => {
  expect(() => createIssuerKeys({ issuer: 'http://issuer.example', timeoutMs: 50, now: () => now })).toThrow(/https/);
});
