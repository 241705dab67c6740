import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, randomBytes, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';
import type { Appender, Log, LogAdmin, OutRecord, Reader, RecordBatch, Serde } from '@weir/log';
import { createTopicTable, openTable, type Put, type TopicTable } from '@weir/state';
import type { Logger } from 'pino';
import { isSealed, sealedBy, sealKey, unseal, type SealKey } from './envelope.ts';
import { createReady } from './ready.ts';

/** Marks of erasure and keys of weir.keys, read whole by this instance (or those of the owners it asks for). */
export interface KeyRing {
  /** Read the topic to the end offset taken now, then follow it. */
  start(): Promise<void>;
  caughtUp(): boolean;
  /** Resolves when the ring has what the topic holds at the time of the call. */
  readToEnd(): Promise<void>;
  /** Next offsets per partition of the topic that this ring has; a copy. */
  positions(): number[];
  atLeast(offsets: readonly number[]): boolean;
  /** The key to seal with; undefined when the owner has none: see `ensure`. Every instance takes the same one of several. */
  current(owner: string): SealKey | undefined;
  /** A key for each owner, made and acknowledged where there is none. Owners may repeat. */
  ensure(owners: Iterable<string>): Promise<void>;
  /** The key of this id (as `sealedBy` gives it); undefined when it is destroyed, or not read yet. */
  byId(keyId: string): SealKey | undefined;
  /** Whether the key of this id is here. */
  has(keyId: string): boolean;
  /** The plain bytes of a sealed value; undefined when its key is destroyed, or not read yet. What is not sealed comes back as it is. */
  open(bytes: Buffer): Buffer | undefined;
  /** Time until which what was accepted of any of these identifiers is erased, ms since the epoch; 0 = never erased. */
  erasedUntil(ids: readonly string[]): number;
  /** Mark identifiers as erased until `at`, acknowledged; resolves with the positions a reader must have. */
  markErased(ids: readonly string[], at: number, erasure: string): Promise<ReadonlyMap<number, number>>;
  /** Destroy every key of these owners: tombstones, acknowledged. Resolves with how many there were. */
  destroy(owners: readonly string[]): Promise<number>;
  /** Owners that begin with `prefix` and have a key. */
  owners(prefix: string): Iterable<string>;
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
  /** Owners that this instance needs; others are not kept. Default all. */
  readonly wants?: (owner: string) => boolean;
}

const nonceBytes = 12;
const tagBytes = 16;
/** Keys of a generation that are kept ready, of two: about 45 MB at most. One that is not is read, unwrapped and derived, which takes ten times as long as to open a value. */
const maxReady = 50_000;
/** Marks of erasure in memory. */
const maxMarks = 100_000;
const keyName = (owner: string, id: Buffer): string => `${owner}#key/${id.toString('hex')}`;
const latin1 = (hexId: string): string => Buffer.from(hexId, 'hex').toString('latin1');
const markName = (owner: string): string => `${owner}#erased`;

/**
 * @param onError told once when the topic can not be followed any more: the process must stop.
 */
