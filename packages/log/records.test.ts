import { randomBytes } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { compressionsAlgorithmsByBitmask, crc32c, Reader, readRecordsBatches } from '@platformatic/kafka';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { headerBytes, Packer } from './packed.ts';
import { decodeBatches, encodeBatch, recordSize } from './records.ts';

const bytes = fc.oneof(fc.constant(null), fc.uint8Array({ maxLength: 300 }).map((a) => Buffer.from(a)));
const record = fc.record({
  partition: fc.constant(0), key: bytes, value: bytes,
  headers: fc.array(fc.tuple(fc.stringMatching(/^[a-z-]{1,20}$/), fc.uint8Array({ maxLength: 200 }).map((a) => Buffer.from(a))), { maxLength: 5 }),
});

test('what is written is what is read, in order, and an independent reader agrees', () => {
  fc.assert(fc.property(fc.array(record, { minLength: 1, maxLength: 40 }), fc.nat(2 ** 40), (list, now) => {
    const encoded = encodeBatch(list, now);
    const { records, next } = decodeBatches(encoded, 0);
    expect(next).toBe(list.length);
    expect(records.map((r) => ({ partition: 0, key: r.key, value: r.value, headers: r.headers }))).toEqual(list);
    expect(records.every((r, i) => r.offset === i && r.timestamp === now)).toBe(true);
    const [theirs] = readRecordsBatches(Reader.from(encoded));
    expect(theirs!.records.length).toBe(list.length);
    expect(theirs!.records.map((r) => r.value)).toEqual(list.map((r) => r.value));
    expect(encoded.length).toBeLessThanOrEqual(61 + list.reduce((n, r) => n + recordSize(r), 0));
  }));
});

test('a record put together by a packer is the same bytes as one of its parts, and stays when the packer goes on', () => {
  const part = fc.uint8Array({ maxLength: 300 }).map((a) => Buffer.from(a));
  const headers = fc.array(fc.tuple(fc.stringMatching(/^[a-z-]{1,20}$/), fc.oneof(fc.stringMatching(/^[ -~]{0,70}$/), part)), { maxLength: 5 });
  const whole = fc.record({ key: part, value: fc.oneof({ weight: 9, arbitrary: part }, { weight: 1, arbitrary: fc.integer({ min: 60_000, max: 1_200_000 }).map((n) => Buffer.alloc(n, 7)) }), room: fc.boolean(), headers });
  const packer = new Packer();
  fc.assert(fc.property(fc.array(whole, { minLength: 1, maxLength: 12 }), (list) => {
    const packed = list.map(({ key, value, room, headers: of }) => {
      packer.begin();
      packer.key(key, 0, key.length);
      if (room) {
        const at = packer.valueRoom(value.length);
        value.copy(packer.bytes, at);
      } else packer.value(value, 0, value.length);
      for (const [name, content] of of) {
        const named = headerBytes(name, '').subarray(0, -1);
        if (typeof content === 'string') packer.header(named, content);
        else packer.headerOf(named, content);
      }
      return packer.endAlone(0);
    });
    const parts = list.map(({ key, value, headers: of }) => ({ partition: 0, key, value, headers: of.map(([name, content]): [string, Buffer] => [name, Buffer.from(content)]) }));
    expect(encodeBatch(packed, 1).equals(encodeBatch(parts, 1))).toBe(true);
    for (const [i, { key, value, headers: given }] of parts.entries()) expect(packed[i]!.key!.equals(key) && packed[i]!.value!.equals(value) && Buffer.concat(packed[i]!.headers.map(([, v]) => v)).equals(Buffer.concat(given.map(([, v]) => v)))).toBe(true);
  }), { numRuns: 60 });
});

test('a batch that the broker cut is left for the next fetch', () => {
  const one = encodeBatch([{ partition: 0, key: null, value: Buffer.from('a') }], 1);
  const cut = Buffer.concat([one, one.subarray(0, one.length - 1)]);
  expect(decodeBatches(cut, 0).records.length).toBe(1);
  expect(decodeBatches(one.subarray(0, 30), 7)).toEqual({ records: [], next: 7 });
});

