import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
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

test('what was gathered while loading is there after reopening, with its positions, also when it was more than is gathered at once', async () => {
  const path = dir();
  const first = openTable({ path });
  first.loading();
  for (let i = 0; i < 60; i++) first.putBatch([{ key: `k/${i}`, value: Buffer.alloc(1_000_000, i) }], new Map([[0, i + 1]]), new Map([[0, { offset: i, timestamp: 5, currentAt: 6 }]]));
  first.putBatch([{ key: 'k/0', value: null }]);
  expect([first.position(0), first.seen(0)?.offset, first.has('k/0'), first.get('k/59')?.[0]]).toEqual([60, 59, false, 59]);
  await first.close();
  const again = openTable({ path });
  expect([again.position(0), again.seen(0), again.has('k/0'), [...again.range('k/')].length, again.get('k/1')?.[0]]).toEqual([60, { offset: 59, timestamp: 5, currentAt: 6 }, false, 59, 1]);
  await again.close();
});

test('after a write that failed the cache is made anew: its file may be broken', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch([{ key: 'a', value: Buffer.from('1') }], new Map([[0, 7]]));
  expect(() => first.putBatch([{ key: 'b', value: {} as never }], new Map([[0, 8]]))).toThrow(/value/i);
  await first.close();
  const again = openTable({ path });
  expect(again.position(0)).toBeUndefined();
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

test('a file that was cut is replaced: mapping it would end the process', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch(Array.from({ length: 2000 }, (_, i) => ({ key: `k/${i}`, value: Buffer.alloc(500) })));
  await first.close();
  truncateSync(join(path, 'data.mdb'), 300_000);
  let told = '';
  const again = openTable({ path, onDiscard: (reason) => { told = reason; } });
  expect(told).toMatch(/300000 of \d+ bytes/);
  expect(again.get('k/1999')).toBeUndefined();
  again.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  await again.close();
});

test('what a killed process wrote is there; what a machine that went down wrote is not trusted', async () => {
  const path = dir();
  const script = `import { openTable } from ${JSON.stringify(join(import.meta.dirname, 'table.ts'))};
    const table = openTable({ path: ${JSON.stringify(path)} });
    for (let i = 0; i < 50; i++) table.putBatch([{ key: 'k', value: Buffer.from(String(i)) }], new Map([[0, i]]));
    process.kill(process.pid, 'SIGKILL');`;
  expect(spawnSync(process.execPath, ['--input-type=module', '-e', script]).signal).toBe('SIGKILL');
  let told = '';
  const survived = openTable({ path, onDiscard: (reason) => { told = reason; } });
  expect([told, survived.get('k')?.toString(), survived.position(0)]).toEqual(['', '49', 49]);
  await survived.close();
  writeFileSync(join(path, 'in-use'), 'another run of the machine');
  const later = openTable({ path, onDiscard: (reason) => { told = reason; } });
  expect([told, later.get('k')]).toEqual(['the machine ended while the cache was open', undefined]);
  await later.close();
});

test('a cache of another format is replaced', async () => {
  const path = dir();
  const { open } = await import('lmdb');
  const db = open({ path, encoding: 'binary' });
  await db.put('key', Buffer.from('value'));
  await db.close();
  let told = '';
  const table = openTable({ path, onDiscard: (reason) => { told = reason; } });
  expect([told, table.get('key')]).toEqual(['format none of the cache is not known', undefined]);
  await table.close();
});

test('the table agrees with a map for any keys, also hostile ones', async () => {
  const table = openTable({ path: dir() });
  const key = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 8 }),
    fc.string({ unit: 'grapheme', minLength: 290, maxLength: 320 }),
    fc.constantFrom('\ud800', '\ud801', 'a\ud800b', '\uffff\uffffp/0', '\uffff\uffffformat', '\uffff', `\u0001${'a'.repeat(70)}`, '\u0000', '', 'p/\u{1f600}', 'p/\uffff', '__proto__', 'x'.repeat(3000), `${'x'.repeat(3000)}y`),
  );
  const puts = fc.array(fc.record({ key: key, value: fc.option(fc.uint8Array({ maxLength: 20 }).map((v) => Buffer.from(v))) }), { maxLength: 20 });
  fc.assert(fc.property(fc.array(puts, { maxLength: 5 }), fc.string({ unit: 'grapheme', maxLength: 2 }), fc.boolean(), fc.boolean(), (batches, prefix, loading, ended) => {
    table.clear();
    const model = new Map<string, Buffer>();
    if (loading) table.loading();
    for (const [i, batch] of batches.entries()) {
      if (ended && i === 2) table.loaded();
      table.putBatch(batch, new Map([[0, 7]]));
      for (const { key: k, value } of batch) {
        if (value === null) model.delete(k);
        else model.set(k, value);
      }
    }
    for (const [k, value] of model) expect([table.get(k), table.has(k)]).toEqual([value, true]);
    for (const { key: k } of batches.flat()) if (!model.has(k)) expect([table.get(k), table.has(k)]).toEqual([undefined, false]);
    for (const start of ['', prefix, 'p/', '\ud800', 'x'.repeat(1000)]) {
      expect([...table.range(start)].map((e) => e.key).sort()).toEqual([...model.keys()].filter((k) => k.startsWith(start)).sort());
    }
    expect(table.position(0)).toBe(batches.length > 0 ? 7 : undefined);
    expect([...table.positions()]).toEqual(batches.length > 0 ? [[0, 7]] : []);
    table.loaded();
    for (const [k, value] of model) expect(table.get(k)).toEqual(value);
  }), { numRuns: 150 });
  await table.close();
});

test('a dropped table leaves nothing behind', async () => {
  const path = join(dir(), 'inner');
  const table = openTable({ path });
  table.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  await table.drop();
  expect(existsSync(path)).toBe(false);
});
