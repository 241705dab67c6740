import type { OperationManifest } from '@weir/adapter';
import type { DestinationConfig } from '@weir/release';
import type { Preparation } from './attempt.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

/** An operation that does the same as another one of its destination, as the choice sees it. */
export interface Path {
  readonly operation: string;
  readonly manifest: OperationManifest;
}

/** What the quota says of a path: ms until a call may start, and calls a second in the long run (Infinity = no limit is known). */
export interface PathQuota {
  readonly waitMs: number;
  readonly perSecond: number;
}

interface Measured {
  /** Mean time of a call, ms; NaN = none was made. */
  latencyMs: number;
  /** Share of calls that failed, lately. */
  errors: number;
  /** Deliveries in one call, lately. */
  items: number;
  at: number;
}

const weight = 0.2;
/** After this time half of what is known of errors is forgotten, so that a path that failed is tried again. */
const halfLifeMs = 30_000;
const unknownLatencyMs = 100;
/** A latency that was not measured for so long is not known any more: what was slow then is tried again. */
const forgetMs = 300_000;
/** What a failed call costs beside its own time, ms: the wait before the next one (the first waits of the breaker and of the backoff). */
const failedMs = 1000;

/**
 * Which of several equivalent paths the next call takes: the one on which a delivery is expected to be through first, by
 * measured latency and errors, and the quota that is left. cost = ((wait for a call + latency + time a call takes out of the
 * quota) / deliveries in a call + share that fails × wait before the next call) / share that succeeds: a path that fails
 * fast is not a fast one. A path that was never used counts as the mean of the others.
 */
export interface Paths {
  /** The best, and what it costs, ms: for a choice between destinations. */
  best(paths: readonly Path[], quotaOf: (path: Path) => PathQuota, now: number): { readonly path: Path; readonly cost: number };
  choose(paths: readonly Path[], quotaOf: (path: Path) => PathQuota, now: number): Path;
  /** What a call came to: how long it took, whether the destination was in trouble, how many deliveries were in it. */
  measured(operation: string, durationMs: number, failed: boolean, items: number, now: number): void;
}

export function createPaths(): Paths {
  const known = new Map<string, Measured>();

  function errorsOf(m: Measured | undefined, now: number): number {
    return m === undefined ? 0 : m.errors * 2 ** (-Math.max(0, now - m.at) / halfLifeMs);
  }

  function latencyOf(m: Measured | undefined, now: number): number | undefined {
    return m === undefined || now - m.at > forgetMs ? undefined : m.latencyMs;
  }

  function best(paths: readonly Path[], quotaOf: (path: Path) => PathQuota, now: number): { path: Path; cost: number } {
    const latencies = paths.flatMap((p) => latencyOf(known.get(p.operation), now) ?? []);
    const mean = latencies.length === 0 ? unknownLatencyMs : latencies.reduce((a, b) => a + b, 0) / latencies.length;
    let best = paths[0]!;
    let least = Number.POSITIVE_INFINITY;
    for (const path of paths) {
      const m = known.get(path.operation);
      const { waitMs, perSecond } = quotaOf(path);
      const items = m?.items ?? path.manifest.batch?.maxItems ?? 1;
      const perCall = waitMs + (latencyOf(m, now) ?? mean) + (Number.isFinite(perSecond) ? 1000 / Math.max(perSecond, 1e-6) : 0);
      const errors = errorsOf(m, now);
      const cost = (perCall / items + errors * failedMs) / Math.max(0.01, 1 - errors);
      if (cost < least) [best, least] = [path, cost];
    }
    return { path: best, cost: least };
  }

  return {
    best,
    choose: (paths, quotaOf, now) => best(paths, quotaOf, now).path,
    measured(operation, durationMs, failed, items, now) {
      const m = known.get(operation);
      if (m === undefined) {
        known.set(operation, { latencyMs: durationMs, errors: failed ? weight : 0, items, at: now });
        return;
      }
      m.errors = errorsOf(m, now) * (1 - weight) + (failed ? weight : 0);
      m.latencyMs += (durationMs - m.latencyMs) * weight;
      m.items += (items - m.items) * weight;
      m.at = now;
    },
  };
}

/** The paths that the delivery may take, without those that it cannot be built for; undefined = there is nothing to choose. */
function pathsOf({ paths }: DestinationConfig, { delivery, unbuilt }: Task): readonly string[] | undefined {
  const names = paths.get(delivery.operation);
  if (names === undefined || unbuilt === undefined) return names;
  const left = names.filter((name) => !unbuilt.includes(name));
  // None: another release has other paths than those that were tried.
  return left.length > 0 ? left : names;
}

/** The delivery cannot be built for `task.path`: it takes that no more. False: no other is left. */
export function leavePath({ paths }: DestinationConfig, task: Task): boolean {
  const unbuilt = [...task.unbuilt ?? [], task.path];
  task.unbuilt = unbuilt;
  return paths.get(task.delivery.operation)?.some((name) => !unbuilt.includes(name)) === true;
}

/**
 * The call on the path that it takes: that of `prefer` where the operation lists it, else the best. A call whose effect is
 * unknown binds to nothing: the paths share the key, so the vendor tells its repetition on any of them, and a delivery
 * does not wait for a path that fails while another one answers. Sets `task.path`.
 */
export function withPath(ports: DestinationPorts, paths: Paths, destination: DestinationConfig, task: Task, prepared: Preparation, prefer?: string): Preparation {
  const names = prepared.kind === 'call' ? pathsOf(destination, task) : undefined;
  if (names === undefined) return prepared;
  task.path = prefer !== undefined && names.includes(prefer) ? prefer : bestOf(ports, paths, destination, names).path.operation;
  return { kind: 'call', operation: destination.operations[task.path]! };
}

function bestOf(ports: DestinationPorts, paths: Paths, destination: DestinationConfig, names: readonly string[]): ReturnType<Paths['best']> {
  const now = ports.clock.monotonic();
  return paths.best(names.map((operation) => ({ operation, manifest: destination.operations[operation]! })), ({ operation, manifest }) => {
    const { available, perSecond, closedMs } = ports.quota.state(operation, manifest.limit, now);
    return { perSecond, waitMs: Math.max(closedMs, available >= 1 ? 0 : 1000 / Math.max(perSecond, 1e-6)) };
  }, now);
}

/** ms in which a delivery by this operation is expected to be through, on the best of its paths. */
export function costOf(ports: DestinationPorts, paths: Paths, destination: DestinationConfig, operation: string): number {
  return bestOf(ports, paths, destination, destination.paths.get(operation) ?? [operation]).cost;
}

/** What a call came to, on one of several paths or the only one: a second vendor is compared with it. */
export function measurePath(paths: Paths, tasks: readonly Task[], now: number): void {
  const { path, last, delivery } = tasks[0]!;
  if (last !== undefined) paths.measured(path === '' ? delivery.operation : path, last.durationMs, tasks.every((t) => ['retry', 'throttled', 'auth-broken'].includes(t.last?.verdict ?? '')), tasks.length, now);
}
