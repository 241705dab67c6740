import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { isolated } from './tests/setup/isolated.ts';
import LongestFirst from './tests/setup/longest-first.ts';

const ignored = ['**/node_modules/**', '.cache/**', '.weir/**'];

const unit = ['packages/**/*.test.ts', 'services/**/*.test.ts', 'adapters/**/*.test.ts', 'cli/**/*.test.ts', 'infra/**/*.test.ts', 'scripts/**/*.test.ts', 'schemas/**/*.test.ts', 'tests/contract/**/*.test.ts', 'tests/conformance/checker.test.ts', 'tests/chaos/**/*.test.ts', 'tests/consent-race/**/*.test.ts', 'tests/mutants/**/*.test.ts', 'tests/setup/**/*.test.ts'];

/** They look at how long something takes, or take the broker away from themselves only: nothing runs beside them. */
const alone = ['tests/integrity/kill-switch.test.ts', 'tests/integrity/consent-barrier.test.ts', 'tests/integrity/throttling.test.ts', 'tests/integrity/replay-verify.test.ts', 'tests/integrity/outage.test.ts'];

/**
 * unit: no broker, short; the files of a worker share its modules, which saves half of the time, so none replaces one. isolated: those that do
 * (`vi.mock`; a test holds the list to the files). sim: the seeds of the simulation. broker: one cluster per run, a topic prefix per test, two files at a time, which mostly wait;
 * alone: of those, one at a time. conformance (three brokers of its own), full, sim-full (seeds 201 to 1000 of the simulation, behind the other two):
 * the long suites of `npm run test:full`.
 */
export default defineConfig({
  test: {
    // What needs a broker goes first; the rest takes every core; what looks at times goes last, with nothing beside it.
    maxWorkers: availableParallelism(),
    sequence: { sequencer: LongestFirst },
    projects: [
      { test: { name: 'unit', sequence: { groupOrder: 1 }, include: unit, exclude: [...ignored, ...isolated], isolate: false, testTimeout: 60_000 } },
      { test: { name: 'isolated', sequence: { groupOrder: 1 }, include: isolated, exclude: ignored, testTimeout: 60_000 } },
      { test: { name: 'sim', sequence: { groupOrder: 1 }, include: ['tests/integrity/sim/**/*.test.ts'], exclude: ignored, testTimeout: 300_000 } },
      { test: { name: 'broker', include: ['tests/e2e/**/*.test.ts', 'tests/integrity/**/*.test.ts', 'tests/security/**/*.test.ts'], exclude: [...ignored, 'tests/integrity/sim/**', ...alone], globalSetup: ['tests/setup/global.ts'], setupFiles: ['tests/setup/held-answers.ts'], testTimeout: 90_000, hookTimeout: 90_000, maxWorkers: 2 } },
      { test: { name: 'alone', sequence: { groupOrder: 2 }, include: alone, exclude: ignored, globalSetup: ['tests/setup/global.ts'], testTimeout: 90_000, hookTimeout: 90_000, fileParallelism: false } },
      { test: { name: 'conformance', include: ['tests/conformance/full.test.ts'], exclude: ignored, fileParallelism: false } },
      { test: { name: 'full', include: ['tests/full/**/*.test.ts'], exclude: [...ignored, 'tests/full/sim/**'], globalSetup: ['tests/setup/global.ts'], testTimeout: 1_200_000, hookTimeout: 120_000, fileParallelism: false } },
      { test: { name: 'sim-full', sequence: { groupOrder: 1 }, include: ['tests/full/sim/**/*.test.ts'], exclude: ignored, testTimeout: 300_000 } },
    ],
  },
});
