/**
 * npm run mutants [-- name…]: each patch of this folder goes into a copy of the repository, where the checkers must find
 * it: the simulation first, then the consent race, then the tests that need no broker; who caught it the time before goes first of all (of the tests the one file), and who says only that all stood still is not the last. Prints which of them did; exit 1 when a mutant survives, when a patch
 * does not apply any more, when a checker ends without a word of its own (it crashed, or was out of time), or when the checkers complain about the copy without any patch. A test counts only when it passes without the patch and fails with it once more. A checker that finds no
 * planted bug would be worth nothing, and so would one that always complains.
 */
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { makeCopy } from '../copy.ts';
import { breaksOf, confirmed, type Finding, judgeSeeds, judgeTests, patchHash, saysLittle, testFileOf, type Checker, type Run } from './verdict.ts';

const root = resolve(import.meta.dirname, '../..');
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
const seeds = 100;
const raceSeeds = 30;
/** Unit tests, and what the simulation has beside its seeds: those that failed once, and places that few seeds come to. */
const tests = ['packages', 'services', 'tests/integrity/sim/sim.test.ts'];

interface Result {
  readonly mutant: string;
  /** What it breaks, as its patch says. */
  readonly breaks: string;
  readonly verdict: 'caught' | 'survived' | 'harness failed';
  /** All that somebody complained about. */
  readonly invariants: readonly string[];
  readonly caughtBy: string;
  readonly how: string;
  readonly seconds: number;
  readonly commit: string;
  /** Of its patch (`patchHash`): a patch that was changed since has no result. */
  readonly patch: string;
}

function run(copy: string, args: readonly string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd: copy, encoding: 'utf8', timeout: 1_800_000, maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : null, output: `${stdout}\n${stderr}` });
    });
  });
}

const checkers: readonly Checker[] = [
  { name: 'simulation', args: ['tests/integrity/sim/main.ts', '--seeds', String(seeds), '--fail-fast'], judge: judgeSeeds },
  { name: 'consent race', args: ['tests/consent-race/main.ts', '--seeds', String(raceSeeds), '--sim-only', '--fail-fast'], judge: judgeSeeds },
  testsOf(tests),
];

function testsOf(files: readonly string[]): Checker {
  return { name: 'tests', args: ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', '--project', 'isolated', '--project', 'sim', ...files], judge: judgeTests };
}

/** Who caught it last time goes first; the one file of a test before all checkers: where it finds nothing now, they are all asked. */
function inOrder(mutant: string): readonly Checker[] {
  const last = lastTime.find((r) => r.mutant === mutant);
  const file = last?.caughtBy === 'tests' ? testFileOf(last.how) : undefined;
  const all = [...checkers].sort((a, b) => Number(b.name === last?.caughtBy) - Number(a.name === last?.caughtBy));
  return file !== undefined && existsSync(join(root, file)) ? [testsOf([file]), ...all] : all;
}

/** No patch: what the checkers must let pass. */
const control = '(none)';

const fileOf = (mutant: string): string => join(import.meta.dirname, `${mutant}.patch`);

async function judge(mutant: string): Promise<Result> {
  const began = performance.now();
  const text = mutant === control ? '' : readFileSync(fileOf(mutant), 'utf8');
  const [breaks, patch] = [mutant === control ? '' : breaksOf(text, mutant), patchHash(text)];
  const copy = makeCopy();
  const result = (verdict: Result['verdict'], caughtBy: string, how: string, invariants: readonly string[] = []): Result => ({ mutant, breaks, verdict, caughtBy, how, invariants, seconds: Math.round((performance.now() - began) / 1000), commit, patch });
  try {
    const applied = mutant === control ? undefined : spawnSync('git', ['apply', '-C1', fileOf(mutant)], { cwd: copy, encoding: 'utf8' });
    if (applied !== undefined && applied.status !== 0) return result('harness failed', '', `the patch does not apply: ${applied.stderr.trim().split('\n')[0]}`);
    let caught: { readonly name: string; readonly how: string } | undefined;
    const invariants = new Set<string>();
    for (const { name, args, judge: by } of inOrder(mutant)) {
      const first = by(await run(copy, args));
      const finding = mutant === control ? first : await confirmed(first, (files, patched) => again(copy, mutant, files, patched));
      if (finding.kind === 'harness failed') return result('harness failed', '', `${name}: ${finding.how}`);
      if (finding.kind !== 'found') continue;
      caught ??= { name, how: finding.how };
      for (const invariant of finding.invariants) invariants.add(invariant);
      if (!saysLittle([...invariants])) break;
    }
    return caught === undefined ? result('survived', '', 'survived') : result('caught', caught.name, caught.how, [...invariants]);
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** What test files say of the copy once more, with its patch and without it. */
async function again(copy: string, mutant: string, files: readonly string[], patched: boolean): Promise<Finding> {
  const turn = (...how: string[]): unknown => patched ? undefined : execFileSync('git', ['apply', '-C1', ...how, fileOf(mutant)], { cwd: copy });
  turn('-R');
  const { args, judge: by } = testsOf(files);
  const finding = by(await run(copy, args));
  turn();
  return finding;
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
if (unmutated !== undefined && unmutated.verdict !== 'survived') {
  console.log(unmutated.verdict === 'caught' ? `without any patch the ${unmutated.caughtBy} complain: ${unmutated.how}` : `without any patch: ${unmutated.how}`);
  process.exit(1);
}
const left = names.length > 0 ? names : [...all];
await Promise.all(Array.from({ length: Math.min(availableParallelism(), 4) }, async () => {
  for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
    const result = await judge(mutant);
    results.push(result);
    save();
    console.log(`${result.verdict.toUpperCase().padEnd(14)}  ${mutant}  breaks ${result.breaks}  ${result.caughtBy}  ${result.invariants.join(', ')}  ${result.how}  (${result.seconds} s)`);
  }
}));
const count = (verdict: Result['verdict']): number => results.filter((r) => r.verdict === verdict).length;
console.log(`${count('caught')} of ${all.length} caught, ${count('survived')} survived, ${count('harness failed')} without a verdict, ${all.length - results.length} not run`);
process.exit(count('caught') < results.length ? 1 : 0);
