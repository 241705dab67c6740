import { parseJson, type Json, type JsonObject } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import type { LogRecord } from '@weir/log';
import { consentRecord, unresolved, type MappedOutput } from '@weir/mapping';
import { secondBodyChange, type Reason } from '@weir/pipeline';
import { boundReasons, saysNo } from './encode.ts';
import { identifiersOf } from './identity.ts';
import type { RawHeaders } from './raw-headers.ts';
import { routedConsent, type Unrouted } from './routed-consent.ts';
import type { Release, SourceConfig } from './types.ts';

/** Identifiers of one record: a person with more is too wide to decide on (packages/policy, closure). */
export const maxIdentifiers = 64;

/** One canonical record to be written. */
export interface Canonical {
  readonly recordType: string;
  readonly record: Readonly<Record<string, unknown>>;
  readonly outputId: string;
  /** Of a no: the id of its change on weir.consent.changes, where that is not its output id (`ofSecondBody`). */
  readonly changeId?: string | undefined;
  readonly outputName: string;
  /** Keyed identifiers, strongest first. */
  readonly ids: readonly string[];
  readonly subject: string;
}

export type Normalized =
  | { readonly kind: 'ok'; readonly mapping: string; readonly outputs: readonly Canonical[]; readonly unrouted?: readonly Unrouted[] }
  | { readonly kind: 'dropped'; readonly reason: string }
  /** `closing`: what of it says no, as far as it can be read; it holds within Weir all the same. `unrouted`: what of its changes of consent no route has. */
  | { readonly kind: 'dead'; readonly reasons: readonly Reason[]; readonly closing?: readonly Canonical[]; readonly unrouted?: readonly Unrouted[] };

/**
 * Pure: raw record + release → canonical records, or every reason why not (I5). Ids come from the event id, so
 * the same item under the same release gives the same records wherever and whenever it runs. What a source that is gone has
 * left is set aside; its noes hold, by the last release that had it.
 */
export function normalize(source: string, record: LogRecord, headers: RawHeaders, release: Release, keyed: (type: string, value: string) => string): Normalized {
  const config = release.sources.get(source);
  if (config !== undefined) return normalizeBy(config, source, record, headers, release, keyed);
  const former = release.former?.(source);
  const reasons: Reason[] = [{ code: 'source-retired', message: `release ${release.hash} has no source ${source}` }];
  if (former === undefined) return { kind: 'dead', reasons: [...reasons, { code: 'consent-unresolved', message: `no release that is kept has the source ${source}: a change of consent in it binds nobody until this is put right` }] };
  return setAside(normalizeBy(former, source, record, headers, release, keyed), reasons);
}

function normalizeBy(config: SourceConfig, source: string, record: LogRecord, headers: RawHeaders, release: Release, keyed: (type: string, value: string) => string): Normalized {
  let item: Json;
  let envelope: JsonObject | undefined;
  try {
    item = parseJson(record.value ?? Buffer.alloc(0), config.limits.depth);
    envelope = headers.envelope === undefined ? undefined : (parseJson(headers.envelope, config.limits.depth) as JsonObject);
  } catch (error) {
    const known = findWeirError(error);
    if (known === undefined) throw error;
    return { kind: 'dead', reasons: [{ code: 'item-undecodable', message: known.message }] };
  }
  const result = config.mapping.apply(item, envelope, { eventId: headers.eventId, source, acceptedAt: headers.acceptedAt });
  if (result.kind === 'dropped') return result;
  if (result.kind === 'failed') {
    const closing = asRoutes(closingOf(result.outputs ?? [], keyed), release);
    return dead(result.reasons, closing.outputs, closing.unrouted);
  }
  const reasons: Reason[] = [];
  const outputs: Canonical[] = [];
  for (const output of result.outputs) {
    for (const contract of release.contracts.get(output.recordType) ?? []) reasons.push(...contract.check(output.recordType, output.record));
    const ids = identifiersOf(output.record, keyed, maxIdentifiers);
    if (ids === undefined) {
      reasons.push({ code: 'mapping-failed', message: `output ${output.name} has more than ${maxIdentifiers} identifiers`, file: config.mapping.file });
      continue;
    }
    if (ids.length === 0 && output.recordType === consentRecord) reasons.push({ code: 'mapping-failed', message: `output ${output.name} names nobody`, file: config.mapping.file });
    outputs.push({ recordType: output.recordType, record: output.record, outputId: output.outputId, outputName: output.name, ids, subject: ids[0] ?? `event:${headers.eventId}` });
  }
  if (reasons.length > 0) {
    const closing = asRoutes(closingOf(result.outputs, keyed), release);
    return dead([...reasons, ...result.outputs.filter((o) => o.recordType === consentRecord).map((o) => unresolved(o.name, config.mapping.file))], closing.outputs, closing.unrouted);
  }
  const routed = asRoutes(outputs, release);
  return { kind: 'ok', mapping: config.mapping.name, outputs: routed.outputs, ...(routed.unrouted.length === 0 ? {} : { unrouted: routed.unrouted }) };
}

