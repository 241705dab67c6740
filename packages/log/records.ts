/**
 * Kafka record batches (magic 2) straight between LogRecord values and bytes, without an object per field.
 * Format: https://kafka.apache.org/documentation/#recordbatch
 */
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { crc32c } from '@node-rs/crc32';
import { compressionsAlgorithmsByBitmask } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import { corrupt, Cursor, noHeaders, PackedRecord, StoredRecord, varintSize, writeVarint, type BatchTimes } from './packed.ts';
import type { LogRecord, OutRecord } from './types.ts';

const head = 61;
/** What a compressed batch may grow to; Weir writes none, others may. */
const maxInflated = 64 * 1024 * 1024;
/** Of one answer no more compressed batches are opened once they have grown to so much. */
const enoughInflated = 16 * 1024 * 1024;
/** The most that a byte can become: snappy (a copy of 64 from 3), lz4 (255 a length byte). */
const growth = { snappy: 22, lz4: 255 };

function bytesSize(value: Buffer | null): number {
  return value === null ? 1 : varintSize(value.length) + value.length;
}

function writeBytes(out: Buffer, at: number, value: Buffer | null): number {
  if (value === null) return writeVarint(out, at, -1);
  at = writeVarint(out, at, value.length);
  out.set(value, at);
  return at + value.length;
}

/** Bytes of a record without the length before it. */
function bodySize(record: OutRecord, delta: number): number {
  if (record instanceof PackedRecord) return 2 + varintSize(delta) + record.to - record.from;
  const headers = record.headers ?? noHeaders;
  let size = 2 + varintSize(delta) + bytesSize(record.key) + bytesSize(record.value) + varintSize(headers.length);
  for (const [name, value] of headers) size += varintSize(name.length) + name.length + bytesSize(value);
  return size;
}

/** Upper bound of the bytes that a record takes in a batch; header names are ASCII. */
export function recordSize(record: OutRecord): number {
  return bodySize(record, 1 << 20) + 5;
}

/** One batch, all records at timestamp `now` (ms), no compression, no producer id. */
export function encodeBatch(records: readonly OutRecord[], now: number): Buffer {
  let size = head;
  const sizes = new Array<number>(records.length);
  for (let i = 0; i < records.length; i++) {
    const body = bodySize(records[i]!, i);
    sizes[i] = body;
    size += varintSize(body) + body;
  }
  const out = Buffer.allocUnsafe(size);
  out.writeBigInt64BE(0n, 0);
  out.writeInt32BE(size - 12, 8);
  out.writeInt32BE(-1, 12);
  out.writeInt8(2, 16);
  out.writeInt16BE(0, 21);
  out.writeInt32BE(records.length - 1, 23);
  out.writeBigInt64BE(BigInt(now), 27);
  out.writeBigInt64BE(BigInt(now), 35);
  out.writeBigInt64BE(-1n, 43);
  out.writeInt16BE(-1, 51);
  out.writeInt32BE(-1, 53);
  out.writeInt32BE(records.length, 57);
  let at = head;
  for (let i = 0; i < records.length; i++) {
    const record = records[i]!;
    at = writeVarint(out, at, sizes[i]!);
    out[at++] = 0;
    out[at++] = 0;
    at = writeVarint(out, at, i);
    if (record instanceof PackedRecord) {
      at += record.bytes.copy(out, at, record.from, record.to);
      continue;
    }
    const headers = record.headers ?? noHeaders;
    at = writeBytes(out, at, record.key);
    at = writeBytes(out, at, record.value);
    at = writeVarint(out, at, headers.length);
    for (const [name, value] of headers) {
      at = writeVarint(out, at, name.length);
      at += out.write(name, at, 'latin1');
      at = writeBytes(out, at, value);
    }
  }
  out.writeUInt32BE(crc32c(out.subarray(21)), 17);
  return out;
}

/** The most that LZ4 frames can become, by the heads of their blocks. https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md */
function lz4Bound(bytes: Buffer): number {
  let bound = 0;
  for (let at = 0; at < bytes.length;) {
    const kind = at + 7 > bytes.length || bytes.readUInt32LE(at) !== 0x184d2204 ? 0 : bytes[at + 5]! >> 4;
    if (kind < 4 || kind > 7) corrupt('it is no LZ4 frame');
    const flags = bytes[at + 4]!;
    const largest = 1 << (8 + 2 * kind);
    at += 7 + ((flags & 8) !== 0 ? 8 : 0) + ((flags & 1) !== 0 ? 4 : 0);
    for (let size = -1; size !== 0;) {
      if (at + 4 > bytes.length) corrupt('an LZ4 frame goes past its end');
      const block = bytes.readUInt32LE(at);
      size = block & 0x7fffffff;
      bound += block === size ? Math.min(largest, size * growth.lz4) : size;
      at += 4 + size + (size > 0 && (flags & 16) !== 0 ? 4 : 0);
    }
    if ((flags & 4) !== 0) at += 4;
  }
  return bound;
}

