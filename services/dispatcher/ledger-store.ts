import type { Serde } from '@weir/log';
import { createRecent, type Put, type Table } from '@weir/state';
import { countedOf, type Counted } from './caps.ts';
import { ledgerKeys, replaces } from './ledger.ts';
import { counts as endCounts, nextOwner, ownerPrefix, type OwnerMark } from './owners.ts';
import type { EndValue, ParkValue } from './types.ts';

/** One record of weir.ledger.<destination>, as read from the topic or as just acknowledged. */
export interface LedgerEntry {
  readonly key: string;
  readonly value: Buffer | null;
  readonly offset: number;
  /** The value decoded, where the caller has it because it wrote it. */
  readonly end?: EndValue | undefined;
}

/** A marker of a parked subject, with its key on the topic. Several may stand for one subject, of several owners. */
export interface ParkMark extends ParkValue {
  readonly key: string;
}

/** Who owned the partition where a reader of the topic stands. */
export interface OwnerSeen {
  owner?: OwnerMark | undefined;
}

export interface IntentValue {
  readonly fromOffset: number;
  readonly toOffset: number;
  readonly at: number;
}

/**
 * Cache of the ledger partitions that this instance owns or owned, in a local table. It follows the rules of ledger.ts,
 * and keeps per (subject, operation) the accept time of the newest delivered record. Deleting the folder
 * costs a read of the topic, nothing else. Ends are listed by batch under the time of the newest, so that old ones are
 * found without a look at the others.
 */
export interface LedgerStore {
  end(key: string): EndValue | undefined;
  /** What earlier owners may have called from `position` on: up to the largest end of their intents, since the earliest time. */
  intent(partition: number, position: number): IntentValue | undefined;
  /** Markers in the order of the table: up to `limit` of them behind the one with the key `after`. */
  parks(partition: number, after?: string, limit?: number): ParkMark[];
  /** The owner by the order of the topic, as far as it was applied; undefined = none was seen. */
  owner(partition: number): OwnerMark | undefined;
  /** A part of the topic is passed over: who owned the partition meanwhile is not known. */
  forgetOwner(partition: number): void;
  /** Accept time of the newest delivered record of this subject and operation; 0 = none. */
  lastDelivered(subject: string, operation: string): number;
  /** What of the subject counts against caps, since a time; empty where the cache was opened without counts. */
  counted(subject: string, since: number): Counted[];
  /** Next offset of the topic partition that this cache has not applied. */
  position(partition: number): number;
  apply(partition: number, entries: readonly LedgerEntry[], nextOffset: number): void;
  /** Entries from before the floor, read again for old records: only their ends count. `seen` goes from one part of a range to the next. */
  applyOlder(entries: readonly LedgerEntry[], seen?: OwnerSeen): void;
  /** The ends of everything that ended since then are here, ms since the epoch; 0 = all. */
  floor(partition: number): number;
  setFloor(partition: number, time: number): void;
  /** Forget up to about `limit` of the ends from before `time` (ms) and raise the floors to it; gives how many were looked at. What is asked for again is read from the topic. */
  prune(time: number, limit: number): number;
  /** Of the cache that hold something, bytes. */
  bytes(): number;
  close(): Promise<void>;
}

const intentPrefix = (partition: number) => `i/${partition}/`;
const parkPrefix = (partition: number) => `p/${partition}/`;
const floorKey = (partition: number) => `f/${partition}`;
const ownerOf = (partition: number) => `w/${partition}`;
const lastKey = (subject: string, operation: string) => `l/${subject}/${operation}`;

/** Of kept counts; the longest day has 26 hours. */
const countedForMs = 48 * 3_600_000;
const listPrefix = 't/';
const stamp = (time: number): string => String(Math.max(0, time)).padStart(15, '0');
/** Of a cache without lists: it is read again. */
const layout = Buffer.from('2');
/** Of a generation: more than a destination has in hand. */
const maxAbsent = 8000;
const countPrefix = (subject: string) => `c/${encodeURIComponent(subject)}/`;

