import { WeirError } from '@weir/errors';
import type { Sink } from '@weir/log';
import { consentRecord, unresolved } from '@weir/mapping';
import type { Reason } from '@weir/pipeline';
import { personOf, type Person } from './identity.ts';
import type { Canonical, Normalized } from './normalize.ts';
import type { Unrouted } from './routed-consent.ts';

/** A canonical record as bytes of the Confluent wire format, at [from, to) of the sink of its batch. */
export interface Encoded extends Pick<Canonical, 'recordType' | 'outputId' | 'changeId' | 'outputName'> {
  readonly person: Person;
  readonly from: number;
  readonly to: number;
}

export type Encodable = Exclude<Normalized, { readonly kind: 'ok' | 'dead' }> | { readonly kind: 'ok'; readonly mapping: string; readonly outputs: readonly Encoded[]; readonly unrouted?: readonly Unrouted[] }
  | { readonly kind: 'dead'; readonly reasons: readonly Reason[]; /** Changes of consent that hold all the same: they are written to weir.consent.changes, and nowhere else. */ readonly closing?: readonly Encoded[]; readonly unrouted?: readonly Unrouted[] };

/** What of a result is written: its records, or the changes that close of a dead letter. */
export const outputsOf = (result: { readonly kind: string; readonly outputs?: readonly Encoded[]; readonly closing?: readonly Encoded[] }): readonly Encoded[] => (result.kind === 'ok' ? result.outputs! : result.kind === 'dead' ? result.closing ?? [] : []);

/** A delivery and a dead letter carry the record in theirs: half of what a topic takes leaves room for both. */
const maxRecordBytes = 1_000_000;
/** All records of one item together. */
const maxItemBytes = 4_000_000;

/**
 * Canonical records → bytes, behind what the sink holds. A record that does not fit its schema, or is larger than
 * the log takes, is a dead letter with its reason: it must never stop the stage, which would meet it again after
 * every restart.
 */
export function encodeAll(result: Normalized, encode: (recordType: string, record: unknown, sink: Sink) => void, sink: Sink): Encodable {
  if (result.kind === 'dropped') return result;
  const unrouted = result.unrouted === undefined ? {} : { unrouted: result.unrouted };
  if (result.kind === 'dead') return { ...deadOf(result.reasons, result.closing ?? [], encode, sink), ...unrouted };
  const reasons: Reason[] = [];
  const outputs: Encoded[] = [];
  const began = sink.at;
  const fail = (message: string): void => { reasons.push({ code: 'mapping-failed', message }); };
  for (const { recordType, record, outputId, changeId, outputName, ids, subject } of result.outputs) {
    const from = sink.at;
    try {
      encode(recordType, record, sink);
    } catch (error) {
      if (error instanceof WeirError) throw error;
      // What the encoder says is about the value: it stays out of reasons, outcomes and logs.
      fail(`output ${outputName} does not fit ${recordType}`);
      continue;
    }
    outputs.push({ recordType, outputId, changeId, outputName, person: personOf(ids, subject), from, to: sink.at });
  }
  reasons.push(...tooLarge(outputs));
  if (reasons.length === 0) return { ...result, outputs };
  for (const { recordType, outputName } of result.outputs) if (recordType === consentRecord) reasons.push(unresolved(outputName));
  sink.at = began;
  return { ...deadOf(boundReasons(reasons), result.outputs.filter((output) => saysNo(output) && output.ids.length > 0).map((output) => ({ ...output, record: { ...output.record, extras: null } })), encode, sink), ...unrouted };
}

/** A change of consent that closes. */
export const saysNo = ({ recordType, record }: Pick<Canonical, 'recordType' | 'record'>): boolean => recordType === consentRecord && (record['state'] === 'withdrawn' || record['state'] === 'denied');

/** One that does not fit its schema, or is too large even so, waits with the letter. */
function deadOf(reasons: readonly Reason[], closing: readonly Canonical[], encode: (recordType: string, record: unknown, sink: Sink) => void, sink: Sink): Extract<Encodable, { readonly kind: 'dead' }> {
  const written: Encoded[] = [];
  let bytes = 0;
  for (const { recordType, record, outputId, changeId, outputName, ids, subject } of closing) {
    const from = sink.at;
    try {
      encode(recordType, record, sink);
    } catch (error) {
      if (error instanceof WeirError) throw error;
      // The reasons of the letter have it: a record of this item did not fit.
      sink.at = from;
      continue;
    }
    bytes += sink.at - from;
    if (sink.at - from > maxRecordBytes || bytes > maxItemBytes) {
      bytes -= sink.at - from;
      sink.at = from;
    } else written.push({ recordType, outputId, changeId, outputName, person: personOf(ids, subject), from, to: sink.at });
  }
  return written.length === 0 ? { kind: 'dead', reasons } : { kind: 'dead', reasons, closing: written };
}

/** What of the records of one item is more than the log takes. */
export function tooLarge(outputs: readonly Encoded[]): Reason[] {
  const reasons: Reason[] = [];
  let bytes = 0;
  for (const { from, to, outputName } of outputs) {
    bytes += to - from;
    if (to - from > maxRecordBytes) reasons.push({ code: 'mapping-failed', message: `output ${outputName} has ${to - from} bytes, a record has at most ${maxRecordBytes}` });
  }
  if (bytes > maxItemBytes) reasons.push({ code: 'mapping-failed', message: `the records of this item have ${bytes} bytes together, at most ${maxItemBytes}` });
  return reasons;
}

const maxReasons = 100;
const maxText = 300;

/** Every reason up to 100, then how many more there are (what concerns consent is never among those); texts up to 300 characters: a dead letter must fit into the log. */
export function boundReasons(reasons: readonly Reason[]): readonly Reason[] {
  const first = reasons.length <= maxReasons ? reasons : reasons.toSorted((a, b) => Number(b.code === 'consent-unresolved') - Number(a.code === 'consent-unresolved'));
  const short = first.slice(0, maxReasons).map((r) => (r.message.length <= maxText && (r.path?.length ?? 0) <= maxText ? r : { ...r, message: r.message.slice(0, maxText), path: r.path?.slice(0, maxText) }));
  if (reasons.length > maxReasons) short.push({ code: first[maxReasons]!.code, message: `and ${reasons.length - maxReasons} more reasons` });
  return short;
}
