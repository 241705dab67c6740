import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { setPriority } from 'node:os';

/** Processor time of one process between two looks, per second of the clock: all its threads, and its first thread alone (the event loop of Node). */
export interface Share {
  readonly name: string;
  /** ms a second on a core. */
  readonly run: number;
  /** ms a second that it could have run and waited for a core. */
  readonly wait: number;
  readonly loopRun: number;
  readonly loopWait: number;
}

type Times = ReadonlyMap<number, readonly [run: number, wait: number]>;

/** Per thread of the process, ms: /proc/<pid>/task/<tid>/schedstat (Linux, Documentation/scheduler/sched-stats.rst). */
function timesOf(pid: number): Times {
  const times = new Map<number, readonly [number, number]>();
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const [run = 0, wait = 0] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ').map(Number);
      times.set(Number(thread), [run / 1e6, wait / 1e6]);
    } catch (error) {
      // The thread ended between the two calls.
      if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
  return times;
}

/** Looks at the processes now; the function that it gives back looks again and tells what they had of the processor in between. Empty where there is no /proc. */
export function watchProcesses(processes: Readonly<Record<string, number>>): () => readonly Share[] {
  if (process.platform !== 'linux') return () => [];
  const began = performance.now();
  const before = new Map(Object.entries(processes).map(([name, pid]) => [name, timesOf(pid)]));
  return () => {
    const seconds = (performance.now() - began) / 1000;
    return Object.entries(processes).map(([name, pid]) => {
      let [run, wait, loopRun, loopWait] = [0, 0, 0, 0];
      for (const [thread, [ran, waited]] of timesOf(pid)) {
        const [ranBefore, waitedBefore] = before.get(name)!.get(thread) ?? [0, 0];
        run += ran - ranBefore;
        wait += waited - waitedBefore;
        if (thread === pid) [loopRun, loopWait] = [ran - ranBefore, waited - waitedBefore];
      }
      return { name, run: run / seconds, wait: wait / seconds, loopRun: loopRun / seconds, loopWait: loopWait / seconds };
    });
  };
}

/** Lowers the share of a process that has a session of its own: by its nice value, and where Linux schedules by session, by that of its session (man 7 sched, autogroup). */
export function yieldTo(pid: number, nice: number): void {
  if (nice === 0) return;
  setPriority(pid, nice);
  const group = `/proc/${pid}/autogroup`;
  if (existsSync(group)) writeFileSync(group, String(nice));
}
