import { hmacText, linkedFrom } from './ids.ts';

/** By what two deliveries of one subject by one operation are told apart: which of them is the newer. */
export interface Age {
  /** When ingest accepted it, ms since the epoch. */
  readonly acceptedAt: number;
  /** Offset on weir.dispatch.<destination> of the first record of the delivery, which has the order of the subject; -1 = not known. */
  readonly firstOffset: number;
}

/**
 * Whether `a` is surely newer than `b`. Two updates that came in one request have the same accept time: then the order in which
 * they were decided counts, and where that is not known of both, neither is newer.
 */
export const isNewer = (a: Age, b: Age): boolean => a.acceptedAt > b.acceptedAt || (a.acceptedAt === b.acceptedAt && b.firstOffset >= 0 && a.firstOffset > b.firstOffset);

/** What a profile sets: its subject. */
export const ofSubject = 'p';
/** Of a record that replaces nothing which another one set. */
export const ofItsOwn = '-';

/** Under which objects the newest delivered one is looked for that may have set the same: its own, and that of ends which do not say what they set. */
export const objectsLike = (object: string): readonly string[] => (object === ofItsOwn ? [] : object === '' ? [''] : [object, '']);

/**
 * What a delivery sets at the vendor, told apart from what others of its subject set by the same operation: of two of one object
 * the older one, redriven, rolls the newer one back. A profile sets its subject, whatever the vendor's rule for repeated calls. Of
 * the others only what the vendor upserts replaces anything: a change of consent the state of its purpose, channel and topic (under
 * a linked identifier apart), another record the object that its sender names, which may be the person: what else says that it
 * is another thing (`namedBy`) counts, too. Without the sender's name it is one of its own. Keyed, for such a name is personal data.
 * '' = not known: operation or record are not at hand.
 * @param operation of the manifest
 * @param read gives the record as the vendor gets it, undefined = it cannot be read now; asked only where it is needed
 */
export function objectOf(workspaceKey: Buffer, { recordType, source, outputId }: { readonly recordType: string; readonly source: string; readonly outputId: string }, operation: { readonly idempotency: { readonly scheme: string } } | undefined, read: () => Readonly<Record<string, unknown>> | undefined): string {
  if (recordType === 'weir.canonical.Profile') return ofSubject;
  if (operation === undefined) return '';
  if (operation.idempotency.scheme !== 'natural-upsert') return ofItsOwn;
  const record = read();
  if (record === undefined) return '';
  if (recordType === 'weir.canonical.ConsentChange') return keyedObject(workspaceKey, [recordType, record['purpose'], record['channel'], record['topic'], linkedFrom(outputId)?.id]);
  if (typeof record['objectKey'] !== 'string') return ofItsOwn;
  return keyedObject(workspaceKey, [recordType, source, record['objectKey'], ...(namedBy.get(recordType) ?? []).map((field) => record[field])]);
}

/** Fields that name a record, beside its objectKey. */
const namedBy: ReadonlyMap<string, readonly string[]> = new Map([['weir.canonical.Order', ['orderId']], ['weir.canonical.Event', ['messageId']], ['weir.canonical.CampaignMetric', ['campaignId', 'channel', 'periodStart']]]);

const keyedObject = (workspaceKey: Buffer, parts: readonly unknown[]): string => hmacText(workspaceKey, `sets\u0000${JSON.stringify(parts)}`).slice(0, 22);
