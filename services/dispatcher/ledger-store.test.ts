import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Serde } from '@weir/log';
import { openTable } from '@weir/state';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { createLedgerStore } from './ledger-store.ts';
import type { EndValue } from './types.ts';

const dirs: string[] = [];
afterEach(() => { for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true }); });
const serde = { decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) as unknown }) } as unknown as Serde;
const store = (counts: boolean, path = mkdtempSync(join(tmpdir(), 'weir-ledger-'))) => {
  dirs.push(path);
  return createLedgerStore(openTable({ path }), serde, counts);
};
const entry = (key: string, offset: number, over: Partial<EndValue> = {}) => ({ key: `${key}#end`, offset, value: Buffer.from(JSON.stringify({ key, offset, state: 'delivered', effect: 'done', subject: 'a/b', operation: 'send', purpose: 'marketing', channel: 'email', at: 1000 + offset, acceptedAt: 0, ...over })) });

test('a delivery counts once against caps, however often and in which batches its ends are read again', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ key: fc.integer({ min: 0, max: 6 }), state: fc.constantFrom('delivered', 'denied', 'dead-lettered'), maybe: fc.boolean() }), { maxLength: 20 }), fc.integer({ min: 0, max: 19 }), async (ends, cut) => {
    const ledger = store(true);
    const entries = ends.map(({ key, state, maybe }, i) => entry(String(key), i, { state: state as EndValue['state'], effect: state === 'delivered' ? 'done' : state === 'dead-lettered' && maybe ? 'maybe' : 'none' }));
    ledger.apply(0, entries.slice(0, cut), cut);
    ledger.apply(0, entries, entries.length);
    ledger.apply(0, entries, entries.length);
    const first = new Map<string, EndValue>();
    const counting = new Set<string>();
    for (const e of entries) {
      const end = JSON.parse(e.value.toString()) as EndValue;
      const before = first.get(end.key);
      // Of those that gave up it is the last.
      if (before?.state === 'delivered') continue;
      first.set(end.key, end);
      if (end.state === 'delivered' || end.effect === 'maybe') counting.add(end.key);
      else counting.delete(end.key);
    }
    expect(ledger.counted('a/b', 0)).toHaveLength(counting.size);
    await ledger.close();
  }), { numRuns: 40 });
});

test('counts outlive the process, are the subject\'s own, and what is older than two days is let go', async () => {
  const path = mkdtempSync(join(tmpdir(), 'weir-ledger-'));
  let ledger = store(true, path);
  ledger.apply(0, [entry('k1', 0), entry('k2', 1, { subject: 'a' }), entry('k3', 2, { purpose: null })], 3);
  await ledger.close();
  ledger = store(true, path);
  expect(ledger.counted('a/b', 0)).toEqual([{ key: 'k1', at: 1000, purpose: 'marketing', channel: 'email', operation: 'send' }]);
  expect(ledger.counted('a', 0)).toHaveLength(1);
  expect(ledger.counted('a/b', 1001)).toEqual([]);
  ledger.apply(0, [entry('k4', 3, { at: 3 * 86_400_000 })], 4);
  expect(ledger.counted('a/b', 0)).toHaveLength(1);
  await ledger.close();
  const plain = store(false);
  plain.apply(0, [entry('k1', 0)], 1);
  expect(plain.counted('a/b', 0)).toEqual([]);
  await plain.close();
});

const mark = (token: number, owner: string, offset: number) => ({ key: `#owner/0/${token}/${owner}`, offset, value: Buffer.from(JSON.stringify({ token, owner })) });
const gone = (key: string, offset: number, owner: string) => entry(key, offset, { state: 'failed-over', effect: 'none', owner });

test('what an owner gave to a second vendor counts while no later owner is marked before it, in whatever parts the topic is read', async () => {
  const log = [mark(1, 'a', 0), gone('k1', 1, 'a'), mark(2, 'b', 2), gone('k2', 3, 'a'), gone('k3', 4, 'b'), mark(2, 'late', 5), gone('k4', 6, 'late'), gone('k5', 7, 'b')];
  for (let cut = 0; cut <= log.length; cut++) {
    const ledger = store(true);
    ledger.apply(0, log.slice(0, cut), cut);
    ledger.apply(0, log.slice(cut), log.length);
    expect(['k1', 'k2', 'k3', 'k4', 'k5'].filter((key) => ledger.end(key) !== undefined)).toEqual(['k1', 'k3', 'k5']);
    expect(ledger.owner(0)).toEqual({ token: 2, owner: 'b' });
    // The person may have been messaged there.
    expect(ledger.counted('a/b', 0)).toHaveLength(3);
    await ledger.close();
  }
});

