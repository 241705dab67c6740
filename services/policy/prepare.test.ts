import { WeirError } from '@weir/errors';
import type { LogRecord } from '@weir/log';
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

test('a partition that goes to another owner is not kept for as long as the registry is away', async () => {
  const { found, waits } = world([]);
  expect([await found, waits()]).toEqual([false, 6]);
});
