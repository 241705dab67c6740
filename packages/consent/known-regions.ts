import type { KeyRing } from '@weir/seal';
import { regionsIn, type KnownRegion } from './regions.ts';
import type { ConsentTables } from './tables.ts';

export interface KnownRegionsPorts {
  readonly tables: Pick<ConsentTables, 'regions'>;
  /** Undefined = nobody is erased. */
  readonly keys: Pick<KeyRing, 'erasedUntil'> | undefined;
  /** By identifier: what is written and not yet in the tables. */
  readonly pending?: ReadonlyMap<string, { readonly region: KnownRegion }>;
}

/** Where people are, as their records said: for who decides on a record that may not say it. */
export interface KnownRegions {
  /** Tells what is known by each of these identifiers; nothing of before an erasure. */
  each(ids: readonly string[], tell: (id: string, region: KnownRegion) => void): void;
  /**
   * Codes that hold for the person beside what the record itself says, each once; '' among them = one that nobody can read.
   * @param linked as `ConsentTables.linked` gave it for `ids` @param own whether the record says it: what was said by its own identifiers counts no more
   */
  of(linked: readonly string[] | undefined, ids: readonly string[], own: boolean): readonly string[];
}

const none: readonly string[] = [];

export function createKnownRegions({ tables, keys, pending }: KnownRegionsPorts): KnownRegions {
  function each(ids: readonly string[], tell: (id: string, region: KnownRegion) => void): void {
    const living = (id: string, region: KnownRegion): void => {
      const until = keys?.erasedUntil([id]) ?? 0;
      // One that nobody can read has no time (0): it closes for who was never erased (0), too.
      if (until === 0 || until < region.at) tell(id, region);
    };
    if (pending === undefined || pending.size === 0) return tables.regions(ids, living);
    tables.regions(ids, (id, region) => { if (!pending.has(id)) living(id, region); });
    for (const id of ids) {
      const found = pending.get(id);
      if (found !== undefined) living(id, found.region);
    }
  }

  return {
    each,
    of(linked, ids, own) {
      if (linked === undefined || (own && linked === ids)) return none;
      const asked = own ? linked.filter((id) => !ids.includes(id)) : linked;
      if (asked.length === 0) return none;
      const codes: string[] = [];
      each(asked, (_id, { code: text }) => { for (const code of regionsIn(text)) if (!codes.includes(code)) codes.push(code); });
      return codes;
    },
  };
}
