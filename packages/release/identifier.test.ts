import { keyedId } from '@weir/pipeline';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { identifiersOf } from './identity.ts';
import { keyedIdsOf, parseIdentifier } from './identifier.ts';

test('identifiers are taken as mappings write them', () => {
  for (const text of ['phone:+49 30 90018 20', '+49 30 90018 20', '+49309001820', ' +49 (30) 90018-20 ']) expect([text, parseIdentifier(text)]).toEqual([text, { phone: '+49309001820', externalIds: [] }]);
  for (const text of ['Ada@Larkspur.Example', 'email: ADA@larkspur.example ', ' ada@larkspur.example']) expect([text, parseIdentifier(text)]).toEqual([text, { email: 'ada@larkspur.example', externalIds: [] }]);
  expect(parseIdentifier('userId:ada@larkspur.example')).toEqual({ userId: 'ada@larkspur.example', externalIds: [] });
  expect(parseIdentifier('anonymousId: abc ')).toEqual({ anonymousId: 'abc', externalIds: [] });
  expect(parseIdentifier('external:klaviyo:1:2')).toEqual({ externalIds: [{ type: 'klaviyo', value: '1:2' }] });
});

test.each(['', 'ada', 'u-7', '4711', '030 90018', '+49', '+ada', 'phone:030 90018', 'phone:ada', 'email:ada', 'email:ada@', 'userId: ', 'userId:', 'Email:ann@x', 'USERID:u', 'userid:u', 'user:u', 'external:klaviyo', 'external:klaviyo:', 'external::1', 'external:klaviyo: ', '__proto__:x'])('%j is nobody, and no user of that name', (text) => {
  expect(() => parseIdentifier(text)).toThrow(expect.objectContaining({ code: 'bad-request' }));
});

test('a refusal does not repeat what was given: it may be of a person', () => {
  expect(() => parseIdentifier('Email:ann.secret@larkspur.example')).toThrow(expect.objectContaining({ message: expect.not.stringContaining('secret') }));
});

test('keyed ids are those of the normalizer, in its order and each once', () => {
  const key = Buffer.alloc(32, 3);
  const text = fc.string({ minLength: 1, maxLength: 20 });
  fc.assert(fc.property(fc.record({ userId: text, email: text, phone: text, anonymousId: text, externalIds: fc.array(fc.record({ type: text, value: text }), { maxLength: 5 }) }, { requiredKeys: ['externalIds'] }), (identifiers) => {
    const found = keyedIdsOf(key, identifiers);
    expect(found).toEqual(identifiersOf(identifiers, (type, value) => keyedId(key, type, value), 64));
    expect(new Set(found).size).toBe(found.length);
  }));
});
