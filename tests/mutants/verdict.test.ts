import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mutantsTable } from '../chaos/tables.ts';
import { breaksOf, confirmed, type Finding, invariantsIn, judgeSeeds, judgeTests, saysLittle, testFileOf } from './verdict.ts';

const seeds = (found: string, n: number): string => `${found}fault points: stop 3\n100 seeds from 1, ${n} with violations, 3.1 s\n`;
const seed = 'seed 7  trace ab  25 events, 3 faults, 9 steps, 1.0 s virtual\n  I8: a delivery has no end\n  I1: e1 is on no topic\n  broken: I8 1, I1 1, I12 2\n';

test('a seed with violations is a finding, with every invariant that complained; seeds without are let pass', () => {
  expect(judgeSeeds({ code: 1, output: seeds(seed, 1) })).toEqual({ kind: 'found', how: 'seed 7: I8: a delivery has no end', invariants: ['I1', 'I8', 'I12'] });
  expect(judgeSeeds({ code: 0, output: seeds('', 0) })).toEqual({ kind: 'let pass' });
  expect(judgeSeeds({ code: 1, output: `${seed}simulation: 4 seeds from 1, 1 with violations, 0 use arrivals\n` }).kind).toBe('found');
});

test('tests that fail are a finding, those that pass are let pass', () => {
  expect(judgeTests({ code: 1, output: ' FAIL  |unit| a.test.ts > what it says\nAssertionError: x\n Test Files  1 failed (1)\n      Tests  1 failed | 3 passed (4)\n' })).toEqual({ kind: 'found', how: '|unit| a.test.ts > what it says', invariants: [], files: ['a.test.ts'] });
  expect(judgeTests({ code: 0, output: ' Test Files  1 passed (1)\n      Tests  4 passed (4)\n' })).toEqual({ kind: 'let pass' });
});

test.each<[string, number | null, string]>([
  ['a simulation that crashes', 1, 'file:///x/a.ts:3\nSyntaxError: Unexpected token\n    at compile\nNode.js v24\n'],
  ['a simulation that crashes behind a seed with violations', 1, `${seed}TypeError: x is not a function\n`],
  ['a bad argument', 2, '--seeds, --from and --seed are whole numbers from 1 on\n'],
  ['a run out of time', null, seed],
  ['violations that nobody wrote down', 0, seeds(seed, 1)],
  ['a crash at the end of a run without violations', 1, seeds('', 0)],
])('%s is no finding of the simulation', (_what, code, output) => {
  expect(judgeSeeds({ code, output }).kind).toBe('harness failed');
});

test.each<[string, number | null, string]>([
  ['a suite that does not load', 1, ' FAIL  |unit| a.test.ts [ a.test.ts ]\nSyntaxError: x\n Test Files  1 failed | 2 passed (3)\n      Tests  7 passed (7)\n'],
  ['an error beside the tests', 1, ' Test Files  1 passed (1)\n      Tests  7 passed (7)\n     Errors  1 error\n'],
  ['no test at all', 0, 'No test files found\n'],
  ['a runner that crashes', 134, 'FATAL ERROR: out of memory\n'],
  ['a run out of time', null, ' FAIL  |unit| a.test.ts > x\n'],
])('%s is no finding of the tests', (_what, code, output) => {
  expect(judgeTests({ code, output }).kind).toBe('harness failed');
});

test('a test that fails without the patch, too, or only now and then with it, has caught nothing; others that failed still count', async () => {
  const failing = (...files: string[]): Finding => (files.length === 0 ? { kind: 'let pass' } : { kind: 'found', how: `unit ${files[0]} > x`, invariants: [], files });
  const asked: string[] = [];
  const ask = (without: Finding, withIt: Finding) => (files: readonly string[], patched: boolean): Promise<Finding> => {
    asked.push(`${patched ? 'with' : 'without'} ${files.join(' ')}`);
    return Promise.resolve(patched ? withIt : without);
  };
  const both = failing('a.test.ts', 'b.test.ts');
  expect(await confirmed(both, ask(failing(), both))).toEqual(both);
  expect(await confirmed(both, ask(failing('a.test.ts'), failing('b.test.ts')))).toEqual(failing('b.test.ts'));
  expect(await confirmed(both, ask(both, both))).toEqual({ kind: 'let pass' });
  expect(await confirmed(both, ask(failing(), failing()))).toEqual({ kind: 'let pass' });
  expect(await confirmed(both, ask({ kind: 'harness failed', how: 'x' }, both))).toEqual({ kind: 'harness failed', how: 'x' });
  expect(asked).toEqual(['without a.test.ts b.test.ts', 'with a.test.ts b.test.ts', 'without a.test.ts b.test.ts', 'with b.test.ts', 'without a.test.ts b.test.ts', 'without a.test.ts b.test.ts', 'with a.test.ts b.test.ts', 'without a.test.ts b.test.ts']);
  const seed: Finding = { kind: 'found', how: 'seed 7: I8: x', invariants: ['I8'] };
  expect(await confirmed(seed, () => Promise.reject(new Error('nobody is asked again')))).toBe(seed);
});

test('that all stood still is asked of others, too', () => {
  expect([saysLittle(['I8']), saysLittle(['I2', 'I8']), saysLittle([])]).toEqual([true, false, false]);
  expect(invariantsIn(['I8: x', ' I2 1', 'nothing of I5'])).toEqual(['I2', 'I8']);
});

test('the file of a test that failed is known again from what was written down', () => {
  const found = judgeTests({ code: 1, output: ' FAIL   unit  packages/a/b.test.ts > what it says\n Test Files  1 failed (1)\n      Tests  1 failed | 3 passed (4)\n' });
  expect(testFileOf(found.kind === 'found' ? found.how : '')).toBe('packages/a/b.test.ts');
  expect(testFileOf('seed 7: I8: a delivery has no end')).toBeUndefined();
});

test.each(readdirSync(import.meta.dirname).filter((f) => f.endsWith('.patch')))('%s says what it breaks', (patch) => {
  expect(breaksOf(readFileSync(join(import.meta.dirname, patch), 'utf8'), patch)).not.toBe('');
  expect(() => breaksOf('diff --git a/x b/x\n', patch)).toThrow(/Breaks/);
});

test('the table has a row for every patch: without a result of the patch as it stands it is not run, and counts as not caught', () => {
  const result = { mutant: 'a', verdict: 'caught', caughtBy: 'simulation', how: 'seed 1: I2: x', invariants: ['I2', 'I8'], commit: 'c', patch: 'p' };
  const table = mutantsTable({ at: '2026-11-26', seeds: 100, results: [result, { ...result, mutant: 'b', verdict: 'harness failed', caughtBy: '' }, { ...result, mutant: 'd', patch: 'before' }, { ...result, mutant: 'gone' }] }, new Map(Object.entries({ a: 'I2', b: 'I1', c: 'I3', d: 'I4' }).map(([name, breaks]) => [name, { breaks, patch: 'p' }])));
  expect(table).toMatch(/^1 of 4 caught, 2 not run/);
  expect(table.split('\n').slice(4)).toEqual(['| a | I2 | simulation | I2, I8 | seed 1: I2: x | `c` |', '| b | I1 | **harness failed** | I2, I8 | seed 1: I2: x | `c` |', '| c | I3 | **not run** | | | |', '| d | I4 | **not run** | | | |']);
});
