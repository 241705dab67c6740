/** The work of the benchmarks `policy`, `dispatcher`, `replay` and `end-to-end`: canonical profiles, deliveries and dead letters as the stage before writes them, sealed. */
import type { Headers, OutRecord, Serde } from '@weir/log';
import { deliveryKey, H, keyedId } from '@weir/pipeline';
import { consentKey } from '@weir/policy';
import { loadSchemas } from '@weir/schemas';
import { hex } from './contacts.ts';
import { seal, type KeyRing } from '@weir/seal';

/** Of a destination that takes one call a profile, at `url`; with `batch`, so many in one. */
export const destination = (url: string, options: { readonly route?: string; readonly batch?: number; readonly concurrency?: number } = {}): string => `adapter: http
config:
  baseUrl: ${url}
  operations:
    upsert-contact:
      kind: use
      accepts: [Profile]
      method: PUT
      path: /contacts
      body: { email: "{{record.email}}", external_id: "{{record.userId}}", title: "{{record.title}}", first_name: "{{record.firstName}}", last_name: "{{record.lastName}}", plan: "{{record.plan}}" }
      idempotency: { scheme: ${options.batch === undefined ? 'header, name: Idempotency-Key' : 'body-field, name: /id'}, window: 24h, pastWindow: hold }
${options.batch === undefined ? '' : `      batch: { maxItems: ${options.batch}, path: /contacts/bulk, results: { path: results, key: id, status: status, missing: retry } }\n`}routes:
  - { on: Profile, operation: upsert-contact, ${options.route ?? 'purpose: service'}, when: record.email != null && record.deleted != true }
concurrency: ${options.concurrency ?? 64}
`;

/** Workspace of the benchmark `policy`: four destinations, of which half ask for consent and half for the absence of an objection, and 20 rules. */
export const policyDestinations = ['crm', 'warehouse', 'mail', 'ads'];
const rules = [
  "  - { name: all, effect: allow, when: 'purpose == \"service\" || purpose == \"news\"' }",
  ...Array.from({ length: 19 }, (_, i) => `  - { name: never-${i}, effect: deny, when: 'record.country == "X${String.fromCharCode(65 + i)}" && record.plan != "p${i}"' }`),
].join('\n');
export const policyFiles: Readonly<Record<string, string>> = {
  'weir.yaml': 'name: bench\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n  news: { legalBasis: consent, doc: Letters. }\n', 'policies/all.yaml': `rules:\n${rules}\n`,
  ...Object.fromEntries(policyDestinations.map((name, i) => [`destinations/${name}.yaml`, destination('http://127.0.0.1:9', { route: i % 2 === 0 ? 'purpose: service' : 'purpose: news, channel: email' })])),
};

/** The consent of a subject, whose address this is. */
export function consentOf(serde: Serde, email: string, version: number): { readonly key: Buffer; readonly value: Buffer } {
  return {
    key: Buffer.from(consentKey(email, 'news', 'email', '')),
    value: serde.encode('weir.internal.ConsentState', { id: email, purpose: 'news', channel: 'email', topic: '', state: 'granted', version, changedAt: 1_790_000_000_000, source: 'contacts', legalBasis: 'consent', proof: null, expiresAt: null, changeId: `evt_${hex(version)}`, seen: [], jurisdiction: null, noticeVersion: null, closedBy: [] }),
  };
}

/** What makes records as the services do, sealed like theirs. */
export interface Maker {
  readonly serde: Serde;
  readonly workspaceKey: Buffer;
  readonly keys: Pick<KeyRing, 'ensure' | 'current'>;
  readonly release: string;
  readonly partitionFor: (key: Buffer) => number;
}

const empty = Object.fromEntries(loadSchemas().get('weir.canonical.Profile')!.fields.map((field) => [field.name, 'default' in field ? field.default : null]));

const countries = ['AT', 'BE', 'CH', 'CZ', 'DE', 'DK', 'ES', 'FI', 'FR', 'GB', 'GR', 'HU', 'IE', 'IT', 'LT', 'LU', 'LV', 'MT', 'NL', 'NO', 'PL', 'PT', 'RO', 'SE', 'SI', 'SK', 'US'];
const plans = ['free', 'starter', 'team', 'business', 'enterprise'];

/** Where a subject is. */
export const homeOf = (subject: number): { readonly country: string; readonly region: null } => ({ country: countries[subject % countries.length]!, region: null });

/** The profile of a subject. */
function profile(serde: Serde, i: number, subject: number): Buffer {
  return serde.encode('weir.canonical.Profile', {
    ...empty, id: `out_${i.toString(16).padStart(32, '0')}`, source: 'contacts', objectKey: `usr_${subject}`, occurredAt: 1_790_000_000_000 + i, userId: `usr_${subject}`, email: `person.${subject}@larkspur-${subject % 97}.example`, phone: `+49301${String(subject).padStart(7, '0')}`,
    firstName: 'Ada', lastName: `Lovelace-${subject % 301}`, title: 'Head of Field Operations', company: 'Larkspur Outfitters GmbH', city: 'Berlin', postalCode: '10115', ...homeOf(subject), plan: plans[subject % plans.length], lifecycleStage: 'customer', currency: 'EUR', balance: subject % 1000, extras: '{"tags":["outdoor","newsletter"],"score":7}',
  });
}

/** Keyed identifiers of a subject, strongest first. */
export function idsOf(key: Buffer, subject: number): string[] {
  return [['userId', `usr_${subject}`], ['email', `person.${subject}@larkspur-${subject % 97}.example`], ['phone', `+49301${String(subject).padStart(7, '0')}`]].map(([type, value]) => `${type}:${keyedId(key, type!, value!)}`);
}

