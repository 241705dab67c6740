import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

function ended(error: unknown): boolean {
  const { code, status } = error as NodeJS.ErrnoException & { status?: number };
  // ps ends with 1 when there is no such process.
  return code === 'ENOENT' || code === 'ESRCH' || status === 1;
}

/** What `read` gives, or nothing when the process or thread has ended meanwhile. */
function unlessEnded(read: () => string[]): string[] {
  try {
    return read();
  } catch (error) {
    if (!ended(error)) throw error;
    return [];
  }
}

/** State letter of each thread of a process, or of the process where the system tells no more. */
export function threadStates(pid: number): string[] {
  if (!existsSync('/proc/self/task')) return unlessEnded(() => execFileSync('ps', ['-o', 'state=', '-p', String(pid)], { encoding: 'utf8' }).trim().split('\n').map((line) => line.slice(0, 1)));
  // The name in parentheses may hold anything, parentheses too: the state is behind the last one.
  return unlessEnded(() => readdirSync(`/proc/${pid}/task`)).flatMap((task) => unlessEnded(() => [/.*\) (\S)/s.exec(readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8'))![1]!]));
}

/** Stopped, traced, ended and not yet waited for, dead. */
const still: ReadonlySet<string> = new Set(['T', 't', 'Z', 'X']);

/**
 * Stops a process by SIGSTOP and resolves when it does stand still (or has ended): the signal only asks, and until
 * the last thread has seen it a broker still answers. Resolves with what lets it go on (SIGCONT; harmless when it
 * is gone). Rejects when there is no such process or it does not stop in time.
 */
export async function freeze(pid: number, deadlineMs = 30_000): Promise<() => void> {
  const end = performance.now() + deadlineMs;
  process.kill(pid, 'SIGSTOP');
  const thaw = (): void => {
    try {
      process.kill(pid, 'SIGCONT');
    } catch (error) {
      if (!ended(error)) throw error;
    }
  };
  for (;;) {
    const seen = threadStates(pid);
    if (seen.every((state) => still.has(state))) return thaw;
    if (performance.now() > end) {
      thaw();
      throw new Error(`process ${pid} did not stop within ${deadlineMs} ms: its threads are ${seen.join('')}`);
    }
    await new Promise((done) => setTimeout(done, 2));
  }
}
