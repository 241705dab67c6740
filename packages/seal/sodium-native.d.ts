/** What of libsodium's binding is used here; the package brings no types. Each throws when a length is not the one it asks for. */
declare module 'sodium-native' {
  interface Sodium {
    /** Into `cipher` (16 bytes more than `message`, the tag at its end); gives how many were written. */
    crypto_aead_xchacha20poly1305_ietf_encrypt(cipher: Uint8Array, message: Uint8Array, ad: Uint8Array, nsec: null, nonce: Uint8Array, key: Uint8Array): number;
    /** Into `message` (16 bytes less than `cipher`). Throws, and leaves nothing of the plaintext there, when the tag is not the right one. */
    crypto_aead_xchacha20poly1305_ietf_decrypt(message: Uint8Array, nsec: null, cipher: Uint8Array, ad: Uint8Array, nonce: Uint8Array, key: Uint8Array): number;
    /** BLAKE2b (RFC 7693), of 16 to 64 bytes, keyed with 16 to 64. */
    crypto_generichash(hash: Uint8Array, message: Uint8Array, key: Uint8Array): void;
  }
  const sodium: Sodium;
  export default sodium;
}
