import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createLease, moment } from './lease.ts';

/** Both clocks, turned by hand. */
const clock = { monotonic: 0, wall: 0 };
const pass = (monotonic: number, wall = monotonic): void => {
  clock.monotonic += monotonic;
  clock.wall += wall;
};

beforeEach(() => {
  Object.assign(clock, { monotonic: 50_000, wall: 1_800_000_000_000 });
  vi.spyOn(performance, 'now').mockImplementation(() => clock.monotonic);
  vi.spyOn(Date, 'now').mockImplementation(() => clock.wall);
});
afterEach(() => { vi.restoreAllMocks(); });

test('a machine that was suspended past its session does not take its lease for good, though its monotonic clock stood still', () => {
  const lease = createLease();
  lease.set([moment(), 20_000]);
  pass(5000);
  expect([lease.left(), lease.until()]).toEqual([15_000, 70_000]);
  pass(0, 600_000);
  expect([lease.left() < 0, lease.over()]).toEqual([true, false]);
  expect(lease.until()).toBeLessThan(clock.monotonic);
});

test('a wall clock that is set back prolongs nothing; one that is set forward ends the lease, and the next heartbeat renews it', () => {
  const lease = createLease();
  lease.set([moment(), 20_000]);
  pass(0, -3_600_000);
  expect(lease.until()).toBe(70_000);
  pass(20_000);
  expect([lease.left(), lease.over()]).toEqual([0, true]);
  lease.set([moment(), 20_000]);
  pass(10, 3_600_000);
  expect(lease.left()).toBeLessThan(0);
  lease.set([moment(), 20_000]);
  expect(lease.left()).toBe(20_000);
});

test('of two ends the sooner counts, by each clock; one that was ended, or never begun, has nothing left', () => {
  const lease = createLease();
  expect(lease.left()).toBeLessThan(0);
  const steady = moment();
  pass(8000);
  lease.set([moment(), 20_000], [steady, 10_000]);
  expect(lease.left()).toBe(2000);
  lease.end();
  expect(lease.left()).toBeLessThan(0);
});
