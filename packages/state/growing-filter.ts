import { bitsOf, hashOf, type KeyFilter } from './filter.ts';

export interface GrowingFilter extends KeyFilter {
  /** Takes no memory any more, and says of every key that it may be in the set. */
  drop(): void;
  dropped(): boolean;
}

/** Bytes that filters may still take, shared by those that are given the same. */
export interface FilterBudget {
  bytes: number;
}

/** Of one process. */
const ofProcess: FilterBudget = { bytes: 32 * 1024 * 1024 };
/** 64 KiB and 4 MiB. */
const firstWords = 1 << 14;
const lastWords = 1 << 20;
const growth = 4;
const wordBytes = 4;
/** Keys of the last part beyond a word for each: of the keys that are not in the set it lets some 3 % through then. */
const crowd = 2 * lastWords;

/**
 * Bloom filters whose four bits of a key lie in one word (Putze, Sanders, Singler, Cache-, Hash- and Space-Efficient Bloom
 * Filters, 2007), each with a word for each of its keys and of four times the size of the one before (Almeida, Baquero, Preguiça, Hutchison,
 * Scalable Bloom Filters, 2007): memory follows the keys, up to 5.4 MiB. Of the keys that are not in the set it lets less than 1 % through
 * up to a million. With 3.5 million keys, or where the budget is spent, it is dropped.
 */
export function createGrowingFilter(budget: FilterBudget = ofProcess): GrowingFilter {
  let parts: Uint32Array[] = [];
  let newest: Uint32Array | undefined;
  /** Keys that go into the newest part. */
  let room = 0;
  let isDropped = false;

  function drop(): void {
    isDropped = true;
    for (const part of parts) budget.bytes += part.byteLength;
    parts = [];
    newest = undefined;
  }

  function grow(): void {
    const before = newest?.length ?? firstWords / growth;
    const words = before * growth;
    if (before === lastWords || budget.bytes < words * wordBytes) return drop();
    budget.bytes -= words * wordBytes;
    parts.push(newest = new Uint32Array(words));
    room = words === lastWords ? words + crowd : words;
  }

  function has(hash: number, wanted: number): boolean {
    for (let i = parts.length - 1; i >= 0; i--) {
      const part = parts[i]!;
      if ((part[hash & (part.length - 1)]! & wanted) >>> 0 === wanted) return true;
    }
    return false;
  }

  return {
    add(key) {
      if (isDropped) return;
      const hash = hashOf(key);
      const bits = bitsOf(hash);
      if (has(hash, bits)) return;
      if (room === 0) grow();
      if (newest === undefined) return;
      room--;
      newest[hash & (newest.length - 1)]! |= bits;
    },
    may(key) {
      if (isDropped) return true;
      const hash = hashOf(key);
      return has(hash, bitsOf(hash));
    },
    drop,
    dropped: () => isDropped,
  };
}
