import { expect, test } from 'vitest';
import { check } from '../integrity/sim/checkers.ts';
import { simulate } from '../integrity/sim/world.ts';

test('1,000 seeds of the simulation hold every invariant', async () => {
  for (let seed = 1; seed <= 1000; seed++) expect(check((await simulate(seed)).history), `seed ${seed}`).toEqual([]);
});
