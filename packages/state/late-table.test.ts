import fc from 'fast-check';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createLateTable } from './late-table.ts';
import type { Put, Table } from './table.ts';

type Step = readonly [act: 'put' | 'put' | 'wait' | 'range' | 'killed' | 'full' | 'clear' | 'load' | 'close', puts: readonly Put[], ms: number];
const keys = ['a/1', 'a/2', 'a/3', 'b/1', 'b/2', 'c'];
const put: fc.Arbitrary<Put> = fc.record({ key: fc.constantFrom(...keys), value: fc.option(fc.integer({ min: 0, max: 9 }).map((n) => Buffer.from(String(n)))) });
const step: fc.Arbitrary<Step> = fc.tuple(fc.constantFrom('put', 'put', 'put', 'put', 'wait', 'range', 'killed', 'full', 'clear', 'load', 'close'), fc.array(put, { maxLength: 4 }), fc.integer({ min: 1, max: 150 }));

/** All of it, by keys and by ranges. */
const all = (table: Table): Record<string, string | undefined> => Object.fromEntries(keys.flatMap((key) => (table.get(key) === undefined ? [] : [[key, table.get(key)?.toString()]])));

test('what is put is seen at once as in a map, and a killed process leaves the table as it was behind one of the puts, positions and all', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 12 }), async (steps, rows) => {
    const disk = createDisk();
    let full = false;
    let clock = createHandClock(0);
    /** In a process of its own: the timers of the one before are gone with it. */
    const open = (): Table => {
      clock = createHandClock(clock.at);
      const inner = disk.open({ path: 'x' });
      return createLateTable({ ...inner, putBatch(...of) {
        if (full) throw new Error('disk full');
        inner.putBatch(...of);
      } }, { clock, rows });
    };
    let table = open();
    let model = new Map<string, string>();
    let position = 0;
    /** What the table was behind each put. */
    let history: { readonly position: number; readonly model: Map<string, string> }[] = [{ position: 0, model }];
    for (const [act, puts, ms] of steps) {
      if (act === 'put' || act === 'full' || act === 'load') {
        full = act === 'full';
        if (act === 'load') table.loading();
        try {
          table.putBatch(puts, new Map([[0, ++position]]), new Map([[0, { offset: position - 1, timestamp: 0, currentAt: clock.at }]]));
        } catch (error) {
          expect((error as Error).message).toBe('disk full');
        }
        full = false;
        if (act === 'load') table.loaded();
        model = new Map(model);
        for (const { key, value } of puts) if (value === null) model.delete(key); else model.set(key, value.toString());
        history.push({ position, model });
      } else if (act === 'wait') for (const _ of clock.turn(3 * ms)) continue;
      else if (act === 'range') expect([...table.range('a/')].map(({ key, value }) => [key, value.toString()])).toEqual([...model].filter(([key]) => key.startsWith('a/')).sort());
      else if (act === 'clear') {
        table.clear();
        [model, position] = [new Map(), 0];
        history = [{ position: 0, model }];
      } else {
        if (act === 'close') await table.close();
        table = open();
        const found = history.find((one) => one.position === (table.position(0) ?? 0))!;
        if (act === 'close') expect(found).toBe(history.at(-1));
        model = found.model;
        position = found.position;
        history = [found];
      }
      expect(all(table)).toEqual(Object.fromEntries([...model].sort()));
      for (const key of keys) expect([table.has(key), table.text(key)]).toEqual([model.has(key), model.get(key)]);
      expect([table.position(0) ?? 0, table.seen(0)?.offset]).toEqual([position, position === 0 ? undefined : position - 1]);
    }
  }), { numRuns: 300 });
});

test('what is removed where that is secret is gone from the disk at once, with what waited', () => {
  const disk = createDisk();
  const inner = disk.open({ path: 'x' });
  inner.putBatch([{ key: 'k', value: Buffer.from('secret') }]);
  const table = createLateTable(inner, { clock: createHandClock(0), removesAtOnce: true });
  table.putBatch([{ key: 'l', value: Buffer.from('1') }], new Map([[0, 1]]));
  expect(inner.has('l')).toBe(false);
  table.putBatch([{ key: 'm', value: Buffer.from('2') }], new Map([[0, 2]]));
  table.putBatch([{ key: 'k', value: null }], new Map([[0, 3]]));
  expect([inner.has('k'), inner.has('l'), inner.has('m'), inner.position(0)]).toEqual([false, true, true, 3]);
  // A row that shrinks because a part of it was removed.
  table.putBatch([{ key: 'm', value: Buffer.from('') }], new Map([[0, 4]]), undefined, true);
  expect([inner.get('m')?.length, inner.position(0)]).toEqual([0, 4]);
});

test('what waits is written when it is much, or has waited for 200 ms when something more is put', () => {
  const disk = createDisk();
  const clock = createHandClock(0);
  const table = createLateTable(disk.open({ path: 'x' }), { clock, rows: 3 });
  const written = (): number | undefined => disk.open({ path: 'x' }).position(0);
  table.putBatch([{ key: 'a', value: Buffer.from('1') }], new Map([[0, 1]]));
  clock.at = 199;
  table.putBatch([{ key: 'a', value: Buffer.from('2') }], new Map([[0, 2]]));
  expect(written()).toBeUndefined();
  clock.at = 200;
  table.putBatch([], new Map([[0, 3]]));
  expect(written()).toBe(3);
  table.putBatch([{ key: 'a', value: null }, { key: 'b', value: Buffer.from('1') }], new Map([[0, 4]]));
  expect(written()).toBe(3);
  table.putBatch([{ key: 'c', value: Buffer.from('1') }], new Map([[0, 5]]));
  expect(written()).toBe(5);
  table.putBatch([{ key: 'd', value: Buffer.alloc(600_000) }], new Map([[0, 6]]));
  expect(written()).toBe(6);
});

/** A table on a disk that may be full, with what is on it. */
function onDisk() {
  const clock = createHandClock(0);
  const inner = createDisk().open({ path: 'x' });
  const disk = { full: false, closed: false };
  const table = createLateTable({ ...inner, putBatch(...of) {
    if (disk.full) throw new Error('disk full');
    inner.putBatch(...of);
  }, close: async () => { disk.closed = true; } }, { clock });
  const pass = (ms: number): void => { for (const _ of clock.turn(ms)) continue; };
  return { table, inner, disk, pass };
}

test('what waits is written within a second, though nothing more is put: a place that is old at a kill would cost all of the topic', () => {
  const { table, inner, disk, pass } = onDisk();
  table.putBatch([], new Map([[0, 1]]));
  pass(999);
  expect(inner.position(0)).toBeUndefined();
  disk.full = true;
  pass(1);
  disk.full = false;
  pass(999);
  expect(inner.position(0)).toBeUndefined();
  pass(1);
  expect(inner.position(0)).toBe(1);
});

test('a table whose last write fails is closed all the same, and says so', async () => {
  const { table, disk } = onDisk();
  table.putBatch([{ key: 'a', value: Buffer.from('1') }], new Map([[0, 1]]));
  disk.full = true;
  await expect(table.close()).rejects.toThrow('disk full');
  expect(disk.closed).toBe(true);
});

test('a value that is a small part of what a broker answered is copied: it would keep all of that while it waits', () => {
  const { table } = onDisk();
  const answer = Buffer.alloc(1_000_000, 'a');
  table.putBatch([{ key: 'a', value: answer.subarray(10, 20) }]);
  expect(table.get('a')).toEqual(Buffer.alloc(10, 'a'));
  expect(table.get('a')!.buffer.byteLength).toBeLessThan(100_000);
});
