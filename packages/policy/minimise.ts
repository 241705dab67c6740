import type { AvroField, AvroRecord } from '@weir/schemas';
import type { Transform } from './transforms.ts';

/** The keys of a map that go. */
export interface KeyFilter {
  keeps(key: string): boolean;
  /** Keys that are known to stay here, for who asks. */
  readonly withheld: readonly string[];
}

/** What becomes of a field: it goes as it is, it stays here, another text goes in its place, or of a map some keys go. */
export type FieldAction = 'keep' | 'drop' | Transform | KeyFilter;

/** The part of a canonical record that one destination gets. */
export interface Minimiser {
  /** Fields that are not sent, `extras` not among them, and keys of maps as `<field>.<key>`. */
  readonly withheld: readonly string[];
  /** Fields that are sent hashed or masked. */
  readonly changed: readonly string[];
  /** Bytes in the current schema of the record (Confluent wire format, already decoded once) → the bytes that leave. */
  bytes(canonical: Buffer): Buffer;
  /** The same on a decoded record. */
  record(record: Readonly<Record<string, unknown>>): Record<string, unknown>;
}

const headerBytes = 5;
/** A digest with its length and branch, or a mask that is longer than what it masks. */
const roomPerText = 80;

/** Cursor of the walk that is going on; walks are synchronous and never nested. */
let at = 0;
let walked: Buffer = Buffer.alloc(0);

function varint(): number {
  let value = 0;
  let scale = 1;
  for (;;) {
    const byte = walked[at++];
    if (byte === undefined) throw new RangeError('a canonical record ends early');
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
    scale *= 128;
  }
}
type Skip = () => void;
const skipVarint: Skip = () => { while (walked[at++]! >= 0x80); };
const skipText: Skip = () => { const length = varint(); at += length; };

/** How to step over one value of this Avro type. */
function skipper(type: unknown, named: Map<string, Skip>): Skip {
  if (Array.isArray(type)) {
    const branches = type.map((t) => skipper(t, named));
    return () => branches[varint()]!();
  }
  if (typeof type === 'string') {
    switch (type) {
      case 'null': return () => {};
      case 'string': case 'bytes': return skipText;
      case 'int': case 'long': return skipVarint;
      case 'double': return () => { at += 8; };
      case 'float': return () => { at += 4; };
      case 'boolean': return () => { at += 1; };
      default: {
        const found = named.get(type) ?? [...named].find(([name]) => name.endsWith(`.${type}`))?.[1];
        if (found === undefined) throw new Error(`no Avro type ${type}`);
        return found;
      }
    }
  }
  const complex = type as { type: unknown; items?: unknown; values?: unknown; fields?: readonly AvroField[]; name?: string; namespace?: string };
  if (complex.type === 'array') return blocks(skipper(complex.items, named));
  if (complex.type === 'map') {
    const value = skipper(complex.values, named);
    return blocks(() => { skipText(); value(); });
  }
  if (complex.type === 'record') {
    const fields = complex.fields!.map((f) => skipper(f.type, named));
    const skip: Skip = () => { for (const field of fields) field(); };
    named.set(complex.namespace === undefined ? complex.name! : `${complex.namespace}.${complex.name}`, skip);
    return skip;
  }
  return skipper(complex.type, named);
}

/** Items of an array or a map come in counted blocks; a negative count is followed by the size in bytes. */
function blocks(item: Skip): Skip {
  return () => {
    for (let count = varint(); count !== 0; count = varint()) {
      if (count < 0) {
        const size = varint();
        at += size;
      } else for (let i = 0; i < count; i++) item();
    }
  };
}

function baseOf(field: AvroField): { readonly base: unknown; readonly nullable: boolean } {
  const nullable = Array.isArray(field.type) && field.type[0] === 'null';
  const type = nullable ? (field.type as unknown[])[1] : field.type;
  return { base: typeof type === 'object' && type !== null ? (type as { type: unknown }).type : type, nullable };
}

/** Whether a record can do without the field: it is nullable, a list or a map. Absent is one zero byte in each case. */
export function droppable(field: AvroField): boolean {
  const { base, nullable } = baseOf(field);
  return nullable || base === 'array' || base === 'map';
}
/** Whether another text can stand in its place, or nothing. */
export function changeable(field: AvroField): boolean {
  const { base, nullable } = baseOf(field);
  return nullable && base === 'string' && (field.type as unknown[]).length === 2;
}

/** A map whose keys can be looked at one by one. */
function isMap(field: AvroField): boolean {
  const { base, nullable } = baseOf(field);
  return base === 'map' && !nullable;
}

