/**
 * npm run chaos -- --kills N --seed S [--events N] [--per-point N] [--faults …]: see options.ts and docs/faults.md.
 *
 * Three brokers, every service a process of its own, three instances of every stage and one control service with its operators, under kills at named points and
 * faults of everything around them; then the invariants over what the topics and the vendor hold. Rounds of one
 * state of the product and one seed add up in docs/results/chaos.json, so that a run that was cut goes on. Exit 1 on a violation, 2 on
 * a bad argument, 3 when the run has not all that was wanted, which a line before the last names; the last line is the sum as JSON.
 */
import { pointsOf, untried } from './killers.ts';
import { readOptions, short, usage } from './options.ts';
import { addResult, isOfNow, lacks, readResults, sumOf, type Sum } from './results.ts';
import { runRound } from './round.ts';
import { victims } from './world.ts';

const options = readOptions(process.argv.slice(2));
if (typeof options === 'string') {
  console.error(`${options}\n${usage}`);
  process.exit(2);
}
if (untried().length > 0) {
  console.error(`no killer tries ${untried().join(', ')}`);
  process.exit(2);
}
const { kills, events, seed } = options;
const perRound = 400;
const began = performance.now();
const sum = (): Sum => sumOf(readResults().filter((r) => r.seed === seed && isOfNow(r)));
const minutesLeft = (): number => options.minutes - (performance.now() - began) / 60_000;
/** Points that were waited for in vain. */
let dead: readonly string[] = [];
const isOver = (s: Sum): boolean => lacks(s, options).length === 0 || (dead.length > 0 && s.kills >= kills && s.events >= events) || (options.minutes > 0 && minutesLeft() <= 0);

let total = sum();
if (total.rounds > 0) console.log(`going on after ${total.rounds} rounds of this product and seed with ${total.kills} kills`);
while (!isOver(total) && Object.values(total.violations).every((n) => n === 0)) {
  const share = Math.min(perRound, Math.max(1, kills - total.kills));
  const { result, unreached } = await runRound(options, total.rounds, { kills: share, events: Math.max(0, Math.ceil((events - total.events) * (share / Math.max(share, kills - total.kills)))), points: total.points, minutes: options.minutes > 0 ? Math.max(0.1, minutesLeft()) : 0 });
  addResult(result);
  console.log(`round ${result.round}: ${result.seconds} s, ${result.kills} kills (${(result.kills / result.seconds * 60).toFixed(1)} a minute), ${result.events} events, ${result.effects} effects`);
  dead = unreached;
  total = sum();
}
for (const stage of victims) for (const point of [...pointsOf(stage), 'random']) console.log(`${String(total.points.get(`${stage} ${point}`) ?? 0).padStart(5)}  ${stage} ${point}`);
for (const name of dead) console.log(`${name}: armed again and again, never reached`);
const lacked = lacks(total, options);
if (lacked.length > 0) console.log(`lacking: ${lacked.join('; ')}`);
console.log(JSON.stringify({ kills: total.kills, events: total.events, effects: total.effects, violations: total.violations }));
process.exit(Object.values(total.violations).some((n) => n > 0) ? 1 : lacked.length > 0 ? short : 0);
