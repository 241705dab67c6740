import { verifyWebhook } from '@weir/adapter';
import type { Adapter, AdapterConfig, Delivery, HttpFailure, HttpRequest, HttpResponse, Identifier, Json, JsonObject, OperationManifest, Verdict } from '@weir/adapter';
import { registry } from '@weir/adapters';
import { findWeirError, errorCodes } from '@weir/errors';
import { deliveryKey } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { recordOf } from './records.ts';
import { configOf, now } from './world.ts';

/** An operation of every scheme, with hostile places for values: path, query, headers, body. */
const operations = {
  'by-header': { kind: 'use', accepts: ['Profile', 'Event', 'Order', 'Company', 'CampaignMetric'], method: 'POST', path: '/rows/{{record_type}}?who={{record.email}}', headers: { 'X-Person': '{{record.userId}}', 'X-Tag': 'v {{record.email}}' }, idempotency: { scheme: 'header', name: 'Idempotency-Key', window: '24h' }, limit: { burst: { count: 10, per: '1s' }, bucket: 'rows', headers: { remaining: 'X-Acme-Remaining', reset: 'X-Acme-Reset', resetIn: 'epoch-seconds' } }, verify: { path: '/rows?key={{key}}&who={{record.email}}', headers: { 'X-Person': '{{record.userId}}' }, answers: [{ status: 200, equals: { 'data.key': '{{key}}' }, answer: 'applied' }, { status: 404, answer: 'not-applied' }] } },
  'by-body': { kind: 'use', accepts: ['Profile'], method: 'PATCH', path: '/people/{{record.userId}}/tags/{{record.email}}', idempotency: { scheme: 'body-field', name: '/attributes/dedupe~1key' } },
  upsert: { kind: 'use', accepts: ['Profile'], method: 'PUT', path: '/contacts/{{subject}}', body: { email: '{{record.email}}', all: ['{{record.attributes}}', '{{record.firstName}} {{record.lastName}}'] }, idempotency: { scheme: 'natural-upsert' } },
  erase: { kind: 'restrict', accepts: ['ConsentChange', 'Profile'], method: 'DELETE', path: '/contacts/{{record.email}}', idempotency: { scheme: 'natural-upsert', pastWindow: 'resend' }, verdicts: [{ status: 404, verdict: 'ok' }] },
  ping: { kind: 'use', accepts: ['Event'], method: 'POST', path: '/ping', body: { name: '{{record.name}}', text: 'key {{key}}' }, idempotency: { scheme: 'none' }, verdicts: [{ status: '2xx', body: '"accepted":\\s*false', verdict: 'permanent', effect: 'none' }, { header: { 'X-Limit': '^0$' }, verdict: 'throttled', effect: 'none' }] },
};

interface OperationCase {
  readonly name: string;
  readonly adapter: Adapter;
  readonly config: AdapterConfig;
  readonly operation: string;
  readonly manifest: OperationManifest;
}

const freeze = <T>(value: T): T => {
  if (value !== null && typeof value === 'object') for (const child of Object.values(value)) freeze(child);
  return Object.freeze(value);
};

const cases: OperationCase[] = [...registry.values()].flatMap((adapter) => {
  if (adapter.destination === undefined) return [];
  const over = adapter.manifest.name === 'http' ? { baseUrl: 'https://api.vendor.example/v2', operations } : {};
  const config = freeze(configOf(adapter.manifest.destination!.config, over));
  const all = adapter.destination.operations?.(config) ?? adapter.manifest.destination!.operations;
  return Object.entries(all).map(([operation, manifest]) => ({ name: `${adapter.manifest.name} ${operation}`, adapter, config, operation, manifest }));
});

function deliveryOf(it: OperationCase, recordType: string, record: JsonObject): Delivery {
  const identifiers: Identifier[] = [];
  for (const type of ['userId', 'email', 'phone', 'anonymousId'] as const) if (typeof record[type] === 'string') identifiers.push({ type, value: record[type] });
  return freeze({ destination: 'here', operation: it.operation, recordType, record, identifiers, eventId: 'evt_1', outputId: 'out_1', acceptedAt: now });
}

