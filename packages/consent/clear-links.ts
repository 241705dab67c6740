import type { Serde } from '@weir/log';
import { keyedId } from '@weir/pipeline';
import { openIdentifiers, type KeyRing } from '@weir/seal';
import type { ConsentTables } from './tables.ts';

export interface ClearLinksPorts {
  readonly tables: Pick<ConsentTables, 'linkValues'>;
  /** Opens what is sealed. */
  readonly serde: Pick<Serde, 'known' | 'decode'>;
  /** Undefined = nothing is sealed, so nothing is kept. */
  readonly keys: Pick<KeyRing, 'erasedUntil'> | undefined;
  readonly workspaceKey: Buffer;
}

/** Sealed values of links that could not be read when they were asked for. */
export interface Unread {
  /** Their key or schema is not here: to be prepared, and asked for again. */
  readonly values: Buffer[];
  /** Were prepared: a key that is still not here is destroyed. */
  readonly prepared: readonly Buffer[];
}

const types = ['userId', 'email', 'phone'] as const;
const nobody = (): undefined => undefined;

/**
 * What the identifiers of one person are in the clear, as their links keep it. A value counts only for the identifier that it
 * has the keyed form of, and not when that was erased since. Nothing is read before somebody asks.
 * @param linked the person, as `ConsentTables.linked` gives it
 */
export function createClearLinks({ tables, serde, keys, workspaceKey }: ClearLinksPorts): (linked: readonly string[] | undefined, unread?: Unread) => (id: string) => string | undefined {
  if (keys === undefined) return () => nobody;

  function read(linked: readonly string[], unread: Unread | undefined): ReadonlyMap<string, string> {
    const found = new Map<string, string>();
    for (const { at, sealed } of tables.linkValues(linked)) {
      if (!serde.known(sealed) && unread !== undefined && !unread.prepared.some((bytes) => bytes.equals(sealed))) {
        unread.values.push(sealed);
        continue;
      }
      const clear = openIdentifiers(serde, sealed);
      if (clear === undefined) continue;
      for (const type of types) {
        const value = clear[type];
        if (value === null || value === '') continue;
        const id = `${type}:${keyedId(workspaceKey, type, value)}`;
        // The newest is first.
        if (linked.includes(id) && !found.has(id) && keys!.erasedUntil([id]) < at) found.set(id, value);
      }
    }
    return found;
  }

  return (linked, unread) => {
    if (linked === undefined) return nobody;
    let values: ReadonlyMap<string, string> | undefined;
    return (id) => (values ??= read(linked, unread)).get(id);
  };
}
