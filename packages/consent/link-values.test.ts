import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogRecord } from '@weir/log';
import type { LinkValue } from '@weir/seal';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLinkValues, type LinkValues } from './link-values.ts';
import { createLinkIndex, trustedWith, type LinkIndex } from './links.ts';

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
  return { topic: 'i', partition: 0, epoch: 0, records, nextOffset: ++next, highWatermark: next };
};
let next = 0;
/** As the tables of consent do: values before links and positions. */
function put(list: readonly Link[], upTo: 'all' | 'values' = 'all'): void {
  const batch = batchOf(list);
  kept.put(batch);
  if (upTo === 'all') links.putBatch(index.puts(batch), new Map([[0, batch.nextOffset]]));
}
const name = fc.constantFrom('userId:1', 'userId:2', 'email:1', 'email:2', 'phone:1', 'anonymousId:1', 'external:1');
const link = fc.record({ a: name, b: name, at: fc.integer({ min: 1, max: 1000 }), sealed: fc.oneof({ weight: 4, arbitrary: fc.stringMatching(/^[a-z]{1,8}$/) }, { weight: 1, arbitrary: fc.constantFrom(null, undefined, '?') }) });
const step = fc.record({ batch: fc.array(link, { maxLength: 6 }), after: fc.constantFrom('goes on', 'goes on', 'reopens', 'loads', 'dies between the two') });

test('what is kept with a link is what its last record says, in any order, over loads and restarts, and where the process dies between the two tables', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
    await close();
    rmSync(dir, { recursive: true, force: true });
    await open();
    const model = new Map<string, { at: number; sealed: string }>();
    for (const { batch, after } of steps) {
      const list = batch.filter(({ a, b }) => a !== b);
      if (after === 'loads') {
        kept.loading();
        links.loading();
      }
      if (after === 'dies between the two') {
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
      if (after === 'loads') {
        links.loaded();
        kept.loaded();
      }
      if (after === 'reopens') {
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
    for (const { key } of links.range('')) expect(key.startsWith('l|')).toBe(true);
  }), { numRuns: 40 });
});

test('a table that was lost, that a process died while it was filled, or that another version did not go on with, is read again with the other one', async () => {
  const one: Link = { a: 'userId:1', b: 'email:1', at: 5, sealed: 'x' };
  const reopened = async (): Promise<void> => {
    await close();
    await open();
  };
  put([one]);
  await reopened();
  expect([links.position(0), kept.of(['userId:1'], index.links)]).toEqual([next, [{ at: 5, sealed: Buffer.from('x') }]]);
  await close();
  rmSync(join(dir, 'values'), { recursive: true });
  await open();
  expect([links.position(0), index.links('userId:1')]).toEqual([undefined, []]);
  put([one]);
  // Killed while it is filled: what was gathered is lost, and the positions of the links are not.
  const writes = values.putBatch;
  values.putBatch = () => {};
  put([one]);
  values.putBatch = writes;
  await reopened();
  expect([links.position(0), kept.of(['userId:1'], index.links)]).toEqual([undefined, []]);
  put([one]);
  // Of a version that keeps none.
  links.putBatch(index.puts(batchOf([one])), new Map([[0, next]]));
  await reopened();
  expect(links.position(0)).toBe(undefined);
  // The links were lost: what is kept is more than they have.
  put([one]);
  await close();
  rmSync(join(dir, 'links'), { recursive: true });
  await open();
  expect([links.position(0), kept.of(['userId:1'], () => ['email:1'])]).toEqual([undefined, [{ at: 5, sealed: Buffer.from('x') }]]);
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

test('a link is trusted when one who is trusted said it, whoever said it before or after, over loads and restarts; a closure by such links is what a model says', async () => {
  const sources = ['shop', 'crm', 'web', 'gone'] as const;
  const trusts = (source: string, then: boolean): boolean => (source === 'gone' ? then : source !== 'web');
  const said = fc.record({ a: name, b: name, source: fc.constantFrom(...sources), trusted: fc.boolean(), read: fc.boolean() });
  const openAll = (): void => {
    links = openTable({ path: join(dir, 'links') });
    values = openTable({ path: join(dir, 'values') });
    index = createLinkIndex(links);
    kept = createLinkValues(values, links, read, (value) => (value === null || value.toString() === '?' ? undefined : (JSON.parse(value.toString()) as { source: string }).source));
  };
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ batch: fc.array(said, { maxLength: 6 }), restarts: fc.boolean(), loads: fc.boolean() }), { maxLength: 10 }), async (steps) => {
    await close();
    rmSync(dir, { recursive: true, force: true });
    openAll();
    const model = new Map<string, string | undefined>();
    for (const { batch, restarts, loads } of steps) {
      const list = batch.filter(({ a, b }) => a !== b).map((one) => ({ ...one, key: (one.trusted ? [one.a, one.b].toSorted() : [one.a, one.b].toSorted().reverse()).join('~') }));
      const records = list.map(({ key, source, read: can }, offset): LogRecord => ({ offset, timestamp: 1, key: Buffer.from(key), value: Buffer.from(can ? JSON.stringify({ at: 1, sealed: null, source }) : '?'), headers: [] }));
      const fetched = { topic: 'i', partition: 0, epoch: 0, records, nextOffset: ++next, highWatermark: next };
      if (loads) {
        kept.loading();
        links.loading();
      }
      kept.put(fetched);
      links.putBatch(index.puts(fetched), new Map([[0, next]]));
      if (loads) {
        links.loaded();
        kept.loaded();
      }
      // What nobody can read is said by nobody who is trusted.
      for (const { key, source, read: can } of list) model.set(key, can ? source : undefined);
      if (restarts) {
        await close();
        openAll();
      }
      const ids = ['userId:1', 'userId:2', 'email:1', 'email:2', 'phone:1', 'anonymousId:1', 'external:1'];
      const follows = (a: string, b: string): boolean => [[a, b].toSorted(), [a, b].toSorted().reverse()].some((pair, i) => {
        const source = model.get(pair.join('~'));
        return source !== undefined && trusts(source, i === 0);
      });
      for (const id of ids) {
        const group = new Set([id]);
        for (const one of group) for (const other of ids) if (other !== one && follows(one, other)) group.add(other);
        const near = ids.filter((other) => !group.has(other) && [...group].some((one) => model.has(`${one}~${other}`) || model.has(`${other}~${one}`)));
        const found = trustedWith([id], index.links, (a, b) => kept.saidBy(a, b, trusts));
        expect([found.ids!.toSorted(), found.leftOut.toSorted()]).toEqual([[...group].toSorted(), near.toSorted()]);
      }
    }
  }), { numRuns: 60 });
});

test('of one with too many links nobody is told apart, and where sources are not kept nobody is trusted', () => {
  const many = Array.from({ length: 65 }, (_, i) => `userId:${i}`);
  expect(trustedWith(['email:1'], (id) => (id === 'email:1' ? many : []), () => false)).toEqual({ ids: undefined, leftOut: [] });
  expect(kept.saidBy('email:1', 'userId:1', () => true)).toBe(false);
});
