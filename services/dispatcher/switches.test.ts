import type { DestinationConfig, DestinationSwitch } from '@weir/release';
import { expect, test } from 'vitest';
import { createSwitches } from './switches.ts';

const crm = { name: 'crm', enabled: true } as DestinationConfig;

test('a paused destination is disabled at the next question, only it, and enabled again by a resume', () => {
  const state = new Map<string, DestinationSwitch>();
  const switches = createSwitches({ switches: () => state, ageMs: () => 0 }, 6000);
  const set = (paused: boolean): unknown => state.set('crm', { destination: 'crm', paused, reason: null, by: 'admin', at: 0 });
  expect(switches.apply(crm)).toBe(crm);
  set(true);
  expect(switches.apply(crm)!.enabled).toBe(false);
  expect(switches.apply({ ...crm, name: 'other' })!.enabled).toBe(true);
  set(false);
  expect(switches.apply(crm)).toBe(crm);
});

test('a resume does not enable what the workspace disabled, and a destination that is gone stays gone', () => {
  const switches = createSwitches({ switches: () => new Map(), ageMs: () => 0 }, 6000);
  expect(switches.apply({ ...crm, enabled: false })!.enabled).toBe(false);
  expect(switches.apply(undefined)).toBeUndefined();
});

test('whoever has not read weir.control for a lease calls nobody: a switch may be on it; what is read again goes on', () => {
  let ageMs = 5999;
  const switches = createSwitches({ switches: () => new Map(), ageMs: () => ageMs }, 6000);
  expect([switches.apply(crm), switches.known()]).toEqual([crm, true]);
  ageMs = 6000;
  expect([switches.apply(crm)!.enabled, switches.known()]).toEqual([false, false]);
  ageMs = Number.POSITIVE_INFINITY;
  expect(switches.apply(crm)!.enabled).toBe(false);
  expect(switches.heldBack()).toBe(false);
  ageMs = 20;
  expect(switches.apply(crm)).toBe(crm);
  // However short it was: who was told no then has to be told.
  expect([switches.heldBack(), switches.heldBack()]).toEqual([true, false]);
});
