/** What the port promises (packages/log/types.ts), held against each driver on a real broker; the longest over the default driver only, over the other one in tests/full/log.test.ts. */
import { afterAll, beforeAll, describe } from 'vitest';
import { appendCases } from './append-cases.ts';
import { groupCases } from './group-cases.ts';
import { readerCases } from './reader-cases.ts';
import { serdeCases } from './serde-cases.ts';
import { tableCases } from './table-cases.ts';
import { startWorld, type DriverName, type World } from './world.ts';

let world: World;
const theWorld = (): World => world;
const drivers: readonly DriverName[] = ['platformatic', 'kafkajs'];

beforeAll(async () => { world = await startWorld(); }, 180_000);
afterAll(async () => { await world?.stop(); }, 60_000);

describe.each(drivers)('%s', { timeout: 90_000 }, (driver) => {
  const long = driver === 'platformatic';
  appendCases(theWorld, driver, long);
  groupCases(theWorld, driver, long);
  readerCases(theWorld, driver);
});

describe('topic table', { timeout: 60_000 }, () => tableCases(theWorld));

describe('serde', { timeout: 120_000 }, () => serdeCases(theWorld));
