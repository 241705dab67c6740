import { join } from 'node:path';
import type { ConfigOf } from '@weir/config';
import { createConsentLease, createConsentTables, type ConsentLease, type ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import { createHttpClient, type HttpClient } from '@weir/http';
import type { Appender, GroupConsumer, LogAdmin, Reader } from '@weir/log';
import { saveIncident } from '@weir/release';
import { appendDeadlineMs, createProgress, type Readiness, type Service, type ServiceContext } from '@weir/service';
import { openTable } from '@weir/state';
import type { options as dispatcherOptions } from './config.ts';
import { createCredentials, type Credentials } from './credentials.ts';
import { createDestinationRunner, type DestinationRunner } from './destination.ts';
import { createLedgerStore, type LedgerStore } from './ledger-store.ts';
import { createMetrics } from './metrics.ts';
import { createQuotas } from './quota.ts';
import { createSwitches } from './switches.ts';

const day = 86_400_000;
/** Retention of weir.ledger.* (75 d, infra/topics.yaml) minus the dedupe window (7 d): older events are not sent. */
const maxAgeMs = 68 * day;

export type DispatcherOptions = Pick<ConfigOf<typeof dispatcherOptions>, 'sessionTimeoutMs' | 'callTimeoutMs' | 'inLaneTries' | 'allowPrivate' | 'sandboxUrl'>;

/** Disk and network. */
export interface Outside {
  readonly openTable: typeof openTable;
  readonly createHttpClient: typeof createHttpClient;
}

interface Running {
  readonly runner: DestinationRunner;
  readonly consumer: GroupConsumer;
  readonly ledger: LedgerStore;
}

/** A lease that does not outlast a call and a late heartbeat would let no call start, ever. */
export function checkTimes(options: Pick<DispatcherOptions, 'sessionTimeoutMs' | 'callTimeoutMs'>): void {
  if (options.callTimeoutMs * 1.5 > options.sessionTimeoutMs) throw new WeirError('config-invalid', `WEIR_DISPATCHER_SESSION_MS (${options.sessionTimeoutMs}) must be at least 1.5 times WEIR_CALL_TIMEOUT_MS (${options.callTimeoutMs})`);
}

/** deliveries → destination APIs. One consumer, breaker and set of lanes per destination, so that one cannot hold up another. */
export function createDispatcher(context: ServiceContext, options: DispatcherOptions, outside: Outside = { openTable, createHttpClient }): Service {
  checkTimes(options);
  const { log, serde, topics, groups, releases, logger, clock, vault } = context;
  const metrics = createMetrics(context.registry);
  const failure = Promise.withResolvers<Error>();
  const switches = createSwitches(releases);
  const running = new Map<string, Running>();
  const quotas = createQuotas({ release: () => releases.current(), held: (name) => running.get(name)?.runner.held() ?? 0, clock, registry: context.registry });
  const progress = createProgress({ monotonic: clock.monotonic });
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

  async function startDestination(name: string): Promise<void> {
    const path = join(context.stateDir, 'ledger', name);
    const ledger = createLedgerStore(outside.openTable({ path, onDiscard: (reason) => logger.warn({ reason, destination: name }, 'ledger cache discarded, it is read again') }), serde);
    const [partitions] = await Promise.all([topics.dispatch(name), topics.ledger(name), topics.parked(name)].map((topic) => appender.partitions(topic)));
    quotas.partitions(name, partitions!);
    const runner = createDestinationRunner({
      name, topics, appender, reader, admin, serde, http, consent: consent!, lease: lease!, keys: context.keys, ledger, clock, metrics, progress, quota: quotas.of(name),
      logger, instance: context.config.instance, callTimeoutMs: options.callTimeoutMs, inLaneTries: options.inLaneTries, maxAgeMs,
      release: () => releases.current(),
      destination: () => switches.apply(credentials.destination(name)),
      credential: { rejected: () => credentials.rejected(name), accepted: () => credentials.accepted(name) },
      consumer: () => consumer,
      fail: (error) => failure.resolve(error as Error),
    });
    const consumer: GroupConsumer = log.consumer({ groupId: groups.dispatcher(name), topics: [topics.dispatch(name)], handlers: runner.handlers, sessionTimeoutMs: options.sessionTimeoutMs, rebalanceTimeoutMs: options.callTimeoutMs + 10_000 });
    running.set(name, { runner, consumer, ledger });
    await consumer.start();
    logger.info({ destination: name }, 'dispatching');
  }

  async function stopDestination(name: string): Promise<void> {
    const found = running.get(name);
    running.delete(name);
    await found?.consumer.close();
    await found?.ledger.close();
  }

  /** Destinations of the running release, and no others. Events of one that left stay on its topic. */
  async function follow(): Promise<void> {
    if (stopping) return;
    const wanted = releases.current().destinations;
    await Promise.all([...running.keys()].filter((name) => !wanted.has(name)).map(stopDestination));
    await Promise.all([...wanted.keys()].filter((name) => !running.has(name)).map(startDestination));
    for (const { runner } of running.values()) runner.changed();
  }

  function readiness(): Readiness {
    if (consent?.caughtUp() !== true) return { ready: false, reason: 'consent tables are not caught up' };
    return progress.readiness();
  }

  return {
    name: 'dispatcher',
    failed: failure.promise,
    async start() {
      [appender, reader, admin] = await Promise.all([log.appender({ deadlineMs: appendDeadlineMs }), log.reader(), log.admin()]);
      await Promise.all([topics.outcome, topics.dlq].map((topic) => appender.partitions(topic)));
      http = outside.createHttpClient({ allowPrivate: options.allowPrivate });
      consent = await createConsentTables(context, (error) => failure.resolve(error), outside.openTable);
      await consent.start();
      // On its own connection: a report must not wait behind a batch of ends.
      reports = await log.appender({ deadlineMs: appendDeadlineMs });
      await reports.partitions(topics.consentApplied);
      lease = createConsentLease({ appender: reports, serde, topic: topics.consentApplied, tables: consent, instance: context.config.instance, leaseMs: options.sessionTimeoutMs, clock, fail: (error) => failure.resolve(error as Error) });
      await lease.start();
      credentials = createCredentials({
        vault, releases, sandboxUrl: options.sandboxUrl, logger, registry: context.registry, clock,
        save: (incident) => saveIncident({ appender, serde, topic: topics.control, incident }),
        changed: () => { for (const { runner } of running.values()) runner.credentialChanged(); },
      });
      await appender.partitions(topics.control);
      await follow();
      offSwitch = releases.onSwitch(({ destination, paused }) => {
        metrics.switchedOff.set({ destination }, paused ? 1 : 0);
        running.get(destination)?.runner.changed();
      });
      for (const { destination, paused } of releases.switches().values()) metrics.switchedOff.set({ destination }, paused ? 1 : 0);
      off = releases.onChange(() => { changing = changing.then(follow).catch((error: unknown) => failure.resolve(error as Error)); });
    },
    readiness,
    async stop() {
      stopping = true;
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
