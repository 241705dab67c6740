import { hashOf, openTable, type Hash, type Put, type Table } from '@weir/state';
import fc from 'fast-check';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createStageBlocks, type StageBlocks, type Where } from './stage-blocks.ts';

const hex = (text: string): string => createHash('sha256').update(text).digest('hex');
// Two begin alike, as hashes of 52 bits may.
const events = [`evt_${hex('a').slice(0, 32)}`, `evt_${hex('a').slice(0, 13)}${'0'.repeat(19)}`, `evt_${hex('b').slice(0, 32)}`, 'e1', 'e1 2', '=e', 'zwei\nZeilen', '"', '\ud800', ''];
const deliveries = ['one', 'two', 'three'];
const hashes = deliveries.map((name): Hash => hashOf(hex(name)));
const topics = ['w.raw.shop', 'w.outcome'];

interface Told { readonly event: number; readonly order: number; readonly topic: number; readonly partition: number; readonly offset: number; readonly json: string }
type Step = { readonly act: 'tell' | 'many' | 'killed' | 'full' | 'sweep'; readonly told: readonly Told[]; readonly numbers: readonly (readonly [number, number])[]; readonly begin: number };
const step: fc.Arbitrary<Step> = fc.record({
  act: fc.constantFrom('tell', 'tell', 'tell', 'tell', 'many', 'killed', 'full', 'sweep'),
  told: fc.array(fc.record({ event: fc.nat(events.length - 1), order: fc.nat(4), topic: fc.nat(1), partition: fc.nat(1), offset: fc.nat(12), json: fc.json() }), { maxLength: 4 }),
  numbers: fc.array(fc.tuple(fc.nat(2), fc.integer({ min: 1, max: 2 ** 47 })), { maxLength: 3 }),
  begin: fc.nat(12),
});

/** Rows of a sweep that looks at every row. */
function sweep(table: Table, blocks: StageBlocks, isGone: (topic: string, partition: number, offset: number) => boolean): number {
  const puts: Put[] = [];
  for (const prefix of ['b/', 'i/']) for (const { key, value } of table.range(prefix)) {
    const put = blocks.swept(key, value, isGone);
    if (put !== undefined) puts.push(put);
  }
  table.putBatch(puts);
  return puts.length;
}

test('stages and numbers are known as maps know them, whenever the process is killed, a write fails or old ones are let go, before, while and after their places are written', () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), fc.integer({ min: 1, max: 12 }), (steps, most) => {
    const disk = createDisk();
    const table = disk.open({ path: 'x' });
    let blocks = createStageBlocks(table, most);
    const model = new Map<string, { readonly event: number; readonly json: string; readonly where: Where; readonly order: number }>();
    const numbers = new Map<number, number>();
    const begins = new Map<string, number>();
    for (const { act, told, numbers: changes, begin } of steps) {
      if (act === 'killed') blocks = createStageBlocks(table, most);
      else if (act === 'sweep') {
        const name = `${topics[begin % 2]!}/${begin % 3 % 2}`;
        begins.set(name, Math.max(begin, begins.get(name) ?? 0));
        const isGone = (topic: string, partition: number, offset: number): boolean => offset < (begins.get(`${topic}/${partition}`) ?? 0);
        sweep(table, blocks, isGone);
        // Of places that lead nowhere, and of blocks whose places are written by now, something may be left once.
        sweep(table, blocks, isGone);
        expect(sweep(table, blocks, isGone)).toBe(0);
        for (const [key, known] of model) {
          const { event, where, order } = known;
          const left = blocks.of(events[event]!).find((s) => s.topic === where.topic && s.partition === where.partition && s.offset === where.offset && s.order === order);
          if (left?.json === known.json) continue;
          // What is there stays. What is gone may stay as long as its block has what is there: where it was told twice, of either block.
          expect(isGone(where.topic, where.partition, where.offset)).toBe(true);
          if (left === undefined) model.delete(key);
          else model.set(key, { ...known, json: left.json });
        }
      } else {
        const draft = blocks.begin();
        const list = act === 'many' ? Array.from({ length: 70 }, (_, i) => told.map((one) => ({ ...one, offset: one.offset + i }))).flat() : told;
        for (const one of list) draft.stage(events[one.event]!, one.order, one.json, { topic: topics[one.topic]!, partition: one.partition, offset: one.offset });
        for (const [of, value] of changes) {
          draft.number(hashes[of]!, value);
          expect(draft.find(hashes[of]!)).toBe(value);
        }
        const rows = draft.rows();
        if (act === 'full') continue;
        table.putBatch(rows);
        draft.written();
        for (const one of list) {
          const where = { topic: topics[one.topic]!, partition: one.partition, offset: one.offset };
          const key = `${one.event}/${one.order}/${where.topic}/${where.partition}/${String(where.offset).padStart(16, '0')}`;
          model.set(key, { event: one.event, json: one.json, where, order: one.order });
        }
        for (const [of, value] of changes) numbers.set(of, value);
      }
      for (const [i, event] of events.entries()) {
        const expected = [...model].filter(([, s]) => s.event === i).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { where, json, order }]) => ({ ...where, json, order }));
        expect(blocks.of(event)).toEqual(expected);
        if (expected.length > 0) expect(blocks.has(event)).toBe(true);
      }
      for (const [i, of] of hashes.entries()) expect(blocks.find(of)).toBe(numbers.get(i));
    }
  }), { numRuns: 80 });
});

