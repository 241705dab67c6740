import { createConsentTables } from '@weir/consent';
import type { ConfigOf } from '@weir/config';
import { appendDeadlineMs, createProgress, createRetentionWatch, type Service, type ServiceContext } from '@weir/service';
import type { Reader } from '@weir/log';
import type { openTable } from '@weir/state';
import type { options } from './config.ts';
import { createAppliedWatcher } from './applied.ts';
import { createFolder } from './fold.ts';
import { createMetrics } from './metrics.ts';
import type { PolicyPorts } from './ports.ts';
import { createRelay } from './relay.ts';
import { createStage } from './stage.ts';

type PolicyConfig = Pick<ConfigOf<typeof options>, 'sessionTimeoutMs' | 'windowRecords' | 'windowBytes'>;

/** The policy service: the fold of consent, and the decision on each canonical record. */
export async function createPolicy(context: ServiceContext, config: PolicyConfig, open?: typeof openTable): Promise<Service> {
  const { promise: failed, resolve: failWith } = Promise.withResolvers<Error>();
  const fail = (error: unknown): void => failWith(error instanceof Error ? error : new Error(String(error)));
  // The fold has its own connection: a state must not wait behind deliveries.
  const [appender, states, admin, tables] = await Promise.all([
    context.log.appender({ deadlineMs: appendDeadlineMs }), context.log.appender({ deadlineMs: appendDeadlineMs, urgent: true }), context.log.admin(), createConsentTables(context, fail, { open, linkValues: true, regions: true }),
  ]);
  const progress = createProgress({ monotonic: () => context.clock.monotonic() });
  const retention = createRetentionWatch({ admin, clock: context.clock, logger: context.logger, registry: context.registry });
  const ports: PolicyPorts = { context, appender, admin, tables, retention, metrics: createMetrics(context.registry), progress, fail, sessionTimeoutMs: config.sessionTimeoutMs, windowRecords: config.windowRecords, windowBytes: config.windowBytes };
  let folder: ReturnType<typeof createFolder> | undefined;
  let stage: ReturnType<typeof createStage> | undefined;
  let watcher: ReturnType<typeof createAppliedWatcher> | undefined;
  let reader: Reader | undefined;
  let started = false;
  let off: (() => void) | undefined;
  let changing: Promise<void> = Promise.resolve();

  /** Only where the release tells somebody of it. Once begun it goes on: the group must not fall behind between two releases. */
  async function watchApplied(): Promise<void> {
    if (watcher !== undefined || !context.releases.current().policy.routes.has('ConsentApplied')) return;
    reader = await context.log.reader();
    watcher = createAppliedWatcher(ports, reader);
    await watcher.start();
  }

  return {
    name: 'policy',
    failed,
    async start() {
      const { topics } = context;
      await Promise.all([
        tables.start(), ...[topics.consentChanges, topics.consentApplied, topics.identity, topics.canonical, topics.outcome, topics.dlq].map((topic) => appender.partitions(topic)),
        ...[topics.consent, topics.outcome, topics.dlq].map((topic) => states.partitions(topic)),
      ]);
      await retention.watch([topics.canonical]);
      folder = createFolder({ ...ports, appender: states }, createRelay(ports));
      stage = createStage(ports);
      await Promise.all([folder.start(), stage.consumer.start()]);
      const begun = context.releases.current();
      await watchApplied();
      off = context.releases.onChange(() => { changing = changing.then(watchApplied).catch(fail); }, begun);
      started = true;
    },
    readiness() {
      if (!started) return { ready: false, reason: 'starting' };
      const lacks = stage?.lacks();
      if (lacks !== undefined) return { ready: false, reason: lacks };
      return tables.caughtUp() ? progress.readiness() : { ready: false, reason: 'the tables of consent and identity are not caught up' };
    },
    async stop() {
      off?.();
      await changing;
      retention.close();
      await Promise.all([stage?.stop(), folder?.close(), watcher?.stop()]);
      await reader?.close();
      await tables.stop();
      await Promise.all([appender.close(), states.close(), admin.close()]);
    },
  };
}
