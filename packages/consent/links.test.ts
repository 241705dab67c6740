import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LogRecord } from '@weir/log';
import { closure, maxLinked } from '@weir/policy';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createLinkIndex, linkedWith, type LinkIndex } from './links.ts';

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
  index = createLinkIndex(table);
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
function apply(changes: readonly Change[]): void {
  const records = changes.map(([a, b, linked]): LogRecord => ({ offset: offset++, timestamp: 1, key: Buffer.from(`${a}~${b}`), value: linked ? Buffer.alloc(1) : null, headers: [] }));
  const puts = index.puts({ topic: 'i', partition: 0, epoch: 0, records, nextOffset: offset, highWatermark: offset });
  expect(new Set(puts.map(({ key }) => key)).size).toBe(puts.length);
  table.putBatch(puts);
}

/** Of each identifier by itself: what the rows of the table must add up to, wherever they lie. */
class Model {
  readonly links = new Map<string, Set<string> | 'too-many'>();
  apply([a, b, linked]: Change): void {
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
const batch = fc.oneof({ weight: 12, arbitrary: fc.array(change, { maxLength: 8 }) }, { weight: 1, arbitrary: many });
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
        names.add(each[0]).add(each[1]);
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
        expect(index.linked(ids)?.toSorted()).toEqual(expected?.toSorted());
      }
    }
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

test('a row does not grow with all whom an identifier that many share is linked with', () => {
  for (let i = 0; i < 60; i++) apply([[`userId:${i}`, 'phone:shared', true], [`email:${i}`, `userId:${i}`, true]]);
  expect(Math.max(...Array.from(table.range('l|'), ({ value }) => value.length))).toBeLessThan(2000);
});
