import { createHmac } from 'node:crypto';
import { appendFileSync, mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readConfig } from '@weir/config';
import pino from 'pino';
import { afterEach, expect, test, vi } from 'vitest';
import { createSandbox, type Sandbox } from './app.ts';
import { options } from './config.ts';

/** Conditions are waited for as long as it takes on a loaded machine; the default is one second. */
const patience = { timeout: 20_000 };

const cleanups: (() => Promise<void> | void)[] = [];
afterEach(async () => { for (const end of cleanups.splice(0).reverse()) await end(); });

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'weir-sandbox-'));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
async function open(dir = folder(), env: Record<string, string> = {}): Promise<Sandbox & { url: string }> {
  const sandbox = createSandbox(readConfig(options, { WEIR_DATA: dir, WEIR_SANDBOX_PORT: '0', ...env }), pino({ level: 'silent' }));
  await sandbox.start();
  let stopping: Promise<void> | undefined;
  const stop = sandbox.stop;
  sandbox.stop = () => (stopping ??= stop());
  cleanups.push(() => sandbox.stop());
  return Object.assign(sandbox, { url: `http://127.0.0.1:${sandbox.port}` });
}
type Row = { n: number; operation: string; idempotencyKey: string | null; subject: string | null; body: any; applied: boolean; status: number };
const rows = async (s: { url: string }, path: string): Promise<Row[]> => (await fetch(s.url + path)).json() as Promise<Row[]>;
const post = (s: { url: string }, path: string, body: unknown, headers: Record<string, string> = {}, method = 'POST') =>
  fetch(s.url + path, { method, headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) });
const klaviyo = { authorization: 'Klaviyo-API-Key pk_1', revision: '2026-07-15', 'content-type': 'application/vnd.api+json' };
const profile = (attributes: object) => ({ data: { type: 'profile', attributes } });
const event = (email: string, unique?: string, metric = 'Ordered') => ({ data: { type: 'event', attributes: { properties: {}, unique_id: unique, time: '2026-07-20T10:00:00Z', metric: { data: { type: 'metric', attributes: { name: metric } } }, profile: { data: { type: 'profile', attributes: { email } } } } } });
const job = (kind: 'create' | 'delete', email: string, consent: string) => ({ data: { type: `profile-subscription-bulk-${kind}-job`, attributes: { profiles: { data: [{ type: 'profile', attributes: { email, subscriptions: { email: { marketing: { consent } } } } }] } } } });

test('a header key is an effect once; another payload under it is refused; arrivals show all', async () => {
  const s = await open();
  for (const [body, status] of [[{ userId: 'u1' }, 200], [{ userId: 'u1' }, 200], [{ userId: 'u2' }, 422]] as const) expect((await post(s, '/d/crm/people/sync', body, { 'idempotency-key': 'k1' })).status).toBe(status);
  await post(s, '/d/crm/people/sync', { userId: 'u3' }, { 'idempotency-key': 'k2' });
  await post(s, '/d/other/people/sync', { userId: 'u1' }, { 'idempotency-key': 'k1' });
  expect(await rows(s, '/effects?destination=crm')).toMatchObject([{ destination: 'crm', operation: 'people/sync', idempotencyKey: 'k1', subject: 'u1', body: { userId: 'u1' } }, { idempotencyKey: 'k2' }]);
  expect((await rows(s, '/arrivals?destination=crm')).map((r) => [r.applied, r.status])).toEqual([[true, 200], [false, 200], [false, 422], [true, 200]]);
});

test('without a rule every arrival is an effect with key null', async () => {
  const s = await open();
  for (let i = 0; i < 2; i++) await post(s, '/d/crm/track', { profile: { email: 'a@example.com' } });
  expect((await rows(s, '/effects?destination=crm')).map((r) => [r.idempotencyKey, r.subject])).toEqual([[null, 'a@example.com'], [null, 'a@example.com']]);
});