/** The request, or the one error that an adapter may answer with. */
function build(it: OperationCase, delivery: Delivery, key: string, at = now): HttpRequest | 'unbuildable' {
  try {
    return it.adapter.destination!.request(delivery, key, it.config, at);
  } catch (error) {
    if (findWeirError(error)?.code !== 'delivery-unbuildable') throw error;
    return 'unbuildable';
  }
}

const deliveries = (it: OperationCase): fc.Arbitrary<Delivery> => fc.oneof(...it.manifest.accepts.map((type) => recordOf(type).map((record) => deliveryOf(it, type, record))));
const plain = (over: JsonObject): JsonObject => ({ id: 'out_1', source: 's', objectKey: null, occurredAt: now, userId: 'u-1', anonymousId: null, email: 'ann@larkspur.example', phone: '+4930123456', externalIds: [], name: 'Thing Done', category: 'track', state: 'granted', status: 'completed', orderId: 'o-1', items: [], attributes: {}, firstName: 'Ann', lastName: 'Berg', groupId: 'g', purpose: 'email-marketing', channel: 'email', topic: null, extras: null, ...over });
const stateFor = (it: OperationCase): string => (it.manifest.kind === 'restrict' ? 'withdrawn' : 'granted');
const key = deliveryKey('out_1', 'here', 'op', '0', 0);
const secretsOf = (it: OperationCase): string[] => Object.entries(it.adapter.manifest.destination!.config).filter(([, f]) => f.secret === true).map(([name]) => String(it.config[name]));

function at(value: unknown, pointer: string): unknown {
  return pointer.split('/').slice(1).reduce((v: any, k) => v?.[k.replaceAll('~1', '/').replaceAll('~0', '~')], value);
}

test('the registry has every destination of the issue', () => {
  expect(new Set(cases.map((c) => c.adapter.manifest.name))).toEqual(new Set(['http', 'klaviyo']));
});

