import type { DestinationConfig, DestinationSwitch } from '@weir/release';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSwitches } from './switches.ts';

const crm = { name: 'crm', enabled: true } as DestinationConfig;
const clock = { now: () => Date.now(), monotonic: () => performance.now() };

test('a paused destination is disabled at the next question, only it, and enabled again by a resume', () => {
  const state = new Map<string, DestinationSwitch>();
  const switches = createSwitches({ switches: () => state, ageMs: () => 0 }, 6000, clock);
  const set = (paused: boolean): unknown => state.set('crm', { destination: 'crm', paused, reason: null, by: 'admin', at: 0 });
  expect(switches.apply(crm)).toBe(crm);
  set(true);
  expect(switches.apply(crm)!.enabled).toBe(false);
  expect(switches.apply({ ...crm, name: 'other' })!.enabled).toBe(true);
  set(false);
  expect(switches.apply(crm)).toBe(crm);
});

test('a resume does not enable what the workspace disabled, and a destination that is gone stays gone', () => {
  const switches = createSwitches({ switches: () => new Map(), ageMs: () => 0 }, 6000, clock);
  expect(switches.apply({ ...crm, enabled: false })!.enabled).toBe(false);
  expect(switches.apply(undefined)).toBeUndefined();
});

/** weir.control as it was read last at some moment, and two clocks. */
function world(leaseMs = 6000) {
  const time = { monotonic: 1_000_000, wall: 2_000_000 };
  let read = { ...time };
  let looks = 0;
  const releases = { switches: () => new Map(), ageMs: () => (looks++, Math.max(time.monotonic - read.monotonic, time.wall - read.wall)) };
  return {
    switches: createSwitches(releases, leaseMs, { now: () => time.wall, monotonic: () => time.monotonic }),
    pass: (ms: number, wallMs = ms) => Object.assign(time, { monotonic: time.monotonic + ms, wall: time.wall + wallMs }),
    /** It never goes back. */
    read: (agoMs = 0) => { if (time.monotonic - agoMs > read.monotonic || agoMs === Number.POSITIVE_INFINITY) read = { monotonic: time.monotonic - agoMs, wall: time.wall - agoMs }; },
    looks: () => looks,
    age: releases.ageMs,
  };
}

test('whoever has not read weir.control for a lease calls nobody: a switch may be on it; what is read again goes on', () => {
  const { switches, pass, read } = world();
  pass(5999);
  expect([switches.apply(crm), switches.known()]).toEqual([crm, true]);
  pass(1);
  expect([switches.apply(crm)!.enabled, switches.known()]).toEqual([false, false]);
  read(Number.POSITIVE_INFINITY);
  expect(switches.apply(crm)!.enabled).toBe(false);
  expect(switches.heldBack()).toBe(false);
  read(20);
  expect(switches.apply(crm)).toBe(crm);
  // However short it was: who was told no then has to be told.
  expect([switches.heldBack(), switches.heldBack()]).toEqual([true, false]);
});

test('a look counts until what was read by it runs out: asked for each call, the follower is asked once', () => {
  const { switches, pass, read, looks } = world();
  for (let i = 0; i < 100; i++) switches.apply(crm);
  expect(looks()).toBe(1);
  read();
  pass(5999);
  expect([switches.known(), looks()]).toEqual([true, 1]);
  // Read meanwhile: it is looked again, and goes on.
  read();
  pass(2);
  expect([switches.known(), looks()]).toEqual([true, 2]);
});

test('by neither clock a look outlasts the lease: it says known only where asking each time would', () => {
  const step = fc.oneof(fc.record({ read: fc.nat({ max: 100 }) }), fc.record({ pass: fc.nat({ max: 3000 }), wall: fc.integer({ min: 0, max: 9000 }) }));
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const { switches, pass, read, age } = world();
    for (const now of steps) {
      if ('read' in now) read(now.read);
      else pass(now.pass, now.wall);
      expect(switches.known()).toBe(age() < 6000);
    }
  }));
});
