import { expect, test } from 'vitest';
import { Cluster } from './cluster.ts';
import type { BrokerConnection, Driver, Fetched } from './driver.ts';
import { createReader } from './reader.ts';
import { readUpTo } from './read-up-to.ts';
import { encodeBatch } from './records.ts';

/** One broker with one partition of so many records; `shown` says up to where it lets a fetch see, fetch by fetch. `away` = it tells no metadata. */
function world(records: number, shown: (fetch: number) => number, first = 0, { away = () => false, watchMs = 15_000 }: { readonly away?: () => boolean; readonly watchMs?: number } = {}) {
  let fetches = 0;
  let asked = 0;
  const connection = {
    metadata: () => ++asked > 0 && away() ? Promise.reject(new Error('away')) : Promise.resolve({ brokers: [{ nodeId: 1, host: 'one', port: 1 }], controllerId: 1, topics: [{ name: 't', errorCode: 0, internal: false, partitions: [{ partition: 0, errorCode: 0, leader: 1, replicas: 1 }] }] }),
    fetch: (_wait: number, _max: number, [topic]: readonly [{ partitions: readonly { offset: number }[] }]): Promise<Fetched> => {
      const { offset } = topic.partitions[0]!;
      const highWatermark = shown(fetches++);
      if (offset < first) return Promise.resolve({ errorCode: 0, partitions: [{ topic: 't', partition: 0, errorCode: 1, highWatermark: -1, logStartOffset: -1, bytes: Buffer.alloc(0) }] });
      const bytes = offset < highWatermark ? encodeBatch(Array.from({ length: highWatermark }, (_, n) => ({ partition: 0, key: null, value: Buffer.from([n]) })), 1) : Buffer.alloc(0);
      return Promise.resolve({ errorCode: 0, partitions: [{ topic: 't', partition: 0, errorCode: 0, highWatermark, logStartOffset: 0, bytes }] });
    },
    listOffsets: (_topic: string, partitions: readonly number[], timestamp: number) => Promise.resolve(partitions.map((partition) => ({ topic: 't', partition, errorCode: 0, offset: timestamp === -1 ? records : first }))),
    destroy: () => undefined,
  } as unknown as BrokerConnection;
  const driver = { name: 'platformatic', connect: () => Promise.resolve(connection) } as unknown as Driver;
  return { reader: createReader(new Cluster(driver, { brokers: ['one:1'], clientId: 'test', deadlineMs: 5000 }), { watchMs }), fetches: () => fetches, asked: () => asked };
}

const until = async (holds: () => boolean): Promise<void> => { while (!holds()) await new Promise((done) => { setTimeout(done, 2); }); };

async function readAll(reader: ReturnType<typeof createReader>, to: number): Promise<number[]> {
  const offsets: number[] = [];
  await reader.read('t', 0, 0, to, (batch) => { offsets.push(...batch.records.map((r) => r.offset)); });
  await reader.close();
  return offsets;
}

test('a leader that does not know yet up to where its records are committed does not end a read before its end', async () => {
  const { reader } = world(6, (fetch) => (fetch < 3 ? 4 : 6));
  expect(await readAll(reader, 6)).toEqual([0, 1, 2, 3, 4, 5]);
});

test('a read up to an offset that the partition does not have ends where the partition does', async () => {
  const { reader, fetches } = world(4, () => 4);
  expect(await readAll(reader, 9)).toEqual([0, 1, 2, 3]);
  expect(fetches()).toBe(2);
});

test.each([[4, 4, 4], [9, 9, 4], [2, 6, 6]])('what retention took is passed: of a partition from %d to %d a read up to %d ends at once, and is told where it stands', async (first, records, to) => {
  const { reader } = world(records, () => records, first);
  const told: number[] = [];
  await readUpTo(reader, 't', 0, 0, to, (batch) => {
    expect(batch.highWatermark).toBeGreaterThanOrEqual(batch.nextOffset);
    told.push(batch.nextOffset);
  }, { deadlineMs: 300 });
  await reader.close();
  expect(told).toEqual(first < to ? [first, to] : [to]);
});

test('what a follower has is as of the last request that left nothing: not of one whose records its handler has not done with, and not while nobody answers', async () => {
  let end = 2;
  let away = false;
  let handing = Promise.withResolvers<void>();
  const taken: number[] = [];
  const { reader, fetches } = world(9, () => {
    if (away) throw new Error('away');
    return end;
  });
  const fail = (error: Error): never => { throw error; };
  const started = performance.now();
  const follower = await reader.follow('t', new Map([[0, 0]]), async (batch) => {
    taken.push(batch.nextOffset);
    await handing.promise;
  }, fail);
  // Asks as often, and its handler is never in the way: by it is told that there was time to ask.
  const other = await reader.follow('t', new Map([[0, 0]]), () => undefined, fail);
  const otherAsks = async (): Promise<void> => {
    const now = performance.now();
    await until(() => other.asOf().monotonic > now);
  };
  await until(() => taken.length === 1);
  await otherAsks();
  expect(follower.asOf().monotonic).toBe(Number.NEGATIVE_INFINITY);
  handing.resolve();
  await until(() => follower.asOf().monotonic >= started);
  handing = Promise.withResolvers<void>();
  const grown = performance.now();
  end = 3;
  await until(() => taken.length === 2);
  const held = follower.asOf();
  expect(held.monotonic).toBeLessThanOrEqual(grown);
  for (let i = 0; i < 3; i++) await otherAsks();
  expect(follower.asOf()).toEqual(held);
  handing.resolve();
  const released = performance.now();
  await until(() => follower.asOf().monotonic > released);
  away = true;
  const refused = async (requests: number): Promise<void> => {
    const before = fetches();
    await until(() => fetches() >= before + requests);
  };
  // Both have been refused once, and then again and again.
  await refused(3);
  const last = follower.asOf();
  await refused(4);
  expect(follower.asOf()).toEqual(last);
  expect(Math.abs(performance.now() - last.monotonic - (Date.now() - last.wall))).toBeLessThan(50);
  await reader.close();
});

test('a follower that could not be begun is none: it reads nothing when the brokers are back, and tells nothing', async () => {
  let away = true;
  const { reader, asked } = world(2, () => 2, 0, { away: () => away, watchMs: 10 });
  const told: unknown[] = [];
  await expect(reader.follow('t', new Map([[0, 0]]), (batch) => { told.push(batch.nextOffset); }, (error) => { told.push(error); })).rejects.toMatchObject({ code: 'log-unavailable' });
  away = false;
  let taken = 0;
  await reader.follow('t', new Map([[0, 0]]), (batch) => { taken = batch.nextOffset; }, (error) => { throw error; });
  // The looks of the other one: there was time for those of this one.
  const before = asked();
  await until(() => taken === 2 && asked() > before + 3);
  expect(told).toEqual([]);
  await reader.close();
});
