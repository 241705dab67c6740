import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openTable } from '@weir/state';
import { afterEach, expect, test } from 'vitest';
import { keptNow, type Kept } from './index-sweep.ts';
import { createStore, letterPlace, type Store } from './store.ts';

const day = 86_400_000;
const now = 200 * day;
let close: (() => Promise<void>) | undefined;
afterEach(async () => close?.());
function open(): Store {
  const dir = mkdtempSync(join(tmpdir(), 'weir-sweep-'));
  const store = createStore(openTable({ path: dir }), 1);
  close = async () => {
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  };
  return store;
}

/** An event with its way, a dead letter and an end, at `offset` of every topic. */
function write(store: Store, name: string, offset: number, at: number, state: 'dead-lettered' | 'pending' = 'dead-lettered'): void {
  const tx = store.begin();
  const event = `evt_${name}`;
  tx.accepted(event);
  tx.stage(event, { stage: 'accepted', at }, { topic: 'w.raw.shop', partition: 0, offset });
  tx.stage(event, { stage: 'outcome', at }, { topic: 'w.outcome', partition: 0, offset });
  tx.ended(event, 'dead-lettered', at, '');
  tx.delivery(`out_${name}|crm|put`, state, at);
  tx.deadLetter(`dlq_${name}`, { id: `dlq_${name}`, eventId: event, stage: 'dispatcher', codes: ['delivery-rejected'], source: 'shop', destination: 'crm', release: 'r', at, partition: 0, offset, held: { rule: 'big', until: 9 } });
  tx.end({ destination: 'crm', key: `dlv_${name}`, operation: 'put', subject: name, acceptedAt: at, state: 'delivered', effect: 'done', itemHash: 'h', at, offset, maybeSince: 0, partition: 0, owner: 'o', outputId: `out_${name}`, generation: 0 });
  tx.commit('w.dlq', 0, offset + 1);
}

/** To the end, a few rows at a time. */
function sweep(store: Store, kept: Kept): number {
  let deleted = 0;
  for (let after: string | undefined, first = true; first || after !== undefined; first = false) {
    const step = store.sweep(kept, after, 3);
    deleted += step.deleted;
    after = step.after;
  }
  return deleted;
}
const begins = (of: Readonly<Record<string, number>>, before: number): Kept => ({ dlq: 'w.dlq', begin: (topic) => of[topic], before });

test('what retention took of the topics leaves the index, in steps, with the counts of what is listed; what is there stays, to the last row', () => {
  const store = open();
  write(store, 'old', 3, now - 100 * day);
  write(store, 'stuck', 4, now - 100 * day, 'pending');
  write(store, 'new', 7, now - day);
  expect(sweep(store, begins({}, now - 200 * day))).toBe(0);
  expect([store.counter('deadLetters'), [...store.deadLetters()].length, [...store.heldLetters()].length]).toEqual([3, 3, 3]);

  // The raw records are gone first; their outcomes still stand.
  sweep(store, begins({ 'w.raw.shop': 7 }, now - 200 * day));
  expect(store.stages('evt_old').map((s) => s.stage)).toEqual(['outcome']);
  expect(store.endedAs('evt_old')).toBe('dead-lettered');

  const gone = begins({ 'w.raw.shop': 7, 'w.outcome': 7, 'w.dlq': 7 }, now - 90 * day);
  sweep(store, gone);
  sweep(store, gone);
  expect(sweep(store, gone)).toBe(0);
  expect([store.stages('evt_old'), store.endedAs('evt_old'), store.deadLetter('dlq_old'), store.end('crm', 'dlv_old'), store.newest('crm', 'put', 'old', ''), store.deliveryState('out_old|crm|put')]).toEqual([[], undefined, undefined, undefined, undefined, undefined]);
  expect([store.counter('deadLetters'), store.counters('q/')]).toEqual([1, { [JSON.stringify(['dispatcher', 'delivery-rejected', 'crm', 'r'])]: 1 }]);
  expect([[...store.deadLetters()].map((l) => l['id']), [...store.heldLetters()].map((l) => l['id'])]).toEqual([['dlq_new'], ['dlq_new']]);
  // What was never delivered is still known to be on its way, and totals are totals.
  expect(store.deliveryState('out_stuck|crm|put')).toBe('pending');
  expect([store.counter('events.accepted'), store.counter('events.dead-lettered'), store.counter('deliveries.dead-lettered')]).toEqual([3, 3, 2]);
  expect([store.stages('evt_new').length, store.endedAs('evt_new'), store.deadLetter('dlq_new')?.['id'], store.end('crm', 'dlv_new')?.state, store.newest('crm', 'put', 'new', '')?.acceptedAt, store.deliveryState('out_new|crm|put'), store.position('w.dlq', 0)]).toEqual([2, 'dead-lettered', 'dlq_new', 'delivered', now - day, 'dead-lettered', 8]);
});

