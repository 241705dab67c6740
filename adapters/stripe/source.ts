import { randomUUID } from 'node:crypto';
import { hmac, objectOf, oneObject, safeEqual, staleness, textOf, type AdapterConfig, type InboundRequest, type Json, type SamplePerson, type Verification, type WebhookSource } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { manifest } from './manifest.ts';

const ownLimits = manifest.source!.limits;
const maxSignatures = 10;

function verify(request: InboundRequest, config: AdapterConfig, now: number): Verification {
  const header = request.headers['stripe-signature'];
  if (header === undefined || header.length > 2000) return { ok: false, detail: 'Stripe-Signature is missing' };
  const parts = header.split(',').map((p) => p.trim().split('=') as [string, string?]);
  const timestamp = parts.find(([k]) => k === 't')?.[1] ?? '';
  const signatures = parts.filter(([k]) => k === 'v1').slice(0, maxSignatures).map(([, v]) => v ?? '');
  if (signatures.length === 0) return { ok: false, detail: 'Stripe-Signature has no v1' };
  const stale = staleness(timestamp, now, Number(config['tolerance']) * 1000);
  if (stale !== undefined) return { ok: false, detail: stale };
  if (config['endpointSecret'] === '') return { ok: false, detail: 'the secret is empty' };
  const expected = hmac('sha256', String(config['endpointSecret']), `${timestamp}.`, request.body);
  const matches = signatures.some((s) => /^[0-9a-f]{64}$/i.test(s) && safeEqual(Buffer.from(s, 'hex'), expected));
  return matches ? { ok: true } : { ok: false, detail: 'no v1 signature matches' };
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify,
  split(request, _config, limits = ownLimits) {
    const item = oneObject(request.body, limits);
    if (textOf(item.value, 'id') === undefined || textOf(item.value, 'type') === undefined) throw new WeirError('body-malformed', 'not a Stripe event');
    return { items: [item] };
  },
  identify(item) {
    const object = objectOf(objectOf(item.value, 'data'), 'object');
    const objectKey = textOf(object, 'customer') ?? textOf(objectOf(object, 'customer'), 'id') ?? textOf(object, 'id');
    return { parts: [textOf(item.value, 'id') ?? ''], unique: true, objectKey };
  },
  sign(body, config, now) {
    const timestamp = String(Math.floor(now / 1000));
    return { headers: { 'stripe-signature': `t=${timestamp},v1=${hmac('sha256', String(config['endpointSecret']), `${timestamp}.`, body).toString('hex')}`, 'content-type': 'application/json' } };
  },
  sample(person: SamplePerson, now: number): Json {
    const id = randomUUID().replaceAll('-', '').slice(0, 24);
    const created = Math.floor(now / 1000);
    const customer = { id: `cus_${person.userId.replaceAll(/[^A-Za-z0-9]/g, '').slice(0, 14)}`, object: 'customer', address: { city: null, country: person.country ?? null, line1: null, postal_code: null, state: null }, balance: 0, created, currency: 'eur', delinquent: false, email: person.email, metadata: { user_id: person.userId }, name: [person.firstName, person.lastName].filter(Boolean).join(' ') || null, phone: person.phone ?? null, preferred_locales: ['de'] };
    return { id: `evt_${id}`, object: 'event', api_version: '2026-01-28', created, data: { object: customer }, livemode: false, pending_webhooks: 1, request: { id: null, idempotency_key: null }, type: 'customer.updated' };
  },
};