test('what an owner that had lost the partition says to be without effect takes no doubt away; what may have had one counts, whoever wrote it', async () => {
  const of = (key: string, offset: number, owner: string, effect: 'none' | 'maybe') => entry(key, offset, { state: 'dead-lettered', effect, maybeSince: effect === 'maybe' ? 5 : 0, owner });
  const log = [mark(1, 'a', 0), of('k1', 1, 'a', 'maybe'), mark(2, 'b', 2), of('k1', 3, 'a', 'none'), of('k2', 4, 'a', 'none'), of('k3', 5, 'a', 'maybe'), of('k4', 6, 'b', 'none'), mark(3, 'c', 7)];
  for (let cut = 0; cut <= log.length; cut++) {
    const ledger = store(false);
    ledger.apply(0, log.slice(0, cut), cut);
    ledger.apply(0, log.slice(cut), log.length);
    expect(['k1', 'k2', 'k3', 'k4'].map((key) => ledger.end(key)?.effect)).toEqual(['maybe', undefined, 'maybe', 'none']);
    await ledger.close();
  }
});

test('an end that was written late over the one that is kept is told, until the kept one is the last again', async () => {
  const of = (offset: number, owner: string, state: EndValue['state'], over: Partial<EndValue> = {}) => entry('k', offset, { state, offset: 7, owner, effect: state === 'delivered' ? 'done' : 'none', ...over });
  const told = (...entries: ReturnType<typeof entry>[]) => {
    const ledger = store(false);
    ledger.apply(0, [mark(1, 'a', 0)], 1);
    for (const one of entries) ledger.apply(0, [one], one.offset + 1);
    const found = ledger.overwritten(0).map(({ state, owner }) => [state, owner]);
    expect(ledger.overwritten(0)).toEqual([]);
    return ledger.close().then(() => found);
  };
  expect(await told(of(1, 'a', 'delivered'))).toEqual([]);
  // The request that was given up, and the former owner.
  expect(await told(of(1, 'a', 'delivered'), of(2, 'a', 'quarantined', { effect: 'maybe', maybeSince: 5 }))).toEqual([['delivered', 'a']]);
  expect(await told(mark(2, 'b', 1), of(2, 'b', 'delivered'), of(3, 'a', 'dead-lettered'))).toEqual([['delivered', 'b']]);
  expect(await told(mark(2, 'b', 1), of(2, 'b', 'delivered'), of(3, 'a', 'dead-lettered'), of(4, 'b', 'delivered'))).toEqual([]);
  // What follows in order, and the same read again.
  expect(await told(of(1, 'a', 'quarantined', { effect: 'maybe', maybeSince: 5 }), of(2, 'a', 'denied', { offset: 9 }), of(1, 'a', 'quarantined', { effect: 'maybe', maybeSince: 5 }), of(2, 'a', 'denied', { offset: 9 }))).toEqual([]);
  expect(await told(mark(2, 'b', 1), of(2, 'a', 'dead-lettered'))).toEqual([]);
});

test('a delivery that was found not applied counts against no cap any more, also when both ends come at once', async () => {
  const log = [entry('k1', 1, { state: 'quarantined', effect: 'maybe', maybeSince: 5 }), entry('k1', 2, { state: 'denied', effect: 'none' })];
  for (let cut = 0; cut <= log.length; cut++) {
    const ledger = store(true);
    ledger.apply(0, log.slice(0, cut), cut);
    ledger.apply(0, log.slice(cut), log.length);
    expect(ledger.counted('a/b', 0)).toEqual([]);
    await ledger.close();
  }
});

test('who reads from somewhere takes no mark for the owner that may be below one that it passed over, and every end counts until there is one', async () => {
  const ledger = store(false);
  ledger.passOver(0, 100);
  ledger.apply(0, [mark(90, 'late', 100), gone('k1', 101, 'b'), mark(102, 'c', 102), gone('k2', 103, 'b'), gone('k3', 104, 'c')], 105);
  expect(['k1', 'k2', 'k3'].filter((key) => ledger.end(key) !== undefined)).toEqual(['k1', 'k3']);
  await ledger.close();
});

const dayMs = 86_400_000;

