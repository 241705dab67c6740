import { expect, test } from 'vitest';
import type { Cluster } from './cluster.ts';
import { E, type BrokerConnection, type FetchTopic } from './driver.ts';
import { createReader } from './reader.ts';
import { encodeBatch } from './records.ts';

const end = 10;
/** https://kafka.apache.org/protocol#protocol_error_codes */
const offsetNotAvailable = 78;
const answersBehind = 3;

/** One partition with `end` records, whose leader was just elected: it gives those below `known`, and learns of the others by the fourth request. */
function world(known: number) {
  let left = answersBehind;
  const asked = { fetches: 0, ends: 0 };
  const broker = {
    fetch(_wait: number, _bytes: number, topics: readonly FetchTopic[]) {
      asked.fetches++;
      const { topic, partitions: [part] } = topics[0]!;
      const { offset } = part!;
      const highWatermark = left-- > 0 ? known : end;
      const bytes = encodeBatch(Array.from({ length: Math.max(0, highWatermark - offset) }, () => ({ partition: 0, key: null, value: Buffer.from('x') })), 1);
      bytes.writeBigInt64BE(BigInt(offset), 0);
      return Promise.resolve({ errorCode: 0, partitions: [{ topic, partition: 0, errorCode: 0, highWatermark, logStartOffset: 0, bytes: offset < highWatermark ? bytes : Buffer.alloc(0) }] });
    },
    listOffsets(topic: string) {
      asked.ends++;
      const errorCode = left-- > 0 ? offsetNotAvailable : E.none;
      return Promise.resolve([{ topic, partition: 0, errorCode, offset: errorCode === 0 ? end : -1 }]);
    },
  } as unknown as BrokerConnection;
  const cluster = { deadlineMs: 2000, closed: false, leader: () => 1, partitions: () => Promise.resolve(1), refresh: () => Promise.resolve(), discard: () => undefined, ask: (_p: string, _n: number, _w: string, _d: number, request: (b: BrokerConnection) => Promise<unknown>) => request(broker) } as unknown as Cluster;
  const reader = createReader(cluster);
  const read = async (from: number, to: number): Promise<number[]> => {
    const offsets: number[] = [];
    await reader.read('t', 0, from, to, (batch) => { offsets.push(...batch.records.map((r) => r.offset)); });
    return offsets;
  };
  return { read, asked };
}

const offsets = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

test('a new leader that does not know yet how far records are acknowledged ends no read: a withdrawal behind that would never be in a table', async () => {
  // What is asked for lies below, across, and beyond what it knows at first.
  for (const [from, to] of [[0, end], [6, end], [8, end]] as const) expect(await world(6).read(from, to)).toEqual(offsets(from, to));
});

test('a read past the end ends there, and one to the end asks for nothing more', async () => {
  const past = world(end);
  expect(await past.read(4, end + 100)).toEqual(offsets(4, end));
  expect(await past.read(end, end + 1)).toEqual([]);
  const exact = world(end);
  expect(await exact.read(0, end)).toEqual(offsets(0, end));
  expect(exact.asked).toEqual({ fetches: 1, ends: 0 });
});
