/** One round: start everything, break it until enough was killed and sent, heal it, and judge what is left. */
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { keptCheckpoints } from '@weir/audit';
import { keyedId } from '@weir/pipeline';
import { waitFor } from '@weir/testing';
import { readWorkspaceKey } from '@weir/vault';
import { answersHold, changesAudited, erased, pausesHold } from './change-checkers.ts';
import { audited, bounded, consentHeld, decidedForEach, effectsOnce, endedOnce, invariants, lastNoHolds, limitsHeld, nothingLost, ordered, releasesNamed, sameBytes, zombiesHarmless, type Invariant, type Signed } from './checkers.ts';
import { keepEvidence } from './evidence.ts';
import { readHistory, type History } from './history.ts';
import { createStarts, deadAfter, runKiller, type Point } from './killers.ts';
import type { Options } from './options.ts';
import { createRandom } from './random.ts';
import { commit, lacking, type Round } from './results.ts';
import { userIdOf } from './traffic.ts';
import { calm, runWeather, startVendorFaults } from './weather.ts';
import { callTimeoutMs, instances, instancesOf, lagOf, sessionMs, stages, startWorld, victims, type Stage, type Victim, type World } from './world.ts';

/** Of workspace/policies/default.yaml. */
export const limitOfWorkspace = { rule: 'warehouse-a-minute', count: 4, perMs: 60_000 };
const maxRssMb = 400;
const settleMs = 240_000;
/** Senders wait while the stages have more than this before them. */
const maxLag = 6000;
/** A stage that has more than this before it is let work for a while before it is killed again. */
const farBehind = 1500;
const workMs = 5000;
const orderMs = 3000;
/** So many kills ahead of their events, or behind them: then killers, or senders, wait for the other. */
const slack = 8;

export interface Goal {
  readonly kills: number;
  readonly events: number;
  /** Kills so far by `<stage> <point>`. */
  readonly points: ReadonlyMap<string, number>;
  readonly minutes: number;
}

interface Tally {
  kills: number;
  uncounted: number;
  ended: number;
  readonly points: Map<string, number>;
  readonly faults: Map<string, number>;
  readonly broken: Record<Invariant, string[]>;
}

const pause = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });

/** The result, and the points that are wanted and were armed again and again without being reached. */
export async function runRound(options: Options, round: number, goal: Goal): Promise<{ readonly result: Round; readonly unreached: readonly string[] }> {
  const began = performance.now();
  const world = await startWorld(options, round);
  const tally: Tally = { kills: 0, uncounted: 0, ended: 0, points: new Map(goal.points), faults: new Map(), broken: Object.fromEntries(invariants.map((i) => [i, []])) as never };
  let history: History | undefined;
  try {
    await startVendorFaults(world);
    const unreached = await breakUntilDone(world, round, goal, tally, began);
    const signed = await quiet(world, tally);
    history = await historyOf(world);
    judge(world, tally, history, signed);
    const violations = Object.fromEntries(invariants.map((i) => [i, tally.broken[i].length])) as Record<Invariant, number>;
    const firstViolations = invariants.flatMap((i) => tally.broken[i].slice(0, 5).map((line) => `${i}: ${line}`));
    const own = [...tally.points].map(([name, n]) => [name, n - (goal.points.get(name) ?? 0)] as const).filter(([, n]) => n > 0);
    const result: Round = {
      commit: commit(), at: new Date().toISOString(), machine: `${cpus().length} cores`, seed: options.seed, round, seconds: Math.round((performance.now() - began) / 1000), kills: tally.kills, uncounted: tally.uncounted, endedByThemselves: tally.ended,
      events: new Set(history.raw.map((r) => r.event)).size, effects: history.effects.length, faults: Object.fromEntries([...tally.faults].sort()), points: Object.fromEntries(own.sort()), violations, firstViolations,
      proxy: world.proxy.kind, answers: answersOf(world),
    };
    return { result, unreached };
  } finally {
    // Also of a round that could not be judged to its end.
    const lines = invariants.flatMap((i) => tally.broken[i].map((line) => `${i}: ${line}`));
    if (lines.length > 0) keep(world, lines, history);
    await world.close(lines.length > 0);
  }
}

