/** `npm run sim -- --seeds 1000 [--from 1] [--seed N] [--trace] [--fail-fast]`: prints the trace hash of each seed that fails, all fault points and how often each was passed; exit 1 on a violation. */
import { parseArgs } from 'node:util';
import { brokenLine, check } from './checkers.ts';
import { apart, planned, points, type Point } from './faults.ts';
import { simulate } from './world.ts';

const { values } = parseArgs({ options: { seeds: { type: 'string', default: '200' }, from: { type: 'string', default: '1' }, seed: { type: 'string' }, trace: { type: 'boolean', default: false }, 'fail-fast': { type: 'boolean', default: false } } });
const from = Number(values.seed ?? values.from);
const count = values.seed === undefined ? Number(values.seeds) : 1;
// No seed at all finds no violation.
if (!(Number.isSafeInteger(from) && Number.isSafeInteger(count) && from > 0 && count > 0)) {
  console.error('--seeds, --from and --seed are whole numbers from 1 on');
  process.exit(2);
}
const began = performance.now();
const totals = new Map<Point, number>();
let failed = 0;
for (let seed = from; seed < from + count; seed++) {
  const run = await simulate(seed, { trace: values.trace ? console.log : undefined });
  for (const [point, n] of run.faults) totals.set(point, (totals.get(point) ?? 0) + n);
  const problems = check(run.history);
  if (problems.length > 0) failed++;
  if (problems.length > 0 || count === 1) console.log(`seed ${seed}  trace ${run.hash}  ${run.history.sent.length} events, ${[...run.faults.values()].reduce((a, b) => a + b, 0)} faults, ${run.steps} steps, ${(run.virtualMs / 1000).toFixed(1)} s virtual${problems.slice(0, 8).map((p) => `\n  ${p}`).join('')}${problems.length > 8 ? `\n  and ${problems.length - 8} more` : ''}${brokenLine(problems)}`);
  if (failed > 0 && values['fail-fast']) break;
}
console.log(`fault points: ${[...Object.keys(points), ...planned, ...apart].map((p) => `${p} ${totals.get(p as Point) ?? 0}`).join(', ')}`);
console.log(`${count} seeds from ${from}, ${failed} with violations, ${((performance.now() - began) / 1000).toFixed(1)} s`);
process.exit(failed > 0 ? 1 : 0);
