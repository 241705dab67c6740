import { WeirError } from '@weir/errors';
import type { Appender, Headers, LogRecord, OutRecord, Reader, Serde } from '@weir/log';
import { H, type TopicNames } from '@weir/pipeline';
import type { Store } from './store.ts';

export interface DeadLetterRecord {
  readonly id: string;
  readonly topic: string;
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: ReadonlyArray<{ readonly name: string; readonly value: Buffer }>;
  readonly [field: string]: unknown;
}

/** The dead letter with its bytes, from weir.dlq. */
export async function readDeadLetter(store: Store, reader: Reader, serde: Serde, topics: TopicNames, id: string): Promise<DeadLetterRecord> {
  const summary = store.deadLetter(id);
  if (summary === undefined) throw new WeirError('not-found', `no dead letter ${id}`);
  const record: LogRecord | undefined = await reader.readOne(topics.dlq, Number(summary['partition']), Number(summary['offset']));
  if (record?.value === null || record === undefined) throw new WeirError('not-found', `dead letter ${id} has left the topic (retention)`);
  await serde.prepare(record.value);
  return serde.decode(record.value).value as DeadLetterRecord;
}

/**
 * Its order id is that of the audit leaf `leaf_<uuid>`, so the records name the leaf. Put the original records back where they were read, on the same partition, so they go the way again. The
 * order id travels as a header on raw topics (the normalizer does not take them for conflicts) and on dispatch
 * topics (the dispatcher sends what is known as not applied under a new generation of the key, what may have
 * been applied under the same key, and what was delivered not at all). A canonical record gets none: it would
 * become part of the keys of its deliveries, and a second redrive would send them twice.
 */
export async function redrive(letters: readonly DeadLetterRecord[], appender: Appender, topics: TopicNames, leaf: string): Promise<{ readonly order: string; readonly redriven: number }> {
  const order = `redrive_${leaf.replace('leaf_', '')}`;
  const byTopic = new Map<string, OutRecord[]>();
  for (const letter of letters) {
    const kept = letter.headers.filter((h) => h.name !== H.intent && h.name !== H.dispatched).map((h) => [h.name, h.value] as const);
    const headers: Headers = letter.topic === topics.canonical ? kept : [...kept, [H.intent, Buffer.from(order)]];
    const records = byTopic.get(letter.topic) ?? [];
    records.push({ partition: letter.partition, key: letter.key, value: letter.value, headers });
    byTopic.set(letter.topic, records);
  }
  for (const [topic, records] of byTopic) await appender.append(topic, records);
  return { order, redriven: letters.length };
}
