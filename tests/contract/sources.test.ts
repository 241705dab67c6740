import type { InboundRequest, Json, JsonObject } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { mappingOf, now, person, signed, take, webhookCases, type WebhookCase } from './world.ts';

const cases = webhookCases();
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
/** Segment's write key and OneTrust's bearer token name the caller; they do not sign the body. Segment's X-Signature has tests of its own. */
const bindsBody = (it: WebhookCase): boolean => it.name !== 'segment' && it.name !== 'onetrust';
const tolerance = (it: WebhookCase): number | undefined => it.config['tolerance'] as number | undefined;

const secretNames = (it: WebhookCase): string[] => Object.entries(it.adapter.manifest.source!.config).filter(([, field]) => field.secret === true).map(([name]) => name);

test('the registry has every source of the issue', () => {
  expect(cases.map((c) => c.name)).toEqual(expect.arrayContaining(['segment', 'sendgrid', 'stripe', 'standard-webhooks']));
});

const refusedAt = (it: WebhookCase, request: InboundRequest, at = now): boolean => !it.source.verify(request, it.config, at).ok;

test.each(cases.filter(bindsBody))('$name: one changed, added or lost byte of the body is refused', (it) => {
  const body = json(it.source.sample(person, now));
  const request = signed(it, body);
  for (const at of [0, Math.floor(body.length / 2), body.length - 1]) {
    const changed = Buffer.from(body);
    changed[at]! ^= 1;
    expect(refusedAt(it, { ...request, body: changed })).toBe(true);
  }
  expect(refusedAt(it, { ...request, body: Buffer.concat([body, Buffer.from(' ')]) })).toBe(true);
  expect(refusedAt(it, { ...request, body: body.subarray(1) })).toBe(true);
});

test.each(cases.filter((it) => tolerance(it) !== undefined))('$name: a signature past its tolerance is refused, to either side', (it) => {
  const request = signed(it, json(it.source.sample(person, now)));
  const limit = tolerance(it)! * 1000;
  for (const [offset, refused] of [[limit - 1000, false], [-limit + 1000, false], [limit + 2000, true], [-limit - 2000, true]] as const) expect(refusedAt(it, request, now + offset), String(offset)).toBe(refused);
});

