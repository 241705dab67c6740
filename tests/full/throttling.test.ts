import { startInstance, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { forms, runStorm, type StormFigures } from '../integrity/throttling.ts';
import { saveResult } from '../results.ts';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

test('storms of 429, a crash in each: the limit is never exceeded by more than one burst, nothing is dead-lettered', async () => {
  const limit = 40;
  const storms: StormFigures[] = [];
  for (const form of Object.keys(forms)) {
    storms.push(await runStorm(weir, form, { people: 40, each: 25, limit, crash: true }));
    console.log(JSON.stringify(storms.at(-1)));
  }
  saveResult('throttling', 'npm run test:full -- tests/full/throttling', { what: 'a vendor with a rate limit that it states nowhere, and Retry-After in three forms; SIGKILL and restart in each; calls counted in the sandbox\'s own log', storms });
  for (const storm of storms) {
    expect(storm).toMatchObject({ delivered: storm.deliveries, deadLettered: 0, outOfOrder: 0 });
    expect(storm.mostPerSecond).toBeLessThanOrEqual(2 * limit);
  }
});
