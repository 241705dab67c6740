/** Rows without their guard: each patch of `unguarded/` takes the guard out of a copy of the repository, where the row of its name must fail. */
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeCopy } from '../copy.ts';
import { rows } from './rows/index.ts';
import { commit, writeUnguarded, type Unguarded } from './table.ts';
import type { DriverName } from './world.ts';

const folder = join(import.meta.dirname, 'unguarded');
/** A row that has not ended by then with its guard out has been caught: with the guard it takes less. */
const limitMs = 150_000;

/** Rows that have a patch. */
export const unguardedRows: ReadonlySet<string> = new Set(readdirSync(folder).map((file) => file.replace(/\.patch$/, '')));

/** A guard of one driver is missed over that driver only. */
function driverOf(patch: string): DriverName {
  return readFileSync(patch, 'utf8').includes('packages/log/drivers/kafkajs.ts') ? 'kafkajs' : 'platformatic';
}

async function tryRow(row: string): Promise<Unguarded> {
  const began = performance.now();
  const patch = join(folder, `${row}.patch`);
  const driver = driverOf(patch);
  const copy = makeCopy();
  try {
    const applied = spawnSync('git', ['apply', '-C1', patch], { cwd: copy, encoding: 'utf8' });
    if (applied.status !== 0) throw new Error(`${patch} does not apply: ${applied.stderr.trim().split('\n')[0]}`);
    const child = spawn(process.execPath, ['tests/conformance/main.ts', '--only', row, '--driver', driver, '--dry', '--limit', String(limitMs)], { cwd: copy, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => { output = (output + text).slice(-100_000); });
    await new Promise((done) => child.once('close', done));
    const said = new RegExp(`^(holds|FAILS) +${row} [^:]*: (.*)`, 'm').exec(output);
    if (said === null) throw new Error(`${row}: no outcome\n${output}`);
    return { row, driver, caught: said[1] === 'FAILS', seen: said[2]!.slice(0, 200), seconds: Math.round((performance.now() - began) / 1000), date: new Date().toISOString().slice(0, 10), commit: commit() };
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
}

/** One row after the other, as they stand in the table; true when every one of them was caught. */
export async function tryUnguarded(only: readonly string[] | undefined, dry: boolean): Promise<boolean> {
  const results: Unguarded[] = [];
  for (const { id } of rows) {
    if (!unguardedRows.has(id) || (only !== undefined && !only.includes(id))) continue;
    const result = await tryRow(id);
    results.push(result);
    if (!dry) writeUnguarded([result]);
    console.log(`${result.caught ? 'caught  ' : 'SURVIVED'}  ${id} ${result.driver} ${result.seconds} s: ${result.seen}`);
  }
  const survived = results.filter((r) => !r.caught).length;
  console.log(`${results.length - survived} caught, ${survived} survived`);
  return survived === 0;
}
