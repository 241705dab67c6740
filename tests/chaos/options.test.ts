import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { pointsOf, untried } from './killers.ts';
import { allFaults, readOptions } from './options.ts';
import { lacking } from './results.ts';
import { stages } from './world.ts';

test.each([[[]], [['--kills']], [['--kills', '0']], [['--kills', '1e3']], [['--kills', '5', '--seed', '-1']], [['--kills', '5', '--faults', 'rain']], [['--kills', '5', '--fault', 'stop']], [['5']]])('%j is refused before anything starts', (args) => {
  expect(typeof readOptions(args)).toBe('string');
});

test('a bad argument ends the command with 2 and says how it is used', () => {
  const { status, stderr } = spawnSync(process.execPath, [resolve(import.meta.dirname, 'main.ts'), '--kills', 'many'], { encoding: 'utf8' });
  expect(status).toBe(2);
  expect(stderr).toMatch(/--kills.*\nusage: npm run chaos/);
});

test('all faults are on unless some are chosen', () => {
  expect(readOptions(['--kills', '300'])).toMatchObject({ kills: 300, seed: 1, faults: new Set(allFaults) });
  expect(readOptions(['--kills', '300', '--faults', 'network,disk'])).toMatchObject({ faults: new Set(['network', 'disk']) });
  expect(readOptions(['--kills', '300', '--faults', ''])).toMatchObject({ faults: new Set() });
});

test('every failpoint of the catalogue has a killer, and is counted as long as it lacks kills', () => {
  expect(untried()).toEqual([]);
  const all = stages.flatMap((stage) => pointsOf(stage).map((point) => `${stage} ${point}`));
  expect(lacking(new Map(), 5).size).toBe(all.length);
  expect(lacking(new Map(all.map((name) => [name, 5])), 5).size).toBe(0);
  expect([...lacking(new Map(all.map((name, i) => [name, i === 0 ? 3 : 5])), 5)]).toEqual([[all[0], 2]]);
});
