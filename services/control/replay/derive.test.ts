import { WeirError } from '@weir/errors';
import type { LogRecord } from '@weir/log';
import { H } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createDeriver } from './derive.ts';

/** Every key is destroyed; an erasure covers what was accepted until 1000. */
const derive = createDeriver({
  serde: { decode: () => { throw new WeirError('subject-erased'); } } as never, release: () => ({}) as never, workspaceKey: Buffer.alloc(32), tables: {} as never, keys: undefined,
  open: () => undefined, standing: { mayRead: (ids, acceptedAt) => !(ids.includes('email:e') && acceptedAt <= 1000) }, now: () => 2000,
});
const record = (acceptedAt: number): LogRecord => ({ offset: 0, timestamp: 0, key: Buffer.from('email:e'), value: Buffer.from('sealed'), headers: [[H.accepted, Buffer.from(String(acceptedAt))], [H.ids, Buffer.from('email:e')]] }) as unknown as LogRecord;

test('a raw item whose key went with its retention is not taken for one of an erased person', () => {
  expect(derive.raw(record(1), 'shop')).toEqual({ kind: 'key-destroyed' });
});

test('a record that no erasure covers and that cannot be opened is not taken for one of an erased person', () => {
  expect([derive.canonical(record(1001), 'shop'), derive.canonical(record(1000), 'shop')]).toEqual([{ kind: 'key-destroyed' }, { kind: 'erased' }]);
});
