import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';
import { distrust, markClosed, markOpen } from './cache-file.ts';
import { isWrapped, own, storedKey, storedPrefix, unwrap, wrap } from './keys.ts';

export interface Put {
  readonly key: string;
  /** null removes the key. */
  readonly value: Buffer | null;
}

/** What is known of how far a partition was read, beside its position. */
export interface Seen {
  /** Last record that was applied: tells a topic from another one of the same name. */
  readonly offset: number;
  readonly timestamp: number;
  /** When the position was last the end of the partition, ms since the epoch; 0 = never. */
  readonly currentAt: number;
}

/**
 * A local cache of keyed state in LMDB. Values and the positions they were read up to are written in one
 * transaction, so after any crash the cache is a true prefix of its topics. It may be deleted at any time.
 * Keys may be any string; values are copied in and out.
 */
export interface Table {
  get(key: string): Buffer | undefined;
  has(key: string): boolean;
  /** Entries whose key begins with the prefix, in the order of the keys' UTF-8. */
  range(prefix: string): Iterable<{ readonly key: string; readonly value: Buffer }>;
  /** Write all, with the new positions (partition → next offset) if given. Durable against a killed process; after a crash of the machine the cache is discarded. */
  putBatch(puts: readonly Put[], positions?: ReadonlyMap<number, number>, seen?: ReadonlyMap<number, Seen>): void;
  /**
   * From now until `loaded`, what is put is gathered in memory and written in few large transactions, in the order of the
   * keys: a restore would copy a page of the tree for nearly every key. What was put is seen at once; after a crash the
   * cache is at an earlier position.
   */
  loading(): void;
  loaded(): void;
  /** Next offset of the partition; undefined when nothing of it was read. */
  position(partition: number): number | undefined;
  positions(): Map<number, number>;
  seen(partition: number): Seen | undefined;
  /** Entries that are kept, with a few of the table's own. */
  size(): number;
  /** Forget everything. */
  clear(): void;
  close(): Promise<void>;
  /** Close it and delete its folder. */
  drop(): Promise<void>;
}

const positionPrefix = `${own}p/`;
const seenPrefix = `${own}s/`;
const formatKey = `${own}format`;
const format = Buffer.from('3');
/** Of keys and values that are gathered while loading. */
const maxGathered = 48 * 1024 * 1024;
const entryCost = 100;
const mapSize = 64 * 1024 * 1024;

