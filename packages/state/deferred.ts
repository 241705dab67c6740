import { createSortedHashes, hexOf, type Hash, type SortedHashes } from './sorted-hashes.ts';
import type { Put, Table } from './table.ts';

/**
 * Numbers under hashes in a table, written late: what is put is gathered in memory, and when there is much of it, it is
 * written in the order of the hashes, a slice with each transaction of the caller. A row at a random place of a large tree
 * copies a page; neighbours share one. What is in memory only is lost with the process: the caller puts it again.
 */
export interface DeferredRows {
  /** The number that counts; undefined = none. */
  find(hash: Hash): number | undefined;
  /** What was put beside the number that counts; 0 = nothing. */
  beside(hash: Hash): number;
  /** The second halves of all hashes with this first one, in order. */
  under(high: number): number[];
  /**
   * True: another one is gathered under the hash, so that the caller who loses what is in memory may put that one again.
   * @param value above 0, exact as a number
   * @param beside kept by the rule `largest`: of equal values the one with the larger one counts
   */
  put(hash: Hash, value: number, beside?: number): boolean;
  /** True: the table may have it, and has it until the removal is written: the caller must know of it when it is lost. */
  remove(hash: Hash): boolean;
  /** Entries gathered since the last freeze. */
  size(): number;
  /** What is gathered is to be written; nothing may be left of what was before. */
  freeze(): void;
  /** Appends up to `limit` rows of what was frozen, for the caller's transaction; true = they are the last. The same again until `stepped`. */
  step(limit: number, puts: Put[]): boolean;
  /** The transaction has them. */
  stepped(): void;
}

const removed = -1;
const halfDigits = 13;

/**
 * @param rule which of several under one hash counts: the one put last, or the largest since it was removed. The largest
 * may outlive a removal that another put followed before it was written.
 */
export function createDeferredRows(table: Table, prefix: string, rule: 'newest' | 'largest'): DeferredRows {
  const create = (): SortedHashes => createSortedHashes(rule === 'largest');
  let active = create();
  let frozen: SortedHashes | undefined;
  /** Of what was frozen, behind what is written, and behind what the last step gave; -1 = all. */
  let cursor = 0;
  let reached = 0;
  /** Largest number of what was frozen before, which is written whole: above it, no row has a larger one. */
  const highestKey = `${prefix}highest`;
  let highest = table.get(highestKey)?.readDoubleLE(0) ?? 0;
  let highestFrozen = 0;
  let highestHere = 0;

  function stored(high: number, low: number): number | undefined {
    return table.get(prefix + hexOf(high, low))?.readDoubleLE(0);
  }

  /** Of the row, the number and what is beside it. */
  function pairOf(high: number, low: number): readonly [number, number] {
    const row = table.get(prefix + hexOf(high, low));
    return row === undefined ? none : [row.readDoubleLE(0), row.length < 16 ? 0 : row.readDoubleLE(8)];
  }

  function find([high, low]: Hash): number | undefined {
    const first = active.get(high, low);
    if (first === removed || (first !== undefined && rule === 'newest')) return first === removed ? undefined : first;
    const second = frozen?.get(high, low);
    if (second === removed || (second !== undefined && rule === 'newest')) return second === removed ? first : second;
    const third = stored(high, low);
    if (rule === 'newest') return third;
    const largest = Math.max(first ?? 0, second ?? 0, third ?? 0);
    return largest === 0 ? undefined : largest;
  }

  /** What is larger already, or gathered anew, needs no row now. */
  function counts(high: number, low: number, value: number, beside: number): boolean {
    const known = active.get(high, low) ?? 0;
    if (known > value || (known === value && active.second(high, low) >= beside)) return false;
    return value > highest || isLarger([value, beside], pairOf(high, low));
  }

  return {
    find,
    beside([high, low]) {
      if (rule === 'newest' || active.get(high, low) === removed) return 0;
      const pairs: (readonly [number, number])[] = [[active.get(high, low) ?? 0, active.second(high, low)]];
      const second = frozen?.get(high, low);
      if (second !== removed) pairs.push([second ?? 0, frozen?.second(high, low) ?? 0], pairOf(high, low));
      return pairs.reduce((a, b) => (isLarger(b, a) ? b : a))[1];
    },
    under(high) {
      const found = new Set<number>();
      for (const { key } of table.range(prefix + hexOf(high, 0).slice(0, halfDigits))) found.add(Number.parseInt(key.slice(-halfDigits), 16));
      for (const hashes of [frozen, active]) hashes?.under(high, (low, value) => { if (value === removed) found.delete(low); else found.add(low); });
      return [...found].sort((a, b) => a - b);
    },
    put([high, low], value, beside = 0) {
      highestHere = Math.max(highestHere, value);
      if (rule === 'largest') {
        const known = active.get(high, low) ?? removed;
        if (known > value || (known === value && active.second(high, low) >= beside)) return true;
      }
      return active.set(high, low, value, beside);
    },
    remove([high, low]) {
      const written = frozen?.get(high, low) !== undefined || stored(high, low) !== undefined;
      if (written) active.set(high, low, removed);
      else active.delete(high, low);
      return written;
    },
    size: () => active.size(),
    freeze() {
      frozen = active;
      active = create();
      cursor = reached = 0;
      [highestFrozen, highestHere] = [highestHere, 0];
    },
    step(limit, puts) {
      if (frozen === undefined) return true;
      reached = frozen.each(cursor, limit, (high, low, value, beside) => {
        const key = prefix + hexOf(high, low);
        if (value === removed) puts.push({ key, value: null });
        else if (rule === 'newest' || counts(high, low, value, beside)) puts.push({ key, value: encoded(value, beside) });
      });
      if (reached < 0 && rule === 'largest') puts.push({ key: highestKey, value: encoded(Math.max(highest, highestFrozen)) });
      return reached < 0;
    },
    stepped() {
      cursor = reached;
      if (cursor >= 0) return;
      frozen = undefined;
      highest = Math.max(highest, highestFrozen);
    },
  };
}

const none = [0, 0] as const;

const isLarger = ([value, beside]: readonly [number, number], [other, otherBeside]: readonly [number, number]): boolean => value > other || (value === other && beside > otherBeside);

/** A row as before where nothing is beside the number. */
function encoded(value: number, beside = 0): Buffer {
  const bytes = Buffer.allocUnsafe(beside === 0 ? 8 : 16);
  bytes.writeDoubleLE(value);
  if (beside !== 0) bytes.writeDoubleLE(beside, 8);
  return bytes;
}
