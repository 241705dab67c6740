import { WeirError } from '@weir/errors';
import { readUpTo, type LogAdmin, type Reader } from '@weir/log';
import { rawHeaders } from '@weir/release';
import type { Put, Table } from '@weir/state';
import { bodyHash } from './entries.ts';
import { createGathered, createShelf, placeOf, type Gathered, type Shelf } from './gathered.ts';
import { createRuns, type RunWriter } from './runs.ts';

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
 * lacks is read from there. Entries stand in generations as long as the window; a look-up sees this one and those that the
 * window before it reaches, older ones are deleted a little with every batch, so the disk holds two windows, and what is being merged twice.
 * "This one" is that of the partition that is furthest behind: while one lags, all of its topic from the window before it on
 * stays on disk, so the disk grows by what lags. One of which nothing came for a window, or that is elsewhere, is not waited for.
 * Under another window what comes stands in generations of another length; those of before are looked at, too, until they have gone
 * in their turn. A longer window holds for what is still there and what comes: what had gone by then is not read again.
 *
 * What is added is gathered in memory, and written later in the order of the hashes as blocks of a sorted run, a slice with each
 * batch (runs.ts; docs/decisions/0023-event-ids-in-sorted-runs.md). The position of a partition is written behind its last entry
 * before it, so what a killed process had gathered is read again from the topic (docs/decisions/0021-event-ids-written-late.md).
 */
export interface Seen {
  /**
   * Fill from the raw topic up to `position`; where nothing of the partition is known, back to the window before the last record there.
   * Takes as long as that is to read. Rejects with log-assignment-stale as soon as `gone` says that the assignment has ended: nothing is touched after it.
   */
  load(topic: string, partition: number, position: number, windowMs: number, now: number, on?: Loading): Promise<void>;
  /** How the event id first came, as far as it is known: perhaps this record itself, read again. */
  find(topic: string, partition: number, entry: SeenEntry, windowMs: number): First | undefined;
  add(topic: string, partition: number, entries: readonly SeenEntry[], next: number, windowMs: number): void;
  /** The partition was taken away: what only it needs is kept for an hour yet, as it may come back with the next rebalance. */
  drop(topic: string, partition: number): void;
  /** Writes what is gathered, unless a write has failed: then it is read again from the topic. */
  close(): Promise<void>;
}

/** Of one `load`. */
export interface Loading {
  readonly gone: () => boolean;
  /** Told at the beginning and with every batch: records read, of so many (offsets). */
  readonly progress: (read: number, total: number) => void;
}

/** How much is done at once; a test has it smaller. */
export interface SeenLimits {
  /** Entries gathered before they are written (about 1.5 MB), and as many while they are; or after half a minute. */
  readonly most: number;
  /** Entries written with a batch at least, and of each merge. */
  readonly entries: number;
  /** Rows of old generations and merged runs that are removed with a batch at least. */
  readonly rows: number;
  /** Bytes of filters in memory. */
  readonly filters: number;
}
/** Filters of some 30 million entries. */
const defaults: SeenLimits = { most: 16_000, entries: 1000, rows: 100, filters: 32 * 1024 * 1024 };
const gatherMs = 30_000;
/** How long a partition of which nothing comes keeps what it needs, at least: after a start, too. */
const keepMs = 3_600_000;
/** Entries written for each that comes, and as many of each merge, so that they are out before as many have come again. */
const entriesAnEntry = 1.25;
/** Entries of a batch for each row that is removed. */
const entriesARow = 10;
/** Of two generations, a hundred topics and their partitions. */
const maxShelves = 2000;
/** A cache with another one is read again. */
const layout = Buffer.from('4');

/** Where a partition stands. */
interface Stand {
  /** Newest of its last batch, of Kafka. */
  timestamp: number;
  /** Monotonic ms; from then on it has nothing to read, or is elsewhere, and needs nothing. */
  until: number;
}

