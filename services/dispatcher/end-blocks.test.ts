import type { Serde } from '@weir/log';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { keepsInstead } from './ledger.ts';
import { createLedgerStore, type LedgerStore } from './ledger-store.ts';
import type { EndState, EndValue } from './types.ts';

const serde = { decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) as unknown }) } as unknown as Serde;
const endOf = (key: string, over: Partial<EndValue>): EndValue => ({ key, state: 'delivered', effect: 'done', subject: 's', operation: 'send', at: 1, acceptedAt: 1, ...over } as EndValue);
const entryOf = (end: EndValue) => ({ key: `${end.key}#end`, offset: 0, value: Buffer.from(JSON.stringify(end)) });

type Step = { readonly act: 'end' | 'batch' | 'prune' | 'killed' | 'full'; readonly key: number; readonly state: EndState; readonly at: number; readonly age: number };
const step: fc.Arbitrary<Step> = fc.record({
  act: fc.constantFrom('end', 'end', 'end', 'end', 'batch', 'prune', 'killed', 'full'), key: fc.integer({ min: 0, max: 25 }),
  state: fc.constantFrom<EndState>('delivered', 'delivered', 'dead-lettered', 'denied'), at: fc.integer({ min: 1, max: 60 }), age: fc.integer({ min: 1, max: 9 }),
});

/** As one number that grows with the accept time, and among equal ones with the first offset. */
const ageOf = ({ acceptedAt, firstOffset }: { readonly acceptedAt: number; readonly firstOffset?: number }): number => acceptedAt * 10 + (firstOffset ?? -1) + 1;

/** What the end of a key set. */
const objects = ['', 'p', 'x', '-'] as const;
const objectOf = (key: string): string => objects[Number(key) % objects.length]!;

/** What counts under each key, until when it is kept, and between what the age of the newest delivered one of an object lies. */
function createModel() {
  const ends = new Map<string, { readonly end: EndValue; readonly time: number }>();
  const newest = new Map<string, number>();
  /** Age of the newest one that was let go: older ones may be gone with it. */
  const gone = new Map<string, number>();
  const raise = (of: Map<string, number>, end: EndValue): void => { of.set(objectOf(end.key), Math.max(of.get(objectOf(end.key)) ?? 0, ageOf(end))); };
  return {
    end: (key: string): EndValue | undefined => ends.get(key)?.end,
    put(end: EndValue): void {
      const known = ends.get(end.key);
      if (known !== undefined && !keepsInstead(known.end, end)) return;
      ends.set(end.key, { end, time: Math.max(end.at, known?.time ?? 0) });
      if (end.state === 'delivered') raise(newest, end);
    },
    /** What lies in a block with a newer one stays. */
    prune(time: number, stays: (key: string) => boolean): void {
      for (const [key, { end, time: kept }] of ends) if (kept < time && !stays(key)) {
        raise(gone, end);
        ends.delete(key);
      }
    },
    least: (object: string): number => Math.max(0, ...[...ends.values()].map(({ end }) => (end.state === 'delivered' && objectOf(end.key) === object && ageOf(end) > (gone.get(object) ?? 0) ? ageOf(end) : 0))),
    newest: (object: string): number => newest.get(object) ?? 0,
  };
}

