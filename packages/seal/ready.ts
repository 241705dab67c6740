import { keyBytes, SealKey } from './envelope.ts';

/** Keys of one piece of memory. */
const perSlab = 512;

/** What was kept since the generation began. A place is given once: who still has a key of it reads the same bytes for ever. */
interface Generation {
  readonly ids: Map<string, number>;
  readonly owners: Map<string, number>;
  readonly slabs: Buffer[];
  places: number;
}

const begin = (): Generation => ({ ids: new Map(), owners: new Map(), slabs: [], places: 0 });

function at({ slabs }: Generation, place: number): SealKey {
  const from = (place % perSlab) * keyBytes;
  return new SealKey(slabs[Math.floor(place / perSlab)]!.subarray(from, from + keyBytes));
}

/**
 * Keys in use, by id and by owner, in two generations so that a full one does not drop what is in use. The bytes of many
 * lie side by side, about 260 bytes a key with its entries: as objects of their own they take six times that.
 */
export interface ReadyKeys {
  ofId(id: string): SealKey | undefined;
  hasId(id: string): boolean;
  ofOwner(owner: string): SealKey | undefined;
  /** @param owner where it is the one to seal with */
  keep(key: SealKey, owner?: string): void;
  forget(owner: string, id: string): void;
}

/** @param size keys of one generation; ids are the latin1 text of their bytes */
export function createReady(size: number): ReadyKeys {
  let newer = begin();
  let older = begin();
  /** What was found last: a record is opened, sealed and asked after under one key, and all of a source have one. */
  const last: Record<'ids' | 'owners', { name: string; key: SealKey } | undefined> = { ids: undefined, owners: undefined };

  function find(by: 'ids' | 'owners', name: string): SealKey | undefined {
    const known = last[by];
    if (known?.name === name) return known.key;
    const place = newer[by].get(name);
    const before = place === undefined ? older[by].get(name) : undefined;
    if (place === undefined && before === undefined) return undefined;
    const key = place === undefined ? at(older, before!) : at(newer, place);
    last[by] = { name, key };
    return key;
  }

  function add(key: SealKey, id: string): number {
    if (newer.places >= size) {
      [newer, older] = [begin(), newer];
      last.ids = last.owners = undefined;
    }
    const place = newer.places++;
    if (place % perSlab === 0) newer.slabs.push(Buffer.allocUnsafeSlow(perSlab * keyBytes));
    key.copyTo(newer.slabs.at(-1)!, (place % perSlab) * keyBytes);
    newer.ids.set(id, place);
    return place;
  }

  return {
    ofId: (id) => find('ids', id),
    hasId: (id) => newer.ids.has(id) || older.ids.has(id),
    ofOwner: (owner) => find('owners', owner),
    keep(key, owner) {
      const id = key.id.toString('latin1');
      const place = newer.ids.get(id) ?? add(key, id);
      if (owner === undefined) return;
      newer.owners.set(owner, place);
      last.owners = undefined;
    },
    forget(owner, id) {
      last.ids = last.owners = undefined;
      for (const { ids, owners } of [newer, older]) {
        ids.delete(id);
        owners.delete(owner);
      }
    },
  };
}
