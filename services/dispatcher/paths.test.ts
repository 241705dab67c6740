import type { OperationManifest } from '@weir/adapter';
import { expect, test } from 'vitest';
import { createPaths, type Path, type PathQuota } from './paths.ts';

const manifest = (maxItems?: number): OperationManifest => ({ kind: 'use', accepts: [], doc: '', idempotency: { scheme: 'natural-upsert', pastWindow: 'resend', cite: '' }, ...(maxItems === undefined ? {} : { batch: { maxItems, maxBytes: 1e6, cite: '' } }) });
const single: Path = { operation: 'single', manifest: manifest() };
const other: Path = { operation: 'other', manifest: manifest() };
const bulk: Path = { operation: 'bulk', manifest: manifest(100) };
const free: PathQuota = { waitMs: 0, perSecond: Number.POSITIVE_INFINITY };

test('nothing known: the first of the list, so that the author says the order', () => {
  expect(createPaths().choose([single, other], () => free, 0)).toBe(single);
});

test('the slow path is left for the fast one, a failing one for one that works, and it is tried again later', () => {
  const paths = createPaths();
  const pick = (now: number) => paths.choose([single, other], () => free, now).operation;
  for (let i = 0; i < 20; i++) paths.measured('single', 900, false, 1, i);
  paths.measured('other', 50, false, 1, 20);
  expect(pick(20)).toBe('other');
  for (let i = 0; i < 40; i++) paths.measured('other', 50, true, 1, 21);
  expect(pick(21)).toBe('single');
  expect(pick(21 + 5 * 30_000)).toBe('other');
});

test('a path without quota is left for one that has some, and bulk counts by delivery', () => {
  const paths = createPaths();
  expect(paths.choose([single, other], (p) => (p === single ? { waitMs: 5000, perSecond: 10 } : free), 0)).toBe(other);
  for (let i = 0; i < 5; i++) {
    paths.measured('single', 50, false, 1, i);
    paths.measured('bulk', 400, false, 100, i);
  }
  expect(paths.choose([single, bulk], () => free, 5)).toBe(bulk);
  // One delivery at a time: there is nothing to group, and the single endpoint is sooner.
  for (let i = 0; i < 40; i++) paths.measured('bulk', 400, false, 1, 6);
  expect(paths.choose([single, bulk], () => free, 6)).toBe(single);
});
