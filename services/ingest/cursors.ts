import { createHash } from 'node:crypto';
import type { Json, PollSource } from '@weir/adapter';
import type { Appender, Log, LogAdmin, Reader, Serde } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';
import { readControl, type SourceConfig } from '@weir/release';

export interface Position {
  readonly cursor: Json;
  /** Hash of the settings that the cursor belongs to (`settingsOf`); undefined in what a version before saved. */
  readonly settings: string | undefined;
}

export interface Cursors {
  /** The last saved position; its cursor is null when there is none. Read to the end offset of this moment. */
  read(): Promise<Position>;
  /** Resolves when it is acknowledged. */
  save(position: Position, epoch: number): Promise<void>;
}

interface Ports {
  readonly log: Log;
  readonly serde: Serde;
  readonly appender: Appender;
  readonly topics: TopicNames;
  readonly now: () => number;
  readonly instance: string;
}

/** What a cursor of the source, as it is configured now, belongs to. */
export function settingsOf({ adapter, config }: SourceConfig): string {
  return createHash('sha256').update((adapter.source as PollSource).cursorKey?.(config) ?? '').digest('hex').slice(0, 16);
}

/** A version before saved the cursor alone. */
function positionOf(text: string): Position {
  const saved = JSON.parse(text) as Json;
  if (saved === null || typeof saved !== 'object' || Array.isArray(saved) || typeof saved['settings'] !== 'string') return { cursor: saved, settings: undefined };
  return { cursor: saved['cursor'] ?? null, settings: saved['settings'] };
}

/**
 * The cursor of one polled source, `cursor/<source>` on weir.control. Only the holder of the source's lease saves.
 * A save that was under way when the lease ended may land after one of the new holder: it is of an earlier page, so the
 * worst of it is that pages are read twice after a crash, and their items have the same ids.
 */
export function createCursors(source: string, ports: Ports): Cursors {
  const topic = ports.topics.control;
  const key = Buffer.from(`cursor/${source}`);

  async function lastOf(reader: Reader, admin: LogAdmin): Promise<Position> {
    let last: Buffer | null = null;
    await readControl({ reader, admin, topic }, (batch) => {
      // The bytes are a view on the whole fetch.
      for (const record of batch.records) if (record.key?.equals(key) === true) last = record.value === null ? null : Buffer.from(record.value);
    });
    if (last === null) return { cursor: null, settings: undefined };
    await ports.serde.prepare(last);
    return positionOf((ports.serde.decode(last).value as { cursor: string }).cursor);
  }

  return {
    async read() {
      const admin = await ports.log.admin();
      const reader = await ports.log.reader();
      try {
        return await lastOf(reader, admin);
      } finally {
        await reader.close();
        await admin.close();
      }
    },
    async save({ cursor, settings }, epoch) {
      const value = ports.serde.encode('weir.internal.PollCursor', { source, cursor: JSON.stringify({ cursor, settings }), at: ports.now(), instance: ports.instance, epoch });
      await ports.appender.append(topic, [{ partition: 0, key, value }]);
    },
  };
}
