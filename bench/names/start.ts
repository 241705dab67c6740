/** `npm start` from the command to "weir ready", after a first one that made the data folder; memory of all its processes. */
import { spawn, type ChildProcess } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '@weir/testing';
import { cpuOf, memoryOf, root, type Benchmark, type Cluster, type Sample } from '../harness.ts';

const rounds = Number(process.env['WEIR_BENCH_ROUNDS'] ?? 3);
const deadlineMs = 300_000;

/** The process and all below it. */
function family(pid: number): number[] {
  const parents = readdirSync('/proc').filter((name) => /^\d+$/.test(name)).flatMap((name) => {
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      return [[Number(name), Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])] as const];
    } catch {
      // It ended while the folder was read.
      return [];
    }
  });
  const found = [pid];
  for (const one of found) for (const [child, parent] of parents) if (parent === one) found.push(child);
  return found;
}

async function start(dataDir: string): Promise<{ readonly ms: number; readonly child: ChildProcess }> {
  const began = performance.now();
  const { KAFKA_BROKERS: _brokers, SCHEMA_REGISTRY_URL: _registry, ...env } = process.env;
  const child = spawn('npm', ['start'], { cwd: root, detached: true, env: { ...env, WEIR_DATA: dataDir, WEIR_PORT: String(await freePort(20)) }, stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  const ms = await new Promise<number>((done, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ready within ${deadlineMs / 1000} s:\n${text.slice(-2000)}`)), deadlineMs);
    const look = (chunk: Buffer): void => {
      text += chunk.toString();
      if (!text.includes('weir ready')) return;
      clearTimeout(timer);
      done(performance.now() - began);
    };
    child.stdout.on('data', look);
    child.stderr.on('data', look);
    child.once('exit', (code) => reject(new Error(`npm start ended with ${code}:\n${text.slice(-2000)}`)));
  });
  return { ms, child };
}

async function stop(child: ChildProcess): Promise<void> {
  const ended = new Promise((done) => child.once('exit', done));
  process.kill(-child.pid!, 'SIGINT');
  await ended;
}

export async function create(cluster: Cluster): Promise<Benchmark & { close(): Promise<void> }> {
  const dataDir = join(cluster.dir, 'start');
  await stop((await start(dataDir)).child);
  return {
    name: 'start', rounds, parameters: { warm: true },
    parties: [{ name: 'npm start', async run(): Promise<Sample> {
      const { ms, child } = await start(dataDir);
      try {
        const all = family(child.pid!);
        const memory = all.map(memoryOf);
        const sum = (of: (m: { anon: number; file: number }) => number): number => memory.reduce((total, m) => total + of(m), 0);
        return { records: 1, wallMs: ms, cpuUs: all.reduce((total, pid) => total + cpuOf(pid), 0), brokerCpuUs: 0, rssAnonMb: sum((m) => m.anon), rssFileMb: sum((m) => m.file), more: { readyMs: Math.round(ms), processes: all.length } };
      } finally {
        await stop(child);
      }
    } }],
    figures: (of) => [{ what: 'seconds from the command to ready', value: of('npm start').more['readyMs']! / 1000, atMost: 12 }],
    close: () => Promise.resolve(),
  };
}
