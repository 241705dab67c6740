/** What the port promises over the driver that is not the default, the longest cases too (tests/integrity/log). */
import { afterAll, beforeAll, describe } from 'vitest';
import { appendCases } from '../integrity/log/append-cases.ts';
import { groupCases } from '../integrity/log/group-cases.ts';
import { startWorld, type World } from '../integrity/log/world.ts';

let world: World;
const theWorld = (): World => world;
beforeAll(async () => { world = await startWorld(); }, 180_000);
afterAll(async () => { await world?.stop(); }, 60_000);

describe('kafkajs', { timeout: 90_000 }, () => {
  appendCases(theWorld, 'kafkajs', true);
  groupCases(theWorld, 'kafkajs', true);
});