test('a body field dedupes, a missing one is refused, PUT and upsert-by count changes only', async () => {
  const s = await open();
  for (const id of ['m1', 'm1', 'm2']) await post(s, '/d/mq/dedupe-by/messageId/track', { messageId: id });
  // The key is the message's, wherever it is sent, by itself or in a batch.
  await post(s, '/d/mq/dedupe-by/messageId/identify', { messageId: 'm1' });
  await post(s, '/d/mq/batch-by/messageId/import', [{ messageId: 'm2', email: 'x@y.z' }]);
  expect((await post(s, '/d/mq/dedupe-by/messageId/track', {})).status).toBe(400);
  expect((await rows(s, '/effects?destination=mq')).map((r) => [r.operation, r.idempotencyKey])).toEqual([['track', 'm1'], ['track', 'm2']]);
  for (const plan of ['a', 'a', 'b', 'a']) await post(s, '/d/put/contacts/7', { plan, email: 'x@y.z' }, {}, 'PUT');
  for (const plan of ['a', 'a', 'b']) await post(s, '/d/up/upsert-by/id/contacts', { id: 7, plan });
  expect((await rows(s, '/effects?destination=put')).map((r) => r.idempotencyKey)).toEqual(['contacts/7#1', 'contacts/7#2', 'contacts/7#3']);
  expect(await rows(s, '/effects?destination=up')).toHaveLength(2);
  // A key says more than the method: an old body that comes again does not undo a newer one.
  for (const [key, plan] of [['1', 'a'], ['2', 'b'], ['1', 'a']] as const) await post(s, '/d/keyed/contacts', { plan }, { 'idempotency-key': key }, 'PUT');
  expect((await rows(s, '/effects?destination=keyed')).map((r) => r.idempotencyKey)).toEqual(['1', '2']);
});

test('webhook signatures are checked when a secret is set, stale and wrong ones refused', async () => {
  const secret = `whsec_${Buffer.from('0123456789abcdef01234567').toString('base64')}`;
  const s = await open(undefined, { WEIR_SANDBOX_WEBHOOK_SECRET: secret });
  const body = '{"email":"a@b.c"}';
  const signed = (time: number, key = '0123456789abcdef01234567') => ({ 'webhook-id': 'm1', 'webhook-timestamp': String(time), 'webhook-signature': `v1,${createHmac('sha256', key).update(`m1.${time}.${body}`).digest('base64')}` });
  const now = Math.floor(Date.now() / 1000);
  expect((await post(s, '/d/h/hook', body, signed(now, 'wrong'))).status).toBe(401);
  expect((await post(s, '/d/h/hook', body, signed(now - 3600))).status).toBe(401);
  expect((await post(s, '/d/h/hook', body, signed(now))).status).toBe(200);
  expect((await post(s, '/d/h/hook', body, signed(now + 1))).status).toBe(200);
  expect(await rows(s, '/effects?destination=h')).toMatchObject([{ idempotencyKey: 'm1' }]);
});

test('klaviyo profile-import: 201 then 200, the same again is no effect, null clears, absent leaves', async () => {
  const s = await open();
  const call = async (attributes: object) => (await post(s, '/d/k/api/profile-import', profile(attributes), klaviyo)).status;
  expect(await call({ email: 'A@example.com', first_name: 'A', properties: { plan: 'x' } })).toBe(201);
  expect(await call({ email: 'A@example.com', first_name: 'A', properties: { plan: 'x' } })).toBe(200);
  expect(await call({ email: 'a@example.com', external_id: 'u1' })).toBe(200);
  expect(await call({ external_id: 'u1', first_name: null })).toBe(200);
  expect(await call({ external_id: 'u1', properties: { city: 'Ulm' } })).toBe(200);
  expect((await rows(s, '/arrivals?destination=k')).map((r) => r.applied)).toEqual([true, false, true, true, true]);
  const answer = await (await post(s, '/d/k/api/profile-import', profile({ external_id: 'u1' }), klaviyo)).json() as any;
  expect(answer.data.attributes).toEqual({ email: 'a@example.com', external_id: 'u1', properties: { plan: 'x', city: 'Ulm' } });
});

test('klaviyo events: first unique_id per profile and metric, else one per second', async () => {
  const s = await open();
  for (const body of [event('a@b.c', 'e1'), event('a@b.c', 'e1'), event('z@b.c', 'e1'), event('a@b.c', 'e1', 'Viewed'), event('a@b.c'), event('a@b.c')]) expect((await post(s, '/d/k/api/events', body, klaviyo)).status).toBe(202);
  expect((await rows(s, '/arrivals?destination=k')).map((r) => r.applied)).toEqual([true, false, true, true, true, false]);
});

test('klaviyo subscriptions: setting what is set is no effect, a profile is created, wrong consent is refused', async () => {
  const s = await open();
  const call = async (kind: 'create' | 'delete', consent: string) => (await post(s, `/d/k/api/profile-subscription-bulk-${kind}-jobs`, job(kind, 'a@b.c', consent), klaviyo)).status;
  expect(await call('create', 'SUBSCRIBED')).toBe(202);
  expect(await call('create', 'SUBSCRIBED')).toBe(202);
  expect(await call('create', 'UNSUBSCRIBED')).toBe(400);
  expect(await call('delete', 'UNSUBSCRIBED')).toBe(202);
  expect(await call('create', 'SUBSCRIBED')).toBe(202);
  const effects = await rows(s, '/effects?destination=k');
  expect(effects.map((r) => r.operation)).toEqual(['profile-subscription-bulk-create-jobs', 'profile-subscription-bulk-delete-jobs', 'profile-subscription-bulk-create-jobs']);
  expect(new Set(effects.map((r) => r.idempotencyKey)).size).toBe(3);
  const many = job('delete', 'a@b.c', 'UNSUBSCRIBED');
  many.data.attributes.profiles.data = Array(101).fill(many.data.attributes.profiles.data[0]);
  expect((await post(s, '/d/k/api/profile-subscription-bulk-delete-jobs', many, klaviyo)).status).toBe(400);
});