describe.each(cases)('$name', (it) => {
  const { source, config } = it;
  const verify = (request: Parameters<typeof source.verify>[0], at = now, with_ = config) => source.verify(request, with_, at).ok;
  const sample = () => source.sample(person, now);

  test('what it signs it verifies, whatever the bytes', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      expect(verify(signed(it, Buffer.from(bytes)))).toBe(true);
    }), { numRuns: 30 });
  });

  test('a missing, cut, foreign or empty credential is refused', () => {
    const request = signed(it, json(sample()));
    const other = webhookCases().find((c) => c.name === it.name)!;
    expect(verify(signed(other, request.body))).toBe(false);
    expect(verify({ ...request, headers: {} })).toBe(false);
    const names = Object.keys(request.headers).filter((name) => name !== 'content-type');
    for (const name of names) {
      const value = request.headers[name]!;
      expect(verify({ ...request, headers: { ...request.headers, [name]: undefined } }), `without ${name}`).toBe(false);
      for (const bad of ['', value.slice(0, -8), value.slice(8), 'x'.repeat(100_000)]) expect(verify({ ...request, headers: { ...request.headers, [name]: bad } }), `${name}: ${bad.slice(0, 60)}`).toBe(false);
    }
    const empty = Object.fromEntries(secretNames(it).map((name) => [name, '']));
    expect(verify(request, now, { ...config, ...empty })).toBe(false);
  });

  test('no header makes it throw', () => {
    const names = Object.keys(signed(it, json(sample())).headers);
    const value = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constantFrom('Basic ', 'Basic ::', 't=,v1=', 't=1,v1', 'v1,', '=,=', '%'));
    fc.assert(fc.property(fc.dictionary(fc.constantFrom(...names), value), fc.uint8Array({ maxLength: 50 }), (headers, bytes) => {
      expect(verify({ method: 'POST', url: '/', headers, body: Buffer.from(bytes) })).toBe(false);
    }));
  });

  test('the secret is in no detail of a refusal', () => {
    const request = signed(it, json(sample()));
    const secrets = secretNames(it).map((name) => String(config[name]));
    for (const headers of [{}, { ...request.headers, ...Object.fromEntries(Object.keys(request.headers).map((n) => [n, 'x'])) }]) {
      const answer = JSON.stringify(source.verify({ ...request, headers }, config, now));
      for (const secret of secrets) expect(answer).not.toContain(secret);
    }
  });

  test('items keep their exact bytes, and the same bytes give the same ids under any white space around them', () => {
    const value = sample();
    const tight = take(it, signed(it, json(value), now));
    const request = signed(it, Buffer.from(`\n ${JSON.stringify(value, null, 3)}\r\n`), now);
    const loose = take(it, { ...request, headers: { ...request.headers, ...(it.name === 'standard-webhooks' ? { 'webhook-id': 'msg_1' } : {}) } });
    expect(loose.map((m) => m.item.value)).toEqual(tight.map((m) => m.item.value));
    for (const { item } of loose) {
      expect(request.body.includes(item.bytes)).toBe(true);
      expect(JSON.parse(item.bytes.toString())).toEqual(item.value);
    }
    const again = take(it, { ...request, headers: { ...request.headers, ...(it.name === 'standard-webhooks' ? { 'webhook-id': 'msg_1' } : {}) } });
    expect(again.map((m) => [m.eventId, m.objectKey, m.result])).toEqual(loose.map((m) => [m.eventId, m.objectKey, m.result]));
  });

  test('two successive updates of one object are two events and two outputs under one object key', () => {
    const first = take(it, signed(it, json(source.sample(person, now)), now));
    const second = take(it, signed(it, json(source.sample({ ...person, firstName: 'Anna', lastName: 'Berger' }, now + 1000)), now + 1000));
    expect(second.map((m) => m.objectKey)).toEqual(first.map((m) => m.objectKey));
    expect(first[0]!.objectKey).toBeTruthy();
    const ids = [...first, ...second].flatMap((m) => (m.result.kind === 'mapped' ? m.result.outputs.map((o) => o.outputId) : []));
    expect(new Set([...first, ...second].map((m) => m.eventId)).size).toBe(first.length + second.length);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBeGreaterThanOrEqual(2);
  });

  test('every item of a sample is mapped, and names the person', () => {
    for (const { result } of take(it, signed(it, json(sample())))) {
      if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
      for (const { record } of result.outputs) expect(record['email'] ?? record['userId']).toBeTruthy();
    }
  });

  test('any JSON item gets an identity and a mapping result, twice the same', () => {
    fc.assert(fc.property(fc.jsonValue({ maxDepth: 3 }), (anything) => {
      const value = JSON.parse(JSON.stringify(anything)) as Json;
      const item = { bytes: json(value), value };
      const id = source.identify(item, config, {});
      expect(id.parts.every((p) => typeof p === 'string')).toBe(true);
      expect(source.identify(item, config, {})).toEqual(id);
      const meta = { eventId: 'evt', source: it.name, acceptedAt: now };
      expect(mappingOf(it.name).apply(value, {} as JsonObject, meta)).toEqual(mappingOf(it.name).apply(value, {} as JsonObject, meta));
    }));
  });

  test.each([
    ['nothing', ''], ['text', 'hello'], ['a truncated body', '[{"a":1'], ['trailing bytes', '{} x'], ['NaN', '{"type":NaN}'], ['a BOM', '\ufeff{}'], ['null', 'null'], ['a number', '7'],
    ['depth', '['.repeat(10_000)], ['deep objects', `${'{"a":'.repeat(500)}1${'}'.repeat(500)}`], ['__proto__', '{"__proto__":{"type":"identify"},"type":"identify","id":"evt_1","batch":[]}'], ['half a surrogate pair', '{"type":"identify","id":"evt_1","x":"\\ud800"}'],
  ])('%s is refused at the door, with a code that answers 4xx', (_name, text) => {
    try {
      source.split(signed(it, Buffer.from(text)), config);
      expect.unreachable('it was accepted');
    } catch (error) {
      const known = findWeirError(error);
      expect(known?.entry.http, String(error)).toBeGreaterThanOrEqual(400);
      expect(known?.entry.http).toBeLessThan(500);
    }
  });

  test('the limits that the source sets count at the door, lower and higher than its own: what passes here and not behind it would be answered 2xx and lost', () => {
    const limits = it.adapter.manifest.source!.limits;
    const body = sample();
    const [levels, deep] = [limits.depth + 4, JSON.parse(`${'['.repeat(limits.depth)}${']'.repeat(limits.depth)}`) as Json];
    const nested = Array.isArray(body) ? [{ ...(body[0] as JsonObject), deep }] : { ...(body as JsonObject), deep };
    expect(source.split(signed(it, json(nested)), config, { ...limits, depth: levels }).items.length).toBeGreaterThan(0);
    for (const [value, given] of [[nested, undefined], [body, { ...limits, depth: 1 }]] as const) expect(() => source.split(signed(it, json(value)), config, given)).toThrow(/nests deeper/);
  });

  test('limits, identity and signing are cited, secrets are marked', () => {
    const { identity, limits, retryHorizonMs, signing, config: schema } = it.adapter.manifest.source!;
    expect(identity.cite.length).toBeGreaterThan(20);
    expect(signing?.length).toBeGreaterThan(20);
    expect(Math.min(limits.bodyBytes, limits.items, limits.depth, retryHorizonMs)).toBeGreaterThan(0);
    for (const [name, field] of Object.entries(schema)) if (/key|secret|token|password/i.test(name)) expect(field.secret, name).toBe(true);
  });
});
