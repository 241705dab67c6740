import type { Serde, Sink } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { identifiersOf, maxIdentifiers, personOf, saysNo, type Encoded } from '@weir/release';

/** Adds what is left of an output for those of its identifiers that are not erased to the sink; undefined = nothing is left. */
export type Unerased = (output: Encoded, isErased: (id: string) => boolean, sink: Sink) => Encoded | undefined;

type Keyed = (type: string, value: string) => string;
type ExternalId = { readonly type: string; readonly value: string };

const single = ['userId', 'email', 'phone', 'anonymousId'] as const;
/** Where a sender's text may hold an identifier, too. */
const texts = ['reason', 'proof', 'noticeVersion'] as const;

/**
 * Of an output that an erased person is on: a change of consent that closes, for the others of its identifiers. They may be known
 * under it elsewhere, and who has erased the person did not know that they are hers. It has the same id, and no erased identifier
 * in it: not as one, nor in what the sender wrote beside it. Anything else of an erased person is nothing.
 */
export function createUnerased(serde: Pick<Serde, 'decode' | 'encodeTo'>, keyed: Keyed): Unerased {
  return (output, isErased, sink) => {
    if (output.recordType !== consentRecord || output.person.ids.every(isErased)) return undefined;
    const before = serde.decode(sink.bytes.subarray(output.from, output.to)).value as Readonly<Record<string, unknown>>;
    if (!saysNo({ recordType: output.recordType, record: before })) return undefined;
    const record: Record<string, unknown> = { ...before, objectKey: null, extras: null };
    const gone: string[] = [];
    for (const field of single) {
      const value = before[field];
      if (typeof value !== 'string' || value === '' || !isErased(`${field}:${keyed(field, value)}`)) continue;
      gone.push(value);
      record[field] = null;
    }
    const external = (before['externalIds'] ?? []) as readonly ExternalId[];
    const left = external.filter(({ type, value }) => !isErased(`external:${keyed('external', `${type}:${value}`)}`));
    gone.push(...external.filter((id) => !left.includes(id)).map(({ value }) => value));
    if (left.length < external.length) record['externalIds'] = left;
    for (const field of texts) if (gone.some((value) => String(record[field] ?? '').includes(value))) record[field] = null;
    const ids = identifiersOf(record, keyed, maxIdentifiers);
    if (ids === undefined || ids.length === 0) return undefined;
    const from = sink.at;
    serde.encodeTo(output.recordType, record, sink);
    return { ...output, person: personOf(ids, ids[0]!), from, to: sink.at };
  };
}
