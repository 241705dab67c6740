import { expect, test } from 'vitest';
import { source } from './source.ts';

const body = '{"data":[],"meta":{"klaviyo_webhook_id":"01HOOK"}}';
const request = (headers: Record<string, string>, text = body) => ({ method: 'POST', url: '/webhooks/klaviyo', headers, body: Buffer.from(text) });

/** Computed by Python's hmac over the body and then the timestamp, as Klaviyo's guide has it. */
const vector = { 'klaviyo-timestamp': 'Thu, 04 Jan 2024 18:05:25 GMT', 'klaviyo-signature': '6ac433e510155233516a1057c9aa2ee9edfd344d870be84a066d632af2cd874b' };

test('a signature that another implementation made is taken, and none over another time', () => {
  const config = { webhookSecret: 'a-secret-of-24-characters' };
  expect(source.verify(request(vector), config, 0)).toEqual({ ok: true });
  expect(source.verify(request({ ...vector, 'klaviyo-timestamp': 'Thu, 04 Jan 2024 18:05:26 GMT' }), config, 0).ok).toBe(false);
  expect(source.verify(request(vector), { webhookSecret: '' }, 0).ok).toBe(false);
});

test('a body of another webhook than the header names is refused', () => {
  expect(source.split(request({ 'klaviyo-webhook-id': '01HOOK' }), {}).items).toEqual([]);
  expect(() => source.split(request({ 'klaviyo-webhook-id': '01OTHER' }), {})).toThrow(/klaviyo_webhook_id/);
  expect(() => source.split(request({ 'klaviyo-webhook-id': '01HOOK' }, '{"data":[],"meta":[]}'), {})).toThrow(/klaviyo_webhook_id/);
  expect(() => source.split(request({}, '{"data":{}}'), {})).toThrow(/array/);
});

test('one event under two topics is two, each of them the same whenever it comes', () => {
  const item = (topic: string) => ({ bytes: Buffer.from('{}'), value: { external_id: 'e1', topic } });
  const id = (topic: string) => source.identify(item(topic), {}, undefined).parts.join();
  expect(id('a')).toBe(id('a'));
  expect(id('a')).not.toBe(id('b'));
});
