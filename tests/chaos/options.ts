import { parseArgs } from 'node:util';

/** Faults of the environment that `--faults` selects; kills are always on. */
export const allFaults = ['stop', 'stall', 'clock', 'torn', 'disk', 'broker', 'leader', 'storm', 'network', 'registry', 'vault', 'vendor', 'release'] as const;
export type FaultName = (typeof allFaults)[number];

export interface Options {
  readonly kills: number;
  /** Default: 167 for each kill. */
  readonly events: number;
  readonly seed: number;
  /** Calls a second that senders try. */
  readonly rate: number;
  readonly faults: ReadonlySet<FaultName>;
  /** Every point is killed at so often before the run is complete; default: 5 with 300 kills or more, else 0. */
  readonly perPoint: number;
  readonly minutes: number;
  readonly keep: boolean;
}

/** So many kills strike every point by themselves: one that none struck is dead. */
export const manyKills = 300;
const eventsOfKill = 167;
/** Exit code of a run without a violation that ended before it had what was wanted: its time was over, or a point is not reached. */
export const short = 3;

export const usage = `usage: npm run chaos -- --kills <n> [--seed <n>] [--events <n>] [--rate <calls a second>] [--per-point <n>] [--minutes <n>] [--faults ${allFaults.join(',')}] [--keep]
--events: 167 for each kill when it is not given; --per-point: 5 with ${manyKills} kills or more, else 0. Exit 0 when nothing is violated and all of it was reached, 1 on a violation, 2 on a bad argument, ${short} when it ended before.`;

/** Options, or what is wrong with them. */
export function readOptions(args: readonly string[]): Options | string {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        'kills': { type: 'string' }, 'seed': { type: 'string', default: '1' }, 'events': { type: 'string' }, 'rate': { type: 'string', default: '150' }, 'per-point': { type: 'string' },
        'minutes': { type: 'string', default: '0' }, 'faults': { type: 'string', default: allFaults.join(',') }, 'keep': { type: 'boolean', default: false },
      },
    });
    const number = (name: 'kills' | 'seed' | 'events' | 'rate' | 'per-point' | 'minutes', least: number, otherwise?: number): number => {
      const text = values[name];
      if (text === undefined && otherwise !== undefined) return otherwise;
      if (text === undefined || !/^\d{1,9}$/.test(text) || Number(text) < least) throw new Error(`--${name}: expected a whole number >= ${least}`);
      return Number(text);
    };
    const faults = values.faults.split(',').filter((f) => f !== '');
    const unknown = faults.find((f) => !(allFaults as readonly string[]).includes(f));
    if (unknown !== undefined) throw new Error(`--faults: unknown ${JSON.stringify(unknown.slice(0, 40))}`);
    const kills = number('kills', 1);
    return { kills, seed: number('seed', 0), events: number('events', 0, kills * eventsOfKill), rate: number('rate', 1), perPoint: number('per-point', 0, kills >= manyKills ? 5 : 0), minutes: number('minutes', 0), faults: new Set(faults as FaultName[]), keep: values.keep };
  } catch (error) {
    return (error as Error).message;
  }
}
