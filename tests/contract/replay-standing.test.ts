import { deliveryKey, oldestSent } from '@weir/pipeline';
import { dedupeWindow, type DestinationConfig, type Release } from '@weir/release';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { standingOf, walk, type DeliveryFacts, type StandingPorts } from '../../services/control/replay/standing.ts';
import { createStore, type EndFacts } from '../../services/control/store.ts';
import { prepare } from '../../services/dispatcher/attempt.ts';
import { keepsInstead, lookUp } from '../../services/dispatcher/ledger.ts';
import type { PartitionRunner } from '../../services/dispatcher/partition.ts';
import type { DestinationPorts } from '../../services/dispatcher/ports.ts';
import type { DeliveryValue, EndState, EndValue, Task } from '../../services/dispatcher/types.ts';
import { createDisk } from '../integrity/sim/table.ts';

const facts: DeliveryFacts = { outputId: 'out_1', eventId: 'evt_1', destination: 'crm', operation: 'put', source: 'shop', recordType: 'weir.canonical.Profile', itemHash: 'h', acceptedAt: 1000, subject: 's', purpose: 'service', channel: null, topic: null, legalBasis: null, ids: ['email:x'], intent: '0' };
const keyOf = (generation: number): string => deliveryKey('out_1', 'crm', 'put', '0', generation);
const states: EndState[] = ['delivered', 'denied', 'dead-lettered', 'quarantined', 'superseded', 'expired', 'failed-over'];
const end = fc.record({ state: fc.constantFrom(...states), effect: fc.constantFrom('none', 'maybe', 'done'), itemHash: fc.constantFrom('h', 'h', 'h', 'other') });

test('where a preview sees a delivery is what the dispatcher will do with it', () => {
  // A change of the consent API may have ended under the plain hash of before.
  const change = { ...facts, source: 'consent-api', recordType: 'weir.canonical.ConsentChange' };
  fc.assert(fc.property(fc.constantFrom(facts, change), fc.array(end, { maxLength: 4 }), (facts, ends) => {
    const of = (key: string) => ends.findIndex((_, g) => keyOf(g) === key);
    const seen = walk({ end: (_d, key) => (of(key) < 0 ? undefined : { at: 5, offset: 7, maybeSince: 0, ...ends[of(key)]! } as EndFacts) }, facts);
    const done = lookUp(facts as unknown as DeliveryValue, 'rpl_1', 99, (key) => (of(key) < 0 ? undefined : { key, offset: 7, ...ends[of(key)]! } as EndValue));
    const expected = done.kind === 'conflict' ? 'conflict' : done.kind === 'ended' ? (done.end.state === 'failed-over' ? 'failedOver' : 'delivered') : done.reopened !== undefined ? 'unknown' : done.generation === 0 ? 'none' : 'notApplied';
    expect(seen.kind).toBe(expected);
    if (seen.kind === 'unknown') expect(seen.key).toBe(done.key);
  }), { numRuns: 2000 });
});

test('the index keeps the end that the ledger keeps', () => {
  const store = createStore(createDisk().open({ path: 'x' }));
  const put = (key: string, { state, effect, maybeSince }: Doubted, offset: number): void => {
    const tx = store.begin();
    tx.end({ destination: 'crm', key, operation: 'put', subject: 's', acceptedAt: 1, state, effect, itemHash: 'h', at: 5, offset, maybeSince, partition: 0, owner: 'o', outputId: 'out_1', generation: 0 });
    tx.commit('t', 0, 1);
  };
  type Doubted = Pick<EndValue, 'state' | 'effect' | 'maybeSince'>;
  const all = states.flatMap((state): Doubted[] => [{ state, effect: 'none', maybeSince: 0 }, ...[3, 7].map((maybeSince) => ({ state, effect: 'maybe' as const, maybeSince }))]);
  all.forEach((a, i) => {
    all.forEach((b, j) => {
      for (const offset of [1, 2, 3]) {
        const key = `${i}/${j}/${offset}`;
        put(key, a, 2);
        put(key, b, offset);
        const kept = keepsInstead({ ...a, offset: 2, subject: 's' }, { ...b, offset, subject: 's' }) ? { ...b, offset } : { ...a, offset: 2 };
        expect([a, b, store.end('crm', key)]).toMatchObject([a, b, kept]);
      }
    });
  });
});

