/**
 * Records as the bytes of Kafka's own format, key to headers: what was read is handed on without an object for
 * each of its parts, and what is written is put together once. Format: https://kafka.apache.org/documentation/#record
 */
import { WeirError } from '@weir/errors';
import type { Headers, LogRecord, OutRecord } from './types.ts';

export const noHeaders: Headers = Object.freeze([]);
const nothing: Buffer = Buffer.alloc(0);
/** Shorter pieces are copied byte by byte: a call into the runtime costs more. */
const shortCopy = 48;
const firstChunk = 64 * 1024;
const largestChunk = 1024 * 1024;

export function corrupt(detail: string): never {
  throw new WeirError('log-fatal', `a record batch cannot be read: ${detail}`);
}

export function varintSize(n: number): number {
  let v = n < 0 ? -n * 2 - 1 : n * 2;
  let size = 1;
  while (v >= 128) {
    v = Math.floor(v / 128);
    size++;
  }
  return size;
}

export function writeVarint(out: Buffer, at: number, n: number): number {
  let v = n < 0 ? -n * 2 - 1 : n * 2;
  while (v >= 128) {
    out[at++] = (v % 128) | 128;
    v = Math.floor(v / 128);
  }
  out[at++] = v;
  return at;
}

/** A cursor over one buffer; throws past its end. */
export class Cursor {
  buffer: Buffer;
  at: number;
  constructor(buffer: Buffer, at: number) {
    this.buffer = buffer;
    this.at = at;
  }
  varint(): number {
    const { buffer } = this;
    let { at } = this;
    if (at >= buffer.length) corrupt('it is truncated');
    const first = buffer[at]!;
    // One and two bytes are nearly all there are.
    if (first < 128) {
      this.at = at + 1;
      return (first >>> 1) ^ -(first & 1);
    }
    let value = 0;
    let scale = 1;
    for (let i = 0; i < 10; i++) {
      if (at >= buffer.length) corrupt('it is truncated');
      const byte = buffer[at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) {
        this.at = at;
        return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
      }
      scale *= 128;
    }
    corrupt('a number is too long');
  }
  /** Goes over a piece with its length before it; gives the length, -1 for null. */
  skip(): number {
    const length = this.varint();
    if (length < 0) return -1;
    if (length > this.buffer.length - this.at) corrupt('it is truncated');
    this.at += length;
    return length;
  }
}

/** Header names repeat from record to record: the string that was made last time at this place is compared, not made again. */
const lastNames: string[] = [];
function headerName(bytes: Buffer, from: number, length: number, place: number): string {
  const last = lastNames[place];
  if (last !== undefined && last.length === length) {
    let i = 0;
    while (i < length && bytes[from + i] === last.charCodeAt(i)) i++;
    if (i === length) return last;
  }
  const text = bytes.toString('latin1', from, from + length);
  if (place < 64) lastNames[place] = text;
  return text;
}

/** Key, value and headers of one record where they stand in `bytes`; each is made when it is asked for, as a view. */
export class RecordBody {
  readonly bytes: Buffer;
  /** From the length of the key to the end of the headers. */
  readonly from: number;
  readonly to: number;
  readonly keyFrom: number;
  /** -1 = null; so is valueLength. */
  readonly keyLength: number;
  readonly valueFrom: number;
  readonly valueLength: number;
  /** Where the number of headers stands. */
  readonly headersFrom: number;
  #value: Buffer | null | undefined = undefined;
  #key: Buffer | null | undefined = undefined;
  #headers: Headers | undefined = undefined;

  constructor(bytes: Buffer, from: number, to: number, keyFrom: number, keyLength: number, valueFrom: number, valueLength: number, headersFrom: number) {
    this.bytes = bytes;
    this.from = from;
    this.to = to;
    this.keyFrom = keyFrom;
    this.keyLength = keyLength;
    this.valueFrom = valueFrom;
    this.valueLength = valueLength;
    this.headersFrom = headersFrom;
  }
  get key(): Buffer | null {
    return this.#key ??= this.keyLength < 0 ? null : this.bytes.subarray(this.keyFrom, this.keyFrom + this.keyLength);
  }
  get value(): Buffer | null {
    return this.#value ??= this.valueLength < 0 ? null : this.bytes.subarray(this.valueFrom, this.valueFrom + this.valueLength);
  }
  get headers(): Headers {
    return this.#headers ??= readHeaders(this);
  }
}

