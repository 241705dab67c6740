import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startFleet } from '@weir/testing';
import { expect, inject, test } from 'vitest';
import { runPoison } from '../integrity/poison.ts';
import { saveResult } from '../results.ts';

test('poison, one in a hundred of a hot person: the neighbours do not notice, and the poison is among the dead letters with its bytes', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-poison-'));
  cpSync(resolve(import.meta.dirname, '../../workspace'), dir, { recursive: true });
  // Its own limit would be the measure.
  rmSync(join(dir, 'destinations/klaviyo.yaml'));
  const options = { brokers: inject('brokers'), registryUrl: inject('registryUrl') };
  const fleet = await startFleet({ ...options, workspace: dir });
  try {
    const figures = await runPoison(fleet, { ...options, perSecond: 150, phaseMs: 15_000, phases: 6 });
    console.log(JSON.stringify(figures));
    saveResult('poison', 'npm run test:full -- tests/full/poison', figures);
    expect(figures.problems).toEqual([]);
    expect(figures.poison).toBeGreaterThan(20);
    expect(figures.deadLettersIntact).toBe(figures.poison);
    expect(figures.neighbours).toBeGreaterThan(3000);
    expect(figures.neighboursP99PoisonedMs).toBeLessThanOrEqual(Math.max(2 * figures.neighboursP99CleanMs, figures.neighboursP99CleanMs + 30));
  } finally {
    await fleet.dispose();
    rmSync(dir, { recursive: true, force: true });
  }
});
