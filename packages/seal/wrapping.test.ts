import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { createWrapping } from './wrapping.ts';

const wrapping = createWrapping(Buffer.alloc(32, 9));
const id = Buffer.from(Array.from({ length: 16 }, (_, i) => i));
const secret = Buffer.from(Array.from({ length: 32 }, (_, i) => 0x20 + i));

/** Of the code that wrapped with AES-256-GCM, and of XChaCha20-Poly1305 of @noble/ciphers. */
const known = [
  '404142434445464748494a4be76e1dab28c0f23156d177a61d470a0fb22bcac8f70ea19bbedf7e483195bc9f38be38d88c249ed939a1dae59852b887',
  '404142434445464748494a4b4c4d4e4f50515253545556576d17f3c36b00e05f96625d770f8e0083e61655a9541922bc5d6135b54d5df9252d6defe8288282178ef882096b77f782',
].map((text) => Buffer.from(text, 'hex'));

test('what was wrapped comes back, of both versions, and no two look the same', () => {
  for (const wrapped of known) expect(wrapping.unwrap('email:ada', id, wrapped).equals(secret)).toBe(true);
  const [one, other] = [wrapping.wrap('email:ada', id, secret), wrapping.wrap('email:ada', id, secret)];
  expect(one.equals(other)).toBe(false);
  for (const wrapped of [one, other]) expect(wrapping.unwrap('email:ada', id, wrapped).equals(secret)).toBe(true);
});

test('under another workspace key, for another owner, under another id, and with a changed byte it is refused, by the name of its owner', () => {
  for (const wrapped of [...known, wrapping.wrap('email:ada', id, secret)]) {
    const refused = expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining('email:') });
    expect(() => createWrapping(Buffer.alloc(32, 8)).unwrap('email:ada', id, wrapped)).toThrow(refused);
    expect(() => wrapping.unwrap('email:eve', id, wrapped)).toThrow(refused);
    expect(() => wrapping.unwrap('email:ada', randomBytes(16), wrapped)).toThrow(refused);
    for (let at = 0; at < wrapped.length; at++) {
      const changed = Buffer.from(wrapped);
      changed[at]! ^= 1;
      expect(() => wrapping.unwrap('email:ada', id, changed)).toThrow(refused);
    }
    expect(() => wrapping.unwrap('email:ada', id, wrapped.subarray(1))).toThrow(refused);
  }
});
