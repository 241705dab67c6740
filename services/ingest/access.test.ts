import { createHash } from 'node:crypto';
import { grantText, parseGrant, roleNames, roles, type StoredToken } from '@weir/release';
import { object, text } from '@weir/service';
import type { FastifyInstance } from 'fastify';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { hold } from '../../tests/setup/answers.ts';
import { createBudget } from './budget.ts';
import { openConsentAccess, type ConsentAccess } from './consent-access.ts';
import { registerConsent } from './consent-routes.ts';
import { createMetrics } from './metrics.ts';
import { registerRoutes } from './routes.ts';
import { createServer } from './server.ts';

const token = `weir_${'a'.repeat(43)}`;
/** Routes that a Bearer token opens, with the permission that it needs. A new route must be added here or below. */
const byToken: Readonly<Record<string, string>> = { 'POST /v1/consent': 'consent.write' };
const body: Readonly<Record<string, object>> = { 'POST /v1/consent': { identifiers: { email: 'ann@larkspur.example' }, purpose: 'news', state: 'withdrawn' } };
/** Routes whose callers sign, or give the key of their source: no role opens them. */
const bySource = ['POST /webhooks/:source', 'OPTIONS /v1/*', ...['identify', 'track', 'page', 'screen', 'group', 'alias', 'batch', 'import'].map((type) => `POST /v1/${type}`)];

let app: FastifyInstance;
let access: ConsentAccess;
let tell: (stored: StoredToken) => Promise<void>;
let recorded = 0;
const budget = createBudget(1e6);
let waits = Promise.withResolvers<'applied'>();
let waitingNow = 0;
const routes: string[] = [];
/** Of answers that are not as their route declares them. */
const problems: string[] = [];

beforeAll(async () => {
  let follow: (batch: never) => Promise<void> = async () => {};
  const reader = { read: async () => {}, follow: async (_topic: string, _from: unknown, take: (batch: never) => Promise<void>) => { follow = take; return { close: async () => {} }; } };
  access = await openConsentAccess({ reader: reader as never, admin: { endOffsets: async () => new Map() }, serde: { prepare: async () => {}, decode: (value: unknown) => ({ name: 'weir.internal.ApiToken', value }) } as never, topic: 'weir.control', now: () => 1000, adminToken: () => 'the-admin-token', fail: (error) => { throw error; } });
  tell = (value) => follow({ records: [{ key: Buffer.from(`token/${value.id}`), value }] } as never);
  app = createServer({ requestTimeoutMs: 1000, refused: () => {} });
  hold(app, (problem) => problems.push(problem));
  app.addHook('onRoute', ({ method, url }) => { routes.push(...[method].flat().map((one) => `${one} ${url}`)); });
  const common = { budget, metrics: createMetrics(new Registry(), () => 0), refused: () => {} };
  registerRoutes(app, { ...common, sources: () => ({ webhook: () => undefined, waits: () => false, segment: () => undefined, hasSegment: true, segmentWaits: false }) } as never);
  registerConsent(app, {
    ...common, access, intake: async () => { recorded++; return { id: 'evt_x', acceptedAt: 0, offsets: [{ partition: 0, offset: 1 }], ids: [], applied: () => (waitingNow++, waits.promise) }; },
    policy: () => ({ purposes: new Map([['news', {}]]), routes: new Map() }) as never, rate: () => true, monotonic: () => 0, maxWaitMs: 1000,
  });
  await app.ready();
});
afterAll(async () => {
  await app?.close();
  await access?.close();
});

test('a route that does not say what it answers does not start', () => {
  const add = (config: object) => () => createServer({ requestTimeoutMs: 1000, refused: () => {} }).get('/new', { config }, async () => ({}));
  const replies = { 200: object('An answer.', { name: text('A field.') }) };
  for (const config of [{}, { summary: 'A route.' }, { replies }]) expect(add(config)).toThrow(/GET \/new declares no summary and answers/);
  expect(add({ summary: 'A route.', replies })).not.toThrow();
});

test('every route is opened by a token or by its source, and by nothing else', async () => {
  expect(routes.toSorted()).toEqual([...Object.keys(byToken), ...bySource].sort());
  for (const route of Object.keys(byToken)) {
    const [method, url] = route.split(' ') as ['POST', string];
    for (const authorization of [undefined, 'Bearer ', `Bearer ${token}`, `Basic ${Buffer.from('key:').toString('base64')}`]) expect([route, authorization, (await app.inject({ method, url, payload: JSON.stringify(body[route]), headers: authorization === undefined ? {} : { authorization } })).statusCode]).toEqual([route, authorization, 401]);
  }
  for (const route of routes.filter((r) => bySource.includes(r) && r.startsWith('POST'))) {
    const [method, url] = route.split(' ') as ['POST', string];
    expect([route, (await app.inject({ method, url, payload: '{}', headers: { authorization: 'Bearer the-admin-token' } })).statusCode]).toEqual([route, expect.toSatisfy((status: number) => status === 401 || status === 404)]);
  }
  expect(recorded).toBe(0);
});

test('routes × roles × scopes × states: a no of any scope is recorded, and what may open a person at every destination only by a grant over everything', async () => {
  for (const [route, permission] of Object.entries(byToken)) {
    const [method, url] = route.split(' ') as ['POST', string];
    for (const role of roleNames) {
      for (const scope of ['', '@*:*', '@shop:*', '@*:crm', '@shop:crm', '@consent-api:crm/news']) {
        const grant = parseGrant(role + scope);
        await tell({ id: 'tok_a', name: 'a', hash: createHash('sha256').update(token).digest('hex'), grants: [grantText(grant)], createdAt: 0, createdBy: 'admin', expiresAt: 2000, revokedAt: null, leaf: 'leaf_x' });
        for (const state of ['withdrawn', 'denied', 'granted', 'unknown']) {
          recorded = 0;
          const { statusCode } = await app.inject({ method, url, payload: JSON.stringify({ ...body[route], state }), headers: { authorization: `Bearer ${token}` } });
          const allowed = (roles[role] as readonly string[]).includes(permission) && (state === 'withdrawn' || state === 'denied' || (grant.sources === '*' && grant.destinations === '*'));
          expect([route, role + scope, state, statusCode, recorded]).toEqual([route, role + scope, state, ...(allowed ? [202, 1] : [403, 0])]);
        }
      }
    }
  }
});

test('who waits for a change to be applied holds an eighth of what was held to take it in', async () => {
  waits = Promise.withResolvers();
  const answers = Array.from({ length: 20 }, () => app.inject({ method: 'POST', url: '/v1/consent?wait=applied', payload: JSON.stringify({ ...body['POST /v1/consent'], state: 'withdrawn' }), headers: { authorization: 'Bearer the-admin-token' } }));
  await vi.waitFor(() => expect(waitingNow).toBe(20));
  expect(budget.used()).toBe(20 * 4096);
  waits.resolve('applied');
  expect((await Promise.all(answers)).map(({ statusCode }) => statusCode)).toEqual(Array(20).fill(200));
  expect(budget.used()).toBe(0);
});

test('what was answered here is what the routes declare', () => {
  expect(problems).toEqual([]);
});
