import type { BatchItem, Delivery, HttpResponse, Verdict } from '@weir/adapter';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { destination } from './destination.ts';

const config = (batch: object, over: object = {}) => ({ baseUrl: 'https://api.example', authHeader: 'authorization', operations: { put: { accepts: ['Profile'], path: '/rows', body: { email: '{{record.email}}' }, idempotency: { scheme: 'body-field', name: '/key' }, batch, ...over } } });
const itemsOf = (count: number, settings: object): BatchItem[] => Array.from({ length: count }, (_, i) => {
  const delivery = { operation: 'put', record: { email: `p${i}@x.example` }, identifiers: [] } as unknown as Delivery;
  return { delivery, key: `k${i}`, text: destination.batch!.item(delivery, `k${i}`, settings) };
});
const answer = (status: number, body: unknown): HttpResponse => ({ status, headers: {}, body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)) });
const kinds = (verdicts: Verdict | readonly Verdict[], count: number): string[] => (Array.isArray(verdicts) ? verdicts : Array(count).fill(verdicts)).map((v: Verdict) => v.kind);

test('items stand in the body as they would alone, each with its key', () => {
  const settings = config({ path: '/rows/bulk', body: { rows: '{{items}}', mode: 'upsert' } });
  const request = destination.batch!.request(itemsOf(2, settings), settings, 0);
  expect(request).toMatchObject({ method: 'POST', url: 'https://api.example/rows/bulk' });
  expect(JSON.parse(String(request.body))).toEqual({ rows: [{ email: 'p0@x.example', key: 'k0' }, { email: 'p1@x.example', key: 'k1' }], mode: 'upsert' });
  const plain = config({});
  expect(JSON.parse(String(destination.batch!.request(itemsOf(1, plain), plain, 0).body))).toEqual([{ email: 'p0@x.example', key: 'k0' }]);
});

test('each item gets the verdict that the answer has for it, whatever the order', () => {
  const settings = config({ results: { path: 'results', key: 'id', status: 'code', verdicts: [{ status: 409, verdict: 'ok' }] } });
  const items = itemsOf(5, settings);
  const results = [{ id: 'k3', code: 500 }, { id: 'k0', code: 200 }, { id: 'k1', code: 422 }, { id: 'k2', code: 409 }, { id: 'k9', code: 200 }, null, 7];
  expect(kinds(destination.batch!.classify(answer(200, { results }), items, settings), 5)).toEqual(['ok', 'permanent', 'ok', 'retry', 'retry']);
});

test('where only failures are listed, the others are done; by position', () => {
  const settings = config({ results: { path: 'errors', position: 'index', status: 'code', missing: 'ok' } });
  expect(kinds(destination.batch!.classify(answer(200, { errors: [{ index: 1, code: 400 }] }), itemsOf(3, settings), settings), 3)).toEqual(['ok', 'permanent', 'ok']);
  expect(kinds(destination.batch!.classify(answer(200, {}), itemsOf(3, settings), settings), 3)).toEqual(['ok', 'ok', 'ok']);
});

test('an answer that does not tell of an item is no success of it, and trouble of the whole is trouble of each', () => {
  const settings = config({ results: { path: 'results', key: 'id', status: 'code' } });
  const items = itemsOf(3, settings);
  for (const body of ['', 'null', '{}', '[', { results: [] }, { results: {} }]) expect(kinds(destination.batch!.classify(answer(200, body), items, settings), 3)).toEqual(['retry', 'retry', 'retry']);
  expect(kinds(destination.batch!.classify(answer(503, ''), items, settings), 3)).toEqual(['retry', 'retry', 'retry']);
  expect(kinds(destination.batch!.classify(answer(429, { results: [{ id: 'k0', code: 200 }] }), items, settings), 3)).toEqual(['ok', 'throttled', 'throttled']);
});

test('any answer gives a verdict for each item', () => {
  const settings = config({ results: { path: 'results', position: 'at', status: 'code' } });
  const items = itemsOf(4, settings);
  fc.assert(fc.property(fc.integer({ min: 100, max: 599 }), fc.oneof(fc.json(), fc.array(fc.record({ at: fc.oneof(fc.integer({ min: -2, max: 6 }), fc.double(), fc.string()), code: fc.oneof(fc.integer(), fc.string()) })).map((results) => JSON.stringify({ results }))), (status, body) => {
    const found = destination.batch!.classify(answer(status, body), items, settings);
    const list = Array.isArray(found) ? found as readonly Verdict[] : items.map(() => found as Verdict);
    expect(list).toHaveLength(4);
    for (const v of list) expect(['ok', 'retry', 'throttled', 'permanent', 'auth-broken']).toContain(v.kind);
  }));
});

test.each([
  [{ maxItems: 0 }, {}, /maxItems/], [{ body: { a: 1 } }, {}, /items/], [{ body: { a: '{{items}}', b: '{{items}}' } }, {}, /items/], [{ path: '/x/{{record.email}}' }, {}, /batch.path/],
  [{}, { idempotency: { scheme: 'header' } }, /batch/], [{ results: {} }, {}, /results.path/], [{ results: { path: 'r', key: 'a', position: 'b' } }, {}, /position/], [{ results: { path: 'r', verdicts: [{ verdict: 'no' }] } }, {}, /verdicts.0.verdict/], [{ colour: 1 }, {}, /colour/],
])('%j is refused with its place', (batch, over, place) => {
  expect(() => destination.operations!(config(batch, over))).toThrow(place);
});
