/** Who kills: every instance of every stage, each armed at the point that lacks kills most, or killed when it is not reached. */
import { join } from 'node:path';
import { failpoints, type Failpoint } from '@weir/failpoint';
import type { Random } from './random.ts';
import { tearOne } from './torn.ts';
import { clientOf, holdsWork, lagOf, sessionMs, victims, type Victim, type World } from './world.ts';

/** A point of the catalogue, or one of it where it is passed with this detail (packages/failpoint): `log.produce-sent@.dlq`. */
export type Point = Failpoint | `${Failpoint}@${string}`;
const failpointOf = (point: Point): Failpoint => point.split('@')[0] as Failpoint;

/** Up to which passing of a point a kill waits: often passed ones are struck anywhere. */
const passings: Partial<Record<Point, number>> = {
  'log.produce-sent@.dlq': 1,
  'log.schema-fetch': 4, 'poller.page-fetched': 2, 'poller.produced': 2, 'poller.cursor-saved': 2, 'normalizer.dlq-written': 2, 'normalizer.release-switch': 1, 'policy.tables-loading': 1, 'policy.folded': 4, 'policy.states-acked': 4,
  'dispatcher.taking-over': 2, 'dispatcher.before-connect': 60, 'dispatcher.sent': 60, 'dispatcher.response-read': 60, 'dispatcher.dlq-written': 1, 'dispatcher.ledger-written': 40, 'dispatcher.retry-scheduled': 2, 'dispatcher.parked-written': 1, 'dispatcher.marker-written': 1,
  'control.authorized': 3, 'control.audit-written': 2, 'control.change-made': 2, 'control.put-back': 1, 'control.erasure-marked': 1, 'control.keys-destroyed': 1,
};
/** Of the shared points and the others, by how often the stage passes one in its life: one that is not reached in it is a kill anywhere. */
const ofStage: Record<Victim, { readonly 'log.produce-sent': number; readonly 'log.commit-sent': number; readonly others: number }> = {
  ingest: { 'log.produce-sent': 20, 'log.commit-sent': 15, others: 6 },
  normalizer: { 'log.produce-sent': 8, 'log.commit-sent': 3, others: 4 },
  policy: { 'log.produce-sent': 40, 'log.commit-sent': 15, others: 20 },
  dispatcher: { 'log.produce-sent': 40, 'log.commit-sent': 15, others: 20 },
  control: { 'log.produce-sent': 20, 'log.commit-sent': 1, others: 3 },
};
/** What an instance passes when it is its turn (one of them polls), or when operators have got through to it. */
const isRare = (stage: Victim, point: Point): boolean => stage === 'control' || point.startsWith('poller.');
/** Passed while a process starts: armed at once. */
const atStart: ReadonlySet<string> = new Set<Failpoint>(['log.schema-fetch', 'policy.tables-loading', 'dispatcher.taking-over']);
/**
 * What a victim surely held, by where it died; undefined = that says nothing, and it is looked whether something waited:
 * behind the commits of its partitions, or of its requests (`holdsWork`).
 */
