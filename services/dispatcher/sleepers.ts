import type { Table } from '@weir/state';
import { dueOf, firstLine, isQuotaWait, nextLine, waitsAs, type HeadState, type Line, type Parked, type QuotaWait } from './lane.ts';
import type { ParkMark } from './ledger-store.ts';

/** What its head does; `empty` = nothing of it waits any more. */
export type Waits = 'restrict' | 'use' | QuotaWait | 'empty';

/** A parked subject that nobody has in hand. */
export interface Sleeper {
  readonly parked: Parked;
  /** Of its lane. */
  readonly fence: number;
  /** While a new owner looks for its records: what its markers say together. */
  readonly found?: FoundMark | undefined;
}

/** The markers of one subject as one; `head` is the offset of the record that they tell of. */
export interface FoundMark extends ParkMark {
  readonly head: number;
}

/**
 * The parked subjects of one partition that only wait, in a local table, ordered by when they are due: in memory are those
 * that somebody has in hand. The table tells nothing that markers and topic do not: an owner begins with an empty one.
 */
export interface Sleepers {
  put(subject: string, sleeper: Sleeper): void;
  /** Takes it out; undefined = it does not sleep. */
  take(subject: string): Sleeper | undefined;
  peek(subject: string): Sleeper | undefined;
  size(): number;
  /** Up to `limit` subjects whose head may be tried at `now` (ms), the longest due first. */
  due(waits: Waits, now: number, limit: number): string[];
  /** When the first of these is due, ms; Infinity = there is none. */
  firstDue(waits: Waits): number;
  /** Buckets that some have waited for. */
  quotas(): Iterable<QuotaWait>;
  /** Subjects with something that restricts, and those with a use due before `until`, ms; not those that wait for a quota, whose markers say what is to be known. */
  withRestrictsOrDue(until: number): Iterable<string>;
  /** Up to `limit` subjects whose marker was written at or before `time`, ms. */
  marked(time: number, limit: number): string[];
  /** Up to `limit` subjects whose next record is their oldest, parked at or before `time`, ms. */
  parkedBefore(time: number, limit: number): string[];
  /** Since when the oldest waits, to the millisecond; undefined = none does. */
  oldest(): number | undefined;
  /** Forgets all, also what an earlier owner of this process left. What is put from then on is found by its subject alone, until `list`. `turn` lets others have theirs. */
  clear(turn: () => Promise<void>): Promise<void>;
  /** From now on they are found by time, too. */
  list(turn: () => Promise<void>): Promise<void>;
}

/** Rows that are not written to the table yet. More in one transaction cost as much time and, in a take-over, memory. */
const maxChanges = 1000;
/** Subjects between two turns of others. */
const listAtOnce = 250;
/** Offsets of a subject beyond which it is not written and read again at each of its records. */
const maxWritten = 256;
const maxTime = 9e15;
const prefixOf = (waits: Waits): string => (isQuotaWait(waits) ? `q/${encodeURIComponent(waits)}/` : `${waits[0]}/`);
const digits = 16;
const none = Buffer.alloc(0);

const stamp = (time: number): string => String(Math.min(Math.max(0, Math.ceil(time)), maxTime)).padStart(digits, '0');

type Packed = readonly [offsets: readonly number[], due: number, reason: string, attempts: number, readBacks: number, notApplied: boolean, maybeSince: number, batchLimit: number, last?: HeadState['last'], trouble?: HeadState['trouble']];
const packLine = ({ offsets, due, reason, attempts, readBacks, notApplied, maybeSince, batchLimit, last, trouble }: Line): Packed => [offsets, due, reason, attempts, readBacks, notApplied, maybeSince, batchLimit, last, trouble];
const openLine = ([offsets, due, reason, attempts, readBacks, notApplied, maybeSince, batchLimit, last, trouble]: Packed): Line => ({ offsets: [...offsets], due, reason, attempts, readBacks, notApplied, last: last ?? undefined, trouble: trouble ?? undefined, batchLimit, maybeSince });

function pack({ parked, fence, found }: Sleeper): Buffer {
  return Buffer.from(JSON.stringify([parked.key, packLine(parked.uses), packLine(parked.restricts), parked.since, parked.markedAt, parked.takenAt, parked.spared, fence, found]));
}

function open(value: Buffer): Sleeper {
  const [key, uses, restricts, since, markedAt, takenAt, spared, fence, found] = JSON.parse(value.toString()) as [string, Packed, Packed, number, number, number, boolean, number, FoundMark | null | undefined];
  return { parked: { key, uses: openLine(uses), restricts: openLine(restricts), since, markedAt, takenAt, spared, saysDue: false, markedFrom: -1, pending: 0, held: undefined, resting: false, slot: undefined }, fence, found: found ?? undefined };
}

