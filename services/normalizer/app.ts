import { join } from 'node:path';
import { findWeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { Assignment, ConsumerHandlers, GroupConsumer, LogAdmin, LogRecord, RecordBatch, Sink } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { createCommitWindow, H, isPassing, patiently, type CommitWindow, type Reason } from '@weir/pipeline';
import { acceptedAs, createKeyedCache, rawHeaders, type RawHeaders, type Release } from '@weir/release';
import { appendDeadlineMs, createAbsences, createLoads, createProgress, createRetentionWatch, createTurns, type Absences, type Load, type Readiness, type RetentionWatch, type Service, type ServiceContext } from '@weir/service';
import { openTable } from '@weir/state';
import { createAhead, type Ahead } from './ahead.ts';
import { createClosing, type ClosingPart } from './closing.ts';
import { createConvert, type Special } from './convert.ts';
import { createMetrics } from './metrics.ts';
import { createSealing } from './sealing.ts';
import { createSeen, type First, type Seen } from './seen.ts';
import { createUnerased } from './unerased.ts';
import { createWriter, isConflict, type Work, type Writer } from './writer.ts';

/** Well within what docs/architecture.md allows (Window): a few fetches are enough to keep it busy, and what waits is memory. */
const maxRecords = 10_000;
const maxBytes = 4 * 1024 * 1024;
/** Canonical bytes of one partition that wait for their acknowledgement. */
const sliceBytes = 4_000_000;
const firstSink = 256 * 1024;
/** Records between two looks at the clock. */
const clockEvery = 16;
/** Dedupe window of a source that the running release does not have any more. */
const defaultWindowMs = 7 * 86_400_000;

interface Partition extends ClosingPart {
  readonly assignment: Assignment;
  readonly window: CommitWindow;
  readonly inbox: RecordBatch[];
  /** Of its event ids. */
  readonly load: Load;
  /** Its event ids are known: nothing is worked on before that. */
  loaded: boolean;
  /** Set and cleared in the tick in which the inbox is looked at: no batch is left in it. Set while it is loaded, too. */
  busy: boolean;
  working: Promise<void> | undefined;
  /** The last commit. */
  committing: Promise<void> | undefined;
  closed: boolean;
  paused: boolean;
}

const conflictOf = ({ eventId, hash }: RawHeaders, firstHash: string): Reason => ({ code: 'event-conflict', message: `event ${eventId} arrived before with another body (hash ${firstHash}, now ${hash})` });
const expiringOn = (topic: string): Reason => ({ code: 'expiring', message: `it waited for nine tenths of the retention of ${topic}` });

/** raw → canonical. One group over every raw topic of the workspace; a release with other sources makes it join anew. */
export function createNormalizer(context: ServiceContext, options: { sessionTimeoutMs: number; /** See createAhead. */ aheadFrom?: number }, open: typeof openTable = openTable): Service {
  const { log, serde, topics, groups, releases, logger, clock } = context;
  const metrics = createMetrics(context.registry);
  const progress = createProgress({ monotonic: clock.monotonic });
  const loads = createLoads({ what: 'event ids', gauge: metrics.loading, clock, logger });
  const keyed = createKeyedCache(context.workspaceKey);
  const convert = createConvert(serde, keyed);
  /** Bytes of canonical records; one for each batch at work, used again when it is written. */
  const sinks: Sink[] = [];
  const sealing = createSealing(context.keys, createUnerased(serde, keyed));
  /** A fetch brings megabytes for each partition: heartbeats and acknowledgements come in between. */
  const turns = createTurns(clock.monotonic);
  const failure = Promise.withResolvers<Error>();
  const sourceOf = (topic: string): string => topic.slice(topics.raw('').length);
  const partitions = new Map<string, Partition>();
  /** Sources of which it was told that headers are left. */
  const leftOf = new Set<string>();
  /** Sources of which it was told that a change of consent has a channel or topic that no route has, under this release. */
  let unroutedOf: { readonly release: string; readonly sources: Set<string> } | undefined;
  let consumer: GroupConsumer | undefined;
  let admin: LogAdmin;
  let seen: Seen;
  let retention: RetentionWatch;
  let absences: Absences | undefined;
  let writer: Writer;
  let ahead: Ahead<Partition>;
  let subscribed = '';
  let changing: Promise<void> = Promise.resolve();
  let stopping = false;
  let off: (() => void) | undefined;

  const windowOf = (source: string): number => releases.current().sources.get(source)?.dedupeWindowMs ?? defaultWindowMs;

  function fail(error: unknown): void {
    failure.resolve(error as Error);
  }

  function classify(source: string, partition: Partition, record: LogRecord, inBatch: Map<string, First>, expiring: number, release: Release, sink: Sink): Work {
    const { topic, partition: number } = partition.assignment;
    const found = rawHeaders(record);
    const { eventId, hash, redriven } = found;
    const known = seen.find(topic, number, { eventId, hash, offset: record.offset, timestamp: record.timestamp, acceptedAt: found.acceptedAt }, windowOf(source)) ?? null;
    const earlier = inBatch.get(eventId) ?? (known !== null && known.offset < record.offset ? known : undefined);
    const first = earlier?.hash === hash ? earlier : undefined;
    const firstHash = earlier !== undefined && first === undefined ? earlier.hash : redriven ? record.headers.find(([name]) => name === H.firstHash)?.[1].toString('latin1') : undefined;
    // An operator put it back: another body is his choice, the same body is the same item all the same.
    const conflict = firstHash !== undefined && !redriven;
    // A repetition is the same item: it was accepted when it first was (I5), and must not look newer than what followed it.
    const headers = first === undefined ? found : acceptedAs(found, first.acceptedAt);
    if (!inBatch.has(eventId)) inBatch.set(eventId, earlier ?? { hash, acceptedAt: headers.acceptedAt, offset: record.offset });
    const expires = record.timestamp <= expiring;
    const special = firstHash === undefined && !expires ? undefined : { second: firstHash !== undefined, reasons: conflict ? [conflictOf(found, firstHash)] : expires ? [expiringOn(topic)] : undefined };
    return { source, topic, partition: number, record, headers, known, firstHash, result: resultOf(source, record, headers, release, sink, special) };
  }

  /** What comes of a record; of one that is set aside (`special.reasons`), also where nobody can read it, a dead letter with these reasons. */
  function resultOf(source: string, record: LogRecord, headers: RawHeaders, release: Release, sink: Sink, special?: Special): Work['result'] {
    const unread = (code: Reason['code'], message: string): Work['result'] => ({ kind: 'dead', reasons: special?.reasons ?? [{ code, message }] });
    const plain = sealing.open(record);
    if (plain === undefined) return unread('key-destroyed', `the key of the items that ${source} gave on that day is destroyed: what was sent cannot be read any more`);
    if (plain === 'changed') return unread('item-undecodable', 'the sealed item was changed on the topic');
    try {
      return sealing.withoutErased(convert(source, plain, headers, release, sink, special), headers.acceptedAt, sink);
    } catch (error) {
      // Its envelope is sealed, too.
      if (plain === record || findWeirError(error)?.code !== 'avro-undecodable') throw error;
      return unread('item-undecodable', 'what surrounds the sealed item was changed on the topic');
    }
  }

  function left(source: string, headers: number): void {
    metrics.headersLeft.inc({ source }, headers);
    if (leftOf.has(source)) return;
    leftOf.add(source);
    logger.warn({ source, topic: topics.raw(source), headers }, 'a raw record has a header of a replay more than once: the first counts, and somebody else writes this topic');
  }

  /** Each is counted; of a source and release the first is told. Not what it says: it is the sender's text, where anything may stand. */
  function noteUnrouted({ source, topic, partition, record, result }: Work, release: Release): void {
    if ((result.kind !== 'ok' && result.kind !== 'dead') || result.unrouted === undefined) return;
    for (const { part, said } of result.unrouted) metrics.unrouted.inc({ source, part, said });
    if (unroutedOf?.release !== release.hash) unroutedOf = { release: release.hash, sources: new Set() };
    if (unroutedOf.sources.has(source)) return;
    unroutedOf.sources.add(source);
    const { part, said, output } = result.unrouted[0]!;
    const effect = said === 'no' ? `it was taken for a no to every ${part}` : 'it opens nothing';
    logger.warn({ source, output, part, topic, partition, offset: record.offset }, `a change of consent has a ${part} that no route of the release has: ${effect}; give the output of the mapping a ${part} of the routes. weir_consent_unrouted_total counts those that follow`);
  }

  function count(source: string, works: readonly Work[], release: Release): void {
    const results = new Map<string, number>();
    const outputs = new Map<string, number>();
    const add = (to: Map<string, number>, key: string): void => { to.set(key, (to.get(key) ?? 0) + 1); };
    for (const work of works) {
      const { result } = work;
      noteUnrouted(work, release);
      add(results, isConflict(result) ? 'conflict' : result.kind);
      if (result.kind === 'ok') for (const output of result.outputs) add(outputs, output.recordType);
      else if (result.kind === 'dead') metrics.failures.inc({ source, code: result.reasons[0]!.code });
    }
    for (const [result, n] of results) metrics.records.inc({ source, result }, n);
    for (const [record, n] of outputs) metrics.outputs.inc({ source, record }, n);
  }

  /** The event ids of a window may be longer to read than a handler may take, and brokers may be away meanwhile: the group waits for neither. */
  async function begin(partition: Partition): Promise<void> {
    const { topic, partition: number, position } = partition.assignment;
    const gone = (): boolean => partition.closed;
    const { load } = partition;
    let told = false;
    const waits = (error: unknown): void => {
      if (!told) logger.warn({ err: error, topic, partition: number }, 'a partition waits for brokers: its event ids cannot be read');
      told = true;
    };
    try {
      await patiently(clock, gone, () => seen.load(topic, number, position, windowOf(sourceOf(topic)), clock.now(), { gone, progress: load.at }), waits);
    } catch (error) {
      // It is another one's by now.
      if (gone() && isPassing(error)) return;
      partition.closed = true;
      throw error;
    } finally {
      load.end();
    }
    partition.loaded = true;
    await work(partition);
  }

  async function work(partition: Partition): Promise<void> {
    partition.busy = true;
    try {
      while (partition.inbox.length > 0 && !partition.closed) await takeBatch(partition, partition.inbox.shift()!);
    } finally {
      partition.busy = false;
    }
  }

  /** Written in slices, each under one release: few bytes in can be many bytes out, and those are in memory until acknowledged. */
  async function takeBatch(partition: Partition, batch: RecordBatch): Promise<void> {
    const { topic, partition: number, epoch } = partition.assignment;
    const source = sourceOf(topic);
    failpoint('normalizer.before-transform');
    const began = clock.monotonic();
    const inBatch = new Map<string, First>();
    const expiring = retention.expiringBefore(topic);
    await sealing.prepare(batch.records, () => partition.closed);
    const sink = sinks.pop() ?? { bytes: Buffer.allocUnsafe(firstSink), at: 0 };
    for (let at = 0; at < batch.records.length;) {
      const works: Work[] = [];
      sink.at = 0;
      await turns.next();
      const release = releases.current();
      for (; at < batch.records.length && sink.at < sliceBytes; at++) {
        works.push(classify(source, partition, batch.records[at]!, inBatch, expiring, release, sink));
        if (works.length % clockEvery === 0 && turns.over()) await turns.next();
      }
      if (partition.closed) return;
      await sealing.seal(works, sink);
      partition.begun = batch.records[at]?.offset ?? batch.nextOffset;
      await writer.write(works, sink, release);
      failpoint('normalizer.outputs-acked');
      if (partition.closed) return;
      seen.add(topic, number, works.map((w) => ({ eventId: w.headers.eventId, hash: w.headers.hash, acceptedAt: w.headers.acceptedAt, offset: w.record.offset, timestamp: w.record.timestamp, known: w.known })), batch.records[at]?.offset ?? batch.nextOffset, windowOf(source));
      count(source, works, release);
    }
    // One that grew for a large batch is not kept.
    if (sink.bytes.length <= 2 * sliceBytes) sinks.push(sink);
    metrics.batch.observe((clock.monotonic() - began) / 1000);
    partition.window.doneUpTo(batch.nextOffset);
    if (partition.paused && !partition.closed && !partition.window.full()) {
      partition.paused = false;
      consumer!.resume(topic, number);
    }
    partition.committing = commit(partition, epoch).catch(fail);
  }

  /** The next batch does not wait for it: commits of one member go together, in order. */
  async function commit(partition: Partition, epoch: number): Promise<void> {
    const { topic, partition: number } = partition.assignment;
    try {
      await consumer!.commit([{ topic, partition: number, epoch, offset: partition.window.committable() }]);
      progress.committed();
    } catch (error) {
      // Another owner continues from the last commit; repeated outputs carry the same ids.
      if ((error as { code?: string }).code !== 'log-assignment-stale') throw error;
      partition.closed = true;
    }
  }

  const handlers: ConsumerHandlers = {
    async assigned(parts) {
      for (const assignment of parts) {
        const partition: Partition = { topic: assignment.topic, partition: assignment.partition, gone: () => stopping || partition.closed, lookedAt: new Map(), begun: assignment.position, assignment, window: createCommitWindow({ position: assignment.position, maxRecords, maxBytes }), inbox: [], load: loads.begin(assignment.topic, assignment.partition), loaded: false, busy: true, working: undefined, committing: undefined, closed: false, paused: false };
        partitions.set(`${assignment.topic}/${assignment.partition}`, partition);
        partition.working = begin(partition).catch(fail);
      }
    },
    async revoked(parts, reason) {
      await Promise.all(parts.map(async ({ topic, partition }) => {
        const key = `${topic}/${partition}`;
        const found = partitions.get(key);
        if (found === undefined) return;
        ahead.drop(found);
        found.inbox.length = 0;
        // What is still read for it ends by itself, and touches nothing.
        if (reason === 'lost' || !found.loaded) {
          found.closed = true;
          found.load.end();
        }
        if (found.loaded) await found.working;
        await found.committing;
        found.closed = true;
        partitions.delete(key);
        seen.drop(topic, partition);
        progress.lag(key, 0);
        // Told by its next owner from here on.
        metrics.lag.remove({ topic, partition });
        retention.oldest(topic, partition, undefined);
      }));
    },
    batch(batch) {
      const key = `${batch.topic}/${batch.partition}`;
      const partition = partitions.get(key);
      if (partition === undefined) return;
      partition.window.begin(batch);
      partition.inbox.push(batch);
      const lag = Math.max(0, batch.highWatermark - batch.nextOffset);
      metrics.lag.set({ topic: batch.topic, partition: batch.partition }, lag);
      progress.lag(key, lag);
      if (partition.loaded && releases.current().sources.get(sourceOf(batch.topic))?.mapping?.records.has(consentRecord) === true) ahead.behind(partition, partition.window.committable(), batch.highWatermark);
      retention.oldest(batch.topic, batch.partition, lag === 0 ? undefined : batch.records[0]?.timestamp);
      if (partition.window.full() && !partition.paused) {
        partition.paused = true;
        consumer!.pause(batch.topic, batch.partition);
      }
      if (!partition.busy) partition.working = work(partition).catch(fail);
    },
    failed: fail,
  };

  /**
   * Join the group for the raw topics, when they are others than before: those of the running release, and those
   * of sources that it does not have any more, whose accepted items must end, too (source-retired). One that is missing is waited for.
   */
  async function subscribe(): Promise<void> {
    const there = new Set((await admin.listTopics()).filter((name) => name.startsWith(topics.raw(''))));
    const own = [...releases.current().sources.keys()];
    absences!.keep((source) => own.includes(source));
    // A broker may not know yet of one that was just made; and what is listed may have been missing before.
    const served = await Promise.all(own.filter((source) => absences!.lacks(source) || !there.has(topics.raw(source))).map(async (source) => ({ source, isThere: await absences!.allThere(source, [topics.raw(source)]) })));
    for (const { source, isThere } of served) {
      if (isThere) there.add(topics.raw(source));
      else there.delete(topics.raw(source));
    }
    const names = [...there].sort();
    if (stopping || names.join() === subscribed) return;
    await consumer?.close();
    consumer = undefined;
    subscribed = names.join();
    if (names.length === 0) return;
    await retention.watch(names);
    consumer = log.consumer({ groupId: groups.normalizer, topics: names, handlers, sessionTimeoutMs: options.sessionTimeoutMs });
    await consumer.start();
    logger.info({ topics: names }, 'reading');
  }

  const subscribeLater = (): void => { changing = changing.then(subscribe).catch(fail); };

  function readiness(): Readiness {
    const missing = absences?.reason();
    if (missing !== undefined) return { ready: false, reason: missing };
    const loading = loads.reason();
    if (loading !== undefined) return { ready: false, reason: loading };
    return consumer === undefined ? { ready: false, reason: 'no source in the release' } : progress.readiness();
  }

  return {
    name: 'normalizer',
    failed: failure.promise,
    async start() {
      const appender = await log.appender({ deadlineMs: appendDeadlineMs });
      for (const topic of [topics.canonical, topics.consentChanges, topics.identity, topics.dlq, topics.outcome]) await appender.partitions(topic);
      admin = await log.admin();
      absences = createAbsences({ what: 'source', appender, admin, clock, logger, gauge: metrics.topicMissing, again: subscribeLater });
      retention = createRetentionWatch({ admin, clock, logger, registry: context.registry });
      writer = createWriter({ appender, serde, topics, now: clock.now, keys: context.keys, left });
      const close = createClosing<Partition>({ serde, sealing, turns, metrics, releases, sliceBytes, sourceOf, classify, expiringBefore: retention.expiringBefore, write: writer.writeAhead });
      ahead = createAhead({ reader: await log.reader(), clock, logger, close, fail }, options.aheadFrom);
      seen = createSeen(open({ path: join(context.stateDir, 'seen'), onDiscard: (reason) => logger.warn({ reason }, 'cache of event ids discarded, it is read again') }), { reader: await log.reader(), admin }, clock.monotonic);
      const begun = releases.current();
      await subscribe();
      // To join the group takes seconds: the topics of a release that came meanwhile would be nobody's until the next one.
      off = releases.onChange(() => {
        failpoint('normalizer.release-switch');
        subscribeLater();
      }, begun);
    },
    readiness,
    async stop() {
      stopping = true;
      off?.();
      retention?.close();
      absences?.close();
      await changing;
      await Promise.all([ahead?.stop(), consumer?.close()]);
      await seen.close();
    },
  };
}
