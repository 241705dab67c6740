import { foldedKey } from '@weir/consent';
import { recordFault, type ErrorCode } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { Assignment, GroupConsumer, LogRecord, OutRecord, RecordBatch } from '@weir/log';
import { consentApi, H, ofAhead, ofDeadLetter, ofQuarantine } from '@weir/pipeline';
import { consentKey, everyPurpose, foldConsent, isRoutedChannel, type ConsentState } from '@weir/policy';
import { isRepeated } from '@weir/release';
import { coPartitioned } from '@weir/service';
import { deadLetter } from './dead-letter.ts';
import { headerOf, numberOf, textOf, type PolicyPorts } from './ports.ts';
import { prepare } from './prepare.ts';
import type { ApiChange } from './relay.ts';

/** One partition of weir.consent.changes that this instance folds. */
interface Fold {
  readonly partition: number;
  readonly epoch: number;
  /** States written and not yet read back, with the offset of their record on weir.consent. */
  readonly written: Map<string, { readonly state: ConsentState; offset: number }>;
  /** Runs one batch after another. */
  work: Promise<void>;
  /** The last commit; the next batch does not wait for it. */
  committing: Promise<void>;
  /** What follows from changes of the API, written one batch after another, each before its commit. */
  relaying: Promise<void>;
  toRelay: number;
  /** The newest mark that this owner wrote. */
  marked: number;
  /** States that a late writer overwrote are being written again. */
  mending: boolean;
  /** Offset of the last of them on weir.consent. */
  mendedAt: number;
  waiting: number;
  /** It goes to another owner: nothing is waited for. */
  leaving: boolean;
  closed: boolean;
}

const maxWaiting = 4;
/** Changes of the API whose consequences wait to be written; with more the fold waits too. */
const maxToRelay = 2000;
/** Mappings of what comes onto weir.consent.changes by itself: the API, an erasure. */
const direct = /^weir[:-]/;

/** When the change came onto the log, by the broker's clock: the raw record that it was made of, or its own. */
function loggedAt(record: LogRecord): number | undefined {
  return headerOf(record.headers, H.logged) !== undefined ? numberOf(record, H.logged) : direct.test(textOf(record, H.mapping)) ? record.timestamp : undefined;
}

const idsOf = (record: LogRecord): string[] => textOf(record, H.ids).split(',').filter((id) => id !== '');

const identifier = /^[A-Za-z][A-Za-z0-9_]{0,31}:[A-Za-z0-9_-]{1,64}$/;

/**
 * Folds weir.consent.changes into weir.consent, partition by partition: one state per key and batch, then the
 * watermark of the partition, in one append; the commit follows the acks, and those of what follows from changes of the
 * consent API (`relay`), which the next batch does not wait for. Repeating a batch gives the same states.
 * Nothing of a partition is folded before its states were read up to a record that was written after the assignment.
 */
