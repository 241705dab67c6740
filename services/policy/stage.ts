import { createClearLinks } from '@weir/consent';
import { recordFault, type ErrorCode } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { Assignment, GroupConsumer, LogRecord, Packer, RecordBatch } from '@weir/log';
import { createCommitWindow, erasureSource, type CommitWindow } from '@weir/pipeline';
import { createLimits, decide, type Subject } from '@weir/policy';
import { changeDecisions, isConsentChange, type Release } from '@weir/release';
import { isReadable } from '@weir/seal';
import { createLoads } from '@weir/service';
import { deadLetter } from './dead-letter.ts';
import { onwardOf, routesLeftOut, type Canonical } from './delivery.ts';
import { createDependencies } from './dependencies.ts';
import { Heads } from './heads.ts';
import { countOnce, takenBefore, type SlotCounter } from './limits.ts';
import { createOpener, type Opened } from './opened.ts';
import type { PolicyPorts } from './ports.ts';
import { prepare } from './prepare.ts';
import { createRegions } from './regions.ts';
import { createReleaseTopics } from './release-topics.ts';
import { basisOf, createDecisionWriter, createOutputs, put, type Outputs } from './write.ts';

interface Chunk {
  readonly nextOffset: number;
  done: boolean;
}

/** A batch, and when it came (monotonic ms). */
interface Taken { readonly batch: RecordBatch; readonly arrivedAt: number }

/** One partition of weir.canonical under one assignment. */
interface Lane {
  readonly partition: number;
  readonly epoch: number;
  readonly window: CommitWindow;
  readonly batches: Taken[];
  /** Position in the first batch. */
  head: number;
  /** Appends not acknowledged, oldest first. */
  readonly chunks: Chunk[];
  /** undefined while it is read what was counted before: nothing is decided meanwhile. */
  counter: SlotCounter | undefined;
  /** A schema is being looked up. */
  busy: boolean;
  /** Offset of the record whose schema was looked up last, whether it was found or not. */
  lookedUp: number;
  /** Sealed identifiers of links that the record at this offset waited for: a key that is still not here is destroyed. */
  waited: { readonly offset: number; readonly values: readonly Buffer[] };
  closed: boolean;
  paused: boolean;
  waitingSince: number;
  committed: number;
}

const chunkRecords = 250;
/** A turn of the event loop has no more than about this of deciding: changes of consent are folded in between (3.7). */
const chunkMs = 4;
/** How often the clock is looked at. */
const clockEvery = 8;
const maxChunks = 4;
/** Packers that are kept; each has up to 1 MiB. */
const maxSpare = 6;
const canonicalPrefix = 'weir.canonical.';
/** Of the records about a person it alone says where that one is. */
const profile = 'weir.canonical.Profile';
const nothing = (): undefined => undefined;

/**
 * Decides canonical records, in order per partition. A record waits until the consent changes and identity links of
 * its own item are in the tables. Deliveries and denied outcomes are acknowledged before the contiguous prefix is
 * committed; a repeated run decides again.
 */
