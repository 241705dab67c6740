import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const tie = pathToFileURL(join(import.meta.dirname, 'tie.mjs')).href;

/** A process of this Node that does not outlive this one, also when this one is killed: it is tied to it by a pipe. Standard output and error are pipes. */
export function spawnTied(args: readonly string[], options: { readonly env: NodeJS.ProcessEnv; readonly cwd: string; readonly detached?: boolean }): ChildProcess {
  return spawn(process.execPath, ['--import', tie, ...args], { ...options, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
}
