import { randomUUID } from 'node:crypto';
import { hmac, objectOf, oneObject, safeEqual, textOf, type AdapterConfig, type InboundRequest, type Json, type SamplePerson, type Verification, type WebhookSource } from '@weir/adapter';

const maxSignatures = 10;

function keysOf(config: AdapterConfig): Buffer[] {
  return String(config['secret']).split(/\s+/).filter((s) => s !== '').slice(0, 2).map((s) => (s.startsWith('whsec_') ? Buffer.from(s.slice(6), 'base64') : Buffer.from(s)));
}

function verify(request: InboundRequest, config: AdapterConfig, now: number): Verification {
  const id = request.headers['webhook-id'];
  const timestamp = request.headers['webhook-timestamp'];
  const header = request.headers['webhook-signature'];
  if (id === undefined || timestamp === undefined || header === undefined) return { ok: false, detail: 'webhook-id, webhook-timestamp or webhook-signature is missing' };
  if (id.length > 200 || id.includes('.') || header.length > 4000) return { ok: false, detail: 'webhook-id or webhook-signature is too long, or the id has a dot' };
  if (!/^\d{1,12}$/.test(timestamp)) return { ok: false, detail: 'webhook-timestamp is not a number' };
  const age = Math.abs(now / 1000 - Number(timestamp));
  if (age > Number(config['tolerance'] ?? 300)) return { ok: false, detail: `the message is ${Math.round(age)} s off` };
  const given = header.split(' ').slice(0, maxSignatures).filter((s) => s.startsWith('v1,')).map((s) => Buffer.from(s.slice(3), 'base64'));
  const keys = keysOf(config);
  if (keys.some((k) => k.length === 0)) return { ok: false, detail: 'the secret is empty' };
  const matches = keys.some((key) => {
    const expected = hmac('sha256', key, `${id}.${timestamp}.`, request.body);
    return given.some((g) => safeEqual(g, expected));
  });
  return matches ? { ok: true } : { ok: false, detail: 'no v1 signature matches' };
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify,
  /** The webhook id is the sender's identity of the event; it travels beside the untouched bytes. */
  split: (request) => ({ items: [oneObject(request.body)], envelope: { id: request.headers['webhook-id'] ?? '' } }),
  identify(item, _config, envelope) {
    const data = objectOf(item.value, 'data');
    const objectKey = textOf(data, 'user_id') ?? textOf(data, 'userId') ?? textOf(data, 'customer_id') ?? textOf(data, 'email') ?? textOf(data, 'id');
    const id = textOf(envelope ?? {}, 'id');
    return id === undefined ? { parts: [objectKey ?? '', textOf(item.value, 'timestamp') ?? ''], unique: false, objectKey } : { parts: [id], unique: true, objectKey };
  },
  sign(body, config, now) {
    const id = `msg_${randomUUID().replaceAll('-', '')}`;
    const timestamp = String(Math.floor(now / 1000));
    const signature = hmac('sha256', keysOf(config)[0]!, `${id}.${timestamp}.`, body).toString('base64');
    return { headers: { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${signature}`, 'content-type': 'application/json' } };
  },
  localSecrets: () => ({ secret: { value: `whsec_${Buffer.from(randomUUID() + randomUUID()).subarray(0, 32).toString('base64')}` } }),
  sample: (person: SamplePerson, now: number): Json => ({ type: 'contact.updated', timestamp: new Date(now).toISOString(), data: { user_id: person.userId, email: person.email, first_name: person.firstName ?? null, last_name: person.lastName ?? null, phone: person.phone ?? null, country: person.country ?? null, plan: 'silver' } }),
};
