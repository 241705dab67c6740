import { findWeirError } from '@weir/errors';
import { room, type Headers, type LogRecord, type Sink } from '@weir/log';
import { H } from '@weir/pipeline';
import type { Encodable } from '@weir/release';
import { isSealed, sealedBy, sealOverhead, sealTo, unseal, type KeyRing } from '@weir/seal';

type Result = Encodable | { readonly kind: 'conflict'; readonly first: string };

/** Raw records are opened, canonical ones sealed under the key of their subject, and nothing of an erased person goes on. */
export interface Sealing {
  /** The keys of a batch are read, as far as they are there. Undefined when they are already. */
  prepare(records: readonly LogRecord[]): Promise<void> | undefined;
  /** The record with its plain value and envelope (opened when somebody asks), undefined when its key is destroyed, 'changed' when its bytes are not what was sealed. What is not sealed comes back as it is. */
  open(record: LogRecord): LogRecord | undefined | 'changed';
  /** Without what was erased: an output that any identifier of an erased person is on, accepted before the erasure. */
  withoutErased<T extends Result>(result: T, acceptedAt: number): T | Extract<Encodable, { kind: 'dropped' }>;
  /** Keys for every subject of these results, acknowledged. */
  keysFor(works: readonly { readonly result: Result }[]): Promise<void>;
  /** The result with sealed values, behind what the sink holds. After `keysFor`. */
  seal<T extends Result>(result: T, sink: Sink): T;
}

/** @param keys undefined = nothing is sealed; everything passes as it is */
export function createSealing(keys: KeyRing | undefined): Sealing {
  if (keys === undefined) return { prepare: () => undefined, open: (record) => record, withoutErased: (result) => result, keysFor: () => Promise.resolve(), seal: (result) => result };
  const sealedOf = (record: LogRecord): Buffer | undefined => (record.value !== null && isSealed(record.value) ? record.value : undefined);

  function opened(bytes: Buffer): Buffer {
    return isSealed(bytes) ? unseal(keys!.byId(sealedBy(bytes))!, bytes) : bytes;
  }

  return {
    prepare(records) {
      const missing = records.some((record) => {
        const bytes = sealedOf(record);
        return bytes !== undefined && keys.byId(sealedBy(bytes)) === undefined;
      });
      return missing ? keys.readToEnd() : undefined;
    },
    open(record) {
      const bytes = sealedOf(record);
      if (bytes === undefined) return record;
      const key = keys.byId(sealedBy(bytes));
      if (key === undefined) return undefined;
      try {
        return new OpenedRecord(record, unseal(key, bytes), opened);
      } catch (error) {
        if (findWeirError(error)?.code !== 'avro-undecodable') throw error;
        return 'changed';
      }
    },
    withoutErased(result, acceptedAt) {
      if (result.kind !== 'ok' || !result.outputs.some((output) => keys.erasedUntil(output.person.ids) >= acceptedAt)) return result;
      const outputs = result.outputs.filter((output) => keys.erasedUntil(output.person.ids) < acceptedAt);
      return outputs.length === 0 ? { kind: 'dropped', reason: 'subject-erased' } : { ...result, outputs };
    },
    async keysFor(works) {
      const subjects = new Set<string>();
      for (const { result } of works) if (result.kind === 'ok') for (const output of result.outputs) subjects.add(output.person.subject);
      if (subjects.size > 0) await keys.ensure(subjects);
    },
    seal(result, sink) {
      if (result.kind !== 'ok') return result;
      return { ...result, outputs: result.outputs.map((output) => {
        const from = sink.at;
        room(sink, output.to - output.from + sealOverhead);
        sink.at = sealTo(keys.current(output.person.subject)!, sink.bytes.subarray(output.from, output.to), sink.bytes, from);
        return { ...output, from, to: sink.at };
      }) };
    },
  };
}

/** What surrounded the item is opened for a mapping that looks at it: most do not. */
class OpenedRecord implements LogRecord {
  readonly offset: number;
  readonly timestamp: number;
  readonly value: Buffer;
  #record: LogRecord;
  #open: (bytes: Buffer) => Buffer;
  constructor(record: LogRecord, value: Buffer, open: (bytes: Buffer) => Buffer) {
    this.offset = record.offset;
    this.timestamp = record.timestamp;
    this.value = value;
    this.#record = record;
    this.#open = open;
  }
  get key(): Buffer | null {
    return this.#record.key;
  }
  get headers(): Headers {
    return this.#record.headers.map((header) => (header[0] === H.envelope ? [header[0], this.#open(header[1])] as const : header));
  }
}
