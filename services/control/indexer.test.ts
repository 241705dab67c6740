import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';
import type { LogRecord, Serde } from '@weir/log';
import { consentApi, H, linkedOutput, topicNames } from '@weir/pipeline';
import { openTable } from '@weir/state';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import { createConsentReceipts } from './consent-receipts.ts';
import { createIndexer } from './indexer.ts';
import { createLetters } from './letters.ts';
import { createStore } from './store.ts';

const serde = await createLocalSerde();
const topics = topicNames('w');
const batch = (topic: string, offset: number, ...values: readonly (Buffer | null)[]) => ({ topic, partition: 0, epoch: 0, records: values.map((value, i): LogRecord => ({ offset: offset + i, timestamp: 5, key: Buffer.from('k'), value, headers: [[H.event, Buffer.from('evt_1')]] })), nextOffset: offset + values.length, highWatermark: offset + values.length });
const delivery = { outputId: 'out_1', eventId: 'evt_1', destination: 'crm', operation: 'put', kind: 'use', recordType: 'weir.canonical.Event', payload: Buffer.from([9]), itemHash: 'h', source: 'shop', acceptedAt: 1, decidedAt: 2, release: 'rel_1', rule: 'all', purpose: 'service', channel: null, topic: null, legalBasis: 'contract', consent: [{ id: 'email:x', purpose: 'service', state: 'granted', version: 4 }], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent: '0', standby: null, failedOver: null };
const end = { key: 'dlv_1', outputId: 'out_1', eventId: 'evt_1', operation: 'put', state: 'dead-lettered', effect: 'none', code: 'delivery-rejected', reason: 'status 422', status: 422, attempts: 1, generation: 0, itemHash: 'h', subject: 'email:x', offset: 0, at: 7, acceptedAt: 1, maybeSince: 0, purpose: 'service', channel: null, owner: null, toDestination: null, toOperation: null, toKey: null };
const letter = { id: 'dlq_1', eventId: 'evt_1', stage: 'dispatcher', reasons: [{ code: 'delivery-rejected', message: 'status 422', file: null, line: null, field: null, path: null }], source: 'shop', destination: 'crm', operation: 'put', attempts: 1, release: 'rel_1', topic: topics.dispatch('crm'), partition: 0, offset: 0, key: null, value: null, headers: [{ name: H.output, value: Buffer.from('out_1') }], effect: 'none', acceptedAt: 1, at: 8 };
const outcome = { eventId: 'evt_1', outputId: 'out_1', destination: 'crm', operation: 'put', key: 'dlv_1', state: 'dead-lettered', reason: 'delivery-rejected', detail: null, stage: 'dispatcher', release: 'rel_1', rule: null, purpose: null, consent: [], attempts: 1, status: 422, attempt: { at: 6, verdict: 'permanent', effect: 'none', durationMs: 1.5, path: null }, acceptedAt: 1, at: 7, to: null };

