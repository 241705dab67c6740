/**
 * npm run consent-race -- --seeds 1000 [--from 1] [--seed N] [--trace] [--fail-fast] [--sim-only]
 *   [--events 1000] [--seconds 20] [--backlog 20000] [--bulk-nice 0] [--drain 600]
 *
 * Withdrawals against everything that may be under way: first the simulation, seed by seed (tests/integrity/sim/consent.ts
 * says what is done), then real processes on a real broker with traffic and a backlog, which prints the latency line.
 * Exit 1 when a `use` call reached the vendor after a withdrawal was answered as applied, or 100 seeds and more never came to a situation that the race is there for, 3 when nothing did, but the 99th percentile from
 * accepted to applied was over the limit (a run of 1,000 events/s or more behind a backlog that counts as a result). A run of 1,000 seeds or more, and one on a
 * broker with a backlog of 20,000 or more, is a result: docs/results/consent-race-simulation.json, consent-race-broker.json.
 */
import { parseArgs } from 'node:util';
import { brokenLine } from '../integrity/sim/checkers.ts';
import { situations, type Situation } from '../integrity/sim/situations.ts';
import { saveResult } from '../results.ts';
import { raceOnBroker, type Backlog } from './broker.ts';
import { race } from './simulated.ts';

const { values } = parseArgs({ options: { seeds: { type: 'string', default: '100' }, from: { type: 'string', default: '1' }, seed: { type: 'string' }, trace: { type: 'boolean', default: false }, 'fail-fast': { type: 'boolean', default: false }, 'sim-only': { type: 'boolean', default: false }, events: { type: 'string', default: '1000' }, seconds: { type: 'string', default: '20' }, backlog: { type: 'string', default: '20000' }, 'bulk-nice': { type: 'string', default: '0' }, drain: { type: 'string', default: '600' } } });
const number = (name: 'seeds' | 'from' | 'events' | 'seconds' | 'backlog' | 'bulk-nice' | 'drain'): number => {
  const value = Number(values[name]);
  if (!Number.isInteger(value) || value < 0) {
    console.error(`--${name}: expected a whole number`);
    process.exit(2);
  }
  return value;
};
const from = values.seed === undefined ? number('from') : Number(values.seed);
const count = values.seed === undefined ? number('seeds') : 1;
const began = performance.now();
const applied: number[] = [];
let asked = 0;
let pending = 0;
let late = 0;
let failed = 0;
let missed = false;
const came = new Map<Situation, number>(situations.map((name) => [name, 0]));
for (let seed = from; seed < from + count; seed++) {
  const result = await race(seed, values.trace ? console.log : undefined);
  asked += result.asked;
  pending += result.pending;
  applied.push(...result.applied);
  late += result.problems.filter((p) => p.includes('after the withdrawal was applied')).length;
  for (const [name, n] of result.situations) came.set(name, came.get(name)! + n);
  if (result.problems.length > 0) failed++;
  if (result.problems.length > 0 || count === 1) console.log(`seed ${seed}  trace ${result.run.hash}  ${result.asked} withdrawals, ${result.run.steps} steps${result.problems.slice(0, 8).map((p) => `\n  ${p}`).join('')}${result.problems.length > 8 ? `\n  and ${result.problems.length - 8} more` : ''}${brokenLine(result.problems)}`);
  if (failed > 0 && values['fail-fast']) break;
}
const waits = ({ normalizer, policy, newsletter }: Backlog): string => `${normalizer} + ${policy} + ${newsletter} records before normalizer, policy and newsletter`;
/** Of a sorted list; undefined = it is empty. */
const quantile = (list: readonly number[], q: number): number | undefined => (list.length === 0 ? undefined : Math.round(list[Math.min(list.length - 1, Math.floor(list.length * q))]!));
const limitMs = 250;
const at = (list: readonly number[], q: number): string => (list.length === 0 ? '-' : `${quantile(list, q)} ms`);
const seconds = (since: number): number => Math.round((performance.now() - since) / 1000);
applied.sort((a, b) => a - b);
if (count > 0) {
  console.log(`simulation: ${count} seeds from ${from}, ${failed} with violations, ${late} use arrivals after the acknowledgement; ${asked} withdrawals, ${applied.length} answered as applied, ${pending} as pending, ${asked - applied.length - pending} not at all (the API was stopped or killed), ${seconds(began)} s`);
  console.log(`  virtual accepted → applied, with stops, kills and faults: p50 ${at(applied, 0.5)}, p99 ${at(applied, 0.99)}, longest ${at(applied, 1)}; lease 6000 ms`);
  console.log(`  came to: ${[...came].map(([name, n]) => `${name} ${n}`).join(', ')}`);
  const untried = [...came].filter(([, n]) => n === 0).map(([name]) => name);
  if (count >= 100 && untried.length > 0 && failed === 0) {
    failed++;
    console.log(`  never came to: ${untried.join(', ')}; the race says nothing of these`);
  }
  if (count >= 1000) saveResult('consent-race-simulation', `npm run consent-race -- --seeds ${count} --from ${from} --sim-only`, { seeds: count, from, seedsWithViolations: failed, useArrivalsAfterTheAnswer: late, withdrawals: asked, applied: applied.length, pending, situations: Object.fromEntries(came), seconds: seconds(began) });
}
if (!values['sim-only'] && (failed === 0 || !values['fail-fast'])) {
  const real = await raceOnBroker({ eventsPerSecond: number('events'), seconds: number('seconds'), backlog: number('backlog'), bulkNice: number('bulk-nice'), drainSeconds: number('drain') });
  if (real.late.length > 0) failed++;
  for (const line of real.late.slice(0, 8)) console.log(`  ${line}`);
  console.log(`real broker: ${real.sent} events at ${real.rate.toFixed(0)}/s, ${waits(real.backlogAtStart)} when the race began, ${waits(real.backlogAtEnd)} when it ended; ${real.waits.length + real.pending} withdrawals and grants, ${real.pending} answered pending, ${real.late.length} use arrivals after the acknowledgement${real.ended ? '' : ', when part of the backlog still waited'}`);
  if (number('backlog') >= 20_000) saveResult('consent-race-broker', `npm run consent-race -- --seeds 0 --backlog ${values.backlog} --seconds ${values.seconds} --events ${values.events} --drain ${values.drain} --bulk-nice ${values['bulk-nice']}`, {
    eventsPerSecond: Math.round(real.rate), events: real.sent, backlogAtStart: real.backlogAtStart, backlogAtEnd: real.backlogAtEnd, asked: real.waits.length + real.pending, pending: real.pending, useArrivalsAfterTheAnswer: real.late.length,
    acceptedToAppliedMs: Object.fromEntries([['p50', 0.5], ['p99', 0.99], ['longest', 1]].map(([name, q]) => [name, quantile(real.waits, q as number)])), limitMs,
    vendorAnswersMs: { p50: quantile(real.answers, 0.5), p99: quantile(real.answers, 0.99) }, bulkNice: number('bulk-nice'),
  });
  missed = number('backlog') >= 20_000 && number('events') >= 1000 && (quantile(real.waits, 0.99) ?? Infinity) > limitMs;
  console.log(`accepted → applied: p50 ${at(real.waits, 0.5)}, p99 ${at(real.waits, 0.99)}, longest ${at(real.waits, 1)}${missed ? `: the limit of ${limitMs} ms for the 99th percentile is missed` : ''}`);
  console.log(`  the vendors answered, as dispatchers saw it, ${real.answers.length} calls: p50 ${at(real.answers, 0.5)}, p99 ${at(real.answers, 0.99)}`);
  for (const hop of Object.keys(real.hops[0] ?? {}) as (keyof typeof real.hops[number])[]) {
    const took = real.hops.map((h) => h[hop]).toSorted((a, b) => a - b);
    console.log(`  ${hop.padEnd(30)} p50 ${at(took, 0.5)}, p99 ${at(took, 0.99)}`);
  }
  for (const { name, run, wait, loopRun, loopWait } of real.shares) console.log(`  ${name.padEnd(13)} ran ${run.toFixed(0).padStart(5)} and waited for a core ${wait.toFixed(0).padStart(5)} ms a second, its event loop ${loopRun.toFixed(0).padStart(5)} and ${loopWait.toFixed(0).padStart(5)}`);
}
process.exit(failed > 0 ? 1 : missed ? 3 : 0);
