import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmdirSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync, StatementSync } from 'node:sqlite';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
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

test('while it is loaded, from nothing or not, a table tells of every key as one that is read', async () => {
  const step = fc.record({ key: fc.oneof(fc.integer({ min: 0, max: 20 }).map((n) => `k/${n}`), fc.constantFrom('', '\uffff\uffffx', 'a\u0000', '\ud800', 'x'.repeat(400))), act: fc.constantFrom('put', 'put', 'remove', 'ask', 'flush', 'clear'), value: fc.integer({ min: 0, max: 9 }) });
  await fc.assert(fc.asyncProperty(fc.boolean(), fc.boolean(), fc.array(step, { maxLength: 60 }), async (empty, tellsAbsent, steps) => {
    const table = openTable({ path: dir(), tellsAbsent });
    const model = new Map<string, string>();
    const agree = (key: string): void => expect([table.get(key)?.toString(), table.text(key), table.has(key)]).toEqual([model.get(key), model.get(key), model.has(key)]);
    if (!empty) {
      table.putBatch([{ key: 'k/0', value: Buffer.from('before') }]);
      model.set('k/0', 'before');
    }
    table.loading();
    for (const { key, act, value } of steps) {
      if (act === 'put') {
        table.putBatch([{ key, value: Buffer.from(String(value)) }]);
        model.set(key, String(value));
      } else if (act === 'remove') {
        table.putBatch([{ key, value: null }]);
        model.delete(key);
      } else if (act === 'flush') table.positions();
      else if (act === 'clear') {
        table.clear();
        model.clear();
      }
      agree(key);
    }
    agree('k/0');
    table.loaded();
    for (const { key } of steps) agree(key);
    await table.close();
  }), { numRuns: 40 });
});

test('one that tells what is absent is right about every key, also after a start while it goes over the rows of before, and reads no more for nearly all', async () => {
  const key = fc.oneof(fc.integer({ min: 0, max: 2400 }).map((n) => `k/${n}`), fc.constantFrom('', '\uffff\uffffx', 'a\u0000', '\ud800', 'x'.repeat(400), '\u{1f600}'));
  const step = fc.record({ key, act: fc.constantFrom('put', 'put', 'remove', 'turn', 'clear', 'fail') });
  const turn = (): Promise<void> => new Promise((done) => { setImmediate(done); });
  const strange = ['', '\uffff\uffffx', 'a\u0000', '\ud800', 'x'.repeat(400), '\u{1f600}'];
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
    const path = dir();
    const before = openTable({ path, tellsAbsent: true });
    const model = new Map<string, string>();
    for (let i = 0; i < 1200; i++) model.set(`k/${i}`, String(i));
    for (const name of strange) model.set(name, 'strange');
    before.putBatch([...model].map(([key, value]) => ({ key, value: Buffer.from(value) })), new Map([[0, 1]]));
    await before.close();
    const table = openTable({ path, tellsAbsent: true });
    const agree = (key: string): void => { if (table.get(key)?.toString() !== model.get(key) || table.has(key) !== model.has(key)) expect.fail(`${JSON.stringify(key)} is told as ${table.get(key)?.toString()}, ${table.has(key)}`); };
    const all = (): void => {
      for (let i = 0; i <= 2400; i++) agree(`k/${i}`);
      strange.forEach(agree);
    };
    all();
    for (const { key, act } of steps) {
      if (act === 'turn') await turn();
      else if (act === 'clear') {
        table.clear();
        model.clear();
      } else if (act === 'fail') expect(() => table.putBatch([{ key, value: {} as never }])).toThrow(/cannot be bound|must be an instance/);
      else {
        table.putBatch([{ key, value: act === 'put' ? Buffer.from('new') : null }]);
        if (act === 'put') model.set(key, 'new');
        else model.delete(key);
      }
      agree(key);
    }
    all();
    for (let i = 0; i < 6; i++) await turn();
    all();
    const reads = vi.spyOn(StatementSync.prototype, 'get');
    for (let i = 5000; i < 6000; i++) table.get(`k/${i}`);
    expect(reads.mock.calls.length).toBeLessThan(20);
    reads.mockRestore();
    expect(table.position(0)).toBe(steps.some(({ act }) => act === 'clear') ? undefined : 1);
    await table.close();
  }), { numRuns: 15 });
});

