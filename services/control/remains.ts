import { regionKey, regionValue } from '@weir/consent';
import { findWeirError } from '@weir/errors';
import type { Appender, LogAdmin, LogRecord, Reader, Serde } from '@weir/log';
import { createInTurn, erasureSource, H, retentionOf, type TopicNames } from '@weir/pipeline';
import type { ConsentState } from '@weir/policy';
import type { KeyRing } from '@weir/seal';
import { header } from './indexer.ts';
import type { Subjects } from './subjects.ts';

/** What of a person stands on the topics. */
export interface Remaining {
  /** Records that open, of before the mark. */
  readonly readable: number;
  /** Canonical records whose keys are destroyed. */
  readonly unreadable: number;
  /** Canonical records that nobody can read whatever keys he has: they leave with retention. */
  readonly broken: number;
  /** When retention has taken all that is readable, at the latest, ms since the epoch; null = nothing is, or one of the topics is kept for ever, or for a time that the brokers do not tell. */
  readonly until: number | null;
}

/**
 * What is left of a person, by readers from the first offset to the end of now. `ids` are all identifiers of the person; what was accepted
 * after `mark` (ms since the epoch) is not covered. `goOn` is called for each fetch; what it throws ends the search.
 */
export interface Remains {
  /**
   * Canonical records, changes of consent, deliveries on the dispatch and parked topics, also of destinations that left the
   * release, and dead letters of the stages behind the normalizer. Raw items are not looked at: their keys are those of a day.
   * One search at a time: each holds what one fetch brings.
   */
  look(ids: readonly string[], mark: number, goOn: () => void): Promise<Remaining>;
  /**
   * Where the person is stands in the clear beside its links: deleted until a reader finds none that says it by a record of before the mark,
   * or that nobody can read, as a decision of before its process read the mark may come behind a deletion. It counts for nobody
   * (`createKnownRegions`), and must not stand there. What one says who came again since stays.
   */
  forgetRegions(ids: readonly string[], mark: number, goOn: () => void): Promise<void>;
  /**
   * States of consent of the person, the newest of each key on weir.consent, that have words of a change of before the mark in the
   * clear: `proof`, `noticeVersion`, `jurisdiction`. What one says who came again since is not among them.
   */
  statesWithProof(ids: readonly string[], mark: number, goOn: () => void): Promise<readonly ConsentState[]>;
  /** Keys of the person that stand before the last mark of their owner; not by the ring that destroyed them. */
  keysLeft(ids: readonly string[]): Promise<number>;
}

export interface RemainsPorts {
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'beginningOffsets' | 'endOffsets' | 'listTopics' | 'describeTopics'>;
  readonly appender: Pick<Appender, 'append' | 'partitionFor' | 'partitions'>;
  readonly serde: Pick<Serde, 'prepare' | 'known' | 'decode'>;
  readonly topics: TopicNames;
  readonly keys: Pick<KeyRing, 'open'>;
  readonly subjects: Pick<Subjects, 'scan'>;
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
  const { reader, admin, appender, serde, topics, keys, subjects } = ports;
  const inTurn = createInTurn();

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

  /** Keys on weir.identity that say where one of these is known to be by a record of before the mark, or that nobody can read. */
  async function regions(ids: readonly string[], mark: number, goOn: () => void): Promise<readonly string[]> {
    const wanted = new Set(ids.map(regionKey));
    const found = new Set<string>();
    await appender.partitions(topics.identity);
    await read(topics.identity, new Set([...wanted].map((key) => appender.partitionFor(topics.identity, key))), goOn, async (_topic, { key, value }) => {
      const name = key?.toString() ?? '';
      if (!wanted.has(name)) return;
      if (value !== null && await saidAt(value) <= mark) found.add(name);
      else found.delete(name);
    });
    return [...found];
  }

