/** What `npm run bench` leaves behind, and how documents say it: bench/results/<name>.json. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** One run of one party. CPU is user and system time of the whole process, all threads. */
export interface Sample {
  readonly records: number;
  readonly wallMs: number;
  readonly cpuUs: number;
  readonly brokerCpuUs: number;
  /** Anonymous memory after a forced collection, and mapped files (local tables, code), MB. */
  readonly rssAnonMb: number;
  readonly rssFileMb: number;
  /** Whatever the benchmark measures besides, e.g. latencies in ms. */
  readonly more?: Readonly<Record<string, number>>;
}

/** Medians over its runs. */
export interface PartyResult {
  readonly name: string;
  readonly runs: readonly Sample[];
  /** Records per second. */
  readonly median: number;
  readonly cpuUsPerRecord: number;
  readonly brokerCpuUsPerRecord: number;
  readonly rssAnonMb: number;
  readonly rssFileMb: number;
  readonly more: Readonly<Record<string, number>>;
}

/** What a benchmark says, and what must hold of it. */
export interface Figure {
  readonly what: string;
  readonly value: number;
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface Result {
  readonly name: string;
  readonly commit: string;
  readonly date: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly cpu: string | undefined;
  readonly cores: number;
  /** Of the machine when it began, 1 minute: over the number of cores it was not alone. */
  readonly load: number;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly parties: readonly PartyResult[];
  readonly ratios: Readonly<Record<string, number>>;
  readonly limits: readonly (Figure & { readonly holds: boolean })[];
}

export const resultFile = (name: string): string => join(import.meta.dirname, 'results', `${name}.json`);

/** Benchmarks that there are: every bench/names/<name>.ts. */
export const names = (): string[] => readdirSync(join(import.meta.dirname, 'names')).filter((f) => f.endsWith('.ts')).map((f) => f.slice(0, -3)).sort();

export function readResult(name: string): Result | undefined {
  return existsSync(resultFile(name)) ? JSON.parse(readFileSync(resultFile(name), 'utf8')) as Result : undefined;
}

const limitOf = ({ atLeast, atMost }: Figure): string => [atLeast === undefined ? [] : `>= ${atLeast}`, atMost === undefined ? [] : `<= ${atMost}`].flat().join(', ');
const head = ['benchmark', 'figure', 'value', 'limit', 'holds', 'measured'];

function limitRows(): string[][] {
  return names().flatMap((name) => {
    const result = readResult(name);
    return result === undefined ? [[name, 'no result is recorded', '', '', '', '']] : result.limits.map((limit) => [name, limit.what, String(limit.value), limitOf(limit), limit.holds ? 'yes' : '**no**', result.date.slice(0, 10)]);
  });
}

const markdown = (rows: readonly (readonly string[])[]): string => [rows[0]!, rows[0]!.map(() => '---'), ...rows.slice(1)].map((row) => `| ${row.join(' | ')} |`).join('\n');

/** Every limit of every result that is kept: what was measured, when, and whether it holds. For a terminal. */
export function limitsText(): string {
  const table = [head, ...limitRows()];
  const widths = head.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
  return table.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join('  ').trimEnd()).join('\n');
}

export const limitsTable = (): string => markdown([head, ...limitRows()]);

/** Where each result comes from. */
export function machineLines(): string {
  const lines = names().flatMap((name) => {
    const result = readResult(name);
    return result === undefined ? [] : [`- \`${name}\`: ${result.date.slice(0, 16).replace('T', ' ')}Z, commit ${result.commit}, ${result.cores} cores (${result.cpu ?? 'unknown'}), load ${result.load} when it began, ${JSON.stringify(result.parameters).replaceAll('"', '').replaceAll(',', ', ').replaceAll(':', ' ').slice(1, -1)}`];
  });
  return lines.length === 0 ? 'No result is recorded.' : lines.join('\n');
}

/** Ratios of the results, for the README. */
export function ratiosTable(): string {
  const rows = names().flatMap((name) => readResult(name)?.limits.map((limit) => [limit.what, String(limit.value), limitOf(limit), limit.holds ? 'yes' : '**no**', `\`npm run bench -- ${name}\``]) ?? []);
  return rows.length === 0 ? 'No result is recorded.' : markdown([['figure', 'value', 'limit', 'holds', 'command'], ...rows]);
}
