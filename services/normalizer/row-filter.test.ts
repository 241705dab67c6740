import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTable, type Table } from '@weir/state';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createRowFilter } from './row-filter.ts';

let dir: string;
let table: Table;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-rows-'));
  table = openTable({ path: dir });
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});

const keys = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `t/${from + i}`);
function write(...list: string[]): void {
  table.putBatch(list.map((key) => ({ key, value: Buffer.alloc(1) })));
}

test('a row is never told to be absent, also while those of before are taken in', () => {
  write(...keys(0, 10));
  const filter = createRowFilter(table);
  for (let round = 0; round < 4; round++) {
    filter.step(3);
    filter.add(`s/${round}`);
    write(`s/${round}`);
    for (const { key } of table.range('')) expect(filter.absent(key)).toBe(false);
    // Not all of them are: it tells of none.
    expect(filter.absent('other')).toBe(round === 3);
  }
});

test('one that has met too many keys is made anew from the rows that are left', () => {
  const filter = createRowFilter(table, 20);
  filter.step(1);
  expect(filter.absent('t/50')).toBe(true);
  for (const key of keys(0, 21)) {
    filter.add(key);
    write(key);
    if (key !== 't/20') table.putBatch([{ key, value: null }]);
  }
  expect([filter.absent('t/50'), filter.absent('t/20')]).toEqual([false, false]);
  filter.step(5);
  expect([filter.absent('t/50'), filter.absent('t/0'), filter.absent('t/20')]).toEqual([true, true, false]);
});

test('where too many have a row it tells of none', () => {
  write(...keys(0, 30));
  const filter = createRowFilter(table, 20);
  for (let i = 0; i < 20; i++) filter.step(10);
  expect([...keys(0, 30), 'other'].map((key) => filter.absent(key))).not.toContain(true);
});
