/** Avro values → bytes, compiled once per schema: closures in field order, into a buffer that the caller keeps. Format: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding */

/** Where it writes; grows by doubling, so `bytes` may be another buffer after a write. */
export interface Sink {
  bytes: Buffer;
  at: number;
}

export type Write = (sink: Sink, value: unknown) => void;
type Schema = string | readonly Schema[] | { readonly type: Schema; readonly name?: string; readonly namespace?: string; readonly items?: Schema; readonly values?: Schema; readonly symbols?: readonly string[]; readonly fields?: readonly { readonly name: string; readonly type: Schema; readonly default?: unknown }[] };

/** Shorter text is written character by character: a call into the runtime costs more. */
const shortText = 48;

/** Room for so many bytes more. */
export function room(sink: Sink, bytes: number): void {
  if (sink.at + bytes <= sink.bytes.length) return;
  const grown = Buffer.allocUnsafe(Math.max(sink.bytes.length * 2, sink.at + bytes));
  sink.bytes.copy(grown, 0, 0, sink.at);
  sink.bytes = grown;
}

function wrong(expected: string): never {
  throw new TypeError(`not ${expected}`);
}

/** Zigzag varint of a safe integer; the caller made room for 10 bytes. */
export function varint(sink: Sink, n: number): void {
  const { bytes } = sink;
  let at = sink.at;
  if (n >= -0x40000000 && n < 0x40000000) {
    let v = (n << 1) ^ (n >> 31);
    while (v > 127) {
      bytes[at++] = (v & 127) | 128;
      v >>>= 7;
    }
    bytes[at++] = v;
  } else if (n > -(2 ** 52)) {
    // Doubled it is still exact, and so is every step.
    let v = n >= 0 ? n * 2 : n * -2 - 1;
    while (v > 127) {
      bytes[at++] = (v % 128) | 128;
      v = Math.floor(v / 128);
    }
    bytes[at++] = v;
  } else {
    let v = n >= 0 ? BigInt(n) * 2n : BigInt(n) * -2n - 1n;
    while (v > 127n) {
      bytes[at++] = Number(v & 127n) | 128;
      v >>= 7n;
    }
    bytes[at++] = Number(v);
  }
  sink.at = at;
}

function text(sink: Sink, value: unknown): void {
  if (typeof value !== 'string') wrong('text');
  const { length } = value;
  room(sink, 10 + length * 3);
  const start = sink.at;
  if (length < shortText) {
    // One byte of length: true as long as all is ASCII and shorter than 64.
    const { bytes } = sink;
    let i = 0;
    for (; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code > 127) break;
      bytes[start + 1 + i] = code;
    }
    if (i === length) {
      bytes[start] = length << 1;
      sink.at = start + 1 + length;
      return;
    }
  }
  const size = Buffer.byteLength(value);
  varint(sink, size);
  sink.at += sink.bytes.write(value, sink.at, 'utf8');
}

const primitives: Readonly<Record<string, Write>> = {
  null: (_sink, value) => { if (value !== null) wrong('null'); },
  boolean(sink, value) {
    if (typeof value !== 'boolean') wrong('true or false');
    room(sink, 1);
    sink.bytes[sink.at++] = value ? 1 : 0;
  },
  int(sink, value) {
    if (typeof value !== 'number' || (value | 0) !== value) wrong('an int');
    room(sink, 10);
    varint(sink, value);
  },
  long(sink, value) {
    // The largest safe integer itself is refused by the reader (avsc), too.
    if (!Number.isSafeInteger(value) || Math.abs(value as number) === Number.MAX_SAFE_INTEGER) wrong('a long');
    room(sink, 10);
    varint(sink, value as number);
  },
  double(sink, value) {
    if (typeof value !== 'number') wrong('a number');
    room(sink, 8);
    sink.at = sink.bytes.writeDoubleLE(value, sink.at);
  },
  string: text,
  bytes(sink, value) {
    if (!Buffer.isBuffer(value)) wrong('bytes');
    room(sink, 10 + value.length);
    varint(sink, value.length);
    sink.bytes.set(value, sink.at);
    sink.at += value.length;
  },
};

