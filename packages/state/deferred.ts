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
  /** The second halves of all hashes with this first one, in order. */
  under(high: number): number[];
  /** @param value above 0, exact as a number */
  put(hash: Hash, value: number): void;
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
  let active = createSortedHashes();
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
  function counts(high: number, low: number, value: number): boolean {
    return (active.get(high, low) ?? 0) < value && (value > highest || (stored(high, low) ?? 0) < value);
  }

  return {
    find,
    under(high) {
      const found = new Set<number>();
      for (const { key } of table.range(prefix + hexOf(high, 0).slice(0, halfDigits))) found.add(Number.parseInt(key.slice(-halfDigits), 16));
      for (const hashes of [frozen, active]) hashes?.under(high, (low, value) => { if (value === removed) found.delete(low); else found.add(low); });
      return [...found].sort((a, b) => a - b);
    },
    put([high, low], value) {
      highestHere = Math.max(highestHere, value);
      if (rule === 'largest' && (active.get(high, low) ?? removed) >= value) return;
      active.set(high, low, value);
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
      active = createSortedHashes();
      cursor = reached = 0;
      [highestFrozen, highestHere] = [highestHere, 0];
    },
    step(limit, puts) {
      if (frozen === undefined) return true;
      reached = frozen.each(cursor, limit, (high, low, value) => {
        const key = prefix + hexOf(high, low);
        if (value === removed) puts.push({ key, value: null });
        else if (rule === 'newest' || counts(high, low, value)) puts.push({ key, value: encoded(value) });
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

function encoded(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  bytes.writeDoubleLE(value);
  return bytes;
}
