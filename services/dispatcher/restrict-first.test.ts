import type { Verdict } from '@weir/adapter';
import type { OutRecord, RecordBatch } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import fc from 'fast-check';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDestinationRunner } from './destination.ts';
import type { DestinationPorts } from './ports.ts';
import { createDisk } from '../../tests/integrity/sim/table.ts';
import type { EndValue } from './types.ts';

const hourMs = 3_600_000;
type Answer = (n: number, tries: number) => Verdict;
const ok: Verdict = { kind: 'ok', effect: 'done' };
const retryIn = (retryAfterMs: number): Verdict => ({ kind: 'retry', effect: 'none', code: 'vendor-unavailable', retryAfterMs });

/** A destination with `use` and `restrict`, over topics that are lists and a clock that is turned by hand. */
function world(answer: Answer = () => ok, over: { intent?: object; retentionMs?: number; records?: number; heads?: number } = {}) {
  const clock = createHandClock(1_000_000);
  const topics = topicNames('t');
  const parked: { offset: number; timestamp: number; key: Buffer; value: Buffer; headers: OutRecord['headers'] }[] = [];
  const ends = new Map<string, EndValue>();
  const ended = new Map<number, string>();
  const calls: { readonly n: number; readonly at: number }[] = [];
  const tries = new Map<number, number>();
  const closedUntil = new Map<string, number>();
  /** On the topic while the partition is paused. */
  const unread: RecordBatch[] = [];
  let paused = false;
  let written = 0;
  let mark = { token: 0, owner: '' };
  function read(): void {
    while (!paused && unread.length > 0) runner.handlers.batch(unread.shift()!);
  }
  function resume(): void {
    paused = false;
    queueMicrotask(read);
  }
  const gauge = Object.assign(() => undefined, { set: () => undefined, inc: () => undefined, dec: () => undefined, remove: () => undefined, observe: () => undefined });
  const operation = (kind: string) => ({ kind, idempotency: { scheme: 'key', pastWindow: 'resend' } });
  const destination = {
    enabled: true, concurrency: 10, caps: [], paths: new Map(), seconds: undefined, retryHorizonMs: 100 * hourMs, config: {}, operations: { use: operation('use'), restrict: operation('restrict'), send: { kind: 'use', idempotency: { scheme: 'none', pastWindow: 'hold' } } },
    adapter: { destination: { request: (delivery: { record: { n: number } }) => ({ n: delivery.record.n }), classify: (response: Verdict) => response } },
  };
  const ports = {
    name: 'one', instance: 'a', topics, keys: undefined, clock, fail: (error: unknown) => { throw error; }, callTimeoutMs: 1000, inLaneTries: 4,
    window: () => ({ records: over.records ?? 5000, bytes: 1e9, heads: over.heads ?? 50 }), dedupeWindowMs: () => 7 * 24 * hourMs, logger: { warn: () => undefined, info: () => undefined },
    progress: { committed: () => undefined, lag: () => undefined }, metrics: new Proxy({}, { get: () => gauge }), credential: { accepted: () => undefined, rejected: () => undefined },
    retention: { ledgerMs: () => Number.POSITIVE_INFINITY, dispatchMs: () => over.retentionMs ?? 30 * 24 * hourMs, parkedMs: () => 30 * 24 * hourMs, oldest: () => undefined },
    ledger: {
      overwritten: () => [],
      owner: () => mark, position: () => 0, intent: () => over.intent, parks: () => [], end: (key: string) => ends.get(key), lastDelivered: () => undefined,
      apply: (_partition: number, entries: readonly { end?: EndValue }[]) => { for (const { end } of entries) if (end !== undefined) ends.set(end.key, end); },
    },
    serde: {
      known: () => true, decode: (bytes: Buffer) => ({ name: 'weir.internal.Delivery', value: JSON.parse(bytes.toString(), (_, v: unknown) => (Array.isArray((v as { data?: unknown })?.data) ? Buffer.from((v as { data: number[] }).data) : v)) as unknown }),
      encode: (name: string, value: { owner?: string; token?: number; state?: string; eventId?: string }) => {
        if (name === 'weir.internal.LedgerOwner') mark = { token: value.token!, owner: value.owner! };
        if (name === 'weir.internal.LedgerEnd') ended.set(Number(value.eventId), `${ended.has(Number(value.eventId)) ? 'twice ' : ''}${value.state!}`);
        return Buffer.from(name);
      },
    },
    appender: {
      partitionFor: () => 0, partitions: () => Promise.resolve(1),
      append: (topic: string, records: readonly OutRecord[]) => Promise.resolve(records.map(({ key, value, headers }) => (topic === topics.parked('one') ? parked.push({ offset: parked.length, timestamp: clock.at, key: key!, value: value!, headers: headers ?? [] }) - 1 : written++))),
    },
    admin: { beginningOffsets: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), endOffsets: () => Promise.resolve(new Map([[0, parked.length]])) },
    reader: { read: (_topic: string, _partition: number, from: number, _to: number, take: (batch: object) => unknown) => Promise.resolve(take({ records: parked.filter((r) => r.offset >= from), nextOffset: parked.length })).then(() => undefined) },
    consumer: () => ({ holds: () => true, assignments: () => [], pause: () => { paused = true; }, resume, commit: () => Promise.resolve(), leaseUntil: () => 1e15 }),
    parkedTable: createDisk().open({ path: 'parked' }), turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true }, takeover: { load: () => Promise.resolve(), reach: () => undefined, catchUp: () => Promise.resolve() }, lease: { covers: () => true, began: () => () => undefined },
    quota: {
      lost: () => undefined, shareChanged: () => undefined, state: () => ({ closedMs: 0, available: 1, perSecond: 100 }), take: (bucket: string, _limit: unknown, _class: string, now: number) => Math.max(0, (closedUntil.get(bucket) ?? 0) - now),
      finished: (bucket: string, end: { throttled: boolean; retryAfterMs?: number }, now: number) => { if (end.throttled) closedUntil.set(bucket, now + end.retryAfterMs!); },
    },
    consent: { atLeast: () => true, allows: () => ({ ok: true }) },
    http: {
      call: ({ n }: { n: number }, { onBeforeWrite }: { onBeforeWrite: () => boolean }) => {
        if (!onBeforeWrite()) throw new Error('kept back');
        calls.push({ n, at: clock.at });
        tries.set(n, (tries.get(n) ?? 0) + 1);
        return Promise.resolve({ headers: {}, status: 200, ...answer(n, tries.get(n)!) });
      },
    },
    destination: () => destination, configured: () => destination,
  } as unknown as DestinationPorts;
  const runner = createDestinationRunner(ports);
  const quiet = async (): Promise<void> => { for (let i = 0; i < 12; i++) await new Promise((done) => { setImmediate(done); }); };
  let next = 0;
  const api = {
    runner, calls, ended, closedUntil, parked, unread, clock, quiet,
    async open(): Promise<void> {
      await runner.handlers.assigned([{ topic: topics.dispatch('one'), partition: 0, epoch: 1, position: 0 }]);
      await quiet();
    },
    async arrive(kind: 'use' | 'restrict', subject = 'anna', operation: string = kind, notBefore: number | null = null): Promise<number> {
      const offset = next++;
      const value = Buffer.from(JSON.stringify({ eventId: String(offset), outputId: `o${offset}`, destination: 'one', operation, kind, recordType: 'r', intent: '0', itemHash: 'h', acceptedAt: clock.at, source: '', purpose: 'p', notBefore, consentOffsets: [], identityOffsets: [], ids: [], n: offset, payload: Buffer.from(JSON.stringify({ n: offset })) }));
      unread.push({ topic: topics.dispatch('one'), partition: 0, epoch: 1, records: [{ offset, timestamp: clock.at, key: Buffer.from(subject), value, headers: [] }], nextOffset: offset + 1, highWatermark: offset + 1 } as unknown as RecordBatch);
      read();
      await quiet();
      return offset;
    },
    async pass(ms: number): Promise<void> {
      for (const _ of clock.turn(ms)) await quiet();
      await quiet();
    },
    order: () => calls.map((c) => c.n),
  };
  return api;
}