const inHand: Record<Failpoint, string | undefined> & Partial<Record<Point, string>> = {
  'log.produce-sent@.dlq': 'a delivery that is given up and whose end is not written',
  // Also reports of what is applied, incidents, marks and cursors are produced.
  'log.produce-sent': undefined,
  'log.commit-sent': 'offsets above those that are committed: others are not sent (packages/log/commits.ts)',
  'log.schema-fetch': undefined,
  'ingest.verified': 'the items of a request that is not answered',
  'ingest.acked': 'a request that is not answered',
  'ingest.half-response': 'a request that is not answered',
  'poller.page-fetched': 'the items of the page: passed for a page that has some',
  'poller.produced': 'a page whose items would be read again: passed for a page that has some',
  'poller.cursor-saved': undefined,
  'normalizer.before-transform': 'the batch that was read',
  'normalizer.dependencies-written': 'a slice of the batch: it is committed when everything of it is acknowledged',
  'normalizer.dlq-written': 'a slice of the batch, as before',
  'normalizer.outputs-acked': 'a slice of the batch: its offset is committed after this',
  'normalizer.release-switch': undefined,
  'policy.tables-loading': undefined,
  'policy.decided': 'a chunk of the batch: it is committed when its deliveries are acknowledged',
  'policy.outputs-acked': 'a chunk of the batch: its offset is committed after this',
  'policy.folded': 'the batch of changes: it is committed when its states are acknowledged and passed on',
  'policy.states-acked': 'the batch of changes: its offset is committed after this',
  'dispatcher.taking-over': undefined,
  'dispatcher.intent-written': 'the batch that the intent is for',
  'dispatcher.before-connect': 'the delivery of the call: it has no end',
  'dispatcher.sent': 'the delivery of the call: it has no end',
  'dispatcher.response-read': 'the delivery of the call: it has no end',
  'dispatcher.dlq-written': 'a delivery whose end is not written',
  'dispatcher.ledger-written': 'deliveries that have ended and count as unfinished until this process takes note',
  'dispatcher.retry-scheduled': 'the delivery that waits: it has no end',
  'dispatcher.parked-written': 'the deliveries of the subject: they are finished here when the marker stands',
  'dispatcher.marker-written': 'the deliveries of the subject: their offset is committed after this',
  'control.authorized': 'a request that is not answered',
  'control.audit-written': 'a change whose intent is in the audit log and which is not made',
  'control.change-made': 'a change that is made, not answered, and without an end in the audit log',
  'control.put-back': 'records that are put back and lie behind the cursor of their order',
  'control.erasure-marked': 'an erasure that is not acknowledged',
  'control.keys-destroyed': 'an erasure that is not acknowledged',
};
const sharedPoints: Record<Victim, readonly Point[]> = { ingest: ['log.produce-sent'], control: ['log.produce-sent'], normalizer: ['log.produce-sent', 'log.commit-sent', 'log.schema-fetch'], policy: ['log.produce-sent', 'log.commit-sent'], dispatcher: ['log.produce-sent', 'log.produce-sent@.dlq', 'log.commit-sent'] };

/** Points of a stage: by the catalogue, so that a new one is tried without a word here. */
export function pointsOf(stage: Victim): Point[] {
  const own = (Object.keys(failpoints) as Failpoint[]).filter((name) => name.startsWith(`${stage}.`) || (stage === 'ingest' && name.startsWith('poller.')));
  return [...own, ...sharedPoints[stage]];
}

/** Points that no killer reaches: one that is forgotten would never be tried. */
export function untried(): string[] {
  const tried = new Set<string>(victims.flatMap(pointsOf).map(failpointOf));
  return Object.keys(failpoints).filter((name) => !tried.has(name));
}

function passingsOf(stage: Victim, point: Point): number {
  const of = ofStage[stage];
  return passings[point] ?? (point === 'log.produce-sent' || point === 'log.commit-sent' ? of[point] : of.others);
}

/** What makes the process pass a point that traffic alone passes seldom. */
async function provoke(world: World, point: Point, random: Random): Promise<void> {
  if (point.startsWith('control.')) world.operators.provoke(point as Failpoint);
  else if (point === 'dispatcher.dlq-written' || point === 'log.produce-sent@.dlq') await world.vendorFault({ mode: 'permanent', count: 3 });
  else if (point === 'normalizer.dlq-written') world.traffic.poison(3);
  else if (point === 'dispatcher.parked-written' || point === 'dispatcher.marker-written' || point === 'dispatcher.retry-scheduled') for (let i = 0; i < 12; i++) await world.vendorFault({ mode: '5xx', subject: world.traffic.person(random), forMs: 4000 });
}

export interface KillerPorts {
  readonly world: World;
  readonly random: Random;
  /** Kills by `<stage> <point>`, those of earlier rounds of the run among them. */
  readonly counts: Map<string, number>;
  readonly done: () => boolean;
  /** Lives since the last kill at it that were armed at `<stage> <point>` and did not end there. */
  readonly misses: Map<string, number>;
  /** Milliseconds after it is ready until the next kill of a stage is due, so that events keep pace with kills. */
  readonly pace: (stage: Victim) => number;
  readonly starts: Starts;
  /** Asks for another release until it is made, or `enough`. */
  readonly switchRelease: (enough: () => boolean) => Promise<unknown>;
  /** What lacks kills at the stage, where that is all that is wanted; none = it rests while others lack some. Undefined: anything. */
  readonly wanted: (stage: Victim) => readonly Point[] | undefined;
  killed(stage: Victim, instance: number, point: string, counted: boolean): void;
  /** It ended by itself: an error that nobody declared. */
  ended(stage: Victim, instance: number, code: number | null): void;
  tore(): void;
}

