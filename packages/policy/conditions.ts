import type { CompiledCel } from '@weir/cel';
import type { Reads } from './record-view.ts';

/** What conditions of a group gave for a record, by place; undefined = not asked yet. */
export type Values = (boolean | 'error' | undefined)[];

/** Where the value of a condition stands that is the same for every route of a record. */
export interface Shared {
  readonly group: Group;
  /** Of the group among those of the plan. */
  readonly at: number;
  readonly place: number;
}

/** Conditions that read the same fields. */
export interface Group {
  /** Values for this record (the `record` of expressions): those of an earlier one where that had the same in all that the conditions read. */
  valuesOf(record: Readonly<Record<string, unknown>>): Values;
}

/** Conditions of one plan. */
export interface Conditions {
  /** @param kind rules and routes are compiled apart @param opens whether it opens something when it holds: of a person with several regions the stricter counts */
  add(kind: 'rule' | 'route', when: CompiledCel, reads: Reads, opens: boolean): Shared;
  /** Number of groups. */
  count(): number;
}

/** Conditions that read more fields than this have a value of their own for nearly every record. */
const maxFields = 4;
/** Fewer conditions are asked as fast as their values are found. */
const minConditions = 3;
const maxText = 64;
/** Of a plan: groups whose values are remembered, and of each the records with different ones. */
const maxGroups = 16;
const maxRecords = 256;
/** If of so many records more than half were new, the next ones, so many times as many, are not looked for. */
const looks = 1024;
const pauses = 16;
/** Not of the record: another value a moment later, or of where it came from. */
const passing = ['now', 'meta', 'region', 'source'] as const;
/** Where a text may end elsewhere than `readsOf` takes it to, so that a condition may read more than it says. */
const unsure = /\\|\/\/|"""|'''/;

export function createConditions(): Conditions {
  const groups = new Map<string, { readonly at: number; readonly group: Group; conditions: number }>();
  const places = new Map<string, Shared>();

  return {
    add(kind, when, reads, opens) {
      const name = `${kind} ${opens ? 'opens' : 'restricts'} ${when.source}`;
      const known = places.get(name);
      if (known !== undefined) return known;
      let fields = fieldsOf(when, reads);
      if (fields !== undefined && groups.size >= maxGroups && !groups.has(fields.join())) fields = undefined;
      const groupName = fields?.join() ?? '';
      let found = groups.get(groupName);
      if (found === undefined) groups.set(groupName, found = { at: groups.size, group: fields === undefined ? alone : new Remembering(fields), conditions: 0 });
      const shared = { at: found.at, group: found.group, place: found.conditions++ };
      if (found.group instanceof Remembering) found.group.conditions++;
      places.set(name, shared);
      return shared;
    },
    count: () => groups.size,
  };
}

/** The fields that settle its value, in order; undefined = something else does, too. */
function fieldsOf({ source }: CompiledCel, { fields, names }: Reads): readonly string[] | undefined {
  if (fields === 'all' || fields.size > maxFields || unsure.test(source) || passing.some((name) => names.has(name))) return undefined;
  return [...fields].sort();
}

const alone: Group = { valuesOf: () => [] };

class Remembering implements Group {
  conditions = 0;
  readonly #fields: readonly string[];
  readonly #known = new Map<string, Values>();
  #looked = 0;
  #fresh = 0;
  #paused = 0;

  constructor(fields: readonly string[]) {
    this.#fields = fields;
  }

  valuesOf(record: Readonly<Record<string, unknown>>): Values {
    if (this.conditions < minConditions) return [];
    if (this.#paused > 0) {
      this.#paused--;
      return [];
    }
    const key = keyOf(record, this.#fields);
    if (key === undefined) return [];
    const known = this.#known;
    let values = known.get(key);
    if (values === undefined) {
      this.#fresh++;
      if (known.size >= maxRecords) known.clear();
      known.set(key, values = []);
    }
    if (++this.#looked === looks) this.#judge();
    return values;
  }

  /** Where nearly every record has values of its own, to look for them is in vain. */
  #judge(): void {
    if (this.#fresh > looks / 2) {
      this.#paused = looks * pauses;
      this.#known.clear();
    }
    this.#looked = this.#fresh = 0;
  }
}

/** A text for these values that no others have; undefined: one of them is long, or no text, boolean or null. */
function keyOf(record: Readonly<Record<string, unknown>>, fields: readonly string[]): string | undefined {
  let key = '';
  for (const field of fields) {
    const value = record[field];
    if (typeof value === 'string') {
      if (value.length > maxText) return undefined;
      key += `${value.length}:${value}`;
    } else if (value === null) key += 'n';
    else if (typeof value === 'boolean') key += value ? 't' : 'f';
    else return undefined;
  }
  return key;
}