export function createStage(ports: PolicyPorts): { readonly consumer: GroupConsumer; lacks(): string | undefined; stop(): Promise<void> } {
  const { context, appender, tables, metrics } = ports;
  const { serde, topics, clock, keys } = context;
  const lanes = new Map<number, Lane>();
  /** Of chunks that are acknowledged. */
  const spare: Packer[] = [];
  const idle = new Set<() => void>();
  const write = createDecisionWriter(ports);
  const open = createOpener(serde);
  const regions = createRegions(ports);
  const clearLinks = createClearLinks({ tables, serde, keys, workspaceKey: context.workspaceKey });
  const releaseTopics = createReleaseTopics(ports, () => { for (const lane of lanes.values()) pump(lane); });
  const wakeWaiting = (): void => {
    const full = regions.full();
    regions.advanced();
    for (const lane of lanes.values()) if (lane.waitingSince > 0 || full) pump(lane);
  };
  const loads = createLoads({ what: 'what limit rules have counted', gauge: metrics.loading, clock, logger: context.logger });
  const dependencies = createDependencies(ports, wakeWaiting);

  tables.onAdvance(wakeWaiting);

  function reject(lane: Lane, record: LogRecord, code: ErrorCode, message: string, outputs: Outputs): void {
    metrics.deadLettered.inc({ stage: 'policy', code });
    const letter = deadLetter(ports, record, topics.canonical, lane.partition, code, message);
    put(outputs, topics.dlq, letter.dlq);
    put(outputs, topics.outcome, letter.outcome);
  }

  /** Gives the sealed identifiers of links that have to be prepared first: nothing was put out then. */
  function decideOne(lane: Lane, record: LogRecord, heads: Heads, release: Release, consentOffsets: readonly number[], identityOffsets: readonly number[], now: number, outputs: Outputs): readonly Buffer[] | undefined {
    const { eventId, ids } = heads;
    if (record.value === null || record.key === null || eventId === '') return void reject(lane, record, 'avro-undecodable', 'a canonical record without key, value or event id', outputs);
    const base = {
      record, heads, bytes: record.value, partition: lane.partition, eventId, outputId: heads.outputId, source: heads.source, acceptedAt: heads.acceptedAt, intent: '0', ids, now,
      consentOffsets, identityOffsets, release: release.hash,
    };
    let bytes = record.value;
    let opened: Opened;
    try {
      if (keys !== undefined) bytes = keys.open(record.value) ?? record.value;
      opened = open(bytes, release.policy);
    } catch (error) {
      const code = recordFault(error);
      if (code === undefined) throw error;
      if (code === 'subject-erased' && isLost(heads.source, ids, base.acceptedAt)) return void reject(lane, record, 'key-destroyed', 'accepted after the erasure of the person, and sealed under the key of before it', outputs);
      if (code === 'subject-erased') return void erased({ ...base, name: '', value: nothing }, release, outputs);
      return void reject(lane, record, code, (error as Error).message, outputs);
    }
    const { name } = opened;
    if (!name.startsWith(canonicalPrefix)) return void reject(lane, record, 'avro-undecodable', `a ${name} among canonical records`, outputs);
    const counter = lane.counter!;
    const from: Canonical = { ...base, bytes, name, value: opened.value, stopped: counter.stopped };
    if (keys !== undefined && name !== 'weir.canonical.Erasure' && keys.erasedUntil(ids) >= from.acceptedAt) return void erased(from, release, outputs);
    counter.begin(from.outputId, heads.intent, routesLeftOut(heads));
    const linked = tables.linked(ids);
    if (name === profile) for (const region of regions.said(opened.fields, heads, release.sources.get(heads.source)?.movesPeople === true)) put(outputs, topics.identity, region);
    const subject: Subject = { recordName: name.slice(canonicalPrefix.length), record: opened.fields, source: from.source, key: record.key.toString(), ids: linked, regions: (own) => regions.of(linked, ids, own), eventId, acceptedAt: from.acceptedAt, approval: approvalOf(heads) };
    const decisions = decide(release.policy, subject, {
      now, take: counter.take, has: counter.has,
      consent: (linked, route) => tables.check(linked, route.purpose!, route.channel ?? null, route.topic ?? null, basisOf(release, route), now, release.policy),
    });
    if (!isConsentChange(subject)) return void write(decisions, from, release, outputs);
    const unread = { values: [], prepared: lane.waited.offset === record.offset ? lane.waited.values : [] };
    const change = changeDecisions(decisions, { outputId: from.outputId, subject, ids, now }, release, tables, clearLinks(subject.ids, unread));
    if (unread.values.length > 0) return unread.values;
    write(change.decisions, from, release, outputs);
    for (const more of change.onward) write(more.decisions, onwardOf(from, more, serde), release, outputs);
    return undefined;
  }

  /** No erasure covers it: its key went all the same. The records of an erasure itself are sealed under a key that ends with it. */
  function isLost(source: string, ids: readonly string[], acceptedAt: number): boolean {
    return source !== erasureSource && keys!.erasedUntil(ids) < acceptedAt;
  }

  /** The person was erased: whatever the record said, it goes nowhere. */
  function erased(from: Canonical, release: Release, outputs: Outputs): void {
    write([{ effect: 'deny', route: undefined, rule: null, reason: 'subject-erased', consent: [] }], { ...from, value: nothing, ids: [] }, release, outputs);
  }

  /** Records of the first batch that can be decided now, decided in one go; undefined when nothing can go on. */
  function nextChunk(lane: Lane, release: Release, until: number): { outputs: Outputs; nextOffset: number } | undefined {
    const { batch } = lane.batches[0]!;
    const outputs = createOutputs(spare.pop());
    const consentOffsets = tables.consentPositions();
    const identityOffsets = tables.identityPositions();
    const now = clock.now();
    const expiring = ports.retention.expiringBefore(topics.canonical);
    const start = lane.head;
    while (lane.head < batch.records.length && lane.head - start < chunkRecords) {
      const record = batch.records[lane.head]!;
      if (isReadable(record.value) && !serde.known(record.value) && record.offset !== lane.lookedUp) {
        if (lane.head === start) lookUp(lane, record);
        break;
      }
      const lapsed = record.timestamp <= expiring;
      const heads = new Heads(record);
      const met = lapsed || dependencies.met(heads, lane.batches[0]!.arrivedAt);
      if (met === false) {
        if (lane.head === start && lane.waitingSince === 0) lane.waitingSince = clock.monotonic();
        break;
      }
      if (lane.waitingSince > 0) {
        metrics.waited.observe((clock.monotonic() - lane.waitingSince) / 1000);
        lane.waitingSince = 0;
      }
      if (lapsed) reject(lane, record, 'expiring', 'it waited for nine tenths of the retention of its topic', outputs);
      else if (met === undefined) reject(lane, record, 'avro-undecodable', 'a broken header about what the record comes after', outputs);
      else {
        const unread = decideOne(lane, record, heads, release, consentOffsets, identityOffsets, now, outputs);
        if (unread !== undefined) {
          if (lane.head === start) lookUp(lane, record, unread);
          break;
        }
      }
      lane.head++;
      if ((lane.head - start) % clockEvery === 0 && clock.monotonic() >= until) break;
    }
    const finished = lane.head >= batch.records.length;
    if (lane.head === start && !finished) {
      giveBack(outputs);
      return undefined;
    }
    const nextOffset = finished ? batch.nextOffset : batch.records[lane.head]!.offset;
    if (finished) {
      lane.batches.shift();
      lane.head = 0;
    }
    return { outputs, nextOffset };
  }

  /** A schema of another writer, or a key, before the record (or what its links keep) can be decoded; one that does not exist is left to the decoder. */
  function lookUp(lane: Lane, record: LogRecord, values?: readonly Buffer[]): void {
    lane.busy = true;
    prepare(ports, values?.map((value) => ({ value })) ?? [record], () => lane.closed).then((found) => {
      if (!found) return;
      lane.busy = false;
      if (values === undefined) lane.lookedUp = record.offset;
      else lane.waited = { offset: record.offset, values: [...(lane.waited.offset === record.offset ? lane.waited.values : []), ...values] };
      pump(lane);
    }, (error: unknown) => ports.fail(error));
  }

  /**
   * Lanes that may have work, in turn. A turn of the event loop ends after `chunkMs`, so that heartbeats, the fold and acknowledgements come between; what
   * little several partitions have is decided in one, and goes in one request.
   */
  const toPump = new Set<Lane>();
  let pumping = false;

  function pump(lane: Lane): void {
    toPump.add(lane);
    if (pumping) return;
    pumping = true;
    setImmediate(pumpNext);
  }

  function pumpNext(): void {
    pumping = false;
    try {
      const until = clock.monotonic() + chunkMs;
      for (const lane of toPump) {
        toPump.delete(lane);
        if (!step(lane, until)) continue;
        pump(lane);
        if (clock.monotonic() >= until) break;
      }
    } catch (error) {
      ports.fail(error);
    }
  }

  /** Decides one chunk and sends it; false = nothing can go on. */
  function step(lane: Lane, until: number): boolean {
    if (lane.closed || lane.busy || lane.counter === undefined || lane.batches.length === 0 || lane.chunks.length >= maxChunks || !tables.caughtUp() || regions.full()) return false;
    const release = releaseTopics.ready();
    const chunk = release === undefined ? undefined : nextChunk(lane, release, until);
    if (chunk === undefined) return false;
    send(lane, chunk.outputs, chunk.nextOffset);
    return true;
  }

  function giveBack({ packer }: Outputs): void {
    packer.reset();
    if (spare.length < maxSpare) spare.push(packer);
  }

  function send(lane: Lane, outputs: Outputs, nextOffset: number): void {
    const chunk: Chunk = { nextOffset, done: false };
    lane.chunks.push(chunk);
    failpoint('policy.decided');
    Promise.all([...outputs.topics].map(async ([topic, records]) => {
      const offsets = await appender.append(topic, records);
      if (topic === topics.identity) regions.written(records, offsets);
    })).then(() => {
      failpoint('policy.outputs-acked');
      giveBack(outputs);
      chunk.done = true;
      while (lane.chunks[0]?.done === true) lane.window.doneUpTo(lane.chunks.shift()!.nextOffset);
      if (lane.paused && !lane.window.full() && !lane.closed) {
        lane.paused = false;
        consumer.resume(topics.canonical, lane.partition);
      }
      lag(lane, lane.window.unfinished());
      commit([lane]).catch((error: unknown) => ports.fail(error));
      for (const wake of idle) wake();
      pump(lane);
    }).catch((error: unknown) => ports.fail(error));
  }

  async function commit(of: readonly Lane[]): Promise<void> {
    const moved = of.filter((lane) => !lane.closed && lane.window.committable() > lane.committed).map((lane) => ({ lane, offset: lane.window.committable() }));
    if (moved.length === 0) return;
    try {
      await consumer.commit(moved.map(({ lane, offset }) => ({ topic: topics.canonical, partition: lane.partition, epoch: lane.epoch, offset })));
      for (const { lane, offset } of moved) lane.committed = Math.max(lane.committed, offset);
      ports.progress.committed();
    } catch (error) {
      // The new owner decides again from the last commit.
      if ((error as { code?: string }).code !== 'log-assignment-stale') throw error;
    }
  }

  function lag(lane: Lane, records: number): void {
    metrics.lag.set({ topic: topics.canonical, partition: lane.partition }, records);
    ports.progress.lag(`${topics.canonical}/${lane.partition}`, records);
  }

  async function assigned(parts: readonly Assignment[]): Promise<void> {
    failpoint('policy.tables-loading');
    await tables.readToEnd();
    await dependencies.load();
    const canonicalPartitions = await appender.partitions(topics.canonical);
    const opened: Lane[] = [];
    for (const { partition, epoch, position } of parts) {
      const lane: Lane = {
        partition, epoch, batches: [], head: 0, chunks: [], busy: false, lookedUp: -1, waited: { offset: -1, values: [] }, closed: false, paused: false, waitingSince: 0, committed: position,
        window: createCommitWindow({ position, maxRecords: ports.windowRecords, maxBytes: ports.windowBytes }),
        counter: undefined,
      };
      lanes.set(partition, lane);
      opened.push(lane);
    }
    // Not waited for: the deliveries of a window may be longer to read than a handler may take. Nothing is decided before they are read.
    takenBefore(ports, new Set(parts.map(({ partition }) => partition)), () => opened.every(({ closed }) => closed), loads).then((taken) => {
      for (const lane of taken === undefined ? [] : opened) {
        lane.counter = countOnce(createLimits(100_000, { partition: lane.partition, partitions: canonicalPartitions }), taken!.get(lane.partition)!, clock.now());
        pump(lane);
      }
    }).catch((error: unknown) => ports.fail(error));
  }

  /** Batches taken and not decided are dropped; what is decided is acknowledged and committed. */
  async function revoked(parts: readonly Assignment[], reason: 'rebalance' | 'lost' | 'close'): Promise<void> {
    const leaving = parts.flatMap(({ partition }) => lanes.get(partition) ?? []);
    for (const lane of leaving) {
      lane.batches.length = 0;
      if (reason === 'lost') lane.closed = true;
    }
    if (reason !== 'lost') {
      await Promise.all(leaving.map(drained));
      await commit(leaving);
    }
    for (const lane of leaving) {
      lane.closed = true;
      lanes.delete(lane.partition);
      lag(lane, 0);
    }
  }

  function drained(lane: Lane): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        if (lane.chunks.length > 0) return;
        idle.delete(wake);
        resolve();
      };
      idle.add(wake);
      wake();
    });
  }

  const consumer: GroupConsumer = context.log.consumer({
    groupId: context.groups.policy,
    topics: [topics.canonical],
    sessionTimeoutMs: ports.sessionTimeoutMs,
    handlers: {
      assigned,
      revoked,
      batch(batch) {
        const lane = lanes.get(batch.partition);
        if (lane === undefined || lane.closed || lane.epoch !== batch.epoch) return;
        lane.window.begin(batch);
        lane.batches.push({ batch, arrivedAt: clock.monotonic() });
        lag(lane, lane.window.unfinished() + batch.highWatermark - batch.nextOffset);
        ports.retention.oldest(batch.topic, batch.partition, batch.highWatermark <= batch.nextOffset ? undefined : batch.records[0]?.timestamp);
        if (!lane.paused && lane.window.full()) {
          lane.paused = true;
          consumer.pause(batch.topic, batch.partition);
        }
        pump(lane);
      },
      failed: (error) => ports.fail(error),
    },
  });
  return {
    consumer,
    lacks: () => releaseTopics.lacks() ?? loads.reason(),
    async stop() {
      releaseTopics.stop();
      await consumer.close();
      dependencies.stop();
    },
  };
}

/** What an approver let through, from the header that the control API put on the record. */
function approvalOf({ approval }: Heads): Subject['approval'] {
  if (approval === undefined) return undefined;
  const [destination = '', operation = '', rules = ''] = approval.split('/');
  return { destination, operation, rules: rules.split(',') };
}
