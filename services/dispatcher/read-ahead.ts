import type { LogRecord, Reader } from '@weir/log';
import { createInTurn } from '@weir/pipeline';

/** Records of one partition by offset, read some at a time and kept until they are asked for. */
export interface ReadAhead {
  /** The record at this offset, or undefined when it is gone from the topic. */
  get(offset: number): Promise<LogRecord | undefined>;
}

const aheadOffsets = 256;
const heldBytes = 1024 * 1024;

/**
 * Parked subjects come due together and their records lie side by side: one read serves many of them. What is held is at most
 * 1 MiB (and the record asked for); the oldest goes first. Reads are one at a time, so that lanes that ask together share one.
 */
export function createReadAhead(reader: Pick<Reader, 'read'>, topic: string, partition: number): ReadAhead {
  const held = new Map<number, LogRecord>();
  let bytes = 0;
  const inTurn = createInTurn();
  const sizeOf = (record: LogRecord): number => 200 + (record.key?.length ?? 0) + (record.value?.length ?? 0);

  function take(offset: number): LogRecord | undefined {
    const record = held.get(offset);
    if (record === undefined) return undefined;
    held.delete(offset);
    bytes -= sizeOf(record);
    return record;
  }

  async function fill(from: number): Promise<LogRecord | undefined> {
    let wanted: LogRecord | undefined;
    await reader.read(topic, partition, from, from + aheadOffsets, (batch) => {
      for (const record of batch.records) {
        if (record.offset === from) wanted = record;
        else if (!held.has(record.offset)) {
          held.set(record.offset, record);
          bytes += sizeOf(record);
        }
      }
      for (const offset of held.keys()) {
        if (bytes <= heldBytes) break;
        take(offset);
      }
    });
    return wanted;
  }

  return {
    async get(offset) {
      return take(offset) ?? inTurn(() => take(offset) ?? fill(offset));
    },
  };
}
