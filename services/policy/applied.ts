import { createConsentBarrier, stands, type ConsentBarrier } from '@weir/consent';
import { recordFault } from '@weir/errors';
import type { GroupConsumer, LogRecord, OutRecord, Reader, RecordBatch } from '@weir/log';
import { H, ofAhead, outputId } from '@weir/pipeline';
import { closes, consentKey } from '@weir/policy';
import { isSealed, seal, sealedBy } from '@weir/seal';
import { numberOf, textOf, type PolicyPorts } from './ports.ts';
import { prepare } from './prepare.ts';

/** One partition of weir.consent.changes whose changes are waited for. */
interface Watch {
  readonly partition: number;
  readonly epoch: number;
  work: Promise<void>;
  /** The last commit; the next batch does not wait for it. */
  committing: Promise<void>;
  waiting: number;
  closed: boolean;
}

const record = 'ConsentApplied';
const changeRecord = 'weir.canonical.ConsentChange';
const maxWaiting = 2;
const roundMs = 5000;
/** Older changes are read again after a reset of the group: how long they took says nothing. */
const measuredMs = 3_600_000;

/**
 * Sees every change of consent become applied, whatever source it came from: how long that took is a metric, and where
 * the release has a route for it, the change is told as a ConsentApplied record. The offset is committed after that, so a
 * repeated run tells the same under the same id.
 */
