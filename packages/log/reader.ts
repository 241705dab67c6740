import { WeirError } from '@weir/errors';
import type { LogRecord, Reader, RecordBatch } from '../types.ts';
import type { Cluster } from './cluster.ts';
import { eventually, listOffsets } from './coordinator.ts';
import { Fetcher } from './fetcher.ts';
import { decodeBatches } from '../wire.ts';
import { fetchApi, type Fetched } from './requests.ts';
import { E } from './cluster.ts';

let readers = 0;
const refreshMs = 15_000;

/** Reads without a group. `read` and `readOne` use short polls of their own; `follow` has a fetcher each. */
export function createReader(cluster: Cluster): Reader {
  const purpose = `read-${++readers}`;
  const followers = new Set<{ close(): Promise<void> }>();

  async function fetchOnce(topic: string, partition: number, from: number, maxBytes: number): Promise<{ records: LogRecord[]; next: number; highWatermark: number; start: number; outOfRange: boolean }> {
    await cluster.partitions(topic);
    return eventually(cluster, `read of ${topic}/${partition}`, async () => {
      const leader = cluster.leader(topic, partition);
      try {
        const connection = await cluster.connection(purpose, leader);
        const response = await cluster.request<unknown[], Fetched>(connection, 'fetch', fetchApi, [100, 1, maxBytes, 0, 0, -1, [{ topicId: topic, partitions: [{ partition, currentLeaderEpoch: -1, fetchOffset: BigInt(from), lastFetchedEpoch: -1, partitionMaxBytes: maxBytes }] }], [], ''], 10_000);
        const [part] = response.partitions;
        if (part !== undefined && part.errorCode === E.offsetOutOfRange) return { records: [], next: from, highWatermark: part.highWatermark, start: part.logStartOffset, outOfRange: true };
        if (part !== undefined && part.errorCode === 0) return { ...decodeBatches(part.bytes, from), highWatermark: part.highWatermark, start: part.logStartOffset, outOfRange: false };
      } catch (error) {
        cluster.discard(purpose, leader);
        await cluster.refresh([topic]);
        throw error;
      }
      await cluster.refresh([topic]);
      return undefined;
    });
  }

  return {
    async read(topic, partition, from, to, onBatch) {
      let position = from;
      while (position < to) {
        const found = await fetchOnce(topic, partition, position, 4 * 1024 * 1024);
        if (found.outOfRange) {
          const start = (await listOffsets(cluster, topic, [partition], -2)).get(partition)!;
          if (start <= position) return;
          position = start;
          continue;
        }
        const records = found.records.length > 0 && found.records[found.records.length - 1]!.offset >= to ? found.records.filter((r) => r.offset < to) : found.records;
        if (found.next > position) {
          position = Math.min(found.next, to);
          await onBatch({ topic, partition, epoch: 0, records, nextOffset: position, highWatermark: found.highWatermark });
        } else if (found.highWatermark <= position) return;
      }
    },

    async readOne(topic, partition, offset) {
      const found = await fetchOnce(topic, partition, offset, 65_536);
      return found.records[0]?.offset === offset ? found.records[0] : undefined;
    },

    async follow(topic, positions, onBatch, onError) {
      const next = new Map<number, number>(positions);
      let failed = false;
      const fail = (error: Error): void => {
        if (failed) return;
        failed = true;
        onError(error);
      };
      const fetcher = new Fetcher(cluster, {
        purpose: `follow-${++readers}`, maxBytesPerPartition: 1024 * 1024, maxWaitMs: 500, onFatal: fail,
        onBatch: async (batch: RecordBatch) => {
          await onBatch(batch);
          next.set(batch.partition, batch.nextOffset);
        },
      });
      const addAll = async (): Promise<void> => {
        const count = await cluster.partitions(topic);
        for (let partition = 0; partition < count; partition++) {
          if (fetcher.get(topic, partition) !== undefined) continue;
          next.set(partition, next.get(partition) ?? 0);
          fetcher.add({ topic, partition, epoch: 0, position: next.get(partition)!, paused: false });
        }
      };
      await cluster.refresh([topic]);
      await addAll();
      const timer = setInterval(() => {
        cluster.refresh([topic]).then(addAll).catch((error: unknown) => {
          if (!(error instanceof WeirError) || error.code === 'log-fatal') fail(error as Error);
        });
      }, refreshMs);
      timer.unref();
      const follower = {
        positions: () => next as ReadonlyMap<number, number>,
        async close() {
          clearInterval(timer);
          followers.delete(follower);
          await fetcher.stop();
        },
      };
      followers.add(follower);
      return follower;
    },

    async close() {
      await Promise.all([...followers].map((f) => f.close()));
    },
  };
}
