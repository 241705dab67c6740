import { hmac } from '@weir/adapter';
import { expect, test } from 'vitest';
import { source } from './source.ts';

const config = { writeKey: 'wk', sharedSecret: 'shared' };
const body = Buffer.from('{"type":"track","event":"A","userId":"u"}');
const verify = (headers: Record<string, string>, bytes = body, with_: object = config) => source.verify({ method: 'POST', url: '/webhooks/shop', headers, body: bytes }, with_, 0).ok;
const signature = hmac('sha1', 'shared', body).toString('hex');
const split = (value: unknown, url = '/v1/batch') => source.split({ method: 'POST', url, headers: {}, body: Buffer.from(JSON.stringify(value)) }, config);

test('X-Signature covers the whole body: a changed byte, a cut signature or no secret is refused', () => {
  expect(verify({ 'x-signature': signature })).toBe(true);
  expect(verify({ 'x-signature': signature.toUpperCase() })).toBe(true);
  expect(verify({ 'x-signature': signature }, Buffer.from(body.toString().replace('"A"', '"B"')))).toBe(false);
  expect(verify({ 'x-signature': signature.slice(0, 38) })).toBe(false);
  expect(verify({ 'x-signature': signature }, body, { writeKey: 'wk' })).toBe(false);
  expect(verify({ 'x-signature': hmac('sha1', '', body).toString('hex') }, body, { ...config, sharedSecret: '' })).toBe(false);
});

test('a batch signed by its first event only is refused: the others could be anybody\'s', () => {
  const batch = Buffer.from(`{"batch":[${body.toString()},{"type":"track","event":"Forged","userId":"u"}]}`);
  expect(verify({ 'x-signature': signature }, batch)).toBe(false);
});

test('a write key is taken with and without the colon of Basic, an empty one never', () => {
  const basic = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString('base64')}` });
  expect([verify(basic('wk:')), verify(basic('wk')), verify(basic('wk:any')), verify(basic('wk2:')), verify(basic(':'))]).toEqual([true, true, true, false, false]);
  expect(verify(basic(':'), body, { writeKey: '' })).toBe(false);
});

test('the path gives the type where the call has none; the call wins where it has one', () => {
  expect(split({ userId: 'u' }, '/v1/identify')).toMatchObject({ envelope: { type: 'identify' } });
  expect(() => split({ userId: 'u' })).toThrow(/type/);
  expect(() => split({ batch: [{ type: 'track' }, { userId: 'u' }] })).toThrow(/type/);
  expect(() => split({ type: 'delete', userId: 'u' }, '/webhooks/shop')).toThrow(/type/);
});

test('what surrounds a batch goes with its items, what is in a single call does not count twice', () => {
  expect(split({ batch: [{ type: 'track' }], context: { ip: '1' }, sentAt: 't', writeKey: 'wk' }).envelope).toEqual({ context: { ip: '1' }, sentAt: 't' });
  expect(split({ type: 'track', context: { ip: '1' } }, '/v1/track').envelope).toEqual({ type: 'track' });
});

test('an empty batch has no items and no error', () => {
  expect(split({ batch: [] }).items).toEqual([]);
});

test('a call without messageId is identified by its person, time and bytes; an overlong id is none', () => {
  const identify = (value: object) => source.identify({ bytes: Buffer.from(''), value: value as never }, config, undefined);
  expect(identify({ type: 'track', messageId: 'm', userId: 'u' })).toEqual({ parts: ['m', 'track'], unique: true, objectKey: 'u' });
  expect(identify({ anonymousId: 'a', timestamp: 't' })).toEqual({ parts: ['a', 't'], unique: false, objectKey: 'a' });
  expect(identify({ messageId: 'm'.repeat(201), userId: 'u' }).unique).toBe(false);
});

test('one messageId on calls of two types is two events, as in the examples of the spec; the path counts as the type', () => {
  const parts = (value: object, envelope: object) => source.identify({ bytes: Buffer.from(''), value: value as never }, config, envelope as never).parts;
  expect(parts({ messageId: 'm', type: 'page' }, {})).not.toEqual(parts({ messageId: 'm', type: 'track' }, {}));
  expect(parts({ messageId: 'm' }, { type: 'page' })).toEqual(parts({ messageId: 'm', action: 'page' }, {}));
});