test.for<[title: string, runs: fc.Parameters<[Step[], number]>]>([
  ['ends are known as a map knows them, whenever the process is killed, a write fails or old ones are let go, before, while and after their places are written', { numRuns: 150 }],
  ['an end that is replaced twice, under clocks that are behind, is kept as long as the first', { seed: -1904364960, path: '31:3:1:9:13:14:17:12:16:16:17:4:5:3:14:14:15:3:5:3:3:14:3:5:3:14:3:4:14:3:15:15', numRuns: 1 }],
  ['an end that is let go before the one that it replaced, under a clock that is behind, does not leave that one behind', { seed: 244500226, path: '108:2:1:5:4:4:4:4:6:8:9:9:13:12:12:12:12:13:13:13:16:17:3:5:3:3:3:3:16:3:5:3:3:3:16:3:5:3:3:16:3:4:16:3:16:3:17:20:20:20:20:20:20:18', numRuns: 1 }],
])('%s', async ([, runs]) => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 120 }), fc.integer({ min: 1, max: 12 }), async (steps, gathered) => {
    const disk = createDisk();
    let full = false;
    const open = (): LedgerStore => {
      const table = disk.open({ path: 'x' });
      const failing: Table = { ...table, putBatch(...of) {
        if (full) throw new Error('disk full');
        table.putBatch(...of);
      } };
      return createLedgerStore(failing, serde, false, gathered);
    };
    let ledger = open();
    let offset = 0;
    const model = createModel();
    const batched = new Set<string>();
    for (const { act, key, state, at, age: nth } of steps) {
      // Three accept times; of each one whose first offset is not known, and two.
      const over = { state, at, acceptedAt: Math.ceil(nth / 3), firstOffset: ((nth - 1) % 3) - 1 };
      const end = endOf(String(key), { ...over, object: objectOf(String(key)) });
      if (act === 'prune') {
        while (ledger.prune(at, 3) > 0);
        model.prune(at, (k) => batched.has(k) && ledger.end(k) !== undefined);
      } else if (act === 'killed') ledger = open();
      else if (act === 'full') {
        full = true;
        expect(() => { ledger.prune(70, 1000); ledger.apply(0, [entryOf(end)], offset + 1); }).toThrow('disk full');
        full = false;
        ledger = open();
      } else {
        const batch = act === 'end' ? [end] : Array.from({ length: 40 }, (_, i) => endOf(String((key + i) % 26), { ...over, object: objectOf(String((key + i) % 26)) }));
        ledger.apply(0, batch.map(entryOf), ++offset);
        for (const one of batch) {
          model.put(one);
          if (act === 'batch') batched.add(one.key);
        }
      }
      for (let k = 0; k <= 25; k++) expect(ledger.end(String(k))).toEqual(model.end(String(k)));
      expect(ledger.position(0)).toBe(offset);
      for (const object of objects) {
        const last = ledger.lastDelivered('s', 'send', object);
        const age = last === undefined ? 0 : ageOf(last);
        // Of those that replace nothing none is kept.
        expect(age).toBeGreaterThanOrEqual(object === '-' ? 0 : model.least(object));
        expect(age).toBeLessThanOrEqual(object === '-' ? 0 : model.newest(object));
      }
    }
    await ledger.close();
  }), runs);
});

test('nothing is left of ends that were let go, though the process was killed before their rows were taken out', async () => {
  const path = mkdtempSync(join(tmpdir(), 'weir-ledger-'));
  const rows = (table: Table, prefix: string): number => [...table.range(prefix)].length;
  let table = openTable({ path });
  let ledger = createLedgerStore(table, serde, false, 50);
  let offset = 0;
  const put = (count: number, at: number): void => { for (let i = 0; i < count; i++) ledger.apply(0, [entryOf(endOf(`k${offset}`, { subject: `s${offset}`, at }))], ++offset); };
  put(200, 1);
  expect(rows(table, 'e/')).toBeGreaterThan(100);
  expect(ledger.prune(10, 1000)).toBe(200);
  await table.close();
  table = openTable({ path });
  ledger = createLedgerStore(table, serde, false, 50);
  put(300, 20);
  expect([ledger.end('k0'), ledger.end('k199'), ledger.lastDelivered('s5', 'send', '')]).toEqual([undefined, undefined, undefined]);
  expect(ledger.end('k499')?.at).toBe(20);
  for (const prefix of ['e/', 'l/']) expect(rows(table, prefix)).toBeLessThanOrEqual(300);
  expect([rows(table, 'g/'), rows(table, 'b/'), rows(table, 't/')]).toEqual([0, 300, 300]);
  await ledger.close();
  rmSync(path, { recursive: true, force: true });
});

test('a cache of the version before goes on: its ends are there, and where they stood among those of their time is not known', () => {
  const disk = createDisk();
  const table = disk.open({ path: 'x' });
  const first = createLedgerStore(table, serde, false, 2);
  for (let i = 0; i < 9; i++) first.apply(0, [entryOf(endOf(`k${i}`, { subject: `s${i}`, acceptedAt: 7 }))], i + 1);
  // What that version wrote is the same bytes under its own layout.
  table.putBatch([{ key: '#layout', value: Buffer.from('4') }]);
  const ledger = createLedgerStore(disk.open({ path: 'x' }), serde, false, 2);
  for (let i = 0; i < 9; i++) expect([ledger.end(`k${i}`)?.acceptedAt, ledger.lastDelivered(`s${i}`, 'send', '')]).toEqual([7, { acceptedAt: 7, firstOffset: -1 }]);
  expect(ledger.position(0)).toBe(9);
  ledger.apply(0, [entryOf(endOf('k9', { subject: 's1', acceptedAt: 7, firstOffset: 0 }))], 10);
  for (const reader of [ledger, createLedgerStore(disk.open({ path: 'x' }), serde, false, 2)]) expect(reader.lastDelivered('s1', 'send', '')).toEqual({ acceptedAt: 7, firstOffset: 0 });
  expect(table.get('#layout')?.toString()).toBe('5');
});
