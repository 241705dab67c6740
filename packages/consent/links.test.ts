import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogRecord } from '@weir/log';
import { closure, maxLinked } from '@weir/policy';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLinkIndex, linkedWith, type LinkIndex } from './links.ts';
import { regionKey, type KnownRegion } from './regions.ts';

const id = fc.integer({ min: 0, max: 14 }).map((n) => `email:${n}`);

test('the short way over the links of a record leaves out nobody that the closure has, whoever is linked with whom', () => {
  fc.assert(fc.property(fc.uniqueArray(id, { maxLength: 10 }), fc.array(fc.tuple(id, id), { maxLength: 12 }), (ids, pairs) => {
    const links = (of: string): string[] => pairs.flatMap(([a, b]) => (a === of ? [b] : b === of ? [a] : []));
    expect(new Set(linkedWith(ids, links))).toEqual(new Set(closure(ids, links)));
  }), { numRuns: 500 });
});

test('who is linked with more than may be decided on is not decided on, also when he is among few', () => {
  const wide = Array.from({ length: 65 }, (_, i) => `phone:${i}`);
  expect(linkedWith(['email:1', 'email:2'], (of) => (of === 'email:2' ? wide : []))).toBeUndefined();
});

let dir: string;
let table: Table;
let index: LinkIndex;
let reads: number;
async function reopen(): Promise<void> {
  await table?.close();
  const opened = openTable({ path: dir });
  table = { ...opened, text: (key) => {
    reads++;
    return opened.text(key);
  } };
  index = createLinkIndex(table, (value) => JSON.parse(value.toString()) as KnownRegion);
}
beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weir-links-'));
  reads = 0;
  await reopen();
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});
let offset = 0;
type Change = readonly [a: string, b: string, linked: boolean];
/** Where somebody is said to be; undefined = forget it. */
interface Said { readonly id: string; readonly region: KnownRegion | undefined }
function apply(changes: readonly (Change | Said)[]): void {
  const records = changes.map((change): LogRecord => {
    const [key, value] = 'id' in change ? [regionKey(change.id), change.region === undefined ? null : Buffer.from(JSON.stringify(change.region))] : [`${change[0]}~${change[1]}`, change[2] ? Buffer.alloc(1) : null];
    return { offset: offset++, timestamp: 1, key: Buffer.from(key), value, headers: [] };
  });
  const puts = index.puts({ topic: 'i', partition: 0, epoch: 0, records, nextOffset: offset, highWatermark: offset });
  expect(new Set(puts.map(({ key }) => key)).size).toBe(puts.length);
  table.putBatch(puts);
}

/** Of each identifier by itself: what the rows of the table must add up to, wherever they lie. */
class Model {
  readonly links = new Map<string, Set<string> | 'too-many'>();
  readonly regions = new Map<string, KnownRegion>();
  apply(change: Change | Said): void {
    if ('id' in change) {
      if (change.region === undefined) this.regions.delete(change.id);
      else this.regions.set(change.id, change.region);
      return;
    }
    const [a, b, linked] = change;
    if (a === b) return;
    for (const [one, other] of [[a, b], [b, a]] as const) {
      const of = this.links.get(one) ?? new Set();
      if (of === 'too-many') continue;
      if (!linked) of.delete(other);
      else if (of.size < maxLinked || of.has(other)) of.add(other);
      this.links.set(one, linked && !of.has(other) ? 'too-many' : of);
    }
  }
}

/** A few people, whose identifiers come to be linked and unlinked, and one that many share. */
const name = fc.oneof(fc.integer({ min: 0, max: 5 }).map((n) => `userId:${n}`), fc.integer({ min: 0, max: 5 }).map((n) => `email:${n}`), fc.constantFrom('phone:1', '>', '=', 'x', 'userId:0x'));
const change = fc.tuple(name, name, fc.boolean().chain((likely) => (likely ? fc.constant(true) : fc.boolean())));
const many = fc.tuple(name, fc.integer({ min: 1, max: 80 })).map(([hub, count]): Change[] => Array.from({ length: count }, (_, i) => [`anonymousId:${i}`, hub, true]));
const said = fc.record({ id: name, region: fc.option(fc.record({ code: fc.constantFrom('DE', 'US-CA', 'DE+US', '+US-CA', ''), at: fc.integer({ min: 0, max: 1_790_000_000_000 }) }), { nil: undefined, freq: 3 }) });
const batch = fc.oneof({ weight: 12, arbitrary: fc.array(fc.oneof({ weight: 2, arbitrary: change }, { weight: 1, arbitrary: said }), { maxLength: 10 }) }, { weight: 1, arbitrary: many });
const step = fc.record({ batch, reopens: fc.integer({ min: 0, max: 4 }).map((n) => n === 0), loads: fc.boolean() });

