import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Appender, Log, LogAdmin, OutRecord, Reader, RecordBatch, Serde } from '@weir/log';
import { createLateTable, createTopicTable, openTable, type Put, type TopicTable } from '@weir/state';
import type { Logger } from 'pino';
import { isSealed, sealedBy, sealKey, unseal, type SealKey } from './envelope.ts';
import { createReady } from './ready.ts';
import { createWrapping } from './wrapping.ts';

/**
 * Marks of erasure and keys of weir.keys, read whole by this instance. A mark and the keys of one owner stand on one
 * partition, in an order that all instances see: what was accepted until the mark is sealed under keys that stand before it
 * and nothing else ever is, so those can be destroyed and the ones behind it stay.
 */
export interface KeyRing {
  /** Read the topic to the end offset taken now, then follow it. */
  start(): Promise<void>;
  caughtUp(): boolean;
  /** Resolves when the ring has what the topic holds at the time of the call. */
  readToEnd(): Promise<void>;
  /**
   * Resolves when each of these keys is here, or surely destroyed: its tombstone was read, or it is not on the topic however
   * often brokers were asked, for a leader that was cut off and does not know it yet tells an old end. About 10 s for a key
   * that nothing is known of, once a key: for records that nothing says are erased. @param gone true = it is given up
   */
  find(keyIds: readonly string[], gone: () => boolean): Promise<void>;
  /** Next offsets per partition of the topic that this ring has; a copy. */
  positions(): number[];
  atLeast(offsets: readonly number[]): boolean;
  /** Resolves when it is at or past these next offsets. */
  waitFor(offsets: readonly number[]): Promise<void>;
  /** The key to seal with, of those behind the last mark of the owner; undefined when there is none: see `ensure`. Every instance takes the same one of several. */
  current(owner: string): SealKey | undefined;
  /** A key for each owner, made, acknowledged and read back where there is none: a mark of erasure that stands before it is known then. Owners may repeat. */
  ensure(owners: Iterable<string>): Promise<void>;
  /** The key of this id (as `sealedBy` gives it); undefined when it is destroyed, or not read yet (`find`). */
  byId(keyId: string): SealKey | undefined;
  /** Whether the key of this id is here. */
  has(keyId: string): boolean;
  /** The plain bytes of a sealed value; undefined when its key is destroyed, or not read yet. What is not sealed comes back as it is. */
  open(bytes: Buffer): Buffer | undefined;
  /** Time until which what was accepted of any of these identifiers is erased, ms since the epoch; 0 = never erased. */
  erasedUntil(ids: readonly string[]): number;
  /** Mark identifiers as erased until `at`: acknowledged, and read back by this ring. */
  markErased(ids: readonly string[], at: number, erasure: string): Promise<void>;
  /** Destroy every key of these owners, or those that stand before their last mark of erasure: tombstones, acknowledged and read back by this ring. Resolves with how many there were; `before` is awaited with that number before any of them goes. */
  destroy(owners: readonly string[], which?: 'all' | 'marked', before?: (count: number) => Promise<void>): Promise<number>;
  /** Owners that begin with `prefix` and have a key. */
  owners(prefix: string): Iterable<string>;
  /** Called for each identifier whose mark of erasure is read, in the tick in which it counts. */
  onErased(listener: (owner: string) => void): void;
  stop(): Promise<void>;
}

export interface KeyRingPorts {
  readonly log: Log;
  readonly serde: Serde;
  readonly topic: string;
  readonly workspaceKey: Buffer;
  readonly stateDir: string;
  readonly logger: Logger;
  readonly now: () => number;
}

/** Keys of a generation that are kept ready, of two: about 48 MB at most. One that is not is read, unwrapped and derived, which takes several times as long as to open a value. */
const maxReady = 50_000;
/** Keys that are known to be destroyed. */
const maxDestroyed = 100_000;
/** As often as for the end of a table (packages/state, topic-table.ts). */
const maxAsked = 20;
const askedEveryMs = 500;
/** Marks of erasure in memory. */
const maxMarks = 100_000;
const keyName = (owner: string, id: Buffer): string => `${owner}#key/${id.toString('hex')}`;
const latin1 = (hexId: string): string => Buffer.from(hexId, 'hex').toString('latin1');
const markName = (owner: string): string => `${owner}#erased`;
/** Of the local table: another one is read anew. */
const layout = Buffer.from('2');
const layoutKey = '#layout';
const offsetBytes = 8;

/** Where a record stands on its partition, before its value. */
function at(offset: number, value: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(offsetBytes + value.length);
  bytes.writeBigUInt64BE(BigInt(offset));
  value.copy(bytes, offsetBytes);
  return bytes;
}
const offsetOf = (entry: Buffer): number => Number(entry.readBigUInt64BE());

/**
 * @param onError told once when the topic can not be followed any more: the process must stop.
 */
