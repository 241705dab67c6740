import { createServer, type Server } from 'node:http';
import { exportJWK, generateKeyPair, SignJWT, UnsecuredJWT } from 'jose';
import { WeirError } from '@weir/errors';
import { Provider } from 'oidc-provider';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { lintOpenApi } from '../../scripts/openapi.ts';
import { mismatch } from '../../tests/setup/answers.ts';
import { createApi, type ApiPorts } from './api.ts';
import { createNewestEvents } from './subject-events.ts';
import type { NewLeaf } from './audit.ts';
import { createAuthenticate, oidcOptions } from '@weir/service/authenticate';
import { documentReply } from './openapi.ts';
import { object, text } from '@weir/service';
import { allows, allPermissions, everything, nothing, parseGrant, permissions, roleNames, roles, type Grant, type Permission, type Scope } from '@weir/release';

const admin = 'the-admin-token';
const audience = 'https://weir.example';
const keys = await generateKeyPair('RS256', { extractable: true });
const stranger = await generateKeyPair('RS256');
let issuer: string;
let server: Server;
let provider: Provider;
let api: ReturnType<typeof createApi>;
/** What the token of each test may do; null = not a token. */
let granted: readonly Grant[] | null = null;
let leaves: NewLeaf[] = [];
let auditFails = false;
let failing: Error | undefined;
/** Why the admin token cannot be had. */
let adminAway: WeirError | undefined;
let unexpected: [unknown, string][] = [];
let ran: string[] = [];

const erasure = { destinations: [], state: 'ordered', orderedAt: 0, markedAt: null, stoppedAt: null, erasedAt: null, rawUntil: null, readableUntil: null, deadline: null };
const answer = (name: string) => async (): Promise<object> => { ran.push(name); return {}; };
const token = `weir_${'a'.repeat(43)}`;
const replayId = 'rpl_00000000-0000-4000-8000-000000000000';
/** Letters: one of shop → crm, one of blog → news, one of shop that was not routed yet. */
const letters: Record<string, Scope> = { dlq_a: { sources: ['shop'], destinations: ['crm'] }, dlq_b: { sources: ['blog'], destinations: ['news'] }, dlq_c: { sources: ['shop'], destinations: [] } };