function inflate(bytes: Buffer, compression: number): Buffer {
  try {
    if (compression === 1) return gunzipSync(bytes, { maxOutputLength: maxInflated });
    if (compression === 4) return zstdDecompressSync(bytes, { maxOutputLength: maxInflated });
    const algorithm = compressionsAlgorithmsByBitmask[compression as keyof typeof compressionsAlgorithmsByBitmask];
    if (algorithm === undefined) corrupt(`compression ${compression} is not known`);
    // These decoders take no limit.
    if ((compression === 3 ? lz4Bound(bytes) : bytes.length * growth.snappy) > maxInflated) corrupt(`${bytes.length} compressed bytes may grow over ${maxInflated}`);
    return algorithm.decompressSync(bytes);
  } catch (error) {
    if (error instanceof WeirError) throw error;
    throw new WeirError('log-fatal', `a record batch cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Every complete batch in the bytes of a fetch response, from offset `from` on. The broker may cut the last
 * batch and may start before `from`; control batches are skipped. `next` is the offset after the last complete
 * batch, also when compaction emptied it; where compressed batches have grown to more than there is room for at once, after those
 * that were opened: the rest is to be asked for again. Keys, values and headers are views on `bytes`: copy what is kept for
 * long. Throws log-fatal when a batch is corrupt.
 */
export function decodeBatches(bytes: Buffer, from: number): { records: LogRecord[]; next: number } {
  const records: LogRecord[] = [];
  let next = from;
  let at = 0;
  let inflated = 0;
  while (bytes.length - at >= head) {
    const size = bytes.readInt32BE(at + 8);
    const end = at + 12 + size;
    if (end > bytes.length) break;
    if (size < head - 12 || bytes[at + 16] !== 2) corrupt(`magic ${bytes[at + 16]}, ${size} bytes`);
    const base = Number(bytes.readBigInt64BE(at));
    const last = base + bytes.readInt32BE(at + 23);
    if (last >= from) {
      const batch = bytes.subarray(at, end);
      if (crc32c(batch.subarray(21)) !== batch.readUInt32BE(17)) corrupt(`the checksum at offset ${base} is wrong`);
      const attributes = batch.readInt16BE(21);
      if (inflated >= enoughInflated && (attributes & 7) !== 0) break;
      if ((attributes & 0x20) === 0) inflated += decodeBatch(batch, base, attributes, from, records);
    }
    next = Math.max(next, last + 1);
    at = end;
  }
  return { records, next };
}

/** The walk checks that every part of a record lies within it; none is made before it is asked for. @returns what it has grown to, where it was compressed */
function decodeBatch(batch: Buffer, base: number, attributes: number, from: number, records: LogRecord[]): number {
  const times: BatchTimes = { first: Number(batch.readBigInt64BE(27)), logAppendTime: (attributes & 8) !== 0 ? Number(batch.readBigInt64BE(35)) : undefined };
  const count = batch.readInt32BE(57);
  const compression = attributes & 7;
  const cursor = compression === 0 ? new Cursor(batch, head) : new Cursor(inflate(batch.subarray(head), compression), 0);
  const bytes = cursor.buffer;
  for (let i = 0; i < count; i++) {
    const length = cursor.varint();
    const end = cursor.at + length;
    if (length < 0 || end > bytes.length) corrupt('a record goes past its end');
    cursor.at++;
    const delta = cursor.varint();
    const offset = base + cursor.varint();
    const start = cursor.at;
    const keyLength = cursor.skip();
    const keyFrom = cursor.at - keyLength;
    const valueLength = cursor.skip();
    const valueFrom = cursor.at - valueLength;
    const headersFrom = cursor.at;
    const headers = cursor.varint();
    if (headers > bytes.length - cursor.at) corrupt(`${headers} headers are more than its bytes`);
    for (let h = 0; h < headers; h++) {
      cursor.skip();
      cursor.skip();
    }
    if (cursor.at > end) corrupt('a record goes past its end');
    if (offset >= from) records.push(new StoredRecord(bytes, start, cursor.at, keyFrom, keyLength, valueFrom, valueLength, headersFrom, offset, times, delta));
    cursor.at = end;
  }
  return compression === 0 ? 0 : bytes.length;
}
