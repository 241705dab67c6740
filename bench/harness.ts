/** What every benchmark shares: a platform, processes and what they use, parties in turn, medians, and the result file. */
import { execFileSync, fork, spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { imageSettings } from '@weir/testing';
import { startPlatform } from '../infra/local/platform.ts';
import { resultFile, type Figure, type PartyResult, type Result, type Sample } from './results.ts';

export type { Figure, PartyResult, Sample } from './results.ts';

export const root = resolve(import.meta.dirname, '..');

export interface Party {
  readonly name: string;
  /** One run from nothing to checked results; throws when a result is wrong. */
  run(round: number): Promise<Sample>;
}

export interface Benchmark {
  readonly name: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly parties: readonly Party[];
  readonly rounds: number;
  readonly figures: (of: (name: string) => PartyResult) => readonly Figure[];
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('no values');
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const tickUs = 1e6 / Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));

/** CPU that the process has used since it began, µs (proc(5), stat: utime + stime). */
export function cpuOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * tickUs;
}

/** The same by what used it, µs: the first thread in its own code and in the kernel, and the threads that compile, collect and free. Threads that have ended are not in it. */
export function cpuByThread(pid: number): { readonly user: number; readonly system: number; readonly others: number } {
  const found = { user: 0, system: 0, others: 0 };
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const stat = readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1');
    const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(11, 13).map((ticks) => Number(ticks) * tickUs) as [number, number];
    if (Number(thread) !== pid) found.others += user + system;
    else {
      found.user += user;
      found.system += system;
    }
  }
  return found;
}

/** Resident memory by kind, MB (proc(5), status). */
export function memoryOf(pid: number): { anon: number; file: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const mb = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)![1]) / 1024;
  return { anon: mb('RssAnon'), file: mb('RssFile') };
}

export interface Cluster {
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly dir: string;
  brokerCpu(): number;
}

/** A broker and a registry of its own, in a folder that is removed; ended by `stop`. */
export async function startCluster(): Promise<Cluster & { stop(): Promise<void> }> {
  const dir = mkdtempSync(join(tmpdir(), 'weir-bench-'));
  const platform = await startPlatform({ dataDir: join(dir, 'platform') });
  const pid = platform.brokers[0]!.process().pid;
  return { brokers: platform.bootstrap, registryUrl: platform.registryUrl, dir, brokerCpu: () => cpuOf(pid), async stop() { await platform.stop(); rmSync(dir, { recursive: true, force: true }); } };
}

export interface Child {
  readonly pid: number;
  /** Rejects when the process ends before it is stopped. */
  readonly failed: Promise<never>;
  /** Memory after a full collection. */
  memory(): Promise<{ anon: number; file: number }>;
  stop(): Promise<void>;
}

function watch(child: ChildProcess, logFile: string, collect: () => Promise<void>): Child {
  const log = createWriteStream(logFile, { flags: 'a' });
  child.stdout?.pipe(log, { end: false });
  child.stderr?.pipe(log, { end: false });
  let stopping = false;
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  const failed = ended.then(() => (stopping ? new Promise<never>(() => {}) : Promise.reject(new Error(`a party ended by itself:\n${readFileSync(logFile, 'utf8').slice(-3000)}`))));
  failed.catch(() => {});
  return {
    pid: child.pid!, failed,
    async memory() {
      await Promise.race([collect(), failed]);
      return memoryOf(child.pid!);
    },
    async stop() {
      stopping = true;
      child.kill('SIGKILL');
      await ended;
      log.end();
    },
  };
}

/** Options of Node and of the heap that the image sets: every measured process has them, the parties of others, too. */
export const image = imageSettings();