beforeAll(async () => {
  server = createServer((request, response) => { void provider.callback()(request, response); });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  issuer = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  const jwk = { ...(await exportJWK(keys.privateKey)), kid: 'k1', alg: 'RS256', use: 'sig' };
  provider = new Provider(issuer, {
    jwks: { keys: [jwk] } as any,
    clients: [{ client_id: 'cli', client_secret: 'cli-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }],
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false }, resourceIndicators: { enabled: true, getResourceServerInfo: (_ctx: unknown, resource: string) => ({ scope: 'weir', audience: resource, accessTokenFormat: 'jwt' as const, accessTokenTTL: 300, jwt: { sign: { alg: 'RS256' as const } } }) } },
    extraTokenClaims: () => ({ weir_roles: ['viewer', 'a-role-of-another-application'] }),
  });
  const adminToken = (): string => { if (adminAway !== undefined) throw adminAway; return admin; };
  const authenticate = createAuthenticate({ adminToken, principalOf: (t) => (t === token && granted !== null ? { id: 'token:t', grants: granted } : undefined), oidc: oidcOptions({ oidcIssuer: issuer, oidcAudience: audience, oidcTokenType: 'at+jwt', oidcRolesClaim: 'weir_roles' }), now: () => Date.now() });
  const subjects = () => ({ summary: answer('subject'), decisions: answer('decisions'), resolve: async () => { ran.push('export'); return { ids: [], onlyGiven: false, leftOut: [] }; }, scan: async () => undefined, scanChanges: async () => undefined, states: () => [], newestEvents: () => createNewestEvents(1), deliveredTo: async () => [], linkValues: async () => [], regions: () => [] });
  const ports = {
    authenticate,
    audit: () => ({
      async record(leaf: NewLeaf) { if (auditFails) throw new Error('no log'); leaves.push(leaf); return 'leaf_x'; },
      checkpoint: answer('checkpoint'), leaves: answer('leaves'), proof: answer('proof'), consistency: answer('consistency'),
    }),
    access: { issue: answer('issue'), revoke: answer('revoke'), tokens: () => [], proposals: () => [], approvable: () => ({ files: [], proposedBy: 'token:other' }), approved: async () => undefined },
    approval: false, endFailed: () => undefined, unexpected: (error: unknown, id: string) => { unexpected.push([error, id]); },
    scopeOf: (_kind: string, id: string) => letters[id] ?? nothing,
    status: answer('status'), trace: answer('trace'), letters: { list: answer('letters'), stats: answer('stats'), show: answer('letter') }, release: answer('release'),
    switches: { list: () => [], set: async () => { if (failing !== undefined) throw failing; ran.push('switch'); return {}; } }, deliveries: { resolve: answer('resolve') },
    subjects, exports: subjects, clock: { setTimer: () => 0, clearTimer: () => undefined },
    erasures: () => ({ order: async () => { ran.push('erase'); return { erasure, joined: false, underWay: [] }; }, list: () => [], get: () => erasure }), wordsKept: async () => null,
    releases: { current: () => ({}), list: async () => [], check: () => ({ hash: 'x' }), apply: async (_order: unknown, _by: unknown, proposedBy: string | null) => { ran.push(`apply ${proposedBy ?? 'alone'}`); return {}; }, topics: answer('topics') },
    replays: { add: answer('order'), list: answer('orders'), view: answer('order'), change: answer('change'), answers: answer('answers'), differences: answer('differences'), letterScope: (id: string) => letters[id] ?? nothing, scope: (id: string) => (id === replayId ? letters['dlq_a'] : everything) },
    policy: { explain: async () => { ran.push('explain'); return { eventId: 'dlq_a', records: ['crm', 'news'].map((destination) => ({ routes: [{ destination }, { destination: 'ads' }] })) }; }, held: { list: async () => ({ held: [], left: 0, next: null }), decide: answer('held') }, rehearsals: { start: answer('rehearse'), get: () => ({}), stop: answer('stop') } },
    consent: { lookup: answer('consent') },
    consentPreview: { preview: () => { ran.push('preview'); return []; } },
    consentReceipts: { ofChange: answer('receipts'), ofPerson: answer('receipts'), settle: answer('settle') },
    tail: answer('tail'), metrics: async () => '', readiness: () => ({ ready: true }),
  } as unknown as ApiPorts;
  api = createApi(ports);
  await api.ready();
});
afterAll(async () => {
  await api?.close();
  server?.closeAllConnections();
  server?.close();
});

const call = (method: string, url: string, authorization?: string, body?: object) => api.inject({ method: method as 'GET', url, headers: authorization === undefined ? {} : { authorization }, ...(body === undefined ? {} : { payload: body }) });
const bodies: Record<string, object> = { 'POST /v1/consent/lookup': { people: [{ email: 'ann@larkspur.example' }] }, 'POST /v1/consent/preview': { changes: [{ order: { identifiers: { email: 'ann@larkspur.example' } } }] }, 'POST /v1/consent/receipts': { identifier: 'ann@larkspur.example' }, 'POST /v1/consent/unresolved/:id/settle': { reason: 'a test' }, 'POST /v1/replays': { from: 'dlq', all: true }, 'POST /v1/deliveries/:id/resolve': { finding: 'applied' }, 'POST /v1/releases': { files: [{ path: 'weir.yaml', content: 'x' }] }, 'POST /v1/rehearsals': { files: [{ path: 'weir.yaml', content: 'x' }], sinceMs: 1000 }, 'POST /v1/tokens': { name: 'x', grants: ['viewer'], days: 1 }, 'POST /v1/vault/changes': { change: 'set', name: 'CRM_TOKEN' }, ...Object.fromEntries(['show', 'decisions', 'export', 'erase'].map((what) => [`POST /v1/subjects/${what}`, { identifier: 'ada@larkspur.example' }])) };
const queries: Record<string, string> = { '/v1/audit/consistency': '?from=0' };
const requests = () => api.declaredRoutes.filter((r) => r.permission !== undefined && r.method !== 'HEAD').map((r) => ({ ...r, path: r.url.replace(':id', r.url.startsWith('/v1/replays') ? replayId : 'dlq_a').replace(':name', 'crm') + (queries[r.url] ?? ''), body: bodies[`${r.method} ${r.url}`] ?? (r.method === 'POST' ? {} : undefined) }));

