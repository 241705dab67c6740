import { hkdfSync, randomBytes } from 'node:crypto';
import * as fc from 'fast-check';
import sodium from 'sodium-native';
import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { isReadable, isSealed, seal, sealedBy, sealKey, sealOverhead, sealTo, unseal } from './envelope.ts';

const key = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 2));
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

/** Id 000102…0f, secret 202122…3f. */
const fixed = sealKey(Buffer.from(Array.from({ length: 16 }, (_, i) => i)), Buffer.from(Array.from({ length: 32 }, (_, i) => 0x20 + i)));

/** Made with the code that wrote version 1. */
const first: readonly (readonly [string, string])[] = [
  ['', '5701000102030405060708090a0b0c0d0e0f4e320cf57bf033bf76ccc0e96f7f619974fa0a8f9240753a0df072bd'],
  ['ada@larkspur.example', '5701000102030405060708090a0b0c0d0e0f598d86f86e35d6cfacdf168c64de5a7d8d9f2ead66ed06c082e314c5cb23271397ca3f03367f565bf329037bff0f232a'],
  ['x'.repeat(300), '5701000102030405060708090a0b0c0d0e0f48e1b47b03f9f7e0fce09ad596a877ef072236b9da439c69adfcb8a379245ff8ec45aaf51068ad5e2fc63026b301f6d24fb2f3b992626a58c0fc21037bcc22d71a76a301ae34dbf28ad9447399ae26821c55403b0ab7839aaf5bf68b567fc52a9d38c439b912e29e62d4fa021cbb34c483eca673a61b4dad91f03e1060a7833ed6a7c74f3b14e561c4f03e72070f76b363c7cbaee66a0477bb88222f3c09d8529967a25f67fb20d6870bf017b73f507d00e35802ef877b70fadf5237ff49d03046d380b9badc9cf47679d54590dafd07580f22a7d5f96254fbb8b80b44418e30dda6f55e4905e4d315db50a8e3356d694e566d5552da66f8b01177b7ea9b8d587c0aeefc05a48a4ef91f507f741f7e291ca156f9cf09907607a11270f352fb58d71ee95da5f1429cd3dc6f064fde3e7767a45feecf31f69e58b9dea8bbabf4dfbec918a1a22bfa31'],
];

/** Made with other implementations: XChaCha20-Poly1305 of @noble/ciphers, BLAKE2b of Python's hashlib. */
const second: readonly (readonly [string, string])[] = [
  ['', '5702000102030405060708090a0b0c0d0e0fe6a9cf6649316e540015bff10fde73d990c6addc4e172a9ca88b4932f4e594d0353ce177c04d4ef2'],
  ['ada@larkspur.example', '5702000102030405060708090a0b0c0d0e0fafdd6cb49aac32aec3b209ef92cf5a43240e4914a4ab5dc73fef5830020b20ecefac74aff3cb9490a0c085533ae724f15fbe1c9f0988999e624d5954'],
  ['x'.repeat(300), '5702000102030405060708090a0b0c0d0e0fc138ea99da36e5b81decb1678b135ba184ed45573a53b3b235bbd855907e8c0227d1769de79695a6c4ef87d69b62b2cd1fad776ca267e7b14799c4c1b9c71da5ee41499a52089efbbf0f5c4c179654f5bf254e3246a8a18c11819d86bb261ded49cd4e6cffd5652541bd48c7c43118eef21582725f41d513cab48bf3b27a17ed42288a174f5c036cd0ccdf1ac1b34038bfb3ba74427ead540ba62ebb823de48271cd8e01c177e8b18674cebff3fd91fb72eb577d336f57fccf3b4e9f5462baffb0fff61447e1e3f243a16e1dd72f0c9888f603bda438c0c1fad0359a7f3600f1399ee5a53e00d673ad7fe4f5c98c65080bdfc4dd6bfd92c18e91ceed4d108fccdea1703afb923cfddfdf0ec06e51c119fee40ef71fdb4c2ff72e0a2cdfa1cb60237298de757d59829d9a3488343d2bec160bed5ee5ab0d37a0e049ec45b0075ea6c92e7f70ed83690a6418fd67bea582b5ff7565'],
];

test('what was sealed opens under its key, and the same bytes seal to the same bytes', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 5000 }), (bytes) => {
    const plain = Buffer.from(bytes);
    const sealed = seal(key, plain);
    expect(isSealed(sealed)).toBe(true);
    expect(sealed.length).toBe(plain.length + sealOverhead);
    expect(sealedBy(sealed)).toBe(key.id.toString('latin1'));
    expect(unseal(key, sealed).equals(plain)).toBe(true);
    expect(seal(key, plain).equals(sealed)).toBe(true);
  }));
});

test('into a buffer it is the same, the plaintext may lie in it, and nothing around is touched', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 2000 }), fc.nat({ max: 50 }), fc.nat({ max: 50 }), (bytes, before, between) => {
    const at = before + bytes.length + between;
    const out = Buffer.alloc(at + sealOverhead + bytes.length + 9, 0xa5);
    out.set(bytes, before);
    const wanted = Buffer.from(out);
    seal(key, Buffer.from(bytes)).copy(wanted, at);
    expect(sealTo(key, out.subarray(before, before + bytes.length), out, at)).toBe(at + sealOverhead + bytes.length);
    expect(out.equals(wanted)).toBe(true);
  }));
});

test('the sealed bytes are the known ones', () => {
  for (const [plain, sealed] of second) {
    expect(seal(fixed, Buffer.from(plain)).toString('hex')).toBe(sealed);
    expect(unseal(fixed, hex(sealed)).toString()).toBe(plain);
  }
});

