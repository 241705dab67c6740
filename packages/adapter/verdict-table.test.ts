import { WeirError } from '@weir/errors';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileVerdicts, type VerdictSpec } from './verdict-table.ts';

const fail = (path: string, message: string): never => { throw new WeirError('workspace-invalid', `verdicts${path}: ${message}`); };
const answer = (status: number, body: unknown = '', headers: Record<string, string> = {}) => ({ status, headers, body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)) });
const verdict = (rules: readonly VerdictSpec[], ...given: Parameters<typeof answer>) => compileVerdicts(rules, fail).verdict(answer(...given));

test('the first line that matches counts, and every part of it must hold', () => {
  const rules: VerdictSpec[] = [
    { status: '4xx', code: { 'error.code': 'rate_limited|too_many' }, verdict: 'throttled', effect: 'none' },
    { status: '400', body: 'duplicate', verdict: 'ok' },
    { status: '400', header: { 'X-Retry': '^yes$' }, verdict: 'retry', effect: 'none' },
  ];
  expect(verdict(rules, 400, { error: { code: 'rate_limited' } })).toMatchObject({ kind: 'throttled', effect: 'none', code: 'vendor-throttled' });
  // The whole of the value, not a part of it.
  expect(verdict(rules, 400, { error: { code: 'not_rate_limited_at_all' } })).toMatchObject({ kind: 'permanent' });
  expect(verdict(rules, 503, { error: { code: 'rate_limited' } })).toMatchObject({ kind: 'retry', effect: 'maybe' });
  expect(verdict(rules, 400, 'a duplicate')).toEqual({ kind: 'ok', effect: 'done' });
  expect(verdict(rules, 400, '', { 'x-retry': 'yes' })).toMatchObject({ kind: 'retry', effect: 'none' });
});

test('the wait may stand in another header or in the body; what is no number is no wait', () => {
  const by = (retryAfter: VerdictSpec['retryAfter']): VerdictSpec[] => [{ status: '403', verdict: 'throttled', effect: 'none', retryAfter }];
  expect(verdict(by({ header: 'X-Reset' }), 403, '', { 'x-reset': '7' })).toMatchObject({ retryAfterMs: 7000 });
  expect(verdict(by({ path: 'error.wait', unit: 'milliseconds' }), 403, { error: { wait: 12.5 } })).toMatchObject({ retryAfterMs: 13 });
  for (const wait of ['soon', -1, null, {}, '1e9']) expect(verdict(by({ path: 'error.wait' }), 403, { error: { wait } })).toMatchObject({ retryAfterMs: undefined });
});

test('a body that is no JSON, too deep or too large has no code, and gets a verdict all the same', () => {
  const rules: VerdictSpec[] = [{ code: { 'a.b': '.+' }, verdict: 'ok' }];
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), fc.integer({ min: 100, max: 599 }), (bytes, status) => {
    expect(['ok', 'retry', 'throttled', 'permanent', 'auth-broken']).toContain(compileVerdicts(rules, fail).verdict({ status, headers: {}, body: Buffer.from(bytes) }).kind);
  }));
  for (const body of ['['.repeat(5000), '{"a":{"b":1}', `{"a":{"b":"${'x'.repeat(2 ** 20)}"}}`]) expect(verdict(rules, 404, body)).toMatchObject({ kind: 'permanent', effect: 'none' });
});

test.each([
  [{ status: '40' }, '.0.status'], [{ verdict: 'maybe' }, '.0.verdict'], [{ verdict: 'ok', effect: 'none' }, '.0.effect'], [{ verdict: 'retry', effect: 'done' }, '.0.effect'],
  [{ verdict: 'ok', code: { 'a..b': 'x' } }, '.0.code'], [{ verdict: 'ok', code: {} }, '.0.code'], [{ verdict: 'ok', header: 'x' }, '.0.header'], [{ verdict: 'retry', retryAfter: { header: 'a', path: 'b' } }, '.0.retryAfter'], [{ verdict: 'ok', colour: 1 }, '.0.colour'],
])('%j is refused with its place', (rule, place) => {
  expect(() => compileVerdicts([rule] as never, fail)).toThrow(`verdicts${place}`);
});