/** What each route that changes something, or shows a person in the clear, writes to the audit log, written down a second time: a new one must be added here. */
const auditActions: Record<string, string> = {
  'POST /v1/consent/lookup': 'consent.lookup', 'POST /v1/consent/preview': 'consent.preview', 'POST /v1/consent/receipts': 'consent.receipts', 'POST /v1/consent/unresolved/:id/settle': 'consent.settle', 'POST /v1/subjects/show': 'subject.show', 'POST /v1/subjects/decisions': 'subject.decisions', 'POST /v1/subjects/export': 'subject.export', 'POST /v1/subjects/erase': 'subject.erase',
  'POST /v1/deliveries/:id/resolve': 'delivery.resolve',
  'GET /v1/dlq/:id': 'dlq.show', 'GET /v1/events/:id/explain': 'event.explain', 'GET /v1/replays/:id/diff': 'replay.diff',
  'POST /v1/replays': 'replay.order', 'POST /v1/replays/:id/start': 'replay.start', 'POST /v1/replays/:id/pause': 'replay.pause', 'POST /v1/replays/:id/cancel': 'replay.cancel',
  'POST /v1/releases': 'release.apply', 'POST /v1/proposals/:id/approve': 'release.approve', 'POST /v1/topics/apply': 'topics.apply',
  'POST /v1/rehearsals': 'policy.rehearse', 'DELETE /v1/rehearsals/:id': 'policy.rehearse.stop', 'POST /v1/held/:id/approve': 'held.approve', 'POST /v1/held/:id/refuse': 'held.refuse',
  'POST /v1/destinations/:name/pause': 'destination.pause', 'POST /v1/destinations/:name/resume': 'destination.resume',
  'POST /v1/tokens': 'token.issue', 'DELETE /v1/tokens/:id': 'token.revoke', 'POST /v1/vault/changes': 'vault.set',
};

/** Written down a second time, by hand: a change of roles.ts must be made here too. */
const matrix: Record<string, readonly Permission[]> = {
  viewer: ['status.read', 'trace.read', 'dlq.read', 'held.read', 'replay.read', 'release.read'],
  operator: ['status.read', 'trace.read', 'dlq.read', 'held.read', 'replay.read', 'release.read', 'dlq.payload', 'replay.order', 'delivery.resolve', 'release.propose', 'policy.explain', 'policy.rehearse', 'destination.switch', 'topics.apply', 'consent.settle'],
  privacy: ['status.read', 'trace.read', 'dlq.read', 'dlq.payload', 'held.read', 'policy.explain', 'consent.read', 'consent.write', 'consent.settle', 'subject.read', 'erasure.order', 'audit.read'],
  approver: ['status.read', 'trace.read', 'release.read', 'release.approve', 'held.read', 'held.decide', 'audit.read'],
  admin: allPermissions.filter((p) => p !== 'agent.report'),
  agent: ['status.read', 'agent.report'],
  consent: ['consent.write'],
};

