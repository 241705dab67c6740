import { randomBytes } from 'node:crypto';
import { WeirError } from '@weir/errors';
import type { LogRecord } from '@weir/log';
import { erasureSource, H } from '@weir/pipeline';
import { seal, sealedBy, sealKey } from '@weir/seal';
import { expect, test } from 'vitest';
import { prepare } from './prepare.ts';

const records = ['a', 'b'].map((text, offset) => ({ offset, value: Buffer.from([0, 0, 0, 0, 1, text.charCodeAt(0)]) }) as LogRecord);

/** A registry that answers each look-up with the next of these: an error code, or that it has it. */
function world(answers: readonly string[]) {
  const warned: unknown[] = [];
  const left = [...answers];
  let waits = 0;
  let gone = false;
  const context = {
    serde: { known: () => false, prepare: async () => { const code = left.shift() ?? 'log-unavailable'; if (code !== 'known') throw new WeirError(code as 'log-unavailable'); } },
    clock: { setTimer: (callback: () => void) => { waits++; gone ||= waits > 5; queueMicrotask(callback); } }, logger: { warn: (line: unknown) => warned.push(line) },
  } as never;
  return { found: prepare({ context }, records, () => gone), warned, waits: () => waits };
}

test('a registry that is away is waited for, told of once: who ends because of it folds no withdrawal', async () => {
  const { found, warned, waits } = world(['log-unavailable', 'log-deadline', 'known', 'log-unavailable', 'known']);
  expect([await found, waits(), warned.length]).toEqual([true, 3, 1]);
});

test('a schema that does not exist is left to the decoder, and what nobody declared ends it', async () => {
  expect(await world(['schema-unknown', 'known']).found).toBe(true);
  await expect(world(['invariant-broken']).found).rejects.toMatchObject({ code: 'invariant-broken' });
});

/** A record under a key that is here once it was looked for, or never, of a person who was erased until 1000. */
async function keyed(source: string, acceptedAt: number, comes = true) {
  const key = sealKey(randomBytes(16), randomBytes(32));
  const value = seal(key, Buffer.from([0, 0, 0, 0, 1, 7]));
  const headers = Object.entries({ [H.ids]: 'email:ann,userId:ann', [H.source]: source, [H.accepted]: String(acceptedAt) }).map(([name, text]) => [name, Buffer.from(text)]);
  const looked: string[] = [];
  let here = false;
  const prepared: boolean[] = [];
  const keys = {
    has: (id: string) => here && id === sealedBy(value), erasedUntil: (ids: readonly string[]) => (ids.includes('email:ann') ? 1000 : 0),
    find: async (ids: readonly string[]) => { looked.push(...ids); here = comes; },
  };
  const context = { keys, serde: { known: () => false, prepare: async () => { prepared.push(here); } }, clock: {}, logger: {} } as never;
  const found = await prepare({ context }, [{ key: Buffer.from('userId:ann'), value, headers } as never], () => false);
  return [found, looked.length, prepared];
}

// A leader that was cut off told an old end: a withdrawal that the API had acknowledged was a dead letter for ever.
test('a key that is missing and that no erasure covers is looked for, and the record prepared with it; one of an erased person, or of an erasure, is not', async () => {
  expect(await keyed('shop', 1001)).toEqual([true, 1, [false, true]]);
  expect(await keyed('shop', 1001, false)).toEqual([true, 1, [false]]);
  expect(await keyed('shop', 1000)).toEqual([true, 0, [false]]);
  expect(await keyed(erasureSource, 1001)).toEqual([true, 0, [false]]);
});

test('a partition that goes to another owner is not kept for as long as the registry is away', async () => {
  const { found, waits } = world([]);
  expect([await found, waits()]).toEqual([false, 6]);
});