test('a delivery on its way is in the index as its records say, an intent of the ledger tells nothing, bytes that are none are counted, and a fault of its own is not taken for one of the record', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-indexer-'));
  const store = createStore(openTable({ path: dir }));
  const undecodable: string[] = [];
  const index = createIndexer(store, serde, topics, (topic) => undecodable.push(topic));
  await index(batch(topics.dispatch('crm'), 0, serde.encode('weir.internal.Delivery', delivery)));
  expect(store.deliveryState('out_1|crm|put')).toBe('pending');
  await index(batch(topics.ledger('crm'), 0, serde.encode('weir.internal.LedgerOwner', { partition: 0, token: 3, owner: 'a', at: 1 }), serde.encode('weir.internal.LedgerEnd', end), null));
  await index(batch(topics.outcome, 0, serde.encode('weir.internal.Outcome', outcome)));
  await index(batch(topics.dlq, 0, serde.encode('weir.internal.DeadLetter', letter), Buffer.concat([serde.encode('weir.internal.DeadLetter', letter).subarray(0, 5), Buffer.from([9])]), Buffer.from('junk')));
  expect(undecodable).toEqual([topics.dlq, topics.dlq]);
  expect(store.end('crm', 'dlv_1')).toMatchObject({ state: 'dead-lettered', effect: 'none', itemHash: 'h', at: 7, more: false });
  expect(store.deliveryState('out_1|crm|put')).toBe('dead-lettered');
  expect(store.deadLetter('dlq_1')).toMatchObject({ eventId: 'evt_1', codes: ['delivery-rejected'], message: 'status 422', outputId: 'out_1', at: 8, offset: 0 });
  // What policy set aside for a destination is a delivery, too: it is open until that has gone through.
  const aside = { ...letter, id: 'dlq_2', stage: 'policy', topic: topics.canonical, reasons: [{ ...letter.reasons[0]!, code: 'contract-breached' }] };
  await index(batch(topics.dlq, 3, serde.encode('weir.internal.DeadLetter', aside), serde.encode('weir.internal.DeadLetter', { ...aside, id: 'dlq_3', destination: null, operation: null })));
  const letters = createLetters({ store, topics } as never);
  const open = async (): Promise<unknown[]> => (await letters.list(9, { open: true })).deadLetters.map(({ id }) => id).sort();
  expect(await open()).toEqual(['dlq_1', 'dlq_2', 'dlq_3']);
  const { outputId, destination, operation } = delivery;
  await index(batch(topics.outcome, 1, serde.encode('weir.internal.Outcome', { ...outcome, outputId, destination, operation, state: 'delivered', reason: null, at: 9, attempt: null })));
  expect(await open()).toEqual(['dlq_3']);
  expect(store.stages('evt_1').slice(0, 3)).toEqual([
    expect.objectContaining({ stage: 'decided', at: 2, effect: 'allow', rule: 'all', consent: [{ id: 'email:x', purpose: 'service', state: 'granted', version: 4 }], release: 'rel_1' }),
    expect.objectContaining({ stage: 'attempt', at: 6, number: 1, verdict: 'permanent', ms: 1.5, status: 422 }),
    expect.objectContaining({ stage: 'outcome', at: 7, state: 'dead-lettered', reason: 'delivery-rejected' }),
  ]);
  expect([store.position(topics.ledger('crm'), 0), store.position(topics.dlq, 0)]).toEqual([3, 5]);
  const broken = createIndexer(store, { ...serde, idOf: () => { throw new TypeError('ours'); } } as Serde, topics, (topic) => undecodable.push(topic));
  await expect(broken(batch(topics.dlq, 3, serde.encode('weir.internal.DeadLetter', letter)))).rejects.toThrow('ours');
  const refusing = createIndexer(store, { ...serde, idOf: serde.idOf, known: () => true, decode: () => { throw new WeirError('subject-erased'); } } as Serde, topics, (topic) => undecodable.push(topic));
  await refusing(batch(topics.dlq, 3, Buffer.from([0, 0, 0, 9, 9, 1])));
  expect(undecodable).toHaveLength(2);
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

test('who recorded a change of consent by the API is on its trace and its receipts; a change out of a webhook names nobody', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-indexer-'));
  const store = createStore(openTable({ path: dir }));
  const index = createIndexer(store, serde, topics, (topic) => { throw new Error(topic); });
  const value = serde.encode('weir.canonical.ConsentChange', { id: 'out_1', source: 'consent-api', objectKey: null, occurredAt: 5, userId: null, anonymousId: null, email: null, phone: null, externalIds: [], purpose: 'news', channel: null, topic: null, state: 'withdrawn', extras: null });
  const change = (offset: number, event: string, more: LogRecord['headers']) => ({ ...batch(topics.canonical, offset), records: [{ offset, timestamp: 5, key: Buffer.from('email:x'), value, headers: [[H.event, Buffer.from(event)], [H.output, Buffer.from(`out_${event}`)], ...more] as LogRecord['headers'] }], nextOffset: offset + 1 });
  await index(change(0, 'evt_api', [[H.mapping, Buffer.from(consentApi)], [H.actor, Buffer.from('oidc:dpo')]]));
  await index(change(1, 'evt_hook', [[H.mapping, Buffer.from('onetrust')]]));
  const receipts = createConsentReceipts({ store, release: () => ({ destinations: new Map([['crm', {}]]) }) } as never);
  expect(['evt_api', 'evt_hook'].map((id) => [store.stages(id).map((stage) => stage['actor']), receipts.ofChange(id).actor])).toEqual([[['oidc:dpo'], 'oidc:dpo'], [[undefined], null]]);
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});

