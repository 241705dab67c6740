import { createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto';

const NUL = '\u0000';

/** First 128 bits of SHA-256 over the parts joined by NUL, hex. Parts must not contain NUL (replaced by U+FFFD). */
function digest(parts: readonly string[]): string {
  const text = parts.length === 1 ? parts[0]! : parts.map((p) => (p.includes(NUL) ? p.replaceAll(NUL, '\uFFFD') : p)).join(NUL);
  return hash('sha256', text, 'hex').slice(0, 32);
}

/** SHA-256 of the item's bytes, hex, first 32 characters. */
export function itemHash(bytes: Buffer): string {
  return hash('sha256', bytes, 'hex').slice(0, 32);
}

/** Event id from the sender's identity of the event. Same sender event, same id, on every node and for ever. */
export function eventId(source: string, parts: readonly string[]): string {
  return 'evt_' + digest(['event', source, ...parts]);
}

/** Output id = f(event id, name of the output in the mapping, object key of the output): never a position. */
export function outputId(event: string, outputName: string, objectKey: string): string {
  return 'out_' + digest(['output', event, outputName, objectKey]);
}

/** Idempotency key of a delivery. Byte-identical on every try of the same (output, destination, operation, intent, generation). */
export function deliveryKey(output: string, destination: string, operation: string, intent: string, generation: number): string {
  return 'dlv_' + digest(['delivery', output, destination, operation, intent, String(generation)]);
}

/** With the bytes of a key, createHmac of Node 24 takes six times as long as with a KeyObject. */
const keyObjects = new WeakMap<Buffer, KeyObject>();

function keyObject(key: Buffer): KeyObject {
  let found = keyObjects.get(key);
  if (found === undefined) keyObjects.set(key, found = createSecretKey(key));
  return found;
}

/**
 * Keyed id of an identifier: HMAC-SHA256 under the workspace key, first 128 bits, base64url. The value is
 * normalised first: e-mail trimmed and lower-cased, phone as E.164, others trimmed.
 */
export function keyedId(workspaceKey: Buffer, type: string, value: string): string {
  const normal = type === 'email' ? value.trim().toLowerCase() : value.trim();
  return createHmac('sha256', keyObject(workspaceKey)).update(type).update(NUL).update(normal).digest().toString('base64url').slice(0, 22);
}

/** Subject key of a record = its strongest keyed identifier. */
export function subjectKey(type: string, keyed: string): string {
  return `${type}:${keyed}`;
}
