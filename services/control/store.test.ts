import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deliveryKey } from '@weir/pipeline';
import { openTable } from '@weir/state';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { forgetRows } from './replay/rows.ts';
import { indexFrom, type IndexGap } from './indexer.ts';
import { walk, type DeliveryFacts } from './replay/standing.ts';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import { createStore, deliveryStates, eventEnds, type DeliveryState, type NewEnd, type Store } from './store.ts';

const dirs: string[] = [];
const stores: Store[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});
function open(): Store {
  const dir = mkdtempSync(join(tmpdir(), 'weir-index-'));
  dirs.push(dir);
  const store = createStore(openTable({ path: dir }));
  stores.push(store);
  return store;
}

type Step = { kind: 'accepted'; event: string } | { kind: 'delivery'; id: string; state: DeliveryState; at: number };
function apply(store: Store, steps: readonly Step[], next: number): void {
  const tx = store.begin();
  for (const step of steps) {
    if (step.kind === 'accepted') tx.accepted(step.event);
    else tx.delivery(step.id, step.state, step.at);
  }
  tx.commit('t', 0, next);
}
const counters = (store: Store): Record<string, number> => Object.fromEntries([...['accepted', ...eventEnds].map((n) => `events.${n}`), ...deliveryStates.map((n) => `deliveries.${n}`)].map((n) => [n, store.counter(n)]));

const event = fc.constantFrom('e1', 'e2');
const steps = fc.uniqueArray(fc.oneof(
  fc.record({ kind: fc.constant('accepted' as const), event, at: fc.nat(1000) }),
  fc.record({ kind: fc.constant('delivery' as const), id: fc.constantFrom('d1', 'd2', 'd3'), state: fc.constantFrom(...deliveryStates), at: fc.nat(1000) }),
), { selector: (s) => s.at, maxLength: 14 });

/** What the counters must be, from the set of records alone. */
function model(all: readonly Step[]): Record<string, number> {
  const out: Record<string, number> = Object.fromEntries([...['accepted', ...eventEnds].map((n) => `events.${n}`), ...deliveryStates.map((n) => `deliveries.${n}`)].map((n) => [n, 0]));
  out['events.accepted'] = new Set(all.filter((s) => s.kind === 'accepted').map((s) => s.event)).size;
  for (const id of new Set(all.filter((s) => s.kind === 'delivery').map((s) => s.id))) {
    const best = Math.max(...all.filter((s) => s.kind === 'delivery').filter((s) => s.id === id).map((s) => deliveryStates.indexOf(s.state)));
    out[`deliveries.${deliveryStates[best]!}`]!++;
  }
  return out;
}

test('counters follow from the records, whatever their order, batches and repetitions', () => {
  fc.assert(fc.property(steps.chain((all) => fc.record({ shuffled: fc.shuffledSubarray(all, { minLength: all.length }), again: fc.shuffledSubarray(all), cut: fc.nat(all.length) })), ({ shuffled, again, cut }) => {
    const store = open();
    apply(store, shuffled.slice(0, cut), 1);
    apply(store, shuffled.slice(cut), 2);
    apply(store, again, 3);
    expect(counters(store)).toEqual(model(shuffled));
    expect(store.position('t', 0)).toBe(3);
  }), { numRuns: 200 });
});

/** An event as it was accepted (no order) and each time that it was put back: how it ended then, undefined = it went through. */
const redriven = fc.array(fc.option(fc.constantFrom(...eventEnds), { nil: undefined }), { minLength: 1, maxLength: 6 });