test('routes × roles: each answers as declared, and nothing runs that is denied', async () => {
  expect(Object.fromEntries(roleNames.map((r) => [r, [...roles[r]]]))).toEqual(matrix);
  expect(requests().length).toBeGreaterThan(15);
  for (const role of roleNames) {
    for (const { method, url, path, permission, body } of requests()) {
      granted = [parseGrant(role)];
      ran = [];
      leaves = [];
      const { statusCode } = await call(method, path, `Bearer ${token}`, body);
      const allowed = matrix[role]!.includes(permission!);
      expect([role, method, path, statusCode]).toEqual([role, method, path, allowed ? (path === '/v1/subjects/erase' ? 202 : 200) : 403]);
      if (!allowed) expect([ran, leaves]).toEqual([[], []]);
      const action = auditActions[`${method} ${url}`];
      if (method !== 'GET') expect([method, url, action]).toEqual([method, url, expect.any(String)]);
      if (allowed) expect(leaves.map((l) => [l.kind, l.action])).toEqual(action === undefined ? [] : [['intent', action], ['end', action]]);
    }
  }
});

test('routes × scopes: a grant over one source and destination opens only what is within it', async () => {
  const within = new Set(['/v1/status', '/v1/release', '/v1/topics/check', '/v1/openapi.json', '/v1/events/:id/trace', '/v1/events/:id/explain', '/v1/held/:id/approve', '/v1/held/:id/refuse', '/v1/dlq/:id', '/v1/deliveries/:id/resolve', '/v1/consent/changes/:id/receipts', '/v1/consent/unresolved/:id/settle', '/v1/destinations/switches', '/v1/destinations/:name/pause', '/v1/destinations/:name/resume', ...['', '/verified', '/diff', '/start', '/pause', '/cancel'].map((action) => `/v1/replays/:id${action}`)]);
  for (const { method, url, path, permission, body } of requests()) {
    if (permission === 'agent.report') continue;
    granted = [parseGrant('admin@shop:crm')];
    expect([method, url, (await call(method, path, `Bearer ${token}`, body)).statusCode]).toEqual([method, url, within.has(url) ? 200 : 403]);
  }
  expect((await call('GET', '/v1/dlq/dlq_b', `Bearer ${token}`)).statusCode).toBe(403);
  // What such an order then sends is in tests/contract/replay-scope.test.ts.
  for (const [ids, status] of [[['dlq_a'], 200], [['dlq_b'], 403], [['dlq_a', 'dlq_b'], 403]] as const) expect((await call('POST', '/v1/replays', `Bearer ${token}`, { from: 'dlq', ids })).statusCode).toBe(status);
  // Counts are over every source, whatever is asked for.
  for (const [path, status] of [['/v1/dlq?source=shop&destination=crm', 200], ['/v1/dlq/stats?source=shop&destination=crm', 403]] as const) expect((await call('GET', path, `Bearer ${token}`)).statusCode).toBe(status);
  // What was not routed yet may go anywhere.
  for (const [order, status] of [[{}, 403], [{ destination: 'crm' }, 200], [{ destination: 'news' }, 403]] as const) expect((await call('POST', '/v1/replays', `Bearer ${token}`, { from: 'dlq', ids: ['dlq_c'], ...order })).statusCode).toBe(status);
  granted = [parseGrant('operator@*:crm')];
  for (const [destination, status] of [['crm', 200], ['news', 403]] as const) expect((await call('POST', '/v1/replays', `Bearer ${token}`, { from: 'dlq', destination })).statusCode).toBe(status);
  // Two halves of a scope from two grants are not the whole.
  granted = [parseGrant('operator@shop:news'), parseGrant('operator@blog:crm')];
  expect((await call('GET', '/v1/dlq/dlq_a', `Bearer ${token}`)).statusCode).toBe(403);
});

test('of an event only those routes are explained that the grant covers: a release may bring others than those that were decided', async () => {
  for (const [grants, shown] of [[['privacy@shop:crm'], ['crm']], [['operator@shop:crm/ads'], ['crm', 'ads', 'ads']], [['operator@shop:crm', 'operator@blog:news', 'viewer'], ['crm']], [['operator@shop:crm', 'privacy@*:news'], ['crm', 'news']], [['operator@shop:*'], ['crm', 'ads', 'news', 'ads']]] as const) {
    granted = grants.map(parseGrant);
    const { records } = (await call('GET', '/v1/events/dlq_a/explain?release=current', `Bearer ${token}`)).json() as { records: { routes: { destination: string }[] }[] };
    expect([grants, records.flatMap(({ routes }) => routes.map(({ destination }) => destination))]).toEqual([grants, shown]);
  }
});

