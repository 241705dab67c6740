/** The work of the benchmarks `policy`, `dispatcher` and `end-to-end`: canonical profiles and deliveries as the stage before writes them. */
import type { OutRecord, Serde } from '@weir/log';
import { H, keyedId } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';

/** Of a destination that takes one call a profile, at `url`. */
export const destination = (url: string, more = ''): string => `adapter: http
config:
  baseUrl: ${url}
  operations:
    upsert-contact:
      kind: use
      accepts: [Profile]
      method: PUT
      path: /contacts
      body: { email: "{{record.email}}", external_id: "{{record.userId}}", title: "{{record.title}}", first_name: "{{record.firstName}}", last_name: "{{record.lastName}}", plan: "{{record.plan}}" }
      idempotency: { scheme: header, name: Idempotency-Key, window: 24h, pastWindow: hold }
routes:
  - { on: Profile, operation: upsert-contact, purpose: service, when: record.email != null && record.deleted != true${more} }
concurrency: 64
`;

const empty = Object.fromEntries(loadSchemas().get('weir.canonical.Profile')!.fields.map((field) => [field.name, 'default' in field ? field.default : null]));

/** The profile of a subject. */
export function profile(serde: Serde, i: number, subject: number): Buffer {
  return serde.encode('weir.canonical.Profile', {
    ...empty, id: `out_${i.toString(16).padStart(32, '0')}`, source: 'contacts', objectKey: `usr_${subject}`, occurredAt: 1_790_000_000_000 + i, userId: `usr_${subject}`, email: `person.${subject}@larkspur-${subject % 97}.example`, phone: `+49301${String(subject).padStart(7, '0')}`,
    firstName: 'Ada', lastName: `Lovelace-${subject % 301}`, title: 'Head of Field Operations', company: 'Larkspur Outfitters GmbH', city: 'Berlin', region: 'BE', postalCode: '10115', country: 'DE', plan: 'enterprise', lifecycleStage: 'customer', currency: 'EUR', balance: subject % 1000, extras: '{"tags":["outdoor","newsletter"],"score":7}',
  });
}

/** Keyed identifiers of a subject, strongest first. */
export function idsOf(key: Buffer, subject: number): string[] {
  return [['userId', `usr_${subject}`], ['email', `person.${subject}@larkspur-${subject % 97}.example`], ['phone', `+49301${String(subject).padStart(7, '0')}`]].map(([type, value]) => `${type}:${keyedId(key, type!, value!)}`);
}

export const hex = (i: number): string => i.toString(16).padStart(32, '0');

/** A canonical record, as the normalizer writes it. */
export function canonicalRecord(serde: Serde, key: Buffer, i: number, subject: number, release: string, partitionFor: (key: Buffer) => number): OutRecord {
  const ids = idsOf(key, subject);
  const recordKey = Buffer.from(ids[0]!);
  const headers: Record<string, string> = { [H.event]: `evt_${hex(i)}`, [H.hash]: hex(i), [H.source]: 'contacts', [H.accepted]: String(Date.now()), [H.traceparent]: `00-${hex(i + 1)}-${hex(i + 1).slice(16)}-01`, [H.release]: release, [H.mapping]: 'contacts', [H.output]: `out_${hex(i)}`, [H.outputName]: 'profile', [H.ids]: ids.join(',') };
  return { partition: partitionFor(recordKey), key: recordKey, value: profile(serde, i, subject), headers: Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)] as const) };
}

/** A delivery, as policy writes it. */
export function deliveryRecord(serde: Serde, key: Buffer, i: number, subject: number, release: string, partitionFor: (key: Buffer) => number): OutRecord {
  const ids = idsOf(key, subject);
  const recordKey = Buffer.from(ids[0]!);
  const now = Date.now();
  const value = serde.encode('weir.internal.Delivery', {
    outputId: `out_${hex(i)}`, eventId: `evt_${hex(i)}`, destination: 'crm', operation: 'upsert-contact', kind: 'use', recordType: 'weir.canonical.Profile', payload: profile(serde, i, subject), itemHash: hex(i), source: 'contacts', acceptedAt: now, decidedAt: now, release, rule: 'all',
    purpose: 'service', channel: null, topic: null, legalBasis: 'contract', consent: [], consentOffsets: [], identityOffsets: [], ids, notBefore: null, intent: '0',
  });
  const headers: Record<string, string> = { [H.event]: `evt_${hex(i)}`, [H.output]: `out_${hex(i)}`, [H.source]: 'contacts', [H.accepted]: String(now), [H.traceparent]: `00-${hex(i + 1)}-${hex(i + 1).slice(16)}-01`, [H.release]: release, [H.ids]: ids.join(',') };
  return { partition: partitionFor(recordKey), key: recordKey, value, headers: Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)] as const) };
}

/** Appends `count` records, in pieces. */
export async function fill(count: number, make: (i: number) => OutRecord, append: (records: readonly OutRecord[]) => Promise<unknown>): Promise<void> {
  const size = 5000;
  for (let at = 0; at < count; at += size) await append(Array.from({ length: Math.min(size, count - at) }, (_, i) => make(at + i)));
}

export const restoredId = (i: number): string => `userId:${i.toString(36).padStart(22, 'A')}`;
