import { createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID, sign as signBytes, verify as verifyBytes, type KeyObject } from 'node:crypto';
import { sliceArray, textOf, type AdapterConfig, type InboundRequest, type Item, type Json, type SamplePerson, type Verification, type WebhookSource } from '@weir/adapter';
import { manifest } from './manifest.ts';

const signatureHeader = 'x-twilio-email-event-webhook-signature';
const timestampHeader = 'x-twilio-email-event-webhook-timestamp';
const ownLimits = manifest.source!.limits;

/** Parsed once per key: parsing costs more than a verification. */
const keys = new Map<string, KeyObject | undefined>();

function publicKey(text: string): KeyObject | undefined {
  if (!keys.has(text)) {
    if (keys.size > 100) keys.clear();
    let key: KeyObject | undefined;
    try {
      key = createPublicKey({ key: Buffer.from(text, 'base64'), format: 'der', type: 'spki' });
    } catch {
      // Not a key: every signature is wrong under it, and the verification says so.
      key = undefined;
    }
    keys.set(text, key?.asymmetricKeyDetails?.namedCurve === 'prime256v1' ? key : undefined);
  }
  return keys.get(text);
}

function verify(request: InboundRequest, config: AdapterConfig): Verification {
  const signature = request.headers[signatureHeader];
  const timestamp = request.headers[timestampHeader];
  if (signature === undefined || timestamp === undefined || timestamp.length > 32) return { ok: false, detail: 'signature or timestamp header is missing' };
  const key = publicKey(String(config['verificationKey']));
  if (key === undefined) return { ok: false, detail: 'verificationKey is not a P-256 public key' };
  if (!/^[A-Za-z0-9+/]{20,200}={0,2}$/.test(signature)) return { ok: false, detail: 'signature is not base64' };
  const signed = Buffer.concat([Buffer.from(timestamp, 'latin1'), request.body]);
  return verifyBytes('sha256', signed, key, Buffer.from(signature, 'base64')) ? { ok: true } : { ok: false, detail: 'signature does not match' };
}

function event(person: SamplePerson, now: number, name: string, more: Record<string, Json> = {}): Json {
  const id = randomUUID().replaceAll('-', '').slice(0, 22);
  return { email: person.email, timestamp: Math.floor(now / 1000), 'smtp-id': `<${id}@weir.example>`, event: name, category: ['welcome'], sg_event_id: id, sg_message_id: `${id}.filterdrecv-weir-1`, ...more };
}

export const source: WebhookSource = {
  kind: 'webhook',
  verify,
  split: (request, _config, limits = ownLimits) => ({ items: sliceArray(request.body, limits) }),
  identify(item: Item) {
    const id = textOf(item.value, 'sg_event_id');
    const objectKey = textOf(item.value, 'email')?.trim().toLowerCase();
    if (id !== undefined && id.length <= 200) return { parts: [id], unique: true, objectKey };
    return { parts: [objectKey ?? '', textOf(item.value, 'event') ?? '', textOf(item.value, 'timestamp') ?? ''], unique: false, objectKey };
  },
  sign(body, config, now) {
    const timestamp = String(Math.floor(now / 1000));
    const key = createPrivateKey({ key: Buffer.from(String(config['verificationKey']), 'base64'), format: 'der', type: 'pkcs8' });
    const signature = signBytes('sha256', Buffer.concat([Buffer.from(timestamp), body]), key).toString('base64');
    return { headers: { [signatureHeader]: signature, [timestampHeader]: timestamp, 'content-type': 'application/json' } };
  },
  localSecrets() {
    const { publicKey: pub, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    return { verificationKey: { value: pub.export({ format: 'der', type: 'spki' }).toString('base64'), signingValue: privateKey.export({ format: 'der', type: 'pkcs8' }).toString('base64') } };
  },
  sample: (person, now) => [
    event(person, now, 'processed'),
    event(person, now, 'delivered', { response: '250 OK' }),
    event(person, now, 'open', { useragent: 'Mozilla/5.0', ip: '198.51.100.7' }),
  ],
};