test('an event stands as its last redrive ended, whichever topic is read first and however wrong the clock of a normalizer is', () => {
  fc.assert(fc.property(redriven, fc.integer({ min: -5000, max: 5000 }), fc.infiniteStream(fc.boolean()), fc.infiniteStream(fc.boolean()), (runs, skew, firsts, twice) => {
    const store = createStore(createDisk().open({ path: 'x' }));
    const step = (change: (tx: ReturnType<Store['begin']>) => void): void => {
      const tx = store.begin();
      change(tx);
      tx.commit('t', 0, 1);
    };
    // Of the broker. A person reads of the first end before they order a redrive; behind that a redrive comes at once.
    const time = (run: number): number => (run === 0 ? 10_000 : 20_000 + 10 * run);
    const order = (run: number): string => (run === 0 ? '' : `rpl_${run}`);
    const raw = runs.slice(1).map((_, i) => (): void => { step((tx) => { tx.reopened('e1', order(i + 1), time(i + 1)); }); });
    // What a normalizer that was killed had given up already is given up once more.
    const outcomes = runs.flatMap((state, run) => (state === undefined ? [] : Array.from({ length: twice.next().value ? 2 : 1 }, () => (): void => { step((tx) => { tx.ended('e1', state, time(run) + 5 + skew, order(run)); }); })));
    while (raw.length + outcomes.length > 0) ((raw.length > 0 && firsts.next().value) || outcomes.length === 0 ? raw : outcomes).shift()!();
    const expected = runs.at(-1);
    expect(store.endedAs('e1')).toBe(expected);
    expect(counters(store)).toEqual({ ...model([]), ...(expected === undefined ? {} : { [`events.${expected}`]: 1 }) });
  }), { numRuns: 500 });
});

test('what a person closed stays closed, by a clock behind the broker\'s too, and what an earlier version wrote counts by time', () => {
  const store = open();
  const tx = store.begin();
  tx.ended('e1', 'dead-lettered', 10, '');
  tx.reopened('e1', 'rpl_1', 500);
  tx.ended('e1', 'dead-lettered', 300, 'rpl_1');
  tx.ended('e1', 'dropped', 400, undefined);
  tx.commit('t', 0, 1);
  expect([store.endedAs('e1'), store.counter('events.dropped'), store.counter('events.dead-lettered')]).toEqual(['dropped', 1, 0]);
  const before = createDisk().open({ path: 'x' });
  before.putBatch([['#layout', '7'], ['x/old', 'dropped@5'], ['r/old', '4'], ['x/again', 'dropped@5'], ['r/again', '6'], ['x/end', 'dropped@5']].map(([key, value]) => ({ key: key!, value: Buffer.from(value!) })));
  const found = createStore(before);
  expect(['old', 'again', 'end'].map((name) => found.endedAs(name))).toEqual(['dropped', undefined, 'dropped']);
});

test('a generation that is known to be the last is not looked behind, and says what a look would have said, in whatever order the ends came', () => {
  const facts = (intent: string): DeliveryFacts => ({ outputId: 'out_1', eventId: 'evt_1', destination: 'crm', operation: 'put', source: 'shop', recordType: 'r', itemHash: 'h', acceptedAt: 1, subject: 's', purpose: null, channel: null, topic: null, legalBasis: null, ids: [], intent });
  const one = fc.record({ generation: fc.nat(3), intent: fc.constantFrom('0', '0', 'fix_1'), state: fc.constantFrom('dead-lettered', 'delivered', 'failed-over'), effect: fc.constantFrom('none', 'none', 'maybe') });
  const store = open();
  let run = 0;
  fc.assert(fc.property(fc.array(one, { maxLength: 8 }), (ends) => {
    const destination = `crm${run++}`;
    for (const { generation, intent, state, effect } of ends) {
      const tx = store.begin();
      tx.end({ destination, key: deliveryKey('out_1', destination, 'put', intent, generation), operation: 'put', subject: 's', acceptedAt: 1, state, effect, itemHash: 'h', at: 5, offset: generation, maybeSince: 0, partition: 0, owner: 'o', outputId: 'out_1', generation });
      tx.commit('t', 0, 1);
    }
    for (const intent of ['0', 'fix_1']) {
      const of = { ...facts(intent), destination };
      const looked = walk({ end: (d, key) => { const end = store.end(d, key); return end === undefined ? undefined : { ...end, more: undefined }; } }, of);
      const known = walk(store, of);
      expect({ ...known, end: undefined }).toEqual({ ...looked, end: undefined });
    }
  }), { numRuns: 300 });
  let looks = 0;
  const tx = store.begin();
  tx.end({ destination: 'crm', key: deliveryKey('out_1', 'crm', 'put', '0', 0), operation: 'put', subject: 's', acceptedAt: 1, state: 'dead-lettered', effect: 'none', itemHash: 'h', at: 5, offset: 1, maybeSince: 0, partition: 0, owner: 'o', outputId: 'out_1', generation: 0 });
  tx.commit('t', 0, 1);
  expect(walk({ end: (d, key) => { looks++; return store.end(d, key); } }, facts('0'))).toEqual({ kind: 'notApplied' });
  expect(looks).toBe(1);
});