export async function createKeyRing(ports: KeyRingPorts, onError: (error: Error) => void, open: typeof openTable = openTable): Promise<KeyRing> {
  const { log, serde, topic, now } = ports;
  const wants = ports.wants ?? (() => true);
  const [reader, admin, appender]: [Reader, LogAdmin, Appender] = await Promise.all([log.reader(), log.admin(), log.appender()]);
  await appender.partitions(topic);
  const table = open({ path: join(ports.stateDir, 'keys'), onDiscard: (reason) => ports.logger.warn({ cache: 'keys', reason }, 'local cache discarded, it is read again from its topic') });
  const wrapping = createSecretKey(Buffer.from(hkdfSync('sha256', ports.workspaceKey, '', 'weir seal wrapping', 32)));
  /** Acknowledged by this instance and not read back yet. */
  const fresh = new Map<string, Made>();
  const making = new Map<string, Promise<void>>();
  const ready = createReady(maxReady);
  const waiting = new Set<() => void>();
  /** Marks of erasure by owner, each asked for many times a record; undefined = too many of them, then the table says. */
  let marks: Map<string, Buffer> | undefined = new Map();
  /** Who asks whether a value can be read and who reads it come one after the other: it is opened once. */
  let lastSealed: Buffer | undefined;
  let lastPlain: Buffer | undefined;

  function puts(batch: RecordBatch): Put[] {
    const found: Put[] = [];
    for (const record of batch.records) {
      const name = record.key?.toString() ?? '';
      const at = name.lastIndexOf('#');
      const owner = name.slice(0, at);
      if (at < 0 || !wants(owner)) continue;
      if (name.slice(at) === '#erased') {
        found.push({ key: `e/${owner}`, value: record.value });
        marks?.delete(owner);
        if (record.value !== null) marks?.set(owner, record.value);
        if (marks !== undefined && marks.size > maxMarks) marks = undefined;
      }
      else {
        const id = name.slice(at + '#key/'.length);
        found.push({ key: `k/${id}`, value: record.value }, { key: `o/${owner}#${id}`, value: record.value === null ? null : Buffer.alloc(0) });
        const own = fresh.get(owner);
        if (own !== undefined && own.key.id.toString('hex') === id) fresh.delete(owner);
        // Another instance may have made the one that all take from now on.
        ready.forget(owner, latin1(id));
        lastSealed = lastPlain = undefined;
      }
    }
    return found;
  }

  const follow: TopicTable = createTopicTable({ reader, admin, topic, table, puts, onError });
  follow.onAdvance(() => { for (const check of waiting) check(); });

  /** The first by id: with several keys of one owner, every instance seals with the same. */
  function stored(owner: string): SealKey | undefined {
    for (const { key } of table.range(`o/${owner}#`)) {
      const id = key.slice(`o/${owner}#`.length);
      return ready.ofId(latin1(id)) ?? readKey(id);
    }
    return undefined;
  }

  function readKey(id: string): SealKey | undefined {
    const bytes = table.get(`k/${id}`);
    if (bytes === undefined) return undefined;
    const { owner, keyId, wrapped } = serde.decode(bytes).value as { owner: string; keyId: Buffer; wrapped: Buffer };
    return sealKey(keyId, unwrap(wrapping, owner, keyId, wrapped));
  }

  async function make(owners: readonly string[]): Promise<void> {
    const made = owners.map((owner): Made => {
      const id = randomBytes(16);
      const secret = randomBytes(32);
      const value = serde.encode('weir.internal.SealKey', { owner, keyId: id, wrapped: wrap(wrapping, owner, id, secret), createdAt: now() });
      return { owner, key: sealKey(id, secret), record: { partition: appender.partitionFor(topic, owner), key: Buffer.from(keyName(owner, id)), value } };
    });
    await appender.append(topic, made.map((m) => m.record));
    for (const m of made) fresh.set(m.owner, m);
  }

  function current(owner: string): SealKey | undefined {
    const known = ready.ofOwner(owner);
    if (known !== undefined) return known;
    const key = stored(owner) ?? fresh.get(owner)?.key;
    if (key !== undefined) ready.keep(key, owner);
    return key;
  }

  function byId(keyId: string): SealKey | undefined {
    const known = ready.ofId(keyId);
    if (known !== undefined) return known;
    const key = readKey(Buffer.from(keyId, 'latin1').toString('hex')) ?? [...fresh.values()].find((m) => m.key.id.toString('latin1') === keyId)?.key;
    if (key !== undefined) ready.keep(key);
    return key;
  }

  const reachedEnd = async (): Promise<void> => {
    const ends = await admin.endOffsets(topic);
    const wanted: number[] = [];
    for (const [partition, end] of ends) wanted[partition] = end;
    if (follow.atLeast(wanted)) return;
    await new Promise<void>((resolve) => {
      const check = (): void => {
        if (!follow.atLeast(wanted)) return;
        waiting.delete(check);
        resolve();
      };
      waiting.add(check);
    });
  };

  return {
    async start() {
      await follow.start();
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
    positions: () => Array.from(follow.positions(), (n) => n ?? 0),
    atLeast: (offsets) => follow.atLeast(offsets),
    current,
    async ensure(owners) {
      const missing: string[] = [];
      const others: Promise<void>[] = [];
      for (const owner of new Set(owners)) {
        if (current(owner) !== undefined) continue;
        const running = making.get(owner);
        if (running === undefined) missing.push(owner);
        else others.push(running);
      }
      if (missing.length > 0) {
        const work = make(missing).finally(() => { for (const owner of missing) making.delete(owner); });
        for (const owner of missing) making.set(owner, work);
        others.push(work);
      }
      await Promise.all(others);
    },
    byId,
    has: (keyId) => ready.hasId(keyId) || table.has(`k/${Buffer.from(keyId, 'latin1').toString('hex')}`) || byId(keyId) !== undefined,
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
        const bytes = marks === undefined ? table.get(`e/${id}`) : marks.get(id);
        if (bytes !== undefined) until = Math.max(until, Number((serde.decode(bytes).value as { at: number }).at));
      }
      return until;
    },
    async markErased(ids, at, erasure) {
      const records = ids.map((owner): OutRecord => ({ partition: appender.partitionFor(topic, owner), key: Buffer.from(markName(owner)), value: serde.encode('weir.internal.Erased', { owner, at, erasure }) }));
      const offsets = await appender.append(topic, records);
      const reach = new Map<number, number>();
      records.forEach((r, i) => reach.set(r.partition, Math.max(reach.get(r.partition) ?? 0, offsets[i]! + 1)));
      return reach;
    },
    async destroy(owners) {
      await reachedEnd();
      const records: OutRecord[] = [];
      for (const owner of owners) {
        for (const { key } of table.range(`o/${owner}#`)) records.push({ partition: appender.partitionFor(topic, owner), key: Buffer.from(`${owner}#key/${key.slice(`o/${owner}#`.length)}`), value: null });
      }
      await appender.append(topic, records);
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
    async stop() {
      await follow.close();
      await Promise.all([reader.close(), admin.close(), appender.close()]);
    },
  };
}

interface Made {
  readonly owner: string;
  readonly key: SealKey;
  readonly record: OutRecord;
}

function aadOf(owner: string, id: Buffer): Buffer {
  return Buffer.concat([id, Buffer.from(owner)]);
}

function wrap(key: KeyObject, owner: string, id: Buffer, secret: Buffer): Buffer {
  const nonce = randomBytes(nonceBytes);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(aadOf(owner, id));
  return Buffer.concat([nonce, cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
}

function unwrap(key: KeyObject, owner: string, id: Buffer, wrapped: Buffer): Buffer {
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, wrapped.subarray(0, nonceBytes)).setAAD(aadOf(owner, id));
    decipher.setAuthTag(wrapped.subarray(-tagBytes));
    const secret = decipher.update(wrapped.subarray(nonceBytes, -tagBytes));
    // GCM gives all of it before: this checks the tag.
    decipher.final();
    return secret;
  } catch (error) {
    throw new WeirError('config-invalid', `a key of ${owner} cannot be opened: WEIR_KEY is not the workspace key that it was made under`, { cause: error });
  }
}
