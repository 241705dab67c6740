import { expect, test } from 'vitest';
import { hmac, isHeaderSafe, safeEqual, signWebhook, verifyWebhook } from './signing.ts';

const now = 1_767_323_045_000;
const body = Buffer.from('{"a":1}');
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const headers = signWebhook(secret, 'msg_1', now, body);
const ok = (secrets: readonly string[], given: Record<string, string> = headers) => verifyWebhook(secrets, given, body, now, 300_000).ok;

test('the vector of the Standard Webhooks libraries verifies', () => {
  const signed = signWebhook(secret, 'msg_p5jXN8AQM9LWM0D4loKWxJek', 1_614_265_330_000, '{"test": 2432232314}');
  expect(signed['webhook-signature']).toBe('v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=');
});

test('while keys are rotated either secret and any signature of the list will do; other versions are not looked at', () => {
  const other = signWebhook('whsec_AAAA', 'msg_1', now, body);
  expect(ok(['whsec_AAAA', secret])).toBe(true);
  expect(ok([secret], { ...headers, 'webhook-signature': `${other['webhook-signature']} v1a,xx ${headers['webhook-signature']}` })).toBe(true);
  expect(ok([secret], { ...headers, 'webhook-signature': headers['webhook-signature'].replace('v1,', 'v2,') })).toBe(false);
  expect(ok([secret], { ...headers, 'webhook-signature': `${'v1,eA== '.repeat(10)}${headers['webhook-signature']}` })).toBe(false);
});

test('an empty secret verifies nothing, not even what is signed with it', () => {
  for (const empty of ['', 'whsec_']) {
    const forged = { ...headers, 'webhook-signature': `v1,${hmac('sha256', '', `msg_1.${now / 1000}.`, body).toString('base64')}` };
    expect(ok([empty], forged)).toBe(false);
  }
  expect(ok([])).toBe(false);
});

test('a dot in the id is refused: id and timestamp could trade places under one signature', () => {
  const shifted = signWebhook(secret, `msg_1.${now / 1000}`, now, body);
  expect(ok([secret], shifted)).toBe(false);
});

test('buffers of other lengths are unequal, and control characters are not header-safe', () => {
  expect(safeEqual(Buffer.from('a'), Buffer.from('ab'))).toBe(false);
  expect(['a\r\nb', 'a\u0000', 'a\u007f', '€'].some(isHeaderSafe)).toBe(false);
  expect(isHeaderSafe('Bearer ü')).toBe(true);
});
