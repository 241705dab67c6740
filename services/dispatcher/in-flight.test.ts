import type { HttpResponse, Verdict } from '@weir/adapter';
import { expect, test } from 'vitest';
import type { CallResult } from './call.ts';
import { createInFlight } from './in-flight.ts';
import type { Lane } from './lane.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

const ok: Verdict = { kind: 'ok', effect: 'done' };
const throttled: Verdict = { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: 7000 };

/** A vendor that answers when `answer` resolves; `told` is what was told, in order. */
function world(verdicts: readonly Verdict[], answer: Promise<HttpResponse> = Promise.resolve({ status: 200, headers: {}, body: Buffer.alloc(0) })) {
  const told: string[] = [];
  const open = { calls: 0 };
  const runner = { partition: 0, epoch: 1, closed: () => false, callStarted: () => { open.calls++; }, callEnded: () => { open.calls--; }, fail: (error: Error) => { told.push(`fail ${error.message}`); } } as unknown as PartitionRunner;
  const ports = {
    name: 'crm', callTimeoutMs: 1000, clock: { now: () => 1, monotonic: () => 1 }, serde: { decode: () => ({ value: {} }) }, http: { call: () => answer },
    metrics: { calls: { observe: () => undefined }, readBacks: { inc: () => undefined }, batchItems: { observe: (_of: object, n: number) => { told.push(`items ${n}`); } }, callsInFlight: (_name: string, n: number) => { told.push(`in flight ${n}`); } },
    quota: { finished: (bucket: string, { throttled, retryAfterMs }: { throttled: boolean; retryAfterMs?: number }) => { told.push(`quota ${bucket} ${throttled} ${retryAfterMs}`); } },
  } as unknown as DestinationPorts;
  const adapter = { destination: { request: () => ({}), classify: () => verdicts[0], verify: { request: () => ({}), classify: () => ({ kind: 'applied' }) }, batch: { request: () => ({}), classify: () => verdicts } } };
  const settle = { call: (_lane: Lane, _runner: PartitionRunner, task: Task, result: CallResult) => { told.push(`settle ${task.subject} ${result.kind === 'verdict' ? result.verdict.kind : result.kind}`); }, read: (_lane: Lane, _runner: PartitionRunner, task: Task) => { told.push(`settle ${task.subject} read`); } };
  const inFlight = createInFlight({
    ports, settle, paths: { best: undefined as never, choose: undefined as never, measured: (operation, _ms, _failed, items) => { told.push(`path ${operation} ${items}`); } },
    standing: { began: () => 3, judge: (results: readonly unknown[], _tasks: readonly Task[], _destination: object, since: number) => { told.push(`judge ${results.length} of ${since}`); } } as never,
    together: (offers) => {
      told.push('together');
      offers();
    },
    finished: () => { told.push('finished'); },
  });
  const task = (subject: string): Task => ({ subject, delivery: { payload: Buffer.alloc(0), operation: 'put' }, key: 'k', path: '', attempts: 0, readBacks: 0, maybeSince: 0 }) as unknown as Task;
  return { told, open, runner, inFlight, task, lane: {} as Lane, destination: { config: {}, adapter } as never, operation: { kind: 'use', verify: {} } as never };
}
const turn = (): Promise<void> => new Promise((resume) => { setImmediate(resume); });

test('a call is in flight until its answer was told to quota, breaker and paths, and its delivery is settled', async () => {
  const answer = Promise.withResolvers<HttpResponse>();
  const { told, open, runner, inFlight, task, lane, destination, operation } = world([throttled], answer.promise);
  inFlight.start(lane, runner, task('ada'), destination, { kind: 'call', operation }, 'all');
  await turn();
  expect([inFlight.count(), open.calls, told.splice(0)]).toEqual([1, 1, ['in flight 1']]);
  answer.resolve({ status: 429, headers: {}, body: Buffer.alloc(0) });
  await turn();
  expect([inFlight.count(), open.calls, told]).toEqual([0, 0, ['quota all true 7000', 'judge 1 of 3', 'path put 1', 'settle ada throttled', 'in flight 0', 'finished']]);
});

test('a question whether a call took effect is one, too, and measures no path', async () => {
  const { told, runner, inFlight, task, lane, destination, operation } = world([]);
  inFlight.start(lane, runner, task('ada'), destination, { kind: 'read-back', operation }, 'all');
  await turn();
  expect(told).toEqual(['in flight 1', 'quota all false undefined', 'judge 1 of 3', 'settle ada read', 'in flight 0', 'finished']);
});

test('a batch is one call: the quota hears of the member that was throttled, and each is settled by its own answer', async () => {
  const { told, open, runner, inFlight, task, lane, destination, operation } = world([ok, throttled]);
  const members = ['ada', 'bob'].map((subject) => ({ lane, runner, since: 0, task: task(subject) }));
  inFlight.startBatch({ members, items: [], bytes: 0, limit: 2 }, destination, operation, 'all');
  expect([inFlight.count(), open.calls]).toEqual([1, 2]);
  await turn();
  expect([inFlight.count(), open.calls, told]).toEqual([0, 0, ['in flight 1', 'items 2', 'quota all true 7000', 'judge 2 of 3', 'path put 2', 'together', 'settle ada ok', 'settle bob throttled', 'in flight 0', 'finished']]);
});

test('an error nobody declared ends the partition of every delivery of the call, and the call is over', async () => {
  const { told, open, runner, inFlight, task, lane, destination, operation } = world([ok], Promise.reject(new Error('odd')));
  inFlight.start(lane, runner, task('ada'), destination, { kind: 'call', operation }, 'all');
  inFlight.startBatch({ members: ['bob', 'eve'].map((subject) => ({ lane, runner, since: 0, task: task(subject) })), items: [], bytes: 0, limit: 2 }, destination, operation, 'all');
  await turn();
  expect([inFlight.count(), open.calls]).toEqual([0, 0]);
  expect(told.filter((line) => line.startsWith('fail') || line === 'finished')).toEqual(['fail odd', 'fail odd', 'fail odd', 'finished', 'finished']);
});
