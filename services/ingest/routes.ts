import type { InboundRequest, WebhookSource } from '@weir/adapter';
import { catalogue, findWeirError, WeirError, type CatalogueEntry, type ErrorCode } from '@weir/errors';
import { failpoint, isArmed } from '@weir/failpoint';
import type { SourceConfig } from '@weir/release';
import { errorFields, flag, list, named, nullable, object, optional, text, type TypeOf } from '@weir/service';
import { childTraceparent, parseTraceparent, traceIdOf } from '@weir/telemetry';
import type { FastifyContextConfig, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import { accept, type AcceptPorts } from './accept.ts';
import { bodyLimits } from './body-limits.ts';
import { discard, encodingOf, readBody } from './body.ts';
import type { Budget } from './budget.ts';
import type { IngestMetrics } from './metrics.ts';
import type { Refusal } from './refusals.ts';
import { answerOf, onPost } from './server.ts';
import type { Sources } from './sources.ts';

export interface RoutePorts extends AcceptPorts {
  sources(): Sources;
  /** Whether the source waits for its topic. */
  missing(source: string): boolean;
  readonly budget: Budget;
  readonly maxInflightBytes: number;
  readonly metrics: IngestMetrics;
  readonly logger: Logger;
  readonly refused: (refusal: Refusal) => void;
}

const taken = {
  eventId: nullable(text('Event of the first item; null when the body has none.', { example: 'evt_60303ae22b998861bce3b28f33eec1be' })),
  eventIds: list(text('Event.'), 'Of every item, in the order of the body. The same item has the same id when it comes again.'), traceId: text('Trace id (W3C): that of `traceparent`, or a new one.'),
};
const webhookReply = named('Accepted', object('Every item is on the log.', taken));
const segmentReply = named('SegmentAccepted', object('Every event is on the log.', { success: flag('true.'), ...taken }));
const segmentError = named('SegmentError', object('Why a request was refused.', { success: optional(flag('false; absent where HTTP itself refuses, before a route is known.')), ...errorFields }));
/** `take` may refuse with these. */
const takeErrors = ['signature-invalid', 'source-unknown', 'body-malformed', 'body-too-deep', 'body-too-large', 'too-many-items', 'encoding-unsupported', 'overloaded', 'log-unavailable', 'secret-unavailable', 'topic-missing'] as const;
const traceparent = { name: 'traceparent', in: 'header', required: false, description: 'W3C trace context; the trace goes on with it.', schema: { type: 'string' } };
const encoding = { name: 'content-encoding', in: 'header', required: false, description: 'How the body is packed.', schema: { type: 'string', enum: ['identity', 'gzip', 'deflate', 'br'] } };
type Answer = Pick<TypeOf<typeof webhookReply>, 'eventIds' | 'traceId'>;

const segmentTypes = ['identify', 'track', 'page', 'screen', 'group', 'alias', 'batch', 'import'] as const;
/** Segment's own limit of one event: twilio.com/docs/segment/connections/sources/catalog/libraries/server/http-api, "Max request size". */
const segmentEventBytes = 32 * 1024;
/** What a request costs besides its body: socket, request, promises; a decoder's window; an item's record and ids. */
const requestCost = 4096;
const decoderCost = 64 * 1024;
const itemCost = 1024;

/**
 * Verify on the raw bytes, split, append, wait for the acks. Nothing is written before the whole body is verified and
 * split; every byte held meanwhile counts against the budget.
 */
async function take(ports: RoutePorts, source: SourceConfig, request: Pick<FastifyRequest, 'raw' | 'method' | 'headers'>, maxItemBytes = Infinity): Promise<Answer> {
  const { budget, metrics } = ports;
  let held = 0;
  const hold = (bytes: number): void => {
    if (!budget.take(bytes)) throw new WeirError('overloaded');
    held += bytes;
  };
  try {
    if (ports.missing(source.name)) throw new WeirError('topic-missing');
    if (ports.appender.pendingBytes() > ports.maxInflightBytes) throw new WeirError('overloaded');
    hold(encodingOf(request.raw) === undefined ? requestCost : requestCost + decoderCost);
    const body = await readBody(request.raw, source.limits.bodyBytes, hold);
    const adapter = source.adapter.source as WebhookSource;
    const message: InboundRequest = { method: request.method, url: request.raw.url ?? '', headers: request.headers as Record<string, string | undefined>, body };
    let verified = adapter.verify(message, source.config, ports.now());
    const before = verified.ok ? undefined : ports.sources().previous(source);
    if (before !== undefined) {
      const second = adapter.verify(message, before, ports.now());
      if (second.ok) verified = second;
    }
    if (!verified.ok) throw new WeirError('signature-invalid', undefined, { details: { detail: verified.detail } });
    const { items, envelope } = adapter.split(message, source.config, bodyLimits(source));
    if (items.length > source.limits.items) throw new WeirError('too-many-items', `more than ${source.limits.items} items`);
    for (const item of items) if (item.bytes.length > maxItemBytes) throw new WeirError('body-too-large', `an event is over ${maxItemBytes} bytes`);
    hold(items.length * itemCost);
    const traceparent = childTraceparent(request.headers['traceparent'] as string | undefined);
    failpoint('ingest.verified');
    const began = performance.now();
    const eventIds = await accept(ports, { source, items, envelope, traceparent, contentType: request.headers['content-type'] ?? 'application/json' });
    failpoint('ingest.acked');
    if (isArmed('ingest.half-response')) {
      request.raw.socket.write('HTTP/1.1 20');
      failpoint('ingest.half-response');
    }
    metrics.ack.observe((performance.now() - began) / 1000);
    metrics.taken(source.name, items.length);
    const traceId = traceIdOf(traceparent);
    if (ports.logger.isLevelEnabled('debug')) ports.logger.debug({ source: source.name, traceId, eventId: eventIds[0], items: items.length }, 'accepted');
    return { eventIds, traceId };
  } finally {
    budget.give(held);
  }
}

/** Sets the status and gives the body of the answer. An error that nobody declared is a 500: the sender tries again, and the line in the log says why. */
function refuse(ports: RoutePorts, source: string, request: Pick<FastifyRequest, 'raw' | 'headers'>, reply: FastifyReply, error: unknown): ReturnType<typeof answerOf> {
  const known = findWeirError(error);
  const declared = known !== undefined && (catalogue[known.code] as CatalogueEntry).http !== undefined;
  const code: ErrorCode = declared ? known.code : known === undefined ? 'invariant-broken' : 'log-unavailable';
  const status = (catalogue[code] as CatalogueEntry).http!;
  const detail = known?.details['detail'];
  ports.metrics.requests.inc({ source, result: code });
  ports.refused({ source, code, status, traceId: parseTraceparent(request.headers['traceparent'] as string | undefined)?.traceId, detail: typeof detail === 'string' ? detail : undefined, error });
  discard(request.raw);
  if (status === 429 || status === 503) reply.header('retry-after', status === 429 ? '1' : '2');
  reply.code(status);
  return answerOf(code, status < 500 ? known?.message : undefined);
}

/** `POST /webhooks/<source>` and the Segment tracking API. */
export function registerRoutes(app: FastifyInstance, ports: RoutePorts): void {
  onPost<{ source: string }>(app, '/webhooks/:source', {
    tag: 'webhooks', summary: 'Accept a webhook of a source.', replies: { 202: webhookReply }, errors: takeErrors,
    inputs: {
      description: 'Answered when every in-sync replica has every item; of a refused request nothing is kept. The signature is checked on the whole body, as the adapter of the source says.',
      security: [], parameters: [traceparent, encoding], body: { types: ['*/*'], description: 'What the vendor sends, whatever type it names; its bytes are kept untouched.' },
    },
  }, async (request, reply) => {
    const sources = ports.sources();
    const source = sources.webhook(request.params.source);
    const waits = source === undefined && sources.waits(request.params.source);
    try {
      if (source === undefined) throw new WeirError(waits ? 'secret-unavailable' : 'source-unknown');
      const { eventIds, traceId } = await take(ports, source, request);
      return reply.code(202).send({ eventId: eventIds[0] ?? null, eventIds, traceId });
    } catch (error) {
      return reply.send(refuse(ports, source?.name ?? (waits ? request.params.source : 'unknown'), request, reply, error));
    }
  });
  registerSegment(app, ports);
}

/** Write key of a Basic authorization (user name; the password is empty), as the Segment SDKs send it. */
function writeKeyOf(request: Pick<FastifyRequest, 'headers'>): string | undefined {
  const basic = /^Basic ([A-Za-z0-9+/=_-]{1,512})$/.exec(request.headers.authorization ?? '')?.[1];
  return basic === undefined ? undefined : Buffer.from(basic, 'base64').toString('utf8').split(':')[0];
}

const isBatch = (type: string): boolean => type === 'batch' || type === 'import';

function segmentRoute(type: (typeof segmentTypes)[number]): FastifyContextConfig {
  const event = { type: 'object', description: 'An event of the Segment spec.', properties: { messageId: { type: 'string', description: 'The same event has the same.' }, userId: { type: 'string', description: 'User id.' }, anonymousId: { type: 'string', description: 'Id before anybody signed in.' }, timestamp: { type: 'string', description: 'When it happened, ISO 8601.' } } };
  return {
    tag: 'tracking', summary: isBatch(type) ? `Accept many events (${type}).` : `Accept an event: ${type}.`, replies: { 200: segmentReply }, errors: takeErrors, refusal: segmentError,
    inputs: {
      description: 'The Segment HTTP tracking API. The write key names the source. Answered when every in-sync replica has every event. An event has at most 32 KB, a body 512 KB.', security: ['writeKey'], parameters: [traceparent, encoding],
      body: { types: ['application/json'], description: isBatch(type) ? 'Events, each with its type.' : 'The event.', schema: isBatch(type) ? { type: 'object', required: ['batch'], properties: { batch: { type: 'array', items: event, description: 'Events.' } } } : event },
    },
  };
}

/** The Segment HTTP tracking API. Its SDKs take 200 as accepted (analytics-python nothing else), so 200 it is. */
function registerSegment(app: FastifyInstance, ports: RoutePorts): void {
  app.options('/v1/*', { config: { undocumented: 'the preflight of browsers (CORS)' } }, (_request, reply) => reply.headers({ 'access-control-allow-origin': '*', 'access-control-allow-methods': 'POST, OPTIONS', 'access-control-allow-headers': 'authorization, content-type, content-encoding, traceparent', 'access-control-max-age': '86400' }).code(204).send());
  for (const type of segmentTypes) {
    onPost(app, `/v1/${type}`, segmentRoute(type), async (request, reply) => {
      reply.header('access-control-allow-origin', '*').header('access-control-expose-headers', 'retry-after');
      const sources = ports.sources();
      let source: SourceConfig | undefined;
      try {
        // The key only names the source: its adapter compares it again, in constant time.
        source = sources.segment(writeKeyOf(request));
        if (source === undefined) throw new WeirError(sources.segmentWaits ? 'secret-unavailable' : sources.hasSegment ? 'signature-invalid' : 'source-unknown');
        const { eventIds, traceId } = await take(ports, source, request, segmentEventBytes);
        return reply.code(200).send({ success: true, eventId: eventIds[0] ?? null, eventIds, traceId });
      } catch (error) {
        return reply.send({ success: false, ...refuse(ports, source?.name ?? 'unknown', request, reply, error) });
      }
    });
  }
}
