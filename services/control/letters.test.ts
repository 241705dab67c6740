import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { topicNames } from '@weir/pipeline';
import { openTable } from '@weir/state';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createLetters } from './letters.ts';
import { createStore } from './store.ts';

test('a list that finds few among many letters lets others work meanwhile, and is not disturbed by what they write', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-letters-'));
  const store = createStore(openTable({ path: dir }));
  const add = (id: string, at: number, code: string): void => {
    const tx = store.begin();
    tx.deadLetter(id, { id, eventId: `evt_${id}`, stage: 'dispatcher', codes: [code], source: 'shop', destination: 'crm', release: null, at, outputId: null });
    tx.commit('t', 0, at);
  };
  for (let n = 0; n < 3000; n++) add(`l${n}`, n + 1, n % 1000 === 0 ? 'delivery-held' : 'delivery-rejected');
  const letters = createLetters({ store, reader: {} as never, serde: {} as never, topics: topicNames('t'), open: (bytes) => bytes, guard: () => undefined });
  let turns = 0;
  let listed = false;
  const other = (): void => {
    if (listed) return;
    add(`new${turns}`, 5000 + ++turns, 'delivery-rejected');
    setImmediate(other);
  };
  setImmediate(other);
  const { deadLetters: found } = await letters.list(10, { code: 'delivery-held' });
  listed = true;
  expect([found.map((l) => l.id), turns]).toEqual([['l2000', 'l1000', 'l0'], expect.any(Number)]);
  expect(turns).toBeGreaterThanOrEqual(5);
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

test('a list says how many are left and where it goes on: page by page every letter once, whatever is asked for', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ at: fc.integer({ min: 1, max: 9 }), held: fc.boolean() }), { maxLength: 30 }), fc.integer({ min: 1, max: 7 }), fc.boolean(), async (all, limit, onlyHeld) => {
    const dir = mkdtempSync(join(tmpdir(), 'weir-letters-'));
    const store = createStore(openTable({ path: dir }));
    for (const [n, { at, held }] of all.entries()) {
      const tx = store.begin();
      tx.deadLetter(`l${n}`, { id: `l${n}`, eventId: `evt_${n}`, stage: 'dispatcher', codes: [held ? 'delivery-held' : 'delivery-rejected'], source: 'shop', destination: 'crm', release: null, at, outputId: null });
      tx.commit('t', 0, n + 1);
    }
    const letters = createLetters({ store, reader: {} as never, serde: {} as never, topics: topicNames('t'), open: (bytes) => bytes, guard: () => undefined });
    const wanted = all.flatMap(({ held }, n) => (held || !onlyHeld ? [`l${n}`] : []));
    const found: string[] = [];
    for (let after: string | undefined; ;) {
      const { deadLetters, left, next } = await letters.list(limit, onlyHeld ? { code: 'delivery-held' } : {}, after);
      found.push(...deadLetters.map((l) => l.id));
      expect([left, next === null]).toEqual([wanted.length - found.length, left === 0]);
      if (next === null) break;
      after = next;
    }
    expect(found.toSorted()).toEqual(wanted.toSorted());
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  }), { numRuns: 30 });
});

