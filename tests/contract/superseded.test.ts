import type { LogRecord } from '@weir/log';
import { deliveryKey, H, topicNames } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import { createLocalSerde } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createIndexer } from '../../services/control/indexer.ts';
import { standingOf, type StandingPorts } from '../../services/control/replay/standing.ts';
import { createStore } from '../../services/control/store.ts';
import { prepare } from '../../services/dispatcher/attempt.ts';
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
const natural = { put: { kind: 'use', accepts: [], doc: '', idempotency: { scheme: 'natural-upsert', pastWindow: 'resend', cite: '' } } };
const destination = { operations: natural, caps: [], adapter: { destination: {} } } as unknown as DestinationConfig;

/** The dispatcher's ledger with its rules, and control's index, fed with the same ends; every record is of one person, and the `n`th on the dispatch topic is that of update `n`. */
class World {
  readonly #disk = createDisk();
  readonly #recordType: string;
  #next: number;
  #ledgerOffset = 0;
  #ledger = this.#openLedger();
  #index = this.#openIndex();

  constructor(recordType = profile, firstOffset = 0) {
    this.#recordType = recordType;
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
    return { outputId: `out_${n}`, eventId: `evt_${n}`, destination: 'crm', operation: 'put', kind: 'use', recordType: this.#recordType, payload: Buffer.from([9]), itemHash: 'h', source: 'shop', acceptedAt, decidedAt: 5, release: 'rel_1', rule: 'all', purpose: 'service', channel: null, topic: null, legalBasis: null, consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent };
  }

  /** The next record of the topic. @param order of what was put back */
  record(n: number, acceptedAt: number, order = '', intent = '0'): Task {
    const record: LogRecord = { offset: this.#next, timestamp: 1000, key: Buffer.from('s'), value: null, headers: order === '' ? [] : [[H.intent, Buffer.from(order)]] };
    return taskOf(undefined, this.#delivery(n, acceptedAt, intent), record, { offset: this.#next++, parkedOffset: -1, queuedAt: 1000, maybeSince: 0 });
  }

  /** What the dispatcher does with it before a call. */
  prepared(task: Task, recent: readonly EndValue[] = []) {
    const ports = { name: 'crm', retention: { ledgerMs: () => Infinity, dispatchMs: () => Infinity, parkedMs: () => Infinity }, dedupeWindowMs: () => 0, clock: { now: () => 2000 }, consent: { atLeast: () => true, allows: () => ({ ok: true }) }, ledger: this.#ledger } as unknown as DestinationPorts;
    const runner = { openedAt: () => 0, coveredBefore: () => false, writer: { endOf: (key: string) => recent.find((end) => end.key === key) ?? this.#ledger.end(key), recentOf: () => recent } } as unknown as PartitionRunner;
    const found = prepare(ports, runner, destination, task);
    return found.kind === 'end' ? found.ending.state : found.kind;
  }

  /** Its end, as the dispatcher writes it. */
  end(task: Task, state: EndState, version: 'this' | 'before' = 'this'): EndValue {
    if (task.key === '') task.key = deliveryKey(task.delivery.outputId, 'crm', 'put', task.delivery.intent, 0);
    const ending: Ending = { task, state, effect: state === 'delivered' ? 'done' : 'none', code: null, detail: null, deadLetter: false };
    const end = endValue(ending, 1500, 'o');
    return version === 'this' ? end : { ...end, firstOffset: -1 };
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
    const ports: StandingPorts = { end: store.end, newest: store.newest, deliveryState: store.deliveryState, allows: () => true, mayRead: () => true, oldestSent: () => Infinity, destination: () => destination };
    return standingOf(ports, { ...this.#delivery(n, acceptedAt, '0'), subject: 's' }, true, 2000).standing;
  }
}

/** Two updates of one body: the first dies, the second is delivered; gives what becomes of the first when it is put back. */
async function firstDies(world: World, between: () => void = () => undefined): Promise<readonly [string, string]> {
  await world.write(world.end(world.record(0, 100), 'dead-lettered'));
  between();
  await world.write(world.end(world.record(1, 100), 'delivered'));
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
  expect(await firstDies(new World('weir.canonical.ConsentApplied'))).toEqual(['call', 'notApplied']);
});

test('of a delivery that came first by a replay nothing tells where it stood among those of its time: it is sent', async () => {
  const world = new World();
  await world.write(world.end(world.record(1, 100), 'delivered'));
  const task = world.record(0, 100, 'rpl_1');
  expect([world.prepared(task), world.end(task, 'dead-lettered').firstOffset]).toEqual(['call', -1]);
});

test('behind a dispatch topic that was made anew an accept time decides, and of equal ones the older offsets take nothing from what is put back', async () => {
  const world = new World(profile, 50);
  expect(await firstDies(world, () => { world.topicMadeAnew(); })).toEqual(['call', 'notApplied']);
  await world.write(world.end(world.record(2, 101), 'delivered'));
  expect([world.prepared(world.record(0, 100, 'rpl_1')), world.standing(0, 100)]).toEqual(['superseded', 'superseded']);
});

const update = fc.record({ acceptedAt: fc.integer({ min: 100, max: 101 }), state: fc.constantFrom<EndState>('delivered', 'dead-lettered', 'denied', 'quarantined'), version: fc.constantFrom<'this' | 'before'>('this', 'this', 'this', 'before') });
const step = fc.record({ of: fc.nat(), corrects: fc.boolean(), restart: fc.boolean(), state: fc.constantFrom<EndState>('delivered', 'delivered', 'dead-lettered') });

test('whatever order updates of a person are redriven in, none rolls a newer one back, none is held back by an older one, and a preview says the same', async () => {
  await fc.assert(fc.asyncProperty(fc.array(update, { minLength: 1, maxLength: 6 }), fc.array(step, { maxLength: 12 }), fc.nat(9), async (updates, steps, from) => {
    const world = new World(profile, from);
    const delivered = new Set<number>();
    for (const [n, { acceptedAt, state, version }] of updates.entries()) {
      await world.write(world.end(world.record(n, acceptedAt), state, version));
      if (state === 'delivered') delivered.add(n);
    }
    const isNewer = (a: number, b: number): boolean => updates[a]!.acceptedAt > updates[b]!.acceptedAt || (updates[a]!.acceptedAt === updates[b]!.acceptedAt && a > b && updates[a]!.version === 'this' && updates[b]!.version === 'this');
    for (const [i, { of, corrects, restart, state }] of steps.entries()) {
      if (restart) world.restart();
      const n = of % updates.length;
      const { acceptedAt } = updates[n]!;
      const overtaken = [...delivered].some((other) => isNewer(other, n));
      expect(world.standing(n, acceptedAt)).toBe(delivered.has(n) ? 'confirmed' : overtaken ? 'superseded' : 'notApplied');
      const task = world.record(n, acceptedAt, `rpl_${i}`, delivered.has(n) && corrects ? `fix_${i}` : '0');
      const done = world.prepared(task);
      expect(done).toBe(delivered.has(n) && !corrects ? 'delivered' : overtaken ? 'superseded' : 'call');
      if (done === 'delivered') continue;
      const ended = done === 'superseded' ? 'superseded' : state;
      await world.write(world.end(task, ended));
      if (ended === 'delivered') delivered.add(n);
    }
  }), { numRuns: 100 });
});