test('places and numbers are written late and sorted, in few rows, and what was in memory when the process was killed is found in the blocks', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-stages-'));
  const left = mkdtempSync(join(tmpdir(), 'weir-stages-'));
  const rows = (table: Table, prefix: string): number => [...table.range(prefix)].length;
  const table = openTable({ path: dir });
  const blocks = createStageBlocks(table, 500);
  const event = (i: number): string => `evt_${hex(String(i)).slice(0, 32)}`;
  for (let at = 0; at < 1800; at += 100) {
    const draft = blocks.begin();
    for (let i = at; i < at + 100; i++) {
      draft.stage(event(i), 2, JSON.stringify({ i }), { topic: 't', partition: 0, offset: i });
      draft.number(hashOf(hex(`d${i}`)), i + 1);
    }
    table.putBatch(draft.rows());
    draft.written();
  }
  // 64 a block: two for each hundred.
  expect(rows(table, 'b/')).toBe(36);
  expect([rows(table, 'i/') >= 500, rows(table, 'i/') < 1800, rows(table, 'd/') >= 500, rows(table, 'd/') < 1800]).toEqual([true, true, true, true]);
  // As a kill leaves the file.
  cpSync(dir, left, { recursive: true });
  await table.close();
  const after = openTable({ path: left });
  const found = createStageBlocks(after, 500);
  for (let i = 0; i < 1800; i++) {
    expect(found.of(event(i)).map(({ json, offset }) => [JSON.parse(json), offset])).toEqual([[{ i }, i]]);
    expect(found.find(hashOf(hex(`d${i}`)))).toBe(i + 1);
  }
  // Everything is gone: blocks, their places, and nothing of the numbers.
  for (let i = 0; i < 30; i++) {
    const draft = found.begin();
    for (let n = 0; n < 100; n++) draft.number(hashOf(hex(`new${i}/${n}`)), 1);
    after.putBatch(draft.rows());
    draft.written();
  }
  while (sweep(after, found, () => true) > 0);
  expect(rows(after, 'i/')).toBe(0);
  expect(found.of(event(0))).toEqual([]);
  expect([found.find(hashOf(hex('d0'))), found.find(hashOf(hex('d1799')))]).toEqual([1, 1800]);
  await after.close();
  for (const path of [dir, left]) rmSync(path, { recursive: true, force: true });
});