test('no grant allows nothing, and every permission is given by some role', () => {
  for (const permission of allPermissions) {
    expect(allows({ id: 'x', grants: [] }, permission, nothing)).toBe(false);
    expect(roleNames.some((role) => allows({ id: 'x', grants: [{ role, ...everything }] }, permission, everything))).toBe(true);
  }
  for (const bad of ['', 'root', 'constructor', '__proto__', 'admin@shop', 'admin@:crm', 'admin@shop:crm:x', 'Admin']) expect(() => parseGrant(bad)).toThrow(/grant/);
});

test('a route without a permission or without a schema of its answer, or a change without an audit action, does not start', () => {
  const add = (config: object, method = 'GET') => () => createApi({ authenticate: async () => ({ id: 'x', grants: [] }), releases: {}, access: {} } as unknown as ApiPorts).route({ method, url: '/v1/new', config, handler: async () => ({}) });
  const scope = () => everything;
  expect(add({})).toThrow(/declares no permission/);
  expect(add({ public: true })).toThrow(/declares no permission/);
  expect(add({ permission: 'nope', scope })).toThrow(/declares no permission/);
  expect(add({ permission: 'status.read' })).toThrow(/declares no permission/);
  expect(add({ permission: 'status.read', scope }, 'POST')).toThrow(/no audit action/);
  const replies = { 200: object('An answer.', { name: text('A field.') }) };
  expect(add({ permission: 'status.read', scope, summary: 'A route.' })).toThrow(/no summary and answers/);
  expect(add({ permission: 'status.read', scope, replies })).toThrow(/no summary and answers/);
  expect(add({ permission: 'status.read', scope, summary: 'A route.', replies })).not.toThrow();
});

test('a leaf says nothing of a body that names a person, not even a hash: an address could be guessed from it', async () => {
  const naming = [...requests().filter(({ body }) => JSON.stringify(body ?? null).includes('@larkspur.example')).map(({ path, body }) => [path, body] as const), ...['email:ann@larkspur.example', 'ann@larkspur.example', '+49 30 4930901820', 'emial:ann@larkspur.example', 'larkspur:4930901820'].map((subject) => ['/v1/replays', { from: 'raw', subject }] as const)];
  expect(naming.length).toBeGreaterThan(6);
  for (const [path, body] of naming) {
    leaves = [];
    expect((await call('POST', path, `Bearer ${admin}`, body)).statusCode).toBeLessThan(300);
    expect(leaves.map((l) => l.details).slice(0, 1)).toEqual([{}]);
    expect(JSON.stringify(leaves)).not.toMatch(/larkspur|4930/);
  }
  leaves = [];
  await call('POST', '/v1/replays', `Bearer ${admin}`, { from: 'dlq', all: true });
  expect(leaves[0]?.details).toEqual({ body: expect.stringMatching(/^[0-9a-f]{64}$/) });
});

test('what stands in the wrong field is not in a leaf: an address in place of a name, a token or a user id in place of an id', async () => {
  leaves = [];
  for (const body of [{ from: 'dlq', source: 'ann@larkspur.example' }, { from: 'dlq', source: token.slice(0, 64), destination: token.slice(0, 64) }, { from: 'dlq', code: '+4930901820', ids: ['dlq_a', 'user_4930', 'ann@larkspur.example'] }]) await call('POST', '/v1/replays', `Bearer ${admin}`, body);
  expect(leaves.filter((l) => l.kind === 'intent').map((l) => JSON.parse(l.target!))).toEqual([{ from: 'dlq', source: 'given' }, { from: 'dlq', source: 'given', destination: 'given' }, { from: 'dlq', code: 'given', ids: ['dlq_a', 'given', 'given'] }]);
  leaves = [];
  for (const [method, path] of [['DELETE', `/v1/tokens/${token}`], ['GET', '/v1/dlq/user_4930'], ['GET', '/v1/events/4930901820/explain'], ['POST', '/v1/held/user_4930/approve']] as const) expect((await call(method, path, `Bearer ${admin}`, method === 'POST' ? {} : undefined)).statusCode).toBe(404);
  expect(leaves).toEqual([]);
});