test('records before the asked offset are not given twice', () => {
  const batch = encodeBatch([1, 2, 3].map((n) => ({ partition: 0, key: null, value: Buffer.from([n]) })), 1);
  expect(decodeBatches(batch, 2).records.map((r) => r.offset)).toEqual([2]);
});

test('a flipped bit, another magic, or a length that lies is told, not read', () => {
  const batch = encodeBatch([{ partition: 0, key: Buffer.from('key'), value: Buffer.from('value') }], 1);
  for (const at of [16, 21, 40, 61, batch.length - 1]) {
    const bad = Buffer.from(batch);
    bad[at]! ^= 1;
    expect(() => decodeBatches(bad, 0)).toThrow(expect.objectContaining({ code: 'log-fatal' }));
  }
  const short = Buffer.from(batch);
  short.writeInt32BE(3, 8);
  expect(() => decodeBatches(short, 0)).toThrow(expect.objectContaining({ code: 'log-fatal' }));
});

function compressed(kind: number, body: Buffer): Buffer {
  const plain = encodeBatch([{ partition: 0, key: null, value: Buffer.alloc(1) }], 1);
  const batch = Buffer.concat([plain.subarray(0, 61), body]);
  batch.writeInt32BE(batch.length - 12, 8);
  batch.writeInt16BE(kind, 21);
  batch.writeUInt32BE(crc32c(batch.subarray(21)) >>> 0, 17);
  return batch;
}

test('a compressed batch is read', () => {
  const plain = encodeBatch([{ partition: 0, key: null, value: Buffer.from('value') }], 1);
  for (const [kind, algorithm] of Object.entries(compressionsAlgorithmsByBitmask)) {
    if (kind === '0') continue;
    const { records } = decodeBatches(compressed(Number(kind), (algorithm.compressSync as (b: Buffer) => Buffer)(plain.subarray(61))), 0);
    expect(records.map((r) => r.value?.toString())).toEqual(['value']);
  }
});

const lz4 = (bytes: Buffer): Buffer => Buffer.from((compressionsAlgorithmsByBitmask[3]!.compressSync as (b: Buffer) => Buffer)(bytes));

test('a batch that an LZ4 broker made of bytes that do not shrink is read, however large it may have been by its length alone', () => {
  const value = randomBytes(1_000_000);
  const plain = encodeBatch([{ partition: 0, key: null, value }], 1);
  const { records } = decodeBatches(compressed(3, lz4(plain.subarray(61))), 0);
  expect(records[0]!.value!.equals(value)).toBe(true);
});

test('of batches that grow no more is made at once than there is room for, and what is left is told by the next offset', () => {
  const plain = encodeBatch([{ partition: 0, key: null, value: Buffer.alloc(1024 * 1024) }], 1).subarray(61);
  const all = Buffer.concat(Array.from({ length: 40 }, (_, at) => {
    const batch = compressed(at % 2 === 0 ? 1 : 4, at % 2 === 0 ? gzipSync(plain) : zstdCompressSync(plain));
    batch.writeBigInt64BE(BigInt(at), 0);
    return batch;
  }));
  const offsets: number[] = [];
  for (let from = 0; from < 40;) {
    const { records, next } = decodeBatches(all, from);
    expect(records.length).toBeLessThanOrEqual(16);
    offsets.push(...records.map((r) => r.offset));
    expect(next).toBe(offsets.length);
    from = next;
  }
  expect(offsets).toEqual(Array.from({ length: 40 }, (_, at) => at));
});

test('a compressed bomb is refused without its memory', () => {
  const zeros = Buffer.alloc(100_000_000);
  const before = process.memoryUsage().rss;
  // Blocks of 300 bytes that say they are of 4 MiB at most; and one that goes past the end.
  const block = Buffer.concat([Buffer.from([0x2c, 1, 0, 0]), Buffer.alloc(300, 255)]);
  const frame = Buffer.concat([Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x40, 0x70, 0]), ...Array.from({ length: 1000 }, () => block), Buffer.alloc(4)]);
  for (const [kind, body] of [[1, gzipSync(zeros)], [3, frame], [3, frame.subarray(0, 400)], [3, Buffer.alloc(1_000_000, 255)], [4, zstdCompressSync(zeros)]] as const) {
    expect(() => decodeBatches(compressed(kind, body), 0)).toThrow(expect.objectContaining({ code: 'log-fatal' }));
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(300_000_000);
});
