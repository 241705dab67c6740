import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { makeDeadLetters, replayProof, startReplayWorld, type ReplayWorld } from '../integrity/replay-world.ts';

let world: ReplayWorld;
beforeAll(async () => { world = await startReplayWorld({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => world?.dispose());

test('100,000 dead letters of which 40,000 had been applied: the replay makes exactly the other 60,000 take effect, with control killed twice and the dispatcher once', async () => {
  const events = 100_000;
  const began = performance.now();
  await makeDeadLetters(world, events, 900_000);
  const madeMs = Math.round(performance.now() - began);
  const kills = [{ service: 'control', atRequeued: 20_000 }, { service: 'dispatcher', atRequeued: 40_000 }, { service: 'control', atRequeued: 60_000 }] as const;
  const found = await replayProof(world, events, { rate: 0, kills, deadlineMs: 600_000 });
  const file = resolve(import.meta.dirname, '../../docs/results/replay-100k.json');
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, `${JSON.stringify({ date: new Date().toISOString(), cores: cpus().length, cpu: cpus()[0]?.model ?? '', node: process.version, deadLetters: events, madeMs, ...found }, null, 2)}\n`);
  expect(found).toMatchObject({ unknown: 40_000, notApplied: 60_000, verifiedApplied: 40_000, named: 40_000, effectsBefore: 40_000, newEffects: 60_000, twice: 0, selected: events, requeued: events, ended: { delivered: events } });
}, 1_800_000);