const day = 86_400_000;
const operation = (over: object) => ({ kind: 'use', accepts: [], doc: '', idempotency: { scheme: 'header', windowMs: 1000, pastWindow: 'hold', cite: '' }, ...over });
const ports = (over: Partial<StandingPorts>, op: object = operation({})): StandingPorts => ({
  end: () => undefined, newest: () => undefined, objectOf: () => 'p', deliveryState: () => undefined, allows: () => true, mayRead: () => true, oldestSent: () => 68 * day,
  destination: (name) => (name === 'crm' ? ({ operations: { put: op }, adapter: { destination: { verify: {} } } } as unknown as DestinationConfig) : undefined), ...over,
});
const maybe = (at: number): Partial<StandingPorts> => ({ end: (_d, key) => (key === keyOf(0) ? { state: 'dead-lettered', effect: 'maybe', itemHash: 'h', at, offset: 1, maybeSince: at } : undefined) });

test.each<[string, Partial<StandingPorts>, object, boolean, number, string]>([
  ['an erased person is not looked at', { mayRead: () => false }, operation({}), true, 2000, 'erased'],
  ['a record without an end is on its way', {}, operation({}), true, 2000, 'pending'],
  ['what was never decided is to be sent', {}, operation({}), false, 2000, 'notApplied'],
  ['a withdrawn consent closes', { allows: () => false }, operation({}), false, 2000, 'denied'],
  ['a restrict needs no consent', { allows: () => false }, operation({ kind: 'restrict' }), false, 2000, 'notApplied'],
  ['a newer profile was delivered', { newest: () => ({ acceptedAt: 1001, firstOffset: -1 }) }, operation({}), false, 2000, 'superseded'],
  ['the same profile was not superseded by itself', { newest: () => ({ acceptedAt: 1000, firstOffset: -1 }) }, operation({}), false, 2000, 'notApplied'],
  ['an event that the ledger has forgotten', {}, operation({}), false, 1000 + 68 * day + 1, 'expired'],
  ['one that it just remembers', {}, operation({}), false, 1000 + 68 * day, 'notApplied'],
  ['an operation that is gone', { destination: () => undefined }, operation({}), false, 2000, 'retired'],
  ['unknown within the key window', maybe(1500), operation({}), true, 2500, 'unknownKeyed'],
  ['unknown past it, nothing can tell', maybe(1500), operation({}), true, 2501, 'unknownHeld'],
  ['unknown past it, the manifest sends again', maybe(1500), operation({ idempotency: { scheme: 'none', pastWindow: 'resend', cite: '' } }), true, 2501, 'unknownKeyed'],
  ['unknown at a vendor without keys, after a clock was set back', maybe(2500), operation({ idempotency: { scheme: 'none', pastWindow: 'hold', cite: '' } }), true, 2500, 'unknownHeld'],
  ['unknown past it, the vendor can be asked', maybe(1500), operation({ verify: { cite: '' } }), true, 2501, 'unknownReadable'],
])('%s', (_name, over, op, queued, now, standing) => {
  expect(standingOf(ports(over, op), facts, queued, now, undefined).standing).toBe(standing);
});

test('a preview calls expired what the dispatcher does not send any more, whatever the ledger is kept for and however long the source repeats', () => {
  const days = fc.integer({ min: 1, max: 200 });
  fc.assert(fc.property(fc.record({ ledger: fc.option(days, { nil: Infinity, freq: 5 }), window: days, source: fc.constantFrom('shop', 'gone', ''), age: days, ms: fc.integer({ min: -1, max: 1 }) }), ({ ledger, window, source, age, ms }) => {
    const release = { sources: new Map([['shop', { dedupeWindowMs: window * day }]]) } as unknown as Release;
    const windowOf = (name: string): number => dedupeWindow(release, name);
    const now = facts.acceptedAt + age * day + ms;
    const seen = standingOf(ports({ oldestSent: (_destination, name) => oldestSent(ledger * day, windowOf(name)) }), { ...facts, source }, false, now, undefined).standing;
    const sending = { name: 'crm', retention: { ledgerMs: () => ledger * day, dispatchMs: () => Infinity, parkedMs: () => Infinity }, dedupeWindowMs: windowOf, clock: { now: () => now }, consent: { atLeast: () => true, allows: () => ({ ok: true }) }, ledger: { lastDelivered: () => undefined } } as unknown as DestinationPorts;
    const runner = { openedAt: () => 0, coveredBefore: () => false, writer: { endOf: () => undefined, recentOf: () => [] } } as unknown as PartitionRunner;
    const task = { delivery: { ...facts, source, notBefore: null, consentOffsets: [], identityOffsets: [] }, subject: 's', offset: 9, parkedOffset: -1, redrive: 'rpl_1', object: 'p', sealedBy: '', maybeSince: 0, readBacks: 0, record: { timestamp: now, headers: [] } } as unknown as Task;
    const done = prepare(sending, runner, { operations: { put: operation({}) }, caps: [], adapter: { destination: {} } } as unknown as DestinationConfig, task);
    expect(seen).toBe(done.kind === 'call' ? 'notApplied' : done.kind === 'end' ? done.ending.state : done.kind);
  }), { numRuns: 500 });
});
