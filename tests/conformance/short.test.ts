/** What of the conformance of the log port is tried with every `npm test`; all of it: npm run conformance. */
import { afterAll, beforeAll, describe, test } from 'vitest';
import { rows } from './rows/index.ts';
import { drivers, runRow } from './run.ts';
import { startWorld, type World } from './world.ts';

let world: World;
beforeAll(async () => { world = await startWorld(); }, 180_000);
afterAll(async () => { await world?.stop(); }, 120_000);

describe.each(drivers)('%s', (driver) => {
  for (const row of rows.filter((r) => r.short?.includes(driver))) test(`${row.hazards.join(', ')}: ${row.title}`, async () => { await runRow(world, row, driver); }, row.limitMs + 60_000);
});
