import type { LogRecord, Reader } from '@weir/log';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { scan, type Position, type ScannedRecord } from './scan.ts';

interface Row { readonly offset: number; readonly timestamp: number }
/** A reader over lists, in batches of a few, with holes as compaction leaves them. */
function readerOf(parts: readonly (readonly Row[])[], size: number, asked: number[] = []): Reader {
  return {
    async read(topic: string, partition: number, from: number, to: number, onBatch: (batch: any) => unknown, bytes?: number) {
      asked.push(bytes!);
      const rows = parts[partition]!.filter((r) => r.offset >= from && r.offset < to);
      for (let at = 0; at < rows.length; at += size) {
        await new Promise((done) => setImmediate(done));
        const records = rows.slice(at, at + size);
        await onBatch({ topic, partition, epoch: 0, records, nextOffset: at + size >= rows.length ? to : records.at(-1)!.offset + 1, highWatermark: to });
      }
    },
  } as unknown as Reader;
}
const rangesOf = (parts: readonly (readonly Row[])[]) => parts.map((_, partition) => ({ topic: 't', partition, start: 0, end: 100 }));
const id = ({ partition, record }: { partition: number; record: Pick<LogRecord, 'offset'> }): string => `${partition}/${record.offset}`;

const partition = fc.uniqueArray(fc.nat(99), { maxLength: 25 }).chain((offsets) => fc.array(fc.nat(30), { minLength: offsets.length, maxLength: offsets.length }).map((times) => offsets.sort((a, b) => a - b).map((offset, i) => ({ offset, timestamp: times[i]! }))));

test('every record once, each partition in its order, whatever the batches; cut and resumed at any chunk it is the same', async () => {
  await fc.assert(fc.asyncProperty(fc.array(partition, { maxLength: 4 }), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 }), fc.nat(8), async (parts, size, sizeAfter, cut) => {
    const seen: ScannedRecord[] = [];
    let positions: readonly Position[] = [];
    let chunks = 0;
    for await (const chunk of scan(readerOf(parts, size), rangesOf(parts))) {
      seen.push(...chunk.records);
      positions = chunk.positions;
      if (chunks++ === cut) break;
    }
    for await (const chunk of scan(readerOf(parts, sizeAfter), rangesOf(parts), positions)) seen.push(...chunk.records);
    expect(seen.map(id).sort()).toEqual(parts.flatMap((rows, p) => rows.map((r) => `${p}/${r.offset}`)).sort());
    for (const [p, rows] of parts.entries()) expect(seen.filter((s) => s.partition === p).map((s) => s.record.offset)).toEqual(rows.map((r) => r.offset));
  }), { numRuns: 300 });
});

test('partitions whose times grow are merged by time: who died first is first', async () => {
  await fc.assert(fc.asyncProperty(fc.array(partition, { minLength: 1, maxLength: 4 }), fc.integer({ min: 1, max: 6 }), async (given, size) => {
    const parts = given.map((rows) => rows.map((r, i) => ({ ...r, timestamp: rows.slice(0, i + 1).reduce((sum, x) => sum + x.timestamp, 0) })));
    let last = -1;
    for await (const chunk of scan(readerOf(parts, size), rangesOf(parts))) {
      const times = chunk.records.map((s) => s.record.timestamp);
      if (times.length === 0) continue;
      expect(Math.min(...times)).toBeGreaterThanOrEqual(last);
      last = Math.max(last, ...times);
    }
  }), { numRuns: 200 });
});

test('what retention took of a range, from its begin or whole, is told once', async () => {
  const rows = [40, 41, 60].map((offset) => ({ offset, timestamp: offset }));
  let lost = 0;
  for await (const chunk of scan(readerOf([rows, []], 2), rangesOf([rows, []]))) lost += chunk.lost;
  expect(lost).toBe(40 + 18 + 100);
});

test('a reader that fails ends the scan with its error', async () => {
  const reader = { read: async () => { throw new Error('broker away'); } } as unknown as Reader;
  await expect((async () => { for await (const _ of scan(reader, [{ topic: 't', partition: 0, start: 0, end: 5 }])); })()).rejects.toThrow('broker away');
});

test('what is held of all ranges is bounded, however many there are: an order over every source must not end the process', async () => {
  for (const count of [1, 12, 300, 5000]) {
    const asked: number[] = [];
    const parts = Array.from({ length: count }, () => []);
    for await (const { records } of scan(readerOf(parts, 1, asked), rangesOf(parts))) expect(records).toEqual([]);
    expect(asked).toHaveLength(count);
    expect(new Set(asked).size).toBe(1);
    expect(asked[0]).toBeGreaterThanOrEqual(64 * 1024);
    if (count <= 300) expect(2 * asked[0]! * count).toBeLessThanOrEqual(96 * 1024 * 1024);
  }
});
