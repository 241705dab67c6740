import { WeirError } from '@weir/errors';
import type { Appender, LogAdmin, OutRecord, Reader, Serde } from '@weir/log';
import { deliveryKey, groupNames, H, topicNames } from '@weir/pipeline';
import type { DestinationConfig, Release } from '@weir/release';
import fc from 'fast-check';
import { createLogger } from '@weir/telemetry';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import type { EndFacts } from '../store.ts';
import { createReplayMetrics } from './metrics.ts';
import { parseRequest, type ReplayOrder, type ReplayRequest } from './order.ts';
import { createOrders, type Orders } from './orders.ts';
import { createPutBack } from './put-back.ts';
import type { Corrector } from './correct.ts';
import { createRunner, type Runner, type RunnerPorts } from './runner.ts';
import type { Item } from './select.ts';
import type { StandingPorts } from './standing.ts';

/** A log in memory whose appends and saves can be cut: what came after the cut is not written, the process is gone. */
class World {
  readonly topics = topicNames('t');
  readonly log = new Map<string, { offset: number; timestamp: number; key: Buffer | null; value: Buffer | null; headers: readonly (readonly [string, Buffer])[] }[]>();
  readonly ends = new Map<string, EndFacts>();
  readonly schemas = ['weir.internal.ReplayOrder', 'weir.internal.ReplayProgress', 'weir.internal.DeadLetter', 'weir.internal.Delivery'];
  appendsUntilCut = Number.POSITIVE_INFINITY;
  cut = Promise.withResolvers<void>();
  /** Destinations whose dispatcher takes nothing. */
  readonly paused = new Set<string>();
  now = 1_800_000_000_000;
  /** Of every operation. */
  kind: 'use' | 'restrict' = 'restrict';
  /** Sources and destinations that have left the release since. */
  readonly left = new Set<string>();
  /** The registry, to which every value is new then. */
  away = false;
  /** Appends from now on after which brokers are away: half of the records is written, and nobody learns of it. */
  readonly lost = new Set<number>();
  appends = 0;
  /** That runs. */
  release = 'rel_x';
  /** Of control is whole; one that is being built anew has nothing of any topic yet. */
  indexed = true;
  /** Grows with every look: the cursor is saved after every few chunks. */
  tick = 0;

  list(topic: string, partition: number) {
    const name = `${topic}/${partition}`;
    if (!this.log.has(name)) this.log.set(name, []);
    return this.log.get(name)!;
  }
  put(topic: string, record: OutRecord): number {
    const list = this.list(topic, record.partition);
    list.push({ offset: list.length, timestamp: this.now + list.length, key: record.key, value: record.value, headers: record.headers ?? [] });
    return list.length - 1;
  }
  /** Values are JSON under a magic byte and their type; Buffers are kept apart. */
  readonly serde: Serde = {
    start: async () => undefined, idOf: () => 1, check: () => 'weir.internal.Delivery', known: () => true, prepare: async () => undefined, encodeTo: () => undefined,
    encode: (name, value) => Buffer.concat([Buffer.from([0, 0, 0, 0, this.schemas.indexOf(name)]), Buffer.from(JSON.stringify(value))]),
    decode: (bytes) => ({ name: this.schemas[bytes[4]!]!, value: JSON.parse(bytes.toString('utf8', 5), (_k, v) => (v !== null && typeof v === 'object' && v.type === 'Buffer' ? Buffer.from(v.data) : v)) }),
  };
  appender(): Appender {
    let alive = true;
    return {
      partitions: async () => 2, partitionFor: () => 0, pendingBytes: () => 0, close: async () => undefined,
      append: async (topic, records) => {
        await new Promise((done) => setImmediate(done));
        if (!alive) return new Promise(() => undefined);
        if (this.lost.delete(this.appends++)) {
          for (const record of records.slice(0, Math.ceil(records.length / 2))) this.put(topic, record);
          // What the real appender rejects with past its deadline, the log's own calls past theirs, and a registry that is away.
          throw new WeirError((['log-append-failed', 'log-deadline', 'log-unavailable'] as const)[this.appends % 3]!, 'the broker does not answer');
        }
        const offsets: number[] = [];
        for (const record of records) {
          // A kill in the middle of an append: some of it is written, nobody learns of it.
          if (--this.appendsUntilCut < 0) {
            alive = false;
            this.cut.resolve();
            return new Promise(() => undefined);
          }
          offsets.push(this.put(topic, record));
        }
        return offsets;
      },
    };
  }
  /** Topics whose records retention has deleted, before any stage committed anything of them. */
  readonly emptied = new Set<string>();
  /** Below these offsets retention has deleted, by `<topic>/<partition>`. */
  readonly deleted = new Map<string, number>();
  begin = (topic: string, partition: number): number => (this.emptied.has(topic) ? this.list(topic, partition).length : this.deleted.get(`${topic}/${partition}`) ?? 0);
  readonly reader = {
    readOne: async (topic: string, partition: number, offset: number) => this.list(topic, partition)[offset],
    read: async (topic: string, partition: number, from: number, to: number, onBatch: (b: any) => unknown) => {
      const list = this.list(topic, partition).slice(Math.max(from, this.begin(topic, partition)), to);
      for (let at = 0; at < list.length; at += 7) {
        await new Promise((done) => setImmediate(done));
        const records = list.slice(at, at + 7);
        await onBatch({ topic, partition, epoch: 0, records, nextOffset: records.at(-1)!.offset + 1, highWatermark: to });
      }
    },
  } as unknown as Reader;
  readonly admin = {
    describeTopics: async (names: readonly string[]) => names.map((name) => ({ name, partitions: 2, replicationFactor: 1, config: { 'retention.ms': '1000' }, exists: true })),
    endOffsets: async (topic: string) => new Map([0, 1].map((p) => [p, this.list(topic, p).length])),
    beginningOffsets: async (topic: string) => new Map([0, 1].map((p) => [p, this.begin(topic, p)])), 
    offsetsAt: async (topic: string, time: number) => new Map([0, 1].map((p) => [p, this.list(topic, p).findIndex((r, offset) => offset >= this.begin(topic, p) && r.timestamp >= time)] as const).filter(([, offset]) => offset >= 0)),
   
    committed: async (_group: string, topic: string) => new Map(this.emptied.has(topic) ? [] : [0, 1].map((p) => [p, [...this.paused].some((name) => topic === this.topics.dispatch(name)) ? 0 : this.list(topic, p).length])),
  } as unknown as LogAdmin;

