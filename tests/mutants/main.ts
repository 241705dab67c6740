/**
 * npm run mutants [-- name…]: each patch of this folder goes into a copy of the repository, where the checkers must find
 * it: the simulation first, then the consent race, then the tests that need no broker; who caught it the time before goes first of all. Prints which of them did; exit 1 when a mutant survives, when a patch
 * does not apply any more, or when the checkers complain about the copy without any patch. A checker that finds no
 * planted bug would be worth nothing, and so would one that always complains.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { makeCopy } from '../copy.ts';

const root = resolve(import.meta.dirname, '../..');
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
const seeds = 100;
const raceSeeds = 30;
/** Unit tests, and what the simulation has beside its seeds: those that failed once, and places that few seeds come to. */
const tests = ['packages', 'services', 'tests/integrity/sim/sim.test.ts'];

interface Result {
  readonly mutant: string;
  readonly caughtBy: string;
  readonly how: string;
  readonly seconds: number;
  readonly commit: string;
}

function run(copy: string, args: readonly string[]): Promise<{ readonly failed: boolean; readonly output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: copy, encoding: 'utf8', timeout: 1_800_000, maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      // Out of time is no finding.
      resolve({ failed: typeof error?.code === 'number', output: `${stdout}\n${stderr}` });
    });
  });
}

const ofSeed = (output: string): string => {
  const found = /(seed \d+)[^\n]*\n\s+(\S.*)/.exec(output);
  return (found === null ? output.trim() : `${found[1]}: ${found[2]}`).slice(0, 140);
};
const ofTest = (output: string): string => /FAIL\s+(.*)/.exec(output.replaceAll(/\u001b\[[0-9;]*m/g, ''))?.[1]?.slice(0, 140) ?? '';
const checkers: ReadonlyArray<readonly [name: string, args: readonly string[], story: (output: string) => string]> = [
  ['simulation', ['tests/integrity/sim/main.ts', '--seeds', String(seeds), '--fail-fast'], ofSeed],
  ['consent race', ['tests/consent-race/main.ts', '--seeds', String(raceSeeds), '--sim-only', '--fail-fast'], ofSeed],
  ['tests', ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', '--project', 'sim', ...tests], ofTest],
];

/** Who caught it last time goes first. */
function inOrder(mutant: string): typeof checkers {
  const last = lastTime.find((r) => r.mutant === mutant)?.caughtBy;
  return [...checkers].sort(([a], [b]) => Number(b === last) - Number(a === last));
}

/** No patch: what the checkers must let pass. */
const control = '(none)';

async function judge(mutant: string): Promise<Result> {
  const began = performance.now();
  const copy = makeCopy();
  const seconds = (): number => Math.round((performance.now() - began) / 1000);
  try {
    const applied = mutant === control ? undefined : spawnSync('git', ['apply', '-C1', join(import.meta.dirname, `${mutant}.patch`)], { cwd: copy, encoding: 'utf8' });
    if (applied !== undefined && applied.status !== 0) return { mutant, caughtBy: '', how: `the patch does not apply: ${applied.stderr.trim().split('\n')[0]}`, seconds: seconds(), commit };
    for (const [name, args, story] of inOrder(mutant)) {
      const { failed, output } = await run(copy, args);
      if (failed) return { mutant, caughtBy: name, how: story(output), seconds: seconds(), commit };
    }
    return { mutant, caughtBy: '', how: 'survived', seconds: seconds(), commit };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

interface Saved { readonly at: string; readonly seeds: number; readonly results: Result[] }

const file = join(root, 'docs/results/mutants.json');
const saved = (): Saved | undefined => (existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Saved) : undefined);
const lastTime = saved()?.results ?? [];

/** docs/results/mutants.json: a result replaces the one before; those of other mutants stay, each with the commit that it is of. */
function save(): void {
  const kept = (saved()?.results ?? []).filter((b) => all.includes(b.mutant) && !results.some((r) => r.mutant === b.mutant));
  const list = [...kept, ...results].sort((x, y) => x.mutant.localeCompare(y.mutant));
  writeFileSync(file, `${JSON.stringify({ at: new Date().toISOString(), seeds, results: list } satisfies Saved, null, 1)}\n`);
}

const names = process.argv.slice(2);
const all = readdirSync(import.meta.dirname).filter((f) => f.endsWith('.patch')).map((f) => f.slice(0, -6)).sort();
const unknown = names.find((n) => !all.includes(n));
if (unknown !== undefined) {
  console.error(`unknown mutant ${unknown}; known are ${all.join(', ')}`);
  process.exit(2);
}
const results: Result[] = [];
const unmutated = names.length > 0 ? undefined : await judge(control);
if (unmutated !== undefined && unmutated.caughtBy !== '') {
  console.log(`without any patch the ${unmutated.caughtBy} complain: ${unmutated.how}`);
  process.exit(1);
}
const left = names.length > 0 ? names : [...all];
await Promise.all(Array.from({ length: Math.min(availableParallelism(), 4) }, async () => {
  for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
    const result = await judge(mutant);
    results.push(result);
    save();
    console.log(`${result.caughtBy === '' ? 'SURVIVED' : 'caught  '}  ${mutant}  ${result.caughtBy}  ${result.how}  (${result.seconds} s)`);
  }
}));
const survivors = results.filter((r) => r.caughtBy === '').length;
console.log(`${results.length - survivors} caught, ${survivors} survived`);
process.exit(survivors > 0 ? 1 : 0);
