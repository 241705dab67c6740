import { resolve } from 'node:path';
import { fleetServices, startFleet, type Fleet } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { forms, runStorm, type StormFigures } from '../integrity/throttling.ts';
import { saveResult } from '../results.ts';

let weir: Fleet;
beforeAll(async () => { weir = await startFleet({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: resolve(import.meta.dirname, '../../workspace') }); });

/** The vendor goes on, with its limit and its log. */
const crash = async (): Promise<void> => { await Promise.all(fleetServices.filter((s) => s !== 'sandbox').map((s) => weir.restart(s))); };

afterAll(() => weir?.dispose());

test('storms of 429, a crash in each: the limit is never exceeded by more than one burst, nothing is dead-lettered', async () => {
  const limit = 40;
  const storms: StormFigures[] = [];
  for (const form of Object.keys(forms)) {
    storms.push(await runStorm(weir, form, { people: 40, each: 25, limit, crash }));
    console.log(JSON.stringify(storms.at(-1)));
  }
  saveResult('throttling', 'npm run test:full -- tests/full/throttling', { what: 'a vendor with a rate limit that it states nowhere, and Retry-After in three forms; SIGKILL and restart of all services in each, the vendor goes on; calls counted in the sandbox\'s own log', storms });
  for (const storm of storms) {
    expect(storm).toMatchObject({ delivered: storm.deliveries, deadLettered: 0, outOfOrder: 0 });
    expect(storm.mostPerSecond).toBeLessThanOrEqual(2 * limit);
  }
});
