import { regionKey, regionValue } from '@weir/consent';
import { findWeirError } from '@weir/errors';
import type { Appender, LogAdmin, LogRecord, Reader, Serde } from '@weir/log';
import { H, type TopicNames } from '@weir/pipeline';
import type { KeyRing } from '@weir/seal';
import { erasureSource } from './erasure.ts';
import { header } from './indexer.ts';

/** What can be read of a person on the topics behind weir.canonical. */
export interface Remaining {
  readonly readable: number;
  /** Broker time of the newest of them by topic, ms since the epoch. */
  readonly newest: ReadonlyMap<string, number>;
}

export interface Remains {
  /**
   * Records under these identifiers that were accepted until `until` (ms since the epoch) and open: changes of consent,
   * deliveries on the dispatch and parked topics, also of destinations that left the release, and dead letters of the stages
   * behind the normalizer. From the first offset to the end of now. Raw items are not looked at: their keys are those of a day.
   * `goOn` is called for each fetch; what it throws ends the search.
   */
  find(ids: readonly string[], until: number, goOn: () => void): Promise<Remaining>;
  /** Keys on weir.identity that say where one of these identifiers is known to be (in the clear) by a record that was accepted until `until`, or that nobody can read. */
  regions(ids: readonly string[], until: number, goOn: () => void): Promise<readonly string[]>;
}

export interface RemainsPorts {
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'beginningOffsets' | 'endOffsets' | 'listTopics'>;
  readonly appender: Pick<Appender, 'partitionFor' | 'partitions'>;
  readonly serde: Pick<Serde, 'prepare' | 'known' | 'decode'>;
  readonly topics: TopicNames;
  readonly keys: Pick<KeyRing, 'open'>;
}

type Decoded = { readonly name: string; readonly value: Record<string, unknown> };
const deliveryName = 'weir.internal.Delivery';
const letterName = 'weir.internal.DeadLetter';
/** Destroyed, or bytes that no key and no schema makes readable. */
const shut: ReadonlySet<string> = new Set(['subject-erased', 'avro-undecodable', 'schema-unknown']);
/** Dead letters are decoded to see whose they are: between so many the event loop gets a turn. */
const turnLetters = 500;

/** A search keeps counts and what one fetch brings, whatever the topics hold. */
export function createRemains(ports: RemainsPorts): Remains {
  const { reader, admin, appender, serde, topics, keys } = ports;

  /** Undefined: it does not open. */
  async function decoded(bytes: Buffer): Promise<Decoded | undefined> {
    try {
      if (!serde.known(bytes)) await serde.prepare(bytes);
      return serde.decode(bytes) as Decoded;
    } catch (error) {
      if (!shut.has(findWeirError(error)?.code ?? '')) throw error;
      return undefined;
    }
  }

  function opens(bytes: unknown): boolean {
    if (!Buffer.isBuffer(bytes)) return false;
    try {
      return keys.open(bytes) !== undefined;
    } catch (error) {
      if (findWeirError(error)?.code !== 'avro-undecodable') throw error;
      return false;
    }
  }

  /** What the erasure itself wrote names nobody, or is sealed under the key of its order. */
  async function opensAs(bytes: Buffer): Promise<boolean> {
    const found = await decoded(bytes);
    if (found === undefined || found.value['source'] === erasureSource) return false;
    if (found.name !== deliveryName) return true;
    const standby = found.value['standby'] as { readonly payload?: unknown } | null | undefined;
    return opens(found.value['payload']) || opens(standby?.payload);
  }

  async function read(topic: string, partitions: Iterable<number> | undefined, goOn: () => void, take: (topic: string, record: LogRecord) => Promise<void>): Promise<void> {
    const [begins, ends] = await Promise.all([admin.beginningOffsets(topic), admin.endOffsets(topic)]);
    for (const partition of partitions ?? ends.keys()) {
      await reader.read(topic, partition, begins.get(partition) ?? 0, ends.get(partition) ?? 0, async (batch) => {
        goOn();
        for (const record of batch.records) await take(topic, record);
      });
    }
  }

  /** When what it says was accepted; 0 = nobody can read it. */
  async function saidAt(value: Buffer): Promise<number> {
    try {
      if (!serde.known(value)) await serde.prepare(value);
    } catch (error) {
      if (!shut.has(findWeirError(error)?.code ?? '')) throw error;
      return 0;
    }
    return regionValue(serde, value).at;
  }

  return {
    async regions(ids, until, goOn) {
      const wanted = new Set(ids.map(regionKey));
      const found = new Set<string>();
      await appender.partitions(topics.identity);
      await read(topics.identity, new Set([...wanted].map((key) => appender.partitionFor(topics.identity, key))), goOn, async (_topic, { key, value }) => {
        const name = key?.toString() ?? '';
        if (!wanted.has(name)) return;
        if (value !== null && await saidAt(value) <= until) found.add(name);
        else found.delete(name);
      });
      return [...found];
    },
    async find(ids, until, goOn) {
      const wanted = new Set(ids);
      const newest = new Map<string, number>();
      let readable = 0;
      let letters = 0;
      const covered = (acceptedAt: number): boolean => !(acceptedAt > until);

      function count(topic: string, record: LogRecord): void {
        readable++;
        newest.set(topic, Math.max(newest.get(topic) ?? 0, record.timestamp));
      }

      async function keyed(topic: string, record: LogRecord): Promise<void> {
        if (record.value === null || !wanted.has(record.key?.toString() ?? '') || !covered(Number(header(record, H.accepted) || Number.NaN))) return;
        if (await opensAs(record.value)) count(topic, record);
      }

      async function letter(topic: string, record: LogRecord): Promise<void> {
        if (++letters % turnLetters === 0) await new Promise<void>((resume) => { setImmediate(resume); });
        const found = record.value === null ? undefined : await decoded(record.value);
        if (found?.name !== letterName) return;
        const { key, value, acceptedAt, topic: from } = found.value as { key: Buffer | null; value: Buffer | null; acceptedAt: number; topic: string };
        if (value === null || from.startsWith(topics.raw('')) || !wanted.has(key?.toString() ?? '') || !covered(acceptedAt)) return;
        if (await opensAs(value)) count(topic, record);
      }

      const bySubject = (await admin.listTopics()).filter((name) => name.startsWith(topics.dispatch('')) || name.startsWith(topics.parked('')));
      for (const topic of [topics.consentChanges, ...bySubject]) {
        await appender.partitions(topic);
        await read(topic, new Set(ids.map((id) => appender.partitionFor(topic, id))), goOn, keyed);
      }
      await read(topics.dlq, undefined, goOn, letter);
      return { readable, newest };
    },
  };
}
