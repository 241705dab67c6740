import { createServer as createHttp, type Server, type ServerResponse } from 'node:http';
import { WeirError } from '@weir/errors';
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import type { FastifyInstance } from 'fastify';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createBudget } from './budget.ts';
import { openConsentAccess, type ConsentAccess } from './consent-access.ts';
import type { ConsentContext } from './consent-intake.ts';
import { registerConsent } from './consent-routes.ts';
import { createMetrics } from './metrics.ts';
import type { Refusal } from './refusals.ts';
import { createServer } from './server.ts';

const now = Date.parse('2026-03-01T00:00:00Z');
const { privateKey, publicKey } = await generateKeyPair('RS256');
const stranger = await generateKeyPair('RS256');
const budget = createBudget(1e6);
let issuer: string;
let server: Server;
let app: FastifyInstance;
let access: ConsentAccess;
let recorded: ConsentContext[];
let refusals: Refusal[];
/** What the issuer answers with instead of its documents. */
let trouble: ((response: ServerResponse) => void) | undefined;
let adminToken: () => string;

async function openApp(): Promise<void> {
  await app?.close();
  const reader = { read: async () => undefined, follow: async () => ({ close: async () => undefined }) };
  access = await openConsentAccess({ reader: reader as never, admin: { endOffsets: async () => new Map() }, serde: {} as never, topic: 'weir.control', now: () => now, adminToken: () => adminToken(), oidc: { issuer, audience: 'weir', tokenType: 'at+jwt', rolesClaim: 'weir_roles' }, fail: (error) => { throw error; } });
  app = createServer({ requestTimeoutMs: 1000, refused: () => undefined });
  registerConsent(app, {
    access, budget, metrics: createMetrics(new Registry(), () => 0), refused: (refusal) => refusals.push(refusal), intake: async (_order, context) => { recorded.push(context); return { id: 'evt_x', acceptedAt: 0, offsets: [{ partition: 0, offset: 1 }], ids: [], applied: async () => 'applied' }; },
    policy: () => ({ purposes: new Map([['news', {}]]), routes: new Map() }) as never, rate: () => true, monotonic: () => 0, maxWaitMs: 1000,
  });
}
beforeAll(async () => {
  const jwk = { ...(await exportJWK(publicKey)), kid: 'k1', alg: 'RS256' };
  server = createHttp((request, response) => {
    if (trouble !== undefined) return trouble(response);
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(request.url === '/keys' ? { keys: [jwk] } : { issuer, jwks_uri: `${issuer}/keys` }));
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  issuer = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
});
beforeEach(async () => {
  [recorded, refusals, trouble, adminToken] = [[], [], undefined, () => 'the-admin-token'];
  await openApp();
});
afterAll(async () => {
  await app?.close();
  server.closeAllConnections();
  server.close();
});

const claims = (more: object = {}) => ({ weir_roles: ['privacy'], iss: issuer, aud: 'weir', sub: 'dpo', exp: Math.floor(now / 1000) + 60, ...more });
const jwt = (more: object = {}, header: object = {}, key = privateKey) => new SignJWT(claims(more)).setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: 'at+jwt', ...header } as { alg: string }).sign(key);
const say = async (token: string, state = 'withdrawn'): Promise<number> => (await app.inject({ method: 'POST', url: '/v1/consent?wait=applied', payload: JSON.stringify({ identifiers: { email: 'ann@larkspur.example' }, purpose: 'news', state }), headers: { authorization: `Bearer ${token}` } })).statusCode;

test('who signs in by OIDC stops a person, and stands on the change by his name', async () => {
  expect(await say(await jwt())).toBe(200);
  expect(recorded).toMatchObject([{ actor: 'oidc:dpo' }]);
});

test('roles and scopes count as those of an API token', async () => {
  for (const [roles, no, yes] of [[['privacy'], 200, 200], [['consent'], 200, 200], [['privacy@shop:crm'], 200, 403], [['viewer', 'operator', 'agent'], 403, 403], [['a-role-of-another-application'], 403, 403], ['privacy', 403, 403], [undefined, 403, 403]] as const) {
    const token = await jwt({ weir_roles: roles });
    expect([roles, await say(token), await say(token, 'granted')]).toEqual([roles, no, yes]);
  }
});

