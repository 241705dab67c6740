/** A hash of 104 bits in two halves of 52, each exact as a number. */
export type Hash = readonly [high: number, low: number];

/** Of the characters of small hex, by their code; 255 = is none. */
const digitOf = Uint8Array.from({ length: 128 }, (_, code) => {
  const digit = '0123456789abcdef'.indexOf(String.fromCharCode(code));
  return digit < 0 ? 255 : digit;
});

/** 13 digits from a place on as a number; NaN where one is none. By a table: parseInt of a slice takes four times as long. */
function numberAt(hex: string, from: number): number {
  let high = 0;
  let low = 0;
  for (let i = from; i < from + 7; i++) {
    const digit = digitOf[hex.charCodeAt(i)] ?? 255;
    if (digit === 255) return Number.NaN;
    high = (high << 4) | digit;
  }
  for (let i = from + 7; i < from + 13; i++) {
    const digit = digitOf[hex.charCodeAt(i)] ?? 255;
    if (digit === 255) return Number.NaN;
    low = (low << 4) | digit;
  }
  return high * 2 ** 24 + low;
}

/** The first 104 bits of a hash that is given in small hex, from a place on. */
export const hashOf = (hex: string, from = 0): Hash => [numberAt(hex, from), numberAt(hex, from + 13)];

const half = 2 ** 26;
const threeDigits = Array.from({ length: 4096 }, (_, i) => i.toString(16).padStart(3, '0'));

/** 13 digits; by a table, for JavaScript writes a large number in hex digit by digit, in microseconds. */
function digitsOf(number: number): string {
  const high = Math.floor(number / half);
  const low = number % half;
  return threeDigits[high >>> 14]! + threeDigits[(high >>> 2) & 4095]! + threeDigits[((high & 3) << 10) | (low >>> 16)]! + threeDigits[(low >>> 4) & 4095]! + threeDigits[low & 15]![2]!;
}

/** What `hashOf` was made from, 26 digits. */
export const hexOf = (high: number, low: number): string => digitsOf(high) + digitsOf(low);

/** Numbers (not 0) under hashes, in the order of the hashes, in 24 bytes each (32 where each has a second number) and a third more of room. */
export interface SortedHashes {
  get(high: number, low: number): number | undefined;
  /** The second number of what is there; 0 = there is none. */
  second(high: number, low: number): number;
  /** True: another number was there. @param second kept only where they were made with second numbers */
  set(high: number, low: number, value: number, second?: number): boolean;
  delete(high: number, low: number): void;
  size(): number;
  /** Forgets all and keeps the memory. */
  clear(): void;
  /** Shows what is under one first half, in order. */
  under(high: number, show: (low: number, value: number) => void): void;
  /** Shows up to `limit` from a place on, in order; gives the next place, -1 = that was all. 0 is the first. Nothing may be set or deleted between. */
  each(place: number, limit: number, show: (high: number, low: number, value: number, second: number) => void): number;
}

const spareSlots = 64;
const fullest = 0.7;

/**
 * Open addressing by the highest bits, with the entries of a run kept in order (Amble and Knuth, Ordered hash tables, 1974):
 * a scan gives them sorted. Many with the same beginning make one long run, which costs time and nothing else.
 * @param seconds each has a second number, 0 unless it is said
 */
export function createSortedHashes(seconds = false): SortedHashes {
  const width = seconds ? 4 : 3;
  let bits = 10;
  let data = new Float64Array(width * (2 ** bits + spareSlots));
  let size = 0;

  const home = (high: number): number => Math.floor(high * 2 ** (bits - 52)) * width;

  /** Where it is, or would be put. The last slot is always empty. */
  function placeOf(high: number, low: number): number {
    let i = home(high);
    while (data[i + 2] !== 0 && (data[i]! < high || (data[i] === high && data[i + 1]! < low))) i += width;
    return i;
  }

  const isAt = (i: number, high: number, low: number): boolean => data[i + 2] !== 0 && data[i] === high && data[i + 1] === low;

  function grow(): void {
    const before = data;
    bits++;
    data = new Float64Array(width * (2 ** bits + spareSlots));
    let next = 0;
    for (let i = 0; i < before.length; i += width) {
      if (before[i + 2] === 0) continue;
      const at = Math.max(next, home(before[i]!));
      next = at + width;
      room(next);
      data[at] = before[i]!;
      data[at + 1] = before[i + 1]!;
      data[at + 2] = before[i + 2]!;
      if (seconds) data[at + 3] = before[i + 3]!;
    }
  }

  /** At least one slot from there on. */
  function room(end: number): void {
    if (end + width <= data.length) return;
    const larger = new Float64Array(data.length + Math.ceil(data.length / width / 2) * width);
    larger.set(data);
    data = larger;
  }

  return {
    get(high, low) {
      const i = placeOf(high, low);
      return isAt(i, high, low) ? data[i + 2] : undefined;
    },
    second(high, low) {
      const i = placeOf(high, low);
      return seconds && isAt(i, high, low) ? data[i + 3]! : 0;
    },
    set(high, low, value, second = 0) {
      const i = placeOf(high, low);
      const isThere = isAt(i, high, low);
      if (!isThere) {
        let empty = i;
        while (data[empty + 2] !== 0) empty += width;
        room(empty + width);
        data.copyWithin(i + width, i, empty);
        data[i] = high;
        data[i + 1] = low;
        size++;
      }
      data[i + 2] = value;
      if (seconds) data[i + 3] = second;
      if (size > fullest * 2 ** bits) grow();
      return isThere;
    },
    delete(high, low) {
      const i = placeOf(high, low);
      if (!isAt(i, high, low)) return;
      // Those behind it that are not at home move up.
      let end = i + width;
      while (data[end + 2] !== 0 && home(data[end]!) < end) end += width;
      data.copyWithin(i, i + width, end);
      data[end - width + 2] = 0;
      size--;
    },
    size: () => size,
    clear() {
      data.fill(0);
      size = 0;
    },
    under(high, show) {
      for (let i = placeOf(high, 0); data[i + 2] !== 0 && data[i] === high; i += width) show(data[i + 1]!, data[i + 2]!);
    },
    each(place, limit, show) {
      let shown = 0;
      for (let i = place; i < data.length; i += width) {
        if (data[i + 2] === 0) continue;
        if (shown++ === limit) return i;
        show(data[i]!, data[i + 1]!, data[i + 2]!, seconds ? data[i + 3]! : 0);
      }
      return -1;
    },
  };
}
