import { hmac, safeEqual, sliceBatch, textOf, type AdapterConfig, type InboundRequest, type Item, type Json, type JsonLimits, type JsonObject, type SamplePerson, type Split, type Verification, type WebhookSource } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { manifest } from './manifest.ts';

const ownLimits = manifest.source!.limits;
const types = new Set(['identify', 'track', 'page', 'screen', 'group', 'alias']);

/** Type by the path, /v1/<type>; undefined for /v1/batch, /v1/import and /webhooks. */
function typeOfPath(url: string): string | undefined {
  const last = url.split('?')[0]!.split('/').pop()!;
  return types.has(last) ? last : undefined;
}

function verify(request: InboundRequest, config: AdapterConfig): Verification {
  const basic = /^Basic ([A-Za-z0-9+/=_-]{1,512})$/.exec(request.headers['authorization'] ?? '')?.[1];
  if (basic !== undefined) {
    const given = Buffer.from(Buffer.from(basic, 'base64').toString('utf8').split(':')[0]!);
    return given.length > 0 && safeEqual(given, Buffer.from(config['writeKey'] as string)) ? { ok: true } : { ok: false, detail: 'write key is not the one of this source' };
  }
  const signature = request.headers['x-signature'];
  const secret = config['sharedSecret'] as string | undefined;
  if (signature === undefined || secret === undefined || secret === '') return { ok: false, detail: 'neither a write key nor a signature that can be checked' };
  const given = /^[0-9a-f]{40}$/i.test(signature) ? Buffer.from(signature, 'hex') : Buffer.alloc(0);
  return safeEqual(given, hmac('sha1', secret, request.body)) ? { ok: true } : { ok: false, detail: 'X-Signature does not match' };
}

/** A single call, or a batch with what its calls share. The type travels in the envelope when only the path says it. */
function split(request: InboundRequest, _config: AdapterConfig, limits: JsonLimits = ownLimits): Split {
  const { items, object } = sliceBatch(request.body, 'batch', limits);
  const envelope: JsonObject = Object.create(null) as JsonObject;
  // https://www.w3.org/TR/gpc/: the browser of the person says no to sale and sharing.
  if (request.headers['sec-gpc'] === '1') envelope['gpc'] = true;
  const pathType = typeOfPath(request.url);
  if (pathType !== undefined) envelope['type'] = pathType;
  if (items[0]?.value !== object) for (const key of ['context', 'integrations', 'sentAt']) if (object[key] !== undefined && object[key] !== null) envelope[key] = object[key];
  for (const item of items) if (typeOf(item, envelope) === undefined) throw new WeirError('body-malformed', 'a call has no type');
  return { items, envelope };
}

/** `type`, or `action` as older libraries send it, or the path. */
function typeOf(item: Item, envelope: JsonObject | undefined): string | undefined {
  if (item.value === null || typeof item.value !== 'object' || Array.isArray(item.value)) return undefined;
  const type = textOf(item.value, 'type') ?? textOf(item.value, 'action') ?? textOf(envelope ?? {}, 'type');
  return type !== undefined && types.has(type) ? type : undefined;
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify,
  split,
  identify(item, _config, envelope) {
    const person = textOf(item.value, 'userId') ?? textOf(item.value, 'user_id') ?? textOf(item.value, 'anonymousId') ?? textOf(item.value, 'anonymous_id');
    const messageId = textOf(item.value, 'messageId') ?? textOf(item.value, 'message_id');
    if (messageId !== undefined && messageId.length <= 200) return { parts: [messageId, typeOf(item, envelope) ?? ''], unique: true, objectKey: person };
    return { parts: [person ?? '', textOf(item.value, 'timestamp') ?? ''], unique: false, objectKey: person };
  },
  sign(_body, config) {
    return { path: '/v1/batch', headers: { authorization: `Basic ${Buffer.from(`${String(config['writeKey'])}:`).toString('base64')}`, 'content-type': 'application/json' } };
  },
  sample(person: SamplePerson, now: number): Json {
    const at = new Date(now).toISOString();
    const id = (n: number): string => `weir-sample-${now}-${Math.floor(Math.random() * 1e9)}-${n}`;
    const context = { library: { name: 'weir-send', version: '1' } };
    return {
      sentAt: at,
      batch: [
        { type: 'identify', messageId: id(1), userId: person.userId, timestamp: at, context, traits: { email: person.email, phone: person.phone ?? null, firstName: person.firstName ?? null, lastName: person.lastName ?? null, plan: 'premium', address: { country: person.country ?? null } } },
        { type: 'track', messageId: id(2), userId: person.userId, timestamp: at, context, event: 'Signed Up', properties: { plan: 'premium', email: person.email } },
      ],
    };
  },
};

