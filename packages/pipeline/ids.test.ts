import { createHash, createHmac, randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { deliveryKey, hmacText, keyedId } from './ids.ts';

test('the HMAC of two one-shot hashes is that of createHmac, for keys and texts of every length', () => {
  for (const size of [0, 1, 32, 63, 64, 65, 200]) {
    const key = randomBytes(size);
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 3000 }), (text) => { expect(hmacText(key, text)).toBe(createHmac('sha256', key).update(text).digest('base64url')); }), { numRuns: 50 });
  }
  const key = randomBytes(32);
  for (const text of ['x'.repeat(100_000), 'short', '\u8a9e'.repeat(30_000), '']) expect(hmacText(key, text)).toBe(createHmac('sha256', key).update(text).digest('base64url'));
});

test('a keyed id is the HMAC of type, NUL and normalised value', () => {
  const key = Buffer.alloc(32, 7);
  const expected = createHmac('sha256', key).update('email').update('\u0000').update('ada@larkspur.example').digest().toString('base64url').slice(0, 22);
  expect(keyedId(key, 'email', ' Ada@Larkspur.example ')).toBe(expected);
});

test('a delivery key is the beginning of the hash of its parts, joined by NUL, which none of them can bring in', () => {
  const part = fc.string({ unit: fc.constantFrom('a', '\u0000', '\ufffd', 'é', '\ud83d\ude00') });
  fc.assert(fc.property(part, part, part, part, fc.nat(), (output, destination, operation, intent, generation) => {
    const text = ['delivery', output, destination, operation, intent, String(generation)].map((p) => p.replaceAll('\u0000', '\ufffd')).join('\u0000');
    expect(deliveryKey(output, destination, operation, intent, generation)).toBe(`dlv_${createHash('sha256').update(text).digest('hex').slice(0, 32)}`);
  }));
});
