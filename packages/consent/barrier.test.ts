import { WeirError, type ErrorCode } from '@weir/errors';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createConsentBarrier } from './barrier.ts';

/** An instance that has said nothing for longer than its lease, and a broker that answers its tombstone so. */
async function forgotten(code: ErrorCode): Promise<{ instances: number; tried: number; failed: unknown[] }> {
  const clock = createHandClock(1000);
  const failed: unknown[] = [];
  let tried = 0;
  let follow: (batch: object) => Promise<void> = () => Promise.resolve();
  const report = { instance: 'a', incarnation: 'x', leaseMs: 100, folded: [0], identity: [], at: 0 };
  const barrier = createConsentBarrier({
    reader: {
      read: (_topic: string, _partition: number, _from: number, _to: number, take: (batch: object) => Promise<void>) => take({ records: [{ key: Buffer.from('a/x'), value: Buffer.from('v') }], nextOffset: 1 }),
      follow: (_topic: string, _from: object, take: (batch: object) => Promise<void>) => {
        follow = take;
        return Promise.resolve({ close: () => Promise.resolve() });
      },
    },
    admin: { endOffsets: () => Promise.resolve(new Map([[0, 1]])) },
    appender: { append: (_topic: string, [record]: readonly [{ value: Buffer | null }]) => {
      // Its fence is acknowledged, and read.
      if (record.value !== null) {
        setImmediate(() => { void follow({ records: [{ key: Buffer.from('fence/x'), value: record.value }], nextOffset: 2 }); });
        return Promise.resolve([1]);
      }
      tried++;
      return Promise.reject(new WeirError(code));
    } },
    serde: { known: () => true, encode: () => Buffer.from('fence'), decode: (value: Buffer) => ({ name: 'weir.internal.ConsentReport', value: value.toString() === 'fence' ? { ...report, leaseMs: 0 } : report }) },
    topics: { consentApplied: 'applied', identity: 'identity' }, tables: { onAdvance: () => undefined, folded: () => 0, consentPositions: () => [0], identityPositions: () => [0], identityPosition: () => 0, linksEnd: () => undefined, hurryLinks: () => undefined }, clock, fail: (error: unknown) => { failed.push(error); },
  } as never);
  await barrier.start();
  for (const _ of clock.turn(1000)) await new Promise((done) => { setImmediate(done); });
  const instances = barrier.instances();
  await barrier.stop();
  return { instances, tried, failed };
}

test('brokers that do not acknowledge in time that somebody is gone end nobody who waits for withdrawals', async () => {
  for (const code of ['log-append-failed', 'log-deadline', 'log-unavailable'] as const) expect(await forgotten(code)).toEqual({ instances: 0, tried: 1, failed: [] });
  expect((await forgotten('log-fatal')).failed).toEqual([expect.objectContaining({ code: 'log-fatal' })]);
});

test('who begins to wait when nobody is waited for any more is told so at once, and not at the deadline', async () => {
  const barrier = createConsentBarrier({
    tables: { onAdvance: () => undefined, folded: () => 0, consentPositions: () => [0], identityPositions: () => [0], identityPosition: () => 0, linksEnd: () => undefined, hurryLinks: () => undefined, caughtUp: () => true, linked: () => [] },
    clock: createHandClock(1000), topics: { consentApplied: 'applied', identity: 'identity' },
  } as never);
  barrier.giveUp();
  expect(await barrier.applied(new Map([[0, 5]]), ['email:x'], 60_000)).toBe(false);
});
