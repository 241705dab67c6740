import type { LogRecord, RecordBatch, Serde } from '@weir/log';
import type { ConsentEntry, ConsentState } from '@weir/policy';
import type { Put, Table } from '@weir/state';

/** weir.consent in the local table: per identifier all its states in one value, per key the whole state, watermarks. */
export interface StateIndex {
  puts(batch: RecordBatch): readonly Put[];
  states(id: string): readonly ConsentEntry[] | 'too-many';
  stored(key: string): StoredState | undefined;
  /** Changes of the partition below this offset are folded and in this table. */
  folded(partition: number): number;
  /** Keys of the partition whose newest record on the topic is older than the one known. */
  regressed(partition: number): readonly string[];
}

export interface StoredState {
  readonly partition: number;
  readonly state: ConsentState;
  /** The state as it is on weir.consent. */
  readonly bytes: Buffer;
}

interface Entry extends ConsentEntry {
  readonly partition: number;
  readonly changedAt: number;
}
type Bucket = readonly Entry[] | 'too-many';

/** States of one identifier that are kept; an identifier with more is closed. */
const maxStates = 512;
const maxCached = 50_000;
const foldedPrefix = '#folded/';
const none: readonly Entry[] = Object.freeze([]);
const severity: Readonly<Record<ConsentState['state'], number>> = { granted: 0, unknown: 1, denied: 2, withdrawn: 2 };

/**
 * Whether `next` replaces `known` of the same key. On one partition the higher version; on two, which only an increase
 * of partitions brings about, the later change, and of equal ones the one that closes.
 */
function replaces(next: Entry, known: Entry): boolean {
  if (next.partition === known.partition) return next.version >= known.version;
  return next.changedAt === known.changedAt ? severity[next.state] >= severity[known.state] : next.changedAt > known.changedAt;
}

function encodeBucket(bucket: Bucket): Buffer {
  return Buffer.from(JSON.stringify(bucket === 'too-many' ? bucket : bucket.map((e) => [e.purpose, e.channel, e.topic, e.state, e.version, e.expiresAt, e.partition, e.changedAt])));
}

function decodeBucket(bytes: Buffer): Bucket {
  const value = JSON.parse(bytes.toString()) as 'too-many' | [string, string, string, ConsentState['state'], number, number | null, number, number][];
  if (value === 'too-many') return value;
  return value.map(([purpose, channel, topic, state, version, expiresAt, partition, changedAt]) => ({ purpose, channel, topic, state, version, expiresAt, partition, changedAt }));
}

const sameKey = (a: ConsentEntry, b: ConsentEntry) => a.purpose === b.purpose && a.channel === b.channel && a.topic === b.topic;

function withEntry(bucket: readonly Entry[], entry: Entry): Bucket {
  const at = bucket.findIndex((e) => sameKey(e, entry));
  if (at >= 0) return bucket.with(at, entry);
  return bucket.length >= maxStates ? 'too-many' : [...bucket, entry];
}

/** @param onUndecodable told of a state that is not Avro; its identifier is closed until a tombstone of it */
export function createStateIndex(table: Table, serde: Serde, onUndecodable: (record: LogRecord, partition: number, error: Error) => void): StateIndex {
  const cache = new Map<string, Bucket>();
  const watermarks = new Map<number, number>();
  const behind = new Map<number, Set<string>>();

  function bucketOf(id: string, pending?: ReadonlyMap<string, Bucket>): Bucket {
    const known = pending?.get(id) ?? cache.get(id);
    if (known !== undefined) return known;
    const bytes = table.get(`b|${id}`);
    const bucket = bytes === undefined ? none : decodeBucket(bytes);
    if (cache.size >= maxCached) cache.delete(cache.keys().next().value!);
    cache.set(id, bucket);
    return bucket;
  }

  function storedOf(key: string, pending?: ReadonlyMap<string, Buffer | null>): StoredState | undefined {
    const bytes = pending?.has(`s|${key}`) === true ? pending.get(`s|${key}`) : table.get(`s|${key}`);
    if (bytes === undefined || bytes === null) return undefined;
    const value = bytes.subarray(4);
    return { partition: bytes.readUInt32BE(0), state: serde.decode(value).value as ConsentState, bytes: value };
  }

  function setBehind(partition: number, key: string, is: boolean): void {
    const keys = behind.get(partition);
    if (!is) keys?.delete(key);
    else if (keys === undefined) behind.set(partition, new Set([key]));
    else keys.add(key);
  }

  /** One record of the topic into what the batch will put. */
  function apply(record: LogRecord, partition: number, buckets: Map<string, Bucket>, puts: Map<string, Buffer | null>): void {
    const key = record.key?.toString() ?? '';
    const id = key.slice(0, Math.max(0, key.indexOf('|')));
    if (record.value === null) {
      const stored = id === '' ? undefined : storedOf(key, puts);
      puts.set(`s|${key}`, null);
      const bucket = bucketOf(id, buckets);
      if (bucket !== 'too-many' && stored !== undefined) buckets.set(id, bucket.filter((e) => !sameKey(e, stored.state)));
      return;
    }
    let decoded: { readonly name: string; readonly value: any };
    try {
      decoded = serde.decode(record.value);
      if (decoded.name === 'weir.internal.ConsentFolded' && key.startsWith(foldedPrefix)) {
        const folded = Math.max(decoded.value.nextOffset, watermark(partition));
        watermarks.set(partition, folded);
        puts.set(`f|${partition}`, Buffer.from(String(folded), 'latin1'));
        return;
      }
      if (decoded.name !== 'weir.internal.ConsentState') throw new TypeError(`a ${decoded.name}`);
    } catch (error) {
      onUndecodable(record, partition, error as Error);
      if (id !== '') buckets.set(id, 'too-many');
      return;
    }
    const state = decoded.value as ConsentState;
    const entry: Entry = { purpose: state.purpose, channel: state.channel, topic: state.topic, state: state.state, version: state.version, expiresAt: state.expiresAt, partition, changedAt: state.changedAt };
    const bucket = bucketOf(id, buckets);
    const known = bucket === 'too-many' ? undefined : bucket.find((e) => sameKey(e, entry));
    if (known !== undefined && !replaces(entry, known)) return setBehind(partition, key, known.partition === partition);
    setBehind(partition, key, false);
    if (bucket !== 'too-many') buckets.set(id, withEntry(bucket, entry));
    const head = Buffer.allocUnsafe(4);
    head.writeUInt32BE(partition, 0);
    puts.set(`s|${key}`, Buffer.concat([head, record.value]));
  }

  function watermark(partition: number): number {
    const known = watermarks.get(partition);
    if (known !== undefined) return known;
    const bytes = table.get(`f|${partition}`);
    const folded = bytes === undefined ? 0 : Number(bytes.toString('latin1'));
    watermarks.set(partition, folded);
    return folded;
  }

  return {
    puts(batch) {
      const buckets = new Map<string, Bucket>();
      const puts = new Map<string, Buffer | null>();
      for (const record of batch.records) apply(record, batch.partition, buckets, puts);
      const out: Put[] = [...puts].map(([key, value]) => ({ key, value }));
      for (const [id, bucket] of buckets) {
        out.push({ key: `b|${id}`, value: bucket.length === 0 ? null : encodeBucket(bucket) });
        cache.set(id, bucket);
      }
      return out;
    },
    states: (id) => bucketOf(id),
    stored: (key) => storedOf(key),
    folded: watermark,
    regressed: (partition) => [...(behind.get(partition) ?? [])],
  };
}
