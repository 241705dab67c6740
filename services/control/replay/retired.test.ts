import { hash } from 'node:crypto';
import { deliveryKey, topicNames } from '@weir/pipeline';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import type { DeliveryState, EndFacts } from '../store.ts';
import type { ReplayOrder } from './order.ts';
import { createPutBack, type PutBackPorts } from './put-back.ts';
import { createSelector, goesBack, type Item, type SelectPorts } from './select.ts';

const topics = topicNames('t');
const serde = await createLocalSerde();
const order = { id: 'rpl_a', from: 'dlq', since: null, until: null, source: null, destination: null, code: null, stage: null, release: null, subject: [], events: Buffer.alloc(0), letters: false, corrected: false, verify: false, unknown: 'hold', rate: 0, ahead: 0 } as unknown as ReplayOrder;
const delivery = {
  outputId: `out_${'a'.repeat(32)}`, eventId: `evt_${'a'.repeat(32)}`, destination: 'backup', operation: 'put', kind: 'restrict', recordType: 'weir.canonical.Event', payload: Buffer.from('p'), itemHash: 'h', source: 'shop', acceptedAt: 1000, decidedAt: 1000, release: 'rel_1', rule: 'r', purpose: 'service', channel: null, topic: null, legalBasis: null,
  consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent: '0', standby: null, failedOver: { destination: 'crm', operation: 'put', key: 'dlv_1', reason: 'vendor-unavailable', detail: null, attempts: 0, status: null, at: 1500 },
};
/** A letter of a delivery of the second vendor. What the dispatcher of the first wrote when the second's topic was gone: topic and destination are the second's, partition and offset its own, and its id is of them on the topic of the first. */
function letterOf({ code = 'destination-retired', on = 'crm' } = {}): Buffer {
  return serde.encode('weir.internal.DeadLetter', {
    id: `dlq_${hash('sha256', `dispatcher\0${topics.dispatch(on)}\0${7}\0${123}`).slice(0, 32)}`, eventId: delivery.eventId, stage: 'dispatcher', reasons: [{ code, message: '', file: null, line: null, field: null, path: null }], source: 'shop', destination: 'backup', operation: 'put', attempts: 0, release: 'rel_1',
    topic: topics.dispatch('backup'), partition: 7, offset: 123, key: Buffer.from('email:x'), value: serde.encode('weir.internal.Delivery', delivery), headers: [], effect: 'none', acceptedAt: 1000, at: 2000,
  });
}

async function selected(letter: Buffer, state: DeliveryState, { there = true, end }: { there?: boolean; end?: Partial<EndFacts> } = {}) {
  const operation = { kind: 'restrict', idempotency: { scheme: 'none', pastWindow: 'hold' } };
  const first = deliveryKey(delivery.outputId, 'backup', 'put', '0', 0);
  const ports = {
    serde, topics, release: () => ({ hash: 'rel_1', destinations: new Map(), sources: new Map(), policy: { rules: [] } }), workspaceKey: Buffer.alloc(32), keys: undefined, tables: { linked: (ids: readonly string[]) => ids }, open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined, canonicalOf: async () => [], decidedLater: () => false, endedAs: () => undefined, now: () => 3000,
    standing: { end: (_destination: string, key: string) => (key === first ? end : undefined), newest: () => undefined, objectOf: () => '', deliveryState: (id: string) => (id === `${delivery.outputId}|backup|put` ? state : undefined), allows: () => true, destination: (name: string) => (there && name === 'backup' ? { operations: { put: operation }, adapter: {} } : undefined), oldestSent: () => 1e12, mayRead: () => true },
  } as unknown as SelectPorts;
  const [item] = await createSelector(ports, order).take([{ topic: topics.dlq, partition: 0, record: { offset: 4, timestamp: 2000, key: Buffer.from(delivery.eventId), value: letter, headers: [] } }] as never);
  return item!;
}
const seen = (item: Item): [string, boolean] => [item.deliveries[0]!.found.standing, goesBack(item, order)];

/** Where it is put back, on topics of which every key is on partition 2. */
async function placeOf(item: Item): Promise<[string, number][]> {
  const written: [string, number][] = [];
  const appender = {
    partitions: async () => 3, partitionFor: (_topic: string, key: Buffer) => (expect(key.toString()).toBe('email:x'), 2),
    append: async (topic: string, records: readonly { partition: number }[]) => records.map(({ partition }, i) => (written.push([topic, partition]), i)),
  };
  await createPutBack({ appender, topics } as unknown as PutBackPorts, order).put([item], () => true);
  return written;
}

test('the dead letter of a second vendor whose topic was gone goes back when that is there again, to the partition that its key has there', async () => {
  const item = await selected(letterOf(), 'dead-lettered');
  expect(seen(item)).toEqual(['notApplied', true]);
  expect(await placeOf(item)).toEqual([[topics.dispatch('backup'), 2]]);
  expect(seen(await selected(letterOf(), 'dead-lettered', { there: false }))).toEqual(['retired', false]);
});

test('put back again after an end at the second vendor, it goes to the partition whose ledger knows that end', async () => {
  const item = await selected(letterOf(), 'dead-lettered', { end: { state: 'dead-lettered', effect: 'none', itemHash: 'h', more: true } });
  expect(seen(item)).toEqual(['notApplied', true]);
  expect(await placeOf(item)).toEqual([[topics.dispatch('backup'), 2]]);
  expect(seen(await selected(letterOf(), 'delivered', { end: { state: 'delivered', effect: 'done', itemHash: 'h' } }))).toEqual(['confirmed', false]);
});

test('without an end a dead letter of any other code is one whose end is on its way', async () => {
  expect(seen(await selected(letterOf({ code: 'delivery-exhausted' }), 'dead-lettered'))).toEqual(['pending', false]);
  expect(seen(await selected(letterOf({ code: 'expiring' }), 'dead-lettered'))).toEqual(['pending', false]);
});

test('so is one that stood on the topic of the second vendor, which had lost the operation; put back, it goes where it stood', async () => {
  expect(seen(await selected(letterOf({ on: 'backup' }), 'dead-lettered'))).toEqual(['pending', false]);
  const item = await selected(letterOf({ on: 'backup' }), 'dead-lettered', { end: { state: 'dead-lettered', effect: 'none', itemHash: 'h', more: true } });
  expect(seen(item)).toEqual(['notApplied', true]);
  expect(await placeOf(item)).toEqual([[topics.dispatch('backup'), 7]]);
});

test('one that was given over again, to the topic that is there by now, is left alone until it ends', async () => {
  expect(seen(await selected(letterOf(), 'pending'))).toEqual(['pending', false]);
});
