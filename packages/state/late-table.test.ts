import fc from 'fast-check';
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
    let [now, full] = [0, false];
    const open = (): Table => {
      const inner = disk.open({ path: 'x' });
      return createLateTable({ ...inner, putBatch(...of) {
        if (full) throw new Error('disk full');
        inner.putBatch(...of);
      } }, { monotonic: () => now, rows });
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
          table.putBatch(puts, new Map([[0, ++position]]), new Map([[0, { offset: position - 1, timestamp: 0, currentAt: now }]]));
        } catch (error) {
          expect((error as Error).message).toBe('disk full');
        }
        full = false;
        if (act === 'load') table.loaded();
        model = new Map(model);
        for (const { key, value } of puts) if (value === null) model.delete(key); else model.set(key, value.toString());
        history.push({ position, model });
      } else if (act === 'wait') now += ms;
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
  const table = createLateTable(inner, { monotonic: () => 0, removesAtOnce: true });
  table.putBatch([{ key: 'l', value: Buffer.from('1') }], new Map([[0, 1]]));
  expect(inner.has('l')).toBe(false);
  table.putBatch([{ key: 'm', value: Buffer.from('2') }], new Map([[0, 2]]));
  table.putBatch([{ key: 'k', value: null }], new Map([[0, 3]]));
  expect([inner.has('k'), inner.has('l'), inner.has('m'), inner.position(0)]).toEqual([false, true, true, 3]);
});

test('what waits is written when it is much, or has waited for 200 ms when something more is put', () => {
  const disk = createDisk();
  let now = 0;
  const table = createLateTable(disk.open({ path: 'x' }), { monotonic: () => now, rows: 3 });
  const written = (): number | undefined => disk.open({ path: 'x' }).position(0);
  table.putBatch([{ key: 'a', value: Buffer.from('1') }], new Map([[0, 1]]));
  now = 199;
  table.putBatch([{ key: 'a', value: Buffer.from('2') }], new Map([[0, 2]]));
  expect(written()).toBeUndefined();
  now = 200;
  table.putBatch([], new Map([[0, 3]]));
  expect(written()).toBe(3);
  table.putBatch([{ key: 'a', value: null }, { key: 'b', value: Buffer.from('1') }], new Map([[0, 4]]));
  expect(written()).toBe(3);
  table.putBatch([{ key: 'c', value: Buffer.from('1') }], new Map([[0, 5]]));
  expect(written()).toBe(5);
  table.putBatch([{ key: 'd', value: Buffer.alloc(600_000) }], new Map([[0, 6]]));
  expect(written()).toBe(6);
});
