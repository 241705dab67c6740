/** Who kills: two instances of every stage, each armed at the point that was tried least, or killed when it is not reached. */
import { failpoints, type Failpoint } from '@weir/failpoint';
import { freeze, type Fleet, type FleetService } from '@weir/testing';
import type { Random } from './random.ts';

/** Points of each service, and up to which passing of it a kill may wait. */
const pointsOf: Readonly<Record<string, ReadonlyArray<readonly [Failpoint, number]>>> = {
  ingest: [['ingest.verified', 20], ['ingest.acked', 20], ['ingest.half-response', 20], ['log.produce-sent', 30], ['poller.page-fetched', 3], ['poller.produced', 3], ['poller.cursor-saved', 3], ['log.schema-fetch', 10]],
  normalizer: [['normalizer.before-transform', 20], ['normalizer.dependencies-written', 20], ['normalizer.dlq-written', 3], ['normalizer.outputs-acked', 20], ['normalizer.release-switch', 1], ['log.produce-sent', 40], ['log.commit-sent', 15]],
  policy: [['policy.tables-loading', 1], ['policy.decided', 20], ['policy.outputs-acked', 20], ['policy.folded', 4], ['policy.states-acked', 4], ['log.produce-sent', 40], ['log.commit-sent', 15]],
  dispatcher: [['dispatcher.taking-over', 2], ['dispatcher.intent-written', 20], ['dispatcher.before-connect', 60], ['dispatcher.sent', 60], ['dispatcher.response-read', 60], ['dispatcher.dlq-written', 1], ['dispatcher.ledger-written', 40], ['dispatcher.retry-scheduled', 2], ['dispatcher.parked-written', 1], ['dispatcher.marker-written', 1], ['log.produce-sent', 60], ['log.commit-sent', 30]],
};
/** At these a process may have nothing in hand: then the lag of its group decides. */
const idlePoints: ReadonlySet<string> = new Set<string>(['log.schema-fetch', 'poller.cursor-saved', 'normalizer.release-switch', 'policy.tables-loading', 'dispatcher.taking-over', 'random']);

export interface Kill { readonly service: string; readonly point: string; readonly counted: boolean }

export interface KillerPorts {
  readonly fleet: Fleet;
  readonly random: Random;
  /** Kills so far, by service and point. */
  readonly counts: Map<string, number>;
  /** True while work of this service waits uncommitted (for ingest: while requests are in flight to the instance). */
  holdsWork(service: FleetService, instance: number): Promise<boolean>;
  killed(kill: Kill): void;
  /** It ended by itself: an error that nobody declared. */
  ended(service: string, code: number | null): void;
  stopped(service: string): void;
  readonly done: () => boolean;
  readonly faults: ReadonlySet<string>;
  readonly patienceMs: number;
  readonly sessionMs: number;
}

const exitOf = (child: ReturnType<Fleet['process']>): Promise<void> => new Promise((resolve) => {
  if (child.exitCode !== null || child.signalCode !== null) return resolve();
  child.once('exit', () => resolve());
});
const pause = (ms: number): Promise<void> => new Promise((done) => { setTimeout(done, ms); });

/** Runs until `done`; then the instance runs unarmed. */
export async function runKiller(service: FleetService, instance: number, ports: KillerPorts): Promise<void> {
  const { fleet, random, counts } = ports;
  const points = pointsOf[service]!;
  while (!ports.done()) {
    const least = Math.min(...points.map(([name]) => counts.get(`${service} ${name}`) ?? 0));
    const [point, most] = random.pick(points.filter(([name]) => (counts.get(`${service} ${name}`) ?? 0) <= least + 1));
    let byUs = false;
    const before = fleet.process(service, instance);
    before.kill('SIGKILL');
    await exitOf(before);
    // At start it may already pass the point: that is a kill like any other.
    const starting = fleet.start(service, instance, { WEIR_FAILPOINTS: `${point}:${1 + random.below(most)}` }).catch((error: unknown) => error);
    const child = fleet.process(service, instance);
    if (child === before) throw new Error(`${service} ${instance} was not started`);
    const exit = exitOf(child);
    await Promise.race([starting, exit]);
    const until = performance.now() + ports.patienceMs * (0.3 + random.next());
    while (child.exitCode === null && child.signalCode === null && !ports.done() && performance.now() < until) {
      await Promise.race([exit, pause(250)]);
      if (ports.faults.has('stop') && random.next() < 0.004 && child.exitCode === null && child.signalCode === null) {
        ports.stopped(service);
        const thaw = await freeze(child.pid!);
        await pause(ports.sessionMs * (1 + random.next()));
        thaw();
      }
    }
    if (ports.done() && child.exitCode === null && child.signalCode === null) byUs = true;
    if (child.exitCode === null && child.signalCode === null) {
      const held = await ports.holdsWork(service, instance);
      child.kill('SIGKILL');
      await exit;
      await starting;
      if (!byUs) report('random', held);
    } else {
      await starting;
      if (child.signalCode === 'SIGKILL') report(point, !idlePoints.has(point) || await ports.holdsWork(service, instance));
      else ports.ended(service, child.exitCode);
    }
    function report(name: string, counted: boolean): void {
      if (counted) counts.set(`${service} ${name}`, (counts.get(`${service} ${name}`) ?? 0) + 1);
      ports.killed({ service, point: name, counted });
    }
  }
  await fleet.start(service, instance);
}

/** Every point of the catalogue has a killer: one that is forgotten would never be tried. */
export function untried(): string[] {
  const tried = new Set(Object.values(pointsOf).flatMap((list) => list.map(([name]) => name as string)));
  return Object.keys(failpoints).filter((name) => !tried.has(name));
}
