import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Reader } from '@weir/log';
import { openTable, type Table } from '@weir/state';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createSeen, type Seen } from './seen.ts';

const window = 1000 * 60;
let dir: string;
let table: Table;
let seen: Seen;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-seen-'));
  table = openTable({ path: dir });
  seen = createSeen(table, undefined as unknown as Reader);
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});

const entry = (eventId: string, hash: string, offset: number, timestamp = 10 * window) => ({ eventId, hash, offset, timestamp, acceptedAt: 1000 + offset });
const add = (...entries: ReturnType<typeof entry>[]): void => seen.add('t', 0, entries, entries[entries.length - 1]!.offset + 1, window);
const first = (e: ReturnType<typeof entry>): string | undefined => {
  const found = seen.find('t', 0, e, window);
  return found !== undefined && found.offset < e.offset ? found.hash : undefined;
};

test('the first body stays the first, also over the end of a generation and when a batch is repeated', () => {
  add(entry('a', 'h1', 5, 10 * window + 1));
  add(entry('a', 'h2', 9, 11 * window - 1));
  expect(first(entry('a', 'h2', 9, 11 * window + 1))).toBe('h1');
  add(entry('a', 'h1', 5, 10 * window + 1), entry('a', 'h2', 9, 11 * window - 1));
  expect(first(entry('a', 'h2', 20, 11 * window))).toBe('h1');
});

test('a repetition was accepted when its first copy was: the same item gives the same record', () => {
  add(entry('a', 'h1', 5));
  add(entry('a', 'h1', 9));
  expect(seen.find('t', 0, entry('a', 'h1', 20), window)).toMatchObject({ hash: 'h1', acceptedAt: 1005 });
});

test('an entry of the format before, without an accept time, is still a first body', () => {
  table.putBatch([{ key: 't/10/0/a', value: Buffer.from('h1@5') }]);
  expect(seen.find('t', 0, entry('a', 'h2', 9), window)).toMatchObject({ hash: 'h1', acceptedAt: 1009 });
});

test('a record is not a conflict with itself when it is read again after a crash', () => {
  add(entry('a', 'h1', 5));
  expect(first(entry('a', 'h1', 5))).toBeUndefined();
  expect(first(entry('b', 'h1', 6))).toBeUndefined();
});

test('what fell out of the window is deleted from disk', () => {
  add(...Array.from({ length: 200 }, (_, i) => entry(`old-${i}`, 'h', i, window)));
  for (let gen = 2; gen < 9; gen++) add(entry(`g-${gen}`, 'h', 1000 + gen, gen * window));
  expect([...table.range('t/')].map((e) => e.key)).toEqual(['t/7/0/g-7', 't/8/0/g-8']);
});

test('an entry older than all others is found, and deleted in its turn', () => {
  add(entry('new', 'h', 50, 9 * window));
  add(entry('late', 'h1', 60, 8 * window));
  expect(first(entry('late', 'h2', 70, 8 * window + 5))).toBe('h1');
  expect(first(entry('late', 'h2', 70, 9 * window))).toBe('h1');
  for (let gen = 10; gen < 13; gen++) add(entry(`g-${gen}`, 'h', 1000 + gen, gen * window));
  expect([...table.range('t/')].map((e) => e.key)).toEqual(['t/11/0/g-11', 't/12/0/g-12']);
});

test('what was found a moment ago is not looked up again', () => {
  add(entry('a', 'h1', 5));
  seen.add('t', 0, [{ ...entry('a', 'h2', 9), known: { hash: 'h1', offset: 5, acceptedAt: 1005 } }, { ...entry('b', 'h', 10), known: null }], 11, window);
  expect([first(entry('a', 'x', 20)), first(entry('b', 'x', 20))]).toEqual(['h1', 'h']);
});
