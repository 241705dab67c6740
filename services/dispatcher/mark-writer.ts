import type { OutRecord } from '@weir/log';
import type { DestinationPorts } from './ports.ts';
import type { ParkValue } from './types.ts';

/** A marker of a parked subject by its key in the ledger; null lifts it. */
export type Mark = readonly [key: string, value: ParkValue | null];

interface Context {
  readonly ports: Pick<DestinationPorts, 'appender' | 'serde'>;
  readonly topic: string;
  readonly partition: number;
  applyLedger(records: readonly OutRecord[], keys: readonly string[], offsets: readonly number[]): void;
}

/** Markers in one append. */
const maxMarks = 500;

/** Writes markers in the order of the calls; what is asked for while an append is under way goes together in the next one. Resolves when these are acknowledged and in the ledger's cache. */
export function createMarkWriter({ ports, topic, partition, applyLedger }: Context): (marks: readonly Mark[]) => Promise<void> {
  const asked: { readonly marks: readonly Mark[]; readonly written: PromiseWithResolvers<void> }[] = [];
  let writing = false;

  function take(): typeof asked {
    let size = 0;
    const end = asked.findIndex(({ marks }) => (size += marks.length) > maxMarks);
    return asked.splice(0, end < 0 ? asked.length : Math.max(1, end));
  }

  async function write(marks: readonly Mark[]): Promise<void> {
    const records = marks.map(([key, value]): OutRecord => ({ partition, key: Buffer.from(key), value: value === null ? null : ports.serde.encode('weir.internal.LedgerPark', value) }));
    applyLedger(records, marks.map(([key]) => key), await ports.appender.append(topic, records));
  }

  async function writeAsked(): Promise<void> {
    writing = true;
    while (asked.length > 0) {
      const chunk = take();
      try {
        await write(chunk.flatMap(({ marks }) => marks));
        for (const { written } of chunk) written.resolve();
      } catch (error) {
        for (const { written } of chunk) written.reject(error);
      }
    }
    writing = false;
  }

  return (marks) => {
    const written = Promise.withResolvers<void>();
    asked.push({ marks, written });
    if (!writing) void writeAsked();
    return written.promise;
  };
}
