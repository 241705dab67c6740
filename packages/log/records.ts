/**
 * Kafka record batches (magic 2) straight between LogRecord values and bytes, without an object per field.
 * Format: https://kafka.apache.org/documentation/#recordbatch
 */
import { gunzipSync, zstdDecompressSync } from 'node:zlib';
import { compressionsAlgorithmsByBitmask, crc32c } from '@platformatic/kafka';
import { WeirError } from '@weir/errors';
import type { Headers, LogRecord, OutRecord } from './types.ts';

const head = 61;
/** What a compressed batch may grow to; Weir writes none, others may. */
const maxInflated = 64 * 1024 * 1024;
/** The most that a byte can become: snappy (a copy of 64 from 3), lz4 (255 a length byte). Their decoders take no limit. */
const growth: ReadonlyMap<number, number> = new Map([[2, 22], [3, 255]]);
const noHeaders: Headers = Object.freeze([]);

function varintSize(n: number): number {
  let v = n < 0 ? -n * 2 - 1 : n * 2;
  let size = 1;
  while (v >= 128) {
    v = Math.floor(v / 128);
    size++;
  }
  return size;
}

function writeVarint(out: Buffer, at: number, n: number): number {
  let v = n < 0 ? -n * 2 - 1 : n * 2;
  while (v >= 128) {
    out[at++] = (v % 128) | 128;
    v = Math.floor(v / 128);
  }
  out[at++] = v;
  return at;
}

function bytesSize(value: Buffer | null): number {
  return value === null ? 1 : varintSize(value.length) + value.length;
}

function writeBytes(out: Buffer, at: number, value: Buffer | null): number {
  if (value === null) return writeVarint(out, at, -1);
  at = writeVarint(out, at, value.length);
  out.set(value, at);
  return at + value.length;
}

function bodySize(record: OutRecord, delta: number): number {
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
    const headers = record.headers ?? noHeaders;
    at = writeVarint(out, at, sizes[i]!);
    out[at++] = 0;
    out[at++] = 0;
    at = writeVarint(out, at, i);
    at = writeBytes(out, at, record.key);
    at = writeBytes(out, at, record.value);
    at = writeVarint(out, at, headers.length);
    for (const [name, value] of headers) {
      at = writeVarint(out, at, name.length);
      at += out.write(name, at, 'latin1');
      at = writeBytes(out, at, value);
    }
  }
  out.writeUInt32BE(crc32c(out.subarray(21)) >>> 0, 17);
  return out;
}

function corrupt(detail: string): never {
  throw new WeirError('log-fatal', `a record batch cannot be read: ${detail}`);
}

/** A cursor over one buffer; throws past its end. */
class Cursor {
  readonly buffer: Buffer;
  at: number;
  constructor(buffer: Buffer, at: number) {
    this.buffer = buffer;
    this.at = at;
  }
  varint(): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      if (this.at >= this.buffer.length) corrupt('it is truncated');
      const byte = this.buffer[this.at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
      scale *= 128;
    }
    corrupt('a number is too long');
  }
  bytes(): Buffer | null {
    const length = this.varint();
    if (length < 0) return null;
    const end = this.at + length;
    if (end > this.buffer.length) corrupt('it is truncated');
    const value = this.buffer.subarray(this.at, end);
    this.at = end;
    return value;
  }
}

/** Header names repeat from record to record: the string that was made last time at this place is compared, not made again. */
const lastNames: string[] = [];
function headerName(bytes: Buffer, place: number): string {
  const last = lastNames[place];
  if (last !== undefined && last.length === bytes.length) {
    let i = 0;
    while (i < bytes.length && bytes[i] === last.charCodeAt(i)) i++;
    if (i === bytes.length) return last;
  }
  const text = bytes.toString('latin1');
  if (place < 64) lastNames[place] = text;
  return text;
}

const nothing: Buffer = Buffer.alloc(0);

function readHeaders(cursor: Cursor): Headers {
  const count = cursor.varint();
  if (count <= 0) return noHeaders;
  if (count > cursor.buffer.length - cursor.at) corrupt(`${count} headers are more than its bytes`);
  const headers: [string, Buffer][] = [];
  for (let i = 0; i < count; i++) headers.push([headerName(cursor.bytes() ?? nothing, i), cursor.bytes() ?? nothing]);
  return headers;
}

function inflate(bytes: Buffer, compression: number): Buffer {
  try {
    if (compression === 1) return gunzipSync(bytes, { maxOutputLength: maxInflated });
    if (compression === 4) return zstdDecompressSync(bytes, { maxOutputLength: maxInflated });
    const algorithm = compressionsAlgorithmsByBitmask[compression as keyof typeof compressionsAlgorithmsByBitmask];
    if (algorithm === undefined) corrupt(`compression ${compression} is not known`);
    if (bytes.length * (growth.get(compression) ?? 1) > maxInflated) corrupt(`${bytes.length} compressed bytes may grow over ${maxInflated}`);
    return algorithm.decompressSync(bytes);
  } catch (error) {
    if (error instanceof WeirError) throw error;
    throw new WeirError('log-fatal', `a record batch cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * Every complete batch in the bytes of a fetch response, from offset `from` on. The broker may cut the last
 * batch and may start before `from`; control batches are skipped. `next` is the offset after the last complete
 * batch, also when compaction emptied it. Keys, values and headers are views on `bytes`: copy what is kept for
 * long. Throws log-fatal when a batch is corrupt.
 */
export function decodeBatches(bytes: Buffer, from: number): { records: LogRecord[]; next: number } {
  const records: LogRecord[] = [];
  let next = from;
  let at = 0;
  while (bytes.length - at >= head) {
    const size = bytes.readInt32BE(at + 8);
    const end = at + 12 + size;
    if (end > bytes.length) break;
    if (size < head - 12 || bytes[at + 16] !== 2) corrupt(`magic ${bytes[at + 16]}, ${size} bytes`);
    const base = Number(bytes.readBigInt64BE(at));
    const last = base + bytes.readInt32BE(at + 23);
    if (last >= from) {
      const batch = bytes.subarray(at, end);
      if (crc32c(batch.subarray(21)) >>> 0 !== batch.readUInt32BE(17)) corrupt(`the checksum at offset ${base} is wrong`);
      const attributes = batch.readInt16BE(21);
      if ((attributes & 0x20) === 0) decodeBatch(batch, base, attributes, from, records);
    }
    next = Math.max(next, last + 1);
    at = end;
  }
  return { records, next };
}

function decodeBatch(batch: Buffer, base: number, attributes: number, from: number, records: LogRecord[]): void {
  const first = Number(batch.readBigInt64BE(27));
  const logAppendTime = (attributes & 8) !== 0 ? Number(batch.readBigInt64BE(35)) : undefined;
  const count = batch.readInt32BE(57);
  const compression = attributes & 7;
  let cursor = new Cursor(batch, head);
  if (compression !== 0) cursor = new Cursor(inflate(batch.subarray(head), compression), 0);
  for (let i = 0; i < count; i++) {
    const length = cursor.varint();
    const end = cursor.at + length;
    if (length < 0 || end > cursor.buffer.length) corrupt('a record goes past its end');
    cursor.at++;
    const timestamp = first + cursor.varint();
    const offset = base + cursor.varint();
    if (offset >= from) records.push({ offset, timestamp: logAppendTime ?? timestamp, key: cursor.bytes(), value: cursor.bytes(), headers: readHeaders(cursor) });
    cursor.at = end;
  }
}
