/** Measuring in one process, of the benchmarks that need no broker (`bench/*-path.ts`): CPU piece by piece or step by step, and a profile. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { basename, join } from 'node:path';

/** Begins a CPU profile if WEIR_BENCH_PROFILE names a folder. Gives what ends it and writes it there, under the name of this script. */
export async function startProfile(): Promise<() => Promise<void>> {
  const folder = process.env['WEIR_BENCH_PROFILE'];
  if (folder === undefined) return () => Promise.resolve();
  mkdirSync(folder, { recursive: true });
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  return async () => {
    const { profile } = await session.post('Profiler.stop');
    writeFileSync(join(folder, `${basename(process.argv[1]!, '.ts')}.cpuprofile`), JSON.stringify(profile));
  };
}

/** µs of CPU of each thing done. */
export interface Pieces {
  readonly least: number;
  readonly quarter: number;
  readonly median: number;
  /** Of it in the kernel, at the median. */
  readonly system: number;
}

/**
 * CPU by pieces of the work: on a machine with other work the least of them says the most.
 * @param done how many things are done
 * @param piece does the next ones, until `total` are done
 * @param least things that a piece must have done to count; the first with fewer is the last
 */
export async function measurePieces(done: () => number, total: number, piece: () => Promise<void>, least = 1): Promise<Pieces> {
  const all: number[] = [];
  const systems: number[] = [];
  while (done() < total) {
    const [cpu, before] = [process.cpuUsage(), done()];
    await piece();
    const { user, system } = process.cpuUsage(cpu);
    const count = done() - before;
    if (count < least) break;
    all.push((user + system) / count);
    systems.push(system / count);
  }
  for (const list of [all, systems]) list.sort((a, b) => a - b);
  const middle = all.length >> 1;
  return { least: all[0]!, quarter: all[all.length >> 2]!, median: all[middle]!, system: systems[middle]! };
}

/** CPU of the named steps of a work, whose turns follow each other. */
export interface Steps {
  /** Does it, and counts its CPU, that of a promise until it is settled, under the name. */
  step<T>(name: string, work: () => T): T;
  /** Begins to count anew. */
  clear(): void;
  /** A line for each step: µs of CPU for each of so many. */
  print(count: number): void;
  /** µs of all steps. */
  sum(): number;
}

export function createSteps(): Steps {
  const spent = new Map<string, number>();
  const add = (name: string, before: NodeJS.CpuUsage): void => {
    const { user, system } = process.cpuUsage(before);
    spent.set(name, (spent.get(name) ?? 0) + user + system);
  };
  return {
    step<T>(name: string, work: () => T): T {
      const before = process.cpuUsage();
      const result = work();
      if (result instanceof Promise) return result.finally(() => { add(name, before); }) as T;
      add(name, before);
      return result;
    },
    clear: () => { spent.clear(); },
    print(count) {
      const width = Math.max(...[...spent.keys()].map((name) => name.length));
      for (const [name, us] of spent) console.log(`${name.padEnd(width)} ${(us / count).toFixed(2)} µs`);
    },
    sum: () => [...spent.values()].reduce((a, b) => a + b, 0),
  };
}
