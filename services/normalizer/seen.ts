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
}

/** How an event id first arrived. */
export interface First {
  readonly hash: string;
  readonly acceptedAt: number;
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
  /** What the event id first came with, before this offset; undefined when it is new. */
  first(topic: string, partition: number, entry: SeenEntry, windowMs: number): First | undefined;
  add(topic: string, partition: number, entries: readonly SeenEntry[], next: number, windowMs: number): void;
  close(): Promise<void>;
}

const sweepKeys = 5000;

export function createSeen(table: Table, reader: Reader): Seen {
  const generation = (timestamp: number, windowMs: number): number => Math.floor(timestamp / Math.max(windowMs, 1000));
  const keyOf = (topic: string, gen: number, partition: number, eventId: string): string => `${topic}/${gen}/${partition}/${eventId}`;
  const positionKey = (topic: string, partition: number): string => `#/${topic}/${partition}`;
  const oldestKey = (topic: string): string => `#oldest/${topic}`;
  const number = (key: string): number | undefined => {
    const value = table.get(key);
    return value === undefined ? undefined : Number(value.toString('latin1'));
  };
  const text = (value: number | string): Buffer => Buffer.from(String(value), 'latin1');

  function find(topic: string, partition: number, entry: SeenEntry, windowMs: number): (First & { readonly offset: number }) | undefined {
    const gen = generation(entry.timestamp, windowMs);
    const value = table.get(keyOf(topic, gen - 1, partition, entry.eventId)) ?? table.get(keyOf(topic, gen, partition, entry.eventId));
    if (value === undefined) return undefined;
    const [hash, offset, acceptedAt] = value.toString('latin1').split('@') as [string, string, string?];
    // Entries of an earlier version end with the offset.
    return { hash, offset: Number(offset), acceptedAt: acceptedAt === undefined ? entry.acceptedAt : Number(acceptedAt) };
  }

  /** Deletes some of the oldest generation that no look-up sees any more. */
  function sweep(topic: string, newest: number, puts: Put[]): void {
    const oldest = number(oldestKey(topic));
    if (oldest === undefined) {
      puts.push({ key: oldestKey(topic), value: text(newest) });
      return;
    }
    if (oldest >= newest - 1) return;
    let found = 0;
    for (const { key } of table.range(`${topic}/${oldest}/`)) {
      puts.push({ key, value: null });
      if (++found === sweepKeys) return;
    }
    puts.push({ key: oldestKey(topic), value: text(oldest + 1) });
  }

  const seen: Seen = {
    async load(topic, partition, position, windowMs, now) {
      const known = number(positionKey(topic, partition)) ?? 0;
      // A checkpoint beyond the committed position by a crash is fine; one of another topic would be, too: offsets decide.
      if (known >= position) return;
      await reader.read(topic, partition, known, position, (batch) => {
        const recent = batch.records.filter((r) => r.timestamp > now - windowMs);
        seen.add(topic, partition, recent.map((r) => ({ ...rawHeaders(r), offset: r.offset, timestamp: r.timestamp })), batch.nextOffset, windowMs);
      });
    },
    first(topic, partition, entry, windowMs) {
      const known = find(topic, partition, entry, windowMs);
      return known !== undefined && known.offset < entry.offset ? known : undefined;
    },
    add(topic, partition, entries, next, windowMs) {
      const puts: Put[] = [];
      const fresh = new Set<string>();
      let newest = 0;
      for (const entry of entries) {
        const gen = generation(entry.timestamp, windowMs);
        newest = Math.max(newest, gen);
        if (entry.eventId === '' || fresh.has(entry.eventId)) continue;
        const known = find(topic, partition, entry, windowMs);
        if (known !== undefined && known.offset <= entry.offset) continue;
        fresh.add(entry.eventId);
        puts.push({ key: keyOf(topic, gen, partition, entry.eventId), value: text(`${entry.hash}@${entry.offset}@${entry.acceptedAt}`) });
      }
      if (newest > 0) sweep(topic, newest, puts);
      puts.push({ key: positionKey(topic, partition), value: text(Math.max(next, number(positionKey(topic, partition)) ?? 0)) });
      table.putBatch(puts);
    },
    close: () => table.close(),
  };
  return seen;
}
