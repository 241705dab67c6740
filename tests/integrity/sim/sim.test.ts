import { createLog, type LogRecord } from '@weir/log';
import { deliveryKey } from '@weir/pipeline';
import { expect, test } from 'vitest';
import type { Fetched } from '../../../packages/log/driver.ts';
import { SimBroker } from './broker.ts';
import { check, checkers } from './checkers.ts';
import type { Faults } from './faults.ts';
import { createActor, createRandom, epoch, Scheduler } from './time.ts';
import { simulate, type History } from './world.ts';

test('the same seed gives the same trace, another seed another', async () => {
  const [a, b, c] = [await simulate(7), await simulate(7), await simulate(8)];
  expect(a.hash).toBe(b.hash);
  expect(a.hash).not.toBe(c.hash);
});

// 33, 55: a partition that moved while only another reader learnt of it was never read again. 36: an outcome was on its way
// when the run ended. 2023: an event was sent by two ways, and the second was first. 842: heads that stayed with a vendor that was
// away were not looked at again. 579: an intent that was written late was
// what compaction kept. 915: what was put back under its
// own key was judged by its first place (the checker). 887: a marker was lifted before the ends of what it stood for were written.
// 204: a marker was written before the end of what went before it in its lane. 21102, 25026, 30054: what restricts and was put back went ahead
// of uses that wait, and its outcome, under the key of the next generation, was not looked at (the checker). 118: an intent was written over
// its successor's. 227, 403: a request with an intent was written once more, late. 102, 123: the coordinator had moved to a broker that was away.
test.each([33, 36, 55, 102, 118, 123, 204, 227, 403, 579, 842, 887, 915, 2023, 21102, 25026, 30054])('seed %i, which once failed, holds', async (seed) => {
  // As they were found: no leader showed an old end, and weir.control could be read.
  expect(check((await simulate(seed, { oldEnds: false, controlAway: false })).history)).toEqual([]);
});

// 70205: an owner that took the end which it was told for that of the ledger gave over what the one before it had called. 70257: of the parked
// topic, deliveries behind such an end were never sent; since the deliveries of a fetch are looked at together its trace meets none, and 70317 and 70389
// stand for it, which have the most of 120 seeds.
test.each([70205, 70317, 70389])('seed %i, in which leaders that were cut off show an old end at a take-over, holds', async (seed) => {
  const { history, faults } = await simulate(seed, { controlAway: false });
  expect(check(history)).toEqual([]);
  expect(faults.get('offsets.old-end')).toBeGreaterThan(0);
});

test('seed 87 holds, in which a mark of the fold was written once more, late, over a newer one, and compacted before a dispatcher that had stood still came to it', async () => {
  expect(check((await simulate(87)).history)).toEqual([]);
});

test('seed 779 holds, in which a leader that was cut off had a batch behind the end that it told with as many bytes as the first before it', async () => {
  expect(check((await simulate(779)).history)).toEqual([]);
});

/** What a reader gets of three records; `spoil` is asked for each answer to a fetch. */
async function readThree(hit: Faults['hit'], spoil: (answer: Fetched) => Fetched = (answer) => answer, last = false): Promise<readonly number[]> {
  const scheduler = new Scheduler();
  const broker = new SimBroker({ scheduler, random: createRandom(1), nodes: 3, faults: { on: true, counts: new Map(), count: () => undefined, hit, hitBy: () => false } });
  broker.create('t', 1, false);
  const restore = scheduler.install(createRandom(2));
  const read: number[] = [];
  let ended: unknown;
  try {
    const actor = createActor('a');
    const driver = broker.driver(actor);
    const connect: typeof driver.connect = async (...of) => {
      const connection = await driver.connect(...of);
      return { ...connection, fetch: async (...asked) => spoil(await connection.fetch(...asked)) };
    };
    scheduler.as(actor, () => {
      (async () => {
        const log = createLog({ brokers: broker.brokers, clientId: 'a' }, { ...driver, connect });
        await (await log.appender()).append('t', [1, 2, 3].map((n) => ({ partition: 0, key: null, value: Buffer.from([n]) })));
        const reader = await log.reader();
        if (last) read.push((await reader.readOne('t', 0, 2))?.offset ?? -1);
        else await reader.read('t', 0, 0, 3, (batch) => { read.push(...batch.records.map((r) => r.offset)); });
      })().then(() => { ended = 'read'; }, (error: unknown) => { ended = error; });
    });
    await scheduler.run(() => ended !== undefined, 60_000);
  } finally {
    restore();
  }
  expect(ended).toBe('read');
  return read;
}