const bytesOf = (headers: Readonly<Record<string, string>>): Headers => Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)] as const);

/** A canonical record, as the normalizer writes it. */
export function canonicalRecord({ serde, workspaceKey, keys, release, partitionFor }: Maker, i: number, subject: number): OutRecord {
  const ids = idsOf(workspaceKey, subject);
  const key = Buffer.from(ids[0]!);
  const headers = bytesOf({ [H.event]: `evt_${hex(i)}`, [H.hash]: hex(i), [H.source]: 'contacts', [H.accepted]: String(Date.now()), [H.traceparent]: `00-${hex(i + 1)}-${hex(i + 1).slice(16)}-01`, [H.release]: release, [H.mapping]: 'contacts', [H.output]: `out_${hex(i)}`, [H.outputName]: 'profile', [H.ids]: ids.join(','), [H.afterIdentity]: '0:0,1:0' });
  return { partition: partitionFor(key), key, value: seal(keys.current(ids[0]!)!, profile(serde, i, subject)), headers };
}

/** A delivery, as policy writes it. */
export function deliveryRecord({ serde, workspaceKey, keys, release, partitionFor }: Maker, i: number, subject: number): OutRecord {
  const ids = idsOf(workspaceKey, subject);
  const key = Buffer.from(ids[0]!);
  const now = Date.now();
  const value = serde.encode('weir.internal.Delivery', {
    outputId: `out_${hex(i)}`, eventId: `evt_${hex(i)}`, destination: 'crm', operation: 'upsert-contact', kind: 'use', recordType: 'weir.canonical.Profile', payload: seal(keys.current(ids[0]!)!, profile(serde, i, subject)), itemHash: hex(i), source: 'contacts', acceptedAt: now, decidedAt: now, release, rule: 'all',
    purpose: 'service', channel: null, topic: null, legalBasis: 'contract', consent: [], consentOffsets: [], identityOffsets: [], ids, notBefore: null, intent: '0',
  });
  return { partition: partitionFor(key), key, value, headers: bytesOf({ [H.event]: `evt_${hex(i)}`, [H.output]: `out_${hex(i)}`, [H.source]: 'contacts', [H.accepted]: String(now), [H.traceparent]: `00-${hex(i + 1)}-${hex(i + 1).slice(16)}-01`, [H.release]: release, [H.ids]: ids.join(',') }) };
}

/** A dead letter of a delivery, as the dispatcher writes it when its destination refused for good. */
export function letterRecord(maker: Maker, topic: string, offset: number, i: number, subject: number, letterPartition: (key: Buffer) => number): OutRecord {
  const delivery = deliveryRecord(maker, i, subject);
  const key = Buffer.from(`evt_${hex(i)}`);
  const now = Date.now();
  const value = maker.serde.encode('weir.internal.DeadLetter', {
    id: `dlq_${hex(i)}`, eventId: `evt_${hex(i)}`, stage: 'dispatcher', reasons: [{ code: 'destination-rejected', message: 'status 422', file: null, line: null, field: null, path: null }], source: 'contacts', destination: 'crm', operation: 'upsert-contact', attempts: 1, release: maker.release,
    topic, partition: delivery.partition, offset, key: delivery.key, value: delivery.value, headers: delivery.headers!.map(([name, bytes]) => ({ name, value: bytes })), effect: 'none', acceptedAt: now, at: now,
  });
  return { partition: letterPartition(key), key, value, headers: delivery.headers };
}

/** Its end on the ledger: the destination refused it, and surely did not apply it. */
export function endRecord({ serde, workspaceKey, partitionFor }: Maker, offset: number, i: number, subject: number): OutRecord {
  const key = deliveryKey(`out_${hex(i)}`, 'crm', 'upsert-contact', '0', 0);
  const of = idsOf(workspaceKey, subject)[0]!;
  const now = Date.now();
  return { partition: partitionFor(Buffer.from(of)), key: Buffer.from(`${key}#end`), value: serde.encode('weir.internal.LedgerEnd', {
    key, outputId: `out_${hex(i)}`, eventId: `evt_${hex(i)}`, operation: 'upsert-contact', state: 'dead-lettered', effect: 'none', code: 'destination-rejected', reason: 'status 422', status: 422, attempts: 1, generation: 0, itemHash: hex(i), subject: of,
    offset, at: now, acceptedAt: now, maybeSince: 0, purpose: 'service', channel: null,
  }) };
}

/** The subject of a record: uniform over them, and the same in every run (Knuth, multiplicative hashing). */
export const subjectOf = (i: number, subjects: number): number => Number((BigInt(i) * 2_654_435_761n) % BigInt(subjects));

/** Appends records `from` to `to`, in pieces; `before` is told of each. A piece is made while the one before is written. */
export async function fill(from: number, to: number, make: (i: number) => OutRecord, append: (records: readonly OutRecord[]) => Promise<unknown>, before?: (from: number, to: number) => Promise<void>): Promise<void> {
  const size = 5000;
  let writing: Promise<unknown> = Promise.resolve();
  for (let at = from; at < to; at += size) {
    const end = Math.min(to, at + size);
    await before?.(at, end);
    const records = Array.from({ length: end - at }, (_, i) => make(at + i));
    await writing;
    writing = append(records);
    // Told when it is waited for.
    writing.catch(() => {});
  }
  await writing;
}

/** Keys for the subjects of these records. */
export async function ensureKeys({ keys, workspaceKey }: Maker, from: number, to: number, subject: (i: number) => number): Promise<void> {
  await keys.ensure(Array.from({ length: to - from }, (_, i) => idsOf(workspaceKey, subject(from + i))[0]!));
}

export const restoredId = (i: number): string => `userId:${i.toString(36).padStart(22, 'A')}`;
