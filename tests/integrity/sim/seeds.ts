import { expect, test } from 'vitest';
import { check } from './checkers.ts';
import { apart, planned, points } from './faults.ts';
import { simulate } from './world.ts';

async function violations(from: number, count: number): Promise<{ problems: string[]; passed: Set<string>; fewest: number }> {
  const problems: string[] = [];
  const passed = new Set<string>();
  let fewest = Infinity;
  for (let seed = from; seed < from + count; seed++) {
    const run = await simulate(seed);
    problems.push(...check(run.history).map((p) => `seed ${seed}: ${p}`));
    for (const point of run.faults.keys()) passed.add(point);
    fewest = Math.min(fewest, [...run.faults.values()].reduce((a, b) => a + b, 0));
    if (problems.length > 20) break;
  }
  return { problems, passed, fewest };
}

/** Tests of a hundred seeds: no invariant broken, and every fault point passed. A file for each hundred, so that they run side by side. */
export function testSeeds(first: number): void {
  const passed = new Set<string>();

  // In tens: a run of all in one test would need a time-out that depends on what else the machine does.
  test.each(Array.from({ length: 10 }, (_, i) => first + 10 * i))('ten seeds from %i: nothing is lost, doubled, sent without consent or without lease, or stuck, whatever fails', async (from) => {
    const found = await violations(from, 10);
    for (const point of found.passed) passed.add(point);
    expect(found.problems).toEqual([]);
    expect(found.fewest).toBeGreaterThanOrEqual(5);
  }, 300_000);

  test('the hundred seeds have passed every fault point', () => {
    expect([...Object.keys(points), ...planned, ...apart].filter((p) => !passed.has(p))).toEqual([]);
  });
}
