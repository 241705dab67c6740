import { randomBytes, randomUUID } from 'node:crypto';
import { objectOf, oneObject, signWebhook, textOf, verifyWebhook, type AdapterConfig, type Json, type SamplePerson, type WebhookSource } from '@weir/adapter';
import { manifest } from './manifest.ts';

const ownLimits = manifest.source!.limits;

function secretsOf(config: AdapterConfig): string[] {
  return String(config['secret']).split(/\s+/).filter((s) => s !== '').slice(0, 2);
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify: (request, config, now) => verifyWebhook(secretsOf(config), request.headers, request.body, now, Number(config['tolerance']) * 1000),
  /** The webhook id is the sender's identity of the event; it travels beside the untouched bytes. */
  split: (request, _config, limits = ownLimits) => ({ items: [oneObject(request.body, limits)], envelope: { id: request.headers['webhook-id'] ?? '' } }),
  identify(item, _config, envelope) {
    const data = objectOf(item.value, 'data');
    const objectKey = textOf(data, 'user_id') ?? textOf(data, 'userId') ?? textOf(data, 'customer_id') ?? textOf(data, 'email') ?? textOf(data, 'id');
    const id = textOf(envelope ?? {}, 'id');
    return id === undefined ? { parts: [objectKey ?? '', textOf(item.value, 'timestamp') ?? ''], unique: false, objectKey } : { parts: [id], unique: true, objectKey };
  },
  sign: (body, config, now) => ({ headers: { ...signWebhook(secretsOf(config)[0]!, `msg_${randomUUID().replaceAll('-', '')}`, now, body), 'content-type': 'application/json' } }),
  localSecrets: () => ({ secret: { value: `whsec_${randomBytes(32).toString('base64')}` } }),
  sample: (person: SamplePerson, now: number): Json => ({ type: 'contact.updated', timestamp: new Date(now).toISOString(), data: { user_id: person.userId, email: person.email, first_name: person.firstName ?? null, last_name: person.lastName ?? null, phone: person.phone ?? null, country: person.country ?? null, plan: 'silver' } }),
};
