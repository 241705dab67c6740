import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { openTable } from './table.ts';

const dirs: string[] = [];
function dir(): string {
  const path = mkdtempSync(join(tmpdir(), 'weir-table-'));
  dirs.push(path);
  return path;
}
afterEach(() => { for (const path of dirs.splice(0)) rmSync(path, { recursive: true, force: true }); });

test('values and positions come back together after reopening', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch([{ key: 'a', value: Buffer.from('1') }, { key: 'b', value: Buffer.from('2') }], new Map([[0, 7], [3, 9]]));
  first.putBatch([{ key: 'a', value: null }]);
  await first.close();
  const again = openTable({ path });
  expect(again.get('a')).toBeUndefined();
  expect(again.get('b')?.toString()).toBe('2');
  expect([...again.positions()]).toEqual([[0, 7], [3, 9]]);
  expect([...again.range('')].map((e) => e.key)).not.toContain('a');
  await again.close();
});

test('a prefix gives its keys and no others', async () => {
  const table = openTable({ path: dir() });
  table.putBatch(['p/1/x', 'p/1/y', 'p/10/x', 'q'].map((key) => ({ key, value: Buffer.from(key) })));
  expect([...table.range('p/1/')].map((e) => e.key)).toEqual(['p/1/x', 'p/1/y']);
  await table.close();
});

test('a file that is no cache is replaced, and that is told', async () => {
  const path = dir();
  writeFileSync(join(path, 'data.mdb'), 'this is no database, but it is long enough to look like one');
  let told = '';
  const table = openTable({ path, onDiscard: (reason) => { told = reason; } });
  table.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  expect(table.get('a')?.toString()).toBe('1');
  expect(told).toContain('not an LMDB file');
  await table.close();
});
