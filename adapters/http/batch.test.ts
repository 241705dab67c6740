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

const listed = '{"errors":[{"index":1,"code":400,"message":"no such person"}]}';
test.each([
  ['cut short', listed.slice(0, -9)], ['with a broken emoji escape', listed.replace('no such', '\\ud83d')], ['with a Latin-1 byte', listed.replace('no such', 'déjà')],
  ['that nests too deep', listed.replace('{"errors"', `{"trace":${'['.repeat(40)}${']'.repeat(40)},"errors"`)], ['with the failures as an object', '{"errors":{"1":{"code":400}}}'], ['that is no JSON', '<html>'],
])('where only failures are listed, nothing of an answer %s is taken for delivered', (_name, body) => {
  const settings = config({ results: { path: 'errors', position: 'index', status: 'code', missing: 'ok' } });
  expect(destination.batch!.classify({ status: 200, headers: {}, body: Buffer.from(body, 'latin1') }, itemsOf(3, settings), settings)).toMatchObject({ kind: 'retry', effect: 'maybe' });
});

test('where only failures are listed, an answer that lists none is a success of all; a failure that names no item is taken for one of any', () => {
  const settings = config({ results: { path: 'errors', position: 'index', status: 'code', missing: 'ok' } });
  const kindsOf = (body: unknown): string[] => kinds(destination.batch!.classify(answer(200, body), itemsOf(3, settings), settings), 3);
  for (const body of ['', {}, { errors: null }, { errors: [] }, { errors: [{ index: 7, code: 200 }] }]) expect(kindsOf(body)).toEqual(['ok', 'ok', 'ok']);
  expect(kindsOf({ errors: [{ index: 1, code: 400 }, { index: '', code: 400 }] })).toEqual(['retry', 'permanent', 'retry']);
});

test('in the order sent, a list that is shorter or longer than the items gives none of its results to the wrong one', () => {
  const settings = config({ results: { path: 'results', status: 'code' } });
  const kindsOf = (...codes: number[]): string[] => kinds(destination.batch!.classify(answer(200, { results: codes.map((code) => ({ code })) }), itemsOf(3, settings), settings), 3);
  expect(kindsOf(200, 422, 500)).toEqual(['ok', 'permanent', 'retry']);
  expect(kindsOf(200, 422)).toEqual(['retry', 'retry', 'retry']);
  expect(kindsOf(200, 422, 200, 200)).toEqual(['retry', 'retry', 'retry']);
});

test('an item that the answer tells of twice is done only where both say so', () => {
  const settings = config({ results: { path: 'results', key: 'id', status: 'code' } });
  const results = [['k0', 200], ['k0', 422], ['k1', 200], ['k1', 201], ['k2', 422], ['k2', 200], ['k2', 422]].map(([id, code]) => ({ id, code }));
  const found = destination.batch!.classify(answer(200, { results }), itemsOf(3, settings), settings);
  expect(found).toMatchObject([{ kind: 'retry', effect: 'maybe' }, { kind: 'ok' }, { kind: 'retry', effect: 'maybe' }]);
});

test('a position that is no number is not that of the first item, or of the second', () => {
  const settings = config({ results: { path: 'results', position: 'at', status: 'code' } });
  const results = ['', [], [1], false, true, null, '1e0', ' 1', 0.5, '2'].map((at) => ({ at, code: 200 }));
  expect(kinds(destination.batch!.classify(answer(200, { results }), itemsOf(3, settings), settings), 3)).toEqual(['retry', 'retry', 'ok']);
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
  [{}, { idempotency: { scheme: 'header' } }, /batch/], [{ results: {} }, {}, /results.path/], [{ results: { path: 'r', missing: 'ok' } }, {}, /results.missing/], [{ results: { path: 'r', key: 'a', position: 'b' } }, {}, /position/], [{ results: { path: 'r', verdicts: [{ verdict: 'no' }] } }, {}, /verdicts.0.verdict/], [{ colour: 1 }, {}, /colour/],
])('%j is refused with its place', (batch, over, place) => {
  expect(() => destination.operations!(config(batch, over))).toThrow(place);
});
