import type { Serde } from '@weir/log';
import type { Age } from '@weir/pipeline';
import { createRecent, type Seen, type Table } from '@weir/state';
import { countedOf, type Counted } from './caps.ts';
import { createEndBlocks } from './end-blocks.ts';
import { ledgerKeys, keepsInstead } from './ledger.ts';
import { belongs, counts as endCounts, isNone, nextOwner, ownerPrefix, unknownBefore, type OwnerMark } from './owners.ts';
import type { EndValue, ParkValue } from './types.ts';

/** One record of weir.ledger.<destination>, as read from the topic or as just acknowledged. */
export interface LedgerEntry {
  readonly key: string;
  readonly value: Buffer | null;
  readonly offset: number;
  /** Of one that was read, ms. */
  readonly timestamp?: number;
  /** The value decoded, where the caller has it because it wrote it. */
  readonly end?: EndValue | undefined;
}

/** A marker of a parked subject, with its key on the topic. Several may stand for one subject, of several owners. */
export interface ParkMark extends ParkValue {
  readonly key: string;
}

/** A mark and where it was read; no place where it was not. */
export interface SeenMark extends OwnerMark {
  readonly offset?: number;
  readonly timestamp?: number | undefined;
  /** The last mark before here that does not belong to this ledger: where its answer was lost, it was written again further on. */
  readonly stray?: OwnerMark | undefined;
}

/** Who owned the partition where a reader of the topic stands. */
export interface OwnerSeen {
  owner?: SeenMark | undefined;
}

/** Since when deliveries may have been called of which a lost ledger told, ms: longer ago than any vendor knows a key. */
export const sinceEver = 1;

export interface IntentValue {
  readonly fromOffset: number;
  readonly toOffset: number;
  readonly at: number;
}

/**
 * Cache of the ledger partitions that this instance owns or owned, in a local table. It follows the rules of ledger.ts,
 * and keeps per (subject, operation, object) how old the newest delivered record is. Deleting the folder
 * costs a read of the topic, nothing else.
 */
