import type { Json } from '@weir/adapter';
import type { Appender, Log, LogAdmin, Reader, Serde } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';
import { readControl } from '@weir/release';

export interface Cursors {
  /** The last saved cursor; null when there is none. Read to the end offset of this moment. */
  read(): Promise<Json>;
  /** Resolves when it is acknowledged. */
  save(cursor: Json, epoch: number): Promise<void>;
}

interface Ports {
  readonly log: Log;
  readonly serde: Serde;
  readonly appender: Appender;
  readonly topics: TopicNames;
  readonly now: () => number;
  readonly instance: string;
}

/**
 * The cursor of one polled source, `cursor/<source>` on weir.control. Only the holder of the source's lease saves.
 * A save that was under way when the lease ended may land after one of the new holder: it is of an earlier page, so the
 * worst of it is that pages are read twice after a crash, and their items have the same ids.
 */
export function createCursors(source: string, ports: Ports): Cursors {
  const topic = ports.topics.control;
  const key = Buffer.from(`cursor/${source}`);

  async function lastOf(reader: Reader, admin: LogAdmin): Promise<Json> {
    let last: Buffer | null = null;
    await readControl({ reader, admin, topic }, (batch) => {
      // The bytes are a view on the whole fetch.
      for (const record of batch.records) if (record.key?.equals(key) === true) last = record.value === null ? null : Buffer.from(record.value);
    });
    if (last === null) return null;
    await ports.serde.prepare(last);
    return JSON.parse((ports.serde.decode(last).value as { cursor: string }).cursor) as Json;
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
    async save(cursor, epoch) {
      const value = ports.serde.encode('weir.internal.PollCursor', { source, cursor: JSON.stringify(cursor), at: ports.now(), instance: ports.instance, epoch });
      await ports.appender.append(topic, [{ partition: 0, key, value }]);
    },
  };
}
