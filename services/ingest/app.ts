import type { ConfigOf } from '@weir/config';
import { createHttpClient } from '@weir/http';
import type { Appender } from '@weir/log';
import { resolveConfig, type SourceConfig } from '@weir/release';
import type { Service, ServiceContext } from '@weir/service';
import Fastify, { type FastifyInstance } from 'fastify';
import type { options as ingestOptions } from './config.ts';
import { createMetrics } from './metrics.ts';
import { createPoller, type PollerPorts } from './poller.ts';
import { registerRoutes } from './routes.ts';

export type IngestOptions = Pick<ConfigOf<typeof ingestOptions>, 'port' | 'ackTimeoutMs' | 'maxInflightBytes' | 'allowPrivate' | 'sandboxUrl'>;

/** Webhooks, the Segment tracking API and pollers → raw topics. Answers 2xx only for what the log has acknowledged. */
export function createIngest(context: ServiceContext, options: IngestOptions): Service {
  const { log, serde, topics, releases, logger, clock, vault, groups } = context;
  const failure = Promise.withResolvers<Error>();
  const metrics = createMetrics(context.registry);
  const pollers = new Map<string, ReturnType<typeof createPoller>>();
  const resolved = new Map<string, SourceConfig>();
  const http = createHttpClient({ allowPrivate: options.allowPrivate, maxResponseBytes: 16 * 1024 * 1024 });
  let resolvedFor = '';
  let appender: Appender;
  let app: FastifyInstance;
  let listening = false;
  let changing: Promise<void> = Promise.resolve();
  let off: (() => void) | undefined;
  const fail = (error: unknown): void => failure.resolve(error as Error);

  function sources(): Map<string, SourceConfig> {
    const release = releases.current();
    if (release.hash === resolvedFor) return resolved;
    resolvedFor = release.hash;
    resolved.clear();
    for (const source of release.sources.values()) {
      try {
        resolved.set(source.name, { ...source, config: resolveConfig(source.config, { vault, sandboxUrl: options.sandboxUrl }) });
      } catch (error) {
        logger.error({ err: error, source: source.name }, 'source closed: a secret is missing');
      }
    }
    return resolved;
  }

  async function follow(): Promise<void> {
    const current = sources();
    for (const name of current.keys()) await appender.partitions(topics.raw(name));
    const wanted = [...current.values()].filter((s) => s.adapter.source?.kind === 'poll').map((s) => s.name);
    for (const [name, poller] of pollers) {
      if (wanted.includes(name)) continue;
      pollers.delete(name);
      await poller.stop();
    }
    for (const name of wanted) {
      if (pollers.has(name)) continue;
      const [reader, admin] = await Promise.all([log.reader(), log.admin()]);
      const ports: PollerPorts = { log, reader, serde, topics, http, logger, metrics, appender, now: clock.now, ackTimeoutMs: options.ackTimeoutMs, groupId: `${groups.poller}.${name}`, instance: context.config.instance, source: () => sources().get(name), endOf: async (topic) => (await admin.endOffsets(topic)).get(0) ?? 0, fail };
      const poller = createPoller(name, ports);
      pollers.set(name, poller);
      await poller.start();
    }
  }

  return {
    name: 'ingest',
    failed: failure.promise,
    async start() {
      // A request waits ackTimeoutMs; the log may go on trying longer, its duplicates are keyed.
      appender = await log.appender({ deadlineMs: Math.max(options.ackTimeoutMs, 5000) });
      await appender.partitions(topics.control);
      app = Fastify({ logger: false, requestTimeout: 30_000, connectionTimeout: 60_000, forceCloseConnections: 'idle', http: { maxHeaderSize: 16 * 1024 } });
      app.get('/healthz', async () => ({ status: 'ok' }));
      app.get('/readyz', async (_request, reply) => {
        const readiness = ready();
        return reply.code(readiness.ready ? 200 : 503).send(readiness);
      });
      app.get('/metrics', async (_request, reply) => reply.type(context.registry.contentType).send(await context.registry.metrics()));
      registerRoutes(app, {
        appender, topics, now: clock.now, ackTimeoutMs: options.ackTimeoutMs, maxInflightBytes: options.maxInflightBytes, metrics,
        source: (name) => sources().get(name),
        segmentSources: () => [...sources().values()].filter((s) => s.adapter.manifest.name === 'segment'),
        onError: (error, source) => logger.error({ err: error, source }, 'request not accepted'),
      });
      await follow();
      off = releases.onChange(() => { changing = changing.then(follow).catch(fail); });
      await app.listen({ host: context.config.host, port: options.port });
      listening = true;
    },
    readiness: ready,
    async stop() {
      off?.();
      await changing;
      listening = false;
      await app?.close();
      await Promise.all([...pollers.values()].map((p) => p.stop()));
      await http.close();
    },
  };

  function ready(): { ready: boolean; reason?: string } {
    if (!listening) return { ready: false, reason: 'not listening' };
    return appender.pendingBytes() > options.maxInflightBytes ? { ready: false, reason: 'the log is behind' } : { ready: true };
  }
}
