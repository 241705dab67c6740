import type { LogRecord } from '@weir/log';
import { deliveryKey, H, linkedOutput, ofItsOwn, topicNames } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import { loadSchemas } from '@weir/schemas';
import { createLocalSerde } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createIndexer } from '../../services/control/indexer.ts';
import { objectReader, standingOf, type StandingPorts } from '../../services/control/replay/standing.ts';
import { createStore } from '../../services/control/store.ts';
import { prepare } from '../../services/dispatcher/attempt.ts';
import { itemOf } from '../../services/dispatcher/call.ts';
import { endValue, type Ending } from '../../services/dispatcher/ends.ts';
import { createLedgerStore } from '../../services/dispatcher/ledger-store.ts';
import type { PartitionRunner } from '../../services/dispatcher/partition.ts';
import type { DestinationPorts } from '../../services/dispatcher/ports.ts';
import { taskOf } from '../../services/dispatcher/task.ts';
import type { DeliveryValue, EndState, EndValue, Task } from '../../services/dispatcher/types.ts';
import { createDisk } from '../integrity/sim/table.ts';

const serde = await createLocalSerde();
const topics = topicNames('w');
const profile = 'weir.canonical.Profile';
const change = 'weir.canonical.ConsentChange';
const operation = (scheme: string) => ({ kind: 'use', accepts: [], doc: '', idempotency: { scheme, pastWindow: 'resend', cite: '' } });
/** An operation that upserts, and one that appends. */
const operations = { put: operation('natural-upsert'), post: operation('header') };
const destination = { operations, caps: [], adapter: { destination: { batch: { item: () => '' } } } } as unknown as DestinationConfig;
const workspaceKey = Buffer.alloc(32, 5);

/** What a record is of and says. */
interface Made {
  readonly type: string;
  readonly says: Readonly<Record<string, unknown>>;
  readonly by?: 'put' | 'post';
  readonly source?: string;
  /** The linked identifier under which it goes out. */
  readonly linked?: string;
  /** It can not be read. */
  readonly broken?: boolean;
}
const aProfile: Made = { type: profile, says: {} };
const no = (channel: string | null, topic: string | null = null, purpose = 'news'): Made => ({ type: change, says: { purpose, channel, topic, state: 'withdrawn' } });
const anOrder = (objectKey: string | null, source = 'shop', orderId = 'o'): Made => ({ type: 'weir.canonical.Order', says: { objectKey, orderId, status: 'placed' }, source });
const anEvent = (objectKey: string, messageId: string | null): Made => ({ type: 'weir.canonical.Event', says: { objectKey, messageId, name: 'Seen', category: 'track' } });
const metric = (periodStart: number): Made => ({ type: 'weir.canonical.CampaignMetric', says: { objectKey: 'c', campaignId: 'c', channel: 'email', periodStart } });
/** A value for each field that has no default. */
function empty(type: string): Record<string, unknown> {
  const { fields } = loadSchemas().get(type) as { readonly fields: readonly { readonly name: string; readonly type: unknown; readonly default?: unknown }[] };
  return Object.fromEntries(fields.map(({ name, default: given }) => [name, given ?? null]));
}
const nobody = { id: 'out', source: 'shop', objectKey: null, occurredAt: 1, userId: null, anonymousId: null, email: null, phone: null, externalIds: [], extras: null };

/** The dispatcher's ledger with its rules, and control's index, fed with the same ends; every record is of one person, and the `n`th on the dispatch topic is that of update `n`, which is what `made` says. */
class World {
  readonly #disk = createDisk();
  readonly #made: (n: number) => Made;
  #next: number;
  #ledgerOffset = 0;
  #ledger = this.#openLedger();
  #index = this.#openIndex();

  constructor(made: (n: number) => Made = () => aProfile, firstOffset = 0) {
    this.#made = made;
    this.#next = firstOffset;
  }

  #openLedger() {
    return createLedgerStore(this.#disk.open({ path: 'ledger' }), serde, false, 3);
  }

  #openIndex() {
    const store = createStore(this.#disk.open({ path: 'index' }), 3);
    return { store, apply: createIndexer(store, serde, topics, (topic) => { throw new Error(topic); }) };
  }

  /** Both processes were killed. */
  restart(): void {
    this.#ledger = this.#openLedger();
    this.#index = this.#openIndex();
  }

  /** The dispatch topic was deleted and made. */
  topicMadeAnew(): void {
    this.#next = 0;
  }