/** The evidence of a violation stays, whether it was asked for or not; where it can not be kept (a full disk) the result still counts. */
function keep(world: World, violations: readonly string[], history: History | undefined): void {
  try {
    console.log(`kept: ${keepEvidence(world, violations, history)}`);
  } catch (error) {
    console.log(`not all was kept in ${world.dir}: ${(error as Error).message}`);
  }
}

/** How often senders were answered what. */
function answersOf({ traffic: { log } }: World): Record<string, number> {
  const counts = new Map<string, number>([['200', log.requests]]);
  for (const { status } of log.refusals) counts.set(String(status), (counts.get(String(status)) ?? 0) + 1);
  return Object.fromEntries([...counts].sort());
}

async function breakUntilDone(world: World, round: number, goal: Goal, tally: Tally, began: number): Promise<string[]> {
  const { options, traffic } = world;
  const started = performance.now();
  const minutes = (): number => (performance.now() - began) / 60_000;
  const misses = new Map<string, number>();
  const isDead = (name: string): boolean => (misses.get(name) ?? 0) >= deadAfter;
  const lacks = (): number => [...lacking(tally.points, options.perPoint).keys()].filter((name) => !isDead(name)).length;
  const done = (): boolean => (tally.kills >= goal.kills && traffic.log.events >= goal.events && lacks() === 0) || (goal.minutes > 0 && minutes() >= goal.minutes);
  const count = (name: string): void => { tally.faults.set(name, (tally.faults.get(name) ?? 0) + 1); };
  const share = goal.events / goal.kills;
  /** Kills by which the events that belong to them are behind. */
  const ahead = (): number => (share === 0 ? 0 : tally.kills - traffic.log.events / share);
  const lags = new Map<Stage, number>();
  /** Kills wait for the events that belong to them, and for a stage that is far behind. */
  const pace = (stage: Victim): number => {
    // There is one of it, and it takes no events: what was ordered gets through in between.
    if (stage === 'control') return orderMs;
    const rate = traffic.log.events / ((performance.now() - started) / 1000);
    return Math.max((lags.get(stage) ?? 0) > farBehind ? workMs : 0, Math.min(15_000, (Math.max(0, ahead() + slack) * share / Math.max(rate, 1)) * 1000));
  };
  /** Behind kills and events only points are wanted: the processors are for those that lack some. */
  const wanted = (stage: Victim): Point[] | undefined => {
    if (tally.kills < goal.kills || traffic.log.events < goal.events) return undefined;
    return [...lacking(tally.points, options.perPoint).keys()].filter((name) => name.startsWith(`${stage} `) && !isDead(name)).map((name) => name.slice(stage.length + 1) as Point);
  };
  const starts = createStarts(availableParallelism() + 1);
  let told = performance.now();
  const killers = Promise.all(victims.flatMap((stage) => instancesOf(stage).map((instance) => runKiller(stage, instance, {
    world, counts: tally.points, misses, done, pace, starts, random: createRandom(options.seed * 1000 + round, `${stage}${instance}`), switchRelease: (enough) => world.operators.switchRelease(enough), wanted, tore: () => count('torn store'),
    killed: (_stage, _instance, _point, counted) => {
      if (counted) tally.kills++;
      else tally.uncounted++;
      if (performance.now() - told < 15_000) return;
      told = performance.now();
      console.log(`round ${round}: ${tally.kills} of ${goal.kills} kills, ${traffic.log.events} of ${goal.events} events, ${lacks()} points to go, ${minutes().toFixed(1)} min`);
    },
    ended: (service, n, code) => {
      tally.ended++;
      console.log(`${service} ${n} ended by itself (${code}): ${readFileSync(world.fleet.logFile(service, n), 'utf8').trimEnd().split('\n').at(-1)?.slice(0, 300)}`);
    },
  }))));
  const guards = Promise.all([world.operators.run(done), runWeather(world, done, count), watchMemory(world, done, tally), watchGroups(world, done), holdBack(world, done, lags, () => share > 0 && ahead() < -2 * slack)]);
  await killers;
  // What was begun comes to its end first: senders need not run ahead meanwhile.
  traffic.hold(true);
  await guards;
  await calm(world);
  traffic.hold(false);
  await traffic.stop();
  for (const stage of victims) for (const n of instancesOf(stage)) tally.faults.set('stall', (tally.faults.get('stall') ?? 0) + (readFileSync(world.fleet.logFile(stage, n), 'utf8').match(/^stood still for/gm)?.length ?? 0));
  const { log: ordered } = world.operators;
  for (const [name, n] of [['pauses', ordered.pauses.length], ['tokens', ordered.tokens.size], ['replays', ordered.replays.size], ['erasures', ordered.erasures.length]] as const) tally.faults.set(`ordered: ${name}`, n);
  console.log(`round ${round}: ${tally.kills} kills, ${traffic.log.events} events, ${ordered.tokens.size} tokens, ${ordered.pauses.length} pauses, ${ordered.replays.size} replays and ${ordered.erasures.length} erasures after ${minutes().toFixed(1)} min; waiting until all is quiet`);
  return [...lacking(tally.points, options.perPoint).keys()].filter(isDead);
}

