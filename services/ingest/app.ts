import type { ConfigOf } from '@weir/config';
import { findWeirError } from '@weir/errors';
import { createHttpClient } from '@weir/http';
import { saveIncident } from '@weir/release';
import type { Appender } from '@weir/log';
import type { OidcOptions } from '@weir/service/authenticate';
import { createAbsences, type Absences, type Readiness, type Service, type ServiceContext } from '@weir/service';
import { openTable } from '@weir/state';
import type { FastifyInstance } from 'fastify';
import { collectDefaultMetrics } from 'prom-client';
import { createBudget } from './budget.ts';
import type { options as ingestOptions } from './config.ts';
import { createConsentApi, type ConsentApi } from './consent-api.ts';
import { createDispatchPartitions, type DispatchPartitions } from './dispatch-partitions.ts';
import { createMetrics } from './metrics.ts';
import { createPoller, type Poller } from './poller.ts';
import { createPollQuotas } from './quota.ts';
import { createRefusalLog, type Refusal } from './refusals.ts';
import { registerOps } from './ops-routes.ts';
import { registerRoutes } from './routes.ts';
import { createServer } from './server.ts';
import { resolveSources, type Sources } from './sources.ts';

export type IngestOptions = Pick<ConfigOf<typeof ingestOptions>, 'port' | 'ackTimeoutMs' | 'requestTimeoutMs' | 'maxInflightBytes' | 'consentWaitMs' | 'consentPerSecond' | 'pollerSessionMs' | 'allowPrivate' | 'sandboxUrl'> & { /** Undefined = no OIDC tokens are taken. */ readonly oidc?: OidcOptions | undefined };

/** What is in flight at a stop may end within this; then its connections are cut, unanswered: the sender sends again. */
const stopGraceMs = 5000;
/** After an append that was not acknowledged, not ready for this long, or until one is. */
const awayMs = 5000;
/** How often a source that lacks a secret is looked at again. */
const closedRetryMs = 5000;
const maxPageBytes = 16 * 1024 * 1024;

/** Network, disk and process. */
export interface Outside {
  readonly openTable: typeof openTable;
  readonly createHttpClient: typeof createHttpClient;
  /** Resolves when the app takes requests. */
  listen(app: FastifyInstance, address: { readonly host: string; readonly port: number }): Promise<unknown>;
  processMetrics(register: ServiceContext['registry']): void;
}
const machine: Outside = { openTable, createHttpClient, listen: (app, address) => app.listen(address), processMetrics: (register) => collectDefaultMetrics({ register }) };