  /** What opens behind weir.canonical. */
  async function findBehind(ids: readonly string[], mark: number, goOn: () => void): Promise<{ readonly readable: number; readonly newest: Map<string, number> }> {
    const wanted = new Set(ids);
    const newest = new Map<string, number>();
    let readable = 0;
    let letters = 0;
    const covered = (acceptedAt: number): boolean => !(acceptedAt > mark);

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
  }

  /** When retention has taken what stands on these topics, at the latest, by the time of the newest on each: a segment is deleted as one, once all of it is past. Null = nothing stands there, or one is kept for ever, or for a time that the brokers do not tell. */
  async function goneBy(newest: ReadonlyMap<string, number>): Promise<number | null> {
    if (newest.size === 0) return null;
    const ends = (await admin.describeTopics([...newest.keys()])).map(({ name, config }) => newest.get(name)! + retentionOf(config) + Number(config['segment.ms'] ?? Number.POSITIVE_INFINITY));
    const last = Math.max(...ends);
    return Number.isFinite(last) ? last : null;
  }

  async function look(ids: readonly string[], mark: number, goOn: () => void): Promise<Remaining> {
    let unreadable = 0;
    let broken = 0;
    let readable = 0;
    let newest = 0;
    goOn();
    await subjects.scan(ids, (record) => {
      goOn();
      if (record.broken) broken++;
      else if (record.value === undefined) unreadable++;
      // What came since is not covered; without a time it is.
      else if (record.source !== erasureSource && !(record.acceptedAt > mark)) {
        readable++;
        newest = Math.max(newest, record.at);
      }
    });
    const behind = await findBehind(ids, mark, goOn);
    if (readable > 0) behind.newest.set(topics.canonical, newest);
    return { readable: readable + behind.readable, unreadable, broken, until: await goneBy(behind.newest) };
  }

  return {
    look: (ids, mark, goOn) => inTurn(() => look(ids, mark, goOn)),
    async forgetRegions(ids, mark, goOn) {
      for (;;) {
        const left = await regions(ids, mark, goOn);
        if (left.length === 0) return;
        await appender.append(topics.identity, left.map((name) => ({ partition: appender.partitionFor(topics.identity, name), key: Buffer.from(name), value: null })));
      }
    },
    async statesWithProof(ids, mark, goOn) {
      const owners = new Set(ids);
      const found = new Map<string, ConsentState>();
      await appender.partitions(topics.consentChanges);
      await read(topics.consent, new Set(ids.map((id) => appender.partitionFor(topics.consentChanges, id))), goOn, async (_topic, { key, value }) => {
        const name = key?.toString() ?? '';
        if (!owners.has(name.slice(0, Math.max(0, name.indexOf('|'))))) return;
        const state = (value === null ? undefined : await decoded(value))?.value as unknown as ConsentState | undefined;
        const has = (text: string | null | undefined): boolean => text !== null && text !== undefined && text !== '';
        if (state !== undefined && state.changedAt <= mark && (has(state.proof) || has(state.noticeVersion) || has(state.jurisdiction))) found.set(name, state);
        else found.delete(name);
      });
      return [...found.values()];
    },
    async keysLeft(ids) {
      const owners = new Set(ids);
      const alive = new Set<string>();
      const before = new Set<string>();
      const ends = await admin.endOffsets(topics.keys);
      for (const partition of new Set(ids.map((id) => appender.partitionFor(topics.keys, id)))) {
        await reader.read(topics.keys, partition, 0, ends.get(partition) ?? 0, (batch) => {
          for (const { key, value } of batch.records) {
            const name = key?.toString() ?? '';
            const owner = name.slice(0, name.lastIndexOf('#'));
            if (!owners.has(owner)) continue;
            if (name.endsWith('#erased')) {
              for (const key of alive) if (key.startsWith(`${owner}#`)) before.add(key);
            } else if (value === null) {
              alive.delete(name);
              before.delete(name);
            } else alive.add(name);
          }
        });
      }
      return before.size;
    },
  };
}