test('what is applied is seen at once and written a little later, with its position: killed before, the index is a moment older and whole', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-index-'));
  dirs.push(dir);
  const table = openTable({ path: dir });
  const store = createStore(table);
  const write = (event: string, next: number): void => {
    const tx = store.begin();
    tx.accepted(event);
    tx.commit('t', 0, next);
  };
  write('e1', 1);
  store.flush();
  write('e2', 2);
  expect([store.position('t', 0), store.counter('events.accepted')]).toEqual([2, 2]);
  // As a kill leaves the file.
  const left = mkdtempSync(join(tmpdir(), 'weir-index-'));
  dirs.push(left);
  cpSync(dir, left, { recursive: true });
  await store.close();
  const found = createStore(openTable({ path: left }));
  stores.push(found);
  expect([found.position('t', 0), found.counter('events.accepted')]).toEqual([1, 1]);
});

test('a trace is in the order of the way, a repeated record is one stage, another event is not in it', () => {
  const store = open();
  const tx = store.begin();
  const where = { topic: 't', partition: 0, offset: 5 };
  tx.stage('evt_1', { stage: 'outcome', at: 9 }, where);
  tx.stage('evt_1', { stage: 'accepted', at: 9 }, where);
  tx.stage('evt_1', { stage: 'accepted', at: 9 }, where);
  tx.stage('evt_1', { stage: 'decided', at: 3 }, { ...where, offset: 7 });
  tx.stage('evt_12', { stage: 'accepted', at: 1 }, where);
  tx.commit('t', 0, 8);
  expect(store.stages('evt_1').map((s) => s.stage)).toEqual(['accepted', 'decided', 'outcome']);
});

test('what a replay put back is forgotten a day after its end, with the counts kept; of one that works, or ended lately, nothing is', () => {
  const store = open();
  const tx = store.begin();
  for (const order of ['rpl_done', 'rpl_gone', 'rpl_late', 'rpl_runs']) for (let i = 0; i < 1500; i++) tx.replayed(order, `d${i}`, i % 3 === 0 ? 'denied' : 'delivered');
  tx.commit('t', 0, 1);
  const now = 10 * 86_400_000;
  const entry = (id: string, state: string, at: number) => ({ order: { id }, progress: { state, at } });
  const orders = { list: () => [entry('rpl_done', 'finished', now - 2 * 86_400_000), entry('rpl_late', 'finished', now - 1000), entry('rpl_runs', 'running', 0)] } as never;
  const ports = { store, orders, clock: { now: () => now } as never };
  for (let i = 0; i < 10; i++) forgetRows(ports);
  expect(['rpl_done', 'rpl_gone', 'rpl_late', 'rpl_runs'].map((id) => store.forgetReplayed(id, 10_000))).toEqual([0, 0, 1500, 1500]);
  expect(store.counters('o/rpl_done/')).toEqual({ delivered: 1000, denied: 500 });
});

