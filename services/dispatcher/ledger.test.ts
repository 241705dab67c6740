import fc from 'fast-check';
import { expect, test } from 'vitest';
import { coveredOnLeaving, createCalledSince, intentPuts, keepsInstead, leavingPuts, lookUp, pastWindow } from './ledger.ts';
import type { DeliveryValue, EndState, EndValue } from './types.ts';

const delivery = { outputId: 'out_1', destination: 'crm', operation: 'upsert', intent: '0', itemHash: 'h1' } as DeliveryValue;
const end = (over: Partial<EndValue>): EndValue => ({ key: '', outputId: 'out_1', eventId: 'e', operation: 'upsert', state: 'delivered', effect: 'done', code: null, reason: null, status: 200, attempts: 1, generation: 0, itemHash: 'h1', subject: 's', offset: 7, at: 0, acceptedAt: 0, maybeSince: 0, purpose: null, channel: null, owner: null, toDestination: null, toOperation: null, toKey: null, ...over });

test('a sender that repeats an event does not send it twice', () => {
  const first = lookUp(delivery, '', 5, () => undefined);
  expect(first.kind).toBe('open');
  expect(lookUp(delivery, '', 9, (k) => (k === first.key ? end({}) : undefined)).kind).toBe('ended');
});

test('the same event id with another body is a conflict, not a skip', () => {
  expect(lookUp({ ...delivery, itemHash: 'h2' }, '', 9, () => end({})).kind).toBe('conflict');
});

test.each(['ConsentChange', 'ConsentApplied'])('a change of the consent API (%s) that is sent again once its hash is keyed is the one that ended under the plain hash, and no conflict', (name) => {
  const change = { ...delivery, source: 'consent-api', recordType: `weir.canonical.${name}`, itemHash: 'keyed' };
  expect(lookUp(change, '', 9, () => end({ itemHash: 'plain' })).kind).toBe('ended');
  expect(lookUp({ ...change, source: 'shop' }, '', 9, () => end({ itemHash: 'plain' })).kind).toBe('conflict');
});

test('a redrive of what was not applied gets a new key, of what may have been applied the same key, of what was delivered none', () => {
  const g0 = lookUp(delivery, '', 5, () => undefined).key;
  const notApplied = lookUp(delivery, 'order-1', 9, (k) => (k === g0 ? end({ state: 'dead-lettered', effect: 'none' }) : undefined));
  expect(notApplied).toMatchObject({ kind: 'open', generation: 1 });
  expect(notApplied.key).not.toBe(g0);
  expect(lookUp(delivery, 'order-1', 9, (k) => (k === g0 ? end({ state: 'quarantined', effect: 'maybe' }) : undefined))).toMatchObject({ kind: 'open', key: g0, generation: 0 });
  expect(lookUp(delivery, 'order-1', 9, (k) => (k === g0 ? end({}) : undefined)).kind).toBe('ended');
});

test('a redriven record that ended and was read again after a crash is not sent again', () => {
  expect(lookUp(delivery, 'order-1', 7, () => end({ state: 'dead-lettered', effect: 'none', offset: 7 })).kind).toBe('ended');
});

