import type { Reader } from '@weir/log';
import { rawHeaders } from '@weir/release';
import type { Put, Table } from '@weir/state';
import { bodyHash, createGathered, createShelf, placeOf, readRow, rowBytes, rowKey, type Gathered, type Shelf } from './gathered.ts';
import { createRowFilter } from './row-filter.ts';

export interface SeenEntry {
  readonly eventId: string;
  readonly hash: string;
  readonly offset: number;
  /** Kafka timestamp of the raw record, ms. */
  readonly timestamp: number;
  readonly acceptedAt: number;
  /** What `find` gave for it a moment ago, null = nothing; without it, `add` looks itself. */
  readonly known?: First | null;
}

/** How an event id first arrived. */
export interface First {
  readonly hash: string;
  readonly acceptedAt: number;
  readonly offset: number;
}

/**
 * Which body each event id first arrived with, per raw partition, within the dedupe window of the source: the
 * same id with another hash is a conflict (docs/architecture.md, Ids). A cache of the raw topic itself: what it
 * lacks is read from there. Entries stand in generations as long as the window; a look-up sees this one and the
 * one before, older ones are deleted a little with every batch, so the disk holds two windows at most.
 *
 * What is added is gathered in memory, and written later in the order of the hashes, a slice with each batch: a row at a random
 * place of a large tree copies a page, neighbours share one. The position of a partition is written behind its last entry
 * before it, so what a killed process had gathered is read again from the topic (docs/decisions/0021-event-ids-written-late.md).
 * Row `<topic>/<generation>/<hash of partition and event id>` → hash, offset, accept time.
 */
export interface Seen {
  /** Fill from the raw topic up to `position`; where nothing of the partition is known, at most back to the window. */
  load(topic: string, partition: number, position: number, windowMs: number, now: number): Promise<void>;
  /** How the event id first came, as far as it is known: perhaps this record itself, read again. */
  find(topic: string, partition: number, entry: SeenEntry, windowMs: number): First | undefined;
  add(topic: string, partition: number, entries: readonly SeenEntry[], next: number, windowMs: number): void;
  /** Writes what is gathered. */
  close(): Promise<void>;
}

const sweepKeys = 5000;
/** So many are gathered before they are written (about 3 MB), and as many while they are; or after so long. */
const defaultMost = 40_000;
const gatherMs = 30_000;
/** Rows written for each entry that comes, so that they are out before as many have come again; at least so many at once. */
const rowsAnEntry = 1.25;
const leastRows = 1000;
/** Rows of the process before that the filter takes in with each batch. */
const scanRows = 2000;
/** Of two generations, a hundred topics and their partitions. */
const maxShelves = 2000;
/** A cache with another one is read again. */
const layout = Buffer.from('2');