/** Opens or makes the cache in folder `path`. One that is torn, cannot be opened or has another format is deleted and made anew; `onDiscard` is told why. */
export function openTable(options: { path: string; onDiscard?: (reason: string) => void }): Table {
  const { path } = options;
  mkdirSync(path, { recursive: true });
  const db = openOrReplace(path, options.onDiscard);
  markOpen(path);

  let gathered: Gathered | undefined;

  const find = (key: string): Buffer | undefined => {
    const put = gathered?.puts.get(key);
    if (put !== undefined) return put ?? undefined;
    const stored = storedKey(key);
    const value = db.get(stored.key);
    return value !== undefined && stored.wrapped ? unwrap(value).value : value;
  };

  function write(puts: Iterable<Put>, positions: ReadonlyMap<number, number> | undefined, seen: ReadonlyMap<number, Seen> | undefined): void {
    try {
      db.transactionSync(() => put(puts, positions, seen));
    } catch (error) {
      // After a write that failed (a full disk, a page that LMDB cannot read) the file may be broken, and would fail whoever opens it next.
      rmSync(join(path, 'data.mdb'), { force: true });
      throw error;
    }
  }

  function put(puts: Iterable<Put>, positions: ReadonlyMap<number, number> | undefined, seen: ReadonlyMap<number, Seen> | undefined): void {
    for (const { key, value } of puts) {
      const stored = storedKey(key);
      if (value === null) db.removeSync(stored.key);
      else db.putSync(stored.key, stored.wrapped ? wrap(key, value) : value);
    }
    if (positions !== undefined) for (const [partition, next] of positions) db.putSync(positionPrefix + partition, Buffer.from(String(next), 'latin1'));
    if (seen !== undefined) for (const [partition, s] of seen) db.putSync(seenPrefix + partition, Buffer.from(`${s.offset},${s.timestamp},${s.currentAt}`, 'latin1'));
  }

  function gather(to: Gathered, puts: readonly Put[], positions: ReadonlyMap<number, number> | undefined, seen: ReadonlyMap<number, Seen> | undefined): void {
    for (const { key, value } of puts) {
      to.puts.set(key, value);
      to.bytes += entryCost + key.length + (value?.length ?? 0);
    }
    for (const [partition, next] of positions ?? []) to.positions.set(partition, next);
    for (const [partition, s] of seen ?? []) to.seen.set(partition, s);
    if (to.bytes > maxGathered) flush();
  }

  /** What is gathered is written; more may be gathered behind it. */
  function flush(): void {
    if (gathered === undefined || (gathered.puts.size === 0 && gathered.positions.size === 0)) return;
    const { puts, positions, seen } = gathered;
    gathered = emptyGathered();
    write([...puts.keys()].sort().map((key) => ({ key, value: puts.get(key)! })), positions, seen);
  }

  function* range(prefix: string): Generator<{ key: string; value: Buffer }> {
    flush();
    const start = storedPrefix(prefix);
    for (const { key, value } of db.getRange({ start })) {
      if (!key.startsWith(start)) return;
      if (key.startsWith(own)) continue;
      const entry = isWrapped(key) ? unwrap(value) : { key, value };
      if (entry.key.startsWith(prefix)) yield entry;
    }
  }

  async function close(): Promise<void> {
    flush();
    gathered = undefined;
    await db.close();
    markClosed(path);
  }

  return {
    get: find,
    has(key) {
      const put = gathered?.puts.get(key);
      return put === undefined ? db.doesExist(storedKey(key).key) : put !== null;
    },
    range,
    putBatch(puts, positions, seen) {
      if (gathered === undefined) write(puts, positions, seen);
      else gather(gathered, puts, positions, seen);
    },
    loading() { gathered ??= emptyGathered(); },
    loaded() {
      flush();
      gathered = undefined;
    },
    position(partition) {
      const put = gathered?.positions.get(partition);
      if (put !== undefined) return put;
      const value = db.get(positionPrefix + partition);
      return value === undefined ? undefined : Number(value.toString('latin1'));
    },
    positions() {
      flush();
      const found = new Map<number, number>();
      for (const { key, value } of db.getRange({ start: positionPrefix, end: `${positionPrefix}:` })) found.set(Number(key.slice(positionPrefix.length)), Number(value.toString('latin1')));
      return found;
    },
    seen(partition) {
      const put = gathered?.seen.get(partition);
      if (put !== undefined) return put;
      const value = db.get(seenPrefix + partition);
      if (value === undefined) return undefined;
      const [offset, timestamp, currentAt] = value.toString('latin1').split(',').map(Number) as [number, number, number];
      return { offset, timestamp, currentAt };
    },
    size: () => (db.getStats() as { readonly entryCount: number }).entryCount,
    clear() {
      if (gathered !== undefined) gathered = emptyGathered();
      db.transactionSync(() => {
        db.clearSync();
        db.putSync(formatKey, format);
      });
    },
    close,
    async drop() {
      await close();
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** Puts not written yet, the newest of each key; null removes it. */
interface Gathered {
  readonly puts: Map<string, Buffer | null>;
  readonly positions: Map<number, number>;
  readonly seen: Map<number, Seen>;
  bytes: number;
}

const emptyGathered = (): Gathered => ({ puts: new Map(), positions: new Map(), seen: new Map(), bytes: 0 });

function openOrReplace(path: string, onDiscard: ((reason: string) => void) | undefined): RootDatabase<Buffer, string> {
  let reason = distrust(path);
  if (reason === undefined) {
    try {
      return openDb(path);
    } catch (error) {
      reason = (error as Error).message;
    }
  }
  onDiscard?.(reason);
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return openDb(path);
}

function openDb(path: string): RootDatabase<Buffer, string> {
  const db = open<Buffer, string>({ path, encoding: 'binary', noSync: true, cache: false, mapSize });
  const found = db.get(formatKey);
  if (found?.equals(format)) return db;
  if (found !== undefined || [...db.getKeys({ limit: 1 })].length > 0) {
    void db.close();
    throw new Error(`format ${found?.toString('latin1') ?? 'none'} of the cache is not known`);
  }
  db.putSync(formatKey, format);
  return db;
}
