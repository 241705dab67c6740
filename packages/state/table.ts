import { closeSync, existsSync, mkdirSync, openSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { open, type RootDatabase } from 'lmdb';

export interface Put {
  readonly key: string;
  /** null removes the key. */
  readonly value: Buffer | null;
}

/**
 * A local cache of keyed state in LMDB. Values and the positions they were read up to are written in one
 * transaction, so after any crash the cache is a true prefix of its topics. It may be deleted at any time.
 */
export interface Table {
  get(key: string): Buffer | undefined;
  /** Entries whose key begins with the prefix, in key order. */
  range(prefix: string): Iterable<{ readonly key: string; readonly value: Buffer }>;
  /** Write all, with the new positions (partition → next offset) if given. Durable against a killed process, not against power loss. */
  putBatch(puts: readonly Put[], positions?: ReadonlyMap<number, number>): void;
  /** Next offset of the partition; undefined when nothing of it was read. */
  position(partition: number): number | undefined;
  positions(): Map<number, number>;
  /** Forget everything. */
  clear(): void;
  close(): Promise<void>;
}

const positionPrefix = '\u0001p/';
const formatKey = '\u0001format';
const format = Buffer.from('1');

/** Opens or makes the cache in folder `path`. One that cannot be opened or has another format is deleted and made anew. */
export function openTable(options: { path: string; onDiscard?: (reason: string) => void }): Table {
  mkdirSync(options.path, { recursive: true });
  let db: RootDatabase<Buffer, string>;
  try {
    db = openDb(options.path);
  } catch (error) {
    options.onDiscard?.((error as Error).message);
    rmSync(options.path, { recursive: true, force: true });
    mkdirSync(options.path, { recursive: true });
    db = openDb(options.path);
  }
  return {
    get: (key) => db.get(key),
    *range(prefix) {
      for (const { key, value } of db.getRange({ start: prefix, end: `${prefix}\uffff` })) yield { key, value };
    },
    putBatch(puts, positions) {
      db.transactionSync(() => {
        for (const { key, value } of puts) {
          if (value === null) db.removeSync(key);
          else db.putSync(key, value);
        }
        if (positions !== undefined) for (const [partition, next] of positions) db.putSync(positionPrefix + partition, Buffer.from(String(next), 'latin1'));
      });
    },
    position(partition) {
      const value = db.get(positionPrefix + partition);
      return value === undefined ? undefined : Number(value.toString('latin1'));
    },
    positions() {
      const found = new Map<number, number>();
      for (const { key, value } of db.getRange({ start: positionPrefix, end: `${positionPrefix}\uffff` })) found.set(Number(key.slice(positionPrefix.length)), Number(value.toString('latin1')));
      return found;
    },
    clear() {
      db.clearSync();
      db.putSync(formatKey, format);
    },
    close: () => db.close(),
  };
}

/** LMDB ends the process on a file that is not its own, so the magic of the first meta page is looked at first. */
const magic = 0xbeefc0de;

function checkMagic(path: string): void {
  const file = join(path, 'data.mdb');
  if (!existsSync(file)) return;
  const head = Buffer.alloc(32);
  const fd = openSync(file, 'r');
  try {
    const length = readSync(fd, head, 0, head.length, 0);
    if (length === 0) return;
    if (length < head.length || (head.readUInt32LE(16) !== magic && head.readUInt32LE(24) !== magic)) throw new Error(`${file} is not an LMDB file`);
  } finally {
    closeSync(fd);
  }
}

function openDb(path: string): RootDatabase<Buffer, string> {
  checkMagic(path);
  const db = open<Buffer, string>({ path, encoding: 'binary', noSync: true, cache: false, mapSize: 64 * 1024 * 1024 });
  const found = db.get(formatKey);
  if (found === undefined) db.putSync(formatKey, format);
  else if (!found.equals(format)) throw new Error(`format ${found.toString('latin1')} of the cache is not known`);
  return db;
}
