import { createDecipheriv, hash } from 'node:crypto';
import { WeirError } from '@weir/errors';
import sodium from 'sodium-native';

/**
 * A sealed value: 0x57, version 2, key id (16 bytes), nonce (24), ciphertext, tag (16). XChaCha20-Poly1305 of libsodium;
 * the first 18 bytes are authenticated with it. The first byte is none of Avro's (0x00) or JSON's, so one look tells them
 * apart. Version 1 (nonce of 12 bytes, AES-256-GCM) stands on topics and in dead letters: it is read, and not written any
 * more (docs/decisions/0022).
 */
export const sealedMagic = 0x57;
const version = 2;
const idBytes = 16;
const nonceBytes = 24;
const tagBytes = 16;
const headBytes = 2 + idBytes;
/** Bytes of a sealed value, as it is written, besides its plaintext. */
export const sealOverhead = headBytes + nonceBytes + tagBytes;
const firstVersion = { version: 1, nonceBytes: 12, overhead: headBytes + 12 + tagBytes } as const;

const secretBytes = 32;
/** Of a key: its id, the cipher key, the nonce key and the secret that they come from. */
export const keyBytes = idBytes + 3 * secretBytes;

/**
 * What seals and opens the values of one owner: a view of its bytes, which nobody changes. None of them is a property of
 * its own, so what prints it shows no secret.
 */
export class SealKey {
  readonly #bytes: Buffer;
  #first: string | undefined;

  /** @param bytes `keyBytes` of them, as `copyTo` writes them */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get id(): Buffer {
    return this.#bytes.subarray(0, idBytes);
  }

  get cipher(): Buffer {
    return this.#bytes.subarray(idBytes, idBytes + secretBytes);
  }

  /** For nonces only: 32 bytes that the cipher key does not tell. */
  get nonce(): Buffer {
    return this.#bytes.subarray(idBytes + secretBytes, idBytes + 2 * secretBytes);
  }

  /** The cipher key of version 1, made when the first such value is opened. As latin1 text: bytes take 14 µs longer in Node 24, which finds out by exceptions that they are no key. */
  get firstCipher(): string {
    return (this.#first ??= firstCipherOf(this.id, this.#bytes.subarray(idBytes + 2 * secretBytes, keyBytes)));
  }

  copyTo(out: Buffer, at: number): void {
    out.set(this.#bytes, at);
  }
}

/** A key from its 32 secret bytes: cipher and nonce key are the halves of BLAKE2b-512 (RFC 7693), keyed with the secret, of a name and the id. */
export function sealKey(id: Buffer, secret: Buffer): SealKey {
  // Not of the pool, whose bytes others get to see.
  const bytes = Buffer.allocUnsafeSlow(keyBytes);
  bytes.set(id, 0);
  named.set(id, keyName.length);
  sodium.crypto_generichash(bytes.subarray(idBytes, idBytes + 2 * secretBytes), named, secret);
  bytes.set(secret, idBytes + 2 * secretBytes);
  return new SealKey(bytes);
}

const keyName = Buffer.from('weir seal key 2\u0000');
const named = Buffer.concat([keyName, Buffer.alloc(idBytes)]);

export function isSealed(bytes: Buffer): boolean {
  return bytes[0] === sealedMagic && ((bytes[1] === version && bytes.length >= sealOverhead) || (bytes[1] === firstVersion.version && bytes.length >= firstVersion.overhead));
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
 * same sealed bytes, wherever and whenever (I5), and two different ones never share a nonce but by a collision of 192 bits.
 */
export function seal(key: SealKey, plain: Buffer): Buffer {
  const out = Buffer.allocUnsafe(sealOverhead + plain.length);
  sealTo(key, plain, out, 0);
  return out;
}

/** The same into `out` from `at` on, where there is room for the overhead and the plaintext; gives where it ends. `plain` may lie in `out`, elsewhere. */
export function sealTo(key: SealKey, plain: Buffer, out: Buffer, at: number): number {
  const from = at + headBytes + nonceBytes;
  const end = from + plain.length + tagBytes;
  out[at] = sealedMagic;
  out[at + 1] = version;
  out.set(key.id, at + 2);
  const nonce = out.subarray(at + headBytes, from);
  sodium.crypto_generichash(nonce, plain, key.nonce);
  sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(out.subarray(from, end), plain, out.subarray(at, at + headBytes), null, nonce, key.cipher);
  return end;
}

/** Open what `isSealed`, of both versions. Throws avro-undecodable when the bytes were changed. */
export function unseal(key: SealKey, bytes: Buffer): Buffer {
  const first = bytes[1] === firstVersion.version;
  const plain = Buffer.allocUnsafe(first ? 0 : bytes.length - sealOverhead);
  try {
    if (first) return unsealFirst(key, bytes);
    sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(plain, null, bytes.subarray(headBytes + nonceBytes), bytes.subarray(0, headBytes), bytes.subarray(headBytes, headBytes + nonceBytes), key.cipher);
    return plain;
  } catch (error) {
    throw new WeirError('avro-undecodable', 'a sealed value was changed, or is under another key', { cause: error });
  }
}

function unsealFirst(key: SealKey, bytes: Buffer): Buffer {
  const from = headBytes + firstVersion.nonceBytes;
  const decipher = createDecipheriv('aes-256-gcm', key.firstCipher, bytes.subarray(headBytes, from), keyText);
  decipher.setAAD(bytes.subarray(0, headBytes));
  decipher.setAuthTag(bytes.subarray(bytes.length - tagBytes));
  const plain = decipher.update(bytes.subarray(from, bytes.length - tagBytes));
  // GCM gives all of it before: this checks the tag.
  decipher.final();
  return plain;
}

/** How a cipher of Node reads its key. */
const keyText = { encoding: 'latin1' } as const;

/** HKDF-SHA256 (RFC 5869), of which version 1 has its keys; the first block of HKDF-Expand is what is told apart and the number of the block. */
function firstCipherOf(id: Buffer, secret: Buffer): string {
  extracted.write(hmac(id, secret), 'latin1');
  const cipher = hmac(extracted, firstCipherInfo);
  extracted.fill(0);
  inner.fill(0);
  outer.fill(0);
  return cipher;
}

const extracted = Buffer.allocUnsafeSlow(secretBytes);
const firstCipherInfo = Buffer.from('weir seal cipher\u0001');
const block = 64;
const inner = Buffer.alloc(block * 2);
const outer = Buffer.alloc(block + secretBytes);

/** HMAC-SHA256 (RFC 2104) as latin1 text, by one-shot hashes: hkdfSync costs four times as much. For keys and messages of at most a block. */
function hmac(key: Buffer, message: Buffer): string {
  for (let i = 0; i < block; i++) {
    const byte = i < key.length ? key[i]! : 0;
    inner[i] = byte ^ 0x36;
    outer[i] = byte ^ 0x5c;
  }
  inner.set(message, block);
  outer.write(hash('sha256', inner.subarray(0, block + message.length), 'binary'), block, 'latin1');
  return hash('sha256', outer, 'binary');
}
