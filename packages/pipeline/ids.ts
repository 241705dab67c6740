import { hash } from 'node:crypto';

const NUL = '\u0000';

const clean = (part: string): string => (part.includes(NUL) ? part.replaceAll(NUL, '\uFFFD') : part);

/** First 128 bits of SHA-256 over the parts joined by NUL, hex. Parts must not contain NUL (replaced by U+FFFD). */
function digest(parts: readonly string[]): string {
  let text = parts[0]!;
  if (parts.length > 1) {
    text = clean(text);
    for (let i = 1; i < parts.length; i++) text += NUL + clean(parts[i]!);
  }
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

/**
 * Event id of an item, from what its source says of it (`identify`). A sender's own id of an event counts within the object
 * that the event is of: one that is used again for another object is another event, and both take effect. With the object in it
 * an id stands in one partition of its raw topic, so that the same id with another body is always seen. Where the sender has no id of the event, the SHA-256 of
 * the item (`hash`) is part of it.
 */
export function itemEventId(source: string, { parts, unique, objectKey }: { readonly parts: readonly string[]; readonly unique: boolean; readonly objectKey?: string | undefined }, hash: string): string {
  return eventId(source, unique ? [...parts, objectKey ?? ''] : [...parts, hash]);
}

/** Output id = f(event id, name of the output in the mapping, object key of the output): never a position. */
export function outputId(event: string, outputName: string, objectKey: string): string {
  return 'out_' + digest(['output', event, outputName, objectKey]);
}

/**
 * Id of the change of consent that a second body under one event id brings. The output id is a function of the event id, so it
 * would be that of the first body's change, and the fold would take it for known. `hash` is that of the second body (`itemHash`).
 */
export function secondBodyChange(output: string, hash: string): string {
  return 'out_' + digest(['second-body', output, hash]);
}

/** Id of what a change of consent closes before its turn: the change itself is another one, and is decided at its turn. */
export function aheadChange(output: string): string {
  return 'out_' + digest(['ahead', output]);
}

/**
 * What a change of consent goes out as under an identifier that is linked and that it does not carry: the output, and the
 * keyed identifier, so that the same one has the same delivery key whatever else is linked meanwhile.
 */
export const linkedOutput = (output: string, id: string): string => `${output}~${id}`;

/** The output that this one is once more, and the linked identifier; undefined for any other output. */
export function linkedFrom(output: string): { readonly output: string; readonly id: string } | undefined {
  const at = output.indexOf('~');
  return at < 0 ? undefined : { output: output.slice(0, at), id: output.slice(at + 1) };
}

/** How its operation is shown, beside the one of the change itself: `<operation> (by email:<the first of the keyed identifier>)`. */
export const linkedOperation = (operation: string, id: string): string => `${operation} (by ${id.slice(0, id.indexOf(':') + 7)})`;

/** Idempotency key of a delivery. Byte-identical on every try of the same (output, destination, operation, intent, generation). */
export function deliveryKey(output: string, destination: string, operation: string, intent: string, generation: number): string {
  return 'dlv_' + digest(['delivery', output, destination, operation, intent, String(generation)]);
}

/** RFC 2104 for SHA-256: the key over ipad, the message behind it, and the key over opad, the inner digest behind it. */
interface Pads {
  inner: Buffer;
  readonly outer: Buffer;
}

const block = 64;
const padsOf = new WeakMap<Buffer, Pads>();
const largestInner = 64 * 1024;

function pads(key: Buffer): Pads {
  const known = padsOf.get(key);
  if (known !== undefined) return known;
  const padded = Buffer.alloc(block);
  (key.length > block ? hash('sha256', key, 'buffer') : key).copy(padded);
  const made = { inner: Buffer.alloc(1024), outer: Buffer.alloc(block + 32) };
  for (let i = 0; i < block; i++) {
    made.inner[i] = padded[i]! ^ 0x36;
    made.outer[i] = padded[i]! ^ 0x5c;
  }
  padsOf.set(key, made);
  return made;
}

/** HMAC-SHA256 of a text, as base64url. Two one-shot hashes that give text (binary is latin1) take a third of what an Hmac object with a KeyObject does; the test holds it to createHmac. */
export function hmacText(key: Buffer, text: string): string {
  const kept = pads(key);
  const room = block + text.length * 3;
  let { inner } = kept;
  if (room > inner.length) {
    inner = Buffer.alloc(room * 2);
    kept.inner.copy(inner, 0, 0, block);
    if (inner.length <= largestInner) kept.inner = inner;
  }
  const end = block + inner.write(text, block, 'utf8');
  kept.outer.write(hash('sha256', inner.subarray(0, end), 'binary'), block, 'latin1');
  return hash('sha256', kept.outer, 'base64url');
}

/**
 * Keyed id of an identifier: HMAC-SHA256 under the workspace key, first 128 bits, base64url. The value is
 * normalised first: e-mail trimmed and lower-cased, phone as E.164, others trimmed.
 */
export function keyedId(workspaceKey: Buffer, type: string, value: string): string {
  const normal = type === 'email' ? value.trim().toLowerCase() : value.trim();
  return hmacText(workspaceKey, type + NUL + normal).slice(0, 22);
}

/** Subject key of a record = its strongest keyed identifier. */
export function subjectKey(type: string, keyed: string): string {
  return `${type}:${keyed}`;
}
