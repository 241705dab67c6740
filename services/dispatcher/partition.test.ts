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