  /** The dead letter of a delivery with this end, once more. */
  letter(n: number, end: Partial<EndFacts>, copy = 0, destination = 'till', intent = '0', release = 'rel_x'): void {
    const hex = n.toString(16).padStart(8, '0').padEnd(32, 'a');
    const delivery = { outputId: `out_${hex}`, eventId: `evt_${hex}`, destination, operation: 'put', recordType: 'weir.canonical.Event', itemHash: 'h', acceptedAt: this.now, release, purpose: this.kind === 'use' ? 'service' : null, channel: null, topic: null, legalBasis: null, ids: [], intent, source: 'shop', payload: Buffer.alloc(1) };
    this.ends.set(`${destination}/${deliveryKey(delivery.outputId, destination, 'put', intent, 0)}`, { state: 'dead-lettered', effect: 'none', itemHash: 'h', at: this.now, offset: n, maybeSince: 0, ...end });
    this.put(this.topics.dlq, { partition: (n + copy) % 2, key: null, value: this.serde.encode('weir.internal.DeadLetter', { id: `dlq_${hex}`, eventId: delivery.eventId, stage: 'dispatcher', reasons: [{ code: 'delivery-rejected' }], source: 'shop', destination, release: null, topic: this.topics.dispatch(destination), partition: n % 2, offset: n, key: Buffer.from(`s${n}`), value: this.serde.encode('weir.internal.Delivery', delivery), headers: [] }), headers: [] });
  }

  async process(name: string, over: Partial<Pick<RunnerPorts, 'verifier' | 'corrector' | 'audit'>> = {}): Promise<{ runner: Runner; orders: Orders }> {
    const { topics, serde, reader, admin } = this;
    const appender = this.appender();
    const clock = { now: () => this.now++, monotonic: () => (this.tick += 300), random: () => 0.5, setTimer: (f: () => void, ms: number) => setTimeout(f, Math.min(ms, 1)), clearTimer: () => undefined };
    const operation = { kind: this.kind, accepts: [], doc: '', idempotency: { scheme: 'header', windowMs: 86_400_000, pastWindow: 'hold', cite: '' } };
    const policy = { purposes: new Map(), rules: [], routes: new Map([['Event', ['till', 'crm'].map((destination) => ({ destination, on: 'Event', operation: 'put', kind: this.kind, purpose: 'service', when: undefined }))]]) };
    const release = { hash: 'rel_x', policy, sources: new Map([['shop', {}]]), destinations: new Map(['till', 'crm'].map((name) => [name, { name, operations: { put: operation }, adapter: {} } as unknown as DestinationConfig])) } as unknown as Release;
    let current = release;
    const running = (): Release => (current.hash === this.release ? current : (current = { ...release, hash: this.release }));
    const standing: StandingPorts = { end: (d, key) => (this.indexed ? this.ends.get(`${d}/${key}`) : undefined), newest: () => undefined, objectOf: () => '', deliveryState: () => undefined, allows: () => true, destination: (d) => release.destinations.get(d), mayRead: () => true, oldestSent: () => Number.POSITIVE_INFINITY };
    const orders = createOrders({ appender, serde, topic: topics.control, runner: name });
    await reader.read(topics.control, 0, 0, this.list(topics.control, 0).length, (batch) => orders.take(batch));
    const runner = createRunner({
      putBack: { appender, reader, admin, topics, groups: groupNames('t'), clock }, admin, orders, runner: name, logger: createLogger({ service: 'test', level: 'silent' }), metrics: createReplayMetrics(new Registry()),
      select: { serde: { ...serde, known: () => !this.away, prepare: async () => { if (this.away) throw new WeirError('log-unavailable', 'the registry does not answer'); } }, topics, release: running, workspaceKey: Buffer.alloc(32), tables: { linked: (ids) => ids, check: () => ({ ok: true, seen: [] }), regions: () => undefined }, keys: undefined, standing, canonicalOf: async () => [], decidedLater: () => false, endedAs: () => undefined, open: (b) => b, hasKey: () => true, keysToEnd: async () => undefined, now: () => this.now },
      verifier: { ask: async (_o, list) => list.map(() => 'unknown' as const), answers: () => [], forget: () => undefined }, corrector: { open: () => { throw new Error('not asked for'); }, samples: () => [], has: () => false, forget: () => undefined },
      settle: { admin, reader, store: { position: (topic, p) => (this.indexed ? this.list(topic, p).length : 0), counters: () => ({}) }, topics, groups: groupNames('t'), release: () => ({ ...release, sources: new Map([...release.sources].filter(([name]) => !this.left.has(name))), destinations: new Map([...release.destinations].filter(([name]) => !this.left.has(name))) }), clock },
      audit: async () => 'leaf_end', fail: (error) => { throw error; }, ...over,
    });
    runner.resume();
    return { runner, orders };
  }
  order = (request: ReplayRequest) => parseRequest(request, { sources: new Map([['shop', {} as never]]), destinations: new Map([['till', {} as never], ['crm', {} as never]]) }, Buffer.alloc(32), this.now);
  /** Origins of what the order put back, in the order of the topic. */
  back = (destination = 'till'): string[] => [0, 1].flatMap((p) => this.list(this.topics.dispatch(destination), p).map((r) => r.headers.find(([n]) => n === H.origin)![1].toString()));
}
const by = (n: number) => ({ actor: 'admin', leaf: `leaf_00000000-0000-4000-8000-${String(n).padStart(12, '0')}` });
async function until(orders: Orders, id: string, ...wanted: string[]): Promise<string> {
  for (let i = 0; i < 20_000; i++) {
    const { state } = orders.get(id).progress;
    if (wanted.includes(state)) return state;
    await new Promise((done) => setImmediate(done));
  }
  throw new Error(`the order stays ${orders.get(id).progress.state}`);
}

