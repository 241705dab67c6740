import { createCipheriv, createDecipheriv, hash } from 'node:crypto';
import { WeirError } from '@weir/errors';

/**
 * A sealed value: 0x57, version 1, key id (16 bytes), nonce (12), ciphertext, tag (16). AES-256-GCM; the first 18
 * bytes are authenticated with it. The first byte is none of Avro's (0x00) or JSON's, so one look tells them apart.
 */
export const sealedMagic = 0x57;
const version = 1;
const idBytes = 16;
const nonceBytes = 12;
const tagBytes = 16;
const headBytes = 2 + idBytes;
/** Bytes of a sealed value besides its plaintext. */
export const sealOverhead = headBytes + nonceBytes + tagBytes;

const secretBytes = 32;
/** Of a key: its id, the cipher key and the nonce key. */
export const keyBytes = idBytes + 2 * secretBytes;

/**
 * What seals and opens the values of one owner: a view of its bytes, which nobody changes. None of them is a property of
 * its own, so what prints it shows no secret.
 */
export class SealKey {
  readonly #bytes: Buffer;

  /** @param bytes `keyBytes` of them, as `copyTo` writes them */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get id(): Buffer {
    return this.#bytes.subarray(0, idBytes);
  }

  /** As latin1 text: a KeyObject is dear to make (1 µs, and two handles for the collector to look after), and bytes take 14 µs longer in Node 24, which finds out by exceptions that they are no key. */
  get cipher(): string {
    return this.#bytes.toString('latin1', idBytes, idBytes + secretBytes);
  }

  /** For nonces only: 32 bytes that the cipher key does not tell. */
  get nonce(): Buffer {
    return this.#bytes.subarray(idBytes + secretBytes, keyBytes);
  }

  copyTo(out: Buffer, at: number): void {
    out.set(this.#bytes, at);
  }
}

/** How a cipher reads its key. */
const keyText = { encoding: 'latin1' } as const;

/** A key from its 32 secret bytes: cipher and nonce key by HKDF-SHA256 (RFC 5869), apart from each other. */
export function sealKey(id: Buffer, secret: Buffer): SealKey {
  // Not of the pool, whose bytes others get to see.
  const bytes = Buffer.allocUnsafeSlow(keyBytes);
  bytes.set(id, 0);
  hmacTo(extracted, 0, id, secret);
  hmacTo(bytes, idBytes, extracted, cipherInfo);
  hmacTo(bytes, idBytes + secretBytes, extracted, nonceInfo);
  extracted.fill(0);
  return new SealKey(bytes);
}

const extracted = Buffer.allocUnsafeSlow(secretBytes);

/** The first block of HKDF-Expand: what is told apart, and the number of the block. */
const cipherInfo = Buffer.from('weir seal cipher\u0001');
const nonceInfo = Buffer.from('weir seal nonce\u0001');
const block = 64;
const inner = Buffer.alloc(block * 2);
const outer = Buffer.alloc(block + secretBytes);

/** HMAC-SHA256 (RFC 2104) by one-shot hashes: hkdfSync costs four times as much, and the key of each person is derived again and again. A hash as text (binary is latin1) takes half of what one as a buffer does. For keys and messages of at most a block. */
function hmacTo(out: Buffer, at: number, key: Buffer, message: Buffer): void {
  for (let i = 0; i < block; i++) {
    const byte = i < key.length ? key[i]! : 0;
    inner[i] = byte ^ 0x36;
    outer[i] = byte ^ 0x5c;
  }
  inner.set(message, block);
  outer.write(hash('sha256', inner.subarray(0, block + message.length), 'binary'), block, 'latin1');
  out.write(hash('sha256', outer, 'binary'), at, secretBytes, 'latin1');
}

export function isSealed(bytes: Buffer): boolean {
  return bytes.length >= sealOverhead && bytes[0] === sealedMagic && bytes[1] === version;
}

/** What a serde can be asked to prepare: Avro in the Confluent wire format, or sealed. */
export function isReadable(value: Buffer | null): value is Buffer {
  return value !== null && ((value.length >= 5 && value[0] === 0) || isSealed(value));
}

/** Id of the key that opens it, as latin1 text of its bytes. Only for what `isSealed`. */
export function sealedBy(bytes: Buffer): string {
  return bytes.toString('latin1', 2, headBytes);
}

/**
 * Seal. The nonce is a keyed hash of the plaintext (as in AES-SIV, RFC 5297): the same bytes under the same key give the
 * same sealed bytes, wherever and whenever (I5), and two different ones never share a nonce but by a collision of 96 bits.
 */
export function seal(key: SealKey, plain: Buffer): Buffer {
  const out = Buffer.allocUnsafe(sealOverhead + plain.length);
  sealTo(key, plain, out, 0);
  return out;
}

/** The same into `out` from `at` on, where there is room for the overhead and the plaintext; gives where it ends. */
export function sealTo(key: SealKey, plain: Buffer, out: Buffer, at: number): number {
  const head = at + headBytes;
  out[at] = sealedMagic;
  out[at + 1] = version;
  out.set(key.id, at + 2);
  const size = secretBytes + plain.length;
  if (mixed.length < size) mixed = Buffer.allocUnsafe(size * 2);
  mixed.set(key.nonce, 0);
  mixed.set(plain, secretBytes);
  out.write(hash('sha256', mixed.subarray(0, size), 'binary'), head, nonceBytes, 'latin1');
  if (mixed.length > largestMixed) mixed = Buffer.allocUnsafe(firstMixed);
  const cipher = createCipheriv('aes-256-gcm', key.cipher, out.subarray(head, head + nonceBytes), keyText);
  cipher.setAAD(out.subarray(at, head));
  out.set(cipher.update(plain), head + nonceBytes);
  cipher.final();
  const end = head + nonceBytes + plain.length;
  out.set(cipher.getAuthTag(), end);
  return end + tagBytes;
}

const firstMixed = 16 * 1024;
const largestMixed = 1024 * 1024;
/** Nonce key and plaintext, for the hash. */
let mixed = Buffer.allocUnsafe(firstMixed);

/** Open. Throws avro-undecodable when the bytes were changed. */
export function unseal(key: SealKey, bytes: Buffer): Buffer {
  const decipher = createDecipheriv('aes-256-gcm', key.cipher, bytes.subarray(headBytes, headBytes + nonceBytes), keyText);
  decipher.setAAD(bytes.subarray(0, headBytes));
  decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes));
  const plain = decipher.update(bytes.subarray(headBytes + nonceBytes, bytes.length - tagBytes));
  try {
    decipher.final();
  } catch (error) {
    throw new WeirError('avro-undecodable', 'a sealed value was changed, or is under another key', { cause: error });
  }
  return plain;
}
