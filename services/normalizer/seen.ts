import type { Reader } from '@weir/log';
import type { Put, Table } from '@weir/state';
import { rawHeaders } from './normalize.ts';

/**
 * Which body each event id first arrived with, per raw partition, within the dedupe window: the same id with
 * another hash is a conflict (3.1). A cache of the raw topic itself: what it lacks is read from there.
 * Key `<topic>/<partition>/<event id>` → `<hash>@<offset>`; positions are kept under one number per (topic, partition).
 */
export interface Seen {
  /** Fill from the raw topic up to `position`, at most back to the window. */
  load(topic: string, partition: number, position: number, windowMs: number, now: number): Promise<void>;
  /** Hash that the event id first came with, before this offset; undefined when it is new. */
  first(topic: string, partition: number, eventId: string, offset: number): string | undefined;
  add(topic: string, partition: number, entries: ReadonlyArray<{ readonly eventId: string; readonly hash: string; readonly offset: number }>, next: number): void;
  close(): Promise<void>;
}

export function createSeen(table: Table, reader: Reader): Seen {
  const keyOf = (topic: string, partition: number, eventId: string): string => `${topic}/${partition}/${eventId}`;
  const positionKey = (topic: string, partition: number): string => `#/${topic}/${partition}`;
  const positionOf = (topic: string, partition: number): number => Number(table.get(positionKey(topic, partition))?.toString('latin1') ?? 0);

  const seen: Seen = {
    async load(topic, partition, position, windowMs, now) {
      const from = positionOf(topic, partition);
      if (from >= position) return;
      await reader.read(topic, partition, from, position, (batch) => {
        const recent = batch.records.filter((r) => r.timestamp > now - windowMs);
        seen.add(topic, partition, recent.map((r) => ({ ...rawHeaders(r), offset: r.offset })), batch.nextOffset);
      });
    },
    first(topic, partition, eventId, offset) {
      const value = table.get(keyOf(topic, partition, eventId))?.toString('latin1');
      if (value === undefined) return undefined;
      const at = value.lastIndexOf('@');
      return Number(value.slice(at + 1)) < offset ? value.slice(0, at) : undefined;
    },
    add(topic, partition, entries, next) {
      const puts: Put[] = [];
      const fresh = new Set<string>();
      for (const { eventId, hash, offset } of entries) {
        const key = keyOf(topic, partition, eventId);
        if (eventId === '' || fresh.has(key)) continue;
        const known = table.get(key)?.toString('latin1');
        if (known !== undefined && Number(known.slice(known.lastIndexOf('@') + 1)) <= offset) continue;
        fresh.add(key);
        puts.push({ key, value: Buffer.from(`${hash}@${offset}`, 'latin1') });
      }
      puts.push({ key: positionKey(topic, partition), value: Buffer.from(String(Math.max(next, positionOf(topic, partition))), 'latin1') });
      table.putBatch(puts);
    },
    close: () => table.close(),
  };
  return seen;
}