const letters = fc.array(fc.record({ end: fc.constantFrom<Partial<EndFacts>>({}, { effect: 'maybe', state: 'dead-lettered' }, { state: 'delivered', effect: 'done' }), copies: fc.integer({ min: 1, max: 3 }) }), { minLength: 1, maxLength: 40 });

test.each([[false, 'till'], [true, 'till'], [false, undefined]])('an order of a destination that leaves the release while it is delivered (restarted: %s, of %s) ends, and says what it did not wait for', async (restarted, destination) => {
  const world = new World();
  for (let n = 0; n < 20; n++) world.letter(n, {}, 0, n % 2 === 0 ? 'till' : 'crm');
  world.paused.add('till');
  let { runner, orders } = await world.process('a');
  const { id } = (await runner.add(world.order({ from: 'dlq', start: true, ...(destination === undefined ? { all: true } : { destination }) }), by(1))).entry.order;
  await until(orders, id, 'delivering');
  for (let i = 0; i < 200; i++) await new Promise((done) => setImmediate(done));
  expect(orders.get(id).progress.state).toBe('delivering');
  if (restarted) await runner.close();
  world.left.add('till');
  if (restarted) ({ runner, orders } = await world.process('b'));
  await until(orders, id, 'finished');
  expect(JSON.parse(orders.get(id).progress.report)).toMatchObject({ left: ['till'], requeued: destination === undefined ? 20 : 10 });
  await runner.close();
});

test('a source that leaves the release holds no order up', async () => {
  const world = new World();
  for (let n = 0; n < 4; n++) world.letter(n, {});
  const { admin } = world as unknown as { admin: { committed: LogAdmin['committed'] } };
  const { committed } = admin;
  admin.committed = async (group, topic) => (topic === world.topics.raw('shop') ? new Map() : committed(group, topic));
  world.put(world.topics.raw('shop'), { partition: 0, key: null, value: Buffer.alloc(1), headers: [] });
  const { runner, orders } = await world.process('a');
  const { id } = (await runner.add(world.order({ from: 'dlq', source: 'shop', start: true }), by(1))).entry.order;
  await until(orders, id, 'delivering');
  world.left.add('shop');
  await until(orders, id, 'finished');
  expect(JSON.parse(orders.get(id).progress.report)).toMatchObject({ left: ['shop'] });
  await runner.close();
});

test('a range of which retention took a part says since when it is there; what is deleted between preview and run is counted', async () => {
  const world = new World();
  for (let n = 0; n < 40; n++) world.letter(n, {});
  world.deleted.set(`${world.topics.dlq}/0`, 6);
  const { runner, orders } = await world.process('a');
  const { entry } = await runner.add(world.order({ from: 'dlq', all: true }), by(1));
  await until(orders, entry.order.id, 'previewed');
  expect(JSON.parse(entry.progress.preview)).toMatchObject({ records: 34, goneBefore: world.list(world.topics.dlq, 0)[6]!.timestamp });
  world.deleted.set(`${world.topics.dlq}/0`, 9);
  await runner.start(entry.order.id, by(2));
  await until(orders, entry.order.id, 'finished');
  expect(entry.progress.counts).toMatchObject({ read: 31, requeued: 31, lost: 3 });
  // What was deleted lies before the range.
  world.now += 1000;
  const later = await runner.add(world.order({ from: 'dlq', since: world.list(world.topics.dlq, 0)[12]!.timestamp }), by(3));
  await until(orders, later.entry.order.id, 'previewed', 'empty');
  expect(JSON.parse(later.entry.progress.preview)).toMatchObject({ goneBefore: null });
  await runner.close();
});

