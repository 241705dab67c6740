import { expect, inject, test } from 'vitest';
import { runOutage, startLoad } from './load/world.ts';

test('a destination that is down for two hours of simulated time costs the others nothing, and its events wait on Kafka, not in memory', async () => {
  const world = await startLoad({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), people: 2000, destinations: { down: 32, steady: 16 } });
  try {
    const figures = await runOutage(world, { before: 3000, events: 8000, otherPerSecond: 50, baselineMs: 2000, steps: 40 });
    console.log(JSON.stringify(figures));
    expect(figures).toMatchObject({ deliveredAfter: 8000, outOfOrder: 0, repeated: 0 });
    expect(figures.anonGrowthMb).toBeLessThanOrEqual(64);
    expect(figures.probes).toBeGreaterThan(0);
    // The other one went on meanwhile; how fast is measured in tests/full, where the machine has nothing else to do.
    expect(figures.otherMeasured).toBeGreaterThan(20);
  } finally {
    await world.dispose();
  }
}, 240_000);
