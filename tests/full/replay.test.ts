import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { makeDeadLetters, replayProof, startReplayWorld, type ReplayWorld } from '../integrity/replay-world.ts';
import { saveResult } from '../results.ts';

/** Less for a quick look; the result is named after it. */
const events = Number(process.env['WEIR_REPLAY_LETTERS'] ?? 100_000);
/**
 * No more calls at a time than hold four that are cut (two of five are): five in a row without an answer open the breaker, and of those that end in one turn
 * of the dispatcher the ones that were cut come last. With 64, half of the time that it takes to make the letters was the breaker's.
 */
const concurrency = 10;
let world: ReplayWorld;
beforeAll(async () => { world = await startReplayWorld({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), concurrency }); });
afterAll(() => world?.dispose());

test(`${events} dead letters of which two fifths had been applied: the replay makes exactly the other three fifths take effect, with control killed twice and the dispatcher once`, async () => {
  const began = performance.now();
  await makeDeadLetters(world, events, 900_000);
  const madeMs = Math.round(performance.now() - began);
  const kills = [{ service: 'control', atRequeued: events * 0.2 }, { service: 'dispatcher', atRequeued: events * 0.4 }, { service: 'control', atRequeued: events * 0.6 }] as const;
  const found = await replayProof(world, events, { rate: 0, kills, deadlineMs: 600_000 });
  const { order, ...figures } = found;
  const name = `replay-${events}`;
  saveResult(name, `WEIR_REPLAY_LETTERS=${events} npm run test:full -- tests/full/replay.test.ts`, { deadLetters: events, madeMs, ...figures });
  // What an operator sees of it.
  const shown = await world.fleet.cli('replay', 'show', String(order));
  expect(shown).toMatchObject({ code: 0 });
  writeFileSync(resolve(import.meta.dirname, '../../docs/results', `${name}.txt`), `$ weir replay show ${String(order)}\n${shown.out}`);
  expect(found).toMatchObject({ verifiedApplied: events * 0.4, named: events * 0.4, effectsBefore: events * 0.4, newEffects: events * 0.6, twice: 0, selected: events, requeued: events, ended: { delivered: events } });
  // A call that was cut by the load without an effect is unknown, too: the class holds all that were applied.
  expect(Number(found['unknown'])).toBeGreaterThanOrEqual(events * 0.4);
  expect(Number(found['unknown']) + Number(found['notApplied'])).toBe(events);
}, 1_800_000);
