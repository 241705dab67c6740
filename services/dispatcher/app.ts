import { join } from 'node:path';
import type { ConfigOf } from '@weir/config';
import { createConsentLease, createConsentTables, type ConsentLease, type ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import { createHttpClient, type HttpClient } from '@weir/http';
import type { Appender, ConsumerHandlers, GroupConsumer, LogAdmin, Reader } from '@weir/log';
import { dedupeWindow, longestDedupeWindow, saveEscalation, saveIncident } from '@weir/release';
import { appendDeadlineMs, coPartitioned, createAbsences, createProgress, createRetentionWatch, createTurns, type Absences, type Readiness, type RetentionWatch, type Service, type ServiceContext } from '@weir/service';
import { createLateTable, openTable, type Table } from '@weir/state';
import type { options as dispatcherOptions } from './config.ts';
import { consentPort } from './consent-port.ts';
import { createCredentials, type Credentials } from './credentials.ts';
import { createDestinationRunner, type DestinationRunner } from './destination.ts';
import { createLedgerStore, type LedgerStore } from './ledger-store.ts';
import { createMetrics } from './metrics.ts';
import { createQuotas } from './quota.ts';
import { createChannels } from './escalation-channels.ts';
import { createEscalations, escalatedOthers, speakerFor } from './escalation.ts';
import type { DestinationWindow } from './ports.ts';
import { pruneLedger } from './prune.ts';
import { createTakeover, type Takeover, type TakeoverProgress } from './takeover.ts';
import { createSwitches } from './switches.ts';

const sweepMs = 30_000;
/** While old ends are left in a local cache of the ledger. */
const pruneMs = 100;
const lookMs = 1000;
const takeoverLogMs = 5000;

export type DispatcherOptions = Pick<ConfigOf<typeof dispatcherOptions>, 'sessionTimeoutMs' | 'callTimeoutMs' | 'inLaneTries' | 'allowPrivate' | 'sandboxUrl'>;

/** Disk and network. */
export interface Outside {
  readonly openTable: typeof openTable;
  readonly createHttpClient: typeof createHttpClient;
  readonly windowOf: typeof windowOf;
}

interface Running {
  readonly runner: DestinationRunner;
  readonly consumer: GroupConsumer;
  readonly ledger: LedgerStore;
  readonly parkedTable: Table;
  readonly takeover: Takeover;
  /** Its cache keeps what counts against caps. */
  readonly counts: boolean;
}

/**
 * What a destination may have in memory between commit and read position, over all partitions of this instance: while
 * it is down, Kafka is the queue, and as many destinations as there are may be down at once (I7).
 */
const heldRecords = 6000;
const heldBytes = 16 * 1024 * 1024;
/** Each partition gets at least this, or a hot subject of it could hold up the others. */
const leastRecords = 500;
/** Of parked subjects whose head is due or about to be lost: the others wait in a local table. */
const heldHeads = 1000;
const leastHeads = 50;
/** Of one fetch and partition: a batch is taken whole, so it is what a window may be over by. */
const fetchBytes = 256 * 1024;

/** The part of one of so many partitions. */
export function windowOf(partitions: number): DestinationWindow {
  const parts = Math.max(1, partitions);
  return { records: Math.max(leastRecords, Math.ceil(heldRecords / parts)), bytes: Math.max(fetchBytes, Math.ceil(heldBytes / parts)), heads: Math.max(leastHeads, Math.ceil(heldHeads / parts)) };
}

/** A lease that does not outlast a call and a late heartbeat would let no call start, ever. */
export function checkTimes(options: Pick<DispatcherOptions, 'sessionTimeoutMs' | 'callTimeoutMs'>): void {
  if (options.callTimeoutMs * 1.5 > options.sessionTimeoutMs) throw new WeirError('config-invalid', `WEIR_DISPATCHER_SESSION_MS (${options.sessionTimeoutMs}) must be at least 1.5 times WEIR_CALL_TIMEOUT_MS (${options.callTimeoutMs})`);
}

/** deliveries → destination APIs. One consumer, breaker and set of lanes per destination, so that one cannot hold up another. */
export function createDispatcher(context: ServiceContext, options: DispatcherOptions, outside: Outside = { openTable, createHttpClient, windowOf }): Service {
  checkTimes(options);
  const { log, serde, topics, groups, releases, logger, clock, vault } = context;
  const metrics = createMetrics(context.registry);
  const failure = Promise.withResolvers<Error>();
  const switches = createSwitches(releases, options.sessionTimeoutMs, clock);
  let switchesKnown = true;
  const turns = createTurns(clock.monotonic);
  const running = new Map<string, Running>();
  const quotas = createQuotas({ release: () => releases.current(), held: (name) => running.get(name)?.runner.held() ?? 0, reserves: () => releases.reserves(), clock, registry: context.registry });
  const progress = createProgress({ monotonic: clock.monotonic });
  const takeovers = new Map<string, { readonly read: number; readonly total: number; readonly toldAt: number }>();
  let retention: RetentionWatch;
  let absences: Absences;
  let escalations: ReturnType<typeof createEscalations>;
  let sweeping: unknown;
  let looking: unknown;
  let credentials: Credentials;
  let appender: Appender;
  let reader: Reader;
  let admin: LogAdmin;
  let http: HttpClient;
  let consent: ConsentTables | undefined;
  let reports: Appender | undefined;
  let lease: ConsentLease | undefined;
  let changing: Promise<void> = Promise.resolve();
  let off: (() => void) | undefined;
  let offSwitch: (() => void) | undefined;
  let stopping = false;

  const topicsOf = (name: string): readonly string[] => [topics.dispatch(name), topics.ledger(name), topics.parked(name)];
  const followLater = (): void => { changing = changing.then(follow).catch((error: unknown) => failure.resolve(error as Error)); };

  async function startDestination(name: string): Promise<void> {
    // A cache that did not count from its beginning has no counts: with caps it is another one, read from the topic.
    const counts = releases.current().destinations.get(name)!.caps.length > 0;
    const path = join(context.stateDir, counts ? 'ledger-counted' : 'ledger', name);
    const cache = outside.openTable({ path, tellsAbsent: true, onDiscard: (reason) => logger.warn({ reason, destination: name }, 'ledger cache discarded, it is read again') });
    const ledger = createLedgerStore(createLateTable(cache, { clock }), serde, counts);
    const parkedTable = outside.openTable({ path: join(context.stateDir, 'parked', name) });
    // What an earlier process left is in the ledger and on the topic.
    parkedTable.clear();
    quotas.partitions(name, await appender.partitions(topics.dispatch(name)));
    await retention.watch(topicsOf(name));
    const takeover = createTakeover({ admin, reader, ledger, clock, ledgerTopic: topics.ledger(name), dispatchTopic: topics.dispatch(name), windowMs: longestWindow, progress: (at) => takingOver(name, at) });
    const runner = createDestinationRunner({
      name, topics, group: groups.dispatcher(name), appender, reader, admin, serde, http, consent: consentPort(consent!, () => releases.current().policy), lease: lease!, keys: context.keys, ledger, clock, turns, metrics, progress, quota: quotas.of(name), parkedTable,
      logger, instance: context.config.instance, callTimeoutMs: options.callTimeoutMs, inLaneTries: options.inLaneTries,
      takeover,
      retention: { ledgerMs: () => retention.of(topics.ledger(name)), dispatchMs: () => retention.of(topics.dispatch(name)), parkedMs: () => retention.of(topics.parked(name)), oldest: retention.oldest },
      workspaceKey: context.workspaceKey, dedupeWindowMs: (source) => dedupeWindow(releases.current(), source),
      release: () => releases.current(),
      destination: () => switches.apply(credentials.destination(name)),
      configured: () => switches.apply(releases.current().destinations.get(name)),
      second: (other, operation) => running.get(other)?.runner.asSecond(operation),
      credential: { rejected: () => credentials.rejected(name), accepted: () => credentials.accepted(name) },
      window: () => outside.windowOf(partitionsOwned()),
      consumer: () => consumer,
      fail: (error) => failure.resolve(error as Error),
    });
    const partitionsOwned = (): number => consumer.assignments().length;
    const handlers: ConsumerHandlers = coPartitioned({
      ...runner.handlers,
      assigned(parts) {
        // Not waited for: a handler has its time.
        quotas.assigned(name, parts.map((p) => p.partition), () => admin.partitions(topics.dispatch(name))).catch((error: unknown) => failure.resolve(error as Error));
        return runner.handlers.assigned(parts);
      },
    }, { others: [topics.ledger(name), topics.parked(name)], appender, admin, logger, fail: (error) => failure.resolve(error as Error) });
    const consumer: GroupConsumer = log.consumer({ groupId: groups.dispatcher(name), topics: [topics.dispatch(name)], handlers, sessionTimeoutMs: options.sessionTimeoutMs, rebalanceTimeoutMs: options.callTimeoutMs + 10_000, maxBytesPerPartition: fetchBytes });
    running.set(name, { runner, consumer, ledger, parkedTable, takeover, counts });
    await consumer.start();
    logger.info({ destination: name }, 'dispatching');
  }

  async function stopDestination(name: string): Promise<void> {
    const found = running.get(name);
    running.delete(name);
    await found?.consumer.close();
    metrics.breaker.remove({ destination: name });
    await Promise.all([found?.ledger.close(), found?.parkedTable.close()]);
  }

  /** Destinations of the running release, and no others. Events of one that left stay on its topic. */
  async function follow(): Promise<void> {
    if (stopping) return;
    const wanted = releases.current().destinations;
    const fits = (name: string, { counts }: Running): boolean => wanted.has(name) && counts === wanted.get(name)!.caps.length > 0;
    await Promise.all([...running].filter(([name, it]) => !fits(name, it)).map(([name]) => stopDestination(name)));
    absences.keep((name) => wanted.has(name));
    await Promise.all([...wanted.keys()].filter((name) => !running.has(name)).map(async (name) => {
      if (await absences.allThere(name, topicsOf(name))) await startDestination(name);
    }));
    for (const { runner } of running.values()) runner.changed();
  }

  const longestWindow = (): number => longestDedupeWindow(releases.current());

  /** Partitions whose ledger is being read: shown by /readyz and the metric, told every few seconds. */
  function takingOver(destination: string, { partition, total, read }: TakeoverProgress): void {
    const key = `${destination}/${partition}`;
    const known = takeovers.get(key);
    metrics.takeover.set({ destination, partition }, total - read);
    if (read >= total) {
      takeovers.delete(key);
      if (known !== undefined) logger.info({ destination, partition, records: total }, 'ledger read');
      return;
    }
    const now = clock.monotonic();
    const toldAt = known?.toldAt ?? now;
    const tell = now - toldAt >= takeoverLogMs;
    if (tell) logger.info({ destination, partition, read, total }, 'reading the ledger');
    takeovers.set(key, { read, total, toldAt: tell ? now : toldAt });
  }

  /** Nothing else tells that weir.control can be read again. */
  function lookAtSwitches(): void {
    if (switches.heldBack()) for (const { runner } of running.values()) runner.changed();
    const known = switches.known();
    if (known === switchesKnown) return;
    switchesKnown = known;
    if (!known) return logger.error({ topic: topics.control, ms: Math.round(releases.ageMs()), code: releases.trouble() }, 'weir.control has not been read for longer than a lease: a kill switch may be on it, so nothing is called');
    logger.info({ topic: topics.control }, 'weir.control is read again');
  }

  /** The owner of its first partition speaks for a destination. */
  function lookLater(): void {
    looking = clock.setTimer(() => {
      lookAtSwitches();
      const owned = [...running].filter(([, { consumer }]) => consumer.assignments().some((a) => a.partition === 0));
      const first = speakerFor(releases.current().destinations.keys(), (name) => running.has(name));
      const others = owned.some(([destination]) => destination === first) ? escalatedOthers(releases.incidents().values()) : [];
      escalations.look([...owned.map(([destination, { runner }]) => ({ destination, ...runner.health(), credential: releases.incidents().get(destination) })), ...others]);
      lookLater();
    }, lookMs);
  }

  function sweepLater(ms = sweepMs): void {
    sweeping = clock.setTimer(() => {
      for (const { runner } of running.values()) runner.sweep();
      let more = false;
      for (const [name, { runner, ledger, takeover }] of running) more = pruneLedger({ name, ledger, takeover, oldestAsked: runner.oldestAsked, windowMs: longestWindow, clock, metrics }) || more;
      sweepLater(more ? pruneMs : sweepMs);
    }, ms);
  }

  /** What following weir.control ended with; nothing where the broker only does not answer. */
  function why(): string {
    const trouble = releases.trouble();
    return trouble === undefined ? '' : ` (${trouble})`;
  }

  function readiness(): Readiness {
    const [taking] = takeovers;
    if (taking !== undefined) return { ready: false, reason: `taking over ${taking[0]}: ${taking[1].read} of ${taking[1].total} records of its ledger are read` };
    if (!switches.known()) return { ready: false, reason: `weir.control cannot be read${why()}, and with it kill switches: nothing is called` };
    if (consent?.caughtUp() !== true) return { ready: false, reason: 'consent tables are not caught up' };
    const missing = absences.reason();
    return missing === undefined ? progress.readiness() : { ready: false, reason: missing };
  }

  return {
    name: 'dispatcher',
    failed: failure.promise,
    async start() {
      [appender, reader, admin] = await Promise.all([log.appender({ deadlineMs: appendDeadlineMs }), log.reader(), log.admin()]);
      absences = createAbsences({ what: 'destination', appender, admin, clock, logger, gauge: metrics.topicMissing, again: followLater });
      retention = createRetentionWatch({ admin, clock, logger, registry: context.registry });
      await Promise.all([topics.outcome, topics.dlq].map((topic) => appender.partitions(topic)));
      http = outside.createHttpClient({ allowPrivate: options.allowPrivate });
      consent = await createConsentTables(context, (error) => failure.resolve(error), { open: outside.openTable });
      await consent.start();
      // On its own connection: a report must not wait behind a batch of ends.
      reports = await log.appender({ deadlineMs: appendDeadlineMs, urgent: true });
      await reports.partitions(topics.consentApplied);
      lease = createConsentLease({ appender: reports, reader, serde, topic: topics.consentApplied, tables: consent, instance: context.config.instance, control: () => releases.position(), keys: context.keys, leaseMs: options.sessionTimeoutMs, clock, fail: (error) => failure.resolve(error as Error) });
      await lease.start();
      credentials = createCredentials({
        vault, releases, sandboxUrl: options.sandboxUrl, logger, registry: context.registry, clock,
        save: (incident) => saveIncident({ appender, serde, topic: topics.control, incident }),
        changed: () => { for (const { runner } of running.values()) runner.credentialChanged(); },
      });
      await appender.partitions(topics.control);
      escalations = createEscalations({
        clock, logger, registry: context.registry,
        config: () => releases.current().escalation,
        told: () => releases.escalations(),
        save: (escalation) => saveEscalation({ appender, serde, topic: topics.control, escalation }),
        channels: createChannels({ http, vault, now: clock.now, workspace: () => releases.current().name }),
      });
      sweepLater();
      lookLater();
      const begun = releases.current();
      await follow();
      offSwitch = releases.onSwitch(({ destination, paused }) => {
        metrics.switchedOff.set({ destination }, paused ? 1 : 0);
        running.get(destination)?.runner.changed();
        lease?.switched();
      });
      for (const { destination, paused } of releases.switches().values()) metrics.switchedOff.set({ destination }, paused ? 1 : 0);
      // To join the groups takes seconds: the destinations of a release that came meanwhile would be sent nothing until the next one.
      off = releases.onChange(followLater, begun);
    },
    readiness,
    async stop() {
      stopping = true;
      if (sweeping !== undefined) clock.clearTimer(sweeping);
      if (looking !== undefined) clock.clearTimer(looking);
      escalations?.close();
      retention?.close();
      absences?.close();
      off?.();
      offSwitch?.();
      await changing;
      await Promise.all([...running.keys()].map(stopDestination));
      await lease?.close();
      await credentials?.close();
      await consent?.stop();
      await http?.close();
    },
  };
}
