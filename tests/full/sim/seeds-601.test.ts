import { testSeeds } from '../../integrity/sim/seeds.ts';

testSeeds(601);