test('readers that see the ends of a key in any order keep the same one: a delivered one, or else what the last record says', () => {
  const states: EndState[] = ['delivered', 'denied', 'dead-lettered', 'quarantined', 'superseded', 'expired', 'failed-over'];
  const one = fc.record({ state: fc.constantFrom(...states), effect: fc.constantFrom('none' as const, 'maybe' as const), maybeSince: fc.constantFrom(3, 7), offset: fc.constantFrom(-1, 1, 2), subject: fc.constant('s') });
  const order = ({ state, effect, maybeSince }: Ranked) => [state, effect === 'maybe' && state !== 'delivered' && state !== 'failed-over' ? maybeSince : 0].join();
  type Ranked = Parameters<typeof keepsInstead>[0];
  const fold = (list: readonly Ranked[]): Ranked => list.reduce((a, b) => (keepsInstead(a, b) ? b : a));
  // Denied, expired and superseded are of one rank, and so are quarantined and dead-lettered: of these the first of a record is kept, by whom it is read first.
  const rankOf = (state: EndState): EndState => (state === 'expired' || state === 'superseded' ? 'denied' : state === 'quarantined' ? 'dead-lettered' : state);
  fc.assert(fc.property(fc.array(one, { minLength: 1, maxLength: 6 }).chain((ends) => fc.tuple(fc.constant(ends), fc.shuffledSubarray(ends, { minLength: ends.length }))), ([ends, shuffled]) => {
    const kept = fold(ends.map((end) => ({ ...end, state: rankOf(end.state) })));
    expect(order(fold(shuffled.map((end) => ({ ...end, state: rankOf(end.state) }))))).toBe(order(kept));
    expect(fold([...ends, ...ends])).toBe(fold(ends));
    if (ends.some(({ state }) => state === 'delivered')) expect(kept.state).toBe('delivered');
    else if (!ends.some(({ state }) => state === 'failed-over')) expect(kept.offset).toBe(Math.max(...ends.map(({ offset }) => offset)));
  }));
});

test('what a redrive was told is kept in the place of the doubt that it took up, and a doubt that it left is kept, too', () => {
  const held = { state: 'quarantined', effect: 'maybe', maybeSince: 5, offset: 7, subject: 's' } as const;
  const overtaken = { state: 'superseded', effect: 'none', maybeSince: 0, offset: 9, subject: 's' } as const;
  expect([keepsInstead(held, overtaken), keepsInstead(overtaken, held)]).toEqual([true, false]);
  expect(keepsInstead(overtaken, { ...held, offset: 9 })).toBe(true);
  expect(keepsInstead({ ...overtaken, state: 'failed-over' }, { ...held, offset: 11 })).toBe(false);
  // Of one record, whoever wrote late.
  expect([keepsInstead({ ...held, state: 'denied' }, { ...overtaken, state: 'dead-lettered', offset: 7 }), keepsInstead({ ...overtaken, state: 'dead-lettered', offset: 7 }, { ...held, state: 'denied' })]).toEqual([false, true]);
  // A release gave the output another subject: offsets of two partitions say nothing.
  expect([keepsInstead(held, { ...overtaken, subject: 't' }), keepsInstead({ ...overtaken, subject: 't' }, held)]).toEqual([false, true]);
});

test('past the key window an unknown effect is held unless the manifest says resend', () => {
  const window = { scheme: 'header', windowMs: 1000, pastWindow: 'hold' as const };
  expect(pastWindow(0, 10 ** 12, window)).toBe('send');
  expect(pastWindow(1, 1001, window)).toBe('send');
  expect(pastWindow(1, 1002, window)).toBe('hold');
  expect(pastWindow(1, 1002, { ...window, pastWindow: 'resend' })).toBe('send');
  expect(pastWindow(1, 2, { scheme: 'none', pastWindow: 'hold' })).toBe('hold');
  expect(pastWindow(1, 1002, { ...window, pastWindow: 'verify' })).toBe('verify');
  expect(pastWindow(1, 1001, { ...window, pastWindow: 'verify' })).toBe('send');
  expect(pastWindow(1, 10 ** 12, { scheme: 'natural-upsert', pastWindow: 'hold' })).toBe('send');
});

test('a clock that was set back, or stands still, sends nothing again that may have taken effect at a vendor without keys', () => {
  const none = { scheme: 'none', pastWindow: 'hold' as const };
  expect([pastWindow(1000, 999, none), pastWindow(1000, 1000, none), pastWindow(1000, 1, { ...none, pastWindow: 'verify' })]).toEqual(['hold', 'hold', 'verify']);
  expect(pastWindow(1000, 999, { ...none, pastWindow: 'resend' })).toBe('send');
});

