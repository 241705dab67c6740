import { objectOf, oneObject, safeEqual, textOf, type AdapterConfig, type InboundRequest, type Json, type SamplePerson, type Verification, type WebhookSource } from '@weir/adapter';
import { manifest } from './manifest.ts';

const ownLimits = manifest.source!.limits;

function verify(request: InboundRequest, config: AdapterConfig): Verification {
  const token = config['token'] as string;
  const given = /^Bearer ([\x21-\x7e]{1,512})$/.exec(request.headers['authorization'] ?? '')?.[1];
  if (given === undefined || token === '') return { ok: false, detail: 'no bearer token' };
  return safeEqual(Buffer.from(given), Buffer.from(token)) ? { ok: true } : { ok: false, detail: 'the bearer token is not the one of this source' };
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify,
  split: (request, _config, limits = ownLimits) => ({ items: [oneObject(request.body, limits)] }),
  identify(item) {
    const payload = objectOf(item.value, 'payload');
    const objectKey = textOf(payload, 'dataSubjectGuid') ?? textOf(payload, 'dataSubjectEmail');
    const id = textOf(item.value, 'eventId');
    return id !== undefined && id.length <= 200 ? { parts: [id], unique: true, objectKey } : { parts: [objectKey ?? '', textOf(item.value, 'eventTime') ?? ''], unique: false, objectKey };
  },
  sign: (_body, config) => ({ headers: { authorization: `Bearer ${String(config['token'])}`, 'content-type': 'application/json' } }),
  sample(person: SamplePerson, now: number): Json {
    return {
      eventId: `weir-sample-${now}-${Math.floor(Math.random() * 1e9)}`, eventTime: new Date(now).toISOString(), eventType: '3010',
      payload: { dataSubjectGuid: `guid-${person.userId}`, dataSubjectEmail: person.email, profiles: [{ purposeId: 'email-marketing', collectionPointGuid: 'weir-sample', collectionPointVersion: 1, topics: [], profileFields: { TransactionStatus: 'WITHDRAWN' } }] },
    };
  },
};