// It was taken for the end: a dispatcher that read its ledger so took over without the ends it had not seen.
test('an out-of-range answer of a leader that lags cuts no read short', async () => {
  let spoiled = 0;
  expect(await readThree((point) => point === 'fetch.out-of-range' && spoiled++ === 0)).toEqual([0, 1, 2]);
  expect(spoiled).toBeGreaterThan(1);
});

// The same, and a table of consent went on behind the states that it had not read.
test('a high watermark that goes back when a leader is elected cuts no read short', async () => {
  let answers = 0;
  const lagging = (answer: Fetched): Fetched => (answers++ > 0 ? answer : { ...answer, partitions: answer.partitions.map((p) => ({ ...p, bytes: Buffer.alloc(0), highWatermark: 0 })) });
  expect(await readThree(() => false, lagging)).toEqual([0, 1, 2]);
  expect(answers).toBeGreaterThan(1);
  answers = 0;
  // One record alone: a dead letter was said to be gone.
  expect(await readThree(() => false, lagging, true)).toEqual([2]);
});

const without = (history: History, topic: string): History => ({ ...history, records: new Map([...history.records].map(([name, p]) => [name, name === topic ? p.map(() => []) : p])) });

test('each checker sees a history that is bad in its way', async () => {
  const { history } = await simulate(1, { events: 60, faults: false });
  expect(check(history)).toEqual([]);
  expect(checkers.nothingLost(without(history, 'sim.raw.shop'))).not.toEqual([]);
  expect(checkers.nothingLost(without(history, 'sim.canonical'))).not.toEqual([]);
  expect(checkers.nothingLost(without(history, 'sim.ledger.warehouse'))).not.toEqual([]);
  expect(checkers.effectsOnce({ ...history, effects: [...history.effects, history.effects[0]!] })).not.toEqual([]);
  expect(checkers.effectsOnce({ ...history, effects: history.effects.slice(1) })).not.toEqual([]);
  expect(checkers.effectsOnce({ ...history, effects: [{ ...history.effects[0]!, key: 'dlv_other' }] })).not.toEqual([]);
  expect(checkers.ordered({ ...history, calls: history.calls.toReversed() })).not.toEqual([]);
  expect(checkers.leased({ ...history, calls: history.calls.map((c) => ({ ...c, holders: new Map([[0, 'another'], [1, 'another']]) })) })).not.toEqual([]);
  expect(checkers.leased({ ...history, early: ['x'] })).not.toEqual([]);
  expect(checkers.settled({ ...history, stuck: 'x' })).not.toEqual([]);
  expect(checkers.switchable({ ...history, calls: history.calls.map((c) => ({ ...c, controlAgeMs: history.leaseMs - 1 })) })).toEqual([]);
  expect(checkers.switchable({ ...history, calls: history.calls.map((c) => ({ ...c, controlAgeMs: history.leaseMs })) })).toHaveLength(history.calls.length);
  expect(checkers.bounded({ ...history, answers: [{ at: 1, by: 'x', status: 503, retryAfter: false }] })).not.toEqual([]);
  expect(checkers.bounded({ ...history, answers: [{ at: 1, by: 'x', status: 500, retryAfter: true }] })).not.toEqual([]);
  expect(checkers.intended({ ...history, uncovered: ['x'] })).not.toEqual([]);
  const late = history.records.get('sim.consent')!.map((records) => records.length);
  const after = { consent: new Map(late.map((n, p) => [p, n])) };
  expect(checkers.consentHeld({ ...history, calls: history.calls.map((c) => ({ ...c, ...after })) })).not.toEqual([]);
  const canonical = history.records.get('sim.canonical')!;
  expect(checkers.sameBytes({ ...history, records: new Map([...history.records, ['sim.canonical', canonical.map((list) => [...list, ...list.map((r) => ({ offset: r.offset, timestamp: r.timestamp, key: r.key, headers: r.headers, value: Buffer.from('other') }))])]]) })).not.toEqual([]);
});