test('a write that failed has changed nothing, and the next one goes through', async () => {
  const path = dir();
  const table = openTable({ path });
  table.putBatch([{ key: 'a', value: Buffer.from('1') }], new Map([[0, 7]]));
  expect(() => table.putBatch([{ key: 'a', value: Buffer.from('2') }, { key: 'b', value: {} as never }], new Map([[0, 8]]))).toThrow(/cannot be bound/);
  expect([table.get('a')?.toString(), table.position(0)]).toEqual(['1', 7]);
  table.putBatch([{ key: 'b', value: Buffer.from('3') }], new Map([[0, 9]]));
  expect([table.get('b')?.toString(), table.position(0)]).toEqual(['3', 9]);
  await table.close();
});

test.runIf(existsSync('/dev/full'))('on a full disk a write throws, the process lives, and after a start the cache is what it was', async () => {
  const path = dir();
  const script = `import { openTable } from ${JSON.stringify(join(import.meta.dirname, 'table.ts'))};
    const table = openTable({ path: ${JSON.stringify(path)} });
    let written = 0;
    try { for (;; written++) table.putBatch([{ key: 'k' + written, value: Buffer.alloc(1000, 7) }], new Map([[0, written + 1]])); }
    catch (error) { console.log(JSON.stringify({ written, position: table.position(0), last: table.has('k' + (written - 1)), failed: table.has('k' + written), message: error.message })); }
    process.exit();`;
  const run = spawnSync('bash', ['-c', 'trap "" XFSZ; ulimit -f 4000; exec "$0" "$@"', process.execPath, '--input-type=module', '-e', script], { encoding: 'utf8' });
  const told = JSON.parse(run.stdout) as { written: number; position: number; last: boolean; failed: boolean; message: string };
  expect(told).toMatchObject({ position: told.written, last: true, failed: false, message: expect.stringMatching(/disk|full/) as string });
  const again = openTable({ path, onDiscard: (reason) => { throw new Error(reason); } });
  expect([again.position(0), again.has(`k${told.written - 1}`), again.has(`k${told.written}`)]).toEqual([told.written, true, false]);
  await again.close();
});

test('what breaks while it is open is told, and the next start makes the cache anew instead of failing for ever', async () => {
  const path = dir();
  const table = openTable({ path });
  const keys = Array.from({ length: 60_000 }, (_, i) => `k/${String(i).padStart(9, '0')}`);
  for (let i = 0; i < keys.length; i += 500) table.putBatch(keys.slice(i, i + 500).map((key) => ({ key, value: Buffer.alloc(300, 1) })));
  // All but the first page of each file: a disk that gives other bytes than were written.
  for (const name of ['cache.db', 'cache.db-wal']) {
    const file = openSync(join(path, name), 'r+');
    const { size } = fstatSync(file);
    for (let at = 4096; at < size; at += 4096) writeSync(file, Buffer.alloc(Math.min(4096, size - at), 0xaa), 0, undefined, at);
    closeSync(file);
  }
  expect(() => { for (const key of keys) table.get(key); }).toThrow(/malformed/);
  await table.close();
  let told = '';
  const again = openTable({ path, onDiscard: (reason) => { told = reason; } });
  expect([told, again.get('k/000000001')]).toEqual([expect.stringMatching(/malformed/), undefined]);
  await again.close();
});

test('a folder that another process has open is refused and left as it is', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  expect(() => openTable({ path })).toThrow(/in use by another process/);
  expect(first.get('a')?.toString()).toBe('1');
  await first.close();
});

test('a cache that another machine has open is refused, not deleted; its mark outlives the close of a table that it is not of', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  writeFileSync(join(path, 'in-use'), 'another run of another machine');
  expect(() => openTable({ path })).toThrow(/in use by another process/);
  expect(first.get('a')?.toString()).toBe('1');
  await first.close();
  expect(readFileSync(join(path, 'in-use'), 'latin1')).toBe('another run of another machine');
});

