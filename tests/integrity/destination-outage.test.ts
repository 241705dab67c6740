import { expect, inject, test } from 'vitest';
import { runOutage, startLoad } from './load/world.ts';

test('a destination that is down for two hours of simulated time costs the others nothing, and its events wait on Kafka, not in memory', async () => {
  const world = await startLoad({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), people: 2000, destinations: { down: 32, steady: 16 } });
  try {
    const figures = await runOutage(world, { events: 30_000, otherPerSecond: 100, baselineMs: 4000, steps: 80 });
    console.log(JSON.stringify(figures));
    expect(figures).toMatchObject({ deliveredAfter: 30_000, outOfOrder: 0, repeated: 0 });
    expect(figures.anonGrowthMb).toBeLessThanOrEqual(64);
    expect(figures.probes).toBeGreaterThan(10);
    // Milliseconds of other processes on the machine are in both: the long run in tests/full is the measure.
    expect(figures.otherP99DuringMs).toBeLessThanOrEqual(Math.max(2 * figures.otherP99BeforeMs, figures.otherP99BeforeMs + 250));
  } finally {
    await world.dispose();
  }
}, 240_000);