/** @param table of one destination; each partition has its own part of it */
export function createSleepers(table: Table, partition: number): Sleepers {
  const own = `${partition}/`;
  let changes = new Map<string, Buffer | null>();
  /** Those with many records. */
  const long = new Map<string, Sleeper>();
  /** As many as there are buckets of operations. */
  const quotas = new Set<QuotaWait>();
  let size = 0;
  let isListed = false;

  const stateKey = (subject: string): string => `${own}s/${subject}`;

  /** The keys that it is found by. */
  function lists(subject: string, { parked }: Sleeper): string[] {
    if (!isListed) return [];
    const line = nextLine(parked);
    if (line === undefined) return [`${own}${prefixOf('empty')}${stamp(0)}/${subject}`];
    const waits = waitsAs(parked, line);
    if (isQuotaWait(waits)) quotas.add(waits);
    return [
      `${own}${prefixOf(waits)}${stamp(dueOf(parked, line))}/${subject}`,
      `${own}${line === firstLine(parked) ? 'o/' : 'b/'}${stamp(parked.since)}/${subject}`,
      `${own}m/${stamp(parked.markedAt)}/${subject}`,
    ];
  }

  function change(key: string, value: Buffer | null): void {
    changes.set(key, value);
  }

  function flush(): void {
    if (changes.size === 0) return;
    const puts = [...changes.keys()].sort().map((key) => ({ key, value: changes.get(key)! }));
    table.putBatch(puts);
    changes = new Map();
  }

  function peek(subject: string): Sleeper | undefined {
    if (size === 0) return undefined;
    const known = long.get(subject);
    if (known !== undefined) return known;
    const key = stateKey(subject);
    const changed = changes.get(key);
    const value = changed === undefined ? table.get(key) : changed;
    return value === null || value === undefined ? undefined : open(value);
  }

  /** States behind a key; what is not written yet must be no state. */
  const written = (after: string | undefined): Iterable<{ key: string; value: Buffer }> => table.range(stateKey(''), after);

  /** Subjects listed under a prefix up to a time. */
  function* upTo(prefix: string, time: number): Generator<string> {
    if (time < 0) return;
    flush();
    const begin = own + prefix;
    const last = stamp(Math.floor(time));
    for (const { key } of table.range(begin)) {
      if (key.slice(begin.length, begin.length + digits) > last) return;
      yield key.slice(begin.length + digits + 1);
    }
  }

  function first(prefix: string): number {
    flush();
    const begin = own + prefix;
    for (const { key } of table.range(begin)) return Number(key.slice(begin.length, begin.length + digits));
    return Number.POSITIVE_INFINITY;
  }

  function some(subjects: Iterable<string>, limit: number): string[] {
    const found: string[] = [];
    if (limit > 0) for (const subject of subjects) if (found.push(subject) >= limit) break;
    return found;
  }

  return {
    put(subject, sleeper) {
      size++;
      if (sleeper.parked.uses.offsets.length + sleeper.parked.restricts.offsets.length > maxWritten) long.set(subject, sleeper);
      else change(stateKey(subject), pack(sleeper));
      for (const key of lists(subject, sleeper)) change(key, none);
      if (changes.size >= maxChanges) flush();
    },
    take(subject) {
      const found = peek(subject);
      if (found === undefined) return undefined;
      size--;
      if (!long.delete(subject)) change(stateKey(subject), null);
      for (const key of lists(subject, found)) change(key, null);
      return found;
    },
    peek,
    size: () => size,
    due: (waits, now, limit) => (size === 0 ? [] : some(upTo(prefixOf(waits), now), limit)),
    firstDue: (waits) => (size === 0 ? Number.POSITIVE_INFINITY : first(prefixOf(waits))),
    quotas: () => quotas,
    *withRestrictsOrDue(until) {
      yield* upTo(prefixOf('restrict'), maxTime);
      yield* upTo(prefixOf('use'), until);
    },
    marked: (time, limit) => (size === 0 ? [] : some(upTo('m/', time), limit)),
    parkedBefore: (time, limit) => (size === 0 ? [] : some(upTo('o/', time), limit)),
    oldest() {
      const oldest = size === 0 ? Number.POSITIVE_INFINITY : Math.min(first('o/'), first('b/'));
      return oldest === Number.POSITIVE_INFINITY ? undefined : oldest;
    },
    async clear(turn) {
      changes = new Map();
      long.clear();
      quotas.clear();
      size = 0;
      isListed = false;
      for (;;) {
        const keys = [];
        for (const { key } of table.range(own)) if (keys.push(key) >= maxChanges) break;
        if (keys.length === 0) return;
        table.putBatch(keys.map((key) => ({ key, value: null })));
        await turn();
      }
    },
    async list(turn) {
      flush();
      isListed = true;
      for (const [subject, sleeper] of long) for (const key of lists(subject, sleeper)) change(key, none);
      let after: string | undefined;
      for (;;) {
        let seen = 0;
        for (const { key, value } of written(after)) {
          after = key;
          const subject = key.slice(stateKey('').length);
          for (const list of lists(subject, open(value))) change(list, none);
          if (++seen >= listAtOnce) break;
        }
        if (changes.size >= maxChanges || seen < listAtOnce) flush();
        if (seen < listAtOnce) return;
        await turn();
      }
    },
  };
}
