/**
 * npm run conformance [-- --only <row>[,<row>…]] [--driver platformatic|kafkajs] [--limit <ms>] [--dry]
 * npm run conformance -- --unguarded [--only <row>[,<row>…]] [--dry]
 *
 * Every row over both drivers on three brokers. The results replace those of the same rows and drivers in
 * docs/results/log-conformance.json and the table of docs/log-conformance.md, unless --dry. With --unguarded each row runs
 * in a copy whose guard is taken out, and must fail there. Exit 1 when a row does not hold (or holds without its guard), 2
 * on a bad argument.
 */
import { parseArgs } from 'node:util';
import { rows } from './rows/index.ts';
import { drivers, runRow } from './run.ts';
import { commit, writeResults, type Result } from './table.ts';
import { tryUnguarded, unguardedRows } from './unguarded.ts';
import { startWorld } from './world.ts';

const { values } = parseArgs({ options: { only: { type: 'string' }, driver: { type: 'string' }, limit: { type: 'string' }, unguarded: { type: 'boolean', default: false }, dry: { type: 'boolean', default: false } } });
const only = values.only?.split(',');
const wanted = rows.filter((row) => only === undefined || only.includes(row.id));
const asked = drivers.filter((d) => values.driver === undefined || d === values.driver);
const limit = values.limit === undefined ? undefined : Number(values.limit);
const unknown = wanted.length < (only?.length ?? 1) || (values.unguarded && !wanted.some((row) => unguardedRows.has(row.id)));
if (unknown || asked.length === 0 || (limit !== undefined && !(limit > 0))) {
  console.error(`usage: npm run conformance [-- --only ${rows.map((r) => r.id).join(',')}] [--driver ${drivers.join('|')}] [--limit <ms>] [--unguarded] [--dry]`);
  process.exit(2);
}
if (values.unguarded) process.exit(await tryUnguarded(only, values.dry) ? 0 : 1);

const world = await startWorld();
const results: Result[] = [];
/** A copy without history has none. */
const at = { date: new Date().toISOString().slice(0, 10), commit: values.dry ? '' : commit() };
try {
  for (const row of wanted) {
    for (const driver of asked) {
      const began = performance.now();
      const outcome = await runRow(world, row, driver, limit).then((seen) => ({ passed: true, seen }), (error: unknown) => ({ passed: false, seen: (error as Error).message }));
      const result: Result = { row: row.id, driver, seconds: Math.round((performance.now() - began) / 100) / 10, ...at, ...outcome };
      results.push(result);
      if (!values.dry) writeResults([result]);
      console.log(`${result.passed ? 'holds ' : 'FAILS '} ${row.id} ${driver} ${result.seconds} s: ${result.seen}`);
    }
  }
} finally {
  await world.stop();
}
const failed = results.filter((r) => !r.passed).length;
console.log(`${results.length - failed} hold, ${failed} fail`);
process.exit(failed === 0 ? 0 : 1);
