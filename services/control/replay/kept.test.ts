import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { topicNames } from '@weir/pipeline';
import { openTable } from '@weir/state';
import { createLocalSerde } from '@weir/testing';
import { afterEach, expect, test } from 'vitest';
import { createStore, type Stage, type Store } from '../store.ts';
import { createKept } from './kept.ts';
import type { ReplayOrder } from './order.ts';
import { createSelector, goesBack, type SelectPorts } from './select.ts';

const topics = topicNames('t');
const serde = await createLocalSerde();
const dirs: string[] = [];
const stores: Store[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});
const [eventId, outputId] = [`evt_${'a'.repeat(32)}`, `out_${'a'.repeat(32)}`];

/** What the index has of the event, by stages as they stand; a record that is read is named by its place. */
function kept(stages: readonly (readonly [stage: Stage, partition: number, offset: number])[]) {
  const dir = mkdtempSync(join(tmpdir(), 'weir-kept-'));
  dirs.push(dir);
  const store = createStore(openTable({ path: dir }));
  stores.push(store);
  const tx = store.begin();
  for (const [stage, partition, offset] of stages) tx.stage(eventId, stage, { topic: stage.stage === 'decided' ? topics.dispatch('crm') : topics.canonical, partition, offset });
  tx.commit('t', 0, 1);
  const of = createKept({ store, topic: topics.canonical, reader: { readOne: async (_topic, partition, offset) => ({ offset, timestamp: partition, key: null, value: Buffer.from('v'), headers: [] }) } });
  return { ...of, placesOf: async (output: string) => (await of.canonicalOf(eventId, output)).map(({ timestamp, offset }) => [timestamp, offset]) };
}
const normalized = (output: string, at: number): Stage => ({ stage: 'normalized', at, outputId: output });

test('the record of an output is found among more records of its event than are read of one', async () => {
  const { placesOf } = kept(Array.from({ length: 40 }, (_, i) => [normalized(`out_${i}`, 1), 0, i] as const));
  expect(await placesOf('out_1')).toEqual([[0, 1]]);
});

test('the newest record of an output is the last by its time, not by its partition', async () => {
  const { placesOf } = kept([[normalized('out_1', 1), 5, 9], ...Array.from({ length: 32 }, (_, i) => [normalized('out_1', 2 + i), 0, i] as const)]);
  const places = await placesOf('out_1');
  expect([places.length, places.at(-1), places.some(([partition]) => partition === 5)]).toEqual([32, [0, 31], false]);
});

const order = { id: 'rpl_a', from: 'dlq', since: null, until: null, source: null, destination: null, code: null, stage: null, release: null, subject: [], events: Buffer.alloc(0), letters: false, corrected: false, verify: false, unknown: 'hold', rate: 0, ahead: 0 } as unknown as ReplayOrder;
function letter(payload: string, release: string, decidedAt: number, offset: number): Buffer {
  const delivery = { outputId, eventId, destination: 'crm', operation: 'put', kind: 'use', recordType: 'weir.canonical.Profile', payload: Buffer.from(payload), itemHash: 'h', source: 'shop', acceptedAt: 1, decidedAt, release, rule: 'r', purpose: 'service', channel: null, topic: null, legalBasis: null, consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent: '0', standby: null, failedOver: null };
  return serde.encode('weir.internal.DeadLetter', { id: `dlq_${offset}`, eventId, stage: 'dispatcher', reasons: [], source: 'shop', destination: 'crm', operation: 'put', attempts: 1, release, topic: topics.dispatch('crm'), partition: 0, offset, key: Buffer.from('email:x'), value: serde.encode('weir.internal.Delivery', delivery), headers: [], effect: 'none', acceptedAt: 1, at: 5 });
}
const [older, newer] = [letter('A', 'rel_old', 1, 10), letter('B', 'rel_now', 2, 50)];

test.each([['in one read', [], [older, newer]], ['the newer first', [], [newer, older]], ['the older before a pause', [older], [newer, older]]])('a redrive never sends the payload of before the mapping was mended in place of the mended one: %s', async (_what, before, then) => {
  const decided = (at: number, release: string): Stage => ({ stage: 'decided', at, effect: 'allow', destination: 'crm', outputId, operation: 'put', release });
  const { canonicalOf, decidedLater } = kept([[decided(1, 'rel_old'), 0, 10], [decided(2, 'rel_now'), 0, 50]]);
  const ports = {
    serde, topics, release: () => ({ hash: 'rel_now', destinations: new Map(), sources: new Map(), policy: { purposes: new Map(), rules: [], routes: new Map([['Profile', [{ destination: 'crm', on: 'Profile', operation: 'put', kind: 'use', when: undefined }]]]) } }), workspaceKey: Buffer.alloc(32), keys: undefined, tables: { linked: (ids: readonly string[]) => ids }, open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined, canonicalOf, decidedLater, endedAs: () => undefined, now: () => 3000,
    standing: { end: () => ({ state: 'dead-lettered', effect: 'none', itemHash: 'h', at: 5, offset: 1, maybeSince: 0, more: false }), newest: () => undefined, objectOf: () => '', deliveryState: () => 'dead-lettered', allows: () => true, destination: () => ({ operations: { put: { kind: 'use', idempotency: { scheme: 'none', pastWindow: 'hold' } } }, adapter: {} }), oldestSent: () => 1e12, mayRead: () => true },
  } as unknown as SelectPorts;
  const selector = createSelector(ports, order);
  const records = (list: readonly Buffer[]) => list.map((value, offset) => ({ topic: topics.dlq, partition: 0, record: { offset, timestamp: 5, key: null, value, headers: [] } })) as never;
  await selector.meet(records(before));
  const items = await selector.take(records(then));
  expect(items.filter((item) => goesBack(item, order)).map(({ deliveries: [looked] }) => looked!.payload!.toString())).toEqual(['B']);
});
