import { keyedId } from '@weir/pipeline';

/** Strongest first (docs/architecture.md 3.3). */
const fields = [['userId', 'userId'], ['email', 'email'], ['phone', 'phone']] as const;

/** Keyed identifiers of a canonical record, strongest first, each once: `<type>:<keyed id>`; undefined when there are more than `max`. */
export function identifiersOf(record: Readonly<Record<string, unknown>>, keyed: (type: string, value: string) => string, max: number): string[] | undefined {
  const ids: string[] = [];
  const external = record['externalIds'];
  if (Array.isArray(external) && external.length > max) return undefined;
  const add = (type: string, value: unknown): void => {
    if (typeof value !== 'string' || value === '') return;
    const id = `${type}:${keyed(type, value)}`;
    if (!ids.includes(id)) ids.push(id);
  };
  for (const [field, type] of fields) add(type, record[field]);
  if (Array.isArray(external)) for (const e of external as { type: string; value: string }[]) add('external', `${e.type}:${e.value}`);
  add('anonymousId', record['anonymousId']);
  // An alias does not say of which kind the earlier id was: it links both.
  for (const type of ['anonymousId', 'userId']) add(type, record['previousId']);
  return ids.length > max ? undefined : ids;
}

/** Recent keyed identifiers are kept: an HMAC is dear. Two generations of at most `max`, so that a full one does not drop what is in use. */
export function createKeyedCache(workspaceKey: Buffer, max = 50_000): (type: string, value: string) => string {
  let known = new Map<string, string>();
  let before = new Map<string, string>();
  return (type, value) => {
    const key = `${type}\u0000${value}`;
    let id = known.get(key);
    if (id === undefined) {
      id = before.get(key) ?? keyedId(workspaceKey, type, value);
      if (known.size >= max) {
        before = known;
        known = new Map();
      }
      known.set(key, id);
    }
    return id;
  };
}

/** Links of one record: the strongest identifier with each other one, as sorted pairs. */
export function linksOf(ids: readonly string[]): string[] {
  return ids.slice(1).map((id) => (ids[0]! < id ? `${ids[0]}~${id}` : `${id}~${ids[0]}`));
}

/** The identifiers of one record, and what is written of them again and again. */
export interface Person {
  /** Keyed, strongest first. */
  readonly ids: readonly string[];
  /** Joined by commas: one object for each person, so that a look-up by it hashes it once. */
  readonly text: string;
  readonly subject: string;
  /** Bytes of the subject. */
  readonly key: Buffer;
}

export function personOf(ids: readonly string[], subject: string): Person {
  return { ids, text: ids.join(','), subject, key: Buffer.from(subject) };
}

const single = ['userId', 'email', 'phone', 'anonymousId', 'previousId'] as const;
type Values = readonly [userId: string | null, email: string | null, phone: string | null, anonymousId: string | null, previousId: string | null];

interface Known {
  readonly values: Values;
  readonly person: Person;
}

const textOf = (value: unknown): string | null => (typeof value === 'string' ? value : null);

/**
 * Persons by the values of a record that has no external ids; two generations of at most `max` are kept, one for each first
 * value. Undefined = more identifiers than `limit`.
 */
export function createPersons(keyed: (type: string, value: string) => string, limit: number, max = 20_000): (value: (field: string) => unknown, eventId: string) => Person | undefined {
  let known = new Map<string, Known>();
  let before = new Map<string, Known>();
  return (value, eventId) => {
    const userId = textOf(value('userId'));
    const email = textOf(value('email'));
    const phone = textOf(value('phone'));
    const anonymousId = textOf(value('anonymousId'));
    const previousId = textOf(value('previousId'));
    const first = userId ?? email ?? phone ?? anonymousId ?? previousId ?? '';
    const same = ({ values: v }: Known): boolean => v[0] === userId && v[1] === email && v[2] === phone && v[3] === anonymousId && v[4] === previousId;
    let found = known.get(first);
    if (found !== undefined && same(found)) return found.person;
    found = before.get(first);
    if (found === undefined || !same(found)) {
      const values: Values = [userId, email, phone, anonymousId, previousId];
      const ids = identifiersOf(Object.fromEntries(single.map((field, i) => [field, values[i]])), keyed, limit);
      if (ids === undefined) return undefined;
      const person = personOf(ids, ids[0] ?? `event:${eventId}`);
      // Without an identifier the event is the subject.
      if (ids.length === 0) return person;
      found = { values, person };
    }
    if (known.size >= max && !known.has(first)) {
      before = known;
      known = new Map();
    }
    known.set(first, found);
    return found.person;
  };
}