test('who looks at a person in the clear is in the audit log before anything is shown, with what was looked at and no more', async () => {
  for (const [method, path, target] of [['GET', '/v1/dlq/dlq_a', 'dlq_a'], ['HEAD', '/v1/dlq/dlq_a', 'dlq_a'], ['GET', '/v1/events/evt_1/explain?release=current', 'evt_1'], ['GET', `/v1/replays/${replayId}/diff`, replayId]] as const) {
    leaves = [];
    expect((await call(method, path, `Bearer ${admin}`)).statusCode).toBe(200);
    expect(leaves).toMatchObject([{ kind: 'intent', actor: 'admin', target, details: {} }, { kind: 'end', details: { result: 'completed', status: 200 } }]);
  }
});

test('the end leaf says refused only where nothing was changed: after an error of ours the change may go on', async () => {
  const ends = async (error: WeirError | undefined) => {
    [failing, leaves] = [error, []];
    await call('POST', '/v1/destinations/crm/pause', `Bearer ${admin}`, {});
    failing = undefined;
    return leaves.filter((l) => l.kind === 'end').map((l) => l.details);
  };
  expect(await ends(undefined)).toEqual([{ result: 'completed', status: 200 }]);
  expect(await ends(new WeirError('not-found'))).toEqual([{ result: 'refused', status: 404 }]);
  expect(await ends(new WeirError('not-ready'))).toEqual([{ result: 'interrupted', status: 503 }]);
});

test('the words of an error that nobody declared are for the log, under the id that the answer has; those of a declared one are for who asked', async () => {
  const pause = async (error: Error) => {
    [failing, unexpected] = [error, []];
    const { statusCode, body } = await call('POST', '/v1/destinations/crm/pause', `Bearer ${admin}`, {});
    failing = undefined;
    return { statusCode, body: JSON.parse(body) as { error: string; message: string } };
  };
  const raw = new Error('ENOENT: /var/lib/weir/secret-path of ada@larkspur.example');
  const { statusCode, body } = await pause(raw);
  expect([statusCode, body.error, unexpected[0]?.[0]]).toEqual([503, 'log-unavailable', raw]);
  expect(body.message).not.toMatch(/secret-path|larkspur/);
  expect(body.message).toContain(unexpected[0]![1]);
  // Around a declared one stands what was not declared.
  expect(await pause(new Error('at secret-path', { cause: new WeirError('not-ready', 'reads its tables') }))).toMatchObject({ statusCode: 503, body: { error: 'not-ready', message: 'reads its tables' } });
  expect(unexpected).toEqual([]);
  expect((await call('POST', '/v1/tokens', `Bearer ${admin}`, {})).json()).toMatchObject({ error: 'bad-request', message: expect.stringContaining('required property') });
});

test('a release that nobody else was asked about is applied as such, an approved one with who proposed it', async () => {
  ran = [];
  await call('POST', '/v1/releases', `Bearer ${admin}`, bodies['POST /v1/releases']);
  await call('POST', '/v1/proposals/prop_1/approve', `Bearer ${admin}`, {});
  expect(ran).toEqual(['apply alone', 'apply token:other']);
});

test('no leaf, no change: nothing runs when the audit log does not take the leaf', async () => {
  auditFails = true;
  try {
    for (const { method, path, body } of requests().filter((r) => auditActions[`${r.method} ${r.url}`] !== undefined)) {
      ran = [];
      expect((await call(method, path, `Bearer ${admin}`, body)).statusCode).toBe(503);
      expect(ran).toEqual([]);
    }
  } finally {
    auditFails = false;
  }
});