test('the cache of a busy destination stops growing: ends older than the window are let go, on disk, too', async () => {
  const path = mkdtempSync(join(tmpdir(), 'weir-ledger-'));
  const ledger = store(true, path);
  const used: number[] = [];
  let offset = 0;
  for (let day = 0; day < 30; day++) {
    for (let batch = 0; batch < 5; batch++) ledger.apply(0, Array.from({ length: 200 }, () => entry(`key-of-a-delivery-${offset}`, offset++, { at: day * dayMs + batch, acceptedAt: day * dayMs, subject: `s${offset}` })), offset);
    while (ledger.prune((day - 8) * dayMs, 300) > 0);
    used.push(ledger.bytes());
  }
  // Nine days' worth.
  expect(used.at(-1)!).toBeLessThan(used[8]! * 1.1);
  expect(ledger.end('key-of-a-delivery-0')).toBeUndefined();
  expect(ledger.end(`key-of-a-delivery-${offset - 1}`)?.state).toBe('delivered');
  expect(ledger.floor(0)).toBe(21 * dayMs);
  await ledger.close();
  expect(statSync(join(path, 'cache.db')).size).toBeLessThan(used[8]! * 1.4);
});

test('an end that was replaced lately outlives its first list, and what an old one left is gone with it', async () => {
  const ledger = store(true);
  ledger.apply(0, [entry('given-up', 0, { state: 'dead-lettered', effect: 'maybe', at: 10 }), entry('old', 1, { at: 20, acceptedAt: 5 })], 2);
  ledger.apply(0, [entry('given-up', 2, { at: 5000, acceptedAt: 6, operation: 'other' })], 3);
  expect(ledger.lastDelivered('a/b', 'send', '')?.acceptedAt).toBe(5);
  expect(ledger.prune(1000, 100)).toBe(2);
  expect([ledger.end('given-up')?.state, ledger.end('old')]).toEqual(['delivered', undefined]);
  expect([ledger.lastDelivered('a/b', 'send', ''), ledger.lastDelivered('a/b', 'other', '')?.acceptedAt]).toEqual([undefined, 6]);
  expect(ledger.counted('a/b', 0)).toHaveLength(1);
  expect(ledger.prune(1000, 100)).toBe(0);
  await ledger.close();
});

test('an end that is replaced again and again under clocks that are behind is kept as long as the first, also after a restart', async () => {
  const path = mkdtempSync(join(tmpdir(), 'weir-ledger-'));
  let ledger = store(false, path);
  ledger.apply(0, [entry('k1', 0, { state: 'denied', effect: 'none', at: 50 })], 1);
  ledger.apply(0, [entry('k1', 1, { state: 'dead-lettered', effect: 'maybe', at: 10 })], 2);
  await ledger.close();
  ledger = store(false, path);
  ledger.apply(0, [entry('k1', 2, { at: 5 })], 3);
  ledger.prune(50, 100);
  expect(ledger.end('k1')?.state).toBe('delivered');
  ledger.prune(51, 100);
  expect(ledger.end('k1')).toBeUndefined();
  await ledger.close();
});

test('what was let go and is read again for an old record is known again, and goes again', async () => {
  const ledger = store(false);
  ledger.apply(0, [entry('k1', 0, { at: 10 })], 1);
  ledger.prune(1000, 100);
  expect([ledger.end('k1'), ledger.floor(0)]).toEqual([undefined, 1000]);
  ledger.applyOlder([entry('k1', 0, { at: 10 })]);
  expect(ledger.end('k1')?.state).toBe('delivered');
  ledger.prune(1000, 100);
  expect(ledger.end('k1')).toBeUndefined();
  await ledger.close();
});

test('what was asked for and was not there is found as soon as it is, from whomever it comes, and not once it was let go', async () => {
  type Step = readonly [act: string, key: number];
  const step: fc.Arbitrary<Step> = fc.tuple(fc.constantFrom('ask', 'ask', 'own', 'read', 'older', 'prune'), fc.integer({ min: 0, max: 5 }));
  const rank: Readonly<Record<string, number>> = { 'dead-lettered': 1, delivered: 2 };
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
    const ledger = store(false);
    const known = new Map<string, string>();
    let offset = 0;
    for (const [act, n] of steps) {
      const key = String(n);
      const state = ++offset % 3 === 0 ? 'dead-lettered' : 'delivered';
      const one = entry(key, offset, { state });
      if (act === 'own') ledger.apply(0, [{ ...one, end: JSON.parse(one.value.toString()) as EndValue }], offset + 1);
      else if (act === 'read') ledger.apply(0, [one], offset + 1);
      else if (act === 'older') ledger.applyOlder([one]);
      else if (act === 'prune') {
        while (ledger.prune(1_000_000, 10) > 0);
        known.clear();
      }
      if (['own', 'read', 'older'].includes(act) && rank[state]! > (rank[known.get(key) ?? ''] ?? 0)) known.set(key, state);
      expect(ledger.end(key)?.state).toBe(known.get(key));
    }
    for (let n = 0; n <= 5; n++) expect(ledger.end(String(n))?.state).toBe(known.get(String(n)));
    await ledger.close();
  }), { numRuns: 60 });
});
