/** A set of ids, about 20 bytes of memory each: a replay must know which deliveries it met, and they are many. */
export interface IdSet {
  /** False when it is there already. `hex` = 24 hex digits or more, of which the first 24 count. */
  add(hex: string): boolean;
  readonly size: number;
}

/** So that growing copies a little at a time. */
const shards = 64;
const width = 3;
const firstSlots = 8;
const fullest = 0.8;
const growth = 1.4;

/** Open addressing; three zeros stand for an empty slot. */
function createShard(): { add(a: number, b: number, c: number): boolean } {
  let slots = firstSlots;
  let data = new Uint32Array(slots * width);
  let size = 0;

  const isEmpty = (i: number): boolean => data[i] === 0 && data[i + 1] === 0 && data[i + 2] === 0;

  /** Where it is, or would be put. A slot is always empty. */
  function placeOf(a: number, b: number, c: number): number {
    // Ids are hashes; somebody else's may count (MurmurHash3, its constants and last mix).
    const mixed = Math.imul(Math.imul(a, 0xcc9e2d51) ^ Math.imul(b, 0x1b873593) ^ c, 0x85ebca6b);
    let i = ((mixed ^ (mixed >>> 13)) >>> 0) % slots * width;
    while (!isEmpty(i) && (data[i] !== a || data[i + 1] !== b || data[i + 2] !== c)) i = i + width === data.length ? 0 : i + width;
    return i;
  }

  function put(i: number, a: number, b: number, c: number): void {
    data[i] = a;
    data[i + 1] = b;
    data[i + 2] = c;
  }

  function grow(): void {
    const before = data;
    slots = Math.ceil(slots * growth);
    data = new Uint32Array(slots * width);
    for (let i = 0; i < before.length; i += width) {
      const [a, b, c] = [before[i]!, before[i + 1]!, before[i + 2]!];
      if (a !== 0 || b !== 0 || c !== 0) put(placeOf(a, b, c), a, b, c);
    }
  }

  return {
    add(a, b, c) {
      const i = placeOf(a, b, c);
      if (!isEmpty(i)) return false;
      put(i, a, b, c);
      if (++size > slots * fullest) grow();
      return true;
    },
  };
}

/** Eight hex digits (0-9, a-f, A-F) as a number. */
function word(hex: string, from: number): number {
  let value = 0;
  for (let i = from; i < from + 8; i++) {
    const code = hex.charCodeAt(i);
    value = (value << 4) | (code < 58 ? code - 48 : (code & 15) + 9);
  }
  return value >>> 0;
}

/** 96 bits of the id; with n ids the chance that two are taken for one is below n² / 2^97. */
export function createIdSet(): IdSet {
  const parts: (ReturnType<typeof createShard> | undefined)[] = [];
  let size = 0;
  let hasZero = false;
  function addOne(a: number, b: number, c: number): boolean {
    if (a !== 0 || b !== 0 || c !== 0) return (parts[(a ^ b ^ c) & (shards - 1)] ??= createShard()).add(a, b, c);
    if (hasZero) return false;
    return hasZero = true;
  }
  return {
    add(hex) {
      const added = addOne(word(hex, 0), word(hex, 8), word(hex, 16));
      if (added) size++;
      return added;
    },
    get size() { return size; },
  };
}