test('a withdrawal goes at once though the quota of a use before it is closed for an hour; the use goes once when it opens, and what comes after stays in order', async () => {
  const w = world();
  await w.open();
  w.closedUntil.set('use', w.clock.at + hourMs);
  await w.arrive('use');
  await w.pass(10);
  await w.arrive('restrict');
  await w.arrive('use');
  await w.pass(2000);
  expect(w.order()).toEqual([1]);
  await w.pass(hourMs);
  expect(w.order()).toEqual([1, 0, 2]);
  expect([...w.ended.values()]).toEqual(['delivered', 'delivered', 'delivered']);
});

test('one that the vendor throttles for an hour while a withdrawal waits behind it makes way', async () => {
  const w = world((_n, tries) => (tries === 1 && _n === 0 ? { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: hourMs } : ok));
  await w.open();
  await Promise.all([w.arrive('use'), w.arrive('restrict')]);
  await w.pass(2000);
  expect(w.order()).toEqual([0, 1]);
  await w.pass(hourMs);
  expect(w.order()).toEqual([0, 1, 0]);
});

test('one that is tried again in an hour makes way, whether the withdrawal is there already or comes while it waits', async () => {
  for (const first of [true, false]) {
    const w = world((n, tries) => (n === 0 && tries === 1 ? retryIn(hourMs) : ok));
    await w.open();
    if (first) await Promise.all([w.arrive('use'), w.arrive('restrict')]);
    else {
      await w.arrive('use');
      await w.pass(5000);
      await w.arrive('restrict');
    }
    await w.pass(2000);
    expect([first, w.order()]).toEqual([first, [0, 1]]);
    await w.pass(hourMs);
    expect([first, w.order()]).toEqual([first, [0, 1, 0]]);
  }
});

