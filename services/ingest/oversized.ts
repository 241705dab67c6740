import { createHash } from 'node:crypto';
import type { Item } from '@weir/adapter';
import type { OutRecord, Serde } from '@weir/log';
import { consentRecord, unresolved } from '@weir/mapping';
import { H, itemHash, type Reason } from '@weir/pipeline';
import type { SourceConfig } from '@weir/release';
import { rawOwner, seal } from '@weir/seal';
import { idOf, maxItemBytes, rawKey, type AcceptPorts } from './accept.ts';

export type OversizedPorts = Pick<AcceptPorts, 'appender' | 'topics' | 'now' | 'sealing'> & { readonly serde: Serde };

/** What is kept of an item that no record takes: enough to find it at the sender. */
const keptBytes = 64 * 1024;

/** Items of a page that fit a record, and those that do not with their place on the page, from 1. */
export function bySize(items: readonly Item[]): { readonly fit: readonly Item[]; readonly oversized: ReadonlyArray<{ readonly item: Item; readonly place: number }> } {
  if (items.every((item) => item.bytes.length <= maxItemBytes)) return { fit: items, oversized: [] };
  const placed = items.map((item, i) => ({ item, place: i + 1 }));
  return { fit: items.filter((item) => item.bytes.length <= maxItemBytes), oversized: placed.filter(({ item }) => item.bytes.length > maxItemBytes) };
}

/**
 * Items of a polled page that are larger than a record, as dead letters with their end: the page would be asked for again
 * for ever otherwise, and all that stands behind it wait. The bytes do not fit a letter either: it has the first 64 KiB,
 * and the size, SHA-256 and place of the whole. It is a letter of the raw topic, whose owner is looked for before it is shown
 * (docs/erasure.md), at no offset of it; what it has is no whole item, so a redrive leaves it. The same item has the same letter. Resolves when all is acknowledged.
 */
export async function setAside(ports: OversizedPorts, source: SourceConfig, oversized: ReturnType<typeof bySize>['oversized'], count: number, traceparent: string): Promise<void> {
  const { appender, topics, serde } = ports;
  const now = ports.now();
  const key = ports.sealing === undefined ? undefined : await rawKey(ports.sealing.keys, rawOwner(source.name, now));
  await Promise.all([topics.dlq, topics.outcome].map((topic) => appender.partitions(topic)));
  const letters: OutRecord[] = [];
  const outcomes: OutRecord[] = [];
  for (const { item, place } of oversized) {
    const hash = itemHash(item.bytes);
    const { eventId } = idOf(source, item, hash, undefined);
    const sha256 = createHash('sha256').update(item.bytes).digest('hex');
    const message = `item ${place} of ${count} of a page has ${item.bytes.length} bytes, a record takes ${maxItemBytes}; SHA-256 ${sha256}; kept are its first ${keptBytes} bytes`;
    const reasons: readonly Reason[] = [{ code: 'item-too-large', message }, ...changesOfConsent(source, item, eventId, now)];
    const id = Buffer.from(eventId);
    const headers: [string, Buffer][] = [[H.event, id], [H.hash, Buffer.from(hash)], [H.source, Buffer.from(source.name)], [H.accepted, Buffer.from(String(now))], [H.traceparent, Buffer.from(traceparent)]];
    const excerpt = item.bytes.subarray(0, keptBytes);
    const common = { eventId, stage: 'ingest', destination: null, operation: null, attempts: 0, release: null, acceptedAt: now, at: now };
    const letter = {
      ...common, id: `dlq_${createHash('sha256').update(['ingest', source.name, eventId, sha256].join('\0')).digest('hex').slice(0, 32)}`, reasons: reasons.map((r) => ({ code: r.code, message: r.message, file: r.file ?? null, line: r.line ?? null, field: null, path: null })),
      source: source.name, topic: topics.raw(source.name), partition: 0, offset: -1, key: null, value: key === undefined ? excerpt : seal(key, excerpt), headers: headers.map(([name, value]) => ({ name, value })), effect: 'none',
    };
    const end = { ...common, outputId: null, key: null, state: 'dead-lettered', reason: 'item-too-large', detail: message, rule: null, purpose: null, consent: [], status: null, attempt: null };
    letters.push({ partition: appender.partitionFor(topics.dlq, id), key: id, value: serde.encode('weir.internal.DeadLetter', letter), headers: [headers[0]!, headers[4]!] });
    outcomes.push({ partition: appender.partitionFor(topics.outcome, id), key: id, value: serde.encode('weir.internal.Outcome', end), headers: [headers[4]!] });
  }
  await appender.append(topics.dlq, letters);
  await appender.append(topics.outcome, outcomes);
}

/** The changes of consent that the item carries bind nobody until somebody sees to it (docs/consent.md). */
function changesOfConsent({ name, mapping }: SourceConfig, item: Item, eventId: string, acceptedAt: number): readonly Reason[] {
  const result = mapping.apply(item.value, undefined, { eventId, source: name, acceptedAt });
  if (result.kind === 'failed') return result.reasons.filter((reason) => reason.code === 'consent-unresolved');
  return result.kind === 'mapped' ? result.outputs.filter((output) => output.recordType === consentRecord).map((output) => unresolved(output.name, mapping.file)) : [];
}
