import { fieldReader, type FieldReader, type Serde } from '@weir/log';
import { canonicalSchemas, planOf, type CompiledPolicy } from '@weir/policy';

/** A canonical record as a decision needs it. */
export interface Opened {
  /** Of the record, with its namespace. */
  readonly name: string;
  /** The fields that a decision looks at, at least. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The whole of it, decoded when somebody asks. */
  value(): any;
}

const prefix = 'weir.canonical.';
/** Of a change of consent more is looked at than its routes and rules say (`changeDecisions`). */
const whole: ReadonlySet<string> = new Set(['ConsentChange']);

interface Known {
  readonly name: string;
  readonly read: FieldReader<Readonly<Record<string, unknown>>>;
}

/**
 * Opens the (unsealed) bytes of canonical records: their bounds are checked, and of those in the schema of this version only
 * what rules and routes of the policy read is made. Throws as `decode` does, and for the same bytes.
 */
export function createOpener(serde: Pick<Serde, 'idOf' | 'decode'>): (bytes: Buffer, policy: CompiledPolicy) => Opened {
  const known = new WeakMap<CompiledPolicy, ReadonlyMap<number, Known>>();

  function knownOf(policy: CompiledPolicy): ReadonlyMap<number, Known> {
    let found = known.get(policy);
    if (found === undefined) known.set(policy, found = new Map(Array.from(canonicalSchemas().keys()).flatMap((type): [number, Known][] => {
      const fields = whole.has(type) ? undefined : planOf(policy, type)?.reads;
      const read = fields === undefined ? undefined : readerOf(prefix + type, fields);
      return read === undefined ? [] : [[serde.idOf(prefix + type), { name: prefix + type, read }]];
    })));
    return found;
  }

  return (bytes, policy) => {
    const of = bytes.length >= 5 && bytes[0] === 0 ? knownOf(policy).get(bytes.readInt32BE(1)) : undefined;
    if (of === undefined) {
      const { name, value } = serde.decode(bytes);
      return { name, fields: value as Readonly<Record<string, unknown>>, value: () => value };
    }
    let decoded: unknown;
    return { name: of.name, fields: of.read(serde, bytes)!, value: () => decoded ??= serde.decode(bytes).value };
  };
}

/** Undefined: one of the fields is of a type that is not read alone. */
function readerOf(name: string, fields: readonly string[]): Known['read'] | undefined {
  try {
    return fieldReader(name, fields);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}
