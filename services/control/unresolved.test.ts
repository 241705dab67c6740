import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
  const registry = new Registry();
  const found = createUnresolved({
    store, registry, incidents: () => incidents, failed: (error) => errors.push(error),
    save: (incident) => {
      saves.push(incident);
      incidents.set(incident.destination, incident);
      return Promise.resolve();
    },
    clock: { now: () => 5000, setTimer: (run) => timers.push(run), clearTimer: () => undefined },
  });
  ends.push(async () => {
    found.close();
    await store.close();
    rmSync(dir, { recursive: true, force: true });
    expect(errors).toEqual([]);
  });
  return { store, saves, found, registry, async look() {
    timers.shift()!();
    while (timers.length === 0) await new Promise((done) => setImmediate(done));
  } };
}
let offset = 0;
function letter(store: Store, eventId: string, at: number, source = 'onetrust', codes = ['mapping-failed', 'consent-unresolved']): void {
  const tx = store.begin();
  tx.deadLetter(`dlq_${eventId}_${at}`, { eventId, stage: 'normalizer', codes, source, destination: null, release: 'r', at });
  tx.ended(eventId, 'dead-lettered', at);
  tx.commit('dlq', 0, ++offset);
}
function putBack(store: Store, eventId: string, at: number): void {
  const tx = store.begin();
  tx.reopened(eventId, at);
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
