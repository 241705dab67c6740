import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Cluster } from './cluster.ts';
import type { BrokerConnection, Driver } from './driver.ts';
import { FetchRequests } from './fetch-requests.ts';
import { Fetcher } from './fetcher.ts';
import { encodeBatch } from './records.ts';

beforeEach(() => { vi.useFakeTimers(); });
afterEach(() => { vi.useRealTimers(); });

/** One broker with a topic of one partition, read from `from`. `state.topic` = what there is: undefined = no such topic. `state.away` = it tells no metadata. */
function world(from: number, first: { readonly id: string | undefined; readonly records: number }) {
  const state: { topic: typeof first | undefined; away: boolean; asked: number } = { topic: first, away: false, asked: 0 };
  const connection = {
    metadata: async () => {
      state.asked++;
      if (state.away) throw new Error('away');
      const { topic } = state;
      return { brokers: [{ nodeId: 1, host: 'one', port: 1 }], topics: [topic === undefined ? { name: 't', errorCode: 3, internal: false, partitions: [] } : { name: 't', id: topic.id, errorCode: 0, internal: false, partitions: [{ partition: 0, leader: 1, replicas: 1 }] }] };
    },
    fetch: async (_wait: number, _max: number, [asked]: readonly [{ partitions: readonly { offset: number }[] }]) => {
      await new Promise((done) => { setTimeout(done, 1); });
      const part = { topic: 't', partition: 0, logStartOffset: 0, bytes: Buffer.alloc(0) };
      if (state.topic === undefined) return { errorCode: 0, partitions: [{ ...part, errorCode: 3, highWatermark: -1 }] };
      const { records } = state.topic;
      const { offset } = asked.partitions[0]!;
      if (offset > records) return { errorCode: 0, partitions: [{ ...part, errorCode: 1, highWatermark: -1 }] };
      const bytes = offset < records ? encodeBatch(Array.from({ length: records }, () => ({ partition: 0, key: null, value: null })), 1) : Buffer.alloc(0);
      return { errorCode: 0, partitions: [{ ...part, errorCode: 0, highWatermark: records, bytes }] };
    },
    listOffsets: async (_topic: string, _list: readonly number[], timestamp: number) => [{ topic: 't', partition: 0, errorCode: state.topic === undefined ? 3 : 0, offset: timestamp === -1 ? state.topic?.records ?? -1 : 0 }],
    destroy: () => undefined,
  } as unknown as BrokerConnection;
  const cluster = new Cluster({ name: 'platformatic', connect: async () => connection } as unknown as Driver, { brokers: ['one:1'], clientId: 'test', deadlineMs: 10_000 });
  const errors: Error[] = [];
  const offsets: number[] = [];
  const fetcher = new Fetcher({ maxBytesPerPartition: 100, onFatal: (error) => { errors.push(error); }, onBatch: ({ records }) => { offsets.push(...records.map((r) => r.offset)); } }, new FetchRequests(cluster, { purpose: 'test', maxWaitMs: 10 }));
  return {
    state, errors, offsets, fetcher, cluster,
    async start() {
      await cluster.partitions('t');
      fetcher.add({ topic: 't', partition: 0, epoch: 0, position: from, paused: false });
    },
    /** So many times more it asked for metadata. */
    async asks(times: number) {
      const before = state.asked;
      await until(() => state.asked >= before + times);
    },
  };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await vi.advanceTimersByTimeAsync(1);
}

test('a topic that was deleted ends the read of it, after the deadline; brokers that are away do not', async () => {
  const w = world(50, { id: 'a', records: 50 });
  await w.start();
  w.state.topic = undefined;
  await w.asks(1);
  w.state.away = true;
  await vi.advanceTimersByTimeAsync(20_000);
  expect(w.errors).toEqual([]);
  w.state.away = false;
  await until(() => w.errors.length > 0);
  expect(w.errors).toMatchObject([{ code: 'log-fatal', message: expect.stringMatching(/^t\/0 has been unknown to the brokers for \d+ ms$/) as string }]);
  await w.fetcher.stop();
});

test.each([['by its id', 'a', 'b'], ['by that it was gone, where a driver asks for no id', undefined, undefined]])('a topic that was deleted and made anew is known %s: nothing of it is given behind the position of the one before', async (_how, before, after) => {
  const w = world(50, { id: before, records: 50 });
  await w.start();
  w.state.topic = undefined;
  await until(() => w.cluster.goneMs('t') >= 5000);
  w.state.topic = { id: after, records: 60 };
  await until(() => w.errors.length > 0 || w.offsets.length > 0);
  expect(w.offsets).toEqual([]);
  expect(w.errors).toMatchObject([{ code: 'log-out-of-range', message: expect.stringContaining('made anew') as string, details: { topic: 't', partition: 0, wanted: 50, start: 0, end: 60, madeAnew: true } }]);
  await w.fetcher.stop();
});

test('a topic of which nothing had been read is read from its start when it is made anew, and one that only a broker that lagged did not know goes on', async () => {
  const fresh = world(0, { id: 'a', records: 0 });
  const known = world(50, { id: 'a', records: 50 });
  const unnamed = world(50, { id: undefined, records: 50 });
  for (const [w, id, count] of [[fresh, 'b', 3], [known, 'a', 10], [unnamed, undefined, 10]] as const) {
    await w.start();
    w.state.topic = undefined;
    await w.asks(2);
    w.state.topic = { id, records: w === fresh ? 3 : 60 };
    await until(() => w.errors.length > 0 || w.offsets.length === count);
    expect(w.errors).toEqual([]);
    await w.fetcher.stop();
  }
  expect([fresh.offsets, known.offsets[0], unnamed.offsets[0]]).toEqual([[0, 1, 2], 50, 50]);
});
