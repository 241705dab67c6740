import { randomBytes } from 'node:crypto';
import { seal, sealedBy, sealKey } from '@weir/seal';
import { expect, test } from 'vitest';
import { readDelivery } from './read-delivery.ts';

/** A delivery of a person who was erased until 1000, under a key that comes once it was looked for, or never. */
async function read({ recordType = 'weir.canonical.Profile', acceptedAt = 1001, comes = true, gone = false }) {
  const payload = seal(sealKey(randomBytes(16), randomBytes(32)), Buffer.from([0, 0, 0, 0, 1, 7]));
  const value = Buffer.from([0, 0, 0, 0, 1, 8]);
  let here = false;
  let looked = 0;
  const known = (bytes: Buffer): boolean => bytes === value;
  const prepared: boolean[] = [];
  const ports = {
    name: 'crm', clock: {}, logger: {},
    serde: { known, prepare: async () => { prepared.push(here); }, decode: () => ({ name: 'weir.internal.Delivery', value: { payload, recordType, acceptedAt, ids: ['email:ann'] } }) },
    keys: { has: (id: string) => here && id === sealedBy(payload), erasedUntil: () => 1000, find: async () => { looked++; here = comes; } },
  } as never;
  await readDelivery(ports, value, () => gone);
  return { looked, prepared };
}

test('the key of a payload that no erasure covers is looked for before it is taken for destroyed', async () => {
  expect(await read({})).toEqual({ looked: 1, prepared: [false, true] });
  expect(await read({ comes: false })).toEqual({ looked: 1, prepared: [false] });
  expect(await read({ acceptedAt: 1000 })).toEqual({ looked: 0, prepared: [false] });
  expect(await read({ recordType: 'weir.canonical.Erasure' })).toEqual({ looked: 0, prepared: [false] });
});

test('who has lost the partition meanwhile ends nothing by a key that was not found', async () => {
  await expect(read({ gone: true })).rejects.toMatchObject({ code: 'log-assignment-stale' });
});
