/** Tells of most keys that are not in a set that they are not, without a look at it; never of one that is. */
export interface GrowingFilter {
  add(key: string): void;
  /** False: surely not in it. */
  may(key: string): boolean;
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

/** FNV-1a over the UTF-16 units, mixed by the last steps of MurmurHash3. */
function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  return mix(hash);
}

function mix(of: number): number {
  let hash = Math.imul(of ^ (of >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

function bitsOf(hash: number): number {
  const more = mix(hash + 0x9e3779b9);
  return ((1 << (more & 31)) | (1 << ((more >>> 5) & 31)) | (1 << ((more >>> 10) & 31)) | (1 << ((more >>> 15) & 31))) >>> 0;
}
