import type { Assignment, RecordBatch } from '@weir/log';
import { WeirError } from '@weir/errors';
import { topicNames } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createPartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';

const assignment: Assignment = { topic: 't.dispatch.one', partition: 0, epoch: 1, position: 5 };
const turn = (): Promise<void> => new Promise((done) => setImmediate(done));

test('a ledger that takes long to read, or whose brokers are away for a while, ends nothing and holds up neither the group nor what else the process does: nothing is called before it is read, and a partition that goes meanwhile goes at once', async () => {
  const ready: unknown[] = [];
  const failed: unknown[] = [];
  let batches = 0;
  let away = 2;
  const ports = {
    name: 'one', instance: 'a', topics: topicNames('t'), fail: (error: unknown) => { failed.push(error); },
    clock: { now: () => 1, random: () => 0.5, monotonic: () => 0, setTimer: setTimeout, clearTimer: clearTimeout },
    window: () => ({ records: 500, bytes: 1e6 }), progress: { lag: () => undefined }, metrics: { lag: { set: () => undefined } },
    ledger: { owner: () => undefined }, consumer: () => ({ holds: () => true, pause: () => undefined }), turns: { next: () => { throw new Error('a record was taken'); } },
    // As long as the partition is held.
    takeover: { async load(_partition: number, _position: number, gone: () => boolean) {
      if (away-- > 0) throw new WeirError('log-unavailable');
      while (!gone()) {
        batches++;
        await turn();
      }
      throw new WeirError('log-assignment-stale');
    } },
  } as unknown as DestinationPorts;
  const runner = createPartitionRunner(ports, assignment, (lane) => { ready.push(lane); }, () => undefined);
  runner.open();
  runner.accept({ topic: assignment.topic, partition: 0, epoch: 1, records: [{ offset: 5, timestamp: 1, key: null, value: Buffer.from('v'), headers: [] }], nextOffset: 6, highWatermark: 6 } as unknown as RecordBatch);
  while (batches < 3) await turn();
  await runner.close('rebalance');
  expect([ready, failed, runner.closed()]).toEqual([[], [], true]);
});

test('what ends one by one is committed together, and the last of it when the partition goes', async () => {
  const commits: number[] = [];
  const timers: (() => void)[] = [];
  let mark: unknown;
  const ports = {
    name: 'one', instance: 'a', topics: topicNames('t'), fail: (error: unknown) => { throw error; },
    clock: { now: () => 1, random: () => 0.5, monotonic: () => 0, setTimer: (run: () => void) => timers.push(run), clearTimer: () => undefined },
    window: () => ({ records: 500, bytes: 1e6 }), progress: { lag: () => undefined, committed: () => undefined }, metrics: { lag: { set: () => undefined }, ended: { inc: () => undefined } },
    ledger: { owner: () => mark, intent: () => undefined, parks: () => [] }, turns: { next: () => Promise.resolve(), over: () => false },
    consumer: () => ({ holds: () => true, async commit([{ offset }]: readonly [{ offset: number }]) { commits.push(offset); } }),
    serde: { encode(name: string, value: unknown) {
      if (name === 'weir.internal.LedgerOwner') mark = value;
      return Buffer.alloc(0);
    } },
    appender: { append: () => Promise.resolve([0]), partitionFor: () => 0 }, takeover: { load: () => Promise.resolve(), reach: () => undefined },
  } as unknown as DestinationPorts;
  const turns = async (): Promise<void> => { for (let i = 0; i < 5; i++) await turn(); };
  const runner = createPartitionRunner(ports, assignment, () => undefined, () => undefined);
  runner.open();
  /** A record that is no delivery: it ends as a dead letter. */
  const arrive = async (offset: number): Promise<void> => {
    runner.accept({ topic: assignment.topic, partition: 0, epoch: 1, records: [{ offset, timestamp: 1, key: null, value: null, headers: [] }], nextOffset: offset + 1, highWatermark: offset + 1 } as unknown as RecordBatch);
    await turns();
  };
  for (let offset = 5; offset < 15; offset++) await arrive(offset);
  expect(commits).toEqual([6]);
  for (const run of timers.splice(0)) run();
  await turns();
  expect(commits).toEqual([6, 15]);
  await arrive(15);
  expect(commits).toEqual([6, 15]);
  await runner.close('rebalance');
  expect(commits).toEqual([6, 15, 16]);
});