export interface LedgerStore {
  end(key: string): EndValue | undefined;
  /** What earlier owners may have called from `position` on: up to the largest end of their intents, and of what the first mark of a ledger that was made anew says, since the earliest time. */
  intent(partition: number, position: number): IntentValue | undefined;
  /** Markers in the order of the table: up to `limit` of them behind the one with the key `after`. */
  parks(partition: number, after?: string, limit?: number): ParkMark[];
  /** The owner by the order of the topic, as far as it was applied; undefined = none was seen. */
  owner(partition: number): SeenMark | undefined;
  /** The topic is read from `offset` on, without what lies before: who owned the partition there is not known. */
  passOver(partition: number, offset: number): void;
  /** The newest delivered record of this subject and operation that set this object (EndValue); '' = of those that do not say what they set. Undefined = none. */
  lastDelivered(subject: string, operation: string, object: string): Age | undefined;
  /** What of the subject counts against caps, since a time; empty where the cache was opened without counts. */
  counted(subject: string, since: number): Counted[];
  /** Ends that are kept while another one, written late, stands behind them on the topic, each told once. */
  overwritten(partition: number): EndValue[];
  /** Next offset of the topic partition that this cache has not applied. */
  position(partition: number): number;
  /** The last record of it that was read: tells the topic from another one of the same name. */
  lastRead(partition: number): { readonly offset: number; readonly timestamp: number } | undefined;
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

/** Of kept counts; the longest day has 26 hours. */
const countedForMs = 48 * 3_600_000;
const stamp = (time: number): string => String(Math.max(0, time)).padStart(15, '0');
/** A cache with another one is read again; one of the layout before is a beginning of this one, in which neither first offsets nor objects are known. */
const layout = Buffer.from('5');
const layoutBefore = Buffer.from('4');
/** Of a generation: more than a destination has in hand. */
const maxAbsent = 8000;
const countPrefix = (subject: string) => `c/${encodeURIComponent(subject)}/`;

/**
 * @param counts keep what counts against caps; a cache that did not from its beginning must not be opened with it
 * @param gathered see createEndBlocks
 */
export function createLedgerStore(table: Table, serde: Serde, counts = false, gathered?: number): LedgerStore {
  const found = table.get('#layout');
  if (found?.equals(layout) !== true) {
    if (found?.equals(layoutBefore) !== true) table.clear();
    table.putBatch([{ key: '#layout', value: layout }]);
  }
  function decodeIntent(value: Buffer): IntentValue {
    const { fromOffset, toOffset, at, calledTo } = serde.decode(value).value as IntentValue & { readonly calledTo?: number };
    return calledTo === undefined ? { fromOffset, toOffset, at } : { fromOffset: 0, toOffset: calledTo, at: sinceEver };
  }
  const decodeEnd = (value: Buffer): EndValue => serde.decode(value).value as EndValue;
  /** Keys that were asked for and have no end in the table: each is asked for again when its end is written, and at each look at its head. */
  const absent = createRecent<true>(maxAbsent);
  const blocks = createEndBlocks(table, gathered);

  function write(puts: Map<string, Buffer | null>, positions?: ReadonlyMap<number, number>, seen?: ReadonlyMap<number, Seen>): void {
    const rows = blocks.rows();
    for (const [key, value] of puts) rows.push({ key, value });
    table.putBatch(rows, positions, seen);
    blocks.written();
  }

  function markOf(value: Buffer | null | undefined): SeenMark | undefined {
    return value === null || value === undefined ? undefined : JSON.parse(value.toString('utf8')) as SeenMark;
  }

  /** As the table has them; asked for with every batch. */
  const owners = new Map<number, SeenMark | undefined>();

  function ownerMark(partition: number): SeenMark | undefined {
    if (!owners.has(partition)) owners.set(partition, markOf(table.get(ownerOf(partition))));
    return owners.get(partition);
  }

  /** As the table has them; asked for with every batch. */
  const floors = new Map<number, number>();

  /** True: no mark stands before this one, and it says what may have been called before. */
  function see({ value, offset, timestamp }: LedgerEntry, seen: OwnerSeen): boolean {
    if (value === null) return false;
    const { token, owner, calledTo = 0 } = serde.decode(value).value as OwnerMark & { readonly calledTo?: number };
    const stray = seen.owner?.stray;
    if (!belongs({ token, owner }, offset)) {
      seen.owner = { ...(seen.owner ?? unknownBefore(0)), stray: { token, owner } };
      return false;
    }
    if (stray?.token === token && stray.owner === owner) return false;
    const isFirst = isNone(seen.owner);
    seen.owner = nextOwner(seen.owner, { token, owner, ...(timestamp === undefined ? {} : { offset, timestamp }), ...(stray === undefined ? {} : { stray }) });
    return isFirst && calledTo > 0;
  }

  function stored(key: string): ReturnType<typeof blocks.find> {
    return absent.get(key) === true ? undefined : blocks.find(key);
  }

  /** By partition and key: the end that is kept, of which another one stands behind it on the topic. */
  const overwritten = new Map<number, Map<string, EndValue>>();

  /** An end that is not kept is the last of its key on the topic, or one that says the same is. */
  function noteLast(partition: number, key: string, kept: EndValue, last: EndValue): void {
    const isSame = kept.state === last.state && kept.effect === last.effect && kept.offset === last.offset;
    if (isSame) overwritten.get(partition)?.delete(key);
    else if (overwritten.get(partition)?.set(key, kept) === undefined) overwritten.set(partition, new Map([[key, kept]]));
  }

  /** @param partition whose newest records are read, in order; undefined = older ones */
  function addEnd(partition: number | undefined, key: string, value: Buffer, puts: Map<string, Buffer | null>, owner?: OwnerMark, later = decodeEnd(value)): void {
    const known = stored(key);
    const before = known === undefined ? undefined : decodeEnd(known.value);
    if (!endCounts(owner, later) || (before !== undefined && !keepsInstead(before, later))) {
      if (partition !== undefined && before !== undefined) noteLast(partition, key, before, later);
      return;
    }
    if (partition !== undefined) overwritten.get(partition)?.delete(key);
    absent.delete(key);
    // Not let go before the one that it replaces would be, nor before those which that one replaced: their owners' clocks differ.
    blocks.add(key, value, Math.max(later.at, known?.time ?? 0), later.acceptedAt, later.state === 'delivered' ? later : undefined);
    if (counts) countPuts(key, later, before, puts);
  }

  /** An end counts once: when it is first known, or first known to be of effect; and no more when it is known to be of none. */
  function countPuts(key: string, later: EndValue, before: EndValue | undefined, puts: Map<string, Buffer | null>): void {
    const counted = countedOf(later);
    const didCount = before !== undefined && countedOf(before) !== undefined;
    const prefix = countPrefix(later.subject);
    if (counted === undefined && didCount) {
      for (const row of [...table.range(prefix), ...puts].map((put) => (Array.isArray(put) ? put[0] : put.key))) if (row.startsWith(prefix) && row.endsWith(`/${key}`)) puts.set(row, null);
    }
    if (counted === undefined || didCount) return;
    for (const stored of table.range(prefix)) if (timeOf(stored.key, prefix) < later.at - countedForMs) puts.set(stored.key, null);
    puts.set(countKey(later, key), Buffer.from(JSON.stringify([counted.purpose, counted.channel, counted.operation])));
  }

  const countKey = ({ subject, at }: EndValue, key: string): string => `${countPrefix(subject)}${stamp(at)}/${key}`;
  const timeOf = (key: string, prefix: string): number => Number(key.slice(prefix.length, prefix.length + 15));

  /** As the table has them, by partition and key there: a few, and each batch that is called writes one. */
  const intents = new Map<number, Map<string, IntentValue>>();

  function intentsOf(partition: number): Map<string, IntentValue> {
    let known = intents.get(partition);
    if (known === undefined) {
      known = new Map();
      for (const { key, value } of table.range(intentPrefix(partition))) known.set(key, decodeIntent(value));
      intents.set(partition, known);
    }
    return known;
  }

  /** Intents of earlier owners go when everything that they cover is committed: the newest owner starts behind them. */
  function intentPuts(partition: number, key: string, value: Buffer | null, puts: Map<string, Buffer | null>): void {
    const known = intentsOf(partition);
    const name = intentPrefix(partition) + (key.startsWith(ledgerKeys.intentPrefix) ? key.slice(`${ledgerKeys.intentPrefix}${partition}/`.length) : key);
    if (value === null) known.delete(name);
    else {
      const intent = decodeIntent(value);
      for (const [stored, { toOffset }] of known) {
        if (toOffset > intent.fromOffset) continue;
        known.delete(stored);
        puts.set(stored, null);
      }
      known.set(name, intent);
    }
    puts.set(name, value);
  }

  return {
    end(key) {
      const known = stored(key);
      if (known !== undefined) return decodeEnd(known.value);
      if (absent.get(key) === undefined) absent.set(key, true);
      return undefined;
    },
    intent(partition, position) {
      let found: IntentValue | undefined;
      for (const { fromOffset, toOffset, at } of intentsOf(partition).values()) {
        if (toOffset <= position) continue;
        found = found === undefined ? { fromOffset, toOffset, at } : { fromOffset: Math.min(fromOffset, found.fromOffset), toOffset: Math.max(toOffset, found.toOffset), at: Math.min(at, found.at) };
      }
      return found;
    },
    parks(partition, after, limit = Number.POSITIVE_INFINITY) {
      const prefix = parkPrefix(partition);
      const found: ParkMark[] = [];
      for (const { key: stored, value } of table.range(prefix, after === undefined ? undefined : prefix + after.slice(ledgerKeys.parkPrefix.length))) {
        if (found.length >= limit) break;
        found.push({ ...(serde.decode(value).value as ParkValue), key: ledgerKeys.parkPrefix + stored.slice(prefix.length) });
      }
      return found;
    },
    owner: ownerMark,
    passOver(partition, offset) {
      table.putBatch([{ key: ownerOf(partition), value: Buffer.from(JSON.stringify(unknownBefore(offset))) }]);
      owners.delete(partition);
    },
    lastDelivered: blocks.lastDelivered,
    counted(subject, since) {
      const prefix = countPrefix(subject);
      const found: Counted[] = [];
      for (const { key, value } of table.range(prefix)) {
        const at = timeOf(key, prefix);
        if (at < since) continue;
        const [purpose, channel, operation] = JSON.parse(value.toString('utf8')) as [string, string | null, string];
        found.push({ key: key.slice(prefix.length + 16), at, purpose, channel, operation });
      }
      return found;
    },
    overwritten(partition) {
      const found = overwritten.get(partition);
      overwritten.delete(partition);
      return found === undefined ? [] : [...found.values()];
    },
    position: (partition) => table.position(partition) ?? 0,
    lastRead: (partition) => table.seen(partition),
    apply(partition, entries, nextOffset) {
      const puts = new Map<string, Buffer | null>();
      const before = ownerMark(partition);
      const seen: OwnerSeen = { owner: before };
      for (const entry of entries) {
        const { key, value, end } = entry;
        if (key.endsWith('#end')) {
          if (value !== null) addEnd(partition, key.slice(0, -4), value, puts, seen.owner, end);
        } else if (key.startsWith(ownerPrefix)) {
          if (see(entry, seen)) intentPuts(partition, key, value, puts);
        } else if (key.startsWith(ledgerKeys.intentPrefix)) intentPuts(partition, key, value, puts);
        else if (key.startsWith(ledgerKeys.parkPrefix)) puts.set(parkPrefix(partition) + key.slice(ledgerKeys.parkPrefix.length), value);
      }
      if (seen.owner !== before) puts.set(ownerOf(partition), Buffer.from(JSON.stringify(seen.owner)));
      const last = entries.at(-1);
      write(puts, new Map([[partition, nextOffset]]), last?.timestamp === undefined ? undefined : new Map([[partition, { offset: last.offset, timestamp: last.timestamp, currentAt: 0 }]]));
      owners.set(partition, seen.owner);
    },
    applyOlder(entries, seen = {}) {
      const puts = new Map<string, Buffer | null>();
      for (const entry of entries) {
        const { key, value } = entry;
        if (key.startsWith(ownerPrefix)) see(entry, seen);
        else if (key.endsWith('#end') && value !== null) addEnd(undefined, key.slice(0, -4), value, puts, seen.owner);
      }
      write(puts);
    },
    floor(partition) {
      let floor = floors.get(partition);
      if (floor === undefined) floors.set(partition, floor = Number(table.get(floorKey(partition))?.toString('latin1') ?? 0));
      return floor;
    },
    setFloor(partition, time) {
      table.putBatch([{ key: floorKey(partition), value: Buffer.from(String(time), 'latin1') }]);
      floors.set(partition, time);
    },
    prune(time, limit) {
      const puts = new Map<string, Buffer | null>();
      const looked = blocks.prune(time, limit, (value) => {
        if (!counts) return;
        const end = decodeEnd(value);
        puts.set(countKey(end, end.key), null);
      });
      if (looked === 0) return 0;
      // In one transaction: what is forgotten is asked of the topic from then on.
      const raised = [...table.positions().keys()].filter((partition) => this.floor(partition) < time);
      for (const partition of raised) puts.set(floorKey(partition), Buffer.from(String(time), 'latin1'));
      write(puts);
      for (const partition of raised) floors.set(partition, time);
      return looked;
    },
    bytes: () => table.bytes(),
    close: () => table.close(),
  };
}
