import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { hasher, hashers, keepFirst, keepLast, masks } from './transforms.ts';

const sha = (text: string) => createHash('sha256').update(text).digest('hex');

/** Digests that Meta prints beside its rules (Conversions API, Customer Information Parameters). */
test.each([
  ['email', 'John_Smith@gmail.com', '62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f'],
  ['phone', '+1 (650) 555-1212', 'e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176'],
  ['firstName', 'Mary', '6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec'],
  ['firstName', '정', '8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14'],
  ['firstName', 'Valéry', '08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c'],
])('meta: the digest of %s is the one that Meta documents', (field, value, digest) => {
  expect(hasher('meta', field)!(value)).toBe(digest);
});

test.each([
  ['google', 'email', ' Jane.Doe@GMail.com ', 'janedoe@gmail.com'],
  ['google', 'email', 'j.a.n.e@googlemail.com', 'jane@googlemail.com'],
  ['google', 'email', 'Jane.Doe@example.com', 'jane.doe@example.com'],
  ['meta', 'email', ' Jane.Doe@GMail.com', 'jane.doe@gmail.com'],
  ['tiktok', 'email', ' Jane.Doe@GMail.com', 'jane.doe@gmail.com'],
  ['google', 'phone', '+49 (30) 123-4567', '+49301234567'],
  ['tiktok', 'phone', '+49301234567', '+49301234567'],
  ['meta', 'phone', '+49301234567', '49301234567'],
  ['google', 'firstName', ' Ada ', 'ada'],
  ['meta', 'lastName', "O'Neil-Smith", 'oneilsmith'],
  ['meta', 'city', 'New York', 'newyork'],
  ['meta', 'birthday', '1985-02-06', '19850206'],
  ['meta', 'gender', ' Female', 'f'],
  ['meta', 'gender', 'M', 'm'],
  ['meta', 'gender', 'Mujer', 'f'],
  ['meta', 'gender', 'männlich', 'm'],
  ['meta', 'postalCode', 'SW1A 1AA', 'sw1a1aa'],
  ['meta', 'postalCode', ' 94035-1234', '94035'],
  ['meta', 'postalCode', '12345-678', '12345678'],
  ['sha256', 'plan', ' Gold ', 'Gold'],
])('%s normalises %s as it asks for', (scheme, field, value, normal) => {
  expect(hasher(scheme, field)!(value)).toBe(sha(normal));
});

test.each(['Mme', 'Mr', 'Mx', 'Madame', 'masked', 'fluid', 'Miss', 'mutter', 'family', 'unknown', '', 'constructor'])('meta: %j is no gender that is known, and is left out', (value) => {
  expect(hasher('meta', 'gender')!(value)).toBeNull();
});

test('what a vendor could not match is not sent, and what it does not take hashed has no hash', () => {
  for (const scheme of ['google', 'meta', 'tiktok']) {
    expect(hasher(scheme, 'email')!('not an address')).toBeNull();
    expect(hasher(scheme, 'phone')!('030 1234')).toBeNull();
    expect(hasher(scheme, 'email')!('')).toBeNull();
  }
  expect(hasher('google', 'country')).toBeUndefined();
  expect(hasher('google', 'constructor')).toBeUndefined();
  expect(hasher('constructor', 'email')).toBeUndefined();
});

test('no hash and no mask gives the value away, whatever it is', () => {
  fc.assert(fc.property(fc.string({ minLength: 6, maxLength: 60 }), (value) => {
    for (const fields of Object.values(hashers)) for (const hash of Object.values(fields)) {
      const out = hash(value);
      if (out !== null) expect(out).toMatch(/^[0-9a-f]{64}$/);
    }
    const letters = [...value].length;
    expect([...keepLast(4)(value)!].filter((c) => c !== '*').length).toBeLessThanOrEqual(letters > 4 ? 4 : 0);
    expect([...keepFirst(2)(value)!].filter((c) => c !== '*').length).toBeLessThanOrEqual(letters > 2 ? 2 : 0);
  }));
});

test.each([
  ['domain', 'ada@example.com', '***@example.com'], ['domain', 'no address', null],
  ['network', '203.0.113.77', '203.0.113.0'], ['network', '2001:db8:1:2::9', '2001:db8:1::'], ['network', '::1', '0:0:0::'], ['network', 'localhost', null],
  ['year', '1985-02-06', '1985'], ['year', 'soon', null],
] as const)('mask %s of %s', (name, value, expected) => {
  expect(masks[name]!(value)).toBe(expected);
});

test('that the country is not known is told nobody, hashed neither', () => {
  for (const scheme of ['meta', 'sha256']) expect([hasher(scheme, 'country')!('ZZ'), hasher(scheme, 'country')!('DE')]).toEqual([null, expect.stringMatching(/^[0-9a-f]{64}$/)]);
});
