import { metricsReply, object, oneOf, optional, readinessReply, text, type Readiness } from '@weir/service';
import type { FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';

export interface OpsPorts {
  /** What sources wait for; undefined = nothing. */
  readonly waits: () => string | undefined;
  readonly readiness: () => Readiness;
  readonly registry: Registry;
}

const waitingReply = object('The process answers.', { status: oneOf(['ok'], 'Always ok.'), waits: optional(text('Sources that wait for their topic, and what to do.')) });

/** GET /healthz, /readyz, /metrics. */
export function registerOps(app: FastifyInstance, { waits, readiness, registry }: OpsPorts): void {
  const open = { tag: 'service', inputs: { security: [] } };
  // Not /readyz: who routes by that would take the other sources away, too.
  app.get('/healthz', { config: { ...open, summary: 'Whether the process answers, and what sources wait for.', replies: { 200: waitingReply } } }, () => Promise.resolve({ status: 'ok', waits: waits() }));
  app.get('/readyz', { config: { ...open, summary: 'Whether requests can be taken now.', replies: { 200: readinessReply, 503: readinessReply } } }, (_request, reply) => {
    const found = readiness();
    return reply.code(found.ready ? 200 : 503).send(found);
  });
  app.get('/metrics', { config: { ...open, summary: 'Metrics.', replies: { 200: metricsReply } } }, async (_request, reply) => reply.type(registry.contentType).send(await registry.metrics()));
}