test('an index that is built anew, or was stopped for long, begins where the topic begins by now, and nobody waits for what is gone', () => {
  const store = open();
  store.begin().commit('t', 1, 40);
  store.begin().commit('t', 2, 90);
  const gaps: IndexGap[] = [];
  const begins = new Map([[0, 70], [1, 70], [2, 70]]);
  expect([...indexFrom(store, 't', 4, begins, (gap) => gaps.push(gap))]).toEqual([[0, 70], [1, 70], [2, 90], [3, 0]]);
  expect(gaps).toEqual([{ topic: 't', partition: 0, from: 0, to: 70 }, { topic: 't', partition: 1, from: 40, to: 70 }]);
  expect([0, 1, 2, 3].map((p) => store.position('t', p))).toEqual([70, 70, 90, 0]);
  indexFrom(store, 't', 4, begins, (gap) => gaps.push(gap));
  expect(gaps).toHaveLength(2);
});

test('a delivery that is held for an approver is found behind however many other dead letters', () => {
  const store = open();
  const tx = store.begin();
  const letter = (id: string, at: number, held?: object) => tx.deadLetter(id, { id, eventId: `evt_${id}`, stage: 'policy', codes: ['approval-required'], source: 'shop', destination: 'crm', release: null, at, held });
  letter('old', 1, { rule: 'big', until: 9 });
  for (let n = 0; n < 50; n++) letter(`other${n}`, 2 + n);
  letter('new', 3, { rule: 'big', until: 9 });
  letter('new', 3, { rule: 'big', until: 9 });
  tx.commit('t', 0, 1);
  expect([...store.heldLetters()].map((l) => l['id'])).toEqual(['new', 'old']);
  expect([...store.deadLetters()]).toHaveLength(52);
});

test('an index of the version before goes on, and an update is told from another one of its accept time where both are known', () => {
  const disk = createDisk();
  const table = disk.open({ path: 'x' });
  const before = createStore(table);
  const end = (n: number, acceptedAt: number, firstOffset?: number): NewEnd => ({ outputId: `out_${n}`, generation: 0, destination: 'crm', key: `dlv_${n}`, operation: 'put', subject: 's', acceptedAt, partition: 0, owner: 'o', state: 'delivered', effect: 'done', itemHash: 'h', at: 5, offset: 40 + n, maybeSince: 0, ...(firstOffset === undefined ? {} : { firstOffset }) });
  const put = (store: Store, ...ends: readonly NewEnd[]): void => {
    const tx = store.begin();
    for (const one of ends) tx.end(one);
    tx.commit('w.ledger.crm', 0, 1);
  };
  put(before, end(1, 100));
  // What that version wrote is the same text under its own layout.
  expect([table.text('n/crm/put/s'), table.text('l/crm/dlv_1')]).toEqual(['100', 'delivered|done|h|5|41|0|']);
  table.putBatch([{ key: '#layout', value: Buffer.from('6') }]);
  const store = createStore(disk.open({ path: 'x' }));
  expect([store.newest('crm', 'put', 's', ''), store.end('crm', 'dlv_1')?.firstOffset, store.position('w.ledger.crm', 0)]).toEqual([{ acceptedAt: 100, firstOffset: -1 }, undefined, 1]);
  put(store, end(2, 100, 7), end(3, 100, 6), end(4, 99, 9));
  expect(store.newest('crm', 'put', 's', '')).toEqual({ acceptedAt: 100, firstOffset: 7 });
  expect(store.end('crm', 'dlv_2')).toMatchObject({ state: 'delivered', offset: 42, firstOffset: 7, more: false });
  put(store, end(5, 101));
  expect(store.newest('crm', 'put', 's', '')).toEqual({ acceptedAt: 101, firstOffset: -1 });
  put(store, { ...end(6, 200), object: 'p' }, { ...end(7, 150), object: 'x' }, { ...end(8, 300), object: '-' });
  expect(['', 'p', 'x', '-', 'y'].map((object) => store.newest('crm', 'put', 's', object)?.acceptedAt)).toEqual([101, 200, 150, undefined, undefined]);
  expect(table.text('#layout')).toBe('8');
});
