import { hash } from 'node:crypto';
import { createSortedHashes, hashOf, hexOf, type Hash, type Put } from '@weir/state';
import type { First, SeenEntry } from './seen.ts';

/** Where event ids stand: those of one partition of a topic, of one generation. */
export interface Shelf {
  readonly topic: string;
  readonly generation: number;
  /** Of the keys of its rows. */
  readonly prefix: string;
  /** Added to the hash of an id, so that the same id of another partition stands elsewhere. */
  readonly high: number;
  readonly low: number;
}

/** Entries that are in memory, in the order of their hashes, about 70 bytes each. */
export interface Gathered {
  size(): number;
  get(place: Hash): First | undefined;
  set(shelf: Shelf, place: Hash, entry: SeenEntry): void;
  /** Shows up to `limit` as rows, from a place on, in the order of their keys of one topic and generation; gives the next place, -1 = that was all. 0 is the first. */
  rows(place: number, limit: number, show: (shelf: Shelf, row: Put) => void): number;
}

const span = 2 ** 52;
/** Hash of the body, offset, accept time. */
const hashBytes = 16;
export const rowBytes = hashBytes + 16;
const entryBytes = rowBytes + 4;
const firstEntries = 1024;
const derived = /^evt_[0-9a-f]{32}$/;
const digest = /^[0-9a-f]{32}$/;

export function createShelf(topic: string, generation: number, partition: number): Shelf {
  const [high, low] = hashOf(hash('sha256', `${topic}/${generation}/${partition}`, 'hex'));
  return { topic, generation, prefix: `${topic}/${generation}/`, high, low };
}

/** All 128 bits of an id count, which is the beginning of a hash, unless somebody else wrote it: those behind the first 104 go on top of the lower half. */
export function placeOf({ high, low }: Shelf, eventId: string): Hash {
  const digits = derived.test(eventId) ? eventId.slice(4) : hash('sha256', eventId, 'hex');
  const [first, second] = hashOf(digits);
  return [(first + high) % span, ((second + Number.parseInt(digits.slice(26, 32), 16) * 2 ** 28) % span + low) % span];
}

/** Of a body as 32 hex digits; what is none (somebody else wrote the record) by its own hash. */
export const bodyHash = (text: string): string => (digest.test(text) ? text : hash('sha256', text, 'hex').slice(0, 32));

export const rowKey = ({ prefix }: Shelf, [high, low]: Hash): string => prefix + hexOf(high, low);

/** What a row says. `at`: where it begins. */
export function readRow(bytes: Buffer, at = 0): First {
  return { hash: bytes.toString('hex', at, at + hashBytes), offset: bytes.readDoubleLE(at + hashBytes), acceptedAt: bytes.readDoubleLE(at + hashBytes + 8) };
}

export function createGathered(): Gathered {
  const index = createSortedHashes();
  /** Of an entry: its row, and which shelf it is on. */
  let entries = Buffer.allocUnsafeSlow(firstEntries * entryBytes);
  let count = 0;
  const shelves: Shelf[] = [];
  const numbers = new Map<Shelf, number>();

  function numberOf(shelf: Shelf): number {
    let number = numbers.get(shelf);
    if (number === undefined) numbers.set(shelf, number = shelves.push(shelf) - 1);
    return number;
  }

  return {
    size: () => count,
    get([high, low]) {
      const entry = index.get(high, low);
      return entry === undefined ? undefined : readRow(entries, (entry - 1) * entryBytes);
    },
    set(shelf, [high, low], { hash: text, offset, acceptedAt }) {
      let entry = index.get(high, low);
      if (entry === undefined) {
        entry = ++count;
        if (count * entryBytes > entries.length) {
          const larger = Buffer.allocUnsafeSlow(entries.length * 2);
          entries.copy(larger);
          entries = larger;
        }
        index.set(high, low, entry);
      }
      const at = (entry - 1) * entryBytes;
      entries.write(bodyHash(text), at, hashBytes, 'hex');
      entries.writeDoubleLE(offset, at + hashBytes);
      entries.writeDoubleLE(acceptedAt, at + hashBytes + 8);
      entries.writeUInt32LE(numberOf(shelf), at + rowBytes);
    },
    rows: (place, limit, show) => index.each(place, limit, (high, low, entry) => {
      const at = (entry - 1) * entryBytes;
      const shelf = shelves[entries.readUInt32LE(at + rowBytes)]!;
      show(shelf, { key: shelf.prefix + hexOf(high, low), value: entries.subarray(at, at + rowBytes) });
    }),
  };
}