/** While members join nobody tells who holds what: what they held before is known from here. */
async function watchGroups({ holdings }: World, done: () => boolean): Promise<void> {
  while (!done()) {
    await holdings.refresh();
    await pause(1000);
  }
}

/** Anonymous memory of every process (I7). */
async function watchMemory(world: World, done: () => boolean, tally: Tally): Promise<void> {
  while (!done()) {
    await pause(2000);
    for (const service of victims) {
      for (const instance of instancesOf(service)) {
        const { pid } = world.fleet.process(service, instance);
        const status = existsSync(`/proc/${pid}/status`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : '';
        const mb = Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1024;
        if (mb > maxRssMb) tally.broken.I7.push(`${service} ${instance} has ${Math.round(mb)} MB of anonymous memory`);
      }
    }
  }
}

/**
 * Senders do not run away from the stages, a backlog of hours would only be waited for, nor from the kills: of what is
 * `ample` only so much more is sent that victims have something in hand. Keeps `lags` up to date.
 */
async function holdBack(world: World, done: () => boolean, lags: Map<Stage, number>, ample: () => boolean): Promise<void> {
  const { traffic, options: { rate } } = world;
  while (!done()) {
    await pause(2000);
    traffic.setRate(ample() ? Math.max(1, rate / 4) : rate);
    const found = await Promise.all(stages.map((stage) => lagOf(world, stage))).catch(() => undefined);
    // A broker is away: as it was.
    if (found === undefined) continue;
    found.forEach((lag, i) => lags.set(stages[i]!, lag.records));
    traffic.hold([...lags.values()].reduce((a, b) => a + b, 0) > maxLag);
  }
  world.traffic.hold(false);
}

async function settle(world: World, broken: Tally['broken']): Promise<void> {
  const { admin, topics, feed, fleet } = world;
  const where = async (): Promise<string | undefined> => {
    for (const stage of stages) {
      const lag = await lagOf(world, stage);
      if (lag.where !== undefined) return lag.where;
    }
    return undefined;
  };
  await waitFor('the poller has read the list', async () => [...(await admin.endOffsets(topics.raw('members'))).values()].reduce((a, b) => a + b, 0) >= feed.size(), settleMs).catch((error: unknown) => broken.I8.push((error as Error).message));
  await waitFor('no lag', async () => (await where()) === undefined, settleMs).catch(async () => broken.I8.push((await where()) ?? 'lag went late'));
  await waitFor('every order has ended', async () => {
    const left = await world.operators.unended();
    if (left.length > 0) throw new Error(left.slice(0, 5).join(', '));
    return true;
  }, settleMs).catch((error: unknown) => broken.I8.push((error as Error).message));
  await fleet.settled(settleMs).catch((error: unknown) => broken.I8.push((error as Error).message));
}

/** What ended by itself is started again, as whatever runs services does. */
async function supervise(world: World, done: () => boolean, tally: Tally): Promise<void> {
  const { fleet } = world;
  while (!done()) {
    await pause(500);
    for (const service of victims) {
      for (const instance of instancesOf(service)) {
        const { exitCode, signalCode } = fleet.process(service, instance);
        if (exitCode === null && signalCode === null) continue;
        tally.ended++;
        console.log(`${service} ${instance} ended by itself (${exitCode ?? signalCode}) and is started again: ${readFileSync(fleet.logFile(service, instance), 'utf8').trimEnd().split('\n').at(-1)?.slice(0, 300)}`);
        await fleet.start(service, instance).catch((error: unknown) => { console.log(`${service} ${instance}: ${(error as Error).message.slice(0, 200)}`); });
      }
    }
  }
}

/** The checkpoint of the audit log, before its leaves are read, and those that were kept since the first start. */
async function signedAudit({ fleet }: World): Promise<Signed> {
  const { checkpoint, verifier } = await waitFor('the checkpoint of the audit log', async () => {
    const response = await fetch(`${fleet.url('control')}/v1/audit/checkpoint`, { headers: { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}` } });
    if (!response.ok) throw new Error(`the control service answers ${response.status}`);
    return (await response.json()) as { readonly checkpoint: string; readonly verifier: string };
  }, settleMs);
  const file = join(fleet.dataDir, 'audit-checkpoints.jsonl');
  const kept = existsSync(file) ? keptCheckpoints(readFileSync(file, 'utf8')) : [];
  return { served: checkpoint, verifier, kept };
}

/** Resolves when all is quiet, or can not be waited for any more, with the audit log as it is signed then. */
async function quiet(world: World, tally: Tally): Promise<Signed> {
  let settled = false;
  const watched = supervise(world, () => settled, tally);
  await settle(world, tally.broken);
  settled = true;
  await watched;
  return signedAudit(world);
}

const historyOf = ({ fleet, platform }: World): Promise<History> => readHistory({ brokers: platform.bootstrap, registryUrl: platform.registryUrl, prefix: fleet.prefix, sandbox: fleet.sandbox, workspaceKey: readWorkspaceKey(fleet.dataDir, undefined) });

function judge(world: World, { broken }: Tally, history: History, signed: Signed): void {
  const { fleet, traffic, feed, secrets } = world;
  const key = readWorkspaceKey(fleet.dataDir, undefined);
  const sent = { answered: traffic.log.answered, poison: traffic.log.poison, consent: traffic.log.consent, members: feed.size() };
  const told = world.operators.log;
  broken.I1.push(...nothingLost(history, sent), ...decidedForEach(history), ...endedOnce(history), ...answersHold(history, told));
  broken.I2.push(...effectsOnce(history));
  const idsOf = (email: string): string[] => [`email:${keyedId(key, 'email', email)}`, `userId:${keyedId(key, 'userId', userIdOf(email))}`];
  broken.I3.push(...consentHeld(history, callTimeoutMs + sessionMs, idsOf), ...lastNoHolds(history, sent, idsOf));
  broken.I4.push(...ordered(history, sent));
  broken.I5.push(...sameBytes(history));
  broken.I6.push(...zombiesHarmless(history, 250), ...pausesHold(history, told, callTimeoutMs + sessionMs));
  broken.I7.push(...bounded(traffic.log.refusals), ...limitsHeld(history, limitOfWorkspace));
  broken.I9.push(...audited(history, signed), ...changesAudited(history));
  broken.I11.push(...erased(history, told, callTimeoutMs + sessionMs));
  broken.I12.push(...releasesNamed(history));
  for (const service of [...stages, 'control', 'sandbox'] as const) {
    for (const instance of instances) {
      const file = fleet.logFile(service, instance);
      if (existsSync(file) && secrets.some((s) => readFileSync(file, 'utf8').includes(s))) broken.I10.push(`${service} ${instance} prints a secret`);
    }
  }
  for (const invariant of invariants) for (const line of broken[invariant].slice(0, 5)) console.log(`${invariant}: ${line}`);
}
