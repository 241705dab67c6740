import type { Assignment, RecordBatch } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDestinationRunner } from './destination.ts';
import type { DestinationPorts } from './ports.ts';
import { createDisk } from '../../tests/integrity/sim/table.ts';

const topic = 't.dispatch.one';
const dayMs = 86_400_000;

/** A destination over an empty ledger, by a clock that is turned by hand. Nothing of it is called, but by `batch`: so many deliveries at most in a call. */
function world(over: { batch?: number; enabled?: boolean; atLeast?: () => boolean; parked?: readonly object[]; now?: number } = {}) {
  /** Offset of the next record on the ledger. */
  let appended = 40;
  const clock = createHandClock(over.now ?? 1000);
  let mark = { token: 0, owner: '' };
  const ended: string[] = [];
  const gauge = Object.assign(() => undefined, { set: () => undefined, inc: () => undefined, dec: () => undefined, remove: () => undefined, observe: () => undefined });
  const batches: number[] = [];
  const adapter = { destination: { batch: { item: () => 'i', request: (items: readonly object[]) => ({ items: items.length }), classify: (_answer: object, items: readonly object[]) => items.map(() => ({ kind: 'ok', effect: 'done' })) } } };
  const destination = { adapter, config: {}, enabled: over.enabled ?? true, concurrency: 10, caps: [], paths: new Map(), seconds: undefined, operations: { put: { kind: 'use', idempotency: { scheme: 'natural-upsert', pastWindow: 'resend' }, ...(over.batch === undefined ? {} : { batch: { maxItems: over.batch, maxBytes: 1e6 } }) } }, retryHorizonMs: dayMs };
  const delivery = { eventId: 'e', outputId: 'o', destination: 'one', operation: 'put', kind: 'use', intent: '0', itemHash: 'h', acceptedAt: clock.at, source: '', notBefore: null, payload: Buffer.from('p'), consentOffsets: [], identityOffsets: [], ids: [] };
  const ports = {
    name: 'one', instance: 'a', topics: topicNames('t'), keys: undefined, clock, fail: (error: unknown) => { throw error; },
    window: () => ({ records: 5000, bytes: 1e9, heads: 50 }), dedupeWindowMs: () => 7 * dayMs, logger: { warn: () => undefined, info: () => undefined },
    progress: { committed: () => undefined, lag: () => undefined },
    metrics: new Proxy({}, { get: () => gauge }),
    retention: { ledgerMs: () => Number.POSITIVE_INFINITY, dispatchMs: () => 30 * dayMs, parkedMs: () => 30 * dayMs, oldest: () => undefined },
    ledger: { owner: () => mark, position: () => 40, intent: () => undefined, parks: (_partition: number, after?: string) => (after === undefined ? over.parked ?? [] : []), apply: () => undefined, end: () => undefined, lastDelivered: () => undefined },
    serde: {
      known: () => true, decode: () => ({ name: 'weir.internal.Delivery', value: { ...delivery } }),
      encode: (name: string, value: { owner?: string; token?: number; state?: string }) => {
        if (name === 'weir.internal.LedgerOwner') mark = { token: value.token!, owner: value.owner! };
        if (name === 'weir.internal.LedgerEnd') ended.push(value.state!);
        return Buffer.from(name);
      },
    },
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly unknown[]) => Promise.resolve(records.map(() => (topic.includes('.parked.') ? 8 : appended++))) },
    admin: { beginningOffsets: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map()), endOffsets: () => Promise.resolve(new Map([[0, 8]])) },
    reader: { read: (_topic: string, _partition: number, _from: number, _to: number, take: (batch: object) => unknown) => Promise.resolve(take({ records: [{ offset: 7, timestamp: clock.at - 28 * dayMs, key: Buffer.from('anna'), value: Buffer.from('v'), headers: [] }], nextOffset: 8 })).then(() => undefined) },
    consumer: () => ({ holds: () => true, assignments: () => [], pause: () => undefined, resume: () => undefined, commit: () => Promise.resolve(), leaseUntil: () => 1e15 }),
    parkedTable: createDisk().open({ path: 'parked' }), turns: { next: () => Promise.resolve(), over: () => false, share: () => () => true },
    takeover: { load: () => Promise.resolve(), reach: () => undefined, catchUp: () => Promise.resolve() },
    quota: { lost: () => undefined, take: () => (over.batch === undefined ? 1e9 : 0), state: () => ({ closedMs: 0 }), finished: () => undefined },
    workspaceKey: Buffer.alloc(32), callTimeoutMs: 1000, lease: { covers: () => true, began: () => () => undefined }, credential: { accepted: () => undefined },
    http: { call: (request: { items: number }, { onBeforeWrite }: { onBeforeWrite: () => boolean }) => {
      if (!onBeforeWrite()) throw new Error('kept back');
      batches.push(request.items);
      return Promise.resolve({ status: 200, headers: {} });
    } },
    consent: { atLeast: over.atLeast ?? (() => true), allows: () => ({ ok: true }) },
    destination: () => destination, configured: () => destination,
  } as unknown as DestinationPorts;
  const runner = createDestinationRunner(ports);
  const turns = async (): Promise<void> => { for (let i = 0; i < 10; i++) await new Promise((done) => { setImmediate(done); }); };
  return {
    runner, ended, turns, batches,
    /** One assignment with so many records of different people. */
    async assign(epoch: number, records: number): Promise<Assignment> {
      const assignment: Assignment = { topic, partition: 0, epoch, position: 0 };
      await runner.handlers.assigned([assignment]);
      const list = Array.from({ length: records }, (_, offset) => ({ offset, timestamp: clock.at, key: Buffer.from(`s${offset}`), value: Buffer.from('v'), headers: [] }));
      if (records > 0) runner.handlers.batch({ topic, partition: 0, epoch, records: list, nextOffset: records, highWatermark: records } as unknown as RecordBatch);
      await turns();
      return assignment;
    },
    pass(ms: number): void {
      for (const _ of clock.turn(ms));
    },
  };
}