test('what retention took whole is named: of one partition in the preview, of all in the refusal', async () => {
  const world = new World();
  for (let n = 0; n < 20; n++) world.letter(n, {});
  const { runner, orders } = await world.process('a');
  world.deleted.set(`${world.topics.dlq}/0`, world.list(world.topics.dlq, 0).length);
  world.now += 5000;
  const { entry } = await runner.add(world.order({ from: 'dlq', all: true }), by(1));
  await until(orders, entry.order.id, 'previewed');
  // Older than the retention, of a second: nothing else is known of it.
  const { records, goneBefore } = JSON.parse(entry.progress.preview) as { records: number; goneBefore: number };
  expect([records, Math.abs(goneBefore - (world.now - 1000)) < 100]).toEqual([10, true]);
  world.emptied.add(world.topics.dlq);
  await expect(runner.add(world.order({ from: 'dlq', all: true }), by(2))).rejects.toThrow(/what was put there before 2027-01-15T08:00:04\.\d+Z is gone \(retention\)$/);
  await expect(runner.add(world.order({ from: 'dlq', since: world.now - 500 }), by(3))).rejects.toThrow(/no record in this range$/);
  await runner.close();
});

test('a delivery and each correction of it are each put back, a copy of either is not', async () => {
  const world = new World();
  for (const intent of ['0', `fix_${'1'.repeat(32)}`, `fix_${'2'.repeat(32)}`]) for (const copy of [0, 1]) world.letter(1, {}, copy, 'till', intent);
  const { runner, orders } = await world.process('a');
  const { entry } = await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1));
  await until(orders, entry.order.id, 'finished');
  expect([world.back().length, entry.progress.counts['requeued'], (JSON.parse(entry.progress.preview) as { repeated: number }).repeated]).toEqual([3, 3, 3]);
  await runner.close();
});

test('a delivery that another release decided, and that nobody can decide again, is denied and told apart; what restricts use goes', async () => {
  for (const kind of ['use', 'restrict'] as const) {
    const world = new World();
    world.kind = kind;
    for (let n = 0; n < 6; n++) world.letter(n, {}, 0, 'till', '0', n < 4 ? 'rel_old' : 'rel_x');
    const { runner, orders } = await world.process('a');
    const { entry } = await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1));
    await until(orders, entry.order.id, 'finished');
    const denied = kind === 'use' ? 4 : 0;
    expect(JSON.parse(entry.progress.preview)).toMatchObject({ records: 6, back: 6 - denied, undecided: denied, otherwise: 0, deliveries: { denied, notApplied: 6 - denied } });
    expect([world.back().length, entry.progress.counts['denied'] ?? 0]).toEqual([6 - denied, denied]);
    await runner.close();
  }
});

test('killed anywhere, however often, every record that is to go back is put back exactly once, and nothing that was delivered', async () => {
  await fc.assert(fc.asyncProperty(letters, fc.array(fc.integer({ min: 0, max: 60 }), { maxLength: 4 }), async (list, kills) => {
    const world = new World();
    // Copies come after all others, so that the cursor can stand between them.
    for (let copy = 0; copy < 3; copy++) for (const [n, { end, copies }] of list.entries()) if (copy < copies) world.letter(n, end, copy);
    let { runner, orders } = await world.process('p0');
    const { entry } = await runner.add(world.order({ from: 'dlq', all: true, ahead: 0, start: true }), by(1));
    const { id } = entry.order;
    await until(orders, id, 'running', 'delivering', 'finished', 'previewed');
    for (const [i, appends] of kills.entries()) {
      world.appendsUntilCut = appends;
      await Promise.race([world.cut.promise, until(orders, id, 'finished')]);
      world.appendsUntilCut = Number.POSITIVE_INFINITY;
      world.cut = Promise.withResolvers();
      ({ runner, orders } = await world.process(`p${i + 1}`));
    }
    await until(orders, id, 'finished');
    const open = list.flatMap(({ end }, n) => (end.state === 'delivered' ? [] : [n]));
    const back = world.back();
    expect(new Set(back).size).toBe(back.length);
    expect(back).toHaveLength(open.length);
    const { counts } = orders.get(id).progress;
    expect([counts['selected'] ?? 0, counts['requeued'] ?? 0, counts['confirmed'] ?? 0]).toEqual([list.length, open.length, list.length - open.length]);
  }), { numRuns: 60 });
}, 60_000);

test('brokers that go away in the middle of any append end no order: every record that is to go back is put back exactly once', async () => {
  await fc.assert(fc.asyncProperty(letters, fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 4 }), async (list, lost) => {
    const world = new World();
    for (let copy = 0; copy < 3; copy++) for (const [n, { end, copies }] of list.entries()) if (copy < copies) world.letter(n, end, copy);
    const { runner, orders } = await world.process('a');
    for (const n of lost) world.lost.add(n);
    const { id } = (await runner.add(world.order({ from: 'dlq', all: true, ahead: 0, start: true }), by(1))).entry.order;
    await until(orders, id, 'finished');
    const open = list.flatMap(({ end }, n) => (end.state === 'delivered' ? [] : [n]));
    const back = world.back();
    expect([new Set(back).size, back.length]).toEqual([open.length, open.length]);
    const { counts } = orders.get(id).progress;
    expect([counts['selected'] ?? 0, counts['requeued'] ?? 0, counts['confirmed'] ?? 0]).toEqual([list.length, open.length, list.length - open.length]);
    // What it says on the topic is, in the end, what it came to.
    for (let i = 0; i < 20; i++) await new Promise((done) => setTimeout(done, 1));
    await runner.close();
    const kept = (await world.process('b')).orders.get(id).progress;
    expect([kept.state, kept.counts]).toEqual(['finished', counts]);
  }), { numRuns: 60 });
}, 60_000);

