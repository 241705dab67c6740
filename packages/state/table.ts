import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { WeirError } from '@weir/errors';
import { createAbsentKeys } from './absent-keys.ts';
import { distrust, fileOf, markBroken, markClosed, markOpen } from './cache-file.ts';
import { isPlain, isWrapped, own, storedKey, storedPrefix, unwrap, wrap } from './keys.ts';

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
 * A local cache of keyed state in a SQLite file. Values and the positions they were read up to are written in one
 * transaction, so after any crash the cache is a true prefix of its topics. It may be deleted at any time.
 * Keys may be any string; values are copied in and out. A write that fails (a full disk) changes nothing and throws; an
 * error that says the file is broken also marks it, and the next `openTable` makes the cache anew.
 */
export interface Table {
  get(key: string): Buffer | undefined;
  /** The value as text, of one that is UTF-8 without a zero character: half the time of a buffer that is made and read. */
  text(key: string): string | undefined;
  has(key: string): boolean;
  /** Entries whose key begins with the prefix, in the order of the keys' UTF-8; those behind `after`, where it is given. */
  range(prefix: string, after?: string): Iterable<{ readonly key: string; readonly value: Buffer }>;
  /** Write all, with the new positions (partition → next offset) if given. Durable against a killed process; after a crash of the machine the cache is discarded. `atOnce`: to a table that is written late, where this removes something. */
  putBatch(puts: readonly Put[], positions?: ReadonlyMap<number, number>, seen?: ReadonlyMap<number, Seen>, atOnce?: boolean): void;
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
  /** Of the file that hold something, bytes; free pages are used again and are not in it. */
  bytes(): number;
  /** Forget everything. */
  clear(): void;
  close(): Promise<void>;
  /** Close it and delete its folder. */
  drop(): Promise<void>;
}

const positionPrefix = `${own}p/`;
const seenPrefix = `${own}s/`;
const formatKey = `${own}format`;
const format = Buffer.from('4');
/** Of keys and values that are gathered while loading. */
const maxGathered = 24 * 1024 * 1024;
const entryCost = 100;
/** Of pages in memory (anonymous); beyond it the file is read through a mapping, which the kernel can take back. */
const pageCacheKiB = 2 * 1024;
/** The most that Node's SQLite maps; what lies behind it is read. */
const mappedBytes = 2 * 1024 ** 3 - 65_536;
/** Pages of 4 KiB in the log before they are copied into the file: a page that is written often is copied once. */
const checkpointPages = 4000;
/** SQLITE_BUSY; SQLITE_CORRUPT, SQLITE_NOTADB: https://www.sqlite.org/rescode.html */
const busy = 5;
const brokenCodes: ReadonlySet<number> = new Set([11, 26]);

/**
 * Opens or makes the cache in folder `path`. One that is torn, cannot be opened or has another format is deleted and made anew;
 * `onDiscard` is told why. Throws state-in-use when another process (or this one) has it open, state-unusable when the
 * folder or the disk does not let it be opened: what is there is kept.
 * With `tellsAbsent` most keys that are not there are told without a read (2 to 3 µs each), by a filter in memory of at most 5.4 MiB, from
 * when the rows that were there at first are in it: those are gone over in the background.
 */
