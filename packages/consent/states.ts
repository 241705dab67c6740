import { fieldReader, type LogRecord, type RecordBatch, type Serde } from '@weir/log';
import type { ConsentEntry, ConsentState } from '@weir/policy';
import { createRecent, type Put, type Table } from '@weir/state';

/**
 * weir.consent in the local table: per identifier all its states in one value, as they are on the topic (`b|<id>`); those of
 * an identifier that has too many one by one (`s|<key>`); watermarks; keys that a late writer overwrote on the topic (`r|<partition>|<key>`).
 */
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

/** One state of an identifier, not decoded: a restore goes over millions. */
interface Kept {
  readonly partition: number;
  /** Key of the record on weir.consent. */
  readonly key: Buffer;
  /** Its value. */
  readonly bytes: Buffer;
}
type Bucket = readonly Kept[] | 'too-many';

/** States of one identifier that are kept; an identifier with more is closed. */
const maxStates = 512;
/** Of a generation: what comes in a burst. A read from the table takes about 2 µs, and a cache of all who come again takes memory that the whole process has too little of. */
const cached = 2000;
const foldedPrefix = '#folded/';

/** Key on weir.consent of the mark up to where changes of the partition are folded. */
export const foldedKey = (partition: number): string => foldedPrefix + partition;
const stateName = 'weir.internal.ConsentState';
const none: readonly Kept[] = Object.freeze([]);
const noEntries: readonly ConsentEntry[] = Object.freeze([]);
const tooMany = Buffer.from([0xff]);
const nothing = Buffer.alloc(0);
const bar = '|'.charCodeAt(0);
const bucketPrefix = 'b|';
/** Of a state, what a decision needs. */
const entryOf = fieldReader<ConsentEntry>(stateName, ['purpose', 'channel', 'topic', 'state', 'version', 'expiresAt', 'over', 'changeId', 'unrouted']);
const severity: Readonly<Record<ConsentState['state'], number>> = { granted: 0, unknown: 1, denied: 2, withdrawn: 2 };

/**
 * Whether `next` replaces `known` of the same key. On one partition the higher version; on two, which only an increase
 * of partitions brings about, the later change, and of equal ones the one that closes.
 */
function replaces(next: ConsentState, of: number, known: ConsentState, on: number): boolean {
  if (of === on) return next.version >= known.version;
  return next.changedAt === known.changedAt ? severity[next.state] >= severity[known.state] : next.changedAt > known.changedAt;
}

/** Per state: partition (4 bytes), length of the key (2), of the value (4), then both. One byte 0xff = too many. */
function encodeBucket(bucket: Bucket): Buffer {
  if (bucket === 'too-many') return tooMany;
  let size = 0;
  for (const { key, bytes } of bucket) size += 10 + key.length + bytes.length;
  const out = Buffer.allocUnsafe(size);
  let at = 0;
  for (const { partition, key, bytes } of bucket) {
    at = out.writeUInt32LE(partition, at);
    at = out.writeUInt16LE(key.length, at);
    at = out.writeUInt32LE(bytes.length, at);
    out.set(key, at);
    out.set(bytes, at += key.length);
    at += bytes.length;
  }
  return out;
}

function decodeBucket(from: Buffer): Bucket {
  if (from.length === 1 && from[0] === tooMany[0]) return 'too-many';
  const found: Kept[] = [];
  for (let at = 0; at < from.length;) {
    const [partition, keyLength, valueLength] = [from.readUInt32LE(at), from.readUInt16LE(at + 4), from.readUInt32LE(at + 6)];
    const [begin, middle] = [at + 10, at + 10 + keyLength];
    at = middle + valueLength;
    found.push({ partition, key: from.subarray(begin, middle), bytes: from.subarray(middle, at) });
  }
  return found;
}

