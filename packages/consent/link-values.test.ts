import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogRecord } from '@weir/log';
import type { LinkValue } from '@weir/seal';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLinkValues, type LinkValues } from './link-values.ts';
import { createLinkIndex, type LinkIndex } from './links.ts';

let dir: string;
let links: Table;
let values: Table;
let index: LinkIndex;
let kept: LinkValues;
const read = (value: Buffer | null): LinkValue | undefined => (value === null || value.toString() === '?' ? undefined : JSON.parse(value.toString(), (key, of) => (key === 'sealed' && of !== null ? Buffer.from(of) : of)) as LinkValue);
async function open(): Promise<void> {
  links = openTable({ path: join(dir, 'links') });
  values = openTable({ path: join(dir, 'values') });
  index = createLinkIndex(links);
  kept = createLinkValues(values, links, read);
}
const close = async (): Promise<void> => { await Promise.all([links.close(), values.close()]); };
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weir-values-'));
  await open();
});
afterEach(async () => {
  await close();
  rmSync(dir, { recursive: true, force: true });
});

interface Link { readonly a: string; readonly b: string; readonly at: number; /** null = without, undefined = a tombstone, ? = of a version that nobody knows. */ readonly sealed: string | null | undefined }
const batchOf = (list: readonly Link[]) => {
  const records = list.map(({ a, b, at, sealed }, offset): LogRecord => ({ offset, timestamp: 1, key: Buffer.from(a < b ? `${a}~${b}` : `${b}~${a}`), value: sealed === undefined ? null : Buffer.from(sealed === '?' ? '?' : JSON.stringify({ at, sealed })), headers: [] }));
  return { topic: 'i', partition: 0, epoch: 0, records, nextOffset: list.length, highWatermark: list.length };
};
/** As the tables of consent do: values before links and positions. */
function put(list: readonly Link[], upTo: 'all' | 'values' = 'all'): void {
  const batch = batchOf(list);
  kept.put(batch);
  if (upTo === 'all') links.putBatch(index.puts(batch), new Map([[0, 1]]));
}
const name = fc.constantFrom('userId:1', 'userId:2', 'email:1', 'email:2', 'phone:1', 'anonymousId:1', 'external:1');
const link = fc.record({ a: name, b: name, at: fc.integer({ min: 1, max: 1000 }), sealed: fc.oneof({ weight: 4, arbitrary: fc.stringMatching(/^[a-z]{1,8}$/) }, { weight: 1, arbitrary: fc.constantFrom(null, undefined, '?') }) });
const step = fc.record({ batch: fc.array(link, { maxLength: 6 }), next: fc.constantFrom('goes on', 'goes on', 'reopens', 'loads', 'dies between the two') });

test('what is kept with a link is what its last record says, in any order, over loads and restarts, and where the process dies between the two tables', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
    await close();
    rmSync(dir, { recursive: true, force: true });
    await open();
    kept.loading();
    kept.loaded();
    const model = new Map<string, { at: number; sealed: string }>();
    for (const { batch, next } of steps) {
      const list = batch.filter(({ a, b }) => a !== b);
      if (next === 'loads') {
        kept.loading();
        links.loading();
      }
      if (next === 'dies between the two') {
        put(list, 'values');
        await close();
        await open();
        // The positions are those of before: it is read again.
      }
      put(list);
      for (const { a, b, at, sealed } of list) {
        if (![a, b].some((id) => /^(?:userId|email|phone):/.test(id))) continue;
        const key = [a, b].sort().join('~');
        if (sealed === null || sealed === undefined || sealed === '?') model.delete(key);
        else model.set(key, { at, sealed });
      }
      if (next === 'loads') {
        links.loaded();
        kept.loaded();
      }
      if (next === 'reopens') {
        await close();
        await open();
      }
      const all = ['userId:1', 'userId:2', 'email:1', 'email:2', 'phone:1', 'anonymousId:1', 'external:1'];
      const found = kept.of(all, index.links).map(({ at, sealed }) => [at, sealed.toString()]);
      const expected = [...model].filter(([key]) => index.links(key.split('~')[0]!).includes(key.split('~')[1]!)).map(([, { at, sealed }]) => [at, sealed]);
      expect(found.toSorted()).toEqual(expected.toSorted());
      expect(found.map(([at]) => at)).toEqual(found.map(([at]) => at as number).toSorted((x, y) => y - x));
    }
    // Nothing of it lies where decisions read.
    for (const { key } of links.range('')) expect(key.startsWith('l|') || key === '#values').toBe(true);
  }), { numRuns: 40 });
});

test('a table that was lost, or that a process died while it was filled, is read again with the other one', async () => {
  kept.loading();
  kept.loaded();
  put([{ a: 'userId:1', b: 'email:1', at: 5, sealed: 'x' }]);
  await close();
  await open();
  expect([links.position(0), kept.of(['userId:1'], index.links)]).toEqual([1, [{ at: 5, sealed: Buffer.from('x') }]]);
  await close();
  rmSync(join(dir, 'values'), { recursive: true });
  await open();
  expect([links.position(0), index.links('userId:1')]).toEqual([undefined, []]);
  kept.loading();
  put([{ a: 'userId:1', b: 'email:1', at: 5, sealed: 'x' }]);
  // Killed here: what was gathered is lost, and the positions of the links are not.
  await close();
  await open();
  expect(links.position(0)).toBe(undefined);
});

test('of a person with very many links no more than a few hundred rows are read', () => {
  const ids = Array.from({ length: 60 }, (_, i) => `email:${i}`);
  let reads = 0;
  const counted = createLinkValues({ ...values, get: (key) => {
    if (key.startsWith('v|')) reads++;
    return values.get(key);
  } }, links, read);
  expect(counted.of(ids, () => ids)).toEqual([]);
  expect(reads).toBeLessThanOrEqual(256);
});
