import { startInstance, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { runStorm } from './throttling.ts';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

test.each([['date', 6], ['absurd', 3]])('a storm of 429 with Retry-After as %s: never more than one burst over the limit that nobody stated, nothing is dead-lettered, the order stays', async (form, each) => {
  const limit = 40;
  const figures = await runStorm(weir, form, { people: 20, each, limit, crash: false });
  console.log(JSON.stringify(figures));
  expect(figures).toMatchObject({ delivered: 20 * each, deadLettered: 0, outOfOrder: 0 });
  expect(figures.refused).toBeGreaterThan(0);
  expect(figures.mostPerSecond).toBeLessThanOrEqual(2 * limit);
}, 300_000);
