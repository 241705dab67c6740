import { hash as digest } from 'node:crypto';
import type { Item, JsonObject, PollSource, WebhookSource } from '@weir/adapter';
import { findWeirError, WeirError } from '@weir/errors';
import { headerBytes, Packer, type Appender, type OutRecord } from '@weir/log';
import { H, itemEventId, itemHash, keyedId, type TopicNames } from '@weir/pipeline';
import type { SourceConfig } from '@weir/release';
import { rawOwner, seal, sealOverhead, sealTo, type KeyRing, type SealKey } from '@weir/seal';

export interface AcceptPorts {
  readonly appender: Appender;
  readonly topics: TopicNames;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly ackTimeoutMs: number;
  /** Seals items and what surrounds them, and keys the sender's object ids; undefined = they stay as they came. */
  readonly sealing?: { readonly keys: Pick<KeyRing, 'current' | 'ensure'>; readonly workspaceKey: Buffer };
}

/** What items came in, besides their bytes. */
export interface Arrival {
  readonly source: SourceConfig;
  readonly items: readonly Item[];
  readonly envelope?: JsonObject;
  readonly traceparent: string;
  readonly contentType: string;
}

const maxEnvelope = 8 * 1024;
const maxKey = 512;
const maxContentType = 200;
/** The log takes 2 MB a record, headers included. */
export const maxItemBytes = 1_900_000;

/**
 * Appends the items as raw records (docs/architecture.md 3.1): the sender's bytes, untouched, with their ids. Resolves with
 * the event ids when every record is acknowledged. Rejects with log-unavailable when they are not in time (the log goes on
 * trying: duplicates are keyed), overloaded when the log takes no more, body-too-large when an item does not fit a record.
 */
export async function accept(ports: AcceptPorts, arrival: Arrival): Promise<readonly string[]> {
  const topic = ports.topics.raw(arrival.source.name);
  const now = ports.now();
  const key = ports.sealing === undefined ? undefined : await rawKey(ports.sealing.keys, rawOwner(arrival.source.name, now));
  const { records, eventIds } = toRecords(ports, topic, arrival, now, key);
  await acknowledged(ports.appender.append(topic, records), ports.ackTimeoutMs);
  return eventIds;
}

export async function rawKey(keys: Pick<KeyRing, 'current' | 'ensure'>, owner: string): Promise<SealKey> {
  const known = keys.current(owner);
  if (known !== undefined) return known;
  await keys.ensure([owner]);
  return keys.current(owner)!;
}

/** The event id of an item, and the sender's id of its object. `hash` is the item's. */
export function idOf(source: SourceConfig, item: Item, hash: string, envelope: JsonObject | undefined): { readonly eventId: string; readonly objectKey: string | undefined } {
  const identity = (source.adapter.source as WebhookSource | PollSource).identify(item, source.config, envelope);
  return { eventId: itemEventId(source.name, identity, hash), objectKey: identity.objectKey };
}

/** What the records of an object have in common, however long its id is. The sender's id of a person may be an e-mail address: it is no key of a topic as it is. */
function rawKeyOf({ sealing }: AcceptPorts, objectKey: string): string {
  if (sealing !== undefined) return keyedId(sealing.workspaceKey, 'object', objectKey);
  return objectKey.length > maxKey ? digest('sha256', objectKey, 'base64url') : objectKey;
}

/** Where records are put together; each leaves with bytes of its own. */
const packer = new Packer();
const name = (header: string): Buffer => headerBytes(header, '').subarray(0, -1);
const names = { event: name(H.event), hash: name(H.hash), accepted: name(H.accepted), traceparent: name(H.traceparent), envelope: name(H.envelope), objectKey: name(H.objectKey) };

/** A header whose value is nearly always that of the record before. */
function repeating(header: string): (value: string) => Buffer {
  let last = { value: '', bytes: headerBytes(header, '') };
  return (value) => {
    if (value !== last.value) last = { value, bytes: headerBytes(header, value) };
    return last.bytes;
  };
}
const sourceHeader = repeating(H.source);
const contentTypeHeader = repeating(H.contentType);

/** What surrounds the items, as it stands in a header; undefined = nothing does. */
function envelopeBytes(envelope: JsonObject | undefined, sealing: SealKey | undefined): Buffer | undefined {
  if (envelope === undefined || Object.keys(envelope).length === 0) return undefined;
  const text = Buffer.from(JSON.stringify(envelope));
  if (text.length > maxEnvelope) throw new WeirError('body-too-large', 'what surrounds the items is over 8 KiB');
  return sealing === undefined ? text : seal(sealing, text);
}

function toRecords(ports: AcceptPorts, topic: string, { source, items, envelope, traceparent, contentType }: Arrival, now: number, sealing: SealKey | undefined): { records: OutRecord[]; eventIds: string[] } {
  const records: OutRecord[] = [];
  const eventIds: string[] = [];
  const surrounding = envelopeBytes(envelope, sealing);
  const bySource = sourceHeader(source.name);
  const byType = contentTypeHeader(contentType.slice(0, maxContentType));
  const accepted = String(now);
  for (const item of items) {
    const { bytes } = item;
    if (bytes.length > maxItemBytes) throw new WeirError('body-too-large', `an item is over ${maxItemBytes} bytes`);
    const hash = itemHash(bytes);
    const { eventId: id, objectKey } = idOf(source, item, hash, envelope);
    const key = Buffer.from(objectKey === undefined || objectKey === '' ? id : rawKeyOf(ports, objectKey));
    eventIds.push(id);
    // Of one that was given up (a key that was destroyed meanwhile) nothing stays.
    packer.reset();
    packer.begin();
    packer.key(key, 0, key.length);
    if (sealing === undefined) packer.value(bytes, 0, bytes.length);
    else {
      const at = packer.valueRoom(sealOverhead + bytes.length);
      sealTo(sealing, bytes, packer.bytes, at);
    }
    packer.header(names.event, id);
    packer.header(names.hash, hash);
    packer.headers(bySource, 0, bySource.length, 1);
    packer.header(names.accepted, accepted);
    packer.header(names.traceparent, traceparent);
    packer.headers(byType, 0, byType.length, 1);
    if (surrounding !== undefined) packer.headerOf(names.envelope, surrounding);
    packer.headerOf(names.objectKey, key);
    records.push(packer.endAlone(ports.appender.partitionFor(topic, key)));
  }
  return { records, eventIds };
}

/** Resolves with the work; rejects with log-unavailable when it is not done in time, or failed for the log's sake. */
export function acknowledged(work: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new WeirError('log-unavailable', `the log did not acknowledge within ${ms} ms`)), ms);
    work.then(() => {
      clearTimeout(timer);
      resolve();
    }, (error: unknown) => {
      clearTimeout(timer);
      const known = findWeirError(error);
      if (known === undefined) reject(error);
      else reject(known.code === 'overloaded' ? known : new WeirError('log-unavailable', undefined, { cause: error }));
    });
  });
}