/** Generations of one length of a topic. */
interface Era {
  /** What its entries are kept under: `<topic>@<ms>`, which no topic is called. */
  readonly name: string;
  readonly ms: number;
  /** In which there may be entries. */
  first: number;
  last: number;
}

/** @param monotonic ms */
export function createSeen(table: Table, log: { readonly reader: Pick<Reader, 'read' | 'readOne'>; readonly admin: Pick<LogAdmin, 'offsetsAt'> }, monotonic: () => number, limits: Partial<SeenLimits> = {}): Seen {
  const { most, entries: leastEntries, rows: leastRows, filters } = { ...defaults, ...limits };
  if (table.get('#layout')?.equals(layout) !== true) {
    table.clear();
    table.putBatch([{ key: '#layout', value: layout }]);
  }
  const generation = (timestamp: number, { ms }: Era): number => Math.floor(timestamp / ms);
  const positionKey = (topic: string, partition: number): string => `#/${topic}/${partition}`;
  const newestKey = (topic: string, partition: number): string => `#newest/${topic}/${partition}`;
  const shelves = new Map<string, Shelf>();
  /** Of this partition the last one: nearly all that come one after the other are of it. */
  let lastShelf: Shelf | undefined;
  const runs = createRuns(table, filters);
  /** Of each partition of a topic that is here, or was. */
  const stands = new Map<string, Map<number, Stand>>();
  /** Of a topic: that of its window is the last one. */
  const eras = new Map<string, readonly Era[]>();
  /** Lowest generation of an era that a look-up may see, as its topic stood when something was last added to it. */
  const lowestOf = new Map<string, number>();
  let active = createGathered();
  let spare = createGathered();
  let since = monotonic();
  /** Being written, from `cursor` on, -1 = all is; with the positions that hold when it is, and where the partitions stand then. */
  let frozen: { readonly entries: Gathered; readonly positions: readonly Put[]; readonly writers: Map<string, RunWriter>; cursor: number } | undefined;
  /** A write has failed: what is in memory is not what is on disk. */
  let failed = false;
  /** Next offset of each partition of which everything before is gathered or written. */
  const positions = new Map<string, number>();
  const number = (key: string): number | undefined => {
    const value = table.get(key);
    return value === undefined ? undefined : Number(value.toString('latin1'));
  };
  const text = (value: number): Buffer => Buffer.from(String(value), 'latin1');
  const positionOf = (topic: string, partition: number): number => positions.get(positionKey(topic, partition)) ?? number(positionKey(topic, partition)) ?? 0;

  function standAt(topic: string, partition: number, timestamp: number, until: number): void {
    let parts = stands.get(topic);
    if (parts === undefined) stands.set(topic, parts = new Map());
    parts.set(partition, { timestamp, until });
  }

  // Before the first batch of any of them: that of one that is far on must not take what another one needs.
  for (const { key, value } of table.range('#newest/')) {
    const [, topic, partition] = key.split('/') as [string, string, string];
    standAt(topic, Number(partition), Number(value.toString('latin1')), monotonic() + keepMs);
  }

  for (const [name, generations] of runs.kept()) {
    const at = name.lastIndexOf('@');
    const topic = name.slice(0, at);
    eras.set(topic, [...eras.get(topic) ?? [], { name, ms: Number(name.slice(at + 1)), first: Math.min(...generations), last: Math.max(...generations) }]);
  }

  function erasOf(topic: string, windowMs: number): readonly Era[] {
    const ms = Math.max(windowMs, 1000);
    let known = eras.get(topic);
    if (known === undefined || known[known.length - 1]!.ms !== ms) {
      const before = known?.filter((era) => era.ms !== ms) ?? [];
      eras.set(topic, known = [...before, known?.find((era) => era.ms === ms) ?? { name: `${topic}@${ms}`, ms, first: Infinity, last: -Infinity }]);
    }
    return known;
  }

  /** When the partition stands that is furthest behind. */
  function lowest(topic: string): number {
    const at = monotonic();
    let least = Infinity;
    for (const { timestamp, until } of stands.get(topic)?.values() ?? []) if (until > at) least = Math.min(least, timestamp);
    return least;
  }

  function shelfOf(topic: string, gen: number, partition: number): Shelf {
    if (lastShelf !== undefined && lastShelf.partition === partition && lastShelf.generation === gen && lastShelf.topic === topic) return lastShelf;
    const name = `${gen}/${partition}/${topic}`;
    let shelf = shelves.get(name);
    if (shelf === undefined) {
      if (shelves.size >= maxShelves) shelves.clear();
      shelves.set(name, shelf = createShelf(topic, gen, partition));
    }
    lastShelf = shelf;
    return shelf;
  }

  function findIn(shelf: Shelf, eventId: string): First | undefined {
    const [high, low] = placeOf(shelf, eventId);
    return active.get(high, low) ?? frozen?.entries.get(high, low) ?? runs.find(shelf.topic, shelf.generation, high, low);
  }

  /** Most of the time there is no generation before the one of now. */
  const has = (name: string, gen: number): boolean => runs.has(name, gen) || active.sizeOf(name, gen) > 0 || (frozen?.entries.sizeOf(name, gen) ?? 0) > 0;

  function find(topic: string, partition: number, { eventId, hash, timestamp }: SeenEntry, windowMs: number): First | undefined {
    let found: First | undefined;
    for (const era of erasOf(topic, windowMs)) {
      const last = Math.min(generation(timestamp, era), era.last);
      for (let gen = Math.max(generation(timestamp - windowMs, era), era.first); gen <= last && found === undefined; gen++) {
        if (has(era.name, gen)) found = findIn(shelfOf(era.name, gen, partition), eventId);
      }
    }
    // The same text for the same body, also for one that is no hash.
    return found !== undefined && found.hash === bodyHash(hash) ? { ...found, hash } : found;
  }

  /** What is gathered is to be written; nothing is left of what was before. */
  function freeze(): void {
    const rows = [...positions].map(([key, next]) => ({ key, value: text(next) }));
    for (const [topic, parts] of stands) for (const [partition, { timestamp }] of parts) rows.push({ key: newestKey(topic, partition), value: text(timestamp) });
    frozen = { entries: active, positions: rows, writers: new Map(), cursor: 0 };
    active = spare;
    since = monotonic();
  }

  /** Up to `limit` of what is to be written. */
  function writeFrozen(limit: number, puts: Put[]): void {
    if (frozen === undefined) return;
    const { entries, writers } = frozen;
    frozen.cursor = entries.each(frozen.cursor, limit, (shelf, from, entry) => {
      // Its generation was forgotten meanwhile.
      if (shelf.generation < (lowestOf.get(shelf.topic) ?? 0)) return;
      let writer = writers.get(shelf.group);
      if (writer === undefined) writers.set(shelf.group, writer = runs.writer(shelf.topic, shelf.generation, entries.sizeOf(shelf.topic, shelf.generation)));
      writer.add(from, entry, puts);
    });
    if (frozen.cursor >= 0) {
      for (const writer of writers.values()) writer.rest(puts);
      return;
    }
    for (const writer of writers.values()) writer.finish(puts);
    puts.push(...frozen.positions);
  }

  /** In one transaction: `puts`, what `writeFrozen` and merges of the topic have to write. */
  function write(puts: Put[], topic: string | undefined, entries: number): void {
    if (failed) throw new WeirError('invariant-broken', 'event ids are written after a write of them failed');
    failed = true;
    const limit = Math.max(leastEntries, Math.ceil(entries * entriesAnEntry));
    // Before what is frozen: a merge reads what is on disk.
    if (topic !== undefined) for (const { name } of eras.get(topic) ?? []) runs.step(name, limit, Math.max(leastRows, Math.ceil(entries / entriesARow)), puts);
    writeFrozen(limit, puts);
    if (puts.length > 0) table.putBatch(puts);
    failed = false;
    if (frozen === undefined || frozen.cursor >= 0) return;
    spare = frozen.entries;
    spare.clear();
    frozen = undefined;
  }

  const seen: Seen = {
    async load(topic, partition, position, windowMs, now, { gone, progress } = { gone: () => false, progress: () => undefined }) {
      const known = positionOf(topic, partition);
      const stand = stands.get(topic)?.get(partition);
      if (stand !== undefined) stand.until = Math.max(stand.until, monotonic() + keepMs);
      // A checkpoint beyond the committed position by a crash is fine; one of another topic would be, too: offsets decide.
      if (known >= position) return;
      // From a position on, what was gathered and lost counts on however old it is by now. Where there is none, the window before
      // what comes next does, which is as old as the partition lags: not older than the last record (LogAppendTime); without one, all.
      const last = known > 0 ? undefined : await log.reader.readOne(topic, partition, position - 1);
      const from = Math.min(now, last?.timestamp ?? -Infinity) - windowMs;
      // Before the first one that is young enough there is none. Where none is told, a leader that was cut off does not know of it.
      const start = last === undefined ? known : Math.min((await log.admin.offsetsAt(topic, from + 1)).get(partition) ?? known, position - 1);
      progress(0, position - start);
      await readUpTo(log.reader, topic, partition, start, position, (batch) => {
        if (gone()) throw new WeirError('log-assignment-stale', `${topic}/${partition} is another one's`);
        progress(batch.nextOffset - start, position - start);
        const recent = batch.records.filter((r) => r.timestamp > from);
        seen.add(topic, partition, recent.map((r) => {
          const { eventId, hash, acceptedAt } = rawHeaders(r);
          return { eventId, hash, acceptedAt, offset: r.offset, timestamp: r.timestamp };
        }), batch.nextOffset, windowMs);
      }, { gone });
      if (gone()) throw new WeirError('log-assignment-stale', `${topic}/${partition} is another one's`);
    },
    find,
    add(topic, partition, entries, next, windowMs) {
      const puts: Put[] = [];
      const fresh = new Set<string>();
      let newest = 0;
      const all = erasOf(topic, windowMs);
      const era = all[all.length - 1]!;
      for (const entry of entries) {
        const gen = generation(entry.timestamp, era);
        newest = Math.max(newest, entry.timestamp);
        if (entry.eventId === '' || fresh.has(entry.eventId)) continue;
        const known = entry.known === undefined ? find(topic, partition, entry, windowMs) : entry.known;
        if (known !== undefined && known !== null && known.offset <= entry.offset) continue;
        fresh.add(entry.eventId);
        era.first = Math.min(era.first, gen);
        era.last = Math.max(era.last, gen);
        const shelf = shelfOf(era.name, gen, partition);
        active.set(shelf, placeOf(shelf, entry.eventId), entry);
      }
      if (newest > 0) {
        standAt(topic, partition, newest, monotonic() + Math.max(windowMs, keepMs));
        const before = lowest(topic) - windowMs;
        for (const one of all) {
          const least = generation(before, one);
          one.first = Math.max(one.first, least);
          lowestOf.set(one.name, least);
          // No look-up sees them any more.
          runs.forget(one.name, least, puts);
        }
      }
      positions.set(positionKey(topic, partition), Math.max(next, positionOf(topic, partition)));
      write(puts, topic, entries.length);
      if (frozen === undefined && (active.size() >= most || monotonic() - since > gatherMs)) freeze();
    },
    drop(topic, partition) {
      const stand = stands.get(topic)?.get(partition);
      if (stand !== undefined) stand.until = Math.min(stand.until, monotonic() + keepMs);
    },
    async close() {
      try {
        if (!failed) {
          write([], undefined, Number.MAX_SAFE_INTEGER);
          freeze();
          write([], undefined, Number.MAX_SAFE_INTEGER);
        }
      } finally {
        await table.close();
      }
    },
  };
  return seen;
}