/** A victim that has nothing in hand lives so much longer: killing it would prove nothing and cost a start. */
const idleMs = 6000;

/** Lets so many processes start at once, one of a stage that is away altogether first, and knows how long a start of a stage takes until it is ready. */
export interface Starts {
  /** Runs it when it is its turn. */
  inTurn<T>(stage: Victim, start: () => Promise<T>): Promise<T>;
  usualMs(stage: Victim): number;
}

/** More starts at once than processors, and one, would take them from those that work and come up later themselves. */
export function createStarts(atOnce: number): Starts {
  const usual = new Map<Victim, number>();
  const waiting: { readonly stage: Victim; readonly turn: () => void }[] = [];
  const starting: Victim[] = [];
  const alone = (stage: Victim): boolean => !starting.includes(stage) && waiting.filter((w) => w.stage === stage).length > 1;
  const next = (): void => {
    if (starting.length >= atOnce || waiting.length === 0) return;
    const [first] = waiting.splice(Math.max(0, waiting.findIndex(({ stage }) => alone(stage))), 1);
    starting.push(first!.stage);
    first!.turn();
  };
  return {
    usualMs: (stage) => usual.get(stage) ?? 0,
    async inTurn(stage, start) {
      await new Promise<void>((turn) => {
        waiting.push({ stage, turn });
        next();
      });
      const began = performance.now();
      try {
        const started = await start();
        const took = performance.now() - began;
        usual.set(stage, ((usual.get(stage) ?? took) + took) / 2);
        return started;
      } finally {
        starting.splice(starting.indexOf(stage), 1);
        next();
      }
    },
  };
}

const pause = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });
const isDead = (child: ReturnType<World['fleet']['process']>): boolean => child.exitCode !== null || child.signalCode !== null;
const exitOf = (child: ReturnType<World['fleet']['process']>): Promise<void> => new Promise((resolve) => {
  if (isDead(child)) return resolve();
  child.once('exit', () => resolve());
});

/** So many lives in vain, and a point is taken for dead: nobody waits for it. */
export const deadAfter = 40;
/** So many lives in vain stand for a kill when the next point is chosen. */
const missesOfKill = 3;

/** The points that have the fewest kills, one of them; one that is not reached moves back, so that it does not take the lives of the others. Now and then any. */
export function choose(stage: Victim, { counts, misses, random, wanted }: Pick<KillerPorts, 'counts' | 'misses' | 'random' | 'wanted'>): Point {
  const points = wanted(stage) ?? pointsOf(stage);
  // Where nothing else is wanted any more every instance waits at what lacks: only one of them polls.
  if (points.length < pointsOf(stage).length) return random.pick(points);
  if (random.next() < 0.25) return random.pick(points);
  const of = (name: string): number => (counts.get(`${stage} ${name}`) ?? 0) + Math.floor((misses.get(`${stage} ${name}`) ?? 0) / missesOfKill);
  const least = Math.min(...points.map(of));
  return random.pick(points.filter((name) => of(name) <= least + 1));
}

/** A garbage collection, or a computation without an end: 30 s. A process that starts is not kept so long: its start takes a turn of the others. */
const longStallMs = 30_000;

/** How long it is to stand still at its point instead of dying; 0 = it dies. One in twelve, and of these one in ten for long. */
export function stallOf(random: Random, starts: boolean): number {
  if (random.next() >= 0.08) return 0;
  return !starts && random.next() < 0.1 ? longStallMs : sessionMs + random.below(sessionMs);
}