test('a cache that the system does not let be opened is kept, and that is told', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  await first.close();
  mkdirSync(join(path, 'cache.db-wal'));
  expect(() => openTable({ path, onDiscard: () => { throw new Error('discarded'); } })).toThrow(expect.objectContaining({ code: 'state-unusable' }) as Error);
  rmdirSync(join(path, 'cache.db-wal'));
  const again = openTable({ path });
  expect(again.get('a')?.toString()).toBe('1');
  await again.close();
});

test('ranges may be read within ranges, left in the middle, and written beside', async () => {
  const table = openTable({ path: dir() });
  table.putBatch(Array.from({ length: 50 }, (_, i) => ({ key: `r/${i + 10}`, value: Buffer.from(String(i)) })));
  let inner = 0;
  for (const { key } of table.range('r/')) {
    for (const other of table.range('r/')) {
      inner++;
      if (other.key === key) break;
    }
    table.putBatch([{ key: `w/${key}`, value: Buffer.from('1') }]);
  }
  expect([inner, [...table.range('w/')].length]).toEqual([(50 * 51) / 2, 50]);
  await table.close();
});

test('a prefix gives its keys and no others', async () => {
  const table = openTable({ path: dir() });
  table.putBatch(['p/1/x', 'p/1/y', 'p/10/x', 'q'].map((key) => ({ key, value: Buffer.from(key) })));
  expect([...table.range('p/1/')].map((e) => e.key)).toEqual(['p/1/x', 'p/1/y']);
  await table.close();
});

test('a range goes on behind any key, one that is stored otherwise too', async () => {
  const table = openTable({ path: dir() });
  fc.assert(fc.property(fc.uniqueArray(fc.oneof(fc.string({ unit: 'binary', maxLength: 8 }), fc.constantFrom('a/1', 'a/2', 'a/\u0000', `a/${'x'.repeat(400)}`)), { maxLength: 12 }), (keys) => {
    table.clear();
    table.putBatch(keys.map((key) => ({ key, value: Buffer.from('v') })));
    const all = [...table.range('')].map((e) => e.key);
    const seen: string[] = [];
    for (;;) {
      const [next] = table.range('', seen.at(-1));
      if (next === undefined) break;
      seen.push(next.key);
    }
    expect(seen).toEqual(all);
    expect([...table.range('a/', 'a/1')].map((e) => e.key)).toEqual([...table.range('a/')].map((e) => e.key).filter((key) => key !== 'a/1'));
  }), { numRuns: 100 });
  await table.close();
});

test('a file that is no cache is replaced, and that is told', async () => {
  const path = dir();
  writeFileSync(join(path, 'cache.db'), 'this is no database, but it is long enough to look like one');
  let told = '';
  const table = openTable({ path, onDiscard: (reason) => { told = reason; } });
  table.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  expect(table.get('a')?.toString()).toBe('1');
  expect(told).toContain('not a SQLite file');
  await table.close();
});

test('a file that was cut is replaced: what is missing would be read as zeros', async () => {
  const path = dir();
  const first = openTable({ path });
  first.putBatch(Array.from({ length: 2000 }, (_, i) => ({ key: `k/${i}`, value: Buffer.alloc(500) })));
  await first.close();
  truncateSync(join(path, 'cache.db'), 300_000);
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
  const db = new DatabaseSync(join(path, 'cache.db'));
  db.exec("CREATE TABLE kv (k TEXT PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID; INSERT INTO kv VALUES ('key', x'00')");
  db.close();
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

test('a cache of an earlier version is removed', async () => {
  const path = dir();
  writeFileSync(join(path, 'data.mdb'), 'what was there');
  let told = '';
  const table = openTable({ path, onDiscard: (reason) => { told = reason; } });
  expect([told, existsSync(join(path, 'data.mdb'))]).toEqual(['the cache is of an earlier version', false]);
  await table.close();
});

test('a dropped table leaves nothing behind', async () => {
  const path = join(dir(), 'inner');
  const table = openTable({ path });
  table.putBatch([{ key: 'a', value: Buffer.from('1') }]);
  await table.drop();
  expect(existsSync(path)).toBe(false);
});
