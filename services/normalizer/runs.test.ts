import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTable, type Put, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Entries } from './entries.ts';
import { createShelf, placeOf } from './gathered.ts';
import { partEntries } from './part.ts';
import { createRuns, type Runs } from './runs.ts';

const filters = 1e9;
let dir: string;
let table: Table;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-runs-'));
  table = openTable({ path: dir });
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});

type Place = readonly [high: number, low: number];
const digits = (n: number): string => n.toString(16).padStart(32, '0');
const first = (n: number) => ({ hash: digits(n), offset: n, acceptedAt: 1000 + n });
function entriesOf(places: readonly Place[], number: (i: number) => number): Entries {
  const entries = Entries.room(places.length);
  places.forEach(([high, low], i) => { entries.write(i, high, low, digits(number(i)), number(i), 1000 + number(i)); });
  return entries;
}
/** In slices of so many, each a transaction; true = it was not finished, for the process was killed in the slice with this number. */
function write(runs: Runs, generation: number, places: readonly Place[], entries: Entries, slice: number, kill = Infinity): boolean {
  const writer = runs.writer('t', generation, places.length);
  for (let at = 0; ; at += slice) {
    if (kill-- === 0) return true;
    const puts: Put[] = [];
    for (let i = at; i < Math.min(at + slice, places.length); i++) writer.add(entries, i, puts);
    const last = at + slice >= places.length;
    if (last) writer.finish(puts);
    else writer.rest(puts);
    table.putBatch(puts);
    if (last) return false;
  }
}
function settle(runs: Runs): void {
  for (;;) {
    const puts: Put[] = [];
    runs.step('t', 1e9, 1e9, puts);
    if (puts.length === 0) return;
    table.putBatch(puts);
  }
}
const inOrder = ([a, b]: Place, [c, d]: Place): number => a - c || b - d;

const place: fc.Arbitrary<Place> = fc.tuple(fc.oneof(fc.nat(2), fc.integer({ min: 0, max: 2 ** 52 - 1 }), fc.constant(2 ** 52 - 1)), fc.oneof(fc.nat(30), fc.integer({ min: 0, max: 2 ** 52 - 1 })));
const places = fc.uniqueArray(place, { minLength: 1, maxLength: 250, selector: String }).map((list) => list.toSorted(inOrder));
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('write' as const), generation: fc.nat(1), places, slice: fc.integer({ min: 1, max: 200 }), kill: fc.option(fc.nat(3), { nil: undefined, freq: 6 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('step' as const), entries: fc.integer({ min: 1, max: 600 }), rows: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('kill' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const), before: fc.nat(1) }) },
);

test('runs that are written, merged and forgotten a slice at a time, and of a process that is killed at any, say what a map says', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80 }), fc.constantFrom(0, 400, filters), async (steps, maxFilterBytes) => {
    await table.close();
    table = openTable({ path: mkdtempSync(join(dir, 'run-')) });
    const start = (): Runs => createRuns(table, maxFilterBytes);
    let runs = start();
    const models = [0, 1].map(() => new Map<string, number>());
    const asked = new Map<string, Place>();
    const agree = (some: Iterable<Place>): void => {
      for (const [high, low] of some) for (const generation of [0, 1]) {
        const number = models[generation]!.get(`${high}/${low}`);
        expect(runs.find('t', generation, high, low)).toEqual(number === undefined ? undefined : first(number));
      }
    };
    let number = 0;
    for (const s of steps) {
      if (s.kind === 'write') {
        const from = number;
        number += s.places.length;
        if (write(runs, s.generation, s.places, entriesOf(s.places, (i) => from + i), s.slice, s.kill)) runs = start();
        else s.places.forEach((p, i) => { models[s.generation]!.set(p.join('/'), from + i); });
        for (const p of s.places) asked.set(p.join('/'), p);
        agree(s.places);
      } else if (s.kind === 'kill') runs = start();
      else {
        const puts: Put[] = [];
        if (s.kind === 'step') runs.step('t', s.entries, s.rows, puts);
        else {
          runs.forget('t', s.before, puts);
          if (s.before > 0) models[0]!.clear();
        }
        table.putBatch(puts);
        agree([...asked.values()].slice(0, 20));
      }
    }
    agree(asked.values());
    settle(runs);
    agree(asked.values());
    runs = start();
    agree(asked.values());
    // Nothing is left of what was merged, not finished or forgotten: few runs, one summary each.
    expect([...table.range('#gone/')]).toEqual([]);
    const names = new Set([...table.range('t/')].map(({ key }) => key.split('/').slice(0, 3).join('/')));
    expect([...table.range('#s/')].map(({ key }) => key.split('/').slice(1, 4).join('/'))).toEqual([...names]);
    for (const generation of [0, 1]) expect([...names].filter((name) => name.startsWith(`t/${generation}/`)).length).toBeLessThanOrEqual(7 * 3);
  }), { numRuns: 40 });
});

test('a run of several parts, merged of many, is found whole, also after a start, and without filters', () => {
  const size = Math.ceil(partEntries / 3);
  let runs = createRuns(table, filters);
  const number = (run: number, i: number): number => run * size + i;
  const at = (run: number, i: number): Place => [Math.floor((i + run / 8) / size * 2 ** 52), number(run, i)];
  for (let run = 0; run < 8; run++) {
    const list = Array.from({ length: size }, (_, i) => at(run, i));
    write(runs, 5, list, entriesOf(list, (i) => number(run, i)), 5000);
  }
  settle(runs);
  expect([...table.range('#s/')].length).toBe(3);
  for (const limit of [filters, 200_000, 0]) {
    if (limit < filters) runs = createRuns(table, limit);
    for (let run = 0; run < 8; run++) for (let i = 0; i < size; i += 97) {
      const [high, low] = at(run, i);
      expect(runs.find('t', 5, high, low)).toEqual(first(number(run, i)));
      expect(runs.find('t', 5, high, low + 2 ** 40)).toBeUndefined();
    }
  }
});

test.each([['hashes', (i: number) => `id-${i}`], ['numbers', (i: number) => `evt_${digits(i)}`]])('of what is not there a filter lets less than one in five hundred through: ids that are %s', (_name, idOf) => {
  const shelf = createShelf('t', 0, 0);
  const all = Array.from({ length: 40_000 }, (_, i) => placeOf(shelf, idOf(i)));
  const list = all.slice(0, 20_000).sort(inOrder);
  let reads = 0;
  const counted = { ...table, get: (key: string) => { reads++; return table.get(key); } };
  const runs = createRuns(counted, filters);
  write(runs, 0, list, entriesOf(list, (i) => i), 5000);
  for (const [high, low] of all.slice(20_000)) expect(runs.find('t', 0, high, low)).toBeUndefined();
  expect(reads).toBeLessThan(40);
});