/** The action, where the field can take it: one that has to be there is kept, a filter of keys is for maps only (else nothing of the field goes). */
function fitting(field: AvroField, wanted: FieldAction): FieldAction {
  if (typeof wanted === 'object') return isMap(field) ? wanted : droppable(field) ? 'drop' : 'keep';
  return wanted === 'keep' || (wanted === 'drop' ? droppable(field) : changeable(field)) ? wanted : 'keep';
}

/** Writes the entries of the map at the cursor whose keys go, as one block; the cursor ends behind the map. */
function copyKept(out: Buffer, end: number, filter: KeyFilter, value: Skip): number {
  const spans: number[] = [];
  for (let count = varint(); count !== 0; count = varint()) {
    // A negative count is followed by the size of the block in bytes.
    if (count < 0) varint();
    for (let i = Math.abs(count); i > 0; i--) {
      const entry = at;
      const length = varint();
      const key = walked.toString('utf8', at, at + length);
      at += length;
      value();
      if (at > walked.length) throw new RangeError('a canonical record ends early');
      if (filter.keeps(key)) spans.push(entry, at);
    }
  }
  if (spans.length > 0) end = writeVarint(out, end, spans.length);
  for (let i = 0; i < spans.length; i += 2) end += walked.copy(out, end, spans[i], spans[i + 1]);
  out[end++] = 0;
  return end;
}

function absent(field: AvroField): unknown {
  const { base, nullable } = baseOf(field);
  return nullable ? null : base === 'array' ? [] : {};
}

function writeText(out: Buffer, position: number, text: string): number {
  const length = Buffer.byteLength(text);
  out[position++] = 2;
  position = writeVarint(out, position, length * 2);
  return position + out.write(text, position, 'utf8');
}

/** A number that is zigzag already (twice a count). */
function writeVarint(out: Buffer, position: number, zigzag: number): number {
  let rest = zigzag;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) out[position++] = (rest % 128) | 0x80;
  out[position++] = rest;
  return position;
}

/**
 * Compiled once per (record type, destination, operation, rules that matched). `action` is asked per field; a field
 * that has to be there is kept whatever it says, so callers check with `droppable` and `changeable` before. `extras`
 * is always left out. The walk copies the spans that go and writes one byte for each field that does not.
 */
export function compileMinimiser(schema: AvroRecord, action: (field: string) => FieldAction): Minimiser {
  const named = new Map<string, Skip>();
  const steps = schema.fields.map((field) => {
    const wanted = field.name === 'extras' ? 'drop' : action(field.name);
    const does = fitting(field, wanted);
    const value = typeof does === 'object' ? skipper((field.type as { values: unknown }).values, named) : undefined;
    return { field, name: field.name, skip: skipper(field.type, named), does, value };
  });
  const texts = steps.filter((s) => typeof s.does === 'function').length;

  function bytes(canonical: Buffer): Buffer {
    const out = Buffer.allocUnsafe(canonical.length + texts * roomPerText + steps.length);
    walked = canonical;
    at = headerBytes;
    let span = 0;
    let end = 0;
    for (const { skip, does, value } of steps) {
      if (does === 'keep') {
        skip();
        continue;
      }
      const start = at;
      if (typeof does === 'object') {
        end += canonical.copy(out, end, span, start);
        end = copyKept(out, end, does, value!);
        span = at;
        continue;
      }
      let text: string | null = null;
      if (does === 'drop') skip();
      else if (varint() === 1) {
        const length = varint();
        text = does(canonical.toString('utf8', at, at + length));
        at += length;
      }
      end += canonical.copy(out, end, span, start);
      span = at;
      if (text === null) out[end++] = 0;
      else end = writeText(out, end, text);
    }
    if (at !== canonical.length) throw new RangeError('a canonical record is longer or shorter than its schema');
    end += canonical.copy(out, end, span, at);
    return out.subarray(0, end);
  }

  return {
    withheld: steps.flatMap(({ does, name }) => (typeof does === 'object' ? does.withheld.map((key) => `${name}.${key}`) : does === 'drop' && name !== 'extras' ? [name] : [])),
    changed: steps.filter((s) => typeof s.does === 'function').map((s) => s.name),
    bytes,
    record(record) {
      const left: Record<string, unknown> = { __proto__: null } as never;
      for (const { field, name, does } of steps) {
        const value = record[name] ?? null;
        left[name] = does === 'keep' ? value : typeof does === 'object' ? Object.fromEntries(Object.entries(value as object).filter(([key]) => does.keeps(key))) : does === 'drop' ? absent(field) : typeof value === 'string' ? does(value) : null;
      }
      return left;
    },
  };
}
