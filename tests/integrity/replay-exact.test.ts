import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { makeDeadLetters, replayProof, startReplayWorld, type ReplayWorld } from './replay-world.ts';

let world: ReplayWorld;
beforeAll(async () => { world = await startReplayWorld({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => world?.dispose());

test('1,000 dead letters of which 400 had been applied: preview and verify know them, the replay makes the other 600 take effect, once, with control killed twice and the dispatcher once', async () => {
  await makeDeadLetters(world, 1000, 80_000);
  const kills = [{ service: 'control', atRequeued: 200 }, { service: 'dispatcher', atRequeued: 400 }, { service: 'control', atRequeued: 600 }] as const;
  const found = await replayProof(world, 1000, { rate: 400, kills, deadlineMs: 60_000 });
  expect(found).toMatchObject({ verifiedApplied: 400, named: 400, effectsBefore: 400, newEffects: 600, twice: 0, selected: 1000, requeued: 1000, ended: { delivered: 1000 }, told: true });
  // A call that was cut by the load without an effect is unknown, too: the class holds all that were applied.
  expect(Number(found['unknown'])).toBeGreaterThanOrEqual(400);
  expect(Number(found['unknown']) + Number(found['notApplied'])).toBe(1000);
}, 200_000);
