import { randomUUID } from 'node:crypto';
import { hmac, objectOf, safeEqual, slicePath, textOf, type AdapterConfig, type InboundRequest, type Item, type Json, type SamplePerson, type Verification, type WebhookSource } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { manifest } from './manifest.ts';

const ownLimits = manifest.source!.limits;

function verify(request: InboundRequest, config: AdapterConfig): Verification {
  const signature = request.headers['klaviyo-signature'];
  const timestamp = request.headers['klaviyo-timestamp'];
  if (signature === undefined || timestamp === undefined || timestamp.length > 64) return { ok: false, detail: 'signature or timestamp header is missing' };
  const secret = String(config['webhookSecret']);
  if (secret === '') return { ok: false, detail: 'the secret is empty' };
  if (!/^[0-9a-f]{64}$/i.test(signature)) return { ok: false, detail: 'signature is not hex' };
  return safeEqual(Buffer.from(signature, 'hex'), hmac('sha256', secret, request.body, timestamp)) ? { ok: true } : { ok: false, detail: 'signature does not match' };
}

/** The profile that an event names; else the event is the object. */
function profileOf(item: Item): string | undefined {
  const event = objectOf(objectOf(item.value, 'payload'), 'data');
  return textOf(objectOf(objectOf(objectOf(event, 'relationships'), 'profile'), 'data'), 'id');
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify,
  split(request, _config, limits = ownLimits) {
    const { items, value } = slicePath(request.body, ['data'], limits);
    const hook = textOf(objectOf(value, 'meta'), 'klaviyo_webhook_id');
    const named = request.headers['klaviyo-webhook-id'];
    // "If these values do not match, this indicates potential malicious activity and you should not process the webhook."
    if (named !== undefined && hook !== named) throw new WeirError('body-malformed', 'meta.klaviyo_webhook_id is another than the header says');
    return { items };
  },
  identify(item) {
    const id = textOf(item.value, 'external_id');
    const objectKey = profileOf(item);
    if (id !== undefined && id.length <= 200) return { parts: [id, textOf(item.value, 'topic') ?? ''], unique: true, objectKey };
    return { parts: [objectKey ?? '', textOf(item.value, 'topic') ?? ''], unique: false, objectKey };
  },
  sign(body, config, now) {
    const timestamp = new Date(now).toUTCString();
    return { headers: { 'klaviyo-signature': hmac('sha256', String(config['webhookSecret']), body, timestamp).toString('hex'), 'klaviyo-timestamp': timestamp, 'content-type': 'application/json' } };
  },
  sample(person: SamplePerson, now: number): Json {
    const id = randomUUID().replaceAll('-', '').slice(0, 11);
    const profile = { type: 'profile', id: `weir-${person.userId}` };
    return {
      data: [{
        topic: 'event:klaviyo.opened_email', external_id: id,
        payload: {
          data: { type: 'event', id, attributes: { timestamp: Math.floor(now / 1000), event_properties: { Subject: 'Welcome', 'Campaign Name': 'Spring' }, datetime: new Date(now).toISOString(), uuid: randomUUID() }, relationships: { profile: { data: profile }, metric: { data: { type: 'metric', id: 'WEIRoe' } } } },
          included: [{ ...profile, attributes: { email: person.email, phone_number: person.phone ?? null, external_id: person.userId } }],
        },
      }],
      meta: { timestamp: new Date(now).toISOString(), klaviyo_webhook_id: 'weir-sample', klaviyo_account_id: 'WEIR00', version: '2026-07-15' },
    };
  },
};
