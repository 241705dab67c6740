import { catalogue, WeirError, type ErrorCode } from '@weir/errors';
import type { Refusal } from '@weir/service';
import Fastify, { type FastifyContextConfig, type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';

export interface ServerOptions {
  /** From the first byte of a request to its last. */
  readonly requestTimeoutMs: number;
  /** Told of requests that HTTP itself refuses, before a route is known. */
  readonly refused: (code: ErrorCode) => void;
}

const maxConnections = 10_000;
const headersTimeoutMs = 10_000;

/** Everything that is sent for an error: a code and what it means, never a part of the request. */
export function answerOf(code: ErrorCode, message: string = catalogue[code].meaning): { readonly error: ErrorCode; readonly message: string } {
  return { error: code, message };
}

/** Head of an HTTP/1.1 answer outside of a request that could be parsed. */
function rawAnswer(status: number, code: ErrorCode): string {
  const body = JSON.stringify(answerOf(code));
  return `HTTP/1.1 ${status} ${code}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

function codeOf(error: Error & { code?: string }): 'request-timeout' | 'headers-too-large' | 'bad-request' {
  return error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'request-timeout' : error.code === 'HPE_HEADER_OVERFLOW' ? 'headers-too-large' : 'bad-request';
}

/** What HTTP itself refuses, and what nobody declared. */
const everywhere: readonly Refusal[] = ['bad-request', 'request-timeout', 'headers-too-large', 'invariant-broken'];

/** A route of this service, as documents and tests need it; what it answers is not looked at when it is sent. */
export interface DeclaredRoute {
  readonly method: string;
  readonly url: string;
  readonly config: FastifyContextConfig;
}

/** Fastify with bounds on time, headers and connections, bodies left to the routes, and answers that echo nothing. A route that does not say what it answers throws when it is added. */
export function createServer(options: ServerOptions): FastifyInstance & { readonly declaredRoutes: readonly DeclaredRoute[] } {
  const { refused } = options;
  const app = Fastify({
    logger: false, requestTimeout: options.requestTimeoutMs, forceCloseConnections: 'idle', exposeHeadRoutes: false,
    // What comes on an open connection while it closes is answered as ever; a bare 503 would not say when to come again.
    return503OnClosing: false,
    // A name that is too long is a name that is not known.
    routerOptions: { maxParamLength: 16 * 1024 },
    // The default looks for slow requests only every 30 s.
    http: { maxHeaderSize: 16 * 1024, headersTimeout: Math.min(headersTimeoutMs, options.requestTimeoutMs), connectionsCheckingInterval: Math.min(1000, options.requestTimeoutMs) },
    clientErrorHandler(error, socket) {
      const code = codeOf(error);
      if (error.code !== 'ECONNRESET') refused(code);
      if (error.code === 'ECONNRESET' || !socket.writable) socket.destroy();
      else socket.end(rawAnswer(catalogue[code].http, code), () => socket.destroy());
    },
    frameworkErrors(_error, _request, reply) {
      refused('bad-request');
      void (reply as unknown as FastifyReply).code(400).send(answerOf('bad-request', 'the URL is malformed'));
    },
  });
  const declaredRoutes: DeclaredRoute[] = [];
  app.addHook('onRoute', ({ method, url, config }) => {
    if (config?.undocumented === undefined && (config?.replies === undefined || config.summary === undefined)) throw new WeirError('invariant-broken', `${String(method)} ${url} declares no summary and answers`);
    config.errors = [...everywhere, ...(config.errors ?? [])];
    for (const one of [method].flat()) declaredRoutes.push({ method: one, url, config });
  });
  app.server.maxConnections = maxConnections;
  app.setNotFoundHandler((_request, reply) => {
    refused('not-found');
    return reply.code(404).send(answerOf('not-found'));
  });
  app.setErrorHandler((error: FastifyError, _request, reply) => {
    const known = error.statusCode !== undefined && error.statusCode < 500;
    const code = known ? 'bad-request' : 'invariant-broken';
    refused(code);
    return reply.code(known ? error.statusCode! : 500).send(answerOf(code));
  });
  app.removeAllContentTypeParsers();
  return Object.assign(app, { declaredRoutes });
}

/**
 * A POST route that does its work before fastify looks at content type and body: senders name any type, or none, and the
 * route reads the body itself, under its own limits. `work` sends the answer, one that `config` declares.
 */
export function onPost<P = unknown>(app: FastifyInstance, url: string, config: FastifyContextConfig, work: (request: FastifyRequest<{ Params: P }>, reply: FastifyReply) => Promise<FastifyReply>): void {
  app.route<{ Params: P }>({ method: 'POST', url, config, onRequest: (request, reply) => work(request, reply as FastifyReply), handler: (_request, reply) => reply });
}