test('what version 1 wrote is told as sealed, names its key, opens, and does not when a byte was changed', () => {
  for (const [plain, sealed] of first) {
    const bytes = hex(sealed);
    expect([isSealed(bytes), isReadable(bytes), sealedBy(bytes)]).toEqual([true, true, fixed.id.toString('latin1')]);
    expect(unseal(fixed, bytes).toString()).toBe(plain);
    expect(() => unseal(key, bytes)).toThrow(/another key/);
    for (let at = 1; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= at === 1 ? 3 : 1;
      if (at > 1 || isSealed(changed)) expect(() => unseal(fixed, changed)).toThrow(/was changed/);
    }
  }
});

test('a changed byte, wherever it is, and another key do not open', () => {
  const sealed = seal(key, Buffer.from('ada@larkspur.example'));
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at]! ^= 1;
    if (at < 2) expect(isSealed(changed)).toBe(false);
    else expect(() => unseal(key, changed)).toThrow(/was changed/);
  }
  // Taken for the other version.
  const other = Buffer.from(sealed);
  other[1] = 1;
  expect(() => unseal(key, other)).toThrow(/was changed/);
  expect(() => unseal(sealKey(key.id, randomBytes(32)), sealed)).toThrow(/another key/);
  expect(() => unseal(sealKey(randomBytes(16), Buffer.alloc(32, 2)), sealed)).toThrow(/another key/);
});

test('two plaintexts never share a nonce, and the plaintext is not in the sealed bytes', () => {
  const nonces = new Set(Array.from({ length: 10_000 }, (_, i) => seal(key, Buffer.from(`n${i}`)).subarray(18, 42).toString('hex')));
  expect(nonces.size).toBe(10_000);
  expect(seal(key, Buffer.from('ada@larkspur.example')).includes('larkspur')).toBe(false);
});

test('Avro and JSON, and what is too short or of a version that is not known, are never taken for sealed', () => {
  for (const bytes of [Buffer.alloc(0), Buffer.from([0, 0, 0, 0, 1, ...randomBytes(100)]), Buffer.from(JSON.stringify({ a: 'x'.repeat(100) })), Buffer.from('W'), Buffer.from([0x57, 1]), Buffer.from([0x57, 2]), Buffer.from([0x57, 2, ...randomBytes(sealOverhead - 3)]), Buffer.from([0x57, 1, ...randomBytes(43)]), Buffer.from([0x57, 3, ...randomBytes(100)])]) expect(isSealed(bytes)).toBe(false);
});

test('the cipher key of version 1 is that of HKDF-SHA256, and no key tells another', () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.uint8Array({ minLength: 32, maxLength: 32 }), (id, secret) => {
    const made = sealKey(Buffer.from(id), Buffer.from(secret));
    expect(Buffer.from(made.firstCipher, 'latin1').equals(Buffer.from(hkdfSync('sha256', secret, id, 'weir seal cipher', 32)))).toBe(true);
    expect(new Set([made.cipher, made.nonce, Buffer.from(made.firstCipher, 'latin1'), Buffer.from(secret)].map((part) => part.toString('hex'))).size).toBe(4);
  }));
});

test('nothing that prints a key shows a secret', () => {
  const made = sealKey(Buffer.alloc(16, 1), Buffer.from('0123456789abcdefghijklmnopqrstuv'));
  // Made when it is asked for, and kept.
  const firstCipher = Buffer.from(made.firstCipher, 'latin1');
  for (const text of [inspect(made, { depth: 9, showHidden: true }), JSON.stringify(made), JSON.stringify({ ...made })]) {
    for (const secret of [made.cipher, made.nonce, firstCipher, Buffer.from('0123456789abcdefghijklmnopqrstuv')]) for (const form of [secret.toString('hex', 0, 4), [...secret.subarray(0, 4)].join(','), secret.toString('hex', 0, 2).replace(/(..)(..)/, '$1 $2'), secret.toString('latin1', 0, 4)]) expect(text).not.toContain(form);
  }
});

test('libsodium gives what the IETF says: the AEAD of draft-irtf-cfrg-xchacha-03, A.3.1', () => {
  const plain = Buffer.from("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.");
  const [ad, cipherKey, nonce] = [hex('50515253c0c1c2c3c4c5c6c7'), hex('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f'), hex('404142434445464748494a4b4c4d4e4f5051525354555657')];
  const sealed = Buffer.alloc(plain.length + 16);
  sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(sealed, plain, ad, null, nonce, cipherKey);
  expect(sealed.toString('hex')).toBe(hex(`bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb
    731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452
    2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
    21f9664c97637da9768812f615c68b13b52e c0875924c1c7987947deafd8780acf49`).toString('hex'));
});

test('libsodium gives what the authors of BLAKE2 say: BLAKE2b-512 keyed with 00…3f, of nothing and of 00', () => {
  const hashKey = Buffer.from(Array.from({ length: 64 }, (_, i) => i));
  const out = Buffer.alloc(64);
  sodium.crypto_generichash(out, Buffer.alloc(0), hashKey);
  expect(out.toString('hex')).toBe('10ebb67700b1868efb4417987acf4690ae9d972fb7a590c2f02871799aaa4786b5e996e8f0f4eb981fc214b005f42d2ff4233499391653df7aefcbc13fc51568');
  sodium.crypto_generichash(out, Buffer.from([0]), hashKey);
  expect(out.toString('hex')).toBe('961f6dd1e4dd30f63901690c512e78e4b45e4742ed197c3c5e45c549fd25f2e4187b0bc9fe30492b16b0d0bc4ef9b0f34c7003fac09a5ef1532e69430234cebd');
});