  #delivery(n: number, acceptedAt: number, intent: string): DeliveryValue {
    const { type, says, by = 'put', source = 'shop', linked, broken } = this.#made(n);
    const payload = broken === true ? Buffer.from([9]) : serde.encode(type, { ...empty(type), ...nobody, ...says });
    return { outputId: linked === undefined ? `out_${n}` : linkedOutput(`out_${n}`, linked), eventId: `evt_${n}`, destination: 'crm', operation: by, kind: 'use', recordType: type, payload, itemHash: 'h', source, acceptedAt, decidedAt: 5, release: 'rel_1', rule: 'all', purpose: 'service', channel: null, topic: null, legalBasis: null, consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent };
  }

  /** The next record of the topic. @param order of what was put back */
  record(n: number, acceptedAt: number, order = '', intent = '0'): Task {
    const record: LogRecord = { offset: this.#next, timestamp: 1000, key: Buffer.from('s'), value: null, headers: order === '' ? [] : [[H.intent, Buffer.from(order)]] };
    return taskOf(undefined, this.#delivery(n, acceptedAt, intent), record, { offset: this.#next++, parkedOffset: -1, queuedAt: 1000, maybeSince: 0 });
  }

  /** What the dispatcher does with it before a call. */
  prepared(task: Task, recent: readonly EndValue[] = []) {
    const ports = { name: 'crm', serde, workspaceKey, retention: { ledgerMs: () => Infinity, dispatchMs: () => Infinity, parkedMs: () => Infinity }, dedupeWindowMs: () => 0, clock: { now: () => 2000 }, consent: { atLeast: () => true, allows: () => ({ ok: true }) }, ledger: this.#ledger } as unknown as DestinationPorts;
    const runner = { openedAt: () => 0, coveredBefore: () => false, writer: { endOf: (key: string) => recent.find((end) => end.key === key) ?? this.#ledger.end(key), recentOf: () => recent } } as unknown as PartitionRunner;
    const found = prepare(ports, runner, destination, task);
    return found.kind === 'end' ? found.ending.state : found.kind;
  }

  /** Its end, as the dispatcher writes it. */
  end(task: Task, state: EndState, version: 'this' | 'before' = 'this'): EndValue {
    if (task.key === '') task.key = deliveryKey(task.delivery.outputId, 'crm', task.delivery.operation, task.delivery.intent, 0);
    if (state === 'delivered' && !(this.#made(Number(task.delivery.eventId.slice(4))).broken ?? false)) itemOf({ serde, workspaceKey } as unknown as DestinationPorts, task, destination);
    const ending: Ending = { task, state, effect: state === 'delivered' ? 'done' : 'none', code: null, detail: null, deadLetter: false };
    const end = endValue(ending, 1500, 'o');
    return version === 'this' ? end : { ...end, firstOffset: -1, object: '' };
  }

  async write(end: EndValue): Promise<void> {
    const value = serde.encode('weir.internal.LedgerEnd', end);
    const offset = this.#ledgerOffset++;
    this.#ledger.apply(0, [{ key: `${end.key}#end`, value, offset }], offset + 1);
    await this.#index.apply({ topic: topics.ledger('crm'), partition: 0, epoch: 0, records: [{ offset, timestamp: 5, key: Buffer.from(`${end.key}#end`), value, headers: [] }], nextOffset: offset + 1, highWatermark: offset + 1 });
  }

  /** What a preview says of it. */
  standing(n: number, acceptedAt: number): string {
    const { store } = this.#index;
    const ports: StandingPorts = { end: store.end, newest: store.newest, objectOf: objectReader(serde, workspaceKey), deliveryState: store.deliveryState, allows: () => true, mayRead: () => true, oldestSent: () => Infinity, destination: () => destination };
    const delivery = this.#delivery(n, acceptedAt, '0');
    return standingOf(ports, { ...delivery, subject: 's' }, true, 2000, delivery.payload).standing;
  }
}

/** Two updates: the first dies, the second is delivered (at the same time unless it is said); gives what becomes of the first when it is put back. */
async function firstDies(world: World, between: () => void = () => undefined, secondAt = 100, version: 'this' | 'before' = 'this'): Promise<readonly [string, string]> {
  await world.write(world.end(world.record(0, 100), 'dead-lettered'));
  between();
  await world.write(world.end(world.record(1, secondAt), 'delivered', version));
  return [world.prepared(world.record(0, 100, 'rpl_1')), world.standing(0, 100)];
}

test('of two updates that came in one request, the first one redriven after the second was delivered is superseded, also after a restart', async () => {
  const world = new World();
  expect(await firstDies(world)).toEqual(['superseded', 'superseded']);
  world.restart();
  expect([world.prepared(world.record(0, 100, 'rpl_1')), world.standing(0, 100)]).toEqual(['superseded', 'superseded']);
});

test('the second one, whose call of a moment ago is not acknowledged yet, counts', async () => {
  const world = new World();
  await world.write(world.end(world.record(0, 100), 'dead-lettered'));
  const second = world.end(world.record(1, 100), 'delivered');
  expect(world.prepared(world.record(0, 100, 'rpl_1'), [second])).toBe('superseded');
  expect(world.prepared(world.record(0, 100, 'rpl_1'))).toBe('call');
});

test('records that stand side by side at the vendor are not superseded by another one of the same request', async () => {
  expect(await firstDies(new World(() => no('email')))).toEqual(['call', 'notApplied']);
});

test('of a delivery that came first by a replay nothing tells where it stood among those of its time: it is sent', async () => {
  const world = new World();
  await world.write(world.end(world.record(1, 100), 'delivered'));
  const task = world.record(0, 100, 'rpl_1');
  expect([world.prepared(task), world.end(task, 'dead-lettered').firstOffset]).toEqual(['call', -1]);
});

test('behind a dispatch topic that was made anew an accept time decides, and of equal ones the older offsets take nothing from what is put back', async () => {
  const world = new World(undefined, 50);
  expect(await firstDies(world, () => { world.topicMadeAnew(); })).toEqual(['call', 'notApplied']);
  await world.write(world.end(world.record(2, 101), 'delivered'));
  expect([world.prepared(world.record(0, 100, 'rpl_1')), world.standing(0, 100)]).toEqual(['superseded', 'superseded']);
});

const sent = ['call', 'notApplied'];
const held = ['superseded', 'superseded'];
const linked = (made: Made, id: string): Made => ({ ...made, linked: id });
const posted = (made: Made): Made => ({ ...made, by: 'post' });

test.each<[string, Made, Made, string[]]>([
  ['a no of another channel', no('email'), no('sms'), sent],
  ['a no of another topic', no('email', 'tips'), no('email', 'offers'), sent],
  ['a no of another purpose', no('email', null, 'news'), no('email', null, 'ads'), sent],
  ['a no of every channel', no('email'), no(null), sent],
  ['a no of the same channel', no('email', 'tips'), no('email', 'tips'), held],
  ['a no that came over another source', no('email'), { ...no('email'), source: 'centre' }, held],
  ['the same no under a linked identifier', linked(no('email'), 'email:k'), no('email'), sent],
  ['a no under the same linked identifier', linked(no('email'), 'email:k'), linked(no('email'), 'email:k'), held],
  ['another order', anOrder('a'), anOrder('b'), sent],
  ['the same order', anOrder('a'), anOrder('a'), held],
  ['an order of another shop under the same name', anOrder('a'), anOrder('a', 'other'), sent],
  ['another order of the same customer, who is its object', anOrder('ann', 'shop', '1'), anOrder('ann', 'shop', '2'), sent],
  ['another event of the same person, who is its object', anEvent('ann', 'm1'), anEvent('ann', 'm2'), sent],
  ['an event of the same object, where nothing else names it', anEvent('sub_1', null), anEvent('sub_1', null), held],
  ['the figures of another week', metric(1), metric(2), sent],
  ['the same figures', metric(1), metric(1), held],
  ['an order without a name', anOrder(null), anOrder(null), sent],
  ['an order with a name, of one without', anOrder(null), anOrder('a'), sent],
  ['an order without a name, of one with', anOrder('a'), anOrder(null), sent],
  ['a profile, of an order', anOrder('a'), aProfile, sent],
  ['an order, of a profile', aProfile, anOrder('a'), sent],
  ['a profile, by an operation that appends', posted(aProfile), posted(aProfile), held],
  ['what is appended', posted(anOrder('a')), posted(anOrder('a')), sent],
  ['what is appended, of a profile', posted(aProfile), posted(anOrder('a')), sent],
  ['an order, of one that cannot be read', { ...anOrder('a'), broken: true }, anOrder('a'), sent],
  ['an order whose end does not say what it set', anOrder('a'), { ...anOrder('b'), broken: true }, held],
])('redriven after it was delivered, a later record takes its place, or not: %s', async (_name, first, second, expected) => {
  const world = new World((n) => (n === 0 ? first : second));
  expect(await firstDies(world, undefined, 101)).toEqual(expected);
  world.restart();
  expect([world.prepared(world.record(0, 100, 'rpl_1')), world.standing(0, 100)]).toEqual(expected);
});

test.each<[string, Made, Made, string[]]>([
  ['a no of another channel', no('email'), no('sms'), held],
  ['another order', anOrder('a'), anOrder('b'), held],
  ['an order, of a profile', aProfile, anOrder('b'), held],
  ['a profile', aProfile, aProfile, held],
  ['an order, of one without a name', anOrder(null), anOrder('b'), sent],
  ['what is appended', posted(anOrder('a')), posted(anOrder('a')), sent],
])('an end of the version before counts as it did, whatever it set, but takes nothing from what replaces nothing: %s', async (_name, first, second, expected) => {
  expect(await firstDies(new World((n) => (n === 0 ? first : second)), undefined, 101, 'before')).toEqual(expected);
});

test('one of another object whose call of a moment ago is not acknowledged yet does not count, one of the same object does', async () => {
  const world = new World((n) => anOrder(n === 1 ? 'b' : 'a'));
  await world.write(world.end(world.record(0, 100), 'dead-lettered'));
  const [other, same] = [world.end(world.record(1, 101), 'delivered'), world.end(world.record(2, 101), 'delivered')];
  expect(world.prepared(world.record(0, 100, 'rpl_1'), [other])).toBe('call');
  expect(world.prepared(world.record(0, 100, 'rpl_1'), [other, same])).toBe('superseded');
});

test('an end says what it set by a keyed hash alone, and only one that was delivered says it', () => {
  const world = new World((n) => (n === 0 ? anOrder('ann@larkspur.example') : n === 1 ? anOrder(null) : aProfile));
  const order = world.end(world.record(0, 100), 'delivered');
  expect(order.object).toMatch(/^[\w-]{22}$/);
  expect(serde.encode('weir.internal.LedgerEnd', order).toString('latin1')).not.toContain('larkspur');
  expect([world.end(world.record(1, 100), 'delivered').object, world.end(world.record(2, 100), 'delivered').object]).toEqual([ofItsOwn, 'p']);
  expect(world.end(world.record(0, 100), 'dead-lettered').object).toBe('');
});

const all: readonly Made[] = [aProfile, no('email'), no('sms'), anOrder('a'), anOrder('b'), anOrder(null)];
const update = fc.record({ of: fc.oneof(fc.constant(0), fc.nat(all.length - 1)), acceptedAt: fc.integer({ min: 100, max: 101 }), state: fc.constantFrom<EndState>('delivered', 'dead-lettered', 'denied', 'quarantined'), version: fc.constantFrom<'this' | 'before'>('this', 'this', 'this', 'before') });
const step = fc.record({ of: fc.nat(), corrects: fc.boolean(), restart: fc.boolean(), state: fc.constantFrom<EndState>('delivered', 'delivered', 'dead-lettered') });

test('whatever order updates of a person are redriven in, none rolls a newer one of its object back, none is held back by an older one or by one of another object, and a preview says the same', async () => {
  await fc.assert(fc.asyncProperty(fc.array(update, { minLength: 1, maxLength: 6 }), fc.array(step, { maxLength: 12 }), fc.nat(9), async (updates, steps, from) => {
    const world = new World((n) => all[updates[n]!.of]!, from);
    /** Each with whether an end of it says what it set. */
    const delivered: { readonly n: number; readonly version: 'this' | 'before' }[] = [];
    const isDelivered = (n: number): boolean => delivered.some((other) => other.n === n);
    for (const [n, { acceptedAt, state, version }] of updates.entries()) {
      await world.write(world.end(world.record(n, acceptedAt), state, version));
      if (state === 'delivered') delivered.push({ n, version });
    }
    const isNewer = (a: number, b: number): boolean => updates[a]!.acceptedAt > updates[b]!.acceptedAt || (updates[a]!.of === 0 && updates[b]!.of === 0 && updates[a]!.acceptedAt === updates[b]!.acceptedAt && a > b && updates[a]!.version === 'this' && updates[b]!.version === 'this');
    const replaces = (other: typeof delivered[number], n: number): boolean => updates[n]!.of !== 5 && (other.version === 'before' || updates[other.n]!.of === updates[n]!.of);
    for (const [i, { of, corrects, restart, state }] of steps.entries()) {
      if (restart) world.restart();
      const n = of % updates.length;
      const { acceptedAt } = updates[n]!;
      const overtaken = delivered.some((other) => replaces(other, n) && isNewer(other.n, n));
      expect(world.standing(n, acceptedAt)).toBe(isDelivered(n) ? 'confirmed' : overtaken ? 'superseded' : 'notApplied');
      const task = world.record(n, acceptedAt, `rpl_${i}`, isDelivered(n) && corrects ? `fix_${i}` : '0');
      const done = world.prepared(task);
      expect(done).toBe(isDelivered(n) && !corrects ? 'delivered' : overtaken ? 'superseded' : 'call');
      if (done === 'delivered') continue;
      const ended = done === 'superseded' ? 'superseded' : state;
      await world.write(world.end(task, ended));
      if (ended === 'delivered') delivered.push({ n, version: 'this' });
    }
  }), { numRuns: 200 });
});
