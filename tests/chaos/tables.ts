/** The tables of docs/faults.md from what the runs left in docs/results. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { breaksOf, patchHash } from '../mutants/verdict.ts';
import type { Round } from './results.ts';

const results = resolve(import.meta.dirname, '../../docs/results');
const read = <T>(name: string): T | undefined => existsSync(join(results, name)) ? (JSON.parse(readFileSync(join(results, name), 'utf8')) as T) : undefined;

function addUp(rounds: readonly Round[], of: (round: Round) => Readonly<Record<string, number>>): [string, number][] {
  const sums = new Map<string, number>();
  for (const round of rounds) for (const [name, n] of Object.entries(of(round) ?? {})) sums.set(name, (sums.get(name) ?? 0) + n);
  return [...sums].sort(([a], [b]) => a.localeCompare(b));
}

/** Runs by commit and seed, then kills by point and faults by kind over all of them. */
export function chaosTable(rounds: readonly Round[] = read<Round[]>('chaos.json') ?? []): string {
  const runs = [...Map.groupBy(rounds, (r) => `${r.commit}|${r.seed}`).values()];
  const total = (list: readonly Round[], of: (round: Round) => number): number => list.reduce((n, r) => n + of(r), 0);
  const row = (name: string, list: readonly Round[]): string => {
    const seconds = total(list, (r) => r.seconds);
    const kills = total(list, (r) => r.kills);
    const broken = addUp(list, (r) => r.violations).filter(([, n]) => n > 0).map(([name_, n]) => `${name_}: ${n}`).join(', ');
    return `| ${name} | ${list.length} | ${kills} | ${total(list, (r) => r.uncounted)} | ${total(list, (r) => r.events)} | ${total(list, (r) => r.effects)} | ${Math.round(seconds / 60)} | ${(kills / Math.max(seconds, 1) * 60).toFixed(1)} | ${broken === '' ? 'none' : broken} |`;
  };
  const clean = rounds.filter((r) => Object.values(r.violations).every((n) => n === 0));
  // Of rounds of before it was told nothing is said.
  const proxies = (list: readonly Round[]): string => [...new Set(list.flatMap((r) => (r.proxy === undefined ? [] : [r.proxy === 'own' ? ', own proxy' : ', Toxiproxy'])))].sort().join('');
  const lines = runs.map((list) => row(`${list[0]!.at.slice(0, 10)} \`${list[0]!.commit}\`, seed ${list[0]!.seed}, ${list[0]!.machine}${proxies(list)}`, list));
  const two = (head: string, list: [string, number][]): string[] => [`| ${head} | times |`, '|---|---|', ...list.map(([name, n]) => `| ${name} | ${n} |`)];
  return [
    '| run | rounds | kills | held nothing | events | effects | minutes | kills a minute | violations |', '|---|---|---|---|---|---|---|---|---|', ...lines, ...(runs.length > 1 ? [row('all without a violation', clean), row('all', rounds)] : []), '',
    ...two('killed at', addUp(rounds, (r) => r.points)), '', ...two('other faults', addUp(rounds, (r) => r.faults)),
  ].join('\n');
}

interface Mutants { readonly at: string; readonly seeds: number; readonly results: ReadonlyArray<{ readonly mutant: string; readonly verdict?: string; readonly caughtBy: string; readonly how: string; readonly invariants?: readonly string[]; readonly commit: string; readonly patch?: string }> }

const mutants = resolve(import.meta.dirname, '../mutants');
/** A planted bug: what it breaks, and the hash of its patch. */
export interface Planted { readonly breaks: string; readonly patch: string }
function planted(): Map<string, Planted> {
  return new Map(readdirSync(mutants).filter((f) => f.endsWith('.patch')).sort().map((f) => {
    const text = readFileSync(join(mutants, f), 'utf8');
    return [f.slice(0, -6), { breaks: breaksOf(text, f), patch: patchHash(text) }];
  }));
}

/** A row for each patch: one without a result of the patch as it stands was not run, and is not caught. */
export function mutantsTable(found: Mutants | undefined = read<Mutants>('mutants.json'), patches: ReadonlyMap<string, Planted> = planted()): string {
  if (found === undefined) return 'No result is recorded for this state of the repository yet; the command writes it.';
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/[<>]/g, '').replaceAll(/\s+/g, ' ').trim();
  const of = new Map(found.results.filter((r) => r.patch === patches.get(r.mutant)?.patch).map((r) => [r.mutant, r]));
  const notRun = [...patches.keys()].filter((name) => !of.has(name));
  const rows = [...patches].map(([name, { breaks }]) => {
    const r = of.get(name);
    if (r === undefined) return `| ${name} | ${breaks} | **not run** | | | |`;
    // Results of before that were told kept the first line only.
    const complained = r.invariants ?? Array.from(r.how.match(/(?<=: )I\d+(?=:)/) ?? []);
    return `| ${name} | ${breaks} | ${r.caughtBy === '' ? `**${r.verdict === 'harness failed' ? 'harness failed' : 'nothing'}**` : r.caughtBy} | ${complained.join(', ')} | ${cell(r.how)} | \`${r.commit}\` |`;
  });
  return [
    `${[...patches.keys()].filter((name) => (of.get(name)?.caughtBy ?? '') !== '').length} of ${patches.size} caught${notRun.length === 0 ? '' : `, ${notRun.length} not run`}, with ${found.seeds} seeds, the last on ${found.at.slice(0, 10)}.`, '',
    '| mutant | breaks | caught by | complained of | how | commit |', '|---|---|---|---|---|---|', ...rows,
  ].join('\n');
}