test('tokens that are none: 401, and nothing is recorded', async () => {
  const [head, body, signature] = (await jwt()).split('.') as [string, string, string];
  const cases: Record<string, string> = {
    'alg none': new UnsecuredJWT(claims()).encode(), 'alg none with a signature': `${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.${signature}`,
    'public key as HMAC secret': await new SignJWT(claims()).setProtectedHeader({ alg: 'HS256', kid: 'k1', typ: 'at+jwt' }).sign(Buffer.from(JSON.stringify(await exportJWK(publicKey)))),
    'wrong audience': await jwt({ aud: 'https://other.example' }), 'wrong issuer': await jwt({ iss: 'https://other.example' }), 'expired': await jwt({ exp: Math.floor(now / 1000) - 60 }), 'no expiry': await jwt({ exp: undefined }), 'no subject': await jwt({ sub: undefined }),
    'an ID token': await jwt({}, { typ: 'JWT' }), 'another key': await jwt({}, {}, stranger.privateKey), 'changed body': `${head}.${Buffer.from(JSON.stringify(claims({ sub: 'x' }))).toString('base64url')}.${signature}`, 'no signature': `${head}.${body}.`, 'too long': 'a'.repeat(9000),
  };
  for (const [name, token] of Object.entries(cases)) expect([name, await say(token)]).toEqual([name, 401]);
  expect([recorded, budget.used()]).toEqual([[], 0]);
});

test('an issuer that does not answer: 503 by a code of its own, not that of the log, and the other tokens work', async () => {
  trouble = (response) => { response.writeHead(503).end(); };
  await openApp();
  const answer = await app.inject({ method: 'POST', url: '/v1/consent', payload: '{}', headers: { authorization: `Bearer ${await jwt()}` } });
  expect([answer.statusCode, answer.json().error, answer.headers['retry-after'], refusals.map(({ code }) => code)]).toEqual([503, 'issuer-unavailable', '2', ['issuer-unavailable']]);
  expect(await say('the-admin-token')).toBe(200);
});

test('who signs in stops a person while the admin token cannot be had; who sends none of the tokens is to come again, and learns nothing of the vault', async () => {
  adminToken = () => { throw new WeirError('secret-unavailable', 'vault vault.internal:8200: no answer'); };
  expect(await say(await jwt())).toBe(200);
  const answer = await app.inject({ method: 'POST', url: '/v1/consent', payload: '{}', headers: { authorization: 'Bearer x' } });
  expect([answer.statusCode, answer.json().error, answer.headers['retry-after'], answer.body.includes('vault.internal')]).toEqual([503, 'secret-unavailable', '2', false]);
  expect(recorded).toMatchObject([{ actor: 'oidc:dpo' }]);
});

test('requests that wait for an issuer which hangs hold nothing of what senders share, and one that was cut meanwhile ends', async () => {
  const held: ServerResponse[] = [];
  trouble = (response) => { held.push(response); };
  await openApp();
  await app.listen({ host: '127.0.0.1', port: 0 });
  const url = `http://127.0.0.1:${(app.server.address() as { port: number }).port}/v1/consent`;
  const cut = new AbortController();
  const authorization = `Bearer ${await jwt()}`;
  const asked = fetch(url, { method: 'POST', headers: { authorization }, body: new ReadableStream({ start: (stream) => stream.enqueue(Buffer.from('{')) }), duplex: 'half', signal: cut.signal } as RequestInit).then(() => 'answered', () => 'cut');
  await expect.poll(() => held.length).toBe(1);
  expect(budget.used()).toBe(0);
  cut.abort();
  expect(await asked).toBe('cut');
  await expect.poll(async () => new Promise<number>((done, fail) => { app.server.getConnections((error, count) => (error === null ? done(count) : fail(error))); })).toBe(0);
  trouble = undefined;
  held[0]!.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ issuer, jwks_uri: `${issuer}/keys` }));
  await expect.poll(() => refusals.map(({ code }) => code)).toEqual(['body-malformed']);
  expect(budget.used()).toBe(0);
});