/** Runs until `done`; then the instance runs unarmed. */
export async function runKiller(stage: Victim, instance: number, ports: KillerPorts): Promise<void> {
  const { world, random, counts } = ports;
  const { fleet, options } = world;
  while (!ports.done()) {
    if (ports.wanted(stage)?.length === 0) {
      await rest();
      continue;
    }
    const point = choose(stage, ports);
    const before = fleet.process(stage, instance);
    before.kill('SIGKILL');
    await exitOf(before);
    if (options.faults.has('torn') && random.next() < 0.1 && tearOne(join(fleet.dataDir, 'state', stage, String(instance)), random)) ports.tore();
    const dueMs = ports.pace(stage);
    if (atStart.has(point) && dueMs > 0) await pause(Math.min(dueMs, 20_000));
    const stallMs = options.faults.has('stall') ? stallOf(random, atStart.has(point)) : 0;
    // Counted from the start: at start it may already pass the point, and then that is a kill like any other.
    const fromMs = dueMs === 0 || atStart.has(point) ? 0 : Math.round(dueMs + ports.starts.usualMs(stage));
    const spec = `${point}:${1 + random.below(passingsOf(stage, point))}${fromMs === 0 ? '' : `+${fromMs}`}${stallMs === 0 ? '' : `~${stallMs}`}`;
    const started = Promise.withResolvers<void>();
    const starting = ports.starts.inTurn(stage, async () => {
      await world.holdings.begins(clientOf(stage, instance));
      const ready = fleet.start(stage, instance, { WEIR_FAILPOINTS: spec });
      started.resolve();
      return ready;
    }).catch((error: unknown) => error);
    await started.promise;
    const child = fleet.process(stage, instance);
    if (child === before) throw new Error(`${stage} ${instance} was not started`);
    await life(child, starting, point, dueMs, stallMs);
  }
  const last = fleet.process(stage, instance);
  last.kill('SIGKILL');
  await exitOf(last);
  await startUntilReady(stage, instance);

  /** It works, unarmed, as long as nothing is wanted of its stage. */
  async function rest(): Promise<void> {
    do {
      // Also where it ended by itself meanwhile: what is wanted of other stages may need it.
      if (isDead(fleet.process(stage, instance))) {
        await world.holdings.begins(clientOf(stage, instance));
        await startUntilReady(stage, instance);
      }
      await pause(500);
    } while (ports.wanted(stage)?.length === 0 && !ports.done());
  }

  /** Until it dies at its point, by itself, or by our patience. */
  async function life(child: ReturnType<typeof fleet.process>, starting: Promise<unknown>, point: Point, dueMs: number, stallMs: number): Promise<void> {
    const exit = exitOf(child);
    await Promise.race([starting, exit]);
    const began = performance.now();
    // One that stands still is not killed before it goes on: what it does then is what is looked at.
    const patienceMs = (isRare(stage, point) ? 15_000 : 6000) + random.below(8000) + stallMs;
    let provoked = false;
    while (!isDead(child) && !ports.done()) {
      const overMs = performance.now() - began - dueMs - patienceMs;
      if (overMs > idleMs || (overMs > 0 && await holds())) break;
      if (!provoked && performance.now() - began >= dueMs) {
        provoked = true;
        if (point === 'normalizer.release-switch') await ports.switchRelease(() => isDead(child) || ports.done());
        else await provoke(world, point, random).catch(() => undefined);
      }
      await Promise.race([exit, pause(overMs > 0 ? 700 : 250)]);
    }
    let name: string = point;
    let held = true;
    const armed = `${stage} ${point}`;
    if (!isDead(child)) {
      if (ports.done()) return;
      name = 'random';
      ports.misses.set(armed, (ports.misses.get(armed) ?? 0) + 1);
      held = await holds();
      child.kill('SIGKILL');
      await exit;
    } else if (child.signalCode !== 'SIGKILL') {
      await starting;
      return ports.ended(stage, instance, child.exitCode);
    } else {
      ports.misses.delete(armed);
      if (inHand[point] === undefined) {
        // What it cut off is told to the senders a moment later.
        await pause(100);
        held = await holds(true);
      }
    }
    await starting;
    if (held) counts.set(`${stage} ${name}`, (counts.get(`${stage} ${name}`) ?? 0) + 1);
    ports.killed(stage, instance, name, held);

    /** What cannot be asked, because brokers are away, does not count. Where schemas are fetched a process has joined no group yet: it was started for what waits for its stage. */
    function holds(died = false): Promise<boolean> {
      return (died && point === 'log.schema-fetch' && stage !== 'control' ? lagOf(world, stage).then(({ records }) => records > 0) : holdsWork(world, stage, instance, died)).catch(() => false);
    }
  }

  async function startUntilReady(service: Victim, n: number): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        return await fleet.start(service, n);
      } catch (error) {
        if (tries === 4) throw error;
        if (!isDead(fleet.process(service, n))) return;
      }
    }
  }
}
