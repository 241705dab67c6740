import { startInstance, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { runStorm } from './throttling.ts';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

/** The other forms, with a crash in each: tests/full/throttling.test.ts. */
test('a storm of 429 with an absurd Retry-After: never more than one burst over the limit that nobody stated, nothing is dead-lettered, the order stays', async () => {
  const limit = 40;
  const [people, each] = [20, 3];
  const figures = await runStorm(weir, 'absurd', { people, each, limit });
  console.log(JSON.stringify(figures));
  expect(figures).toMatchObject({ delivered: people * each, deadLettered: 0, outOfOrder: 0 });
  expect(figures.refused).toBeGreaterThan(0);
  expect(figures.mostPerSecond).toBeLessThanOrEqual(2 * limit);
}, 300_000);
