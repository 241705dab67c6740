import type { Routes } from '@weir/policy';
import { expect, test } from 'vitest';
import { consentPort } from './consent-port.ts';

test('a release that changes while a delivery waits is asked anew, by its own routes; tables that are closed stay so', () => {
  const [one, other] = [{ routes: new Map() }, { routes: new Map() }] as [Routes, Routes];
  let running = one;
  let version = 7;
  const asked: unknown[] = [];
  const port = consentPort({ version: () => version, atLeast: () => true, allows: (...by) => (asked.push(by.at(-1)), { ok: true, seen: [] }) }, () => running);
  const said = [port.version(), port.version()];
  port.allows(['email:x'], 'news', 'email', null, 'consent', 1);
  running = other;
  said.push(port.version());
  port.allows(['email:x'], 'news', 'email', null, 'consent', 1);
  version = 8;
  said.push(port.version());
  expect([new Set(said).size, said[0] === said[1], asked[0] === one, asked[1] === other]).toEqual([3, true, true, true]);
  version = -1;
  expect(port.version()).toBe(-1);
});
