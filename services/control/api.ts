import { createHash, timingSafeEqual } from 'node:crypto';
import { catalogue, findWeirError, WeirError, WorkspaceError, type CatalogueEntry, type ErrorCode } from '@weir/errors';
import Fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import type { ReleaseApi, ReleaseOrder } from './releases.ts';

export interface ApiPorts {
  readonly token: () => string;
  status(): Promise<unknown>;
  trace(eventId: string): unknown;
  deadLetters(limit: number, filter: { stage?: string; code?: string; destination?: string }): unknown[];
  deadLetter(id: string): Promise<unknown>;
  redrive(request: { ids?: string[]; all?: boolean; code?: string; stage?: string; destination?: string }): Promise<unknown>;
  release(): unknown;
  readonly releases: ReleaseApi;
  /** Next events from a cursor on; long-polls up to `waitMs`. */
  tail(after: number, waitMs: number): Promise<unknown>;
  readonly metrics: () => Promise<string>;
  readonly readiness: () => { ready: boolean; reason?: string };
}

const idPattern = '^[a-zA-Z0-9_-]{1,100}$';
const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** The control API. Every route under /v1 needs the admin token; errors are `{ error, message }`. */
export function createApi(ports: ApiPorts): FastifyInstance {
  const app = Fastify({ bodyLimit: 256 * 1024, logger: false, requestTimeout: 60_000, forceCloseConnections: true });
  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    const readiness = ports.readiness();
    return reply.code(readiness.ready ? 200 : 503).send(readiness);
  });
  app.get('/metrics', async (_request, reply) => reply.type('text/plain; version=0.0.4').send(await ports.metrics()));
  app.addHook('onRequest', async (request) => {
    if (!request.url.startsWith('/v1/')) return;
    const given = /^Bearer (.{1,512})$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
    if (!timingSafeEqual(digest(given), digest(ports.token()))) throw new WeirError('unauthorized');
  });
  app.setErrorHandler((error: Error & { statusCode?: number; validation?: unknown }, _request, reply: FastifyReply) => {
    const known = findWeirError(error);
    const code: ErrorCode = known?.code ?? (error.validation !== undefined || (error.statusCode ?? 500) < 500 ? 'bad-request' : 'log-unavailable');
    const entry: CatalogueEntry = catalogue[code];
    return reply.code(known === undefined ? (error.statusCode ?? 503) : (entry.http ?? 503)).send({ error: code, message: error.message, ...(known instanceof WorkspaceError ? { problems: known.problems } : {}) });
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'not-found', message: 'no such route' }));
  routes(app, ports);
  releaseRoutes(app, ports.releases);
  return app;
}

function routes(app: FastifyInstance, ports: ApiPorts): void {
  const idParams = { params: { type: 'object', properties: { id: { type: 'string', pattern: idPattern } } } };
  app.get('/v1/status', async () => ports.status());
  app.get('/v1/release', async () => ports.release());
  app.get<{ Params: { id: string } }>('/v1/events/:id/trace', { schema: idParams }, async (request) => ports.trace(request.params.id));
  app.get<{ Querystring: { after?: number; wait?: number } }>('/v1/tail', { schema: { querystring: { type: 'object', properties: { after: { type: 'integer', minimum: 0 }, wait: { type: 'integer', minimum: 0, maximum: 30_000 } } } } }, async (request) => ports.tail(request.query.after ?? -1, request.query.wait ?? 0));
  const filter = { stage: { type: 'string', maxLength: 40 }, code: { type: 'string', maxLength: 80 }, destination: { type: 'string', maxLength: 64 } };
  app.get<{ Querystring: { limit?: number; stage?: string; code?: string; destination?: string } }>('/v1/dlq', { schema: { querystring: { type: 'object', properties: { limit: { type: 'integer', minimum: 1, maximum: 10_000 }, ...filter } } } }, async (request) => ({ deadLetters: ports.deadLetters(request.query.limit ?? 100, request.query) }));
  app.get<{ Params: { id: string } }>('/v1/dlq/:id', { schema: idParams }, async (request) => ports.deadLetter(request.params.id));
  app.post<{ Body: { ids?: string[]; all?: boolean; code?: string; stage?: string; destination?: string } }>('/v1/dlq/redrive', { schema: { body: { type: 'object', additionalProperties: false, properties: { ids: { type: 'array', maxItems: 1000, items: { type: 'string', pattern: idPattern } }, all: { type: 'boolean' }, ...filter } } } }, async (request) => ports.redrive(request.body));
}

const releaseBytes = 2 * 1024 * 1024;
const releaseOrder = {
  type: 'object', additionalProperties: false, required: ['files'],
  properties: {
    files: { type: 'array', minItems: 1, maxItems: 600, items: { type: 'object', additionalProperties: false, required: ['path', 'content'], properties: { path: { type: 'string', pattern: '^[a-z0-9][a-z0-9./-]{0,200}$' }, content: { type: 'string', maxLength: 262_144 } } } },
    message: { type: ['string', 'null'], maxLength: 2000 },
  },
};

function releaseRoutes(app: FastifyInstance, releases: ReleaseApi): void {
  app.get('/v1/releases', async () => ({ releases: await releases.list() }));
  app.get('/v1/releases/current', async () => releases.current());
  app.post<{ Body: ReleaseOrder }>('/v1/releases', { bodyLimit: releaseBytes, schema: { body: releaseOrder } }, async (request) => releases.apply(request.body));
  app.get('/v1/topics/check', async () => releases.topics(false));
  app.post('/v1/topics/apply', async () => releases.topics(true));
}
