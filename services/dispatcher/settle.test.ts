import type { Verdict } from '@weir/adapter';
import { expect, test } from 'vitest';
import { closed, onFailure, onStart, type BreakerState } from './breaker.ts';
import type { CallResult } from './call.ts';
import type { Ending } from './ends.ts';
import type { Lane } from './lane.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import { createSettle } from './settle.ts';
import type { Task } from './types.ts';

const settlePorts = { name: 'crm', inLaneTries: 4, clock: { now: () => 0, monotonic: () => 1000, random: () => 0.5 }, topics: { ledger: () => 'ledger' }, serde: { encode: () => Buffer.alloc(0) }, appender: { append: () => Promise.resolve([0]) } } as unknown as DestinationPorts;
const settleRunner = { partition: 0, closed: () => false, writer: { applyOwn: () => undefined }, parking: { park: () => undefined } } as unknown as PartitionRunner;

/** What becomes of a delivery that was refused with 403 at its so many-th call. */
function refused(attempts: number, breaker: BreakerState): string {
  let found = '';
  const settle = createSettle({ ports: settlePorts, breaker: () => breaker, end: () => { found = 'end'; }, later: (_lane, _runner, ms) => { found = `later ${ms}`; }, offer: () => { found = 'offer'; } });
  const runner = { ...settleRunner, parking: { park: (_lane: Lane, _due: number, reason: string) => { found = `park ${reason}`; } } } as unknown as PartitionRunner;
  settle.call({} as Lane, runner, { delivery: {}, key: 'k', attempts, last: { at: 0 } } as unknown as Task, { kind: 'verdict', verdict: { kind: 'auth-broken', effect: 'none', code: 'credential-rejected' } });
  return found;
}

test('a refused delivery waits with its destination for the credential; where that is in order it is parked like any other trouble', () => {
  const paused = onFailure(closed, 1000, 'credential-rejected', { force: true });
  // In line: by a timer of its own it would sleep on when the credential works again.
  expect(refused(1, paused)).toBe('offer');
  expect(refused(9, paused)).toBe('offer');
  expect(refused(1, closed)).toBe('later 150');
  expect(refused(4, closed)).toBe('park credential-rejected');
  // The probe of another is out: its result is not waited for.
  expect(refused(1, onStart(paused))).toBe('later 150');
  expect(refused(9, onFailure(closed, 1000, 'vendor-unavailable', { force: true }))).toMatch(/^later \d{4,5}$/);
});

test('the horizon of a delivery begins at its first call that met trouble of its own: a limit of the vendor and a credential that is broken for all are none', () => {
  const task = { delivery: {}, key: 'k', attempts: 1 } as unknown as Task;
  const met = (at: number, verdict: Verdict, breaker: BreakerState = closed) => {
    task.last = { at, durationMs: 1, verdict: verdict.kind, effect: 'none', status: 503, path: null };
    createSettle({ ports: settlePorts, breaker: () => breaker, end: () => undefined, later: () => undefined, offer: () => undefined }).call({} as Lane, settleRunner, task, { kind: 'verdict', verdict });
    return task.trouble;
  };
  const rejected: Verdict = { kind: 'auth-broken', effect: 'none', code: 'credential-rejected' };
  const failed: Verdict = { kind: 'retry', effect: 'none', code: 'vendor-unavailable' };
  expect(met(10, { kind: 'throttled', effect: 'none', code: 'vendor-throttled' })).toBeUndefined();
  expect(met(20, rejected, onFailure(closed, 1000, 'credential-rejected', { force: true }))).toBeUndefined();
  expect(met(30, failed)).toEqual({ since: 30, at: 30 });
  expect(met(40, { kind: 'throttled', effect: 'none', code: 'vendor-throttled' })).toEqual({ since: 30, at: 30 });
  // The credential is in order: others pass.
  expect(met(50, rejected)).toEqual({ since: 30, at: 50 });
  // A question that had no answer is no other trouble.
  task.last = { ...task.last!, at: 60 };
  createSettle({ ports: settlePorts, breaker: () => closed, end: () => undefined, later: () => undefined, offer: () => undefined }).read({} as Lane, settleRunner, task, { kind: 'read', read: failed as never });
  expect(task.trouble).toEqual({ since: 30, at: 60 });
});

test('a resend that the vendor refuses, that cannot be built or may not be sent any more leaves in doubt what was before it', () => {
  const endings: Ending[] = [];
  const ports = { name: 'crm', metrics: { refused: { inc: () => undefined } }, destination: () => undefined } as unknown as DestinationPorts;
  const settle = createSettle({ ports, breaker: () => closed, end: (_lane, _runner, ending) => { endings.push(ending); }, later: () => undefined, offer: () => undefined });
  const results: CallResult[] = [
    { kind: 'verdict', verdict: { kind: 'permanent', effect: 'none', code: 'delivery-rejected' } },
    { kind: 'unbuildable', code: 'delivery-unbuildable', detail: '' },
    { kind: 'refused', reason: 'consent', detail: 'consent-withdrawn' },
  ];
  const effects = (doubtSince: number): string[] => {
    for (const result of results) settle.call({} as Lane, {} as PartitionRunner, { doubtSince, maybeSince: 0 } as Task, result);
    return endings.splice(0).map(({ state, effect }) => `${state} ${effect}`);
  };
  expect(effects(5)).toEqual(['dead-lettered maybe', 'dead-lettered maybe', 'denied maybe']);
  expect(effects(0)).toEqual(['dead-lettered none', 'dead-lettered none', 'denied none']);
});

test('a refusal that a delivery shares with others ends none of them, is no trouble and halves their next call; what it refuses alone ends', () => {
  const done: string[] = [];
  const ports = { ...settlePorts, destination: () => undefined } as unknown as DestinationPorts;
  const settle = createSettle({ ports, breaker: () => closed, end: (_lane, _runner, { state }) => { done.push(state); }, later: () => { done.push('later'); }, offer: () => { done.push('offer'); } });
  const task = { delivery: {}, key: 'k', attempts: 1, batchLimit: 0, doubtSince: 0, maybeSince: 0 } as unknown as Task;
  const verdict: Verdict = { kind: 'permanent', effect: 'none', code: 'delivery-rejected' };
  const limits = [500, 250, 5, 3, 2].map((sharedBy) => {
    settle.call({} as Lane, settleRunner, task, { kind: 'verdict', verdict, sharedBy });
    return task.batchLimit;
  });
  settle.call({} as Lane, settleRunner, task, { kind: 'verdict', verdict });
  expect(limits).toEqual([250, 125, 3, 2, 1]);
  expect(task.trouble).toBeUndefined();
  expect(done).toEqual(['offer', 'offer', 'offer', 'offer', 'offer', 'dead-lettered']);
});

test('what cannot be built for the path of its call is offered again for another one, and ends when none is left', () => {
  const done: string[] = [];
  const ports = { name: 'crm', destination: () => ({ paths: new Map([['track', ['track', 'bulk']]]) }) } as unknown as DestinationPorts;
  const settle = createSettle({ ports, breaker: () => closed, end: (_lane, _runner, { state, code }) => { done.push(`${state} ${code}`); }, later: () => undefined, offer: () => { done.push('offer'); } });
  const task = { delivery: { operation: 'track' }, path: 'bulk', doubtSince: 0, maybeSince: 0 } as unknown as Task;
  for (const path of ['bulk', 'track']) settle.call({} as Lane, settleRunner, Object.assign(task, { path }), { kind: 'unbuildable', code: 'delivery-unbuildable', detail: '' });
  expect(done).toEqual(['offer', 'dead-lettered delivery-unbuildable']);
});