/** @param monotonic ms; @param most entries gathered; a test has it smaller */
export function createSeen(table: Table, reader: Reader, monotonic: () => number, most = defaultMost): Seen {
  if (table.get('#layout')?.equals(layout) !== true) {
    table.clear();
    table.putBatch([{ key: '#layout', value: layout }]);
  }
  const generation = (timestamp: number, windowMs: number): number => Math.floor(timestamp / Math.max(windowMs, 1000));
  const positionKey = (topic: string, partition: number): string => `#/${topic}/${partition}`;
  const oldestKey = (topic: string): string => `#oldest/${topic}`;
  /** Oldest generation with entries, per topic, as stored. */
  const oldestOf = new Map<string, number>();
  const shelves = new Map<string, Shelf>();
  const filter = createRowFilter(table);
  filter.step(scanRows);
  let active = createGathered();
  let since = monotonic();
  /** Being written, from `cursor` on; with the positions that hold when all of it is. */
  let frozen: { readonly entries: Gathered; readonly positions: ReadonlyMap<string, number>; cursor: number } | undefined;
  /** Next offset of each partition of which everything before is gathered or written. */
  const positions = new Map<string, number>();
  const number = (key: string): number | undefined => {
    const value = table.get(key);
    return value === undefined ? undefined : Number(value.toString('latin1'));
  };
  const text = (value: number): Buffer => Buffer.from(String(value), 'latin1');
  const positionOf = (topic: string, partition: number): number => positions.get(positionKey(topic, partition)) ?? number(positionKey(topic, partition)) ?? 0;

  function shelfOf(topic: string, gen: number, partition: number): Shelf {
    const name = `${gen}/${partition}/${topic}`;
    let shelf = shelves.get(name);
    if (shelf === undefined) {
      if (shelves.size >= maxShelves) shelves.clear();
      shelves.set(name, shelf = createShelf(topic, gen, partition));
    }
    return shelf;
  }

  function oldest(topic: string): number | undefined {
    const known = oldestOf.get(topic) ?? number(oldestKey(topic));
    if (known !== undefined) oldestOf.set(topic, known);
    return known;
  }
  function setOldest(topic: string, gen: number, puts: Put[]): void {
    oldestOf.set(topic, gen);
    puts.push({ key: oldestKey(topic), value: text(gen) });
  }

  function findIn(shelf: Shelf, eventId: string): First | undefined {
    const place = placeOf(shelf, eventId);
    const known = active.get(place) ?? frozen?.entries.get(place);
    if (known !== undefined) return known;
    const key = rowKey(shelf, place);
    // Nearly every id is new, and what is not there takes as long to look for as what is.
    const row = filter.absent(key) ? undefined : table.get(key);
    return row?.length === rowBytes ? readRow(row) : undefined;
  }

  function find(topic: string, partition: number, { eventId, hash, timestamp }: SeenEntry, windowMs: number): First | undefined {
    const gen = generation(timestamp, windowMs);
    const first = oldest(topic);
    if (first !== undefined && first > gen) return undefined;
    // Most of the time there is no generation before this one.
    const found = (first === undefined || first < gen ? findIn(shelfOf(topic, gen - 1, partition), eventId) : undefined) ?? findIn(shelfOf(topic, gen, partition), eventId);
    // The same text for the same body, also for one that is no hash.
    return found !== undefined && found.hash === bodyHash(hash) ? { ...found, hash } : found;
  }

  /** Deletes some of the oldest generation that no look-up sees any more. */
  function sweep(topic: string, lowest: number, newest: number, puts: Put[]): void {
    const first = oldest(topic);
    if (first === undefined || lowest < first) return setOldest(topic, lowest, puts);
    if (first >= newest - 1) return;
    let found = 0;
    for (const { key } of table.range(`${topic}/${first}/`)) {
      puts.push({ key, value: null });
      if (++found === sweepKeys) return;
    }
    setOldest(topic, first + 1, puts);
  }

  function freeze(): void {
    frozen = { entries: active, positions: new Map(positions), cursor: 0 };
    active = createGathered();
    since = monotonic();
  }

  /** In one transaction: `puts`, and up to `limit` of what is to be written. */
  function write(puts: Put[], limit: number): void {
    let reached = -1;
    if (frozen !== undefined) {
      reached = frozen.entries.rows(frozen.cursor, limit, ({ topic, generation: gen }, row) => {
        // Its generation was deleted meanwhile.
        if (gen < (oldest(topic) ?? gen)) return;
        filter.add(row.key);
        puts.push(row);
      });
      if (reached < 0) for (const [key, next] of frozen.positions) puts.push({ key, value: text(next) });
    }
    if (puts.length > 0) table.putBatch(puts);
    if (frozen !== undefined) frozen.cursor = reached;
    if (reached < 0) frozen = undefined;
  }

  const seen: Seen = {
    async load(topic, partition, position, windowMs, now) {
      const known = positionOf(topic, partition);
      // A checkpoint beyond the committed position by a crash is fine; one of another topic would be, too: offsets decide.
      if (known >= position) return;
      await reader.read(topic, partition, known, position, (batch) => {
        // From a position on, what was gathered and lost counts on however old it is by now.
        const recent = known > 0 ? batch.records : batch.records.filter((r) => r.timestamp > now - windowMs);
        seen.add(topic, partition, recent.map((r) => {
          const { eventId, hash, acceptedAt } = rawHeaders(r);
          return { eventId, hash, acceptedAt, offset: r.offset, timestamp: r.timestamp };
        }), batch.nextOffset, windowMs);
      });
    },
    find,
    add(topic, partition, entries, next, windowMs) {
      const puts: Put[] = [];
      const fresh = new Set<string>();
      let newest = 0;
      let lowest = Number.MAX_SAFE_INTEGER;
      for (const entry of entries) {
        const gen = generation(entry.timestamp, windowMs);
        newest = Math.max(newest, gen);
        lowest = Math.min(lowest, gen);
        if (entry.eventId === '' || fresh.has(entry.eventId)) continue;
        const known = entry.known === undefined ? find(topic, partition, entry, windowMs) : entry.known;
        if (known !== undefined && known !== null && known.offset <= entry.offset) continue;
        fresh.add(entry.eventId);
        const shelf = shelfOf(topic, gen, partition);
        active.set(shelf, placeOf(shelf, entry.eventId), entry);
      }
      if (newest > 0) sweep(topic, lowest, newest, puts);
      positions.set(positionKey(topic, partition), Math.max(next, positionOf(topic, partition)));
      filter.step(scanRows);
      write(puts, Math.max(leastRows, Math.ceil(entries.length * rowsAnEntry)));
      if (frozen === undefined && (active.size() >= most || monotonic() - since > gatherMs)) freeze();
    },
    async close() {
      try {
        write([], Number.MAX_SAFE_INTEGER);
        freeze();
        write([], Number.MAX_SAFE_INTEGER);
      } finally {
        await table.close();
      }
    },
  };
  return seen;
}
