/** The results as docs/results/log-conformance.json, and as the table in docs/log-conformance.md between its markers. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { rows } from './rows/index.ts';
import { drivers } from './run.ts';
import type { DriverName } from './world.ts';

export interface Result {
  readonly row: string;
  readonly driver: DriverName;
  readonly passed: boolean;
  readonly seconds: number;
  readonly date: string;
  readonly commit: string;
  /** Figures of the run, or what did not hold. */
  readonly seen: string;
}

/** What a row said when its guard was taken out. */
export interface Unguarded extends Omit<Result, 'passed'> {
  readonly caught: boolean;
}

interface Saved {
  readonly machine: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly results: readonly Result[];
  readonly unguarded: readonly Unguarded[];
}

const root = resolve(import.meta.dirname, '../..');
const file = join(root, 'docs/results/log-conformance.json');
const page = join(root, 'docs/log-conformance.md');
const marks = { results: ['<!-- results: npm run conformance -->', '<!-- end of results -->'], unguarded: ['<!-- unguarded: npm run conformance -- --unguarded -->', '<!-- end of unguarded -->'] } as const;
const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

export function renderTable(results: readonly Result[], about: string): string {
  const of = (row: string, driver: DriverName): Result | undefined => results.find((r) => r.row === row && r.driver === driver);
  const outcome = (r: Result | undefined): string => (r === undefined ? 'not run' : `${r.passed ? 'holds' : '**fails**'}, ${r.seconds} s`);
  const order = (r: Result): number => rows.findIndex((row) => row.id === r.row) * drivers.length + drivers.indexOf(r.driver);
  const lines = rows.map((row) => `| ${[`\`${row.id}\``, row.hazards.join(', '), row.title, row.guard, ...drivers.map((d) => outcome(of(row.id, d)))].map(cell).join(' | ')} |`);
  const seen = results.toSorted((a, b) => order(a) - order(b)).map((r) => `| \`${r.row}\` | ${r.driver} | ${r.date}, ${r.commit} | ${cell(r.seen)} |`);
  return [about, '', `| row | hazards | what is done and must hold | guard (packages/log) | ${drivers.join(' | ')} |`, `|---|---|---|---|${drivers.map(() => '---|').join('')}`, ...lines, '', 'What was seen:', '', '| row | driver | when, at commit | seen |', '|---|---|---|---|', ...seen].join('\n');
}

/** The commit that is run; marked when the working tree differs from it. */
export function commit(): string {
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', 'packages', 'tests/conformance', 'infra') === '' ? '' : '+');
}

export function renderUnguarded(results: readonly Unguarded[]): string {
  const order = (r: Unguarded): number => rows.findIndex((row) => row.id === r.row);
  const lines = results.toSorted((a, b) => order(a) - order(b)).map((r) => `| \`${r.row}\` | ${r.driver} | ${r.date}, ${r.commit} | ${r.caught ? '' : '**holds all the same:** '}${cell(r.seen)} |`);
  return ['| row | driver | when, at commit | what the row said |', '|---|---|---|---|', ...lines].join('\n');
}

const saved = (): Partial<Saved> => (existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Saved) : {});
const isRow = ({ row }: { row: string }): boolean => rows.some(({ id }) => id === row);

function write(results: readonly Result[], unguarded: readonly Unguarded[]): Saved {
  const versionOf = (name: string): string => (JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version;
  const run: Saved = {
    machine: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${Math.round(totalmem() / 2 ** 30)} GB, three brokers on it`,
    versions: { 'node': process.versions.node, 'Apache Kafka': /kafka_[\d.]+<\/artifactId><version>([^<]+)/.exec(readFileSync(join(root, 'infra/local/pom.xml'), 'utf8'))?.[1] ?? 'unknown', '@platformatic/kafka': versionOf('@platformatic/kafka'), 'kafkajs': versionOf('kafkajs') },
    results, unguarded,
  };
  writeFileSync(file, `${JSON.stringify(run, undefined, 1)}\n`);
  return run;
}

function put(between: readonly [string, string], content: string): void {
  const text = readFileSync(page, 'utf8');
  const [from, to] = [text.indexOf(between[0]), text.indexOf(between[1])];
  if (from < 0 || to < from) throw new Error(`${page} has lost its markers`);
  writeFileSync(page, `${text.slice(0, from + between[0].length)}\n${content}\n${text.slice(to)}`);
}

/** Adds these results to those that are known; a row and driver has one result, the last. */
export function writeResults(fresh: readonly Result[]): void {
  const before = saved();
  const results = [...(before.results ?? []).filter((r) => isRow(r) && !fresh.some((f) => f.row === r.row && f.driver === r.driver)), ...fresh];
  const run = write(results, before.unguarded ?? []);
  const dates = results.map((r) => r.date).sort();
  const about = `${dates[0] === dates.at(-1) ? dates[0] : `${dates[0]} to ${dates.at(-1)}`}, ${run.machine}; ${Object.entries(run.versions).map(([name, version]) => `${name} ${version}`).join(', ')}. ${results.filter((r) => r.passed).length} of ${rows.length * drivers.length} hold.`;
  put(marks.results, renderTable(results, about));
}

/** The same of rows without their guard. */
export function writeUnguarded(fresh: readonly Unguarded[]): void {
  const before = saved();
  const unguarded = [...(before.unguarded ?? []).filter((r) => isRow(r) && !fresh.some((f) => f.row === r.row)), ...fresh];
  write(before.results ?? [], unguarded);
  put(marks.unguarded, renderUnguarded(unguarded));
}