/** @param onUndecodable told of a state that is not Avro; its identifier is closed from then on */
export function createStateIndex(table: Table, serde: Serde, onUndecodable: (record: Pick<LogRecord, 'offset'>, partition: number, error: Error) => void): StateIndex {
  const cache = createRecent<readonly ConsentEntry[] | 'too-many'>(cached);
  const watermarks = new Map<number, number>();
  const behind = new Map<number, Set<string>>();

  /** @param name `b|<id>`, which is what the batch has its buckets under, too: a text is hashed once */
  function bucketOf(name: string, pending?: ReadonlyMap<string, Bucket>): Bucket {
    const known = pending?.get(name);
    if (known !== undefined) return known;
    const bytes = table.get(name);
    return bytes === undefined ? none : decodeBucket(bytes);
  }

  const stateOf = ({ bytes }: Kept): ConsentState => serde.decode(bytes).value as ConsentState;

  function states(id: string): readonly ConsentEntry[] | 'too-many' {
    const known = cache.get(id);
    if (known !== undefined) return known;
    const bucket = bucketOf(bucketPrefix + id);
    // Not kept: the table tells it nearly without a read.
    if (bucket.length === 0) return noEntries;
    const entries = bucket === 'too-many' ? bucket : bucket.map(({ bytes }) => entryOf(serde, bytes)!);
    cache.set(id, entries);
    return entries;
  }

  /** Kept in the table: the owner may be another process than the one that read the late record. */
  function behindOf(partition: number): Set<string> {
    let keys = behind.get(partition);
    if (keys === undefined) {
      const prefix = `r|${partition}|`;
      behind.set(partition, keys = new Set(Array.from(table.range(prefix), ({ key }) => key.slice(prefix.length))));
    }
    return keys;
  }

  function setBehind(partition: number, key: Buffer, is: boolean, puts: Put[]): void {
    const keys = behindOf(partition);
    if (!is && keys.size === 0) return;
    const text = key.toString();
    if (keys.has(text) === is) return;
    if (is) keys.add(text);
    else keys.delete(text);
    puts.push({ key: `r|${partition}|${text}`, value: is ? nothing : null });
  }

  function foldedTo(partition: number, key: Buffer, nextOffset: number, puts: Put[]): void {
    // Once compacted, the topic would say to who reads it anew that less is folded than others have said.
    setBehind(partition, key, nextOffset < watermark(partition), puts);
    const folded = Math.max(nextOffset, watermark(partition));
    watermarks.set(partition, folded);
    puts.push({ key: `f|${partition}`, value: Buffer.from(String(folded), 'latin1') });
  }

  /** The identifier is closed; its states are kept for who writes the next one. */
  function close(name: string, bucket: Bucket, buckets: Map<string, Bucket>, puts: Put[]): void {
    if (bucket !== 'too-many') for (const kept of bucket) puts.push(alone(kept));
    buckets.set(name, 'too-many');
  }

  const alone = (kept: Kept): Put => ({ key: `s|${kept.key.toString()}`, value: encodeBucket([kept]) });

  /** One record of the topic into what the batch will put. Only a key that is known already costs a decoding. */
  function apply(record: LogRecord, partition: number, buckets: Map<string, Bucket>, puts: Put[]): void {
    const { key, value } = record;
    const end = key === null ? -1 : key.indexOf(bar);
    const id = key === null || end < 0 ? '' : key.toString('utf8', 0, end);
    const name = bucketPrefix + id;
    cache.delete(id);
    if (value === null) {
      if (id === '') return;
      const bucket = bucketOf(name, buckets);
      if (bucket === 'too-many') puts.push({ key: `s|${key!.toString()}`, value: null });
      else buckets.set(name, bucket.filter((kept) => !kept.key.equals(key!)));
      return;
    }
    try {
      const schema = serde.check(value);
      if (schema === 'weir.internal.ConsentFolded' && key?.toString().startsWith(foldedPrefix) === true) return foldedTo(partition, key, (serde.decode(value).value as { nextOffset: number }).nextOffset, puts);
      if (schema !== stateName) throw new TypeError(`a ${schema}`);
    } catch (error) {
      onUndecodable(record, partition, error as Error);
      if (id !== '') close(name, bucketOf(name, buckets), buckets, puts);
      return;
    }
    const next: Kept = { partition, key: key ?? nothing, bytes: value };
    const bucket = bucketOf(name, buckets);
    if (bucket === 'too-many') return void puts.push(alone(next));
    const at = bucket.findIndex((kept) => kept.key.equals(next.key));
    if (at < 0) {
      setBehind(partition, next.key, false, puts);
      if (bucket.length < maxStates) buckets.set(name, bucket.length === 0 ? [next] : [...bucket, next]);
      else close(name, [...bucket, next], buckets, puts);
      return;
    }
    const known = bucket[at]!;
    if (!replaces(stateOf(next), partition, stateOf(known), known.partition)) return setBehind(partition, next.key, known.partition === partition, puts);
    setBehind(partition, next.key, false, puts);
    buckets.set(name, bucket.with(at, next));
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
      const out: Put[] = [];
      for (const record of batch.records) apply(record, batch.partition, buckets, out);
      for (const [name, bucket] of buckets) out.push({ key: name, value: bucket.length === 0 ? null : encodeBucket(bucket) });
      return out;
    },
    states,
    stored(key) {
      const end = key.indexOf('|');
      const bucket = bucketOf(bucketPrefix + (end < 0 ? '' : key.slice(0, end)));
      const wanted = Buffer.from(key);
      const found = (bucket === 'too-many' ? decodeBucket(table.get(`s|${key}`) ?? nothing) as readonly Kept[] : bucket).find((kept) => kept.key.equals(wanted));
      return found === undefined ? undefined : { partition: found.partition, state: stateOf(found), bytes: found.bytes };
    },
    folded: watermark,
    regressed: (partition) => [...behindOf(partition)],
  };
}