/** @param counts keep what counts against caps; a cache that did not from its beginning must not be opened with it */
export function createLedgerStore(table: Table, serde: Serde, counts = false): LedgerStore {
  if (table.get('#layout')?.equals(layout) !== true) {
    table.clear();
    table.putBatch([{ key: '#layout', value: layout }]);
  }
  const decodeIntent = (value: Buffer): IntentValue => serde.decode(value).value as IntentValue;
  const decodeEnd = (value: Buffer): EndValue => serde.decode(value).value as EndValue;
  /** Keys that were asked for and have no end in the table: each is asked for again when its end is written, and at each look at its head. */
  const absent = createRecent<true>(maxAbsent);

  function markOf(value: Buffer | null | undefined): OwnerMark | undefined {
    return value === null || value === undefined ? undefined : JSON.parse(value.toString('utf8')) as OwnerMark;
  }

  function see(value: Buffer | null, seen: OwnerSeen): void {
    if (value === null) return;
    const { token, owner } = serde.decode(value).value as OwnerMark;
    seen.owner = nextOwner(seen.owner, { token, owner });
  }

  function stored(key: string): Buffer | undefined {
    return absent.get(key) === true ? undefined : table.get(`e/${key}`);
  }

  /** Ends of one batch, and the time of the newest. */
  interface Listed { readonly keys: string[]; at: number }

  function endPuts(key: string, value: Buffer, puts: Map<string, Buffer | null>, listed: Listed, owner?: OwnerMark, later = decodeEnd(value)): void {
    if (!endCounts(owner, later)) return;
    const before = puts.get(`e/${key}`) ?? stored(key);
    if (before && !replaces(decodeEnd(before).state, later.state)) return;
    puts.set(`e/${key}`, value);
    absent.delete(key);
    listed.keys.push(key);
    listed.at = Math.max(listed.at, later.at);
    if (counts) countPuts(key, later, before ? decodeEnd(before) : undefined, puts);
    if (later.state !== 'delivered') return;
    const last = lastKey(later.subject, later.operation);
    const known = puts.get(last) ?? table.get(last);
    if (known && Number(known.toString('latin1')) >= later.acceptedAt) return;
    puts.set(last, Buffer.from(String(later.acceptedAt), 'latin1'));
  }

  /** An end counts once: when it is first known, or first known to be of effect. */
  function countPuts(key: string, later: EndValue, before: EndValue | undefined, puts: Map<string, Buffer | null>): void {
    const counted = countedOf(later);
    if (counted === undefined || (before !== undefined && countedOf(before) !== undefined)) return;
    const prefix = countPrefix(later.subject);
    for (const stored of table.range(prefix)) if (timeOf(stored.key, prefix) < later.at - countedForMs) puts.set(stored.key, null);
    puts.set(countKey(later, key), Buffer.from(JSON.stringify([counted.purpose, counted.channel, counted.operation])));
  }

  const countKey = ({ subject, at }: EndValue, key: string): string => `${countPrefix(subject)}${stamp(at)}/${key}`;
  const timeOf = (key: string, prefix: string): number => Number(key.slice(prefix.length, prefix.length + 15));

  function listPuts({ keys, at }: Listed, puts: Map<string, Buffer | null>): void {
    if (keys.length > 0) puts.set(`${listPrefix}${stamp(at)}/${keys[0]!}`, Buffer.from(keys.join('\n')));
  }

  /** Everything that is kept of an end. */
  function forget(key: string, time: number, puts: Put[]): void {
    const value = table.get(`e/${key}`);
    const end = value === undefined ? undefined : decodeEnd(value);
    // One that replaced it later stands in a later list.
    if (end === undefined || end.at >= time) return;
    puts.push({ key: `e/${key}`, value: null });
    if (counts) puts.push({ key: countKey(end, key), value: null });
    const last = lastKey(end.subject, end.operation);
    if (end.state === 'delivered' && table.get(last)?.toString('latin1') === String(end.acceptedAt)) puts.push({ key: last, value: null });
  }

  /** Intents of earlier owners go when everything that they cover is committed: the newest owner starts behind them. */
  function intentPuts(partition: number, key: string, value: Buffer | null, puts: Map<string, Buffer | null>): void {
    const prefix = intentPrefix(partition);
    const name = prefix + key.slice(`${ledgerKeys.intentPrefix}${partition}/`.length);
    if (value !== null) {
      const { fromOffset } = decodeIntent(value);
      for (const stored of table.range(prefix)) if (decodeIntent(stored.value).toOffset <= fromOffset) puts.set(stored.key, null);
    }
    puts.set(name, value);
  }

  return {
    end(key) {
      const value = stored(key);
      if (value !== undefined) return decodeEnd(value);
      if (absent.get(key) === undefined) absent.set(key, true);
      return undefined;
    },
    intent(partition, position) {
      let found: IntentValue | undefined;
      for (const { value } of table.range(intentPrefix(partition))) {
        const { fromOffset, toOffset, at } = decodeIntent(value);
        if (toOffset <= position) continue;
        found = found === undefined ? { fromOffset, toOffset, at } : { fromOffset: Math.min(fromOffset, found.fromOffset), toOffset: Math.max(toOffset, found.toOffset), at: Math.min(at, found.at) };
      }
      return found;
    },
    parks(partition, after, limit = Number.POSITIVE_INFINITY) {
      const prefix = parkPrefix(partition);
      const found: ParkMark[] = [];
      for (const { key: stored, value } of table.range(prefix, after === undefined ? prefix : prefix + after.slice(ledgerKeys.parkPrefix.length))) {
        if (found.length >= limit) break;
        const key = ledgerKeys.parkPrefix + stored.slice(prefix.length);
        if (key !== after) found.push({ ...(serde.decode(value).value as ParkValue), key });
      }
      return found;
    },
    owner: (partition) => markOf(table.get(ownerOf(partition))),
    forgetOwner(partition) {
      table.putBatch([{ key: ownerOf(partition), value: null }]);
    },
    lastDelivered(subject, operation) {
      const value = table.get(lastKey(subject, operation));
      return value === undefined ? 0 : Number(value.toString('latin1'));
    },
    counted(subject, since) {
      const prefix = countPrefix(subject);
      const found: Counted[] = [];
      for (const { key, value } of table.range(prefix)) {
        const at = timeOf(key, prefix);
        if (at < since) continue;
        const [purpose, channel, operation] = JSON.parse(value.toString('utf8')) as [string, string | null, string];
        found.push({ at, purpose, channel, operation });
      }
      return found;
    },
    position: (partition) => table.position(partition) ?? 0,
    apply(partition, entries, nextOffset) {
      const puts = new Map<string, Buffer | null>();
      const listed: Listed = { keys: [], at: 0 };
      const before = markOf(table.get(ownerOf(partition)));
      const seen: OwnerSeen = { owner: before };
      for (const { key, value, end } of entries) {
        if (key.endsWith('#end')) {
          if (value !== null) endPuts(key.slice(0, -4), value, puts, listed, seen.owner, end);
        } else if (key.startsWith(ownerPrefix)) see(value, seen);
        else if (key.startsWith(ledgerKeys.intentPrefix)) intentPuts(partition, key, value, puts);
        else if (key.startsWith(ledgerKeys.parkPrefix)) puts.set(parkPrefix(partition) + key.slice(ledgerKeys.parkPrefix.length), value);
      }
      if (seen.owner !== before) puts.set(ownerOf(partition), Buffer.from(JSON.stringify(seen.owner)));
      listPuts(listed, puts);
      table.putBatch([...puts].map(([key, value]) => ({ key, value })), new Map([[partition, nextOffset]]));
    },
    applyOlder(entries, seen = {}) {
      const puts = new Map<string, Buffer | null>();
      const listed: Listed = { keys: [], at: 0 };
      for (const { key, value } of entries) {
        if (key.startsWith(ownerPrefix)) see(value, seen);
        else if (key.endsWith('#end') && value !== null) endPuts(key.slice(0, -4), value, puts, listed, seen.owner);
      }
      listPuts(listed, puts);
      table.putBatch([...puts].map(([key, value]) => ({ key, value })));
    },
    floor(partition) {
      const value = table.get(floorKey(partition));
      return value === undefined ? 0 : Number(value.toString('latin1'));
    },
    setFloor(partition, time) {
      table.putBatch([{ key: floorKey(partition), value: Buffer.from(String(time), 'latin1') }]);
    },
    prune(time, limit) {
      const puts: Put[] = [];
      let looked = 0;
      for (const { key, value } of table.range(listPrefix)) {
        if (looked >= limit || key.slice(listPrefix.length) >= stamp(time)) break;
        const keys = value.toString('utf8').split('\n');
        for (const end of keys) forget(end, time, puts);
        puts.push({ key, value: null });
        looked += keys.length;
      }
      if (looked === 0) return 0;
      // In one transaction: what is forgotten is asked of the topic from then on.
      for (const partition of table.positions().keys()) if (this.floor(partition) < time) puts.push({ key: floorKey(partition), value: Buffer.from(String(time), 'latin1') });
      table.putBatch(puts);
      return looked;
    },
    bytes: () => table.bytes(),
    close: () => table.close(),
  };
}