function readHeaders({ bytes, headersFrom }: RecordBody): Headers {
  const cursor = new Cursor(bytes, headersFrom);
  const count = cursor.varint();
  if (count <= 0) return noHeaders;
  const headers: [string, Buffer][] = [];
  for (let i = 0; i < count; i++) {
    const nameLength = Math.max(0, cursor.skip());
    const name = headerName(bytes, cursor.at - nameLength, nameLength, i);
    const length = cursor.skip();
    headers.push([name, length < 0 ? nothing : bytes.subarray(cursor.at - length, cursor.at)]);
  }
  return headers;
}

/** Goes over the headers of records without making them; each `next` is at the following one. */
export class HeaderWalk {
  bytes: Buffer = nothing;
  /** Of the header: from the length of its name to the end of its value. */
  from = 0;
  to = 0;
  #nameFrom = 0;
  #nameLength = 0;
  #valueLength = 0;
  #left = 0;
  #place = -1;
  readonly #cursor = new Cursor(nothing, 0);

  start(body: RecordBody): void {
    this.bytes = body.bytes;
    this.#cursor.buffer = body.bytes;
    this.#cursor.at = body.headersFrom;
    this.#left = this.#cursor.varint();
    this.#place = -1;
  }
  next(): boolean {
    if (this.#left-- <= 0) return false;
    this.#place++;
    const cursor = this.#cursor;
    this.from = cursor.at;
    this.#nameLength = Math.max(0, cursor.skip());
    this.#nameFrom = cursor.at - this.#nameLength;
    this.#valueLength = Math.max(0, cursor.skip());
    this.to = cursor.at;
    return true;
  }
  name(): string {
    return headerName(this.bytes, this.#nameFrom, this.#nameLength, this.#place);
  }
  named(name: string): boolean {
    if (this.#nameLength !== name.length) return false;
    for (let i = 0; i < name.length; i++) if (this.bytes[this.#nameFrom + i] !== name.charCodeAt(i)) return false;
    return true;
  }
  /** The value as latin1, which ASCII is. */
  text(): string {
    return this.bytes.toString('latin1', this.to - this.#valueLength, this.to);
  }
  value(): Buffer {
    return this.bytes.subarray(this.to - this.#valueLength, this.to);
  }
}

/** What the records of one batch have in common. */
export interface BatchTimes {
  readonly first: number;
  readonly logAppendTime: number | undefined;
}

/** One record as it was read; everything of it lies within `bytes`, which was checked. */
export class StoredRecord extends RecordBody implements LogRecord {
  readonly offset: number;
  readonly #times: BatchTimes;
  readonly #delta: number;

  constructor(bytes: Buffer, from: number, to: number, keyFrom: number, keyLength: number, valueFrom: number, valueLength: number, headersFrom: number, offset: number, times: BatchTimes, delta: number) {
    super(bytes, from, to, keyFrom, keyLength, valueFrom, valueLength, headersFrom);
    this.offset = offset;
    this.#times = times;
    this.#delta = delta;
  }
  get timestamp(): number {
    return this.#times.logAppendTime ?? this.#times.first + this.#delta;
  }
}

/** One record to be appended that stands in Kafka's form already. */
export class PackedRecord extends RecordBody implements OutRecord {
  readonly partition: number;
  constructor(partition: number, bytes: Buffer, from: number, to: number, keyFrom: number, keyLength: number, valueFrom: number, valueLength: number, headersFrom: number) {
    super(bytes, from, to, keyFrom, keyLength, valueFrom, valueLength, headersFrom);
    this.partition = partition;
  }
}

/** The record as it was read, to be appended as it is: key, value and headers are not looked at. */
export function handOn(record: LogRecord, partition: number): OutRecord {
  if (!(record instanceof RecordBody)) return { partition, key: record.key, value: record.value, headers: record.headers };
  return new PackedRecord(partition, record.bytes, record.from, record.to, record.keyFrom, record.keyLength, record.valueFrom, record.valueLength, record.headersFrom);
}

/** A header as bytes, name and value with their lengths: for what is in every record. The name is ASCII. */
export function headerBytes(name: string, value: string): Buffer {
  const size = Buffer.byteLength(value);
  const out = Buffer.alloc(varintSize(name.length) + name.length + varintSize(size) + size);
  const at = writeVarint(out, 0, name.length) + out.write(name, varintSize(name.length), 'latin1');
  out.write(value, writeVarint(out, at, size), 'utf8');
  return out;
}

/** Copies bytes; the caller made room. */
export function copyBytes(to: Buffer, at: number, source: Buffer, from: number, end: number): number {
  const length = end - from;
  if (length < shortCopy) for (let i = 0; i < length; i++) to[at + i] = source[from + i]!;
  else source.copy(to, at, from, end);
  return at + length;
}

/**
 * Puts records together, one after the other, in one growing buffer: `begin`, `key`, `value`, then headers, `end`.
 * The records refer to the buffer: `reset` reuses it, and may be called when they are acknowledged and not before.
 */
export class Packer {
  #bytes: Buffer = Buffer.allocUnsafe(firstChunk);
  #at = 0;
  #from = 0;
  #keyFrom = 0;
  #keyLength = 0;
  #valueFrom = 0;
  #valueLength = 0;
  #headersFrom = 0;
  #count = 0;

  /** Bytes in use. */
  get length(): number {
    return this.#at;
  }
  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    // Finished records keep the full one; only what was begun moves on.
    const begun = this.#at - this.#from;
    const next = Buffer.allocUnsafe(Math.max(Math.min(this.#bytes.length * 2, largestChunk), (begun + bytes) * 2));
    this.#bytes.copy(next, 0, this.#from, this.#at);
    const moved = this.#from;
    this.#bytes = next;
    this.#at -= moved;
    this.#from = 0;
    this.#keyFrom -= moved;
    this.#valueFrom -= moved;
    this.#headersFrom -= moved;
  }
  begin(): void {
    this.#from = this.#at;
    this.#count = 0;
  }
  key(source: Buffer, from: number, to: number): void {
    this.#room(to - from + 5);
    this.#at = writeVarint(this.#bytes, this.#at, to - from);
    this.#keyFrom = this.#at;
    this.#keyLength = to - from;
    this.#at = copyBytes(this.#bytes, this.#at, source, from, to);
  }
  /** The value, and behind it room for the number of headers. */
  value(source: Buffer, from: number, to: number): void {
    this.#room(to - from + 6);
    this.#at = writeVarint(this.#bytes, this.#at, to - from);
    this.#valueFrom = this.#at;
    this.#valueLength = to - from;
    this.#at = copyBytes(this.#bytes, this.#at, source, from, to);
    this.#headersFrom = this.#at++;
  }
  /** The same for a value of `length` bytes that the caller writes into `bytes`, from the place that is given on, before anything else is put. */
  valueRoom(length: number): number {
    this.#room(length + 6);
    this.#valueFrom = writeVarint(this.#bytes, this.#at, length);
    this.#valueLength = length;
    this.#headersFrom = this.#valueFrom + length;
    this.#at = this.#headersFrom + 1;
    return this.#valueFrom;
  }
  /** Where the record that was begun stands. */
  get bytes(): Buffer {
    return this.#bytes;
  }
  /** `count` headers in Kafka's form. */
  headers(source: Buffer, from: number, to: number, count: number): void {
    this.#room(to - from);
    this.#at = copyBytes(this.#bytes, this.#at, source, from, to);
    this.#count += count;
  }
  /** One header with a value of ASCII; `name` is the name with its length before it. */
  header(name: Buffer, value: string): void {
    const { length } = value;
    this.#room(name.length + 5 + length);
    const at = writeVarint(this.#bytes, copyBytes(this.#bytes, this.#at, name, 0, name.length), length);
    if (length < shortCopy) for (let i = 0; i < length; i++) this.#bytes[at + i] = value.charCodeAt(i);
    else this.#bytes.write(value, at, 'latin1');
    this.#at = at + length;
    this.#count++;
  }
  /** One header with a value of bytes; `name` as in `header`. */
  headerOf(name: Buffer, value: Buffer): void {
    const { length } = value;
    this.#room(name.length + 5 + length);
    this.#at = copyBytes(this.#bytes, writeVarint(this.#bytes, copyBytes(this.#bytes, this.#at, name, 0, name.length), length), value, 0, length);
    this.#count++;
  }
  end(partition: number): PackedRecord {
    // One byte was kept for it.
    if (this.#count > 63) throw new WeirError('invariant-broken', `${this.#count} headers in a packed record`);
    this.#bytes[this.#headersFrom] = this.#count << 1;
    return new PackedRecord(partition, this.#bytes, this.#from, this.#at, this.#keyFrom, this.#keyLength, this.#valueFrom, this.#valueLength, this.#headersFrom);
  }
  /** `end` in a buffer of the record's own: nothing of this one is referred to, which can go on with the next record at once. */
  endAlone(partition: number): PackedRecord {
    const { bytes, from, to, keyFrom, keyLength, valueFrom, valueLength, headersFrom } = this.end(partition);
    const own = Buffer.allocUnsafe(to - from);
    bytes.copy(own, 0, from, to);
    this.#at = from;
    if (this.#bytes.length > largestChunk) {
      this.#bytes = Buffer.allocUnsafe(firstChunk);
      this.#at = 0;
    }
    return new PackedRecord(partition, own, 0, own.length, keyFrom - from, keyLength, valueFrom - from, valueLength, headersFrom - from);
  }
  reset(): void {
    this.#at = 0;
    this.#from = 0;
  }
}