/** `first` stands before the others and is not counted among them. */
const dead = (reasons: readonly Reason[], closing: readonly Canonical[], unrouted: readonly Unrouted[], first: readonly Reason[] = []): Normalized => ({ kind: 'dead', reasons: [...first, ...boundReasons(reasons)], ...(closing.length === 0 ? {} : { closing }), ...(unrouted.length === 0 ? {} : { unrouted }) });

/** With changes of consent as the routes of the release take them. */
function asRoutes(outputs: readonly Canonical[], release: Release): { readonly outputs: readonly Canonical[]; readonly unrouted: readonly Unrouted[] } {
  const unrouted: Unrouted[] = [];
  return {
    outputs: outputs.map((output) => {
      if (output.recordType !== consentRecord) return output;
      const record = routedConsent(output.record, release.policy, (part, said) => unrouted.push({ part, said, output: output.outputName }));
      return record === output.record ? output : { ...output, record };
    }),
    unrouted,
  };
}

/**
 * Of an item that goes to the dead letters, the changes of consent that close and can be read: they name a purpose and
 * somebody. What of them failed is left out: a no without its channel or topic is one to all of them, which is the safe
 * reading, and an identifier that is none waits with the letter. They have the ids that they have when the item is put
 * right, so that nothing is closed twice.
 */
export function closingOf(outputs: readonly MappedOutput[], keyed: (type: string, value: string) => string): Canonical[] {
  return outputs.flatMap(({ name, recordType, outputId, record }) => {
    if (!saysNo({ recordType, record }) || typeof record['purpose'] !== 'string' || record['purpose'] === '') return [];
    const ids = identifiersOf(record, keyed, maxIdentifiers);
    if (ids === undefined || ids.length === 0) return [];
    return [{ recordType, record: { ...record, extras: null }, outputId, outputName: name, ids, subject: ids[0]! }];
  });
}

/**
 * Of an item that goes to the dead letters whatever its mapping makes of it (`reasons`): what closes holds all the same,
 * and that it waits, or what it says of consent and cannot be read, is told by `consent-unresolved`.
 */
export function setAside(result: Normalized, reasons: readonly Reason[]): Normalized {
  if (result.kind === 'dropped') return { kind: 'dead', reasons };
  if (result.kind === 'dead') return dead(result.reasons.filter(({ code }) => code === 'consent-unresolved'), result.closing ?? [], result.unrouted ?? [], reasons);
  const closing = result.outputs.filter((output) => saysNo(output) && output.record['purpose'] !== '').map((output) => ({ ...output, record: { ...output.record, extras: null } }));
  return dead(closing.map(({ outputName }) => unresolved(outputName)), closing, result.unrouted ?? [], reasons);
}

/**
 * Of a body that came under the event id of another one (`hash` is its own): its noes are changes of their own. Its yeses keep
 * the ids of the first body's, so that a repetition of an old yes, written another way, opens nothing anew.
 */
export function ofSecondBody(result: Normalized, hash: string): Normalized {
  const own = (output: Canonical): Canonical => (saysNo(output) ? { ...output, changeId: secondBodyChange(output.outputId, hash) } : output);
  if (result.kind === 'ok') return { ...result, outputs: result.outputs.map(own) };
  return result.kind === 'dead' && result.closing !== undefined ? { ...result, closing: result.closing.map(own) } : result;
}