test('klaviyo refuses a missing key, revision, identifier, and bad JSON, in JSON:API, and keeps no effect', async () => {
  const s = await open(undefined, { WEIR_SANDBOX_KLAVIYO_KEY: 'pk_1' });
  const call = async (headers: Record<string, string>, body: unknown = profile({ email: 'a@b.c' })) => {
    const response = await post(s, '/d/k/api/profile-import', body, headers);
    return [response.status, ((await response.json()) as any).errors?.[0].code];
  };
  const { authorization: _a, ...noKey } = klaviyo;
  const { revision: _r, ...noRevision } = klaviyo;
  expect(await call(noKey)).toEqual([401, 'not_authenticated']);
  expect(await call({ ...klaviyo, authorization: 'Klaviyo-API-Key pk_2' })).toEqual([401, 'not_authenticated']);
  expect(await call(noRevision)).toEqual([400, 'invalid']);
  expect(await call(klaviyo, profile({ first_name: 'x' }))).toEqual([400, 'invalid']);
  expect(await call(klaviyo, '{"data":')).toEqual([400, 'parse_error']);
  expect(await call(klaviyo, '{"__proto__":{"x":1}}')).toEqual([400, 'parse_error']);
  expect(await call(klaviyo, '['.repeat(50_000))).toEqual([400, 'parse_error']);
  expect(await call(klaviyo, profile({ email: 'a@b.c', properties: { x: 'x'.repeat(101 * 1024) } }))).toEqual([413, 'payload_too_large']);
  expect(await rows(s, '/effects')).toEqual([]);
  expect(await rows(s, '/arrivals')).toHaveLength(8);
});

test('effects and keys outlive a restart, a torn tail and a lost state', async () => {
  const dir = folder();
  const file = join(dir, 'sandbox', 'arrivals.jsonl');
  const first = await open(dir);
  for (let i = 0; i < 600; i++) await post(first, '/d/crm/sync', { userId: `u${i}` }, { 'idempotency-key': `k${i}` });
  await post(first, '/d/k/api/profile-import', profile({ email: 'a@b.c' }), klaviyo);
  await first.stop();
  appendFileSync(file, '{"n":602,"destination":"crm","applied":tr');
  rmSync(join(dir, 'sandbox', 'state'), { recursive: true });
  const second = await open(dir);
  expect(await rows(second, '/effects')).toHaveLength(601);
  for (const key of ['k0', 'k599']) await post(second, '/d/crm/sync', { userId: key.replace('k', 'u') }, { 'idempotency-key': key });
  expect((await post(second, '/d/k/api/profile-import', profile({ email: 'a@b.c' }), klaviyo)).status).toBe(200);
  expect(await rows(second, '/effects')).toHaveLength(601);
  expect((await rows(second, '/arrivals?since=598&limit=2')).map((r) => r.n)).toEqual([599, 600]);
  await second.stop();
  // The state is ahead of a log that lost its tail with the power: what is not in the log has not happened.
  truncateSync(file, statSync(file).size - 2000);
  const third = await open(dir);
  expect((await post(third, '/d/k/api/profile-import', profile({ email: 'a@b.c' }), klaviyo)).status).toBe(201);
});

