import { createDecipheriv, createSecretKey, hkdfSync, randomBytes } from 'node:crypto';
import { WeirError } from '@weir/errors';
import sodium from 'sodium-native';

/** Keys of owners under the key of the workspace, as they stand on weir.keys. */
export interface Wrapping {
  /** The 32 secret bytes of a key, sealed: nonce (24), ciphertext, tag (16), XChaCha20-Poly1305; owner and id are authenticated with it. */
  wrap(owner: string, id: Buffer, secret: Buffer): Buffer;
  /** What was wrapped; of before version 2 too (nonce of 12 bytes, AES-256-GCM), which is as long as nothing else. Throws config-invalid when it is under another workspace key. */
  unwrap(owner: string, id: Buffer, wrapped: Buffer): Buffer;
}

const secretBytes = 32;
const nonceBytes = 24;
const tagBytes = 16;
const firstNonceBytes = 12;
const firstBytes = firstNonceBytes + secretBytes + tagBytes;

/** @param workspaceKey of which each version has a key of its own */
export function createWrapping(workspaceKey: Buffer): Wrapping {
  const derived = (info: string): Buffer => Buffer.from(hkdfSync('sha256', workspaceKey, '', info, secretBytes));
  const key = derived('weir seal wrapping 2');
  const firstKey = createSecretKey(derived('weir seal wrapping'));
  const aadOf = (owner: string, id: Buffer): Buffer => Buffer.concat([id, Buffer.from(owner)]);

  function unwrapFirst(owner: string, id: Buffer, wrapped: Buffer): Buffer {
    const decipher = createDecipheriv('aes-256-gcm', firstKey, wrapped.subarray(0, firstNonceBytes)).setAAD(aadOf(owner, id));
    decipher.setAuthTag(wrapped.subarray(-tagBytes));
    const secret = decipher.update(wrapped.subarray(firstNonceBytes, -tagBytes));
    // GCM gives all of it before: this checks the tag.
    decipher.final();
    return secret;
  }

  return {
    wrap(owner, id, secret) {
      const out = Buffer.allocUnsafe(nonceBytes + secretBytes + tagBytes);
      const nonce = randomBytes(nonceBytes);
      out.set(nonce, 0);
      sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(out.subarray(nonceBytes), secret, aadOf(owner, id), null, nonce, key);
      return out;
    },
    unwrap(owner, id, wrapped) {
      try {
        if (wrapped.length === firstBytes) return unwrapFirst(owner, id, wrapped);
        // Not of the pool, whose bytes others get to see.
        const secret = Buffer.allocUnsafeSlow(secretBytes);
        sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(secret, null, wrapped.subarray(nonceBytes), aadOf(owner, id), wrapped.subarray(0, nonceBytes), key);
        return secret;
      } catch (error) {
        throw new WeirError('config-invalid', `a key of ${owner} cannot be opened: WEIR_KEY is not the workspace key that it was made under`, { cause: error });
      }
    },
  };
}
