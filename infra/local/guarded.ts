import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';

/**
 * A child that cannot outlive us: a shell holds the read end of a pipe whose write end is ours; when we die,
 * however we die, the pipe ends and the shell ends the child (TERM, then KILL after 8 s).
 */
const guard = 'exec 3<&0; "$@" </dev/null & child=$!; { read -r _ <&3; kill -TERM $child 2>/dev/null; i=0; while kill -0 $child 2>/dev/null && [ $i -lt 80 ]; do sleep 0.1; i=$((i+1)); done; kill -KILL $child 2>/dev/null; } & watch=$!; echo $child >&4; wait $child; code=$?; kill $watch 2>/dev/null; exit $code';

export interface Guarded {
  /** Pid of the program itself. */
  readonly pid: number;
  readonly exited: Promise<number | null>;
  running(): boolean;
  /** TERM, then KILL; resolves when it is gone. */
  stop(): Promise<void>;
  /** A signal to the program itself (tests: SIGKILL, SIGSTOP, SIGCONT). */
  kill(signal: NodeJS.Signals): void;
}

export async function startGuarded(command: string, args: readonly string[], options: { cwd: string; logFile: string; env?: Record<string, string> }): Promise<Guarded> {
  const log = openSync(options.logFile, 'a');
  const child: ChildProcess = spawn('sh', ['-c', guard, 'guard', command, ...args], { cwd: options.cwd, env: { ...process.env, ...options.env }, stdio: ['pipe', log, log, 'ignore', 'pipe'], detached: true });
  closeSync(log);
  let running = true;
  const exited = new Promise<number | null>((resolve) => child.on('exit', (code) => {
    running = false;
    resolve(code);
  }));
  child.stdin!.on('error', () => { running = child.exitCode === null; });
  const pid = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    let text = '';
    child.stdio[4]!.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (text.endsWith('\n')) resolve(Number(text));
    });
    child.once('exit', (code) => reject(new Error(`${command} exited with ${code} at start, see ${options.logFile}`)));
  });
  return {
    pid, exited,
    running: () => running,
    async stop() {
      child.stdin!.end();
      await exited;
    },
    kill(signal) {
      if (running) process.kill(pid, signal);
    },
  };
}