/** A field of a record: its name, and how its value is written. */
export interface FieldWrite {
  readonly name: string;
  readonly write: Write;
  /** What stands for a value that is not given. */
  readonly fallback: unknown;
}

/** Undefined for a schema with a type that this encoder does not know (fixed, float, unions of more than null and one type). */
export function compileEncoder(schema: unknown): Write | undefined {
  return compileSchema(schema).write;
}

/** The fields of a record in their order, for who writes them one by one. */
export function compileFields(schema: unknown): readonly FieldWrite[] | undefined {
  return compileSchema(schema).fields;
}

function compileSchema(schema: unknown): { readonly write: Write | undefined; readonly fields: readonly FieldWrite[] | undefined } {
  let outermost: readonly FieldWrite[] | undefined;
  const named = new Map<string, Write>();
  const compile = (type: Schema, namespace: string): Write | undefined => {
    if (typeof type === 'string') return primitives[type] ?? named.get(type.includes('.') ? type : `${namespace}.${type}`) ?? named.get(type);
    if (Array.isArray(type)) return union(type as readonly Schema[], namespace);
    const table = type as Exclude<Schema, string | readonly Schema[]>;
    if (table.type === 'record') return record(table, table.namespace ?? namespace);
    if (table.type === 'enum') {
      const symbols = new Map(table.symbols!.map((symbol, i) => [symbol as unknown, i]));
      const write: Write = (sink, value) => primitives['int']!(sink, symbols.get(value) ?? wrong('a symbol of the enum'));
      named.set(`${table.namespace ?? namespace}.${table.name}`, write);
      return write;
    }
    if (table.type === 'array') return list(compile(table.items!, namespace));
    if (table.type === 'map') return map(compile(table.values!, namespace));
    return compile(table.type, namespace);
  };
  const union = (types: readonly Schema[], namespace: string): Write | undefined => {
    const nullAt = types.indexOf('null');
    const inner = types.length === 2 && nullAt >= 0 ? compile(types[1 - nullAt]!, namespace) : undefined;
    if (inner === undefined) return undefined;
    const [absent, present] = nullAt === 0 ? [0, 2] : [2, 0];
    return (sink, value) => {
      room(sink, 1);
      if (value === null) sink.bytes[sink.at++] = absent;
      else {
        sink.bytes[sink.at++] = present;
        inner(sink, value);
      }
    };
  };
  const record = (table: Exclude<Schema, string | readonly Schema[]>, namespace: string): Write | undefined => {
    const readers: FieldWrite[] = [];
    for (const field of table.fields!) {
      const write = compile(field.type, namespace);
      if (write === undefined) return undefined;
      readers.push({ name: field.name, write, fallback: field.default });
    }
    const write: Write = (sink, value) => {
      if (value === null || typeof value !== 'object') wrong('a record');
      for (let i = 0; i < readers.length; i++) {
        const { name, write: one, fallback } = readers[i]!;
        const given = (value as Record<string, unknown>)[name];
        one(sink, given === undefined ? fallback : given);
      }
    };
    named.set(`${namespace}.${table.name}`, write);
    // Those within it came before.
    outermost = readers;
    return write;
  };
  const write = compile(schema as Schema, '');
  return { write, fields: write === undefined ? undefined : outermost };
}

function list(item: Write | undefined): Write | undefined {
  if (item === undefined) return undefined;
  return (sink, value) => {
    if (!Array.isArray(value)) wrong('a list');
    room(sink, 10);
    if (value.length > 0) varint(sink, value.length);
    for (const element of value) item(sink, element);
    room(sink, 1);
    sink.bytes[sink.at++] = 0;
  };
}

function map(item: Write | undefined): Write | undefined {
  if (item === undefined) return undefined;
  return (sink, value) => {
    if (value === null || typeof value !== 'object' || Array.isArray(value)) wrong('a table');
    const keys = Object.keys(value);
    room(sink, 10);
    if (keys.length > 0) varint(sink, keys.length);
    for (const key of keys) {
      text(sink, key);
      item(sink, (value as Record<string, unknown>)[key]);
    }
    room(sink, 1);
    sink.bytes[sink.at++] = 0;
  };
}
