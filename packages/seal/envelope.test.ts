import { hkdfSync, randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { isSealed, seal, sealedBy, sealKey, unseal } from './envelope.ts';

const key = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 2));

test('what was sealed opens under its key, and the same bytes seal to the same bytes', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 5000 }), (bytes) => {
    const plain = Buffer.from(bytes);
    const sealed = seal(key, plain);
    expect(isSealed(sealed)).toBe(true);
    expect(sealedBy(sealed)).toBe(key.id.toString('latin1'));
    expect(unseal(key, sealed).equals(plain)).toBe(true);
    expect(seal(key, plain).equals(sealed)).toBe(true);
  }));
});

test('a changed byte, wherever it is, and another key do not open', () => {
  const sealed = seal(key, Buffer.from('ada@larkspur.example'));
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at]! ^= 1;
    if (at < 2) expect(isSealed(changed)).toBe(false);
    else expect(() => unseal(key, changed)).toThrow(/was changed/);
  }
  expect(() => unseal(sealKey(key.id, randomBytes(32)), sealed)).toThrow(/another key/);
});

test('two plaintexts never share a nonce, and the plaintext is not in the sealed bytes', () => {
  const nonces = new Set(Array.from({ length: 10_000 }, (_, i) => seal(key, Buffer.from(`n${i}`)).subarray(18, 30).toString('hex')));
  expect(nonces.size).toBe(10_000);
  expect(seal(key, Buffer.from('ada@larkspur.example')).includes('larkspur')).toBe(false);
});

test('Avro and JSON are never taken for sealed', () => {
  for (const bytes of [Buffer.alloc(0), Buffer.from([0, 0, 0, 0, 1, ...randomBytes(100)]), Buffer.from(JSON.stringify({ a: 'x'.repeat(100) })), Buffer.from('W'), Buffer.from([0x57, 1])]) expect(isSealed(bytes)).toBe(false);
});

test('the parts of a key are those of HKDF-SHA256', () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.uint8Array({ minLength: 32, maxLength: 32 }), (id, secret) => {
    const made = sealKey(Buffer.from(id), Buffer.from(secret));
    const part = (info: string): Buffer => Buffer.from(hkdfSync('sha256', secret, id, info, 32));
    expect(Buffer.from(made.cipher, 'latin1').equals(part('weir seal cipher'))).toBe(true);
    expect(made.nonce.equals(part('weir seal nonce'))).toBe(true);
  }));
});

test('nothing that prints a key shows a secret', () => {
  const made = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 2));
  for (const text of [inspect(made, { depth: 9, showHidden: true }), JSON.stringify(made), JSON.stringify({ ...made })]) {
    for (const secret of [Buffer.from(made.cipher, 'latin1'), made.nonce]) for (const form of [secret.toString('hex', 0, 4), [...secret.subarray(0, 4)].join(','), secret.toString('hex', 0, 2).replace(/(..)(..)/, '$1 $2'), secret.toString('latin1', 0, 4)]) expect(text).not.toContain(form);
  }
});
