import type { Reader } from '@weir/log';
import { rawHeaders } from '@weir/release';
import type { Put, Table } from '@weir/state';

export interface SeenEntry {
  readonly eventId: string;
  readonly hash: string;
  readonly offset: number;
  /** Kafka timestamp of the raw record, ms. */
  readonly timestamp: number;
  readonly acceptedAt: number;
  /** What `find` gave for it a moment ago, null = nothing; without it, `add` looks itself. */
  readonly known?: First | null;
}

/** How an event id first arrived. */
export interface First {
  readonly hash: string;
  readonly acceptedAt: number;
  readonly offset: number;
}

/**
 * Which body each event id first arrived with, per raw partition, within the dedupe window of the source: the
 * same id with another hash is a conflict (docs/architecture.md, Ids). A cache of the raw topic itself: what it
 * lacks is read from there. Entries stand in generations as long as the window; a look-up sees this one and the
 * one before, older ones are deleted a little with every batch, so the disk holds two windows at most.
 * Key `<topic>/<generation>/<partition>/<event id>` → `<hash>@<offset>@<accept time>`.
 */
export interface Seen {
  /** Fill from the raw topic up to `position`, at most back to the window. */
  load(topic: string, partition: number, position: number, windowMs: number, now: number): Promise<void>;
  /** How the event id first came, as far as it is known: perhaps this record itself, read again. */
  find(topic: string, partition: number, entry: SeenEntry, windowMs: number): First | undefined;
  add(topic: string, partition: number, entries: readonly SeenEntry[], next: number, windowMs: number): void;
  close(): Promise<void>;
}

const sweepKeys = 5000;

export function createSeen(table: Table, reader: Reader): Seen {
  const generation = (timestamp: number, windowMs: number): number => Math.floor(timestamp / Math.max(windowMs, 1000));
  const keyOf = (topic: string, gen: number, partition: number, eventId: string): string => `${topic}/${gen}/${partition}/${eventId}`;
  const positionKey = (topic: string, partition: number): string => `#/${topic}/${partition}`;
  const oldestKey = (topic: string): string => `#oldest/${topic}`;
  /** Oldest generation with entries, per topic, as stored. */
  const oldestOf = new Map<string, number>();
  const number = (key: string): number | undefined => {
    const value = table.get(key);
    return value === undefined ? undefined : Number(value.toString('latin1'));
  };
  const text = (value: number | string): Buffer => Buffer.from(String(value), 'latin1');

  function oldest(topic: string): number | undefined {
    const known = oldestOf.get(topic) ?? number(oldestKey(topic));
    if (known !== undefined) oldestOf.set(topic, known);
    return known;
  }
  function setOldest(topic: string, gen: number, puts: Put[]): void {
    oldestOf.set(topic, gen);
    puts.push({ key: oldestKey(topic), value: text(gen) });
  }

  function find(topic: string, partition: number, entry: SeenEntry, windowMs: number): First | undefined {
    const gen = generation(entry.timestamp, windowMs);
    const first = oldest(topic);
    if (first !== undefined && first > gen) return undefined;
    // Most of the time there is no generation before this one.
    const found = (first === undefined || first < gen ? table.get(keyOf(topic, gen - 1, partition, entry.eventId)) : undefined) ?? table.get(keyOf(topic, gen, partition, entry.eventId));
    if (found === undefined) return undefined;
    const [hash, offset, acceptedAt] = found.toString('latin1').split('@') as [string, string, string?];
    // Entries of an earlier version end with the offset.
    return { hash, offset: Number(offset), acceptedAt: acceptedAt === undefined ? entry.acceptedAt : Number(acceptedAt) };
  }

  /** Deletes some of the oldest generation that no look-up sees any more. */
  function sweep(topic: string, lowest: number, newest: number, puts: Put[]): void {
    const first = oldest(topic);
    if (first === undefined || lowest < first) return setOldest(topic, lowest, puts);
    if (first >= newest - 1) return;
    let found = 0;
    for (const { key } of table.range(`${topic}/${first}/`)) {
      puts.push({ key, value: null });
      if (++found === sweepKeys) return;
    }
    setOldest(topic, first + 1, puts);
  }

  const seen: Seen = {
    async load(topic, partition, position, windowMs, now) {
      const known = number(positionKey(topic, partition)) ?? 0;
      // A checkpoint beyond the committed position by a crash is fine; one of another topic would be, too: offsets decide.
      if (known >= position) return;
      await reader.read(topic, partition, known, position, (batch) => {
        const recent = batch.records.filter((r) => r.timestamp > now - windowMs);
        seen.add(topic, partition, recent.map((r) => {
          const { eventId, hash, acceptedAt } = rawHeaders(r);
          return { eventId, hash, acceptedAt, offset: r.offset, timestamp: r.timestamp };
        }), batch.nextOffset, windowMs);
      });
    },
    find,
    add(topic, partition, entries, next, windowMs) {
      const puts: Put[] = [];
      const fresh = new Set<string>();
      let newest = 0;
      let lowest = Number.MAX_SAFE_INTEGER;
      for (const entry of entries) {
        const gen = generation(entry.timestamp, windowMs);
        newest = Math.max(newest, gen);
        lowest = Math.min(lowest, gen);
        if (entry.eventId === '' || fresh.has(entry.eventId)) continue;
        const known = entry.known === undefined ? find(topic, partition, entry, windowMs) : entry.known;
        if (known !== undefined && known !== null && known.offset <= entry.offset) continue;
        fresh.add(entry.eventId);
        puts.push({ key: keyOf(topic, gen, partition, entry.eventId), value: text(`${entry.hash}@${entry.offset}@${entry.acceptedAt}`) });
      }
      if (newest > 0) sweep(topic, lowest, newest, puts);
      puts.push({ key: positionKey(topic, partition), value: text(Math.max(next, number(positionKey(topic, partition)) ?? 0)) });
      table.putBatch(puts);
    },
    close: () => table.close(),
  };
  return seen;
}