test('a destination that is off keeps in line what it owns, and nothing of what each rebalance left behind', async () => {
  const { runner, assign } = world({ enabled: false });
  for (let epoch = 1; epoch <= 5; epoch++) {
    const assignment = await assign(epoch, 100);
    expect(runner.status().ready).toBe(100);
    await runner.handlers.revoked([assignment], epoch % 2 === 0 ? 'lost' : 'rebalance');
    expect(runner.status().ready).toBe(0);
  }
});

test('what is parked and stands ready for a destination that is off leaves as expiring, too, though nothing waits on its own topic', async () => {
  const now = 100 * dayMs;
  const { runner, assign, ended, turns } = world({ enabled: false, now, parked: [{ key: '#park/x/0/anna', subject: 'anna', fromOffset: 7, due: 1, reason: 'http-5xx', attempts: 4, maybeSince: 0, since: now - 28 * dayMs }] });
  await assign(1, 0);
  expect([runner.status().ready, ended]).toEqual([1, []]);
  runner.sweep();
  await turns();
  expect(ended).toEqual(['dead-lettered']);
});

test('deliveries that wait for the tables of consent are not looked at so often that nobody has time to read them', async () => {
  let looks = 0;
  const { assign, pass } = world({ atLeast: () => {
    if (++looks > 30_000) throw new Error('too many looks');
    return false;
  } });
  await assign(1, 1000);
  looks = 0;
  pass(1000);
  expect(looks).toBeGreaterThan(1000);
  expect(looks).toBeLessThan(12_000);
});

test('what a fetch brought goes in full batches: its first delivery does not go in a call of its own', async () => {
  const { assign, batches } = world({ batch: 50 });
  await assign(1, 220);
  expect(batches).toEqual([50, 50, 50, 50, 20]);
});
