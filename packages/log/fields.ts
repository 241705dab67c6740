import { loadSchemas, type AvroRecord } from '@weir/schemas';
import { compileBounds } from './bounds.ts';
import { defaultLimits } from './serde.ts';
import type { Serde } from './types.ts';

/**
 * Reads a value of the wire format with these fields of it, of the named record. `undefined`: it is of another record.
 * What another version of Weir wrote, or what is sealed, is decoded whole. Throws as `decode` does; `bytes` fields are
 * views on the value.
 */
export type FieldReader<T> = (serde: Pick<Serde, 'idOf' | 'decode'>, bytes: Buffer) => T | undefined;

/** A place in a datum whose bounds are checked. */
interface At {
  bytes: Buffer;
  at: number;
}
type Read = (from: At) => unknown;

function varint(from: At): number {
  const { bytes } = from;
  const first = bytes[from.at++]!;
  if (first < 128) return (first >>> 1) ^ -(first & 1);
  let value = first & 127;
  for (let scale = 128; ; scale *= 128) {
    const byte = bytes[from.at++]!;
    value += (byte & 127) * scale;
    if (byte < 128) return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
  }
}

/** Names repeat from record to record: the text that stood here last time is compared, not made again. */
function text(): Read {
  let last = '';
  return (from) => {
    const length = varint(from);
    const { bytes, at } = from;
    from.at = at + length;
    if (length === last.length) {
      let i = 0;
      while (i < length && bytes[at + i] === last.charCodeAt(i) && bytes[at + i]! < 128) i++;
      if (i === length) return last;
    }
    return last = bytes.toString('utf8', at, at + length);
  };
}

function double(from: At): number {
  const value = from.bytes.readDoubleLE(from.at);
  from.at += 8;
  return value;
}

function view(from: At): Buffer {
  const length = varint(from);
  return from.bytes.subarray(from.at, from.at += length);
}

function items(item: Read): Read {
  return (from) => {
    const found: unknown[] = [];
    for (let count = varint(from); count !== 0; count = varint(from)) {
      if (count < 0) {
        count = -count;
        varint(from);
      }
      for (let i = 0; i < count; i++) found.push(item(from));
    }
    return found;
  };
}

/** undefined: a type that is not read so. */
function compile(type: unknown): Read | undefined {
  if (type === 'null') return () => null;
  if (type === 'boolean') return (from) => from.bytes[from.at++] === 1;
  if (type === 'int' || type === 'long') return varint;
  if (type === 'double') return double;
  if (type === 'string') return text();
  if (type === 'bytes') return view;
  if (Array.isArray(type)) {
    const branches = type.map(compile);
    return branches.includes(undefined) ? undefined : (from) => branches[varint(from)]!(from);
  }
  if (typeof type !== 'object' || type === null) return undefined;
  const complex = type as { readonly type: unknown; readonly items?: unknown; readonly fields?: AvroRecord['fields'] };
  if (complex.type === 'array') {
    const item = compile(complex.items);
    return item && items(item);
  }
  return complex.type === 'record' ? compileRecord(complex.fields!) : compile(complex.type);
}

function compileRecord(fields: AvroRecord['fields']): Read | undefined {
  const names = fields.map((field) => field.name);
  const reads = fields.map((field) => compile(field.type));
  if (reads.includes(undefined)) return undefined;
  return (from) => {
    const out: Record<string, unknown> = {};
    for (let i = 0; i < names.length; i++) out[names[i]!] = reads[i]!(from);
    return out;
  };
}

/**
 * A reader of some fields of a record of Weir's own schemas: one walk over the datum checks its bounds, as `decode` does,
 * and only what is named is made. Throws when a field is not in the schema, or of a type that is not read so. Those of
 * `encoded` are given as their bytes, a view on the value; where the record is decoded whole they are decoded, too.
 */
export function fieldReader<T>(recordName: string, names: readonly (keyof T & string)[], encoded: readonly (keyof T & string)[] = []): FieldReader<T> {
  const schema = loadSchemas().get(recordName);
  const walk = compileBounds(schema, defaultLimits);
  const ends: number[] = [];
  const from: At = { bytes: Buffer.alloc(0), at: 0 };
  const places = names.map((name) => schema?.fields.findIndex((field) => field.name === name) ?? -1);
  const reads = places.map((place, i): Read => {
    if (place >= 0 && encoded.includes(names[i]!)) return ({ bytes, at }) => bytes.subarray(at, ends[place]);
    const read = place < 0 ? undefined : compile(schema!.fields[place]!.type);
    if (read === undefined) throw new TypeError(`${recordName}.${names[i]} cannot be read alone`);
    return read;
  });
  return (serde, bytes) => {
    if (bytes.length < 5 || bytes[0] !== 0 || bytes.readInt32BE(1) !== serde.idOf(recordName)) {
      const decoded = serde.decode(bytes);
      return decoded.name === recordName ? decoded.value as T : undefined;
    }
    from.bytes = bytes.subarray(5);
    walk(from.bytes, ends);
    const out: Record<string, unknown> = {};
    for (let i = 0; i < names.length; i++) {
      const place = places[i]!;
      from.at = place === 0 ? 0 : ends[place - 1]!;
      out[names[i]!] = reads[i]!(from);
    }
    return out as T;
  };
}