test('an order waits, visibly, for a registry that is away, in preview and in run, and is paused meanwhile', async () => {
  const world = new World();
  for (let n = 0; n < 20; n++) world.letter(n, {});
  const { runner, orders } = await world.process('a');
  const looks = async (): Promise<void> => { for (let i = 0; i < 30; i++) await new Promise((done) => setTimeout(done, 1)); };
  world.away = true;
  const { id } = (await runner.add(world.order({ from: 'dlq', all: true }), by(1))).entry.order;
  await looks();
  expect([orders.get(id).progress.state, runner.waitingFor(id)]).toEqual(['previewing', 'log-unavailable: the registry does not answer']);
  world.away = false;
  await until(orders, id, 'previewed');
  expect(runner.waitingFor(id)).toBeUndefined();
  world.away = true;
  await runner.start(id, by(2));
  await looks();
  expect([orders.get(id).progress.state, runner.waitingFor(id), world.back()]).toEqual(['running', 'log-unavailable: the registry does not answer', []]);
  await runner.pause(id, by(3));
  await looks();
  expect([orders.get(id).progress.state, runner.waitingFor(id)]).toEqual(['paused', undefined]);
  await runner.start(id, by(4));
  await looks();
  world.away = false;
  await until(orders, id, 'finished');
  expect(world.back()).toHaveLength(20);
  await runner.close();
});

test('a copy behind the cursor of what was put back before it is known for one after a kill, wherever that was', async () => {
  for (let cut = 38; cut <= 46; cut++) {
    const world = new World();
    for (const copy of [0, 1]) for (let n = 0; n < 40; n++) world.letter(n, {}, copy);
    const first = await world.process('a');
    const { id } = (await first.runner.add(world.order({ from: 'dlq', all: true, ahead: 0 }), by(1))).entry.order;
    await until(first.orders, id, 'previewed');
    world.appendsUntilCut = cut;
    await first.runner.start(id, by(2));
    await Promise.race([world.cut.promise, until(first.orders, id, 'finished')]);
    world.appendsUntilCut = Number.POSITIVE_INFINITY;
    const second = await world.process('b');
    await until(second.orders, id, 'finished');
    expect(second.orders.get(id).progress.counts).toMatchObject({ selected: 40, requeued: 40 });
    expect(world.back()).toHaveLength(40);
  }
});

test('previews and runs wait for an index that is being built anew, visibly, and are paused and cancelled meanwhile', async () => {
  const world = new World();
  for (let n = 0; n < 20; n++) world.letter(n, {});
  const first = await world.process('a');
  const { id } = (await first.runner.add(world.order({ from: 'dlq', all: true, rate: 100 }), by(1))).entry.order;
  await until(first.orders, id, 'previewed');
  await first.runner.start(id, by(2));
  for (let i = 0; i < 20_000 && world.back().length === 0; i++) await new Promise((done) => setImmediate(done));
  await first.runner.close();
  const before = world.back().length;
  expect([before > 0, before < 20]).toEqual([true, true]);
  // The machine fell, and with it the index.
  world.indexed = false;
  const { runner, orders } = await world.process('b');
  const looks = async (): Promise<void> => { for (let i = 0; i < 50; i++) await new Promise((done) => setTimeout(done, 1)); };
  await looks();
  expect([orders.get(id).progress.state, runner.waitingFor(id), world.back().length]).toEqual(['running', 'the index of control', before]);
  const late = (await runner.add(world.order({ from: 'dlq', all: true }), by(3))).entry.order.id;
  await looks();
  expect([orders.get(late).progress.state, runner.waitingFor(late)]).toEqual(['previewing', 'the index of control']);
  await runner.cancel(late, by(4));
  await runner.pause(id, by(5));
  await looks();
  expect([orders.get(late).progress.state, orders.get(id).progress.state, runner.waitingFor(id), runner.waitingFor(late)]).toEqual(['cancelled', 'paused', undefined, undefined]);
  await runner.start(id, by(6));
  await looks();
  world.indexed = true;
  await until(orders, id, 'finished');
  expect(orders.get(id).progress.counts).toEqual({ read: 20, selected: 20, requeued: 20 });
  expect(new Set(world.back()).size).toBe(20);
  await runner.close();
});

test('records of two megabytes are put back a few at a time, each once and in order', async () => {
  const sizes: number[] = [];
  const appender = { partitions: async () => 1, append: async (_topic: string, records: readonly OutRecord[]) => { sizes.push(records.length); return records.map((_, i) => i); } } as unknown as Appender;
  const order = { id: 'rpl_1', destination: null, rate: 0, ahead: 0 } as ReplayOrder;
  const item = (offset: number, bytes: number) => ({ origin: { topic: 't', partition: 0, offset, key: null, value: Buffer.alloc(bytes), headers: [] }, from: String(offset), eventId: 'e', kind: 'derived', deliveries: [], note: undefined }) as Item;
  const putBack = createPutBack({ appender, topics: topicNames('t') } as never, order);
  expect(await putBack.put([...Array.from({ length: 5 }, (_, i) => item(i, 2_000_000)), ...Array.from({ length: 100 }, (_, i) => item(5 + i, 1000)), item(105, 5_000_000)], () => true)).toBe(true);
  expect(sizes).toEqual([2, 2, 101, 1]);
});