test('each intent says since when the oldest of what it covers may have been called, whatever was read and finished meanwhile', () => {
  const since = createCalledSince();
  expect(since.next(0, 10, 1000)).toBe(1000);
  expect(since.next(4, 20, 5000)).toBe(1000);
  expect(since.next(9, 30, 9000)).toBe(1000);
  // The first ten are finished.
  expect(since.next(10, 40, 12_000)).toBe(5000);
  expect(since.next(40, 50, 15_000)).toBe(15_000);
  // A clock that was set back.
  expect(since.next(40, 60, 14_000)).toBe(14_000);
});

test('who leaves with no call open covers what may have taken effect, and what an earlier owner left of it; nothing of what only waited', () => {
  const task = (offset: number, maybeSince = 0, parkedOffset = -1) => ({ offset, maybeSince, parkedOffset });
  expect(coveredOnLeaving(5, undefined, [task(5), task(7)])).toBeUndefined();
  expect(coveredOnLeaving(5, undefined, [task(5), task(7, 300), task(6, 400), task(9)])).toEqual({ fromOffset: 5, toOffset: 8, at: 300 });
  expect(coveredOnLeaving(5, undefined, [task(7, 300, 1)])).toBeUndefined();
  const before = { fromOffset: 0, toOffset: 9, at: 200 };
  expect(coveredOnLeaving(5, before, [])).toEqual({ fromOffset: 5, toOffset: 9, at: 200 });
  expect(coveredOnLeaving(9, before, [task(9)])).toBeUndefined();
});

test('who leaves ends the two intents that stand, and no key is used twice', () => {
  for (const written of [0, 1, 2, 5]) {
    const live = new Set<string>();
    const used = new Set<string>();
    for (let n = 0; n < written; n++) for (const { key, value } of intentPuts(0, 'a', n, Buffer.from('i'))) {
      if (value === null) live.delete(key);
      else live.add(key);
      used.add(key);
    }
    for (const { key, value } of leavingPuts(0, 'a', written, Buffer.from('left'))) {
      if (value === null) expect(live.delete(key)).toBe(true);
      else expect(used.has(key)).toBe(false);
    }
    expect(live.size).toBe(0);
    expect(leavingPuts(0, 'a', written, undefined).every(({ value }) => value === null)).toBe(true);
  }
});

/** Appends of two owners, each of which may be written a second time later (a request that was given up and sent again), then compaction at any point. */
test('whatever of an owner is written late and whatever is compacted, its intents on the topic reach as far as it may have called', () => {
  const step = fc.record({ owner: fc.constantFrom('a', 'b'), again: fc.option(fc.nat({ max: 5 })), keepNewest: fc.nat({ max: 6 }) });
  fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
    const log: { key: string; value: Buffer | null }[] = [];
    const compact = (head: number): void => {
      const newest = new Map(log.map((r, i) => [r.key, i]));
      const kept = log.filter((r, i) => i >= log.length - head || newest.get(r.key) === i);
      log.splice(0, log.length, ...kept);
    };
    const written = { a: 0, b: 0 };
    const reach = { a: 0, b: 0 };
    const late: { at: number; puts: typeof log }[] = [];
    for (const [i, { owner, again, keepNewest }] of steps.entries()) {
      const o = owner as 'a' | 'b';
      for (const due of late.filter((l) => l.at === i)) log.push(...due.puts);
      reach[o] = i + 1;
      const puts = intentPuts(0, o, written[o]++, Buffer.from(`${o}${i + 1}`));
      log.push(...puts);
      if (again !== null) late.push({ at: i + 1 + again, puts });
      compact(keepNewest);
      const live = new Map(log.map((r) => [r.key, r.value]));
      for (const name of ['a', 'b'] as const) {
        const found = [...live.values()].flatMap((v) => (v !== null && v.toString().startsWith(name) ? [Number(v.toString().slice(1))] : []));
        expect(Math.max(0, ...found)).toBe(reach[name]);
      }
    }
  }));
});