/** Webhooks, the Segment tracking API and pollers → raw topics. Answers 2xx only for what the log has acknowledged. */
export function createIngest(context: ServiceContext, options: IngestOptions, outside: Outside = machine): Service {
  const { log, topics, releases, logger, clock, vault } = context;
  const failure = Promise.withResolvers<Error>();
  const fail = (error: unknown): void => failure.resolve(error as Error);
  const budget = createBudget(options.maxInflightBytes);
  const metrics = createMetrics(context.registry, () => Math.max(budget.used(), appender?.pendingBytes() ?? 0));
  const pollers = new Map<string, Poller>();
  let dispatchPartitions: DispatchPartitions | undefined;
  let absences: Absences | undefined;
  const quotaOf = createPollQuotas({ release: () => releases.current(), partitionsOf: (name) => dispatchPartitions?.of(name), holds: (name) => pollers.get(name)?.holds() === true, reserves: () => releases.reserves(), monotonic: clock.monotonic, now: clock.now, random: clock.random });
  const http = outside.createHttpClient({ allowPrivate: options.allowPrivate, maxResponseBytes: maxPageBytes });
  const writeRefusal = createRefusalLog(logger, clock.monotonic);
  const sealing = context.keys === undefined ? undefined : { keys: context.keys, workspaceKey: context.workspaceKey };
  let resolved: { readonly hash: string; readonly revision: number; readonly at: number; readonly sources: Sources } | undefined;
  let appender: Appender | undefined;
  let app: FastifyInstance | undefined;
  let consent: ConsentApi | undefined;
  let listening = false;
  let stopping = false;
  let awayUntil = 0;
  let asked = false;
  let changing: Promise<void> = Promise.resolve();
  let off: (() => void) | undefined;

  function sources(): Sources {
    const release = releases.current();
    const revision = vault.revision();
    // One that lacks a secret is looked at again, so that it opens by itself.
    if (resolved === undefined || resolved.hash !== release.hash || resolved.revision !== revision || (!resolved.sources.complete && clock.monotonic() - resolved.at > closedRetryMs)) {
      const closed = (source: string, error: unknown): void => logger.error({ err: error, source }, 'source closed: no usable secret');
      resolved = { hash: release.hash, revision, at: clock.monotonic(), sources: resolveSources(release, { vault, sandboxUrl: options.sandboxUrl, closed }) };
    }
    return resolved.sources;
  }

  function refused(refusal: Refusal): void {
    // The topic was there and is not any more: it is looked for, and the other sources are taken.
    if (findWeirError(refusal.error)?.code === 'log-fatal') anew();
    else if (refusal.code === 'log-unavailable') awayUntil = clock.monotonic() + awayMs;
    writeRefusal(refusal);
  }

  /** Of each source of the release, whether its topic is there: one that is missing is waited for. */
  async function lookForTopics(): Promise<void> {
    const names = [...sources().all.keys()];
    absences!.keep((name) => names.includes(name));
    await Promise.all(names.map((name) => absences!.allThere(name, [topics.raw(name)])));
  }

  /** Once for all who ask before it begins. */
  function anew(): void {
    if (!listening || asked) return;
    asked = true;
    changing = changing.then(() => {
      asked = false;
      return stopping ? undefined : follow();
    }).catch(fail);
  }

  /** Topics of the release's sources known, and one poller for each polled source that has one. */
  async function follow(): Promise<void> {
    const { all } = sources();
    await lookForTopics();
    const wanted = new Set([...all.values()].filter((s) => s.adapter.source?.kind === 'poll' && !absences!.lacks(s.name)).map((s) => s.name));
    const accounts = new Set([...wanted].map((name) => all.get(name)!.account));
    await dispatchPartitions!.follow([...releases.current().destinations.values()].filter(({ account }) => accounts.has(account)).map(({ name }) => name));
    for (const [name, poller] of pollers) {
      if (wanted.has(name)) continue;
      pollers.delete(name);
      await poller.retire();
    }
    for (const name of wanted) {
      if (stopping || pollers.has(name)) continue;
      const poller = createPoller(name, {
        log, http, logger, metrics, topics, appender: appender!, serde: context.serde, now: clock.now, monotonic: clock.monotonic, ackTimeoutMs: options.ackTimeoutMs, sealing,
        groupId: `${context.groups.poller}.${name}`, instance: context.config.instance, sessionMs: options.pollerSessionMs, source: () => sources().all.get(name), quota: quotaOf(name), fail,
        incidents: () => releases.incidents(), saveIncident: (incident) => saveIncident({ appender: appender!, serde: context.serde, topic: topics.control, incident }),
      });
      pollers.set(name, poller);
      await poller.start();
    }
  }

  function readiness(): Readiness {
    if (!listening) return { ready: false, reason: 'not listening' };
    if (clock.monotonic() < awayUntil) return { ready: false, reason: 'the log does not acknowledge' };
    return appender!.pendingBytes() > options.maxInflightBytes ? { ready: false, reason: 'the log is behind' } : { ready: true };
  }

  function createApp(): FastifyInstance {
    const made = createServer({ requestTimeoutMs: options.requestTimeoutMs, refused: (code) => metrics.requests.inc({ source: 'unknown', result: code }) });
    registerOps(made, { waits: () => absences!.reason(), readiness, registry: context.registry });
    registerRoutes(made, { appender: appender!, topics, now: clock.now, ackTimeoutMs: options.ackTimeoutMs, sealing, maxInflightBytes: options.maxInflightBytes, budget, metrics, logger, sources, missing: absences!.lacks, refused });
    consent!.register(made, { budget, metrics, refused });
    return made;
  }

  return {
    name: 'ingest',
    failed: failure.promise,
    async start() {
      outside.processMetrics(context.registry);
      // A request waits ackTimeoutMs; the log may go on trying longer, its duplicates are keyed.
      appender = await log.appender({ deadlineMs: Math.max(options.ackTimeoutMs, 5000) });
      await appender.partitions(topics.control);
      const admin = await log.admin();
      dispatchPartitions = createDispatchPartitions({ admin, topics, clock, fail });
      absences = createAbsences({ what: 'source', appender, admin, clock, logger, gauge: metrics.topicMissing, again: anew });
      const begun = releases.current();
      const revision = vault.revision();
      await lookForTopics();
      consent = await createConsentApi(context, { ...options, fail }, outside.openTable);
      app = createApp();
      await outside.listen(app, { host: context.config.host, port: options.port });
      listening = true;
      // After one that was killed a poller waits for the end of its session; webhooks and withdrawals do not.
      await follow().catch((error: unknown) => { if (!stopping) throw error; });
      if (stopping) return;
      // The sources of what came meanwhile would be closed until the next change.
      const offs = [releases.onChange(anew, begun), vault.onChange(anew)];
      off = () => { for (const end of offs) end(); };
      if (vault.revision() !== revision) anew();
    },
    readiness,
    async stop() {
      stopping = true;
      off?.();
      listening = false;
      consent?.giveUp();
      dispatchPartitions?.close();
      absences?.close();
      const cut = setTimeout(() => app?.server.closeAllConnections(), stopGraceMs);
      await Promise.all([app?.close(), changing.then(() => Promise.all([...pollers.values()].map((p) => p.stop())))]);
      clearTimeout(cut);
      await consent?.stop();
      await http.close();
    },
  };
}