test('an order about nothing ends empty; one that was paused goes on where it stood; what has ended cannot be started', async () => {
  const world = new World();
  await expect((await world.process('a')).runner.add(world.order({ from: 'dlq', all: true }), by(1))).rejects.toThrow(/hold no record/);
  for (let n = 0; n < 30; n++) world.letter(n, {});
  const { runner, orders } = await world.process('b');
  const none = await runner.add(world.order({ from: 'dlq', code: 'delivery-held' }), by(2));
  await until(orders, none.entry.order.id, 'empty');
  await expect(runner.start(none.entry.order.id, by(3))).rejects.toThrow(/is empty/);
  const { entry: { order: { id } } } = await runner.add(world.order({ from: 'dlq', all: true, rate: 1000 }), by(4));
  await until(orders, id, 'previewed');
  await expect(runner.pause(id, by(5))).rejects.toThrow(/is previewed/);
  await runner.start(id, by(6));
  await runner.pause(id, by(7));
  await until(orders, id, 'paused');
  await runner.start(id, by(8));
  await until(orders, id, 'finished');
  expect(world.back()).toHaveLength(30);
});

test('an order that is cancelled while its preview is made stays cancelled, also when its own record comes back from the topic meanwhile', async () => {
  const world = new World();
  for (let n = 0; n < 200; n++) world.letter(n, {});
  const { runner, orders } = await world.process('a');
  const { entry: { order: { id } } } = await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1));
  await world.reader.read(world.topics.control, 0, 0, world.list(world.topics.control, 0).length, (batch) => orders.take(batch));
  expect(orders.get(id).progress.state).toBe('previewing');
  await runner.cancel(id, by(2));
  // Previews come one after the other: with the next one the first is over.
  const next = await runner.add(world.order({ from: 'dlq', code: 'delivery-held' }), by(3));
  await until(orders, next.entry.order.id, 'empty');
  expect([orders.get(id).progress.state, world.back()]).toEqual(['cancelled', []]);
});

test('an order that is cancelled while the audit log takes its end stays cancelled', async () => {
  const world = new World();
  world.letter(0, {});
  const ended = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  const { runner, orders } = await world.process('a', { audit: async ({ action }) => {
    if (action !== 'replay.finished') return 'leaf';
    asked.resolve();
    await ended.promise;
    return 'leaf_end';
  } });
  const { entry: { order: { id } } } = await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1));
  await asked.promise;
  await runner.cancel(id, by(2));
  ended.resolve();
  await runner.close();
  expect([orders.get(id).progress.state, orders.get(id).progress.leaf]).toEqual(['cancelled', by(2).leaf]);
});

test('of two operators who start an order at once one is told that it runs, and one who cancels it meanwhile is not overruled', async () => {
  const world = new World();
  for (let n = 0; n < 20; n++) world.letter(n, {});
  const { runner, orders } = await world.process('a');
  const add = async (n: number): Promise<string> => {
    const { entry: { order: { id } } } = await runner.add(world.order({ from: 'dlq', all: true }), by(n));
    await until(orders, id, 'previewed');
    return id;
  };
  const cancelled = await add(1);
  const started = await Promise.allSettled([runner.start(cancelled, by(2)), runner.cancel(cancelled, by(3))]);
  expect(started.map((s) => s.status)).toEqual(['rejected', 'fulfilled']);
  expect(orders.get(cancelled).progress.state).toBe('cancelled');
  const both = await add(4);
  const results = await Promise.allSettled([runner.start(both, by(5)), runner.start(both, by(6))]);
  expect(results.map((s) => s.status).sort()).toEqual(['fulfilled', 'rejected']);
  await until(orders, both, 'finished');
  expect(world.back()).toHaveLength(20);
});

test('an order waits for what it put back, not for a paused destination that it gave nothing', async () => {
  const world = new World();
  world.paused.add('crm');
  for (let n = 0; n < 30; n++) world.put(world.topics.dispatch('crm'), { partition: n % 2, key: null, value: null, headers: [[H.intent, Buffer.from('rpl_another')]] });
  for (let n = 0; n < 5; n++) world.letter(n, {});
  const { runner, orders } = await world.process('a');
  const { entry } = await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1));
  await until(orders, entry.order.id, 'finished');
  await runner.close();
});

test('an order does not wait for records that retention has deleted, of a partition that no stage has committed yet', async () => {
  const world = new World();
  for (let n = 0; n < 4; n++) world.put(world.topics.raw('shop'), { partition: n % 2, key: null, value: null, headers: [] });
  world.emptied.add(world.topics.raw('shop'));
  world.letter(1, {});
  const { runner, orders } = await world.process('a');
  const { entry } = await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1));
  await until(orders, entry.order.id, 'finished');
  await runner.close();
});

