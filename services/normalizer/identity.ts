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

/** HMAC per identifier is the dearest step of a record: recent ones are kept. Bounded; the whole memory is dropped when full. */
export function createKeyedCache(workspaceKey: Buffer, max = 50_000): (type: string, value: string) => string {
  const known = new Map<string, string>();
  return (type, value) => {
    const key = `${type}\u0000${value}`;
    let id = known.get(key);
    if (id === undefined) {
      id = keyedId(workspaceKey, type, value);
      if (known.size >= max) known.clear();
      known.set(key, id);
    }
    return id;
  };
}

/** Links of one record: the strongest identifier with each other one, as sorted pairs. */
export function linksOf(ids: readonly string[]): string[] {
  return ids.slice(1).map((id) => (ids[0]! < id ? `${ids[0]}~${id}` : `${id}~${ids[0]}`));
}
