import type { OperationManifest } from '@weir/adapter';
import type { DestinationConfig } from '@weir/release';
import type { ToStart } from './attempt.ts';
import type { Batch, Ready } from './batch.ts';
import { call, callBatch, readBack, tellQuota } from './call.ts';
import type { Lane } from './lane.ts';
import type { PartitionRunner } from './partition.ts';
import { measurePath, type Paths } from './paths.ts';
import type { DestinationPorts } from './ports.ts';
import type { createSettle } from './settle.ts';
import type { createStanding } from './standing.ts';
import type { Task } from './types.ts';

/**
 * The calls of one destination that are under way. What an answer says is told once to all whom it concerns, before its deliveries are
 * settled: the quota of its bucket, the breaker, and the paths. An error nobody declared ends the partition that the call was for.
 */
export interface InFlight {
  count(): number;
  /** Begins a call, or a question whether one took effect, for the head of a lane. */
  start(lane: Lane, runner: PartitionRunner, task: Task, destination: DestinationConfig, toStart: ToStart, bucket: string): void;
  /** Begins one call for all members of a batch. */
  startBatch(batch: Batch<Ready>, destination: DestinationConfig, operation: OperationManifest, bucket: string): void;
}

interface Context {
  readonly ports: DestinationPorts;
  readonly paths: Paths;
  readonly standing: ReturnType<typeof createStanding>;
  readonly settle: ReturnType<typeof createSettle>;
  /** The heads that it offers are looked at when all of them are in line: one after the other each would begin a call of its own. */
  together(offers: () => void): void;
  /** One is over: there may be room for another. */
  finished(): void;
}

export function createInFlight({ ports, paths, standing, settle, together, finished }: Context): InFlight {
  let count = 0;

  function began(): number {
    count++;
    ports.metrics.callsInFlight(ports.name, count);
    return standing.began();
  }

  function over(): void {
    count--;
    ports.metrics.callsInFlight(ports.name, count);
    finished();
  }

  return {
    count: () => count,
    start(lane, runner, task, destination, { kind, operation }, bucket) {
      const since = began();
      runner.callStarted();
      const settled = kind === 'call'
        ? call(ports, runner, destination, task, operation).then((result) => {
          tellQuota(ports, bucket, result, result.kind === 'verdict' ? result.verdict : undefined);
          standing.judge([result], [task], destination, since);
          if (result.kind === 'verdict') measurePath(paths, [task], ports.clock.monotonic());
          settle.call(lane, runner, task, result);
        })
        : readBack(ports, runner, destination, task, operation).then((result) => {
          tellQuota(ports, bucket, result, result.kind === 'read' ? result.read : undefined);
          standing.judge([result], [task], destination, since);
          settle.read(lane, runner, task, result);
        });
      settled.catch(runner.fail).finally(() => {
        runner.callEnded();
        over();
      });
    },
    startBatch({ members, items }, destination, operation, bucket) {
      const since = began();
      ports.metrics.batchItems.observe({ destination: ports.name }, members.length);
      for (const { runner } of members) runner.callStarted();
      callBatch(ports, members, items, destination, operation).then((results) => {
        const trouble = results.find((r) => r.kind === 'verdict' && r.verdict.kind === 'throttled') ?? results[0]!;
        tellQuota(ports, bucket, trouble, trouble.kind === 'verdict' ? trouble.verdict : undefined);
        standing.judge(results, members.map((m) => m.task), destination, since);
        if (results[0]!.kind === 'verdict') measurePath(paths, members.map((m) => m.task), ports.clock.monotonic());
        together(() => { members.forEach(({ lane, runner, task }, i) => settle.call(lane, runner, task, results[i]!)); });
      }).catch((error: unknown) => { for (const { runner } of members) runner.fail(error); }).finally(() => {
        for (const { runner } of members) runner.callEnded();
        over();
      });
    },
  };
}
