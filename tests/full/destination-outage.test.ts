import { expect, inject, test } from 'vitest';
import { runOutage, startLoad } from '../integrity/load/world.ts';
import { saveResult } from '../results.ts';

/** A million behind one destination; fewer by WEIR_OUTAGE_EVENTS, for a look. */
const events = Number(process.env['WEIR_OUTAGE_EVENTS'] ?? 1_000_000);

test('two hours down with a million events behind it: at most 64 MB more, the others as before, order kept, all delivered after', async () => {
  const world = await startLoad({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), people: 20_000, destinations: { down: 64, steady: 16 } });
  try {
    const figures = await runOutage(world, { before: 3_000, events, otherPerSecond: 100, baselineMs: 20_000, steps: 240 });
    console.log(JSON.stringify(figures));
    saveResult('destination-outage', 'npm run test:full -- tests/full/destination-outage', figures);
    expect(figures).toMatchObject({ deliveredAfter: events, outOfOrder: 0, repeated: 0 });
    expect(figures.anonGrowthMb).toBeLessThanOrEqual(64);
    expect(figures.otherP99DuringMs).toBeLessThanOrEqual(Math.max(2 * figures.otherP99BeforeMs, figures.otherP99BeforeMs + 30));
  } finally {
    await world.dispose();
  }
}, 2_400_000);