export function openTable(options: { path: string; onDiscard?: (reason: string) => void; tellsAbsent?: boolean }): Table {
  const { path } = options;
  mkdirSync(path, { recursive: true });
  const db = openOrReplace(path, options.onDiscard);
  const mark = markOpen(path);

  const begin = db.prepare('BEGIN IMMEDIATE');
  const beginRead = db.prepare('BEGIN');
  const commit = db.prepare('COMMIT');
  const rollback = db.prepare('ROLLBACK');
  const select = rows(db.prepare('SELECT v FROM kv WHERE k = ?'));
  const selectText = rows(db.prepare('SELECT CAST(v AS TEXT) FROM kv WHERE k = ?'));
  const exists = rows(db.prepare('SELECT 1 FROM kv WHERE k = ?'));
  const upsert = db.prepare('INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v');
  const remove = db.prepare('DELETE FROM kv WHERE k = ?');
  const removeAll = db.prepare('DELETE FROM kv');
  const names = rows(db.prepare('SELECT k FROM kv WHERE k > ? AND substr(k, 1, 2) <> ? ORDER BY k LIMIT ?'));
  const pages = rows(db.prepare('SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size'));
  /** Of reads that go on: a statement has one cursor, and ranges may be read within ranges. */
  const cursors: StatementSync[] = [];

  let gathered: Gathered | undefined;
  let open = true;
  let broken = false;
  /** Reads share a transaction, which the next write ends: nobody else has the file, and one of its own takes as long as a read itself. */
  let reading = false;

  /** What SQLite says of a broken file is kept for the next start. */
  function guarded<T>(act: () => T): T {
    try {
      return act();
    } catch (error) {
      if (!broken && brokenCodes.has(codeOf(error))) {
        broken = true;
        markBroken(path, (error as Error).message);
      }
      throw error;
    }
  }

  const row = (statement: StatementSync, key: string): unknown => guarded(() => {
    if (!reading) {
      beginRead.run();
      reading = true;
    }
    return statement.get(key);
  });

  function endReading(): void {
    // Some errors of the disk have ended it already.
    if (reading && db.isTransaction) commit.run();
    reading = false;
  }

  const read = (key: string): Buffer | undefined => {
    const found = row(select, key) as [Uint8Array] | undefined;
    return found === undefined ? undefined : bufferOf(found[0]);
  };

  /** Of callers: the table's own stand among them. */
  const namesBehind = (key: string, limit: number): string[] => guarded(() => names.all(key, own, limit) as unknown as [string][]).map(([name]) => name);
  const absent = options.tellsAbsent === true ? createAbsentKeys(namesBehind) : undefined;

  const find = (key: string): Buffer | undefined => {
    const other = isPlain(key) ? undefined : storedKey(key);
    const as = other === undefined ? key : other.key;
    if (absent?.has(as) === true) return undefined;
    const put = gathered?.puts.get(key);
    if (put !== undefined) return put ?? undefined;
    const value = read(as);
    return value !== undefined && other?.wrapped === true ? unwrap(value).value : value;
  };

  const findText = (key: string): string | undefined => {
    if (gathered?.puts.has(key) === true || !isPlain(key)) return find(key)?.toString('utf8');
    return absent?.has(key) === true ? undefined : (row(selectText, key) as [string] | undefined)?.[0];
  };

  function remember(puts: readonly Put[]): void {
    if (absent === undefined || absent.dropped()) return;
    for (const { key, value } of puts) if (value !== null) absent.add(isPlain(key) ? key : storedKey(key).key);
  }

  function transaction(act: () => void): void {
    guarded(() => {
      endReading();
      begin.run();
      try {
        act();
        commit.run();
      } catch (error) {
        // Some errors of the disk have rolled it back already.
        if (db.isTransaction) rollback.run();
        throw error;
      }
    });
  }

  function put(puts: Iterable<Put>, positions: ReadonlyMap<number, number> | undefined, seen: ReadonlyMap<number, Seen> | undefined): void {
    for (const { key, value } of puts) {
      const stored = storedKey(key);
      if (value === null) remove.run(stored.key);
      else upsert.run(stored.key, stored.wrapped ? wrap(key, value) : value);
    }
    if (positions !== undefined) for (const [partition, next] of positions) upsert.run(positionPrefix + partition, Buffer.from(String(next), 'latin1'));
    if (seen !== undefined) for (const [partition, s] of seen) upsert.run(seenPrefix + partition, Buffer.from(`${s.offset},${s.timestamp},${s.currentAt}`, 'latin1'));
  }

  const write: typeof put = (puts, positions, seen) => transaction(() => put(puts, positions, seen));

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
    write([...puts.keys()].sort().map((key) => ({ key, value: puts.get(key)! })), positions, seen);
    // A write that failed (a full disk) may be tried again: what was gathered stands until it is written.
    gathered = emptyGathered();
  }

  /** Stored entries from `start` on, in order. */
  function* from(start: string): Generator<[string, Buffer]> {
    const cursor = cursors.pop() ?? rows(db.prepare('SELECT k, v FROM kv WHERE k >= ? ORDER BY k'));
    const found = guarded(() => cursor.iterate(start)) as unknown as Iterator<[string, Uint8Array]>;
    try {
      for (let next = guarded(() => found.next()); next.done !== true; next = guarded(() => found.next())) yield [next.value[0], bufferOf(next.value[1])];
    } finally {
      found.return?.();
      cursors.push(cursor);
    }
  }

  function* range(prefix: string, after?: string): Generator<{ key: string; value: Buffer }> {
    flush();
    const start = storedPrefix(prefix);
    const last = after === undefined ? undefined : storedKey(after).key;
    for (const [key, value] of from(last ?? start)) {
      if (!key.startsWith(start)) return;
      if (key === last || key.startsWith(own)) continue;
      const entry = isWrapped(key) ? unwrap(value) : { key, value };
      if (entry.key.startsWith(prefix)) yield entry;
    }
  }

  function close(): Promise<void> {
    if (!open) return Promise.resolve();
    flush();
    gathered = undefined;
    open = false;
    absent?.drop();
    db.close();
    if (!broken) markClosed(path, mark);
    return Promise.resolve();
  }

  return {
    get: find,
    text: findText,
    has(key) {
      const as = storedKey(key).key;
      if (absent?.has(as) === true) return false;
      const put = gathered?.puts.get(key);
      return put === undefined ? row(exists, as) !== undefined : put !== null;
    },
    range,
    putBatch(puts, positions, seen) {
      remember(puts);
      if (gathered === undefined) write(puts, positions, seen);
      else gather(gathered, puts, positions, seen);
    },
    loading() {
      gathered ??= emptyGathered();
    },
    loaded() {
      flush();
      gathered = undefined;
    },
    position(partition) {
      const put = gathered?.positions.get(partition);
      if (put !== undefined) return put;
      const value = read(positionPrefix + partition);
      return value === undefined ? undefined : Number(value.toString('latin1'));
    },
    positions() {
      flush();
      const found = new Map<number, number>();
      for (const [key, value] of from(positionPrefix)) {
        if (!key.startsWith(positionPrefix)) break;
        found.set(Number(key.slice(positionPrefix.length)), Number(value.toString('latin1')));
      }
      return found;
    },
    seen(partition) {
      const put = gathered?.seen.get(partition);
      if (put !== undefined) return put;
      const value = read(seenPrefix + partition);
      if (value === undefined) return undefined;
      const [offset, timestamp, currentAt] = value.toString('latin1').split(',').map(Number) as [number, number, number];
      return { offset, timestamp, currentAt };
    },
    bytes: () => (pages.get() as unknown as [number])[0],
    clear() {
      if (gathered !== undefined) gathered = emptyGathered();
      transaction(() => {
        removeAll.run();
        upsert.run(formatKey, format);
      });
      absent?.restart();
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

const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Rows as arrays. */
function rows(statement: StatementSync): StatementSync {
  statement.setReturnArrays(true);
  return statement;
}

/** The primary result code of SQLite; 0 = the error is not from it. */
function codeOf(error: unknown): number {
  return ((error as { readonly errcode?: number }).errcode ?? 0) & 0xff;
}

/** A cache that must be made anew; any other error of an open is told, and the cache kept. */
class Unusable extends Error {}

function openOrReplace(path: string, onDiscard: ((reason: string) => void) | undefined): DatabaseSync {
  let reason = distrust(path);
  if (reason === undefined) {
    try {
      return openDb(path);
    } catch (error) {
      if (codeOf(error) === busy) throw inUse(path, error);
      if (!(error instanceof Unusable) && !brokenCodes.has(codeOf(error))) throw new WeirError('state-unusable', `${path}: ${(error as Error).message}`, { cause: error });
      reason = (error as Error).message;
    }
  } else refuseIfInUse(path);
  onDiscard?.(reason);
  rmSync(path, { recursive: true, force: true });
  mkdirSync(path, { recursive: true });
  return openDb(path);
}

const inUse = (path: string, cause: unknown): WeirError => new WeirError('state-in-use', `${path} is in use by another process`, { cause });

/** A cache that this process does not trust may be another's that is alive, on another machine. */
function refuseIfInUse(path: string): void {
  if (!existsSync(fileOf(path))) return;
  const db = new DatabaseSync(fileOf(path));
  try {
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
  } catch (error) {
    // Any other: it is broken, and nobody is at work on it.
    if (codeOf(error) === busy) throw inUse(path, error);
  } finally {
    db.close();
  }
}

/**
 * One process has the file (no shared memory, no lock per read). Commits are in the operating system's hands when they
 * return, not on the disk: a killed process loses nothing, and a cache that was open when the machine ended is not trusted.
 */
function openDb(path: string): DatabaseSync {
  const db = new DatabaseSync(fileOf(path));
  try {
    db.exec(`PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA secure_delete = FAST; PRAGMA cache_size = -${pageCacheKiB}; PRAGMA mmap_size = ${mappedBytes}; PRAGMA wal_autocheckpoint = ${checkpointPages}; PRAGMA journal_size_limit = ${4 * checkpointPages * 4096}`);
    db.exec('CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID');
    const found = db.prepare('SELECT v FROM kv WHERE k = ?').get(formatKey)?.['v'] as Uint8Array | undefined;
    if (found !== undefined && bufferOf(found).equals(format)) return db;
    if (found !== undefined || db.prepare('SELECT 1 FROM kv LIMIT 1').get() !== undefined) throw new Unusable(`format ${found === undefined ? 'none' : bufferOf(found).toString('latin1')} of the cache is not known`);
    db.prepare('INSERT INTO kv VALUES (?, ?)').run(formatKey, format);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}
