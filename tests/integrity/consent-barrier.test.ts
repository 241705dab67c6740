import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freeze, startFleet, waitFor, type Fleet } from '@weir/testing';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';

const callTimeoutMs = 2000;
const sessionMs = 6000;
let weir: Fleet;
let workspace = '';
/** Told of changes that have come to hold, signed. */
const hook = `doc: A webhook that wants to know.
adapter: http
config:
  baseUrl: sandbox://hook
  signingSecret: { secret: HOOK_SECRET }
  operations:
    notify:
      kind: restrict
      accepts: [ConsentApplied]
      method: POST
      path: /consent
      body: { type: consent.applied, change: "{{record.changeId}}", state: "{{record.state}}", channel: "{{record.channel}}", email: "{{record.email}}" }
      idempotency: { scheme: header, name: webhook-id, window: 24h, pastWindow: resend }
routes:
  - { on: ConsentApplied, operation: notify }
`;
/** Its route fails on everybody without a name: a policy error. */
const odd = `doc: A route whose condition fails.
region: IE
adapter: http
config:
  baseUrl: sandbox://odd
  operations:
    put:
      kind: use
      accepts: [Profile]
      method: POST
      path: /people
      body: { email: "{{record.email}}" }
      idempotency: { scheme: header, name: key, window: 24h, pastWindow: resend }
routes:
  - { on: Profile, operation: put, purpose: service, when: record.lastName.startsWith("x") }
`;
beforeAll(async () => {
  workspace = mkdtempSync(join(tmpdir(), 'weir-consent-'));
  cpSync(resolve(import.meta.dirname, '../../workspace'), workspace, { recursive: true });
  writeFileSync(join(workspace, 'destinations/hook.yaml'), hook);
  writeFileSync(join(workspace, 'destinations/odd.yaml'), odd);
  weir = await startFleet({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace, env: { WEIR_DISPATCHER_SESSION_MS: String(sessionMs), WEIR_CALL_TIMEOUT_MS: String(callTimeoutMs) } });
  await weir.start('dispatcher', 2);
});
afterAll(async () => {
  await weir?.dispose();
  rmSync(workspace, { recursive: true, force: true });
});
afterEach(() => fetch(`${weir.sandbox}/faults`, { method: 'DELETE' }));