test('every fault: what the caller sees and whether it took effect', async () => {
  const s = await open();
  const call = (key: string, signal?: AbortSignal) => fetch(`${s.url}/d/crm/sync`, { method: 'POST', headers: { 'idempotency-key': key }, body: '{}', signal }).then((r) => r.status, () => 'cut');
  const order = async (body: object) => expect((await post(s, '/faults', { destination: 'crm', count: 1, ...body })).status).toBe(201);
  const keys = async () => (await rows(s, '/effects?destination=crm')).map((r) => r.idempotencyKey);

  await order({ mode: '429', retryAfter: 7 });
  const throttled = await post(s, '/d/crm/sync', {}, { 'idempotency-key': 'a' });
  expect([throttled.status, throttled.headers.get('retry-after')]).toEqual([429, '7']);
  await order({ mode: '5xx', status: 502 });
  expect(await call('a')).toBe(502);
  await order({ mode: 'permanent', status: 422 });
  expect(await call('a')).toBe(422);
  await order({ mode: 'auth' });
  expect(await call('a')).toBe(401);
  await order({ mode: 'cut' });
  expect(await call('a')).toBe('cut');
  expect(await keys()).toEqual([]);

  await order({ mode: 'late-after-commit' });
  expect(await call('b')).toBe('cut');
  expect(await keys()).toEqual(['b']);
  await order({ mode: 'late-after-commit', delayMs: 60_000 });
  const given = new AbortController();
  const late = call('c', given.signal);
  await vi.waitFor(async () => expect(await keys()).toEqual(['b', 'c']), patience);
  given.abort();
  expect(await late).toBe('cut');
  expect(await keys()).toEqual(['b', 'c']);
  expect(await call('c')).toBe(200);

  await order({ mode: 'slow', delayMs: 50 });
  const began = performance.now();
  expect(await call('d')).toBe(200);
  expect(performance.now() - began).toBeGreaterThan(45);
  await order({ mode: 'slow', delayMs: 3000 });
  const up = new AbortController();
  const slow = call('e', up.signal);
  await vi.waitFor(async () => expect(await rows(s, '/faults')).toEqual([]), patience);
  up.abort();
  expect(await slow).toBe('cut');
  await vi.waitFor(async () => expect((await rows(s, '/arrivals?destination=crm')).map((r) => r.status)).toEqual([429, 502, 422, 401, 0, 200, 200, 200, 200, 0]), patience);
  expect(await keys()).toEqual(['b', 'c', 'd']);
});

test('answers that nobody can use: half of one, one that drips and one of 100 MB; each took effect', async () => {
  const s = await open();
  const order = async (body: object) => expect((await post(s, '/faults', { destination: 'crm', count: 1, ...body })).status).toBe(201);
  const keys = async () => (await rows(s, '/effects?destination=crm')).map((r) => r.idempotencyKey);
  const body = (key: string, signal?: AbortSignal) => fetch(`${s.url}/d/crm/sync`, { method: 'POST', headers: { 'idempotency-key': key }, body: '{}', signal }).then((r) => r.text()).then((text) => text.length, () => 'cut');
  await order({ mode: 'truncated' });
  expect(await body('e')).toBe('cut');
  await order({ mode: 'huge' });
  expect(await body('f')).toBeGreaterThan(100_000_000);
  await order({ mode: 'drip', delayMs: 200 });
  expect(await body('g')).toBeGreaterThan(3);
  await order({ mode: 'drip', delayMs: 600_000 });
  const weary = new AbortController();
  const dripping = body('h', weary.signal);
  await vi.waitFor(async () => expect(await keys()).toEqual(['e', 'f', 'g', 'h']), patience);
  weary.abort();
  expect(await dripping).toBe('cut');
  expect(await body('h')).toBeGreaterThan(1);
});

test('faults are bound to destination and operation, their rate is seeded, they end, and bad orders are refused', async () => {
  const s = await open();
  await post(s, '/faults', { mode: '5xx', destination: 'crm', operation: 'sync', rate: 0.5, seed: 7 });
  const run = async (path: string) => { const seen: number[] = []; for (let i = 0; i < 20; i++) seen.push((await post(s, path, {})).status); return seen; };
  expect(new Set([...await run('/d/crm/other'), ...await run('/d/x/sync')])).toEqual(new Set([200]));
  const first = await run('/d/crm/sync');
  expect(new Set(first)).toEqual(new Set([200, 503]));
  await fetch(`${s.url}/faults`, { method: 'DELETE' });
  expect(new Set(await run('/d/crm/sync'))).toEqual(new Set([200]));
  await post(s, '/faults', { mode: '5xx', destination: 'crm', operation: 'sync', rate: 0.5, seed: 7 });
  expect(await run('/d/crm/sync')).toEqual(first);
  for (const bad of [{ mode: 'nope' }, { mode: '429', rate: 2 }, { mode: '5xx', status: 200 }, { mode: '429', retryAfter: 'a\r\nb' }, { mode: 'cut', more: 1 }, [], 'x']) expect((await post(s, '/faults', bad)).status).toBe(400);
});

test('a body over the limit is refused and a full log stops taking', async () => {
  const s = await open(undefined, { WEIR_SANDBOX_BODY_BYTES: '2048', WEIR_SANDBOX_MAX_ARRIVALS: '1' });
  expect((await post(s, '/d/crm/sync', { x: 'x'.repeat(3000) })).status).toBe(413);
  expect((await post(s, '/d/crm/sync', {})).status).toBe(200);
  expect((await post(s, '/d/crm/sync', {})).status).toBe(507);
});
