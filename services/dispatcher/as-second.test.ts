import { expect, test } from 'vitest';
import { createAsSecond } from './as-second.ts';
import type { BreakerState } from './breaker.ts';
import { createPaths } from './paths.ts';
import type { DestinationPorts } from './ports.ts';

test('with its breaker open it is a second vendor for one delivery now and then, where nothing of its own waits; a question takes nothing of that', () => {
  let [now, waits] = [1000, false];
  let breaker = { state: 'open', failures: 5, openings: 1, until: 2000, reason: 'vendor-unavailable' } as BreakerState;
  const ports = { clock: { monotonic: () => now }, destination: () => ({ enabled: true, operations: { put: {} } }) } as unknown as DestinationPorts;
  const asSecond = createAsSecond({ ports, paths: createPaths(), breaker: () => breaker, waits: () => waits });
  const usable = (): boolean => asSecond('put')!.usable;
  expect([usable(), asSecond('other')]).toEqual([false, undefined]);
  now = 2000;
  waits = true;
  expect(usable()).toBe(false);
  waits = false;
  expect([usable(), usable()]).toEqual([true, true]);
  asSecond('put')!.given();
  expect(usable()).toBe(false);
  now += 30_000;
  expect(usable()).toBe(true);
  breaker = { ...breaker, state: 'closed' };
  asSecond('put')!.given();
  expect(usable()).toBe(true);
});
