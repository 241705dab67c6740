import { WeirError } from '@weir/errors';
import type { Reason } from '@weir/pipeline';
import type { Canonical, Normalized } from './normalize.ts';

/** A canonical record as bytes of the Confluent wire format. */
export interface Encoded extends Canonical {
  readonly value: Buffer;
}

export type Encodable = Exclude<Normalized, { readonly kind: 'ok' }> | { readonly kind: 'ok'; readonly mapping: string; readonly outputs: readonly Encoded[]; readonly links: readonly string[] };

/** A delivery and a dead letter carry the record in theirs: half of what a topic takes leaves room for both. */
const maxRecordBytes = 1_000_000;
/** All records of one item together. */
const maxItemBytes = 4_000_000;

/**
 * Canonical records → bytes. A record that does not fit its schema, or is larger than the log takes, is a dead
 * letter with its reason: it must never stop the stage, which would meet it again after every restart.
 */
export function encodeAll(result: Normalized, encode: (recordType: string, record: unknown) => Buffer): Encodable {
  if (result.kind !== 'ok') return result;
  const reasons: Reason[] = [];
  const outputs: Encoded[] = [];
  let bytes = 0;
  const fail = (message: string): void => { reasons.push({ code: 'mapping-failed', message }); };
  for (const output of result.outputs) {
    let value: Buffer;
    try {
      value = encode(output.recordType, output.record);
    } catch (error) {
      if (error instanceof WeirError) throw error;
      // What avsc says repeats the value: it stays out of reasons, outcomes and logs.
      fail(`output ${output.outputName} does not fit ${output.recordType}`);
      continue;
    }
    bytes += value.length;
    if (value.length > maxRecordBytes) fail(`output ${output.outputName} has ${value.length} bytes, a record has at most ${maxRecordBytes}`);
    outputs.push({ ...output, value });
  }
  if (bytes > maxItemBytes) fail(`the records of this item have ${bytes} bytes together, at most ${maxItemBytes}`);
  return reasons.length > 0 ? { kind: 'dead', reasons: boundReasons(reasons) } : { ...result, outputs };
}

const maxReasons = 100;
const maxText = 300;

/** Every reason up to 100, then how many more there are; texts up to 300 characters: a dead letter must fit into the log. */
export function boundReasons(reasons: readonly Reason[]): readonly Reason[] {
  const short = reasons.slice(0, maxReasons).map((r) => (r.message.length <= maxText && (r.path?.length ?? 0) <= maxText ? r : { ...r, message: r.message.slice(0, maxText), path: r.path?.slice(0, maxText) }));
  if (reasons.length > maxReasons) short.push({ code: reasons[maxReasons]!.code, message: `and ${reasons.length - maxReasons} more reasons` });
  return short;
}
