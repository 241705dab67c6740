import { expect, test, vi } from 'vitest';
import type { Cluster } from './cluster.ts';
import type { BrokerConnection, FetchedPartition, FetchTopic } from './driver.ts';
import { Fetcher } from './fetcher.ts';
import { encodeBatch } from './records.ts';
import { watchFetcher } from './watchdog.ts';

const partitions = 24;
const perAnswer = 4;
const end = 1_000_000;

/** A broker whose answers have room for a record of four partitions, the first four of the request that have one; `withheld` never gets any, `failing` an error. */
function world(options: { readonly withheld?: number; readonly failing?: number; readonly giveMs?: number; readonly bytes?: number; readonly urgent?: boolean; readonly sync?: boolean }) {
  const fetches: number[][] = [];
  const given = new Set<number>();
  const broker = {
    async fetch(_wait: number, _bytes: number, topics: readonly FetchTopic[]) {
      const asked = topics.flatMap(({ topic, partitions: list }) => list.map((p) => ({ topic, ...p })));
      fetches.push(asked.map((p) => p.partition));
      let room = perAnswer;
      await new Promise((done) => { setTimeout(done, 1); });
      return {
        errorCode: 0,
        partitions: asked.map(({ topic, partition, offset }): FetchedPartition => {
          if (partition === options.failing) return { topic, partition, errorCode: 2, highWatermark: -1, logStartOffset: -1, bytes: Buffer.alloc(0) };
          let bytes: Buffer = Buffer.alloc(0);
          if (partition !== options.withheld && room > 0) {
            room--;
            bytes = encodeBatch([{ partition, key: null, value: Buffer.alloc(options.bytes ?? 1) }], 1);
            bytes.writeBigInt64BE(BigInt(offset), 0);
          }
          return { topic, partition, errorCode: 0, highWatermark: end, logStartOffset: 0, bytes };
        }),
      };
    },
    listOffsets: (topic: string, list: readonly number[]) => Promise.resolve(list.map((partition) => ({ topic, partition, errorCode: 0, offset: end }))),
  } as unknown as BrokerConnection;
  const cluster = { deadlineMs: 1000, closed: false, leader: () => 1, partitions: () => Promise.resolve(partitions), refresh: () => Promise.resolve(), discard: () => undefined, ask: (_p: string, _n: number, _w: string, _d: number, request: (b: BrokerConnection) => Promise<unknown>) => request(broker) } as unknown as Cluster;
  const fetcher = new Fetcher(cluster, {
    purpose: 'test', maxBytesPerPartition: 100, maxWaitMs: 10, urgent: options.urgent === true, onFatal: (error) => { throw error; },
    onBatch: ({ partition }) => {
      given.add(partition);
      return options.sync === true ? undefined : new Promise((done) => { if (options.giveMs === undefined) done(); else setTimeout(done, options.giveMs); });
    },
  });
  for (let partition = 0; partition < partitions; partition++) fetcher.add({ topic: 't', partition, epoch: 0, position: 0, paused: false });
  return { fetcher, cluster, fetches, given };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((done) => { setTimeout(done, 2); });
}

test('when an answer has no room for all, those that it left out come first in the next: nobody waits for longer than a round', async () => {
  const { fetcher, fetches, given } = world({});
  await until(() => fetches.length > partitions / perAnswer);
  expect(given.size).toBe(partitions);
  await fetcher.stop();
});

test('a partition that waits for its turn while others are worked on is no stall', async () => {
  const { fetcher, cluster, given } = world({ giveMs: 10 });
  const stalls: Error[] = [];
  const stop = watchFetcher(cluster, fetcher, 15, (error) => stalls.push(error));
  await until(() => given.size === partitions || stalls.length > 0);
  stop();
  expect(stalls).toEqual([]);
  await fetcher.stop();
});

test('a partition that the broker gives nothing of though it was asked for first is a stall, whatever else goes on', async () => {
  const { fetcher, cluster } = world({ withheld: 7 });
  const stalls: Error[] = [];
  const stop = watchFetcher(cluster, fetcher, 15, (error) => stalls.push(error));
  await until(() => stalls.length > 0);
  stop();
  expect(stalls[0]!.message).toContain('t/7 stands at 0');
  await fetcher.stop();
});

test('a partition that only ever has errors is refused, not served: the watchdog sees it beside neighbours that are given', async () => {
  const { fetcher, given } = world({ failing: 7 });
  const refused = (): [number, number][] => [...fetcher.all()].flatMap((p) => (p.refused > 0 ? [[p.partition, p.refused]] : []));
  await until(() => given.size === partitions - 1 && (refused()[0]?.[1] ?? 0) > 1);
  expect(refused().map(([partition]) => partition)).toEqual([7]);
  await fetcher.stop();
});

test('records that come one by one are not a request each, and answers that are full follow at once', async () => {
  const asked = vi.spyOn(globalThis, 'setTimeout');
  /** Waits between ten requests; those of 1 and 2 ms are the broker's own and the look of this test. */
  const waits = async (bytes: number): Promise<number> => {
    const { fetcher, fetches } = world({ bytes });
    await until(() => fetches.length >= 10);
    const found = asked.mock.calls.filter(([, ms]) => ms !== 1 && ms !== 2).length;
    asked.mockClear();
    await fetcher.stop();
    return found;
  };
  try {
    expect(await waits(65_536)).toBe(0);
    // One that took longer than the spacing needs no wait.
    expect(await waits(1)).toBeGreaterThan(0);
  } finally {
    asked.mockRestore();
  }
});

test('a few urgent answers are followed at once, many small ones are spaced all the same', async () => {
  const { fetcher, fetches } = world({ urgent: true });
  const real = setTimeout;
  /** Requests before each wait; those of 1 and 2 ms are the broker's own and the look of this test. */
  const before: number[] = [];
  const asked = vi.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms: number) => {
    if (ms !== 1 && ms !== 2) before.push(fetches.length);
    return real(run, ms);
  }) as typeof setTimeout);
  try {
    await until(() => before.length > 0);
    expect(before[0]).toBeGreaterThanOrEqual(4);
    await fetcher.stop();
  } finally {
    asked.mockRestore();
  }
});

test('all partitions of an answer are given out in one go, so that who acts on them acts once', async () => {
  const { fetcher, given } = world({ sync: true });
  const seen: number[] = [];
  given.add = (partition: number) => {
    if (seen.length === 0) queueMicrotask(() => { seen.push(-1); });
    seen.push(partition);
    return given;
  };
  await until(() => seen.length > perAnswer);
  expect(seen.indexOf(-1)).toBe(perAnswer);
  await fetcher.stop();
});
