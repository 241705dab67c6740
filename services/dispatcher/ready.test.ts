import type { CallClass } from '@weir/http';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createReady } from './ready.ts';

const open = (): boolean => true;

test('restrict goes before all, live before retry before replay; none of them stands still', () => {
  const ready = createReady<string>();
  for (const name of ['replay', 'retry', 'live', 'restrict'] as const) for (let i = 0; i < 200; i++) ready.push({ class: name, bucket: 'send', item: name });
  const order: string[] = [];
  for (let i = 0; i < 400; i++) order.push(ready.next(open)!.item);
  expect(order.slice(0, 200).every((n) => n === 'restrict')).toBe(true);
  const rest = order.slice(200);
  expect(rest.filter((n) => n === 'live').length).toBeGreaterThanOrEqual(180);
  for (const name of ['retry', 'replay']) expect(rest.filter((n) => n === name).length).toBeGreaterThanOrEqual(8);
});

test('a bucket without a token does not hold up another, and what was put back is the next', () => {
  const ready = createReady<number>();
  for (let i = 0; i < 3; i++) ready.push({ class: 'restrict', bucket: 'full', item: i });
  ready.push({ class: 'replay', bucket: 'other', item: 9 });
  const first = ready.next(open)!;
  ready.putBack(first);
  expect(ready.next((bucket) => bucket !== 'full')!.item).toBe(9);
  expect(ready.next((bucket) => bucket !== 'full')).toBeUndefined();
  expect([0, 1, 2].map(() => ready.next(open)!.item)).toEqual([0, 1, 2]);
  expect(ready.size()).toBe(0);
});

test('what nobody will start leaves, though nobody asks for the next: a destination that is off keeps nothing of the partitions that it lost', () => {
  const ready = createReady<{ n: number; dead: boolean }>();
  const items = Array.from({ length: 40 }, (_, n) => ({ n, dead: n % 3 === 0 }));
  for (const item of items) ready.push({ class: item.n % 2 === 0 ? 'live' : 'retry', bucket: item.n % 5 === 0 ? 'a' : 'b', item });
  expect([ready.next(open)!.item.n, ready.size()]).toEqual([0, 39]);
  ready.drop((item) => item.dead);
  expect(ready.size()).toBe(26);
  const left: number[] = [];
  for (let found = ready.next(open); found !== undefined; found = ready.next(open)) left.push(found.item.n);
  expect(left.toSorted((a, b) => a - b)).toEqual(items.filter((item) => !item.dead).map((item) => item.n));
});

test('nothing is lost and the order of a class and bucket stays, whatever is put back', () => {
  const entry = fc.record({ class: fc.constantFrom<CallClass>('restrict', 'live', 'retry', 'replay'), bucket: fc.constantFrom('a', 'b'), back: fc.boolean() });
  fc.assert(fc.property(fc.array(entry, { maxLength: 300 }), (entries) => {
    const ready = createReady<{ n: number; back: boolean }>();
    entries.forEach((e, n) => ready.push({ class: e.class, bucket: e.bucket, item: { n, back: e.back } }));
    const seen = new Map<string, number[]>();
    for (let found = ready.next(open); found !== undefined; found = ready.next(open)) {
      if (found.item.back) {
        found.item.back = false;
        ready.putBack(found);
        continue;
      }
      const name = `${found.class}/${found.bucket}`;
      seen.set(name, [...(seen.get(name) ?? []), found.item.n]);
    }
    expect([...seen.values()].flat()).toHaveLength(entries.length);
    for (const list of seen.values()) expect(list).toEqual(list.toSorted((a, b) => a - b));
  }));
});

test('buckets of a class take turns: one that was served is behind the others, one that was closed keeps its place', () => {
  const step = fc.record({ push: fc.option(fc.constantFrom('a', 'b', 'c', 'd'), { nil: undefined }), shut: fc.subarray(['a', 'b', 'c', 'd']) });
  fc.assert(fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const ready = createReady<number>();
    const round: { bucket: string; items: number[] }[] = [];
    for (const [n, { push, shut }] of steps.entries()) {
      if (push !== undefined) {
        ready.push({ class: 'restrict', bucket: push, item: n });
        const known = round.find(({ bucket }) => bucket === push);
        if (known === undefined) round.push({ bucket: push, items: [n] });
        else known.items.push(n);
        continue;
      }
      const at = round.findIndex(({ bucket, items }) => items.length > 0 && !shut.includes(bucket));
      const found = ready.next((bucket) => !shut.includes(bucket));
      if (at < 0) expect(found).toBeUndefined();
      else {
        const [served] = round.splice(at, 1);
        expect(found).toEqual({ class: 'restrict', bucket: served!.bucket, item: served!.items.shift() });
        round.push(served!);
      }
    }
  }));
});