test('a parked use that is due and waits for its quota makes way for a withdrawal that comes then', async () => {
  const w = world((n, tries) => (n === 0 && tries <= 4 ? retryIn(100) : ok));
  await w.open();
  await w.arrive('use');
  while (w.parked.length === 0) await w.pass(20);
  w.closedUntil.set('use', w.clock.at + hourMs);
  await w.pass(60_000);
  expect([w.order(), w.parked.length]).toEqual([[0, 0, 0, 0], 1]);
  await w.arrive('restrict');
  await w.pass(2000);
  expect(w.order().at(-1)).toBe(1);
  await w.pass(2 * hourMs);
  expect(w.ended.get(0)).toBe('delivered');
});

test('a wait of moments parks nothing', async () => {
  const w = world();
  await w.open();
  w.closedUntil.set('use', w.clock.at + 300);
  await w.arrive('use');
  await w.arrive('restrict');
  await w.pass(1000);
  expect([w.order(), w.parked.length]).toEqual([[0, 1], 0]);
});

test('whatever waits for whatever: each ends once, uses keep their order, withdrawals theirs, and none of these waits longer than moments', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('arrive' as const), kind: fc.constantFrom('use' as const, 'use' as const, 'restrict' as const), subject: fc.constantFrom('anna', 'ben') }),
    fc.record({ do: fc.constant('close' as const), ms: fc.constantFrom(200, 5000, hourMs) }),
    fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 500, 3000, 600_000) }),
  );
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 25 }), fc.array(fc.constantFrom<Verdict>(ok, retryIn(50), retryIn(20_000), { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: 30_000 }), { minLength: 1, maxLength: 12 }), async (steps, verdicts) => {
    let at = 0;
    const sent: { n: number; kind: string; subject: string; arrived: number }[] = [];
    const w = world((n) => (sent[n]!.kind === 'use' ? verdicts[at++ % (verdicts.length + 1)] ?? ok : ok));
    await w.open();
    for (const s of steps) {
      if (s.do === 'arrive') {
        sent.push({ n: sent.length, kind: s.kind, subject: s.subject, arrived: w.clock.at });
        await w.arrive(s.kind, s.subject);
      } else if (s.do === 'close') w.closedUntil.set('use', w.clock.at + s.ms);
      else await w.pass(s.ms);
    }
    verdicts.length = 0;
    await w.pass(5 * hourMs);
    expect([...w.ended].sort((a, b) => a[0] - b[0])).toEqual(sent.map(({ n }) => [n, 'delivered']));
    for (const subject of ['anna', 'ben']) for (const kind of ['use', 'restrict']) {
      const last = w.calls.filter(({ n }) => sent[n]!.subject === subject && sent[n]!.kind === kind).map((c) => c.n).filter((n, i, all) => all.lastIndexOf(n) === i);
      expect(last).toEqual([...last].sort((a, b) => a - b));
    }
    for (const { n, kind, arrived } of sent) if (kind === 'restrict') expect(w.calls.find((c) => c.n === n)!.at - arrived).toBeLessThan(5000);
  }), { numRuns: 60 });
}, 60_000);