describe.each(cases)('$name', (it) => {
  const { destination, manifest: tool } = it.adapter;

  test('every record that it accepts gives a request or delivery-unbuildable, the same twice, and nothing is changed on the way', () => {
    let built = 0;
    fc.assert(fc.property(deliveries(it), (delivery) => {
      const first = build(it, delivery, key);
      if (first !== 'unbuildable') built++;
      expect(build(it, delivery, key)).toEqual(first);
    }), { numRuns: 300 });
    expect(built).toBeGreaterThan(0);
  });

  test('a plain record of every accepted type gives a request', () => {
    for (const type of it.manifest.accepts) expect(build(it, deliveryOf(it, type, plain({ state: stateFor(it) })), key), type).not.toBe('unbuildable');
  });

  test('no value of a record leads to another host or path, or into the headers', () => {
    const base = new URL(String(it.config['baseUrl']));
    fc.assert(fc.property(deliveries(it), (delivery) => {
      const request = build(it, delivery, key);
      if (request === 'unbuildable') return;
      const url = new URL(request.url);
      expect(url.origin).toBe(base.origin);
      expect(url.pathname.startsWith(base.pathname)).toBe(true);
      expect(url.pathname.split('/').length).toBe(new URL(request.url.replaceAll('%2F', '-')).pathname.split('/').length);
      for (const [name, value] of Object.entries(request.headers)) {
        expect(name).toMatch(/^[a-z0-9!#$%&'*+.^_`|~-]+$/);
        expect(value).not.toMatch(/[\u0000-\u001f\u007f]/);
      }
      expect(Object.keys(request.headers)).not.toContain('x-injected');
      if (request.body !== undefined) expect(() => JSON.parse(String(request.body))).not.toThrow();
    }), { numRuns: 300 });
  });

  test('a line break in every field of the record reaches no header', () => {
    for (const type of it.manifest.accepts) {
      const record = Object.fromEntries(Object.entries(plain({})).map(([k, v]) => [k, typeof v === 'string' ? `${v}\r\nx-injected: 1` : v]));
      const request = build(it, deliveryOf(it, type, { ...record, state: stateFor(it), channel: 'email' }), key);
      if (request !== 'unbuildable') expect(JSON.stringify(request.headers)).not.toContain('injected');
    }
  });

  test('what no mapping used leaves to nobody', () => {
    for (const type of it.manifest.accepts) {
      const request = build(it, deliveryOf(it, type, plain({ state: stateFor(it), extras: '{"ssn":"marker-of-extras"}' })), key);
      expect(JSON.stringify(request)).not.toContain('marker-of-extras');
    }
  });

  test('the secret stands in its header and nowhere else', () => {
    const request = build(it, deliveryOf(it, it.manifest.accepts[0]!, plain({ state: stateFor(it) })), key) as HttpRequest;
    const { [String(it.config['authHeader'] ?? 'authorization')]: auth, ...headers } = request.headers;
    expect(auth).toBeTruthy();
    for (const secret of secretsOf(it)) expect(JSON.stringify({ ...request, headers })).not.toContain(secret);
  });

  test('the idempotency key is where the manifest says, byte for byte, on every try', () => {
    const { scheme, name } = it.manifest.idempotency;
    for (const type of it.manifest.accepts) {
      const delivery = deliveryOf(it, type, plain({ state: stateFor(it) }));
      const tries = [now, now + 1, now + 86_400_000].map((t) => build(it, delivery, key, t) as HttpRequest);
      const stripped = tries.map(({ headers, ...request }) => ({ ...request, headers: Object.fromEntries(Object.entries(headers).filter(([h]) => !/^webhook-(timestamp|signature)$/.test(h))) }));
      expect(stripped[1]).toEqual(stripped[0]);
      expect(stripped[2]).toEqual(stripped[0]);
      if (scheme === 'header') expect(tries[0]!.headers[name!.toLowerCase()]).toBe(key);
      if (scheme === 'body-field') expect(at(JSON.parse(String(tries[0]!.body)), name!)).toBe(key);
    }
  });

  test('two successive updates of one object are two requests under two keys, the same one twice is one', () => {
    const keys = ['out_1', 'out_2', 'out_1'].map((output) => deliveryKey(output, 'here', it.operation, '0', 0));
    expect(new Set(keys).size).toBe(2);
    const type = it.manifest.accepts[0]!;
    const [first, second, again] = keys.map((k, i) => build(it, deliveryOf(it, type, plain({ state: stateFor(it), firstName: i === 1 ? 'Anna' : 'Ann', channel: 'email' })), k));
    expect(again).toEqual(first);
    if (it.manifest.idempotency.scheme === 'header' || it.manifest.idempotency.scheme === 'body-field') expect(second).not.toEqual(first);
  });

  const bodies = fc.oneof(fc.uint8Array({ maxLength: 200 }).map((b) => Buffer.from(b)), fc.json().map((t) => Buffer.from(t)), fc.constantFrom('{"errors":[null,{"code":5},{"code":"invalid","source":{"pointer":"/data"}}]}', '{"errors":{}}', '['.repeat(5000)).map((t) => Buffer.from(t)));
  const headers = fc.dictionary(fc.constantFrom('retry-after', 'date', 'content-type', 'x-limit'), fc.oneof(fc.string(), fc.constantFrom('5', '-1', '1e9', 'Wed, 21 Oct 2026 07:28:00 GMT', '99999999999999999999', '0')));
  const responses: fc.Arbitrary<HttpResponse | HttpFailure> = fc.oneof(
    fc.record({ status: fc.integer({ min: 100, max: 999 }), headers, body: bodies }),
    fc.record({ failure: fc.constantFrom('connect', 'timeout', 'reset', 'forbidden-address', 'redirect', 'too-large', 'tls', 'unsendable'), sent: fc.boolean(), detail: fc.string() }),
  );
  const delivery = deliveryOf(it, it.manifest.accepts[0]!, plain({}));
  const verdict = (response: HttpResponse | HttpFailure): Verdict => destination!.classify(response, delivery, it.config);

  test('any answer and any lack of one gets a verdict that the dispatcher can act on', () => {
    fc.assert(fc.property(responses, (response) => {
      const found = verdict(response);
      expect(verdict(response)).toEqual(found);
      if (found.kind === 'ok') {
        expect(found.effect).toBe('done');
        return;
      }
      expect(errorCodes).toContain(found.code);
      if (found.kind !== 'permanent') expect(['none', 'maybe']).toContain(found.effect);
      if ('retryAfterMs' in found && found.retryAfterMs !== undefined) expect(found.retryAfterMs).toBeGreaterThanOrEqual(0);
      if ('failure' in response && !response.sent) expect(found.effect).toBe('none');
      if ('failure' in response && response.sent) expect(found.effect).not.toBe('none');
    }), { numRuns: 500 });
  });

  test('a detail repeats neither the vendor\'s text nor a secret', () => {
    const body = Buffer.from(JSON.stringify({ errors: [{ code: 'invalid', detail: 'ann@larkspur.example is bad', title: 'ann@larkspur.example', source: { pointer: '/data/ann@larkspur.example' } }], message: 'ann@larkspur.example' }));
    for (const status of [400, 401, 409, 422, 429, 500]) expect(JSON.stringify(verdict({ status, headers: {}, body }))).not.toContain('larkspur');
  });

  test('401 pauses, 429 waits as asked, 5xx and a lost answer may have had an effect, 422 is final without one', () => {
    const answer = (status: number, extra: Record<string, string> = {}) => verdict({ status, headers: extra, body: Buffer.alloc(0) });
    expect(answer(401)).toMatchObject({ kind: 'auth-broken', effect: 'none' });
    expect(answer(429, { 'retry-after': '7' })).toMatchObject({ kind: 'throttled', effect: 'none', retryAfterMs: 7000 });
    expect(answer(503, { date: 'Wed, 21 Oct 2026 07:28:00 GMT', 'retry-after': 'Wed, 21 Oct 2026 07:28:30 GMT' })).toMatchObject({ kind: 'retry', effect: 'maybe', retryAfterMs: 30_000 });
    expect(answer(422)).toMatchObject({ kind: 'permanent', effect: 'none' });
    expect(verdict({ failure: 'timeout', sent: true, detail: '' })).toMatchObject({ kind: 'retry', effect: 'maybe' });
    expect(verdict({ failure: 'connect', sent: false, detail: '' })).toMatchObject({ kind: 'retry', effect: 'none' });
    // An outage page, a name that points into a private network for a while: nothing of it is the delivery's.
    expect(verdict({ failure: 'redirect', sent: true, detail: '' })).toMatchObject({ kind: 'retry', effect: 'maybe', code: 'address-forbidden' });
    expect(verdict({ failure: 'forbidden-address', sent: false, detail: '' })).toMatchObject({ kind: 'retry', effect: 'none', code: 'address-forbidden' });
    expect(verdict({ failure: 'unsendable', sent: false, detail: '' })).toMatchObject({ kind: 'permanent', effect: 'none', code: 'delivery-unbuildable' });
  });

  test('a read-back changes nothing, stays at the vendor, and any answer to it is one that the dispatcher can act on', () => {
    if (it.manifest.verify === undefined) return;
    const verify = destination!.verify!;
    expect(it.manifest.verify.cite.length).toBeGreaterThan(10);
    fc.assert(fc.property(deliveries(it), (d) => {
      let request: HttpRequest;
      try {
        request = verify.request(d, key, it.config, now);
      } catch (error) {
        expect(findWeirError(error)?.code).toBe('delivery-unbuildable');
        return;
      }
      expect(request.method).toBe('GET');
      expect(new URL(request.url).origin).toBe(new URL(String(it.config['baseUrl'])).origin);
      for (const value of Object.values(request.headers)) expect(value).not.toMatch(/[\u0000-\u001f\u007f]/);
    }), { numRuns: 200 });
    const asked = deliveryOf(it, it.manifest.accepts[0]!, plain({ state: stateFor(it) }));
    fc.assert(fc.property(responses, (response) => {
      const read = verify.classify(response, asked, key, it.config);
      expect(verify.classify(response, asked, key, it.config)).toEqual(read);
      expect(['applied', 'not-applied', 'unknown', 'retry', 'throttled', 'auth-broken']).toContain(read.kind);
      if ('failure' in response || response.status >= 500 || response.status === 429) expect(['applied', 'not-applied']).not.toContain(read.kind);
    }), { numRuns: 500 });
  });

  test('records exist, keys and limits say where they come from, secrets are marked', () => {
    for (const type of it.manifest.accepts) expect(loadSchemas().has(type), type).toBe(true);
    expect(it.manifest.idempotency.cite.length).toBeGreaterThan(10);
    if (tool.name !== 'http') expect(it.manifest.limit?.cite).toMatch(/limit/i);
    for (const [name, field] of Object.entries(tool.destination!.config)) if (/key|secret|token|password|^auth$/i.test(name)) expect(field.secret, name).toBe(true);
  });
});

describe('http', () => {
  const http = cases.find((c) => c.name === 'http erase')!;
  const config = (over: Json): AdapterConfig => ({ ...http.config, operations: { op: { accepts: ['Profile'], path: '/x', ...(over as JsonObject) } } });
  const problem = (over: Json): string => {
    try {
      http.adapter.destination!.operations!(config(over));
      return '';
    } catch (error) {
      expect(findWeirError(error)?.code).toBe('workspace-invalid');
      return (error as Error).message;
    }
  };
  test.each<[string, Json, RegExp]>([
    ['an unknown key', { mehtod: 'PUT' }, /op\.mehtod/], ['an unknown root of a placeholder', { path: '/{{recrod.email}}' }, /op\.path.*record/], ['an open placeholder', { body: { a: '{{ 1 + 1 }}' } }, /op\.body/],
    ['a header that frames', { headers: { 'Content-Length': '1' } }, /op\.headers/], ['a header with a line break', { headers: { 'a\r\nb': '1' } }, /op\.headers/], ['a key header that is none', { idempotency: { scheme: 'header', name: 'a b' } }, /idempotency\.name/],
    ['a key in the body of a DELETE', { method: 'DELETE', idempotency: { scheme: 'body-field', name: '/k' } }, /scheme/], ['a key in a body that is a list', { body: ['a'], idempotency: { scheme: 'body-field', name: '/k' } }, /op\.body/],
    ['a pointer into the prototype', { idempotency: { scheme: 'body-field', name: '/__proto__/x' } }, /idempotency\.name/], ['a pattern that is not RE2', { verdicts: [{ body: '(a', verdict: 'ok' }] }, /RE2/], ['a look-around', { verdicts: [{ body: '(?=a)', verdict: 'ok' }] }, /RE2/],
    ['done, and again', { verdicts: [{ status: 500, verdict: 'retry', effect: 'done' }] }, /effect/], ['a GET that would have an effect', { method: 'GET' }, /method/], ['a window without unit', { idempotency: { window: '24' } }, /window/],
    ['a limit of nothing', { limit: { burst: { count: 0, per: '1s' } } }, /limit\.burst/], ['a limit by another name', { limit: { hourly: { count: 1, per: '1h' } } }, /limit\.hourly/], ['a rate header that is none', { limit: { headers: { remaining: 'a b' } } }, /limit\.headers\.remaining/], ['a reset in another unit', { limit: { headers: { resetIn: 'fortnights' } } }, /resetIn/],
  ])('%s is a problem of the workspace, with its place', (_name, over, message) => {
    expect(problem(over)).toMatch(message);
  });

  test('an absent value in the path is refused: DELETE /contacts/ would be another resource', () => {
    for (const email of [null, '', '.', '..']) expect(build(http, deliveryOf(http, 'weir.canonical.Profile', plain({ email })), key), String(email)).toBe('unbuildable');
  });

  test('a 200 that says no in its body, and a header that says wait, are what the verdict table makes of them', () => {
    const ping = cases.find((c) => c.name === 'http ping')!;
    const of = (status: number, body: string, headers = {}) => ping.adapter.destination!.classify({ status, headers, body: Buffer.from(body) }, deliveryOf(ping, 'weir.canonical.Event', plain({})), ping.config);
    expect(of(200, '{"accepted": false}')).toMatchObject({ kind: 'permanent', effect: 'none' });
    expect(of(200, '{"accepted": true}')).toMatchObject({ kind: 'ok' });
    expect(of(200, '', { 'x-limit': '0' })).toMatchObject({ kind: 'throttled' });
    expect(of(200, '', { 'x-limit': '10' })).toMatchObject({ kind: 'ok' });
    const erase = http.adapter.destination!.classify({ status: 404, headers: {}, body: Buffer.alloc(0) }, deliveryOf(http, 'weir.canonical.Profile', plain({})), http.config);
    expect(erase).toEqual({ kind: 'ok', effect: 'done' });
  });

  test('a signed request verifies under Standard Webhooks by its own headers', () => {
    const request = build(http, deliveryOf(http, 'weir.canonical.Profile', plain({})), key) as HttpRequest;
    expect(verifyWebhook([String(http.config['signingSecret'])], request.headers, Buffer.from(String(request.body ?? '')), now, 1000)).toEqual({ ok: true });
    expect(request.headers['webhook-id']).toBe(key);
  });
});