test('nothing is swept while no topic has lost a record; the age that counts is that of the longest retention, and none where one keeps for ever', async () => {
  const ports = (begin: number, ...days: number[]) => ({
    dlq: 'w.dlq', topics: () => days.map((_, i) => `t${i}`), clock: { now: () => now } as never,
    admin: { beginningOffsets: async () => new Map([[0, 0], [1, begin]]), describeTopics: async (names: readonly string[]) => names.map((name, i) => ({ name, partitions: 2, replicationFactor: 1, config: { 'retention.ms': String(days[i]! < 0 ? -1 : days[i]! * day) }, exists: true })) },
  });
  expect(await keptNow(ports(0, 7, 30))).toBeUndefined();
  const kept = await keptNow(ports(5, 7, 90, 30));
  expect([kept?.before, kept?.begin('t1', 1), kept?.begin('t1', 0), kept?.begin('gone', 0)]).toEqual([now - 90 * day, 5, 0, undefined]);
  expect((await keptNow(ports(5, 7, -1)))?.before).toBe(Number.NEGATIVE_INFINITY);
});

test('a letter that dies again has the place, the count and the release of its last death, and no count is left when it is gone', () => {
  const store = open();
  const dies = (id: string, at: number, release: string, offset: number, held = true): void => {
    const tx = store.begin();
    tx.deadLetter(id, { id, eventId: `evt_${id}`, stage: 'policy', codes: ['approval-required'], source: 'shop', destination: 'crm', release, at, partition: 0, offset, ...(held ? { held: { rule: 'big', until: 9 } } : {}) });
    tx.commit('w.dlq', 0, offset + 1);
  };
  const name = (release: string): string => JSON.stringify(['policy', 'approval-required', 'crm', release]);
  const listed = (): unknown[][] => [[...store.deadLetters()].map((l) => [l['id'], l['at'], l['release']]), [...store.heldLetters()].map((l) => l['id'])];
  dies('dlq_a', 1000, 'old', 0);
  dies('dlq_b', 2000, 'old', 1);
  dies('dlq_a', 3000, 'new', 2);
  expect(listed()).toEqual([[['dlq_a', 3000, 'new'], ['dlq_b', 2000, 'old']], ['dlq_a', 'dlq_b']]);
  expect([store.counter('deadLetters'), store.counters('q/'), store.deadLetter('dlq_a')?.['at'], letterPlace(store.deadLetter('dlq_a')!)]).toEqual([2, { [name('old')]: 1, [name('new')]: 1 }, 3000, `${String(9e15 - 3000).padStart(16, '0')}/dlq_a`]);
  // The same once more, in one transaction with another, and one that is held no more.
  dies('dlq_a', 3000, 'new', 3, false);
  const tx = store.begin();
  for (const release of ['new', 'newer']) tx.deadLetter('dlq_b', { id: 'dlq_b', eventId: 'evt_b', stage: 'policy', codes: ['approval-required'], source: 'shop', destination: 'crm', release, at: 4000, partition: 0, offset: 4 });
  tx.commit('w.dlq', 0, 5);
  expect(listed()).toEqual([[['dlq_b', 4000, 'newer'], ['dlq_a', 3000, 'new']], []]);
  expect([store.counter('deadLetters'), store.counters('q/')]).toEqual([2, { [name('old')]: 0, [name('new')]: 1, [name('newer')]: 1 }]);
  sweep(store, begins({ 'w.dlq': 9 }, 0));
  expect([store.counter('deadLetters'), Object.values(store.counters('q/')), listed()]).toEqual([0, [0, 0, 0], [[], []]]);
});

test('that an event carries a change of consent that binds nobody is forgotten when nothing is left of the event, and not while it is open or its end is still to come', () => {
  const store = open();
  const sets = (name: string, at: number, offset: number): void => {
    const tx = store.begin();
    tx.deadLetter(`dlq_${name}${at}`, { id: `dlq_${name}${at}`, eventId: name, stage: 'normalizer', codes: ['consent-unresolved'], source: 'shop', destination: null, release: 'r', at, partition: 0, offset });
    tx.commit('w.dlq', 0, offset + 1);
  };
  const ended = (name: string, at: number, offset: number): void => {
    const tx = store.begin();
    tx.stage(name, { stage: 'outcome', at }, { topic: 'w.outcome', partition: 0, offset });
    tx.ended(name, 'dead-lettered', at, '');
    tx.commit('w.outcome', 0, offset + 1);
  };
  const old = now - 100 * day;
  for (const [i, name] of ['gone', 'there', 'again'].entries()) {
    sets(name, old, i);
    ended(name, old, name === 'there' ? 9 : i);
  }
  // Put back and set aside once more: its letter is there, though the topic of outcomes keeps less.
  sets('again', now - 20 * day, 8);
  ended('again', now - 20 * day, 3);
  // Their outcomes are not read yet, by an index that is built anew: of one also what put it back is there.
  sets('unread', now - day, 9);
  sets('back', old, 3);
  const tx = store.begin();
  tx.stage('back', { stage: 'accepted', at: old }, { topic: 'w.raw.shop', partition: 0, offset: 9 });
  tx.commit('w.raw.shop', 0, 10);
  const left = (): string[] => [...store.unresolved()].map(({ eventId }) => eventId);
  const kept = begins({ 'w.outcome': 7, 'w.dlq': 7 }, now - 90 * day);
  for (let pass = 0; pass < 3; pass++) sweep(store, kept);
  expect([left(), store.endedAs('again')]).toEqual([['again', 'back', 'there', 'unread'], 'dead-lettered']);
  for (let pass = 0; pass < 3; pass++) sweep(store, begins({ 'w.outcome': 10, 'w.dlq': 10, 'w.raw.shop': 10 }, now));
  expect([left(), store.endedAs('again')]).toEqual([[], undefined]);
});