test('the checkers see a delivery that two vendors applied, and one that went to a second vendor and did not arrive', async () => {
  const { history } = await simulate(1, { events: 60, faults: false });
  const applied = new Set(history.effects.filter((e) => e.destination === 'warehouse').map((e) => e.key));
  const keyOf = (value: any): string => deliveryKey(value.outputId, value.destination, value.operation, value.intent, 0);
  const first = history.records.get('sim.dispatch.warehouse')!.flat().map((r) => history.decode(r.value!).value).find((value) => applied.has(keyOf(value)))!;
  const second = { ...first, destination: 'newsletter', operation: 'copy' };
  const forged = Buffer.from('forged');
  const decode = (bytes: Buffer) => (bytes === forged ? { name: 'weir.internal.Delivery', value: second } : history.decode(bytes));
  const [partition, ...others] = history.records.get('sim.dispatch.newsletter')!;
  const records = new Map([...history.records, ['sim.dispatch.newsletter', [[...partition!, { offset: 1e6, timestamp: 0, key: Buffer.from('s'), headers: [], value: forged }], ...others]]]);
  const effect = { at: 0, destination: 'newsletter', key: keyOf(second), body: {} };
  expect(checkers.effectsOnce({ ...history, decode, records, effects: [...history.effects, effect] })).toEqual([expect.stringContaining('at the first and at the second vendor')]);
  const gone = (bytes: Buffer) => {
    const { name, value } = history.decode(bytes);
    return { name, value: name === 'weir.internal.LedgerEnd' && value.key === keyOf(first) ? { ...value, state: 'failed-over' } : value };
  };
  expect(checkers.nothingLost({ ...history, decode: gone })).toEqual([expect.stringContaining('went to the second vendor and is not there')]);
});

test('the order of calls: what restricts and was put back goes ahead of the uses that wait which the outcome of that call names, and of no other', () => {
  const subject = Buffer.from('s');
  const values = new Map<Buffer, unknown>();
  const delivery = (outputId: string, operation: string, kind: string) => ({ outputId, operation, kind, intent: '0', legalBasis: 'consent', failedOver: null });
  const no = delivery('out_no', 'unsubscribe', 'restrict');
  const use = delivery('out_use', 'copy', 'use');
  const other = delivery('out_other', 'copy', 'use');
  const putBack = [['weir-intent', Buffer.from('rpl_1')]] as const;
  const recordOf = (offset: number, value: unknown, headers: LogRecord['headers'] = []): LogRecord => {
    const bytes = Buffer.from(`${values.size}`);
    values.set(bytes, value);
    return { offset, timestamp: epoch, key: subject, value: bytes, headers };
  };
  const keyOf = ({ outputId, operation, intent }: typeof no, generation = 0): string => deliveryKey(outputId, 'newsletter', operation, intent, generation);
  const called = (...keys: readonly string[]): History['calls'] => keys.map((key, i) => ({ at: i - 10, actor: 'dispatcher-0.1', destination: 'newsletter', key, operation: '', arrivesAt: i, consent: new Map(), controlAgeMs: 0, holders: new Map() }));
  const dispatched = [recordOf(0, no), recordOf(1, use), recordOf(2, other), recordOf(3, no, putBack), recordOf(4, use, putBack)];
  const parked = [recordOf(7, use), recordOf(8, no, putBack), recordOf(9, other), recordOf(10, use, putBack)];
  const judge = (keys: readonly string[], outcomes: readonly { readonly key: string; readonly detail: string }[]): readonly string[] => checkers.ordered({
    seed: 0, sent: [], effects: [], early: [], leaseMs: 6000, endedAt: new Map(), uncovered: [], answers: [], stuck: undefined, consent: undefined, calls: called(...keys),
    decode: (bytes) => ({ name: '', value: values.get(bytes) }),
    records: new Map([['sim.dispatch.newsletter', [dispatched]], ['sim.parked.newsletter', [parked]], ['sim.outcome', [outcomes.map((o, i) => recordOf(i, { destination: 'newsletter', state: 'delivered', ...o }))]]]),
  });
  const ahead = (range: string): string => `ahead of 1 that wait, ${range} on the parked topic`;
  const first = [keyOf(no), keyOf(no, 1), keyOf(use)];
  const named = { key: keyOf(no, 1), detail: ahead('7 to 7') };
  expect(judge([keyOf(no), keyOf(use), keyOf(no, 1)], [])).toEqual([]);
  expect(judge(first, [named])).toEqual([]);
  const found = [expect.stringContaining(`${keyOf(use)} is out of order`)];
  expect(judge(first, [])).toEqual(found);
  expect(judge(first, [{ ...named, detail: ahead('9 to 9') }])).toEqual(found);
  // Of what was put back it says nothing about the first record of the use.
  expect(judge(first, [{ ...named, detail: ahead('10 to 10') }])).toEqual(found);
  // Nor does what the first call of the restrict went ahead of.
  expect(judge(first, [{ ...named, key: keyOf(no) }])).toEqual(found);
  expect(judge([...first, keyOf(other)], [named])).toEqual([expect.stringContaining(`${keyOf(other)} is out of order`)]);
  expect(judge([keyOf(no), keyOf(use, 1), keyOf(no, 1)], [])).toEqual([expect.stringContaining(`${keyOf(no)} again is out of order`)]);
});
