import type { Item, JsonObject, PollSource, WebhookSource } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import type { Appender, OutRecord } from '@weir/log';
import { eventId, H, itemHash, type TopicNames } from '@weir/pipeline';
import type { SourceConfig } from '@weir/release';

export interface Accepted {
  readonly eventIds: readonly string[];
}

const maxEnvelope = 8 * 1024;
const maxKey = 512;

type Identify = (item: Item) => ReturnType<WebhookSource['identify']>;

/** Raw records of the items of one body: the sender's bytes, untouched, with their ids (docs/architecture.md 3.1). */
function toRecords(source: string, topic: string, items: readonly Item[], identify: Identify, envelope: JsonObject | undefined, traceparent: string, contentType: string, now: number, appender: Appender): { records: OutRecord[]; eventIds: string[] } {
  const records: OutRecord[] = [];
  const eventIds: string[] = [];
  const shared: [string, Buffer][] = [[H.source, Buffer.from(source)], [H.accepted, Buffer.from(String(now))], [H.traceparent, Buffer.from(traceparent)], [H.contentType, Buffer.from(contentType)]];
  if (envelope !== undefined && Object.keys(envelope).length > 0) {
    const text = Buffer.from(JSON.stringify(envelope));
    if (text.length > maxEnvelope) throw new WeirError('body-too-large', 'what surrounds the items is over 8 KiB');
    shared.push([H.envelope, text]);
  }
  for (const item of items) {
    const hash = itemHash(item.bytes);
    const { parts, unique, objectKey } = identify(item);
    const id = eventId(source, unique ? parts : [...parts, hash]);
    const object = objectKey !== undefined && objectKey !== '' && objectKey.length <= maxKey ? objectKey : undefined;
    const key = Buffer.from(object ?? id);
    eventIds.push(id);
    records.push({ partition: appender.partitionFor(topic, key), key, value: item.bytes, headers: [[H.event, Buffer.from(id)], [H.hash, Buffer.from(hash)], ...shared, [H.objectKey, key]] });
  }
  return { records, eventIds };
}

/** Resolves when every item is acknowledged; rejects with log-unavailable when it is not in time (the log goes on trying: duplicates are keyed). */
export interface AcceptPorts {
  readonly appender: Appender;
  readonly topics: TopicNames;
  readonly now: () => number;
  readonly ackTimeoutMs: number;
}

export async function accept(ports: AcceptPorts, source: SourceConfig, items: readonly Item[], envelope: JsonObject | undefined, traceparent: string, contentType: string): Promise<Accepted> {
  const topic = ports.topics.raw(source.name);
  const adapter = source.adapter.source as WebhookSource | PollSource;
  const identify: Identify = (item) => adapter.identify(item, source.config, envelope);
  const { records, eventIds } = toRecords(source.name, topic, items, identify, envelope, traceparent, contentType, ports.now(), ports.appender);
  await acknowledged(ports.appender.append(topic, records), ports.ackTimeoutMs);
  return { eventIds };
}

function acknowledged(work: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new WeirError('log-unavailable', `the log did not acknowledge within ${ms} ms`)), ms);
    work.then(() => {
      clearTimeout(timer);
      resolve();
    }, (error: unknown) => {
      clearTimeout(timer);
      reject(new WeirError('log-unavailable', undefined, { cause: error }));
    });
  });
}
