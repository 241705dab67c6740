import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '../..');

/** What a run of `weir` wrote, and its exit code; -1 = a signal ended it. */
export interface CliRun {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs `weir` to its end; `env` stands above the environment of this process. */
export function runCli(args: readonly string[], env: Readonly<NodeJS.ProcessEnv>): Promise<CliRun> {
  return new Promise((done, reject) => {
    const run = spawn(process.execPath, [join(root, 'cli/main.ts'), ...args], { env: { ...process.env, ...env }, cwd: root });
    let out = '';
    let err = '';
    run.stdout.on('data', (d: Buffer) => { out += d.toString(); });
    run.stderr.on('data', (d: Buffer) => { err += d.toString(); });
    run.on('error', reject);
    run.on('close', (code) => done({ code: code ?? -1, out, err }));
  });
}