test('an order whose destination is paused stays open until that has taken it, and none of the later ones waits for it', async () => {
  const world = new World();
  world.paused.add('crm');
  for (let n = 0; n < 10; n++) world.letter(n, {}, 0, n % 2 === 0 ? 'crm' : 'till');
  let { runner, orders } = await world.process('a');
  const first = (await runner.add(world.order({ from: 'dlq', all: true, start: true }), by(1))).entry.order.id;
  await until(orders, first, 'delivering');
  const second = (await runner.add(world.order({ from: 'dlq', destination: 'till', start: true }), by(2))).entry.order.id;
  await until(orders, second, 'finished');
  expect(orders.get(first).progress.state).toBe('delivering');
  await runner.close();
  ({ runner, orders } = await world.process('b'));
  const third = (await runner.add(world.order({ from: 'dlq', destination: 'till', start: true }), by(3))).entry.order.id;
  await until(orders, third, 'finished');
  expect(orders.get(first).progress.state).toBe('delivering');
  world.paused.clear();
  await until(orders, first, 'finished');
  await runner.close();
});

test('an order with no room before a paused destination lets the others go first, says what it waits for, and goes on when there is room, also after a restart', async () => {
  const world = new World();
  world.paused.add('crm');
  for (let n = 0; n < 40; n++) world.letter(n, {}, 0, n % 2 === 0 ? 'crm' : 'till');
  let { runner, orders } = await world.process('a');
  const add = async (destination: string, n: number): Promise<string> => {
    const { id } = (await runner.add(world.order({ from: 'dlq', destination, ahead: 4, start: true }), by(n))).entry.order;
    return id;
  };
  const told = async (id: string, what: string): Promise<void> => {
    for (let i = 0; i < 20_000 && runner.waitingFor(id) !== what; i++) await new Promise((done) => setImmediate(done));
    expect([orders.get(id).progress.state, runner.waitingFor(id)]).toEqual(['running', what]);
  };
  const first = await add('crm', 1);
  await told(first, world.topics.dispatch('crm'));
  // Nobody waits behind it, so it stays.
  const second = await add('crm', 2);
  await told(second, world.topics.dispatch('crm'));
  const till = await add('till', 3);
  await until(orders, till, 'finished');
  for (const id of [first, second]) await told(id, world.topics.dispatch('crm'));
  await runner.close();
  ({ runner, orders } = await world.process('b'));
  const next = await add('till', 4);
  await until(orders, next, 'finished');
  await runner.pause(second, by(5));
  await runner.start(second, by(6));
  world.paused.clear();
  for (const id of [first, second]) {
    await until(orders, id, 'finished');
    expect(orders.get(id).progress.counts).toEqual({ read: 40, selected: 20, requeued: 20 });
  }
  // Each of the two put each record back once; the dispatcher sends it once.
  const back = world.back('crm');
  expect([back.length, new Set(back).size]).toEqual([40, 20]);
  await runner.close();
});

test('an order behind another one says which', async () => {
  const world = new World();
  for (let n = 0; n < 30; n++) world.letter(n, {});
  const { runner, orders } = await world.process('a');
  const ids = await Promise.all([1, 2].map(async (n) => (await runner.add(world.order({ from: 'dlq', all: true, rate: 100 }), by(n))).entry.order.id));
  for (const id of ids) await until(orders, id, 'previewed');
  for (const [i, id] of ids.entries()) await runner.start(id, by(3 + i));
  expect(ids.map((id) => runner.waitingFor(id)).at(1)).toBe(`order ${ids[0]}`);
  for (const id of ids) await until(orders, id, 'finished');
  expect(ids.map((id) => runner.waitingFor(id))).toEqual([undefined, undefined]);
  await runner.close();
});

test('a second order over the same range is told of the first, and a process that lost an order to another one stands down', async () => {
  const world = new World();
  for (let n = 0; n < 20; n++) world.letter(n, {});
  const first = await world.process('a');
  const { entry: { order: { id } } } = await first.runner.add(world.order({ from: 'dlq', all: true }), by(1));
  await until(first.orders, id, 'previewed');
  const { overlaps } = await first.runner.add(world.order({ from: 'dlq', code: 'delivery-rejected' }), by(2));
  expect(overlaps.map((o) => o.order.id)).toEqual([id]);
  const second = await world.process('b');
  await second.runner.start(id, by(3));
  await until(second.orders, id, 'finished');
  // The first process reads what the second wrote.
  await world.reader.read(world.topics.control, 0, 0, world.list(world.topics.control, 0).length, (batch) => first.orders.take(batch));
  await expect(first.orders.save({ ...first.orders.get(id).progress })).rejects.toThrow(WeirError);
});

/** Everything that was selected differs; what it told is known until the process ends. */
function corrector(): Corrector {
  const told = new Set<string>();
  return {
    has: (id) => told.has(id), samples: () => [], forget: (id) => { told.delete(id); },
    open: async ({ id }) => {
      told.add(id);
      return { differences: (item) => [{ eventId: item.eventId, outputId: 'out_1', destination: 'till', operation: 'put', fields: ['plan'] }], approved: () => 0, mark: (item) => item, close: () => undefined };
    },
  };
}