test('a list goes on behind what it has shown, also where the last of it was set aside again meanwhile', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-letters-'));
  const store = createStore(openTable({ path: dir }));
  const add = (n: number, at: number): void => {
    const tx = store.begin();
    tx.deadLetter(`l${n}`, { id: `l${n}`, eventId: `evt_${n}`, stage: 'policy', codes: ['approval-required'], source: 'shop', destination: 'crm', release: null, at, outputId: null });
    tx.commit('t', 0, at);
  };
  for (let n = 0; n < 1000; n++) add(n, n + 1);
  const letters = createLetters({ store, reader: {} as never, serde: {} as never, topics: topicNames('t'), open: (bytes) => bytes, guard: () => undefined });
  setImmediate(() => add(998, 5000));
  const { deadLetters, next } = await letters.list(2, {});
  expect([deadLetters.map((l) => l.id), store.deadLetter('l998')?.['at']]).toEqual([['l999', 'l998'], 5000]);
  expect((await letters.list(2, {}, next!)).deadLetters.map((l) => l.id)).toEqual(['l997', 'l996']);
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

test('what is counted of a code is what the list shows of it, also where it is not the first reason, and others work meanwhile', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-letters-'));
  const store = createStore(openTable({ path: dir }));
  const tx = store.begin();
  const add = (id: string, stage: string, destination: string | null, ...codes: string[]): void => tx.deadLetter(id, { id, eventId: `evt_${id}`, stage, codes, source: 'shop', destination, release: 'r', at: 1, outputId: null });
  for (let n = 0; n < 3000; n++) add(`m${n}`, 'normalizer', null, 'mapping-failed', 'consent-unresolved');
  add('c', 'normalizer', null, 'consent-unresolved');
  add('d', 'dispatcher', 'crm', 'delivery-rejected');
  tx.commit('t', 0, 1);
  const letters = createLetters({ store, reader: {} as never, serde: {} as never, topics: topicNames('t'), open: (bytes) => bytes, guard: () => undefined });
  const of = (stage: string, code: string, destination: string | null, count: number) => ({ stage, code, destination, release: 'r', letters: count });
  expect(await letters.stats({})).toEqual({ total: 3002, counts: [of('normalizer', 'mapping-failed', null, 3000), of('normalizer', 'consent-unresolved', null, 1), of('dispatcher', 'delivery-rejected', 'crm', 1)] });
  let turns = 0;
  let counted = false;
  const other = (): void => {
    if (counted) return;
    turns++;
    setImmediate(other);
  };
  setImmediate(other);
  expect(await letters.stats({ code: 'consent-unresolved' })).toEqual({ total: 3001, counts: [of('normalizer', 'consent-unresolved', null, 3001)] });
  counted = true;
  expect(turns).toBeGreaterThanOrEqual(5);
  expect((await letters.list(10_000, { code: 'consent-unresolved' })).deadLetters).toHaveLength(3001);
  expect(await letters.stats({ code: 'delivery-rejected', stage: 'dispatcher', destination: 'crm', release: 'r' })).toEqual({ total: 1, counts: [of('dispatcher', 'delivery-rejected', 'crm', 1)] });
  for (const also of [{ stage: 'normalizer' }, { destination: 'mail' }, { release: 's' }]) expect(await letters.stats({ code: 'delivery-rejected', ...also })).toEqual({ total: 0, counts: [] });
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

test.each([
  ['a raw item past its retention', 'normalizer', topicNames('t').raw('shop'), 'mapping-failed', { erased: false, hidden: 'key-destroyed' }],
  ['what was accepted after the erasure', 'policy', topicNames('t').canonical, 'key-destroyed', { erased: false, hidden: 'key-destroyed' }],
  ['a delivery of an erased person', 'dispatcher', topicNames('t').dispatch('crm'), 'delivery-rejected', { erased: true, hidden: null }],
])('the letter of %s, whose key is gone, says why it is not shown', async (_what, stage, topic, code, expected) => {
  const letter = { id: 'l', eventId: 'evt_l', stage, topic, partition: 0, offset: 0, key: null, value: Buffer.from('sealed'), headers: [], reasons: [{ code }], at: 1 };
  const letters = createLetters({
    store: { deadLetter: () => ({ partition: 0, offset: 0, stage, eventId: 'evt_l', outputId: null, destination: null, operation: null }), endedAs: () => 'dead-lettered' } as never,
    reader: { readOne: async () => ({ value: Buffer.from('letter') }) } as never, serde: { prepare: async () => undefined, decode: () => ({ value: letter }) } as never, topics: topicNames('t'), open: () => undefined, guard: () => undefined,
  });
  expect(await letters.show('l')).toMatchObject({ ...expected, value: null });
});
