import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { pointsOf, untried } from './killers.ts';
import { allFaults, readOptions } from './options.ts';
import { lacking, lacks, sumOf, type Round } from './results.ts';
import { victims } from './world.ts';

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

test('what is wanted when nothing is said grows with the kills: 300 of them are 50,000 events and five at every point', () => {
  expect(readOptions(['--kills', '300', '--seed', '1'])).toMatchObject({ events: 50_100, perPoint: 5 });
  expect(readOptions(['--kills', '25'])).toMatchObject({ events: 4175, perPoint: 0 });
  expect(readOptions(['--kills', '300', '--events', '0', '--per-point', '0'])).toMatchObject({ events: 0, perPoint: 0 });
});

test('every failpoint of the catalogue has a killer, and is counted as long as it lacks kills', () => {
  expect(untried()).toEqual([]);
  const all = victims.flatMap((stage) => pointsOf(stage).map((point) => `${stage} ${point}`));
  expect(lacking(new Map(), 5).size).toBe(all.length);
  expect(lacking(new Map(all.map((name) => [name, 5])), 5).size).toBe(0);
  expect([...lacking(new Map(all.map((name, i) => [name, i === 0 ? 3 : 5])), 5)]).toEqual([[all[0], 2]]);
});

const all = victims.flatMap((stage) => pointsOf(stage).map((point) => `${stage} ${point}`));
const roundOf = (kills: number, events: number, points: Record<string, number>): Round => ({ commit: 'c', at: '', machine: '', seed: 1, round: 0, seconds: 1, kills, uncounted: 0, endedByThemselves: 0, events, effects: 0, faults: {}, points, violations: {} as Round['violations'], firstViolations: [] });
const each = (n: number): Record<string, number> => Object.fromEntries(all.map((name) => [name, n]));

test('a run that has what was wanted lacks nothing; kills, events and points that it lacks are named, and so is a point that hundreds of kills never struck', () => {
  const wanted = { kills: 300, events: 50_100, perPoint: 5 };
  expect(lacks(sumOf([roundOf(300, 50_100, each(5))]), wanted)).toEqual([]);
  expect(lacks(sumOf([]), wanted)).toHaveLength(2 + all.length);
  expect(lacks(sumOf([roundOf(299, 50_000, each(5))]), wanted)).toEqual(['299 of 300 kills', '50000 of 50100 events']);
  expect(lacks(sumOf([roundOf(300, 50_100, { ...each(5), [all[0]!]: 3 })]), wanted)).toEqual([`${all[0]}: 3 of 5 kills`]);
  expect(lacks(sumOf([roundOf(300, 0, { ...each(1), [all[0]!]: 0 })]), { ...wanted, events: 0, perPoint: 0 })).toEqual([`${all[0]}: 0 of 1 kills`]);
  expect(lacks(sumOf([roundOf(25, 0, {})]), { kills: 25, events: 0, perPoint: 0 })).toEqual([]);
});