test('a corrected order whose differences went with a restart is not started before they are there again, which happens by itself', async () => {
  const world = new World();
  for (let n = 0; n < 30; n++) world.letter(n, {});
  const first = await world.process('a', { corrector: corrector() });
  const add = async (selection: object, n: number): Promise<string> => {
    const { id } = (await first.runner.add({ ...world.order({ from: 'dlq', all: true }), ...selection }, by(n))).entry.order;
    await until(first.orders, id, 'previewed');
    return id;
  };
  const id = await add({ corrected: true }, 1);
  const plain = await add({}, 2);
  await first.runner.close();
  const again = corrector();
  const second = await world.process('b', { corrector: again });
  await expect(second.runner.start(id, by(3))).rejects.toThrow(/is previewing|not at hand any more/);
  expect(second.orders.get(plain).progress.state).toBe('previewed');
  for (let i = 0; i < 20_000 && !(again.has(id) && second.orders.get(id).progress.state === 'previewed'); i++) await new Promise((done) => setImmediate(done));
  expect(JSON.parse(second.orders.get(id).progress.preview)).toMatchObject({ differs: 30, back: 30 });
  await second.runner.start(id, by(4));
  await until(second.orders, id, 'finished');
  expect(world.back()).toHaveLength(30);
  // Newer orders took their place.
  const late = (await second.runner.add({ ...world.order({ from: 'dlq', all: true }), corrected: true }, by(5))).entry.order.id;
  await until(second.orders, late, 'previewed');
  again.forget(late);
  await expect(second.runner.start(late, by(6))).rejects.toThrow(/order it again/);
  await second.runner.close();
});

test('a corrected order sends nothing under another release than its preview showed: it is not started, and one that runs is paused', async () => {
  const world = new World();
  for (let n = 0; n < 30; n++) world.letter(n, {});
  const first = await world.process('a', { corrector: corrector() });
  const add = async (n: number, more: object = {}): Promise<string> => {
    const { id } = (await first.runner.add({ ...world.order({ from: 'dlq', all: true }), corrected: true, ...more }, by(n))).entry.order;
    await until(first.orders, id, 'previewed');
    return id;
  };
  const [id, plain] = [await add(1, { rate: 100 }), await add(2, { corrected: false })];
  world.release = 'rel_y';
  await expect(first.runner.start(id, by(3))).rejects.toThrow(/shown under rel_x, and rel_y runs now, which would send others: order it again/);
  expect(world.back()).toEqual([]);
  await first.runner.start(plain, by(4));
  await until(first.orders, plain, 'finished');
  const before = world.back().length;
  world.release = 'rel_x';
  await first.runner.start(id, by(5));
  for (let i = 0; i < 20_000 && world.back().length === before; i++) await new Promise((done) => setTimeout(done, 1));
  world.release = 'rel_y';
  await until(first.orders, id, 'paused');
  expect(world.back().length).toBeLessThan(before + 30);
  expect(first.orders.get(id).progress).toMatchObject({ by: 'control', reason: expect.stringMatching(/shown under rel_x, and rel_y runs now/) });
  await expect(first.runner.start(id, by(6))).rejects.toThrow(/order it again/);
  // What it showed runs again.
  world.release = 'rel_x';
  await first.runner.start(id, by(7));
  await until(first.orders, id, 'finished');
  expect(first.orders.get(id).progress).toMatchObject({ counts: { selected: 30, requeued: 30 }, reason: null });
  expect(world.back()).toHaveLength(before + 30);
  await first.runner.close();
});

test('a corrected order is previewed again when the release changes meanwhile; one that was shown is not, by a restart, under another release', async () => {
  const world = new World();
  for (let n = 0; n < 3; n++) world.letter(n, {});
  const changing = corrector();
  let opened = 0;
  const first = await world.process('a', { corrector: { ...changing, open(order, goesOn) {
    if (++opened === 1) world.release = 'rel_y';
    return changing.open(order, goesOn);
  } } });
  const { id } = (await first.runner.add({ ...world.order({ from: 'dlq', all: true }), corrected: true }, by(1))).entry.order;
  await until(first.orders, id, 'previewed');
  expect([opened, JSON.parse(first.orders.get(id).progress.preview)]).toMatchObject([2, { release: 'rel_y', differs: 3 }]);
  await first.runner.close();
  world.release = 'rel_z';
  const again = corrector();
  const second = await world.process('b', { corrector: again });
  const next = (await second.runner.add(world.order({ from: 'dlq', all: true }), by(2))).entry.order.id;
  await until(second.orders, next, 'previewed');
  expect([again.has(id), second.orders.get(id).progress.state]).toEqual([false, 'previewed']);
  await expect(second.runner.start(id, by(3))).rejects.toThrow(/shown under rel_y, and rel_z runs now/);
  await second.runner.close();
});

test('names of those that a vendor was asked about stay after the end, of the twenty newest orders', async () => {
  const world = new World();
  world.letter(1, {});
  const forgotten: string[] = [];
  const { runner, orders } = await world.process('a', { verifier: { ask: async (_o, list) => list.map(() => 'unknown' as const), answers: () => [], forget: (id) => forgotten.push(id) } });
  const ids: string[] = [];
  for (let n = 1; n <= 22; n++) {
    const { id } = (await runner.add(world.order({ from: 'dlq', all: true, verify: true, start: true }), by(n))).entry.order;
    await until(orders, id, 'finished');
    ids.push(id);
  }
  await runner.close();
  expect([...new Set(forgotten)]).toEqual(ids.slice(0, 2));
});
