import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeirError, type ErrorCode } from '@weir/errors';
import type { Incident } from '@weir/release';
import { openTable } from '@weir/state';
import { Registry } from 'prom-client';
import { afterEach, expect, test } from 'vitest';
import { createStore, type Store } from './store.ts';
import { createUnresolved } from './unresolved.ts';

const ends: (() => Promise<void>)[] = [];
afterEach(async () => { for (const end of ends.splice(0)) await end(); });

/** Its looks are made by hand; what it saves is on weir.control at once. */
function world() {
  const dir = mkdtempSync(join(tmpdir(), 'weir-unresolved-'));
  const store = createStore(openTable({ path: dir }));
  const incidents = new Map<string, Incident>();
  const saves: Incident[] = [];
  const timers: (() => void)[] = [];
  const errors: unknown[] = [];
  let failing: ErrorCode | undefined;
  let now = 5000;
  const registry = new Registry();
  const found = createUnresolved({
    store, registry, incidents: () => incidents, failed: (error) => errors.push(error),
    save: (incident) => {
      if (failing !== undefined) return Promise.reject(new WeirError(failing, 'away'));
      saves.push(incident);
      incidents.set(incident.destination, incident);
      return Promise.resolve();
    },
    clock: { now: () => now, setTimer: (run) => timers.push(run), clearTimer: () => undefined },
  });
  ends.push(async () => {
    found.close();
    await store.close();
    rmSync(dir, { recursive: true, force: true });
    expect(errors).toEqual([]);
  });
  return { store, saves, found, registry, timers, failSaves(code: ErrorCode | undefined, at = now): void { [failing, now] = [code, at]; }, async look() {
    timers.shift()!();
    while (timers.length === 0) await new Promise((done) => setImmediate(done));
  } };
}
let offset = 0;
function letter(store: Store, eventId: string, at: number, source = 'onetrust', codes = ['mapping-failed', 'consent-unresolved']): void {
  const tx = store.begin();
  tx.deadLetter(`dlq_${eventId}_${at}`, { eventId, stage: 'normalizer', codes, source, destination: null, release: 'r', at });
  tx.ended(eventId, 'dead-lettered', at, '');
  tx.commit('dlq', 0, ++offset);
}
function putBack(store: Store, eventId: string, at: number): void {
  const tx = store.begin();
  tx.reopened(eventId, 'rpl_1', at);
  tx.commit('raw', 0, ++offset);
}

test('letters that carry a change of consent are one incident of their source, from the first of them, until all are put back', async () => {
  const { store, saves, found, registry, look } = world();
  letter(store, 'e0', 50, 'shop', ['mapping-failed']);
  await look();
  expect([found.view().size, saves]).toEqual([0, []]);
  letter(store, 'e2', 200);
  letter(store, 'e1', 100);
  await look();
  expect(found.view().get('consent/onetrust')).toEqual({ source: 'onetrust', open: 2, since: 100 });
  expect(saves).toEqual([{ destination: 'consent/onetrust', code: 'consent-unresolved', since: 100, until: null }]);
  expect(await registry.metrics()).toContain('weir_consent_unresolved{source="onetrust"} 2');
  putBack(store, 'e1', 300);
  await look();
  expect([found.view().get('consent/onetrust')!.open, saves.length]).toEqual([1, 1]);
  putBack(store, 'e2', 301);
  await look();
  expect(found.view().size).toBe(0);
  expect(saves.at(-1)).toEqual({ destination: 'consent/onetrust', code: 'consent-unresolved', since: 100, until: 5000 });
  await look();
  expect(saves.length).toBe(2);
});

test('one that is set aside again after it was put back is open again, counted once', async () => {
  const { store, found, look } = world();
  letter(store, 'e1', 100);
  putBack(store, 'e1', 200);
  letter(store, 'e1', 300);
  await look();
  expect(found.view().get('consent/onetrust')).toMatchObject({ open: 1 });
});

function many(store: Store, count: number): void {
  const tx = store.begin();
  for (let n = 0; n < count; n++) {
    tx.deadLetter(`dlq_${n}`, { eventId: `e${n}`, stage: 'normalizer', codes: ['consent-unresolved'], source: 'onetrust', destination: null, release: 'r', at: 100 + n });
    tx.ended(`e${n}`, 'dead-lettered', 100 + n, '');
  }
  tx.commit('dlq', 0, ++offset);
}

test('a look at many events lets others work meanwhile, and the next one is not begun before it is over', async () => {
  const { store, found, timers, saves } = world();
  many(store, 3000);
  timers.shift()!();
  let turns = 0;
  while (found.view().size === 0) {
    expect(timers).toEqual([]);
    turns++;
    await new Promise((done) => setImmediate(done));
  }
  expect(turns).toBeGreaterThanOrEqual(5);
  expect(found.view().get('consent/onetrust')).toEqual({ source: 'onetrust', open: 3000, since: 100 });
  while (timers.length === 0) await new Promise((done) => setImmediate(done));
  expect([timers.length, saves.length]).toEqual([1, 1]);
});

test('a look that is closed in the middle reads nothing of a store that is closed, saves nothing and is the last one', async () => {
  const { store, found, timers, saves } = world();
  many(store, 1000);
  const reads: string[] = [];
  let closed = false;
  const { endedAs } = store;
  Object.assign(store, { endedAs: (eventId: string) => {
    if (closed) reads.push(eventId);
    return endedAs(eventId);
  } });
  timers.shift()!();
  await new Promise((done) => setImmediate(done));
  found.close();
  await store.close();
  closed = true;
  for (let turn = 0; turn < 10; turn++) await new Promise((done) => setImmediate(done));
  expect([reads, saves, found.view().size, timers.length]).toEqual([[], [], 0, 0]);
});

test('what ingest itself set aside is an incident, too, until somebody closes it: no stage ever ends it', async () => {
  const { store, found, look } = world();
  const tx = store.begin();
  tx.deadLetter('dlq_big', { eventId: 'big', stage: 'ingest', codes: ['item-too-large', 'consent-unresolved'], source: 'onetrust', destination: null, release: null, at: 70 });
  tx.commit('dlq', 0, ++offset);
  await look();
  expect(found.view().get('consent/onetrust')).toEqual({ source: 'onetrust', open: 1, since: 70 });
  const settled = store.begin();
  settled.ended('big', 'dropped', 80, '');
  settled.commit('outcome', 0, ++offset);
  await look();
  expect(found.view().size).toBe(0);
});

test('an incident that cannot be written while brokers are away is written by a later look, and ends no process', async () => {
  const { store, saves, look, failSaves } = world();
  letter(store, 'e1', 100);
  failSaves('log-append-failed');
  await look();
  failSaves('log-deadline', 20_000);
  await look();
  failSaves(undefined, 40_000);
  await look();
  expect(saves).toEqual([{ destination: 'consent/onetrust', code: 'consent-unresolved', since: 100, until: null }]);
});