export async function createKeyRing(ports: KeyRingPorts, onError: (error: Error) => void, open: typeof openTable = openTable): Promise<KeyRing> {
  const { log, serde, topic, now } = ports;
  const [reader, admin, appender]: [Reader, LogAdmin, Appender] = await Promise.all([log.reader({ shared: true }), log.admin(), log.appender()]);
  await appender.partitions(topic);
  const cache = open({ path: join(ports.stateDir, 'keys'), onDiscard: (reason) => ports.logger.warn({ cache: 'keys', reason }, 'local cache discarded, it is read again from its topic') });
  // A key that is destroyed is gone from the disk when the table has read so.
  const table = createLateTable(cache, { clock: { monotonic: () => performance.now(), setTimer: setTimeout, clearTimer: (timer) => { clearTimeout(timer as NodeJS.Timeout); } }, removesAtOnce: true });
  if (table.get(layoutKey)?.equals(layout) !== true) table.clear();
  const wrapping = createWrapping(ports.workspaceKey);
  const making = new Map<string, Promise<void>>();
  const ready = createReady(maxReady);
  const waiting = new Set<() => void>();
  const erasedListeners: ((owner: string) => void)[] = [];
  /** Marks of erasure by owner, as in the table, each asked for many times a record; undefined = too many of them, then the table says. */
  let marks: Map<string, Buffer> | undefined = new Map();
  /** By id: none of them ever comes again. */
  const destroyed = new Set<string>();
  /** Who asks whether a value can be read and who reads it come one after the other: it is opened once. */
  let lastSealed: Buffer | undefined;
  let lastPlain: Buffer | undefined;

  function puts(batch: RecordBatch): Put[] {
    const found: Put[] = [];
    for (const record of batch.records) {
      const name = record.key?.toString() ?? '';
      const hash = name.lastIndexOf('#');
      if (hash < 0) continue;
      const owner = name.slice(0, hash);
      if (name.slice(hash) === '#erased') {
        const mark = record.value === null ? null : at(record.offset, record.value);
        found.push({ key: `e/${owner}`, value: mark });
        marks?.delete(owner);
        if (mark !== null) marks?.set(owner, mark);
        if (marks !== undefined && marks.size > maxMarks) marks = undefined;
        // Nothing is sealed any more with the key of before.
        ready.forget(owner, '');
        if (mark !== null) for (const listener of erasedListeners) listener(owner);
      }
      else {
        const id = name.slice(hash + '#key/'.length);
        found.push({ key: `k/${id}`, value: record.value }, { key: `o/${owner}#${id}`, value: record.value === null ? null : at(record.offset, Buffer.alloc(0)) });
        // Another instance may have made the one that all take from now on.
        ready.forget(owner, latin1(id));
        if (record.value === null) noteDestroyed(latin1(id));
        lastSealed = lastPlain = undefined;
      }
    }
    return found;
  }

  function noteDestroyed(keyId: string): void {
    if (destroyed.size >= maxDestroyed) destroyed.clear();
    destroyed.add(keyId);
  }

  const follow: TopicTable = createTopicTable({ reader, admin, topic, table, puts, onError });
  follow.onAdvance(() => { for (const check of waiting) check(); });

  const markOf = (owner: string): Buffer | undefined => (marks === undefined ? table.get(`e/${owner}`) : marks.get(owner));

  /** The first by id of those behind the last mark: with several keys of one owner, every instance seals with the same. */
  function stored(owner: string): SealKey | undefined {
    const mark = markOf(owner);
    for (const { key, value } of table.range(`o/${owner}#`)) {
      if (mark !== undefined && offsetOf(value) < offsetOf(mark)) continue;
      const id = key.slice(`o/${owner}#`.length);
      return ready.ofId(latin1(id)) ?? readKey(id);
    }
    return undefined;
  }

  function readKey(id: string): SealKey | undefined {
    const bytes = table.get(`k/${id}`);
    if (bytes === undefined) return undefined;
    const { owner, keyId, wrapped } = serde.decode(bytes).value as { owner: string; keyId: Buffer; wrapped: Buffer };
    return sealKey(keyId, wrapping.unwrap(owner, keyId, wrapped));
  }

  async function make(owners: readonly string[]): Promise<void> {
    const records = owners.map((owner): OutRecord => {
      const id = randomBytes(16);
      const value = serde.encode('weir.internal.SealKey', { owner, keyId: id, wrapped: wrapping.wrap(owner, id, randomBytes(32)), createdAt: now() });
      return { partition: appender.partitionFor(topic, owner), key: Buffer.from(keyName(owner, id)), value };
    });
    await readBack(records);
  }

  /** Appends them; resolves when the ring has read them, whatever a broker tells as the end. */
  async function readBack(records: readonly OutRecord[]): Promise<void> {
    const offsets = await appender.append(topic, records);
    const wanted: number[] = [];
    records.forEach(({ partition }, i) => { wanted[partition] = Math.max(wanted[partition] ?? 0, offsets[i]! + 1); });
    await reached(wanted);
  }

  function current(owner: string): SealKey | undefined {
    const known = ready.ofOwner(owner);
    if (known !== undefined) return known;
    const key = stored(owner);
    if (key !== undefined) ready.keep(key, owner);
    return key;
  }

  function byId(keyId: string): SealKey | undefined {
    const known = ready.ofId(keyId);
    if (known !== undefined) return known;
    const key = readKey(Buffer.from(keyId, 'latin1').toString('hex'));
    if (key !== undefined) ready.keep(key);
    return key;
  }

  const has = (keyId: string): boolean => ready.hasId(keyId) || table.has(`k/${Buffer.from(keyId, 'latin1').toString('hex')}`) || byId(keyId) !== undefined;

  async function find(keyIds: readonly string[], gone: () => boolean): Promise<void> {
    const lacking = (): string[] => [...new Set(keyIds)].filter((id) => !destroyed.has(id) && !has(id));
    for (let asked = 1; lacking().length > 0; asked++) {
      await reachedEnd();
      if (gone() || lacking().length === 0) return;
      if (asked >= maxAsked) return lacking().forEach(noteDestroyed);
      await new Promise((resolve) => { setTimeout(resolve, askedEveryMs); });
      if (gone()) return;
    }
  }

  async function reachedEnd(): Promise<void> {
    const wanted: number[] = [];
    for (const [partition, end] of await admin.endOffsets(topic)) wanted[partition] = end;
    await reached(wanted);
  }

  async function reached(wanted: readonly number[]): Promise<void> {
    if (follow.atLeast(wanted)) return;
    await new Promise<void>((resolve) => {
      const check = (): void => {
        if (!follow.atLeast(wanted)) return;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
    });
  }

  return {
    async start() {
      await follow.start();
      // At once, or a process that is killed before the next key comes reads all of them again.
      cache.putBatch([{ key: layoutKey, value: layout }]);
      for (const { key, value } of table.range('e/')) {
        marks?.set(key.slice('e/'.length), value);
        if (marks === undefined || marks.size > maxMarks) {
          marks = undefined;
          break;
        }
      }
    },
    caughtUp: () => follow.caughtUp(),
    readToEnd: reachedEnd,
    find,
    positions: () => Array.from(follow.positions(), (n) => n ?? 0),
    atLeast: (offsets) => follow.atLeast(offsets),
    waitFor: reached,
    current,
    async ensure(owners) {
      // Read back may also be a mark, or the tombstone of another instance.
      for (let lacking = [...new Set(owners)]; ; ) {
        lacking = lacking.filter((owner) => current(owner) === undefined);
        if (lacking.length === 0) return;
        const missing = lacking.filter((owner) => !making.has(owner));
        if (missing.length > 0) {
          const work = make(missing).finally(() => { for (const owner of missing) making.delete(owner); });
          for (const owner of missing) making.set(owner, work);
        }
        await Promise.all(new Set(lacking.map((owner) => making.get(owner))));
      }
    },
    byId,
    has,
    open(bytes) {
      if (!isSealed(bytes)) return bytes;
      if (bytes === lastSealed) return lastPlain;
      const key = byId(sealedBy(bytes));
      if (key === undefined) return undefined;
      lastPlain = unseal(key, bytes);
      lastSealed = bytes;
      return lastPlain;
    },
    erasedUntil(ids) {
      let until = 0;
      if (marks?.size === 0) return until;
      for (const id of ids) {
        const mark = markOf(id);
        if (mark !== undefined) until = Math.max(until, Number((serde.decode(mark.subarray(offsetBytes)).value as { at: number }).at));
      }
      return until;
    },
    async markErased(ids, at, erasure) {
      const records = ids.map((owner): OutRecord => ({ partition: appender.partitionFor(topic, owner), key: Buffer.from(markName(owner)), value: serde.encode('weir.internal.Erased', { owner, at, erasure }) }));
      await readBack(records);
    },
    async destroy(owners, which = 'all', before) {
      await reachedEnd();
      const records: OutRecord[] = [];
      for (const owner of owners) {
        const mark = markOf(owner);
        for (const { key, value } of table.range(`o/${owner}#`)) if (which === 'all' || (mark !== undefined && offsetOf(value) < offsetOf(mark))) records.push({ partition: appender.partitionFor(topic, owner), key: Buffer.from(`${owner}#key/${key.slice(`o/${owner}#`.length)}`), value: null });
      }
      await before?.(records.length);
      await readBack(records);
      await reachedEnd();
      return records.length;
    },
    *owners(prefix) {
      let last = '';
      for (const { key } of table.range(`o/${prefix}`)) {
        const owner = key.slice(2, key.lastIndexOf('#'));
        if (owner !== last) yield last = owner;
      }
    },
    onErased: (listener) => { erasedListeners.push(listener); },
    async stop() {
      await follow.close();
      await Promise.all([reader.close(), admin.close(), appender.close()]);
    },
  };
}
