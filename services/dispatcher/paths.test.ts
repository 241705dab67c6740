import type { OperationManifest } from '@weir/adapter';
import type { DestinationConfig } from '@weir/release';
import { expect, test } from 'vitest';
import { createPaths, leavePath, withPath, type Path, type PathQuota } from './paths.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

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

test('a path that refuses at once is not taken for a fast one', () => {
  const paths = createPaths();
  paths.measured('other', 150, false, 1, 0);
  for (let i = 0; i < 50; i++) paths.measured('single', 1, true, 1, 0);
  expect(paths.choose([single, other], () => free, 0)).toBe(other);
  // Nor once most of its errors are forgotten, as long as it costs more than what it would save.
  expect(paths.choose([single, other], () => free, 60_000)).toBe(other);
  expect(paths.choose([single, other], () => free, 5 * 60_000)).toBe(single);
});

test('a delivery that may have been applied does not wait for the path that fails while another one answers', () => {
  const paths = createPaths();
  const ports = { clock: { monotonic: () => 0 }, quota: { state: () => ({ available: 1, perSecond: Number.POSITIVE_INFINITY, closedMs: 0 }) } } as unknown as DestinationPorts;
  const destination = { operations: { single: single.manifest, other: other.manifest }, paths: new Map([['single', ['single', 'other']]]) } as unknown as DestinationConfig;
  const task = { delivery: { operation: 'single' }, path: '', maybeSince: 0 } as unknown as Task;
  const next = (prefer?: string) => withPath(ports, paths, destination, task, { kind: 'call', operation: single.manifest }, prefer);
  expect([next(), task.path]).toEqual([{ kind: 'call', operation: single.manifest }, 'single']);
  task.maybeSince = 1;
  paths.measured('single', 3, true, 1, 0);
  expect([next(), task.path]).toEqual([{ kind: 'call', operation: other.manifest }, 'other']);
  expect([next('single'), task.path]).toEqual([{ kind: 'call', operation: single.manifest }, 'single']);
});

test('a path that a delivery cannot be built for is not taken again while another one is left, though it is the better one or that of the batch', () => {
  const paths = createPaths();
  const ports = { clock: { monotonic: () => 0 }, quota: { state: () => ({ available: 1, perSecond: Number.POSITIVE_INFINITY, closedMs: 0 }) } } as unknown as DestinationPorts;
  const of = (names: readonly string[]) => ({ operations: { single: single.manifest, other: other.manifest, bulk: bulk.manifest }, paths: new Map([['single', names]]) }) as unknown as DestinationConfig;
  const task = { delivery: { operation: 'single' }, path: '' } as unknown as Task;
  const next = (names: readonly string[], prefer?: string): string => {
    withPath(ports, paths, of(names), task, { kind: 'call', operation: single.manifest }, prefer);
    return task.path;
  };
  expect(next(['single', 'bulk'])).toBe('bulk');
  expect(leavePath(of(['single', 'bulk']), task)).toBe(true);
  expect([next(['single', 'bulk']), next(['single', 'bulk'], 'bulk')]).toEqual(['single', 'single']);
  expect(leavePath(of(['single', 'bulk']), task)).toBe(false);
  // Another release: a path that was not tried, or none but those that were, which are tried once more and end it.
  expect(next(['single', 'other'])).toBe('other');
  expect(next(['single', 'bulk'])).toBe('bulk');
  expect(leavePath(of(['single', 'bulk']), task)).toBe(false);
  expect(leavePath({ paths: new Map() } as unknown as DestinationConfig, { delivery: { operation: 'single' }, path: '' } as unknown as Task)).toBe(false);
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
