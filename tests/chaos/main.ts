/**
 * npm run chaos -- --kills N --seed S [--events N] [--per-point N] [--faults …]: see options.ts and docs/faults.md.
 *
 * Three brokers, every service a process of its own, three instances of every stage, under kills at named points and
 * faults of everything around them; then the invariants over what the topics and the vendor hold. Rounds of one
 * state of the product and one seed add up in docs/results/chaos.json, so that a run that was cut goes on. Exit 1 on a violation, 2 on
 * a bad argument; the last line is the sum as JSON.
 */
import { untried } from './killers.ts';
import { readOptions, usage } from './options.ts';
import { addResult, isOfNow, lacking, readResults, sumOf, type Sum } from './results.ts';
import { runRound } from './round.ts';

const options = readOptions(process.argv.slice(2));
if (typeof options === 'string') {
  console.error(`${options}\n${usage}`);
  process.exit(2);
}
if (untried().length > 0) {
  console.error(`no killer tries ${untried().join(', ')}`);
  process.exit(2);
}
const { kills, events, seed, perPoint } = options;
const perRound = 400;
const began = performance.now();
const sum = (): Sum => sumOf(readResults().filter((r) => r.seed === seed && isOfNow(r)));
const minutesLeft = (): number => options.minutes - (performance.now() - began) / 60_000;
const enough = (s: Sum): boolean => (s.kills >= kills && s.events >= events && lacking(s.points, perPoint).size === 0) || (options.minutes > 0 && minutesLeft() <= 0);

let total = sum();
if (total.rounds > 0) console.log(`going on after ${total.rounds} rounds of this product and seed with ${total.kills} kills`);
while (!enough(total) && Object.values(total.violations).every((n) => n === 0)) {
  const share = Math.min(perRound, Math.max(1, kills - total.kills));
  const round = await runRound(options, total.rounds, { kills: share, events: Math.max(0, Math.ceil((events - total.events) * (share / Math.max(share, kills - total.kills)))), points: total.points, minutes: options.minutes > 0 ? Math.max(0.1, minutesLeft()) : 0 });
  addResult(round);
  console.log(`round ${round.round}: ${round.seconds} s, ${round.kills} kills (${(round.kills / round.seconds * 60).toFixed(1)} a minute), ${round.events} events, ${round.effects} effects`);
  total = sum();
}
for (const [name, n] of [...total.points].sort()) console.log(`${String(n).padStart(5)}  ${name}`);
for (const [name, n] of lacking(total.points, perPoint)) console.log(`${name}: ${n} more kills were wanted`);
console.log(JSON.stringify({ kills: total.kills, events: total.events, effects: total.effects, violations: total.violations }));
process.exit(Object.values(total.violations).some((n) => n > 0) ? 1 : 0);
