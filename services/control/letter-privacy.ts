import { parseJson, type Json, type JsonObject } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { phoneNumber } from '@weir/mapping';
import { keyedId } from '@weir/pipeline';
import { identifiersOf, maxIdentifiers, type Release } from '@weir/release';

/** A raw item as it was accepted, in the clear. */
export interface PlainItem {
  readonly source: string;
  readonly eventId: string;
  /** ms since the epoch. */
  readonly acceptedAt: number;
  readonly value: Buffer;
  readonly envelope: Buffer | undefined;
}

/** Why a raw item may not be shown: it is of an erased person, or may be and nothing tells whose it is. */
export type Hidden = 'subject-erased' | 'maybe-erased';

export interface LetterGuardPorts {
  readonly release: () => Release;
  readonly workspaceKey: Buffer;
  /** As of the key ring. */
  readonly erasedUntil: (ids: readonly string[]) => number;
  /** The latest time of a mark of erasure; 0 = nobody was ever erased. */
  readonly newestMark: () => number;
}

const identityFields: ReadonlySet<string> = new Set(['userId', 'email', 'phone', 'anonymousId', 'previousId', 'externalIds']);
const maxStrings = 10_000;
const longest = 500;

/**
 * Raw items are sealed under a key of their day, which outlives the erasure of a person (docs/decisions/0009): whose an
 * item is, its bytes say. The mapping of its source tells, also one that fails in other fields; beside it every string is
 * looked at as an identifier. Where neither finds an erased person and the mapping could not tell, an item accepted before
 * the newest erasure stays closed.
 */
export function createLetterGuard(ports: LetterGuardPorts): (item: PlainItem) => Hidden | undefined {
  const keyed = (type: string, value: string): string => keyedId(ports.workspaceKey, type, value);

  function byMapping(item: PlainItem, value: Json): { readonly ids: readonly string[]; readonly whole: boolean } {
    const config = ports.release().sources.get(item.source);
    const envelope = item.envelope === undefined ? undefined : parsed(item.envelope);
    if (config === undefined || (item.envelope !== undefined && envelope === undefined)) return { ids: [], whole: false };
    const result = config.mapping.apply(value, envelope as JsonObject | undefined, { eventId: item.eventId, source: item.source, acceptedAt: item.acceptedAt });
    const outputs = result.kind === 'dropped' ? [] : result.outputs ?? [];
    const persons = outputs.map((output) => identifiersOf(output.record, keyed, maxIdentifiers));
    // A field that failed may have been the one that names the person.
    const told = result.kind === 'mapped' || (result.kind === 'failed' && result.reasons.every((r) => r.code === 'consent-unresolved' || (r.field !== undefined && !identityFields.has(r.field.split(/[.[]/)[0]!))));
    return { ids: persons.flatMap((ids) => ids ?? []), whole: told && persons.length > 0 && persons.every((ids) => ids !== undefined && ids.length > 0) };
  }

  function byText(value: Json): string[] {
    const found: string[] = [];
    for (const text of stringsOf(value)) {
      for (const type of ['userId', 'email', 'phone', 'anonymousId']) found.push(`${type}:${keyed(type, text)}`);
      const phone = /\d{6}/.test(text.replace(/\D/g, '')) ? phoneNumber(text) : undefined;
      if (phone !== undefined) found.push(`phone:${keyed('phone', phone)}`);
    }
    return found;
  }

  return (item) => {
    if (item.acceptedAt > ports.newestMark()) return undefined;
    const value = parsed(item.value);
    if (value === undefined) return 'maybe-erased';
    const { ids, whole } = byMapping(item, value);
    if (ports.erasedUntil([...ids, ...byText(value)]) >= item.acceptedAt) return 'subject-erased';
    return whole ? undefined : 'maybe-erased';
  };
}

function parsed(bytes: Buffer): Json | undefined {
  try {
    return parseJson(bytes);
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return undefined;
  }
}

/** Strings and whole numbers of a value, at most 10,000; walked without recursion. */
function stringsOf(value: Json): Set<string> {
  const found = new Set<string>();
  const open: Json[] = [value];
  while (open.length > 0 && found.size < maxStrings) {
    const next = open.pop()!;
    if (typeof next === 'string' && next.length <= longest) found.add(next.trim());
    else if (Number.isSafeInteger(next)) found.add(String(next));
    else if (next !== null && typeof next === 'object') for (const one of Object.values(next)) open.push(one);
  }
  return found;
}
