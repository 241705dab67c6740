import { loadSchemas, type AvroField, type AvroRecord } from '@weir/schemas';

const canonicalPrefix = 'weir.canonical.';
let canonical: ReadonlyMap<string, AvroRecord> | undefined;

/** Canonical schemas by name without namespace: Profile, Event, … */
export function canonicalSchemas(): ReadonlyMap<string, AvroRecord> {
  return canonical ??= new Map([...loadSchemas()].filter(([name]) => name.startsWith(canonicalPrefix)).map(([name, schema]) => [name.slice(canonicalPrefix.length), schema]));
}

/** What an expression reads; more than it does where the text does not tell. */
export interface Reads {
  /** Fields of the record; 'all' when it uses the record other than by field. */
  readonly fields: ReadonlySet<string> | 'all';
  /** Variables it names. */
  readonly names: ReadonlySet<string>;
  readonly meta: boolean;
  /** It asks where the person is. */
  readonly region: boolean;
  /** True when its value may differ between routes of one record. */
  readonly perRoute: boolean;
  /** True when its value may differ between records of one route. */
  readonly perRecord: boolean;
}

const texts = /"""[\s\S]*?"""|'''[\s\S]*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g;

export function readsOf(source: string): Reads {
  const code = source.replace(texts, '""');
  const fields = new Set<string>();
  let all = false;
  for (const match of code.matchAll(/(?<![.\w])record\b(?:\s*\.\s*([A-Za-z_]\w*)(\s*\()?)?/g)) {
    if (match[1] === undefined || match[2] !== undefined) all = true;
    else fields.add(match[1]);
  }
  const names = new Set(Array.from(code.matchAll(/(?<![.\w])[a-z]+\b/g), ([name]) => name));
  const any = (...of: readonly string[]): boolean => of.some((name) => names.has(name));
  return { fields: all ? 'all' : fields, names, meta: names.has('meta'), region: names.has('region'), perRoute: any('destination', 'operation', 'purpose', 'channel', 'topic'), perRecord: any('record', 'source', 'now', 'meta', 'region') };
}

/** Fields that the expression names and no schema has: those of the type, or of any canonical record. */
export function unknownFields(source: string, type?: string): readonly string[] {
  const { fields } = readsOf(source);
  if (fields === 'all') return [];
  const schema = type === undefined ? undefined : canonicalSchemas().get(type);
  const known = new Set((schema === undefined ? [...canonicalSchemas().values()] : [schema]).flatMap((s) => s.fields.map((f) => f.name)));
  return [...fields].filter((field) => !known.has(field));
}

type Convert = (value: any) => unknown;
const same: Convert = (value) => value;

/** Avro value → CEL value by its schema: int and long are ints, records and maps are maps without prototype. */
function converter(type: unknown): Convert {
  if (Array.isArray(type)) {
    const branches = type.filter((t) => t !== 'null');
    const inner = branches.length === 1 ? converter(branches[0]) : same;
    return (value) => (value === null || value === undefined ? null : inner(value));
  }
  if (type === 'int' || type === 'long') return (value) => BigInt(value);
  if (typeof type !== 'object' || type === null) return same;
  const complex = type as { type: unknown; items?: unknown; values?: unknown; fields?: readonly AvroField[] };
  if (complex.type === 'array') {
    const item = converter(complex.items);
    return (value: unknown[]) => value.map(item);
  }
  if (complex.type === 'map') {
    const item = converter(complex.values);
    return (value: Record<string, unknown>) => {
      const out = Object.create(null) as Record<string, unknown>;
      for (const key of Object.keys(value)) out[key] = item(value[key]);
      return out;
    };
  }
  if (complex.type === 'record') return recordConverter(complex.fields!, complex.fields!.map((f) => f.name));
  return converter(complex.type);
}

function recordConverter(fields: readonly AvroField[], names: readonly string[]): Convert {
  const steps = names.map((name) => {
    const field = fields.find((f) => f.name === name);
    return { name, convert: field === undefined ? undefined : converter(field.type) };
  });
  return (value: Record<string, unknown>) => {
    const out = Object.create(null) as Record<string, unknown>;
    for (const { name, convert } of steps) {
      const field = value[name];
      out[name] = convert === undefined || field === undefined ? null : convert(field);
    }
    return out;
  };
}

/** Fields of the type that expressions read, and names that they read and it does not have. */
export function namesRead(type: string, reads: readonly Reads[]): ReadonlySet<string> {
  const fields = canonicalSchemas().get(type)?.fields ?? [];
  const names = new Set<string>(reads.some((r) => r.fields === 'all') ? fields.map((f) => f.name) : []);
  for (const { fields: read } of reads) if (read !== 'all') for (const name of read) names.add(name);
  return names;
}

/**
 * From a decoded canonical record, which CEL does not take as it is, to the `record` of expressions, with the fields
 * that they read. A field that the type does not have is null, so that one rule can speak of several types.
 */
export function recordView(type: string, reads: readonly Reads[]): (record: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>> {
  return recordConverter(canonicalSchemas().get(type)?.fields ?? [], [...namesRead(type, reads)]) as (record: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>;
}