export function createAppliedWatcher(ports: PolicyPorts, reader: Reader): { readonly consumer: GroupConsumer; start(): Promise<void>; stop(): Promise<void> } {
  const { context, appender, admin, tables, metrics } = ports;
  const { serde, topics, clock } = context;
  const watches = new Map<number, Watch>();
  const barrier: ConsentBarrier = createConsentBarrier({ reader, admin, appender, serde, topics, tables, clock, fail: ports.fail });

  /** The change is in the state of each of its identifiers, on whatever partition. */
  function foldedEverywhere(change: LogRecord, value: { purpose: string; channel: string | null; topic: string | null }): boolean {
    const id = textOf(change, H.output);
    return textOf(change, H.ids).split(',').every((name) => {
      const state = tables.stored(consentKey(name, value.purpose, value.channel ?? '', value.topic ?? ''))?.state;
      return state !== undefined && (state.changeId === id || state.seen.includes(id) || state.seen.length >= 64);
    });
  }

  /** A yes that opened nothing is not told as one that holds: a vendor that mirrors what it is told would open. A no is told always. */
  const holds = (change: LogRecord, value: { purpose: string; channel: string | null; topic: string | null; state: string }): boolean => closes(value.state) || stands(tables, textOf(change, H.ids).split(','), value);

  /** Nothing, where the key of the change was destroyed while it was waited for: of an erased person nothing is written, least of all in the clear. */
  function told(change: LogRecord, value: Record<string, any>, at: number): OutRecord[] {
    const sealedUnder = isSealed(change.value!) ? sealedBy(change.value!) : undefined;
    const key = sealedUnder === undefined ? undefined : context.keys?.byId(sealedUnder);
    if (sealedUnder !== undefined && key === undefined) return [];
    const eventId = textOf(change, H.event);
    const output = outputId(eventId, 'consent-applied', textOf(change, H.output));
    const acceptedAt = numberOf(change, H.accepted);
    const { legalBasis: _l, jurisdiction: _j, noticeVersion: _n, proof: _p, expiresAt: _e, reason: _r, standing: _s, ...kept } = value;
    const plain = serde.encode(`weir.canonical.${record}`, { ...kept, id: output, occurredAt: acceptedAt, extras: null, changeId: eventId, appliedAt: at, afterMs: Math.max(0, at - acceptedAt) });
    const headers = change.headers.filter(([name]) => name !== H.output && name !== H.outputName && name !== H.afterConsent && name !== H.afterIdentity);
    return [{ partition: appender.partitionFor(topics.canonical, change.key!), key: change.key!, value: key === undefined ? plain : seal(key, plain), headers: [...headers, [H.output, Buffer.from(output)], [H.outputName, Buffer.from('consent-applied')]] }];
  }

  async function watch(of: Watch, batch: RecordBatch): Promise<void> {
    if (!await prepare(ports, batch.records, () => of.closed)) return;
    const changes = batch.records.flatMap((change) => {
      // What closed before its turn is told at its turn.
      if (change.value === null || change.key === null || textOf(change, H.mapping) === ofAhead) return [];
      try {
        const decoded = serde.decode(change.value);
        return decoded.name === changeRecord ? [{ change, value: decoded.value as Record<string, any> & { purpose: string; channel: string | null; topic: string | null; state: string } }] : [];
      } catch (error) {
        // The fold has told the dead letters of it.
        if (recordFault(error) === undefined) throw error;
        return [];
      }
    });
    const last = batch.nextOffset - 1;
    const whole = (): boolean => tables.folded(of.partition) > last && changes.every(({ change, value }) => foldedEverywhere(change, value));
    const patience = clock.monotonic() + 2 * roundMs;
    for (;;) {
      if (of.closed) return;
      // One whose other identifiers never came is not waited for for ever: it was never acknowledged as a whole.
      const ready = whole() || (tables.folded(of.partition) > last && clock.monotonic() > patience);
      const marks = new Map(tables.consentPositions().map((_, partition) => [partition, tables.folded(partition) - 1] as const));
      if (ready && await barrier.applied(marks, [], roundMs)) break;
      if (!ready) await new Promise<void>((next) => { clock.setTimer(next, 10); });
    }
    const at = clock.now();
    for (const { change } of changes) if (at - numberOf(change, H.accepted) < measuredMs) metrics.applied.observe(Math.max(0, at - numberOf(change, H.accepted)) / 1000);
    if (context.releases.current().policy.routes.has(record)) {
      const first = changes.filter(({ change, value }) => holds(change, value) && textOf(change, H.ids).split(',')[0] === change.key!.toString());
      await appender.append(topics.canonical, first.flatMap(({ change, value }) => told(change, value, at)));
    }
    if (!of.closed) of.committing = commit(of, batch.nextOffset).catch(ports.fail);
  }

  async function commit(of: Watch, offset: number): Promise<void> {
    try {
      await consumer.commit([{ topic: topics.consentChanges, partition: of.partition, epoch: of.epoch, offset }]);
    } catch (error) {
      if ((error as { code?: string }).code !== 'log-assignment-stale') throw error;
    }
  }

  const consumer: GroupConsumer = context.log.consumer({
    groupId: context.groups.consentApplied,
    topics: [topics.consentChanges],
    sessionTimeoutMs: ports.sessionTimeoutMs,
    handlers: {
      assigned: (parts) => {
        for (const { partition, epoch } of parts) watches.set(partition, { partition, epoch, work: Promise.resolve(), committing: Promise.resolve(), waiting: 0, closed: false });
        return Promise.resolve();
      },
      revoked: async (parts) => {
        const leaving = parts.flatMap(({ partition }) => watches.get(partition) ?? []);
        for (const of of leaving) of.closed = true;
        await Promise.all(leaving.map((of) => of.work.then(() => of.committing)));
        for (const { partition } of leaving) watches.delete(partition);
      },
      batch(batch) {
        const of = watches.get(batch.partition);
        if (of === undefined || of.epoch !== batch.epoch) return;
        if (++of.waiting === maxWaiting) consumer.pause(batch.topic, batch.partition);
        of.work = of.work.then(async () => {
          if (!of.closed) await watch(of, batch);
          if (of.waiting-- === maxWaiting && !of.closed) consumer.resume(batch.topic, batch.partition);
        }).catch((error: unknown) => {
          of.closed = true;
          ports.fail(error);
        });
      },
      failed: (error) => ports.fail(error),
    },
  });
  return {
    consumer,
    async start() {
      await barrier.start();
      await consumer.start();
    },
    async stop() {
      for (const of of watches.values()) of.closed = true;
      barrier.giveUp();
      await consumer.close();
      await barrier.stop();
    },
  };
}
