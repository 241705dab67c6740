import { hmac } from '@weir/adapter';
import { expect, test } from 'vitest';
import { source } from './source.ts';

const now = 1_767_323_045_000;
const seconds = now / 1000;
const body = Buffer.from('{"id":"evt_1","object":"event","type":"customer.updated"}');
const sign = (secret: string): string => hmac('sha256', secret, `${seconds}.`, body).toString('hex');
const verify = (signature: string, secret = 'whsec_a') => source.verify({ method: 'POST', url: '/webhooks/stripe', headers: { 'stripe-signature': signature }, body }, { endpointSecret: secret, tolerance: 300 }, now).ok;

test('one of several v1 signatures is enough while the secret is rolled; v0 and others are not looked at', () => {
  expect(verify(`t=${seconds},v1=${sign('old')},v1=${sign('whsec_a')},v0=1`)).toBe(true);
  expect(verify(`t=${seconds},v0=${sign('whsec_a')}`)).toBe(false);
  expect(verify(`v1=${sign('whsec_a')}`)).toBe(false);
  expect(verify(`t=${seconds},${'v1=00,'.repeat(10)}v1=${sign('whsec_a')}`)).toBe(false);
});

test('an empty secret verifies nothing, not even what is signed with it', () => {
  expect(verify(`t=${seconds},v1=${sign('')}`, '')).toBe(false);
});

test('order is kept per customer, also when the customer is expanded', () => {
  const key = (object: object) => source.identify({ bytes: body, value: { id: 'evt_1', data: { object } } as never }, {}, undefined).objectKey;
  expect([key({ id: 'cus_1', object: 'customer' }), key({ id: 'sub_1', customer: 'cus_1' }), key({ id: 'sub_1', customer: { id: 'cus_1' } }), key({ id: 'sub_1', customer: null })]).toEqual(['cus_1', 'cus_1', 'cus_1', 'sub_1']);
});