test('links are those of each identifier by itself, in whatever rows they lie, in any order of links and unlinks, also after a restart', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 14 }), fc.array(fc.uniqueArray(name, { maxLength: 4 }), { maxLength: 12 }), async (steps, asked) => {
    table.clear();
    await reopen();
    const model = new Model();
    const names = new Set<string>();
    for (const { batch: changes, reopens, loads } of steps) {
      if (loads) table.loading();
      apply(changes);
      for (const each of changes) {
        model.apply(each);
        if ('id' in each) names.add(each.id);
        else names.add(each[0]).add(each[1]);
      }
      if (loads) table.loaded();
      if (reopens) await reopen();
      for (const of of names) {
        const expected = model.links.get(of) ?? new Set();
        const found = index.links(of);
        if (expected === 'too-many') expect(found.length).toBe(maxLinked + 1);
        else expect([...found].sort()).toEqual([...expected].sort());
      }
      // Asked as a record asks: by some that may be linked or not, in any order.
      for (const ids of asked) {
        const expected = closure(ids, (of) => {
          const found = model.links.get(of) ?? [];
          return found === 'too-many' ? Array.from({ length: maxLinked + 1 }, (_, i) => `many:${i}`) : found;
        });
        const linked = index.linked(ids);
        expect(linked?.toSorted()).toEqual(expected?.toSorted());
        for (const all of [ids, linked ?? []]) {
          const found: string[] = [];
          index.regions(all, (of, { code, at }) => found.push(`${of} ${code} ${at}`));
          expect(found.sort()).toEqual([...model.regions].filter(([of]) => all.includes(of)).map(([of, { code, at }]) => `${of} ${code} ${at}`).sort());
        }
      }
      for (const of of names) expect(index.region(of)).toEqual(model.regions.get(of));
    }
    apply([...names].map((of): Said => ({ id: of, region: undefined })));
    // Nothing is left behind of those who have no links any more.
    apply([...names].flatMap((a) => [...names].map((b): Change => [a, b, false])));
    const wide = [...model.links.values()].filter((links) => links === 'too-many').length;
    if (wide === 0) expect([...table.range('l|')]).toEqual([]);
  }), { numRuns: 100 });
});

test('the links of a person are one read, asked by the strongest identifier, whatever came first', async () => {
  const people = [0, 1, 2].map((n) => ['userId', 'email', 'phone'].map((type) => `${type}:${n}`) as [string, string, string]);
  apply(people.flatMap(([user, email]): Change[] => [[email, user, true]]));
  apply(people.flatMap(([user, , phone]): Change[] => [[phone, user, true]]));
  await reopen();
  reads = 0;
  for (const ids of people) expect(index.linked(ids)).toEqual(ids);
  expect(reads).toBe(people.length);
  apply([['userId:1', 'email:other', true]]);
  reads = 0;
  expect(index.linked(people[1]!)?.toSorted()).toEqual([...people[1]!, 'email:other'].toSorted());
  expect(index.linked([people[0]![0], people[2]![0]])?.toSorted()).toEqual([...people[0]!, ...people[2]!].toSorted());
  expect(index.linked([`${people[0]![0]}~${people[0]![1]}`])).toHaveLength(1);
});

test('where a person is stands in the row of the links: no read more for who asked whom it is linked with', async () => {
  const ids = ['userId:1', 'email:1', 'phone:1'];
  const region = { code: 'DE', at: 5 };
  apply([['email:1', 'userId:1', true], { id: 'userId:1', region }, ['phone:1', 'userId:1', true], { id: 'anonymousId:9', region }]);
  await reopen();
  reads = 0;
  const found: unknown[] = [];
  index.regions(index.linked(ids)!, (id, known) => found.push(id, known));
  expect([found, reads]).toEqual([['userId:1', region], 1]);
  index.regions(index.linked(['anonymousId:9'])!, (id, known) => found.push(id, known));
  expect([found.slice(2), reads]).toEqual([['anonymousId:9', region], 2]);
  // Asked again by the same list after it was said anew: as it is now.
  const linked = index.linked(ids)!;
  apply([{ id: 'userId:1', region: { code: 'AT', at: 6 } }]);
  index.regions(linked, (id, known) => found.push(id, known));
  expect(found.slice(4)).toEqual(['userId:1', { code: 'AT', at: 6 }]);
});

test('a row does not grow with all whom an identifier that many share is linked with', () => {
  for (let i = 0; i < 60; i++) apply([[`userId:${i}`, 'phone:shared', true], [`email:${i}`, `userId:${i}`, true]]);
  expect(Math.max(...Array.from(table.range('l|'), ({ value }) => value.length))).toBeLessThan(2000);
});