async function fromProvider(resource = audience): Promise<string> {
  const response = await fetch(`${issuer}/token`, { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded', authorization: `Basic ${Buffer.from('cli:cli-secret').toString('base64')}` }, body: new URLSearchParams({ grant_type: 'client_credentials', resource, scope: 'weir' }) });
  return ((await response.json()) as { access_token: string }).access_token;
}
const jwt = (claims: object = {}, header: object = {}, key = keys.privateKey) => new SignJWT({ weir_roles: ['admin'], iss: issuer, aud: audience, sub: 's', exp: Math.floor(Date.now() / 1000) + 60, ...claims }).setProtectedHeader({ alg: 'RS256', kid: 'k1', typ: 'at+jwt', ...header } as { alg: string }).sign(key);

test('an access token of the OIDC provider has the roles of its claim, and no others', async () => {
  const given = await fromProvider();
  expect((await call('GET', '/v1/status', `Bearer ${given}`)).statusCode).toBe(200);
  expect((await call('GET', '/v1/tokens', `Bearer ${given}`)).statusCode).toBe(403);
  expect((await call('GET', '/v1/tokens', `Bearer ${await jwt()}`)).statusCode).toBe(200);
});

test('a provider that does not say at+jwt is taken by a setting, with an audience that is named', async () => {
  const base = { oidcIssuer: issuer, oidcRolesClaim: 'weir_roles' };
  const authenticate = createAuthenticate({ adminToken: () => admin, principalOf: () => undefined, oidc: oidcOptions({ ...base, oidcAudience: audience, oidcTokenType: 'any' }), now: () => Date.now() });
  for (const typ of ['JWT', undefined, 'at+jwt']) expect(await authenticate(`Bearer ${await jwt({}, { typ })}`)).toMatchObject({ id: 'oidc:s' });
  expect(() => oidcOptions({ ...base, oidcTokenType: 'any' })).toThrow(/WEIR_OIDC_AUDIENCE/);
  expect(oidcOptions({ ...base, oidcTokenType: 'at+jwt' })).toMatchObject({ audience: 'weir' });
  expect(oidcOptions({ oidcTokenType: 'any', oidcRolesClaim: 'weir_roles' })).toBeUndefined();
  expect((await call('GET', '/v1/tokens', `Bearer ${await jwt({}, { typ: 'application/AT+JWT' })}`)).statusCode).toBe(200);
});

test('tokens that are none: 401', async () => {
  granted = null;
  const good = await jwt();
  const [head, body, signature] = good.split('.') as [string, string, string];
  const hs = (secret: string | Uint8Array) => new SignJWT({ weir_roles: ['admin'] }).setProtectedHeader({ alg: 'HS256', kid: 'k1' }).setIssuer(issuer).setAudience(audience).setSubject('s').setExpirationTime('1m').sign(typeof secret === 'string' ? Buffer.from(secret) : secret);
  const strangerKey = await exportJWK(stranger.publicKey);
  const cases: Record<string, string | undefined> = {
    'no header': undefined, 'empty': 'Bearer ', 'basic': `Basic ${Buffer.from(`admin:${admin}`).toString('base64')}`, 'a part of the admin token': `Bearer ${admin.slice(0, -1)}`,
    'revoked or unknown API token': `Bearer ${token}`,
    'expired': `Bearer ${await jwt({ exp: Math.floor(Date.now() / 1000) - 60 })}`,
    'no expiry': `Bearer ${await jwt({ exp: undefined })}`,
    'not yet': `Bearer ${await jwt({ nbf: Math.floor(Date.now() / 1000) + 600 })}`,
    'no subject': `Bearer ${await jwt({ sub: undefined })}`,
    'alg none': `Bearer ${new UnsecuredJWT({ weir_roles: ['admin'] }).setIssuer(issuer).setAudience(audience).setSubject('s').setExpirationTime('1m').encode()}`,
    'alg none with a signature': `Bearer ${Buffer.from('{"alg":"none"}').toString('base64url')}.${body}.${signature}`,
    'public key as HMAC secret': `Bearer ${await hs(JSON.stringify(await exportJWK(keys.publicKey)))}`,
    'wrong audience': `Bearer ${await jwt({ aud: 'https://other.example' })}`,
    'wrong audience from the provider': `Bearer ${await fromProvider('https://other.example')}`,
    'wrong issuer': `Bearer ${await jwt({ iss: 'https://other.example' })}`,
    'another key under our key id': `Bearer ${await jwt({}, {}, stranger.privateKey)}`,
    'unknown key id': `Bearer ${await jwt({}, { kid: 'k2' }, stranger.privateKey)}`,
    'key id as a path': `Bearer ${await jwt({}, { kid: '../../../dev/null' }, stranger.privateKey)}`,
    'key id as a prototype': `Bearer ${await jwt({}, { kid: '__proto__' }, stranger.privateKey)}`,
    'key in the header': `Bearer ${await jwt({}, { jwk: strangerKey, kid: undefined }, stranger.privateKey)}`,
    'address of keys in the header': `Bearer ${await jwt({}, { jku: `${issuer}/evil`, kid: 'k9' }, stranger.privateKey)}`,
    'changed body': `Bearer ${head}.${Buffer.from(JSON.stringify({ sub: 'x', weir_roles: ['admin'] })).toString('base64url')}.${signature}`,
    'no signature': `Bearer ${head}.${body}.`,
    'an ID token': `Bearer ${await jwt({ nonce: 'n', at_hash: 'h' }, { typ: 'JWT' })}`,
    'an ID token without a type': `Bearer ${await jwt({}, { typ: undefined })}`,
    'another type': `Bearer ${await jwt({}, { typ: 'logout+jwt' })}`,
    'too long': `Bearer ${'a'.repeat(9000)}`,
  };
  expect((await call('GET', '/v1/status', `Bearer ${good}`)).statusCode).toBe(200);
  for (const [name, authorization] of Object.entries(cases)) {
    for (const url of ['/v1/status', '/v1/nothing-here']) expect([name, (await call('GET', url, authorization)).statusCode]).toEqual([name, 401]);
  }
});

test('while the admin token cannot be had the kill switch is pulled with an API token, and a stranger is not told where the vault is', async () => {
  adminAway = new WeirError('secret-unavailable', 'vault vault.internal:8200: secret/weir sealed (503)');
  try {
    [granted, ran] = [[parseGrant('operator')], []];
    expect((await call('POST', '/v1/destinations/crm/pause', `Bearer ${token}`, {})).statusCode).toBe(200);
    expect((await call('GET', '/v1/status', `Bearer ${await jwt()}`)).statusCode).toBe(200);
    expect(ran).toEqual(['switch', 'status']);
    const { statusCode, body } = await call('GET', '/v1/status', 'Bearer x');
    expect([statusCode, JSON.parse(body).error, body.includes('vault.internal')]).toEqual([503, 'secret-unavailable', false]);
  } finally {
    adminAway = undefined;
  }
});

test('the OpenAPI document passes the linter and describes every route with its permission', async () => {
  const text = (await call('GET', '/v1/openapi.json', `Bearer ${admin}`)).body;
  const document = JSON.parse(text) as { openapi: string; paths: Record<string, Record<string, { 'x-permission': string }>> };
  expect(await lintOpenApi('openapi.json', text)).toEqual([]);
  expect(mismatch(documentReply, text)).toBe('');
  expect(document.openapi).toBe('3.1.0');
  for (const { method, url, permission } of requests()) expect(document.paths[url.replace(/:(\w+)/g, '{$1}')]![method.toLowerCase()]!['x-permission']).toBe(permission);
  expect(Object.keys(permissions)).toEqual(allPermissions);
});
