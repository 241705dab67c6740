import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { seal, sealKey, unseal, type SealKey } from './envelope.ts';
import { createReady } from './ready.ts';

const keyOf = (n: number, generation = 0): SealKey => {
  const id = Buffer.alloc(16, generation);
  id.writeUInt32LE(n);
  return sealKey(id, Buffer.alloc(32, n * 7 + generation));
};
const idOf = (key: SealKey): string => key.id.toString('latin1');

test('a key that is found is the one that was kept, at most twice the size are, and one that is forgotten is gone', () => {
  const step = fc.record({ n: fc.nat({ max: 40 }), act: fc.constantFrom('keep', 'keep-owner', 'forget') });
  fc.assert(fc.property(fc.array(step, { maxLength: 300 }), fc.integer({ min: 1, max: 12 }), (steps, size) => {
    const ready = createReady(size);
    const kept = new Set<number>();
    const owned = new Set<number>();
    for (const { n, act } of steps) {
      const key = keyOf(n);
      if (act === 'forget') {
        expect([ready.ofOwner(`o${n}`) === undefined || owned.has(n), ready.ofId(idOf(key)) === undefined || kept.has(n)]).toEqual([true, true]);
        ready.forget(`o${n}`, idOf(key));
        expect([ready.ofOwner(`o${n}`), ready.ofId(idOf(key))]).toEqual([undefined, undefined]);
        kept.delete(n);
        owned.delete(n);
      } else {
        ready.keep(key, act === 'keep' ? undefined : `o${n}`);
        kept.add(n);
        if (act === 'keep-owner') owned.add(n);
        expect(ready.ofId(idOf(key))?.cipher).toEqual(key.cipher);
      }
      let held = 0;
      for (let m = 0; m <= 40; m++) {
        const [wanted, byId, byOwner] = [keyOf(m), ready.ofId(idOf(keyOf(m))), ready.ofOwner(`o${m}`)];
        expect(ready.hasId(idOf(wanted))).toBe(byId !== undefined);
        if (byId !== undefined) held++;
        for (const [found, may] of [[byId, kept], [byOwner, owned]] as const) {
          if (found === undefined) continue;
          expect(may.has(m)).toBe(true);
          expect([found.id, found.cipher, found.nonce, found.firstCipher]).toEqual([wanted.id, wanted.cipher, wanted.nonce, wanted.firstCipher]);
        }
      }
      expect(held).toBeLessThanOrEqual(2 * size);
    }
  }), { numRuns: 60 });
});

test('who holds a key while others come and go seals and opens with the same one', () => {
  const ready = createReady(600);
  const key = keyOf(1);
  ready.keep(key);
  const held = ready.ofId(idOf(key))!;
  const sealed = seal(held, Buffer.from('ada@larkspur.example'));
  for (let n = 2; n < 3000; n++) ready.keep(keyOf(n));
  for (let n = 2400; n < 3000; n++) expect(ready.ofId(idOf(keyOf(n)))!.cipher).toEqual(keyOf(n).cipher);
  expect(ready.ofId(idOf(key))).toBeUndefined();
  expect(unseal(held, sealed).toString()).toBe('ada@larkspur.example');
  expect(unseal(key, seal(held, Buffer.from('again'))).toString()).toBe('again');
});
