import { findWeirError } from '@weir/errors';
import { room, type Headers, type LogRecord, type Sink } from '@weir/log';
import { H } from '@weir/pipeline';
import { outputsOf, type Encodable, type Encoded } from '@weir/release';
import { isSealed, sealedBy, sealOverhead, sealTo, unseal, type KeyRing, type SealKey } from '@weir/seal';
import type { Unerased } from './unerased.ts';

interface Sealable {
  result: Encodable;
  readonly headers: { readonly acceptedAt: number };
}

/** Raw records are opened, canonical ones sealed under the key of their subject, and nothing of an erased person goes on. */
export interface Sealing {
  /** The keys of a batch are read, as far as they are there; one that is missing is looked for until it is surely destroyed. Undefined when they are already. @param gone true = it is given up */
  prepare(records: readonly LogRecord[], gone: () => boolean): Promise<void> | undefined;
  /** The record with its plain value and envelope (opened when somebody asks), undefined when its key is destroyed, 'changed' when its bytes are not what was sealed. What is not sealed comes back as it is. */
  open(record: LogRecord): LogRecord | undefined | 'changed';
  /** Without what was erased: an output that any identifier of an erased person is on, accepted before the erasure. Of a no, what it says of the others stays (`unerased.ts`), behind what the sink holds. */
  withoutErased<T extends Encodable>(result: T, acceptedAt: number, sink: Sink): T | Extract<Encodable, { kind: 'dropped' }>;
  /** Seals the outputs of these works, behind what the sink holds, under keys that are acknowledged; those of who was erased meanwhile are left out. */
  seal(works: readonly Sealable[], sink: Sink): Promise<void>;
}

/** @param keys undefined = nothing is sealed; everything passes as it is */
export function createSealing(keys: KeyRing | undefined, unerased: Unerased): Sealing {
  if (keys === undefined) return { prepare: () => undefined, open: (record) => record, withoutErased: (result) => result, seal: () => Promise.resolve() };
  const sealedOf = (record: LogRecord): Buffer | undefined => (record.value !== null && isSealed(record.value) ? record.value : undefined);

  function opened(bytes: Buffer): Buffer {
    return isSealed(bytes) ? unseal(keys!.byId(sealedBy(bytes))!, bytes) : bytes;
  }

  return {
    prepare(records, gone) {
      const missing = new Set<string>();
      for (const record of records) {
        const bytes = sealedOf(record);
        if (bytes !== undefined && keys.byId(sealedBy(bytes)) === undefined) missing.add(sealedBy(bytes));
      }
      return missing.size > 0 ? keys.find([...missing], gone) : undefined;
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
    withoutErased,
    async seal(works, sink) {
      const found: SealKey[] = [];
      // While keys are made the tombstone of another one may be read: what was found before is found again.
      for (let missing = findKeys(works, found); missing.size > 0 || leaveOutErased(works, sink); missing = findKeys(works, found)) await keys.ensure(missing);
      let next = 0;
      for (const work of works) {
        const { result } = work;
        const before = outputsOf(result);
        if (before.length === 0) continue;
        const outputs: Encoded[] = [];
        for (const output of before) outputs.push(sealed(found[next++]!, output, sink));
        if (result.kind === 'dead') work.result = { ...result, closing: outputs };
        else if (result.kind === 'ok') work.result = { ...result, outputs };
      }
    },
  };

  /** A mark that was read since a record was mapped: its key is gone, and the one of now would make it readable again. True: there is other work than before. */
  function leaveOutErased(works: readonly Sealable[], sink: Sink): boolean {
    let some = false;
    for (const work of works) {
      const left = withoutErased(work.result, work.headers.acceptedAt, sink);
      some ||= left !== work.result;
      work.result = left;
    }
    return some;
  }

  function withoutErased<T extends Encodable>(result: T, acceptedAt: number, sink: Sink): T | Extract<Encodable, { kind: 'dropped' }> {
    const before = outputsOf(result);
    if (!before.some((output) => keys!.erasedUntil(output.person.ids) >= acceptedAt)) return result;
    const isErased = (id: string): boolean => keys!.erasedUntil([id]) >= acceptedAt;
    const outputs = before.flatMap((output) => (keys!.erasedUntil(output.person.ids) < acceptedAt ? output : unerased(output, isErased, sink) ?? []));
    if (result.kind === 'dead') return { ...result, closing: outputs };
    return outputs.length === 0 ? { kind: 'dropped', reason: 'subject-erased' } : { ...result, outputs };
  }

  /** The key of each output of these works, in their order; gives the subjects that have none. */
  function findKeys(works: readonly Sealable[], found: SealKey[]): ReadonlySet<string> {
    found.length = 0;
    const missing = new Set<string>();
    for (const { result } of works) {
      for (const { person } of outputsOf(result)) {
        const key = keys!.current(person.subject);
        if (key === undefined) missing.add(person.subject);
        else found.push(key);
      }
    }
    return missing;
  }

  function sealed(key: SealKey, output: Encoded, sink: Sink): Encoded {
    const { recordType, outputId, changeId, outputName, person } = output;
    const from = sink.at;
    room(sink, output.to - output.from + sealOverhead);
    sink.at = sealTo(key, sink.bytes.subarray(output.from, output.to), sink.bytes, from);
    return { recordType, outputId, changeId, outputName, person, from, to: sink.at };
  }
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
