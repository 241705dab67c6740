import { randomBytes } from 'node:crypto';
import { createSerde, type Serde } from '@weir/log';
import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { versionsOf } from '../../schemas/check.ts';
import { isSealed, seal, sealedBy, sealKey, unseal } from './envelope.ts';
import { identifiersSealer, linkValue, openIdentifiers, sealIdentifiers } from './identifiers.ts';
import { sealedSerde } from './sealed-serde.ts';

let serde: Serde;
/** The first version of a link, as an older writer registered it. */
const old = versionsOf('weir.internal.IdentityLink')[0]!;
const oldId = 9000;
beforeAll(async () => {
  const known: unknown[] = [];
  serde = createSerde({ registryUrl: '', registry: { register: (schema: unknown) => Promise.resolve({ id: known.push(schema) }), getSchema: (id: number) => (id === oldId ? Promise.resolve(avsc.Type.forSchema(old as avsc.Schema)) : Promise.reject(new Error('no'))) } as never });
  await serde.start();
});
const keyOf = () => sealKey(randomBytes(16), randomBytes(32));
const ring = (...keys: ReturnType<typeof keyOf>[]) => {
  const byId = (id: string) => keys.find((key) => key.id.toString('latin1') === id);
  return { byId, open: (bytes: Buffer) => (isSealed(bytes) ? byId(sealedBy(bytes)) && unseal(byId(sealedBy(bytes))!, bytes) : bytes), readToEnd: () => Promise.resolve() };
};
const text = fc.option(fc.string({ maxLength: 40 }), { nil: null });

test('what a link keeps opens under the key of the record, is the same bytes each time, and nothing under any other key', () => {
  fc.assert(fc.property(text, text, text, (userId, email, phone) => {
    const key = keyOf();
    const record = seal(key, serde.encode('weir.internal.LinkedIdentifiers', { userId, email, phone }));
    // The type stands for any that has the three fields.
    const make = identifiersSealer(serde, ring(key));
    const sealed = make('weir.internal.LinkedIdentifiers', record);
    if (![userId, email, phone].some((value) => value !== null && value !== '')) expect(sealed).toBeNull();
    else {
      expect(sealed).toEqual(sealIdentifiers(serde, key, { userId, email, phone }));
      expect(sealedBy(sealed!)).toBe(sealedBy(record));
      expect(openIdentifiers(sealedSerde(serde, ring(key)), sealed!)).toMatchObject({ userId, email, phone });
      for (const value of [userId, email, phone]) if (value !== null && value.length > 3) expect(sealed!.includes(value)).toBe(false);
      // Erased, or not read yet.
      expect(openIdentifiers(sealedSerde(serde, ring(keyOf())), sealed!)).toBeUndefined();
      const changed = Buffer.from(sealed!);
      changed[changed.length - 1]! ^= 1;
      expect(openIdentifiers(sealedSerde(serde, ring(key)), changed)).toBeUndefined();
    }
    // Its key is destroyed, or it is not sealed.
    expect([identifiersSealer(serde, ring())('weir.internal.LinkedIdentifiers', record), make('weir.internal.LinkedIdentifiers', Buffer.from([0, 0, 0, 0, 1]))]).toEqual([null, null]);
  }), { numRuns: 100 });
});

test('a link of an older writer has no value and an older reader reads a new one; what nobody knows is none', async () => {
  const link = { a: 'email:e', b: 'userId:u', source: 'shop', at: 1000 };
  const sealed = sealIdentifiers(serde, keyOf(), { userId: 'u', email: null, phone: null })!;
  const now = serde.encode('weir.internal.IdentityLink', { ...link, sealed });
  expect(linkValue(serde, now)).toEqual({ at: 1000, sealed });
  expect(linkValue(serde, serde.encode('weir.internal.IdentityLink', link))).toEqual({ at: 1000, sealed: null });
  const [older, newer] = [avsc.Type.forSchema(old as avsc.Schema), avsc.Type.forSchema(loadSchemas().get('weir.internal.IdentityLink') as avsc.Schema)];
  expect(older.fromBuffer(now.subarray(5), older.createResolver(newer))).toMatchObject(link);
  expect(newer.fromBuffer(older.toBuffer(link), newer.createResolver(older))).toMatchObject({ ...link, sealed: null });
  const head = Buffer.alloc(5);
  head.writeInt32BE(oldId, 1);
  const before = Buffer.concat([head, older.toBuffer(link)]);
  // Not before its schema is known, and nobody waits for that.
  expect(linkValue(serde, before)).toBeUndefined();
  for (const value of [null, Buffer.alloc(1), Buffer.from([0, 0, 0, 0, 1]), sealed, serde.encode('weir.internal.LinkedIdentifiers', { userId: 'u' })]) expect(linkValue(serde, value)).toBeUndefined();
});
