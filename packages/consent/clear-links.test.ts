import { keyedId } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createClearLinks, type Unread } from './clear-links.ts';
import type { KeptValue } from './link-values.ts';

const workspaceKey = Buffer.alloc(32, 7);
const idOf = (type: string, value: string): string => `${type}:${keyedId(workspaceKey, type, value)}`;
const [U, E, P] = [idOf('userId', 'u-1'), idOf('email', 'ann@larkspur.example'), idOf('phone', '+4930')];

/** Links that keep what is given; keys of those in `missing` are not here. */
function world(kept: readonly KeptValue[], over: { missing?: Set<string>; erased?: Readonly<Record<string, number>> } = {}) {
  const calls = { reads: 0 };
  const clear = createClearLinks({
    tables: { linkValues: () => {
      calls.reads++;
      return kept;
    } },
    serde: { known: (bytes) => over.missing?.has(bytes.toString()) !== true, decode: (bytes) => {
      if (over.missing?.has(bytes.toString()) === true) throw Object.assign(new Error('gone'), { code: 'subject-erased' });
      return { name: 'weir.internal.LinkedIdentifiers', value: { userId: null, email: null, phone: null, ...JSON.parse(bytes.toString()) as object } };
    } },
    keys: { erasedUntil: ([id]) => over.erased?.[id!] ?? 0 }, workspaceKey,
  });
  return { clear, calls };
}
const value = (at: number, of: object): KeptValue => ({ at, sealed: Buffer.from(JSON.stringify(of)) });

test('a value counts for the identifier that it has the keyed form of, and only among those of the person', () => {
  const { clear, calls } = world([value(9, { email: 'Ann@larkspur.example' }), value(5, { email: 'ann@larkspur.example', userId: 'u-1', phone: '+4930' })]);
  const of = clear([U, E]);
  expect(calls.reads).toBe(0);
  // The newest; the number is of nobody here.
  expect([of(E), of(U), of(P), of('email:x')]).toEqual(['Ann@larkspur.example', 'u-1', undefined, undefined]);
  expect(calls.reads).toBe(1);
  expect(clear(undefined)(E)).toBeUndefined();
});

test('what was erased since is not told, whoever sealed it; what was linked after the erasure is', () => {
  const kept = [value(50, { email: 'ann@larkspur.example', userId: 'u-1' })];
  expect([49, 50, 51].map((until) => world(kept, { erased: { [E]: until } }).clear([U, E])(E))).toEqual(['ann@larkspur.example', undefined, undefined]);
  expect(world(kept, { erased: { [E]: 50 } }).clear([U, E])(U)).toBe('u-1');
});

test('a key that is not here is waited for once, and taken for destroyed after that', () => {
  const [one, other] = [value(5, { email: 'ann@larkspur.example' }), value(4, { phone: '+4930' })];
  const missing = new Set([one.sealed.toString()]);
  const { clear } = world([one, other], { missing });
  const asked: Unread = { values: [], prepared: [] };
  const of = clear([U, E, P], asked);
  expect([of(E), of(P), asked.values]).toEqual([undefined, '+4930', [one.sealed]]);
  // It came.
  missing.clear();
  expect(clear([U, E, P], { values: [], prepared: asked.values })(E)).toBe('ann@larkspur.example');
  // It did not.
  missing.add(one.sealed.toString());
  const again: Unread = { values: [], prepared: asked.values };
  expect([clear([U, E, P], again)(E), again.values]).toEqual([undefined, []]);
  // Who does not wait, or seals nothing, knows nothing.
  expect(clear([U, E, P])(E)).toBeUndefined();
  expect(createClearLinks({ tables: { linkValues: () => [one] }, serde: { known: () => true, decode: () => ({ name: '', value: {} }) }, keys: undefined, workspaceKey })([U, E])(E)).toBeUndefined();
});
