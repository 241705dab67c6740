import { WeirError } from '@weir/errors';
import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import type { ReplayOrder } from '../../services/control/replay/order.ts';
import { createSelector, type SelectPorts } from '../../services/control/replay/select.ts';
import { createEndPace } from '../../services/dispatcher/end-pace.ts';
import { createEndWriter, type Ending } from '../../services/dispatcher/ends.ts';
import { failOver, secondDelivery } from '../../services/dispatcher/fail-over.ts';
import type { DestinationPorts } from '../../services/dispatcher/ports.ts';
import type { DeliveryValue, EndValue, Task } from '../../services/dispatcher/types.ts';

const topics = topicNames('t');
const serde = await createLocalSerde();
const order = { id: 'rpl_a', from: 'dlq', since: null, until: null, source: null, destination: null, code: null, stage: null, release: null, subject: [], events: Buffer.alloc(0), letters: false, unknown: 'hold' } as unknown as ReplayOrder;
const second = { destination: 'backup', operation: 'put' };
const delivery = {
  outputId: `out_${'a'.repeat(32)}`, eventId: `evt_${'a'.repeat(32)}`, destination: 'crm', operation: 'put', kind: 'restrict', recordType: 'weir.canonical.Event', payload: Buffer.from('p'), itemHash: 'h', source: 'shop', acceptedAt: 1000, decidedAt: 1000, release: 'rel_1', rule: 'r', purpose: 'service', channel: null, topic: null, legalBasis: null,
  consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent: '0', standby: { ...second, refused: null, rule: 'other', payload: null, notBefore: null }, failedOver: null,
} as unknown as DeliveryValue;
const task = (of: DeliveryValue): Task => ({
  delivery: of, subject: 'email:x', offset: 123, parkedOffset: -1, redrive: '', key: 'dlv_1', generation: 0, attempts: 0, maybeSince: 0, doubtSince: 0, readBacks: 0, path: '', ahead: '', last: undefined,
  record: { key: Buffer.from('email:x'), value: serde.encode('weir.internal.Delivery', of), headers: [], offset: 123, timestamp: 1 },
}) as unknown as Task;

/** The dead letter that the dispatcher of a destination writes, where the topic of every other one is gone. */
async function letterOf(name: string, ending: Ending): Promise<OutRecord> {
  const letters: OutRecord[] = [];
  const ports = {
    name, topics, serde, clock: { now: () => 2000, monotonic: () => 0, setTimer: (run: () => void) => setImmediate(run) }, fail: (error: unknown) => { throw error; },
    admin: { partitions: () => Promise.reject(new WeirError('log-fatal')) }, ledger: { end: () => undefined, position: () => 0, apply: () => undefined },
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => (topic === topics.dlq && letters.push(...records), Promise.resolve(records.map((_, i) => i))) },
  } as unknown as DestinationPorts;
  const writer = createEndWriter(ports, 7, { name: 'me', owned: () => Promise.resolve(true), gone: () => false }, createEndPace(ports.clock), () => undefined);
  writer.push(ending);
  await writer.drained();
  expect(letters).toHaveLength(1);
  return letters[0]!;
}

/** What a replay sees while the ledger has no end of it and its outcome is that it is a dead letter. */
async function seen({ value, key }: OutRecord) {
  const ports = {
    serde, topics, release: () => ({ hash: 'rel_1' }), workspaceKey: Buffer.alloc(32), tables: {}, hasKey: () => true, now: () => 3000,
    standing: { end: () => undefined, newest: () => undefined, objectOf: () => '', deliveryState: () => 'dead-lettered', mayRead: () => true, oldestSent: () => 1e12, destination: () => ({ operations: { put: { kind: 'restrict', idempotency: { scheme: 'none', pastWindow: 'hold' } } }, adapter: {} }) },
  } as unknown as SelectPorts;
  const [item] = await createSelector(ports, order).take([{ topic: topics.dlq, partition: 0, record: { offset: 4, timestamp: 2000, key, value, headers: [] } }] as never);
  const { origin, deliveries: [looked] } = item!;
  return { topic: origin.topic, unplaced: origin.unplaced, standing: looked!.found.standing };
}

test('a replay knows the letter that the dispatcher of a first vendor writes when the topic of the second is gone, and takes no other one for it', async () => {
  const topic = topics.dispatch('backup');
  expect(await seen(await letterOf('crm', failOver(task(delivery), second, 'vendor-unavailable', 'away')))).toEqual({ topic, unplaced: true, standing: 'notApplied' });

  // Given over, and ended at the second vendor: a crash between the letter and its end, or an index that has not read the end.
  const there = secondDelivery(delivery, { key: 'dlv_1', code: 'vendor-unavailable', reason: 'away', attempts: 0, status: null, at: 1500 } as EndValue, { ...second, key: 'dlv_2' });
  for (const code of ['destination-retired', 'delivery-exhausted']) {
    const letter = await letterOf('backup', { task: task(there), state: 'dead-lettered', effect: 'none', code, detail: null, deadLetter: true });
    expect(await seen(letter), code).toEqual({ topic, unplaced: false, standing: 'pending' });
  }
});
