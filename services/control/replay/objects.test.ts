import { WeirError } from '@weir/errors';
import type { Serde } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import type { ReplayOrder } from './order.ts';
import { createSelector, type SelectPorts } from './select.ts';
import { objectReader } from './standing.ts';

const topics = topicNames('t');
const own = await createLocalSerde();
const order = { id: 'rpl_a', from: 'dispatch', since: null, until: null, source: null, destination: null, code: null, stage: null, release: null, subject: [], events: Buffer.alloc(0), letters: false, corrected: false, verify: false, unknown: 'hold', rate: 0, ahead: 0 } as unknown as ReplayOrder;
const payload = own.encode('weir.canonical.Order', { id: 'o', source: 'shop', objectKey: 'a', occurredAt: 1, userId: null, anonymousId: null, email: null, phone: null, externalIds: [], orderId: 'a', status: 'placed', currency: null, total: null, revenue: null, tax: null, shipping: null, discount: null, coupon: null, affiliation: null, items: [], extras: null });
const value = own.encode('weir.internal.Delivery', {
  outputId: `out_${'a'.repeat(32)}`, eventId: `evt_${'a'.repeat(32)}`, destination: 'crm', operation: 'put', kind: 'restrict', recordType: 'weir.canonical.Order', payload, itemHash: 'h', source: 'shop', acceptedAt: 1000, decidedAt: 1000, release: 'rel_1', rule: 'r', purpose: null, channel: null, topic: null, legalBasis: null,
  consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent: '0', standby: null, failedOver: null,
});
const operation = { kind: 'restrict', idempotency: { scheme: 'natural-upsert', pastWindow: 'resend' } };
const dead = { state: 'dead-lettered', effect: 'none', itemHash: 'h', at: 5, offset: 1, maybeSince: 0, more: false };

/** @param newer whether an order of the same object (or of another one) that is newer was delivered */
async function seen(newer: 'same' | 'other', registry: 'answers' | 'has lost it'): Promise<readonly [standing: string, prepared: number]> {
  let prepared = 0;
  const lacks = (bytes: Buffer): boolean => bytes.equals(payload) && (prepared === 0 || registry === 'has lost it');
  const serde = {
    ...own, known: (bytes: Buffer) => !lacks(bytes) && own.known(bytes),
    decode(bytes: Buffer) {
      if (lacks(bytes)) throw new WeirError('schema-unknown', 'not looked up');
      return own.decode(bytes);
    },
    async prepare() {
      prepared++;
      if (registry === 'has lost it') throw new WeirError('schema-unknown', 'not there');
    },
  } as unknown as Serde;
  const key = Buffer.alloc(32);
  const object = objectReader(own, key)({ recordType: 'weir.canonical.Order', source: 'shop', outputId: 'out_1' } as never, operation as never, payload);
  const ports = {
    serde, topics, release: () => ({ hash: 'rel_1', destinations: new Map(), sources: new Map(), policy: { rules: [] } }), workspaceKey: key, keys: undefined, tables: { linked: (ids: readonly string[]) => ids }, open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined, canonicalOf: async () => [], decidedLater: () => false, endedAs: () => undefined, now: () => 3000,
    standing: {
      end: () => dead, objectOf: objectReader(serde, key), deliveryState: () => 'dead-lettered', allows: () => true, oldestSent: () => 1e12, mayRead: () => true,
      newest: (_d: string, _o: string, _s: string, of: string) => ((newer === 'same' ? of === object : of === 'x') ? { acceptedAt: 2000, firstOffset: -1 } : undefined),
      destination: () => ({ operations: { put: operation }, adapter: {} }),
    },
  } as unknown as SelectPorts;
  const [item] = await createSelector(ports, order).take([{ topic: topics.dispatch('crm'), partition: 0, record: { offset: 4, timestamp: 2000, key: Buffer.from('email:x'), value, headers: [] } }] as never);
  return [item!.deliveries[0]!.found.standing, prepared];
}

test('what a delivery sets is read though the schema of its record is not here yet; where it is nowhere, the dispatcher will tell', async () => {
  expect(await seen('same', 'answers')).toEqual(['superseded', 1]);
  expect(await seen('other', 'answers')).toEqual(['notApplied', 1]);
  expect(await seen('same', 'has lost it')).toEqual(['notApplied', 1]);
});