interface Answer { readonly status: number; readonly body: any; readonly ms: number }
async function consent(body: unknown, path = '/v1/consent?wait=applied', headers: Record<string, string> = { authorization: `Bearer ${weir.secret('ADMIN_TOKEN')}` }): Promise<Answer> {
  const began = performance.now();
  const response = await fetch(weir.ingest + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) });
  return { status: response.status, body: await response.json(), ms: performance.now() - began };
}
const change = (name: string, state: string, over: object = {}) => ({ identifiers: { email: `${name}@larkspur.example` }, purpose: 'email-marketing', channel: 'email', state, ...over });
let n = 0;
async function identify(name: string, traits: object = {}): Promise<string> {
  const response = await weir.segment('identify', { messageId: `cb-${n++}`, userId: `user-${name}`, timestamp: '2026-03-04T05:06:07Z', traits: { email: `${name}@larkspur.example`, plan: `p${n}`, ...traits } });
  expect(response.status).toBe(200);
  return ((await response.json()) as any).eventId;
}
const arrivals = async (name: string): Promise<any[]> => ((await (await fetch(`${weir.sandbox}/arrivals?destination=newsletter`)).json()) as any[]).filter((a) => !String(a.operation).includes('unsub') && a.subject === `${name}@larkspur.example`);
const fault = async (order: object): Promise<void> => { expect((await fetch(`${weir.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(order) })).status).toBeLessThan(300); };

/** The vendor has a call in hand that it answers late: a dispatcher that is about to call still asks for consent. */
const inHand = async (): Promise<boolean> => ((await (await fetch(`${weir.sandbox}/faults`)).json()) as any[]).some((f) => f.mode === 'slow' && f.fired > 0);

test('a grant opens, and after a withdrawal that is answered as applied nothing is sent, under a linked identifier either', async () => {
  const granted = await consent(change('ann', 'granted', { proof: 'form 7' }));
  expect(granted).toMatchObject({ status: 200, body: { id: expect.stringMatching(/^evt_[0-9a-f]{32}$/), state: 'applied', offset: expect.any(Number), waitedMs: expect.any(Number) } });
  await identify('ann');
  await waitFor('the newsletter has her', async () => (await arrivals('ann')).length === 1);
  await identify('ann');
  const withdrawn = await consent({ ...change('ann', 'withdrawn'), identifiers: { userId: 'user-ann' } });
  expect(withdrawn).toMatchObject({ status: 200, body: { state: 'applied' } });
  const at = Date.now();
  for (let i = 0; i < 5; i++) await identify('ann');
  await weir.settled();
  expect((await arrivals('ann')).filter((a) => Date.parse(a.at) > at)).toEqual([]);
  expect(withdrawn.ms).toBeLessThan(sessionMs);
});

test('a grant that comes again after the withdrawal is told to have opened nothing, and no webhook hears that it holds', async () => {
  const headers = { authorization: `Bearer ${weir.secret('ADMIN_TOKEN')}`, 'idempotency-key': 'form-zoe' };
  const told = async (): Promise<string[]> => ((await (await fetch(`${weir.sandbox}/effects?destination=hook`)).json()) as any[]).filter((e) => e.body.email === 'zoe@larkspur.example').map((e) => e.body.state);
  const granted = await consent(change('zoe', 'granted'), undefined, headers);
  expect(granted.body).toMatchObject({ state: 'applied' });
  expect(granted.body.opened).toBeUndefined();
  // One that is withdrawn before it is told is not told any more.
  await waitFor('the webhook has the grant', async () => (await told()).length === 1);
  await consent(change('zoe', 'withdrawn'));
  expect(await consent(change('zoe', 'granted'), undefined, headers)).toMatchObject({ status: 200, body: { id: granted.body.id, state: 'applied', opened: false } });
  await waitFor('the webhook has the withdrawal', async () => (await told()).length === 2);
  await weir.settled();
  expect(await told()).toEqual(['granted', 'withdrawn']);
});

test('a change that has come to hold is told to the webhook that subscribed to it, once', async () => {
  const { body } = await consent(change('fay', 'withdrawn'));
  const told = async (): Promise<any[]> => ((await (await fetch(`${weir.sandbox}/effects?destination=hook`)).json()) as any[]).filter((e) => e.body.change === body.id);
  await waitFor('the webhook was called', async () => (await told()).length > 0);
  await weir.settled();
  expect(await told()).toMatchObject([{ body: { type: 'consent.applied', state: 'withdrawn', channel: 'email', email: 'fay@larkspur.example' } }]);
});

test('a call that is open when the withdrawal comes holds back the answer until it has ended', async () => {
  await consent(change('bob', 'granted'));
  await fault({ destination: 'newsletter', mode: 'slow', delayMs: 1200, subject: 'bob@larkspur.example' });
  await identify('bob');
  await waitFor('the call is open', inHand);
  const { status, body } = await consent(change('bob', 'withdrawn'));
  expect({ status, state: body.state }).toEqual({ status: 200, state: 'applied' });
  expect(await arrivals('bob')).toHaveLength(1);
  expect(body.waitedMs).toBeGreaterThan(300);
});

test('somebody else’s slow call holds back nobody', async () => {
  await consent(change('cyd', 'granted'));
  await fault({ destination: 'newsletter', mode: 'slow', delayMs: 1800, subject: 'cyd@larkspur.example' });
  await identify('cyd');
  await waitFor('the call is open', inHand);
  const { body } = await consent(change('dan', 'withdrawn'));
  expect(body).toMatchObject({ state: 'applied' });
  expect(await arrivals('cyd')).toHaveLength(0);
});

test('a dispatcher that is stopped is waited for until its lease is over, and sends nothing when it goes on', async () => {
  await consent(change('eve', 'granted'));
  const stopped = weir.process('dispatcher', 2);
  stopped.kill('SIGSTOP');
  try {
    expect(await consent(change('eve', 'withdrawn'), '/v1/consent?wait=applied&timeout=500')).toMatchObject({ status: 202, body: { state: 'pending' } });
    const { status, body } = await consent(change('eve', 'withdrawn'), '/v1/consent?wait=applied');
    expect({ status, state: body.state }).toEqual({ status: 200, state: 'applied' });
    expect(body.waitedMs).toBeLessThan(sessionMs + callTimeoutMs);
  } finally {
    stopped.kill('SIGCONT');
  }
  for (let i = 0; i < 10; i++) await identify('eve');
  await weir.settled();
  expect(await arrivals('eve')).toEqual([]);
  // It is back: waiting is short again.
  await waitFor('the stopped one reports again', async () => (await consent(change('eve', 'withdrawn'), '/v1/consent?wait=applied&timeout=1000')).body.state === 'applied');
});

test.each([
  ['no token', {}, '', 401, 'unauthorized'],
  ['a token of nobody', { authorization: `Bearer weir_${'a'.repeat(43)}` }, change('x', 'withdrawn'), 401, 'unauthorized'],
  ['no JSON', undefined, '{"identifiers":', 400, 'body-malformed'],
  ['a body that nests too deep', undefined, `{"identifiers":${'['.repeat(50)}${']'.repeat(50)}}`, 400, 'body-malformed'],
  ['nobody', undefined, { ...change('x', 'withdrawn'), identifiers: {} }, 400, 'bad-request'],
  ['an unknown field', undefined, { ...change('x', 'withdrawn'), wat: 1 }, 400, 'bad-request'],
  ['an unknown purpose', undefined, { ...change('x', 'withdrawn'), purpose: 'world-domination' }, 400, 'bad-request'],
  ['an unknown state', undefined, change('x', 'opted-out'), 400, 'bad-request'],
  ['a phone number that is none', undefined, { ...change('x', 'withdrawn'), identifiers: { phone: '030 123' } }, 400, 'bad-request'],
  ['a proto key', undefined, '{"__proto__":{"admin":true},"identifiers":{"email":"x@larkspur.example"},"purpose":"email-marketing","state":"granted"}', 400, 'body-malformed'],
  ['a huge body', undefined, { ...change('x', 'withdrawn'), proof: 'x'.repeat(100_000) }, 413, 'body-too-large'],
] as const)('refused with its reason, and nothing is kept: %s', async (_name, headers, body, status, code) => {
  const answer = await (headers === undefined ? consent(body) : consent(body, '/v1/consent', headers as Record<string, string>));
  expect({ status: answer.status, error: answer.body.error }).toEqual({ status, error: code });
  expect(answer.body.message).not.toContain('larkspur');
});

/** What `weir trace` prints. */
const trace = async (event: string, waitS = 60): Promise<string> => {
  const { out, err } = await weir.cli('trace', event, '--wait', String(waitS));
  return out + err;
};

async function end(instance: number): Promise<void> {
  const child = weir.process('dispatcher', instance);
  const ended = new Promise((done) => child.once('exit', done));
  child.kill('SIGKILL');
  await ended;
}

test('closed without a state and on a policy error, and weir trace says which', async () => {
  const text = await trace(await identify('gus'));
  expect(text).toMatch(/outcome .*destination=newsletter .*state=denied reason=consent-missing/);
  expect(text).toMatch(/outcome .*destination=odd .*state=denied reason=policy-error/);
  expect(await arrivals('gus')).toEqual([]);
});

test('closed while no dispatcher has the tables, after their stores were deleted, and weir trace says so; a withdrawal still holds after it', async () => {
  await consent(change('hal', 'granted'));
  await consent(change('ivy', 'granted'));
  await identify('hal');
  await waitFor('the newsletter has him', async () => (await arrivals('hal')).length === 1);
  await Promise.all([end(1), end(2)]);
  for (const instance of [1, 2]) rmSync(join(weir.dataDir, 'state/dispatcher', String(instance)), { recursive: true });
  const withdrawn = await consent(change('ivy', 'withdrawn'));
  expect(withdrawn).toMatchObject({ status: 200, body: { state: 'applied' } });
  const [hal, ivy] = [await identify('hal'), await identify('ivy')];
  await waitFor('nobody may call', async () => (await weir.status()).callers === 0);
  const closed = await trace(hal, 3);
  expect(closed).toMatch(/not ended yet/);
  expect(closed).toMatch(/waits: newsletter is closed: no dispatcher has read the tables of consent, \d+ deliveries wait/);
  await weir.start('dispatcher');
  expect(await trace(hal)).toMatch(/outcome .*destination=newsletter .*state=delivered/);
  expect(await trace(ivy)).toMatch(/outcome .*destination=newsletter .*state=denied reason=consent-withdrawn/);
  expect(await arrivals('ivy')).toEqual([]);
});

test('closed while the table of consent has not caught up, and weir trace says so', async () => {
  const thaw = await freeze(weir.process('policy').pid!);
  let event = '';
  try {
    event = await identify('jay', { marketingConsent: true });
    const text = await trace(event, 3);
    expect(text).toMatch(/waits: not decided, so closed: [1-9]\d* records wait for the policy service, [1-9]\d* changes of consent are not in its tables/);
    expect(await arrivals('jay')).toEqual([]);
  } finally {
    thaw();
  }
  expect(await trace(event)).toMatch(/outcome .*destination=newsletter .*state=delivered/);
});

test('a kill switch is acknowledged when both dispatchers have it; while one stands still, after its lease, and when that one goes on it calls nobody', async () => {
  const pull = async (action: string): Promise<Answer> => {
    const began = performance.now();
    const response = await fetch(`${weir.url('control')}/v1/destinations/crm/${action}`, { method: 'POST', headers: { authorization: `Bearer ${weir.secret('ADMIN_TOKEN')}`, 'content-type': 'application/json' }, body: '{}' });
    return { status: response.status, body: await response.json(), ms: performance.now() - began };
  };
  // The tests before this one end it.
  const { exitCode, signalCode } = weir.process('dispatcher', 2);
  if (exitCode !== null || signalCode !== null) await weir.start('dispatcher', 2);
  const applied = { status: 200, body: { paused: true, applied: true, missing: [] } };
  const live = await pull('pause');
  expect(live).toMatchObject(applied);
  expect(live.ms).toBeLessThan(sessionMs);
  expect(await pull('resume')).toMatchObject({ status: 200, body: { paused: false, applied: true } });
  // So slow that some wait still when both are paused, however long it takes to send them.
  await fault({ destination: 'crm', mode: 'slow', delayMs: 500 });
  for (let i = 0; i < 300; i++) await identify(`kim${i}`);
  const calls = async (): Promise<{ at: string }[]> => (await (await fetch(`${weir.sandbox}/arrivals?destination=crm`)).json()) as { at: string }[];
  const before = (await calls()).length;
  await waitFor('crm is called', async () => (await calls()).length > before);
  const thaw = await freeze(weir.process('dispatcher', 2).pid!);
  try {
    const half = await pull('pause');
    expect(half).toMatchObject(applied);
    expect(half.ms).toBeGreaterThan(sessionMs);
  } finally {
    thaw();
  }
  const acknowledged = Date.now();
  await waitFor('the one that stood still is ready again', async () => (await fetch(`${weir.url('dispatcher', 2)}/readyz`)).ok, 60_000);
  expect((await calls()).filter((a) => Date.parse(a.at) > acknowledged)).toEqual([]);
  expect((await pull('resume')).status).toBe(200);
  await identify('kim-after');
  await waitFor('crm is called again', async () => (await calls()).some((a) => Date.parse(a.at) > acknowledged), 60_000);
});