/** A script of this repository as a process of its own, with the options of the image; with WEIR_BENCH_PROFILE its CPU profile goes to that folder. */
export function startNode(script: string, args: readonly string[], env: Readonly<Record<string, string>>, logFile: string): Child {
  const profile = process.env['WEIR_BENCH_PROFILE'];
  const child = fork(join(root, script), args, { cwd: root, env: { ...process.env, ...image.env, ...env }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [...image.execArgv, '--expose-gc', '--import', join(root, 'bench/collect.ts'), ...(profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${script.replaceAll('/', '-')}-${args[0] ?? ''}-${Date.now()}.cpuprofile`])] });
  const watched = watch(child, logFile, () => new Promise((done) => {
    child.once('message', () => done());
    child.send('collect');
  }));
  if (profile === undefined) return watched;
  // A killed process writes no profile.
  return { ...watched, async stop() {
    const exited = new Promise((done) => child.once('exit', done));
    watched.failed.catch(() => {});
    child.send('exit');
    await exited;
    await watched.stop();
  } };
}

export function startJava(java: string, args: readonly string[], logFile: string): Child {
  const child = spawn(java, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const end = (): void => { child.kill('SIGKILL'); };
  process.once('exit', end);
  child.once('exit', () => process.removeListener('exit', end));
  return watch(child, logFile, async () => { execFileSync(join(java, '../jcmd'), [String(child.pid), 'GC.run'], { stdio: 'ignore' }); });
}

const digits = (n: number): number => Math.round(n * 100) / 100;

function summarise(name: string, runs: readonly Sample[]): PartyResult {
  const of = (value: (s: Sample) => number): number => digits(median(runs.map(value)));
  return {
    name, runs, median: Math.round(of((s) => s.records / s.wallMs * 1000)), cpuUsPerRecord: of((s) => s.cpuUs / s.records), brokerCpuUsPerRecord: of((s) => s.brokerCpuUs / s.records),
    rssAnonMb: of((s) => s.rssAnonMb), rssFileMb: of((s) => s.rssFileMb), // Some are measured in one run only.
    more: Object.fromEntries(Object.keys(runs[0]!.more ?? {}).map((key) => [key, digits(median(runs.flatMap((s) => s.more?.[key] ?? [])))])),
  };
}

const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();

function versions(): Record<string, string> {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: Record<string, string> };
  const kept = ['@platformatic/kafka', 'avsc', 'fastify', 'undici'].map((name) => [name, dependencies[name]!]);
  return { ...Object.fromEntries(kept), node: process.version, kafka: '4.3.1' };
}

/** The parties in turn, `rounds` times; prints the table and writes bench/results/<name>.json. */
export async function runBenchmark(benchmark: Benchmark): Promise<void> {
  const load = digits(loadavg()[0]!);
  const only = process.env['WEIR_BENCH_PARTIES']?.split(',');
  const chosen = benchmark.parties.filter((p) => only === undefined || only.includes(p.name));
  const samples = new Map<string, Sample[]>(chosen.map((p) => [p.name, []]));
  for (let round = 0; round < benchmark.rounds; round++) {
    for (const party of chosen) {
      const sample = await party.run(round);
      samples.get(party.name)!.push(sample);
      process.stderr.write(`${benchmark.name} ${round + 1}/${benchmark.rounds} ${party.name}: ${(sample.cpuUs / sample.records).toFixed(2)} µs CPU, ${Math.round(sample.records / sample.wallMs * 1000)}/s\n`);
    }
  }
  const parties = chosen.map((p) => summarise(p.name, samples.get(p.name)!));
  const of = (name: string): PartyResult => parties.find((p) => p.name === name) ?? (() => { throw new Error(`no party ${name}`); })();
  const held = ({ value, atLeast, atMost }: Figure): boolean => value >= (atLeast ?? -Infinity) && value <= (atMost ?? Infinity);
  // What is printed is rounded; whether it holds is not.
  const figures = (only === undefined ? benchmark.figures(of) : []).map((figure) => ({ ...figure, value: digits(figure.value), holds: held(figure) }));
  const dirty = git('status', '--porcelain', '--untracked-files=no', '--', ':!bench/results') !== '';
  const result: Result = {
    name: benchmark.name, commit: git('rev-parse', '--short=12', 'HEAD') + (dirty ? '+changes' : ''), date: new Date().toISOString(), versions: versions(), cpu: cpus()[0]?.model, cores: availableParallelism(), load,
    parameters: { ...benchmark.parameters, rounds: benchmark.rounds }, parties, ratios: Object.fromEntries(figures.map(({ what, value }) => [what, value])),
    limits: figures.flatMap((figure) => (figure.atLeast === undefined && figure.atMost === undefined ? [] : [figure])),
  };
  // A run of some parties only, or made shorter, is a look, not a result.
  if (!isLook()) writeFileSync(resultFile(benchmark.name), `${JSON.stringify(result, null, 2)}\n`);
  print(result);
}

/** The sizes, parties or profile of this run were changed from outside. */
export const isLook = (): boolean => Object.keys(process.env).some((name) => name.startsWith('WEIR_BENCH_'));

function print(result: Result): void {
  const width = Math.max(...result.parties.map((p) => p.name.length));
  console.log(`\n${result.name}\n${'party'.padEnd(width)}  records/s  CPU µs  broker µs  RssAnon MB  mapped MB`);
  for (const p of result.parties) {
    const more = Object.entries(p.more).map(([key, value]) => `  ${key} ${value}`).join('');
    console.log(`${p.name.padEnd(width)}  ${String(p.median).padStart(9)}  ${p.cpuUsPerRecord.toFixed(2).padStart(6)}  ${p.brokerCpuUsPerRecord.toFixed(2).padStart(9)}  ${p.rssAnonMb.toFixed(0).padStart(10)}  ${p.rssFileMb.toFixed(0).padStart(9)}${more}`);
  }
  for (const [what, value] of Object.entries(result.ratios)) console.log(`  ${what}: ${value}`);
}
