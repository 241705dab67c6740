import type { IncomingMessage } from 'node:http';
import type { InboundRequest, WebhookSource } from '@weir/adapter';
import { catalogue, findWeirError, WeirError, type CatalogueEntry, type ErrorCode } from '@weir/errors';
import type { SourceConfig } from '@weir/release';
import { childTraceparent, traceIdOf } from '@weir/telemetry';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { accept, type AcceptPorts } from './accept.ts';
import { readBody } from './body.ts';
import type { IngestMetrics } from './metrics.ts';

export interface RoutePorts extends AcceptPorts {
  /** Source of the running release with its secrets; undefined = unknown. */
  source(name: string): SourceConfig | undefined;
  /** Sources whose adapter is `segment`. */
  segmentSources(): readonly SourceConfig[];
  readonly maxInflightBytes: number;
  readonly metrics: IngestMetrics;
  readonly onError: (error: unknown, source: string) => void;
}

const segmentTypes = ['identify', 'track', 'page', 'screen', 'group', 'alias', 'batch', 'import'] as const;

function inbound(request: FastifyRequest, body: Buffer): InboundRequest {
  return { method: request.method, url: request.raw.url ?? '', headers: request.headers as Record<string, string | undefined>, body };
}

interface Answer {
  readonly eventIds: readonly string[];
  readonly traceId: string;
}

/** Verify on the raw bytes, split, append, wait for the acks. Nothing is written before the whole body is verified and split. */
async function take(ports: RoutePorts, source: SourceConfig, request: FastifyRequest): Promise<Answer> {
  const pending = ports.appender.pendingBytes();
  ports.metrics.inflight.set(pending);
  if (pending > ports.maxInflightBytes) throw new WeirError('overloaded');
  const body = await readBody(request.raw as IncomingMessage, source.limits.bodyBytes);
  const adapter = source.adapter.source as WebhookSource;
  const message = inbound(request, body);
  const verified = adapter.verify(message, source.config, ports.now());
  if (!verified.ok) throw new WeirError('signature-invalid', undefined, { details: { detail: verified.detail } });
  const { items, envelope } = adapter.split(message, source.config);
  if (items.length > source.limits.items) throw new WeirError('too-many-items', `more than ${source.limits.items} items`);
  const traceparent = childTraceparent(request.headers['traceparent'] as string | undefined);
  const began = performance.now();
  const { eventIds } = await accept(ports, source, items, envelope, traceparent, request.headers['content-type'] ?? 'application/json');
  ports.metrics.ack.observe((performance.now() - began) / 1000);
  ports.metrics.items.inc({ source: source.name }, items.length);
  return { eventIds, traceId: traceIdOf(traceparent) };
}

function refuse(ports: RoutePorts, source: string, reply: FastifyReply, error: unknown): { code: ErrorCode; message: string } {
  const known = findWeirError(error);
  const code: ErrorCode = known?.code ?? 'log-unavailable';
  const entry: CatalogueEntry = catalogue[code];
  ports.metrics.requests.inc({ source, result: code });
  if (known === undefined || entry.http === undefined || entry.http >= 500) ports.onError(error, source);
  const status = known === undefined ? 503 : (entry.http ?? 503);
  if (status === 429 || status === 503) reply.header('retry-after', status === 429 ? '1' : '2');
  // What is left of a refused body is not read.
  if (status === 413 || status === 404) reply.header('connection', 'close');
  reply.code(status);
  return { code, message: entry.http === undefined || entry.http >= 500 ? catalogue['log-unavailable'].meaning : (known?.message ?? entry.meaning) };
}

export function registerRoutes(app: FastifyInstance, ports: RoutePorts): void {
  // Bodies are read by readBody: fastify must neither parse nor buffer them.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));

  app.post<{ Params: { source: string } }>('/webhooks/:source', async (request, reply) => {
    const source = ports.source(request.params.source);
    try {
      if (source === undefined || source.adapter.source?.kind !== 'webhook') throw new WeirError('source-unknown');
      const { eventIds, traceId } = await take(ports, source, request);
      ports.metrics.requests.inc({ source: source.name, result: 'ok' });
      return await reply.code(202).send({ eventId: eventIds[0] ?? null, eventIds, traceId });
    } catch (error) {
      const { code, message } = refuse(ports, source?.name ?? 'unknown', reply, error);
      return reply.send({ error: code, message });
    }
  });
  registerSegment(app, ports);
}

/** Write key of a Basic authorization (user name; the password is empty), as the Segment SDKs send it. */
function writeKeyOf(request: FastifyRequest): string | undefined {
  const basic = /^Basic ([A-Za-z0-9+/=_-]{1,512})$/.exec(request.headers.authorization ?? '')?.[1];
  return basic === undefined ? undefined : Buffer.from(basic, 'base64').toString('utf8').split(':')[0];
}

/** The Segment HTTP tracking API. Its SDKs take 200 as accepted (analytics-python nothing else), so 200 it is. */
function registerSegment(app: FastifyInstance, ports: RoutePorts): void {
  app.options('/v1/*', async (_request, reply) => reply.headers({ 'access-control-allow-origin': '*', 'access-control-allow-methods': 'POST, OPTIONS', 'access-control-allow-headers': 'authorization, content-type, content-encoding', 'access-control-max-age': '86400' }).code(204).send());
  for (const type of segmentTypes) {
    app.post(`/v1/${type}`, async (request, reply) => {
      reply.header('access-control-allow-origin', '*');
      const sources = ports.segmentSources();
      const key = writeKeyOf(request);
      // One source: its adapter decides. Several: the write key names one; verify still compares it without an oracle.
      const source = sources.length === 1 ? sources[0] : sources.find((s) => key !== undefined && s.config['writeKey'] === key);
      try {
        if (source === undefined) throw new WeirError(sources.length === 0 ? 'source-unknown' : 'signature-invalid');
        const { eventIds, traceId } = await take(ports, source, request);
        ports.metrics.requests.inc({ source: source.name, result: 'ok' });
        return await reply.code(200).send({ success: true, eventId: eventIds[0] ?? null, eventIds, traceId });
      } catch (error) {
        const { code, message } = refuse(ports, source?.name ?? 'unknown', reply, error);
        return reply.send({ success: false, error: code, message });
      }
    });
  }
}
