/** What the checkers say of a mutant: only what a checker itself reports counts, not that it ended badly. */
import { createHash } from 'node:crypto';

export interface Run {
  /** Exit code; null = a signal or the time limit ended it. */
  readonly code: number | null;
  readonly output: string;
}

export type Finding =
  | { readonly kind: 'let pass' }
  /** `invariants`: of all that it complained about, in order. `files`: those of the tests that failed, each once; it counts once they pass without the patch (`confirmed`). */
  | { readonly kind: 'found'; readonly how: string; readonly invariants: readonly string[]; readonly files?: readonly string[] }
  /** It neither let it pass nor reported a finding: it says nothing of the mutant. */
  | { readonly kind: 'harness failed'; readonly how: string };

export interface Checker {
  readonly name: string;
  readonly args: readonly string[];
  judge(run: Run): Finding;
}

const longest = 140;
const plain = (output: string): string => output.replaceAll(/\u001b\[[0-9;]*m/g, '');

function failed({ code, output }: Run): Finding {
  const lines = plain(output).trim().split('\n');
  const error = lines.find((line) => /^\s*(\w*Error\b|node:|\[?ERR_)/.test(line)) ?? lines.at(-1) ?? '';
  return { kind: 'harness failed', how: `${code === null ? 'ended by a signal or out of time' : `exit ${code}`}: ${error.trim()}`.slice(0, longest) };
}

/** Invariants named at the beginning of the lines, each once. */
export function invariantsIn(lines: readonly string[]): string[] {
  return [...new Set(lines.flatMap((line) => /^\s*(I\d+)\b/.exec(line)?.[1] ?? []))].sort((a, b) => Number(a.slice(1)) - Number(b.slice(1)));
}

/** Of `npm run sim` and `npm run consent-race`: their last lines say how many seeds had violations. */
export function judgeSeeds(run: Run): Finding {
  const output = plain(run.output);
  const withViolations = /\bseeds from \d+, (\d+) with violations/.exec(output)?.[1];
  if (withViolations === '0' && run.code === 0) return { kind: 'let pass' };
  const told = /(seed \d+)[^\n]*\n\s+(\S.*)/.exec(output);
  if (withViolations === undefined || withViolations === '0' || run.code !== 1 || told === null) return failed(run);
  const broken = /^\s+broken: (.*)$/m.exec(output)?.[1]?.split(', ') ?? [];
  return { kind: 'found', how: `${told[1]}: ${told[2]}`.slice(0, longest), invariants: invariantsIn([...broken, told[2]!]) };
}

/** Of vitest: a test that failed. A suite that does not load, or an error beside the tests, is none. */
export function judgeTests(run: Run): Finding {
  const output = plain(run.output);
  const counts = /^\s*Tests\s+(.*)$/m.exec(output)?.[1] ?? '';
  if (run.code === 0 && /\d+ passed/.test(counts)) return { kind: 'let pass' };
  const failures = Array.from(output.matchAll(/^\s*FAIL\s+(.* > .*)$/gm), ([, test]) => test!.replaceAll(/\s+/g, ' ').slice(0, longest));
  if (run.code !== 1 || !/\d+ failed/.test(counts) || failures.length === 0) return failed(run);
  return { kind: 'found', how: failures[0]!, invariants: [], files: [...new Set(failures.flatMap((how) => testFileOf(how) ?? []))] };
}

/**
 * A finding of tests counts when the files that failed pass on the same copy without the patch and fail with it again: a test that
 * fails by itself says nothing of a mutant. `asked` is given the files once for each of the two; others who found something need no second look.
 */
export async function confirmed(finding: Finding, asked: (files: readonly string[], patched: boolean) => Promise<Finding>): Promise<Finding> {
  if (finding.kind !== 'found' || finding.files === undefined) return finding;
  let files = finding.files;
  const without = await asked(files, false);
  if (without.kind === 'harness failed') return without;
  if (without.kind === 'found') files = files.filter((file) => without.files?.includes(file) !== true);
  return files.length === 0 ? { kind: 'let pass' } : asked(files, true);
}

/** The file of the test that a `how` of `judgeTests` names, `undefined` where it names none. */
export const testFileOf = (how: string): string | undefined => /^\|?(?:unit|isolated|sim)\|? +(\S+\.test\.ts) > /.exec(how)?.[1];

/** What a patch says of itself in its first line: `Breaks: I2`, or a promise beside the invariants. Throws when it does not. */
export function breaksOf(patch: string, name: string): string {
  const breaks = /^Breaks: (I\d{1,2}(?:, I\d{1,2})*|[a-z]+: \S.*)\n/.exec(patch)?.[1];
  if (breaks === undefined) throw new Error(`${name}: the first line is not "Breaks: <invariant>"`);
  return breaks;
}

/** Tells a patch from what it was when a result was written down: its lines, whatever else the folder has. */
export const patchHash = (patch: string): string => createHash('sha256').update(patch).digest('hex').slice(0, 12);

/** Whether somebody else must be asked, too: that all stood still (I8) may be an effect of anything. */
export const saysLittle = (found: readonly string[]): boolean => found.length > 0 && found.every((i) => i === 'I8');