test('of an event with several changes each has its own receipt: one that reached nobody is not told by the end of another', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-indexer-'));
  const store = createStore(openTable({ path: dir }));
  const index = createIndexer(store, serde, topics, (topic) => { throw new Error(topic); });
  const value = serde.encode('weir.canonical.ConsentChange', { id: 'x', source: 'onetrust', objectKey: null, occurredAt: 5, userId: null, anonymousId: null, email: null, phone: null, externalIds: [], purpose: 'news', channel: null, topic: null, state: 'withdrawn', extras: null });
  const changes = ['out_1', 'out_2', 'out_3'];
  for (const [i, output] of changes.entries()) {
    await index({ ...batch(topics.canonical, i), records: [{ offset: i, timestamp: 5, key: Buffer.from('email:x'), value, headers: [[H.event, Buffer.from('evt_1')], [H.output, Buffer.from(output)], [H.mapping, Buffer.from('onetrust')]] }], nextOffset: i + 1 });
    if (output !== 'out_3') await index(batch(topics.dispatch('crm'), i, serde.encode('weir.internal.Delivery', { ...delivery, outputId: output, operation: 'unsubscribe', decidedAt: 2 + i })));
  }
  const denied = { ...outcome, outputId: 'out_3', destination: 'mail', operation: 'remove', key: null, state: 'denied', reason: 'consent-origin', stage: 'policy', attempts: 0, status: null, attempt: null, at: 4 };
  const ends = (outputId: string, state: string, at: number) => serde.encode('weir.internal.Outcome', { ...outcome, outputId, operation: 'unsubscribe', state, reason: null, status: 200, at });
  await index(batch(topics.outcome, 0, serde.encode('weir.internal.Outcome', denied), ends('out_2', 'delivered', 9)));
  const receipts = createConsentReceipts({ store, release: () => ({ destinations: new Map([['crm', {}], ['mail', {}], ['ads', {}]]) }) } as never);
  const shown = (): unknown[] => receipts.ofChange('evt_1').receipts.map((r) => [r.destination, r.outputId, r.state]);
  // No route: of all changes once, of one that others have a route for by its name.
  const rest = [['mail', 'out_3', 'denied'], ['mail', 'out_1', 'no-route'], ['mail', 'out_2', 'no-route']];
  expect(shown()).toEqual([['ads', null, 'no-route'], ['crm', 'out_1', 'pending'], ['crm', 'out_2', 'delivered'], ['crm', 'out_3', 'no-route'], ...rest]);
  await index(batch(topics.outcome, 2, ends('out_1', 'dead-lettered', 8)));
  expect(shown().slice(1, 3)).toEqual([['crm', 'out_1', 'dead-lettered'], ['crm', 'out_2', 'delivered']]);
  // A call under a linked identifier stands beside that of the change, as its decision and its end do.
  await index(batch(topics.outcome, 3, serde.encode('weir.internal.Attempt', { key: 'k', eventId: 'evt_1', outputId: linkedOutput('out_1', 'email:h4Kd2w9'), destination: 'crm', operation: 'unsubscribe', number: 1, verdict: 'retry', effect: 'none', status: 503, code: null, detail: null, durationMs: 1, at: 7, path: null })));
  expect(store.stages('evt_1').find((s) => s['status'] === 503)).toMatchObject({ stage: 'attempt', outputId: 'out_1', operation: 'unsubscribe (by email:h4Kd2w)' });
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});