test('what an earlier owner may have called is known as such when it was parked behind another: it is held, not sent again', async () => {
  const w = world((n, tries) => (n === 0 && tries <= 4 ? retryIn(100) : ok), { intent: { fromOffset: 0, toOffset: 2, at: 999_000 } });
  await w.open();
  await Promise.all([w.arrive('use'), w.arrive('use', 'anna', 'send'), w.arrive('use', 'anna', 'send')]);
  await w.pass(hourMs);
  expect(w.parked.length).toBe(3);
  expect([w.order(), [...w.ended.values()]]).toEqual([[0, 0, 0, 0, 0, 2], ['delivered', 'quarantined', 'delivered']]);
});

test('what comes up behind one that its topic is about to lose goes at once, though the quota of that one is closed', async () => {
  const w = world(undefined, { retentionMs: hourMs });
  await w.open();
  w.closedUntil.set('use', w.clock.at + 2 * hourMs);
  await w.arrive('use');
  await w.pass(50 * 60_000);
  await w.arrive('use', 'anna', 'send');
  await w.pass(5 * 60_000);
  w.runner.sweep();
  await w.quiet();
  expect([[...w.ended.values()], w.order()]).toEqual([['dead-lettered', 'delivered'], [1]]);
});

test('behind a use that may have taken effect and is tried again in an hour, as the vendor asked, a withdrawal waits for that call to be over and no longer', async () => {
  const w = world((n, tries) => (n === 0 && tries === 1 ? { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', retryAfterMs: hourMs } : ok));
  await w.open();
  await w.arrive('use');
  await w.pass(5000);
  await w.arrive('restrict');
  await w.pass(50_000);
  expect(w.order()).toEqual([0]);
  await w.pass(10_000);
  expect(w.order()).toEqual([0, 1]);
  await w.pass(hourMs);
  expect([w.order(), [...w.ended.values()]]).toEqual([[0, 1, 0], ['delivered', 'delivered']]);
});

test('behind a use that is to wait until morning, and that an earlier owner may have called, a withdrawal waits for a minute', async () => {
  const w = world(undefined, { intent: { fromOffset: 0, toOffset: 1, at: 999_000 } });
  await w.open();
  await w.arrive('use', 'anna', 'use', w.clock.at + 14 * hourMs);
  await w.arrive('restrict');
  await w.pass(59_000);
  expect(w.order()).toEqual([]);
  await w.pass(2000);
  expect(w.order()).toEqual([1]);
  await w.pass(14 * hourMs);
  expect(w.order()).toEqual([1, 0]);
});

test('a withdrawal that is behind a window full of uses whose quota is closed for an hour goes within a minute; each of them goes once when it opens, in the order of its subject', async () => {
  const w = world(undefined, { records: 4 });
  await w.open();
  w.closedUntil.set('use', w.clock.at + hourMs);
  for (const subject of ['ann', 'ben', 'cem', 'dan', 'eve', 'fay', 'ann', 'ben']) await w.arrive('use', subject);
  const withdrawal = await w.arrive('restrict', 'zoe');
  expect(w.unread.length).toBeGreaterThan(0);
  await w.pass(60_000);
  expect([w.order(), w.unread.length]).toEqual([[withdrawal], 0]);
  await w.pass(hourMs);
  expect(w.order().slice(1).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(w.order().indexOf(0) < w.order().indexOf(6) && w.order().indexOf(1) < w.order().indexOf(7)).toBe(true);
  expect(new Set(w.ended.values())).toEqual(new Set(['delivered']));
});

test('one that the vendor wants tried again in an hour does not hold up a partition whose others go', async () => {
  const w = world((n, tries) => (n === 0 && tries === 1 ? retryIn(hourMs) : ok), { records: 4 });
  await w.open();
  for (const subject of ['ann', 'ben', 'cem', 'dan', 'eve', 'fay']) await w.arrive('use', subject);
  const withdrawal = await w.arrive('restrict', 'zoe');
  await w.pass(60_000);
  // What is read together with it goes behind it.
  expect([w.order().toSorted((a, b) => a - b), w.unread.length]).toEqual([[0, 1, 2, 3, 4, 5, withdrawal], 0]);
  await w.pass(hourMs);
  expect(w.order().slice(7)).toEqual([0]);
});

test('a window that is not full, or whose quota opens in moments, parks nothing', async () => {
  for (const [records, ms] of [[50, hourMs], [4, 20_000]] as const) {
    const w = world(undefined, { records });
    await w.open();
    w.closedUntil.set('use', w.clock.at + ms);
    for (const subject of ['ann', 'ben', 'cem', 'dan', 'eve']) await w.arrive('use', subject);
    await w.pass(2 * hourMs);
    expect([w.parked.length, w.order()]).toEqual([0, [0, 1, 2, 3, 4]]);
  }
});

test('parked uses of an operation whose quota is closed leave the slots of heads in hand to those of another', async () => {
  const w = world((n, tries) => (n % 2 === 1 || tries > 4 ? ok : retryIn(tries < 4 ? 100 : 20_000)), { heads: 2 });
  await w.open();
  for (const [i, subject] of ['ann', 'ben', 'cem', 'dan'].entries()) {
    await w.arrive('use', subject, subject === 'dan' ? 'use' : 'send');
    for (let turns = 0; turns < 500 && w.parked.length <= i; turns++) await w.pass(10);
    // The vendor is well: its breaker stays closed.
    await w.arrive('use', 'zoe');
  }
  expect(w.parked.length).toBe(4);
  w.closedUntil.set('send', w.clock.at + hourMs);
  await w.pass(120_000);
  expect([...w.ended.keys()].filter((n) => n % 2 === 0)).toEqual([6]);
  await w.pass(hourMs);
  expect(new Set(w.ended.values())).toEqual(new Set(['delivered']));
  expect(w.ended.size).toBe(8);
});

test('in a window of four, whatever is closed for how long: each ends once, uses keep their order, and what restricts waits for minutes at most', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('arrive' as const), kind: fc.constantFrom('use' as const, 'use' as const, 'use' as const, 'restrict' as const), subject: fc.constantFrom('ann', 'ben', 'cem', 'dan', 'eve', 'fay'), operation: fc.constantFrom('use', 'send') }),
    fc.record({ do: fc.constant('close' as const), bucket: fc.constantFrom('use', 'send'), ms: fc.constantFrom(5000, 60_000, hourMs) }),
    fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 3000, 40_000, 600_000) }),
  );
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 40 }), async (steps) => {
    const sent: { n: number; kind: string; subject: string; arrived: number }[] = [];
    const w = world(undefined, { records: 4, heads: 2 });
    await w.open();
    for (const s of steps) {
      if (s.do === 'arrive') {
        sent.push({ n: sent.length, kind: s.kind, subject: s.subject, arrived: w.clock.at });
        await w.arrive(s.kind, s.subject, s.kind === 'use' ? s.operation : 'restrict');
      } else if (s.do === 'close') w.closedUntil.set(s.bucket, w.clock.at + s.ms);
      else await w.pass(s.ms);
    }
    await w.pass(5 * hourMs);
    expect([...w.ended].sort((a, b) => a[0] - b[0])).toEqual(sent.map(({ n }) => [n, 'delivered']));
    expect(w.order().toSorted((a, b) => a - b)).toEqual(sent.map(({ n }) => n));
    for (const subject of new Set(sent.map((s) => s.subject))) for (const kind of ['use', 'restrict']) {
      const of = w.order().filter((n) => sent[n]!.subject === subject && sent[n]!.kind === kind);
      expect(of).toEqual([...of].sort((a, b) => a - b));
    }
    for (const { n, kind, arrived } of sent) if (kind === 'restrict') expect(w.calls.find((c) => c.n === n)!.at - arrived).toBeLessThan(600_000);
  }), { numRuns: 40 });
}, 60_000);
