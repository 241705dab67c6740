import { createHmac, createSecretKey, timingSafeEqual, type KeyObject } from 'node:crypto';
import type { Verification } from './types.ts';

/** Compares without an oracle in time; different lengths are unequal. */
export function safeEqual(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

export function hmac(algorithm: 'sha1' | 'sha256', key: string | Buffer | KeyObject, ...parts: readonly (string | Buffer)[]): Buffer {
  const mac = createHmac(algorithm, key);
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** A header value may hold no control characters. Refuses rather than strips: a changed id would be another id. */
export function isHeaderSafe(value: string): boolean {
  return !/[\u0000-\u001f\u007f]|[^\u0000-\u00ff]/.test(value);
}

/** Undefined when a timestamp in seconds is within the tolerance of `now` (ms), to either side; else why not. */
export function staleness(timestamp: string | undefined, now: number, toleranceMs: number): string | undefined {
  if (timestamp === undefined || !/^\d{1,12}$/.test(timestamp)) return 'the timestamp is missing or no number';
  return Math.abs(now - Number(timestamp) * 1000) > toleranceMs ? 'the timestamp is out of tolerance' : undefined;
}

const maxSignatures = 10;
const maxKeys = 100;
/** With the bytes of a key, createHmac of Node 24 takes six times as long as with a KeyObject. */
const webhookKeys = new Map<string, KeyObject>();

/** Standard Webhooks 1.0 (github.com/standard-webhooks/standard-webhooks, spec): the key is the base64 part of `whsec_…`; other text is taken as it is. */
function webhookKey(secret: string): KeyObject {
  let key = webhookKeys.get(secret);
  if (key === undefined) {
    if (webhookKeys.size >= maxKeys) webhookKeys.clear();
    webhookKeys.set(secret, key = createSecretKey(secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret)));
  }
  return key;
}

/** Headers of a request signed by Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, base64, version v1. `now` in ms. */
export function signWebhook(secret: string, id: string, now: number, body: string | Buffer): Record<'webhook-id' | 'webhook-timestamp' | 'webhook-signature', string> {
  const timestamp = String(Math.floor(now / 1000));
  return { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': `v1,${hmac('sha256', webhookKey(secret), `${id}.${timestamp}.`, body).toString('base64')}` };
}

/** Checks a request signed by Standard Webhooks under any of the secrets: one signature of the list that fits is enough, as both sides rotate keys so. */
export function verifyWebhook(secrets: readonly string[], headers: Readonly<Record<string, string | undefined>>, body: Buffer, now: number, toleranceMs: number): Verification {
  const { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': list } = headers;
  // A dot in the id would let it run into the timestamp: two requests under one signature.
  if (id === undefined || !/^[\x21-\x2d\x2f-\x7e]{1,200}$/.test(id)) return { ok: false, detail: 'webhook-id is missing or malformed' };
  const stale = staleness(timestamp, now, toleranceMs);
  if (stale !== undefined) return { ok: false, detail: stale };
  const given = (list ?? '').split(' ', maxSignatures).filter((s) => s.startsWith('v1,')).map((s) => Buffer.from(s.slice(3), 'base64'));
  for (const secret of secrets) {
    const key = webhookKey(secret);
    if (key.symmetricKeySize === 0) continue;
    const expected = hmac('sha256', key, `${id}.${timestamp}.`, body);
    if (given.some((signature) => safeEqual(signature, expected))) return { ok: true };
  }
  return { ok: false, detail: 'no signature matches' };
}
