import { createConsentBarrier, createConsentTables } from '@weir/consent';
import type { ServiceContext } from '@weir/service';
import type { OidcOptions } from '@weir/service/authenticate';
import { openTable } from '@weir/state';
import type { FastifyInstance } from 'fastify';
import { openConsentAccess } from './consent-access.ts';
import { createConsentIntake } from './consent-intake.ts';
import { registerConsent, type ConsentRoutePorts } from './consent-routes.ts';
import { createRate } from './rate.ts';

const appendDeadlineMs = 10_000;
const adminToken = 'ADMIN_TOKEN';

export interface ConsentApi {
  register(app: FastifyInstance, ports: Pick<ConsentRoutePorts, 'budget' | 'metrics' | 'refused'>): void;
  /** Requests that wait are answered `pending` now. */
  giveUp(): void;
  stop(): Promise<void>;
}

/**
 * The consent API with its own appender, tables and barrier. The tables are read in the background: a change is taken at
 * once, and is `pending` as long as nobody can say that it is applied.
 */
export async function createConsentApi(context: ServiceContext, options: { readonly consentWaitMs: number; readonly consentPerSecond: number; readonly oidc?: OidcOptions | undefined; readonly fail: (error: unknown) => void }, open: typeof openTable = openTable): Promise<ConsentApi> {
  const { log, serde, topics, clock, releases, vault } = context;
  const { fail } = options;
  const [appender, reader, admin, tables] = await Promise.all([log.appender({ deadlineMs: appendDeadlineMs, urgent: true }), log.reader({ urgent: true }), log.admin(), createConsentTables(context, fail, { open, linkAges: true })]);
  await Promise.all([topics.consentChanges, topics.identity, topics.canonical, topics.consentApplied].map((topic) => appender.partitions(topic)));
  const barrier = createConsentBarrier({ reader, admin, appender, serde, topics, tables, clock, fail });
  const access = await openConsentAccess({ reader, admin, serde, topic: topics.control, now: clock.now, adminToken: () => (vault.has(adminToken) ? vault.get(adminToken).reveal() : undefined), oidc: options.oidc, fail });
  const intake = createConsentIntake({ appender, serde, topics, barrier, tables, workspaceKey: context.workspaceKey, keys: context.keys, release: () => releases.current().hash, keepsLinked: () => releases.current().linkedIdentifiers === true, clock });
  const loading = Promise.all([tables.start(), barrier.start()]).catch(fail);

  return {
    register: (app, ports) => registerConsent(app, {
      ...ports, access, intake, policy: () => releases.current().policy, monotonic: clock.monotonic, maxWaitMs: options.consentWaitMs,
      rate: createRate(options.consentPerSecond, 2 * options.consentPerSecond, clock.monotonic),
    }),
    giveUp: () => barrier.giveUp(),
    async stop() {
      await loading;
      await barrier.stop();
      await access.close();
      await tables.stop();
      await Promise.all([appender.close(), reader.close(), admin.close()]);
    },
  };
}