export function createFolder(ports: PolicyPorts, relay: (changes: readonly ApiChange[]) => Promise<void>): GroupConsumer {
  const { context, appender, tables, metrics } = ports;
  const { serde, topics, clock, logger } = context;
  const folds = new Map<number, Fold>();

  /** A record of its own tells where the states of the owner before end: the end that is told, and what is shown, may be of a broker that was cut off (docs/decisions/0030). */
  async function assigned(parts: readonly Assignment[]): Promise<void> {
    if (parts.length === 0) return;
    const marks = await appender.append(topics.consent, parts.map(({ partition, position }) => watermark(partition, position)));
    await tables.readToEnd(new Map(parts.map(({ partition }, i) => [partition, marks[i]! + 1])));
    await Promise.all(parts.map(async ({ partition, epoch }) => {
      const fold: Fold = { partition, epoch, written: new Map(), work: Promise.resolve(), committing: Promise.resolve(), relaying: Promise.resolve(), toRelay: 0, mending: true, mendedAt: -1, waiting: 0, leaving: false, closed: false, marked: 0 };
      folds.set(partition, fold);
      await writeAgain(fold);
      fold.mending = false;
    }));
  }

  const readBackOf = ({ partition }: Fold): number => tables.consentPositions()[partition] ?? 0;

  /** States of which an older one came onto the topic behind them: by an owner that had lost the partition, or by a request that was given up and sent again. */
  async function writeAgain(fold: Fold): Promise<void> {
    const { partition } = fold;
    const readBack = readBackOf(fold);
    const again = tables.regressed(partition).flatMap((key): OutRecord[] => {
      if (key === foldedKey(partition)) return [watermark(partition, Math.max(fold.marked, tables.folded(partition)))];
      // What is on its way to the table stands behind the late one, and is newer than what the table has.
      const stored = (fold.written.get(key)?.offset ?? -1) >= readBack ? undefined : tables.stored(key);
      return stored?.partition !== partition ? [] : [{ partition, key: Buffer.from(key), value: stored.bytes }];
    });
    if (again.length === 0) return;
    logger.warn({ partition, states: again.length }, 'states and marks that a late writer overwrote are written again');
    fold.mendedAt = (await appender.append(topics.consent, again)).at(-1)!;
  }

  /** At once and not at the next assignment: when the topic is compacted, who reads it anew has only the late ones. */
  function mend(): void {
    for (const fold of folds.values()) {
      if (fold.closed || fold.mending || tables.regressed(fold.partition).length === 0 || readBackOf(fold) <= fold.mendedAt) continue;
      fold.mending = true;
      fold.work = fold.work.then(async () => {
        if (!fold.closed) await writeAgain(fold);
      }).catch((error: unknown) => {
        fold.closed = true;
        ports.fail(error);
      }).finally(() => { fold.mending = false; });
    }
  }
  tables.onAdvance(mend);

  function watermark(partition: number, nextOffset: number): OutRecord {
    return { partition, key: Buffer.from(foldedKey(partition)), value: serde.encode('weir.internal.ConsentFolded', { partition, nextOffset }) };
  }

  function stateOf(fold: Fold, key: string): ConsentState | undefined {
    const own = fold.written.get(key);
    if (own !== undefined) return own.state;
    const stored = tables.stored(key);
    // Offsets of another partition (before an increase of partitions) say nothing about this one.
    return stored === undefined || stored.partition === fold.partition ? stored?.state : { ...stored.state, version: -1 };
  }

  /** Fold one record into `changed`, and name it in `relayed` where more follows from it; the dead letter of one that can not be read. */
  function foldRecord(fold: Fold, record: LogRecord, changed: Map<string, ConsentState>, relayed: ApiChange[]): ReturnType<typeof deadLetter> | undefined {
    const bad = (code: ErrorCode, message: string) => {
      metrics.deadLettered.inc({ stage: 'fold', code });
      return deadLetter(ports, record, topics.consentChanges, fold.partition, code, message);
    };
    const id = record.key?.toString() ?? '';
    if (record.value === null || !identifier.test(id)) return bad('avro-undecodable', 'a consent change without an identifier or a value');
    let value: any;
    try {
      const decoded = serde.decode(record.value);
      if (decoded.name !== 'weir.canonical.ConsentChange') return bad('avro-undecodable', `a ${decoded.name} among consent changes`);
      value = decoded.value;
    } catch (error) {
      const code = recordFault(error);
      if (code === undefined) throw error;
      if (code !== 'subject-erased') return bad(code, (error as Error).message);
      // No erasure covers it: who sealed it had not read the mark yet, and what was said since must not be lost in silence.
      if (context.keys!.erasedUntil([id, ...idsOf(record)]) < numberOf(record, H.accepted)) return bad('key-destroyed', 'a change of consent that was accepted after the erasure of the person, and sealed under the key of before it');
      // What an erased person had said; the mark of the erasure stands for it, and the canonical record of it ends as denied.
      metrics.folded.inc({ changed: 'erased' });
      return undefined;
    }
    if (textOf(record, H.mapping) === consentApi && textOf(record, H.ids).split(',', 1)[0] === id) relayed.push({ record, partition: fold.partition, purpose: value.purpose });
    const by = textOf(record, H.mapping);
    const release = context.releases.current();
    const change = {
      changeId: textOf(record, H.output) || `${topics.consentChanges}/${fold.partition}/${record.offset}`,
      purpose: value.purpose, channel: value.channel ?? '', topic: value.topic ?? '', state: value.state, source: value.source,
      acceptedAt: numberOf(record, H.accepted), loggedAt: loggedAt(record), occurredAt: Number(value.occurredAt), legalBasis: value.legalBasis, proof: value.proof, expiresAt: value.expiresAt,
      jurisdiction: value.jurisdiction, noticeVersion: value.noticeVersion, standing: value.standing === true, repeats: isRepeated(value, value.source), untold: by === ofDeadLetter || by === ofQuarantine || by === ofAhead, secondBody: by === ofQuarantine, early: by === ofAhead,
      unrouted: by !== consentApi && typeof value.channel === 'string' && value.channel !== '' && !isRoutedChannel(release.policy, value.channel),
    };
    const ofAll = change.purpose === everyPurpose && change.channel === '' && change.topic === '';
    if (!ofAll && !release.policy.purposes.has(change.purpose)) noteUnknown(release.sources.has(change.source) ? change.source : 'other', release.hash, fold.partition, record.offset);
    const key = consentKey(id, change.purpose, change.channel, change.topic);
    const stopKey = consentKey(id, everyPurpose, '', '');
    const next = foldConsent(changed.get(key) ?? stateOf(fold, key), id, change, record.offset, release.consent, changed.get(stopKey) ?? stateOf(fold, stopKey));
    metrics.folded.inc({ changed: String(next !== undefined) });
    if (next !== undefined) changed.set(key, next);
    return undefined;
  }

  /** Sources of which it was said under this release. */
  let told: { readonly release: string; readonly sources: Set<string> } | undefined;

  /** It is kept: the purpose may come with a later release. It binds nothing until then, so somebody must see it. Each is counted, and the first of a source is logged: a tool may say it with every call. */
  function noteUnknown(source: string, release: string, partition: number, offset: number): void {
    metrics.unknownPurpose.inc({ source });
    if (told?.release !== release) told = { release, sources: new Set() };
    if (told.sources.has(source)) return;
    told.sources.add(source);
    logger.warn({ source, partition, offset }, 'a change of consent is for a purpose that the workspace does not have: weir_consent_unknown_purpose_total counts those that follow');
  }

  async function foldBatch(fold: Fold, batch: RecordBatch): Promise<void> {
    const readBack = readBackOf(fold);
    for (const [key, { offset }] of fold.written) if (readBack > offset) fold.written.delete(key);
    if (!await prepare(ports, batch.records, () => fold.leaving || fold.closed)) fold.closed = true;
    if (fold.closed) return;
    const changed = new Map<string, ConsentState>();
    const relayed: ApiChange[] = [];
    const letters = batch.records.flatMap((record) => foldRecord(fold, record, changed, relayed) ?? []);
    if (letters.length > 0) await Promise.all([appender.append(topics.dlq, letters.map((l) => l.dlq)), appender.append(topics.outcome, letters.map((l) => l.outcome))]);
    if (fold.closed) return;
    failpoint('policy.folded');
    const out: OutRecord[] = [];
    for (const [key, state] of changed) {
      fold.written.set(key, { state, offset: Infinity });
      out.push({ partition: fold.partition, key: Buffer.from(key), value: serde.encode('weir.internal.ConsentState', state) });
    }
    const offsets = await appender.append(topics.consent, [...out, watermark(fold.partition, batch.nextOffset)]);
    fold.marked = batch.nextOffset;
    failpoint('policy.states-acked');
    let i = 0;
    for (const key of changed.keys()) fold.written.get(key)!.offset = offsets[i++]!;
    const now = clock.now();
    for (const record of batch.records) metrics.foldLatency.observe(Math.max(0, now - record.timestamp) / 1000);
    relayLater(fold, relayed);
    fold.committing = fold.relaying.then(() => commit(fold, batch.nextOffset)).catch(ports.fail);
    if (fold.toRelay > maxToRelay) await fold.relaying;
    lag(fold.partition, batch.highWatermark - batch.nextOffset);
  }

  /** Of a partition that was lost the new owner does it: nothing behind it is committed. */
  function relayLater(fold: Fold, changes: readonly ApiChange[]): void {
    if (changes.length === 0) return;
    fold.toRelay += changes.length;
    fold.relaying = fold.relaying.then(async () => {
      if (!fold.closed) await relay(changes);
      fold.toRelay -= changes.length;
    });
    fold.relaying.catch(ports.fail);
  }

  async function commit(fold: Fold, offset: number): Promise<void> {
    try {
      await consumer.commit([{ topic: topics.consentChanges, partition: fold.partition, epoch: fold.epoch, offset }]);
      ports.progress.committed();
    } catch (error) {
      if ((error as { code?: string }).code !== 'log-assignment-stale') throw error;
    }
  }

  function lag(partition: number, records: number): void {
    metrics.lag.set({ topic: topics.consentChanges, partition }, records);
    ports.progress.lag(`${topics.consentChanges}/${partition}`, records);
  }

  const consumer: GroupConsumer = context.log.consumer({
    groupId: context.groups.consentFold,
    topics: [topics.consentChanges],
    sessionTimeoutMs: ports.sessionTimeoutMs,
    urgent: true,
    handlers: coPartitioned({
      assigned,
      async revoked(parts, reason) {
        const leaving = parts.flatMap(({ partition }) => folds.get(partition) ?? []);
        for (const fold of leaving) {
          fold.leaving = true;
          if (reason === 'lost') fold.closed = true;
        }
        if (reason !== 'lost') await Promise.all(leaving.map((fold) => fold.work.then(() => fold.committing)));
        for (const fold of leaving) {
          fold.closed = true;
          folds.delete(fold.partition);
          lag(fold.partition, 0);
        }
      },
      batch(batch) {
        const fold = folds.get(batch.partition);
        if (fold === undefined || fold.epoch !== batch.epoch) return;
        lag(fold.partition, batch.highWatermark - batch.nextOffset + batch.records.length);
        if (++fold.waiting === maxWaiting) consumer.pause(batch.topic, batch.partition);
        fold.work = fold.work.then(async () => {
          if (!fold.closed) await foldBatch(fold, batch);
          if (fold.waiting-- === maxWaiting && !fold.closed) consumer.resume(batch.topic, batch.partition);
        }).catch((error: unknown) => {
          fold.closed = true;
          ports.fail(error);
        });
      },
      failed: (error) => ports.fail(error),
    }, { others: [topics.consent], appender, admin: ports.admin, logger, fail: (error) => ports.fail(error) }),
  });
  return consumer;
}
