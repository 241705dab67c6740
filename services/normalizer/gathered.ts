import { hash } from 'node:crypto';
import { createSortedHashes, hashOf, type Hash } from '@weir/state';
import { Entries, hexWords } from './entries.ts';
import type { First, SeenEntry } from './seen.ts';

/** Where event ids stand: those of one partition of a topic, of one generation. */
export interface Shelf {
  readonly topic: string;
  readonly generation: number;
  readonly partition: number;
  /** Of its topic and generation: their entries are kept together. */
  readonly group: string;
  /** Added to the hash of an id, so that the same id of another partition stands elsewhere. */
  readonly high: number;
  readonly low: number;
}

/** Entries that are in memory, in the order of their hashes, about 90 bytes each. */
export interface Gathered {
  size(): number;
  /** Of one topic and generation. */
  sizeOf(topic: string, generation: number): number;
  get(high: number, low: number): First | undefined;
  set(shelf: Shelf, place: Hash, entry: SeenEntry): void;
  /** Shows up to `limit` from a place on, in order; gives the next place, -1 = that was all. 0 is the first. */
  each(place: number, limit: number, show: (shelf: Shelf, entries: Entries, entry: number) => void): number;
  /** Forgets all and keeps the memory. */
  clear(): void;
}

const span = 2 ** 52;
const firstEntries = 1024;

export function createShelf(topic: string, generation: number, partition: number): Shelf {
  const [high, low] = hashOf(hash('sha256', `${topic}/${generation}/${partition}`, 'hex'));
  return { topic, generation, partition, group: `${topic}/${generation}/`, high, low };
}

const words = new Uint32Array(4);

/** All 128 bits of an id count, which is the beginning of a hash, unless somebody else wrote it: those behind the first 104 go on top of the lower half. */
export function placeOf({ high, low }: Shelf, eventId: string): Hash {
  if (!eventId.startsWith('evt_') || !hexWords(eventId, 4, words, 0)) hexWords(hash('sha256', eventId, 'hex').slice(0, 32), 0, words, 0);
  const [a, b, c, d] = [words[0]!, words[1]!, words[2]!, words[3]!];
  const first = a * 2 ** 20 + (b >>> 12);
  const second = (b & 0xfff) * 2 ** 40 + c * 2 ** 8 + (d >>> 24);
  return [(first + high) % span, ((second + (d & 0xffffff) * 2 ** 28) % span + low) % span];
}

export function createGathered(): Gathered {
  const index = createSortedHashes();
  let entries = Entries.room(firstEntries);
  /** Of each entry: which shelf it is on. */
  let places = new Uint32Array(firstEntries);
  let count = 0;
  let shelves: Shelf[] = [];
  const numbers = new Map<Shelf, number>();
  /** Entries of a generation, by topic. */
  const sizes = new Map<string, Map<number, number>>();

  function numberOf(shelf: Shelf): number {
    let number = numbers.get(shelf);
    if (number === undefined) numbers.set(shelf, number = shelves.push(shelf) - 1);
    return number;
  }

  function countOne({ topic, generation }: Shelf): void {
    let counts = sizes.get(topic);
    if (counts === undefined) sizes.set(topic, counts = new Map());
    counts.set(generation, (counts.get(generation) ?? 0) + 1);
  }

  function grow(): void {
    const larger = Entries.room(entries.capacity * 2);
    larger.words.set(entries.words);
    entries = larger;
    const more = new Uint32Array(larger.capacity);
    more.set(places);
    places = more;
  }

  return {
    size: () => count,
    sizeOf: (topic, generation) => sizes.get(topic)?.get(generation) ?? 0,
    get(high, low) {
      const entry = index.get(high, low);
      return entry === undefined ? undefined : entries.read(entry - 1);
    },
    set(shelf, [high, low], { hash: text, offset, acceptedAt }) {
      let entry = index.get(high, low);
      if (entry === undefined) {
        entry = ++count;
        if (count > entries.capacity) grow();
        index.set(high, low, entry);
        places[entry - 1] = numberOf(shelf);
        countOne(shelf);
      }
      entries.write(entry - 1, high, low, text, offset, acceptedAt);
    },
    each: (place, limit, show) => index.each(place, limit, (_high, _low, entry) => { show(shelves[places[entry - 1]!]!, entries, entry - 1); }),
    clear() {
      index.clear();
      count = 0;
      shelves = [];
      numbers.clear();
      sizes.clear();
    },
  };
}
