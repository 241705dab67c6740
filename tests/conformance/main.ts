/**
 * npm run conformance [-- --only <row>[,<row>…]] [--driver platformatic|kafkajs]
 *
 * Every row over both drivers on three brokers. The results replace those of the same rows and drivers in
 * docs/results/log-conformance.json and the table of docs/log-conformance.md, unless --dry. Exit 1 when a row does not
 * hold, 2 on a bad argument.
 */
import { parseArgs } from 'node:util';
import { rows } from './rows/index.ts';
import { drivers, runRow } from './run.ts';
import { commit, writeResults, type Result } from './table.ts';
import { startWorld } from './world.ts';

const { values } = parseArgs({ options: { only: { type: 'string' }, driver: { type: 'string' }, dry: { type: 'boolean', default: false } } });
const only = values.only?.split(',');
const wanted = rows.filter((row) => only === undefined || only.includes(row.id));
const asked = drivers.filter((d) => values.driver === undefined || d === values.driver);
if (wanted.length < (only?.length ?? 1) || asked.length === 0) {
  console.error(`usage: npm run conformance [-- --only ${rows.map((r) => r.id).join(',')}] [--driver ${drivers.join('|')}] [--dry]`);
  process.exit(2);
}

const world = await startWorld();
const results: Result[] = [];
const at = { date: new Date().toISOString().slice(0, 10), commit: commit() };
try {
  for (const row of wanted) {
    for (const driver of asked) {
      const began = performance.now();
      const outcome = await runRow(world, row, driver).then((seen) => ({ passed: true, seen }), (error: unknown) => ({ passed: false, seen: (error as Error).message }));
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
