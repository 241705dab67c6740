import { createHash } from 'node:crypto';
import { WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { FastifyContextConfig, FastifyInstance, FastifyRequest, FastifySchema } from 'fastify';
import type { AuditLog } from './audit.ts';
import type { Authenticate } from '@weir/service/authenticate';
import type { Refusal, Replies } from '@weir/service';
import { allows, permissions, type Permission, type Principal, type Scope } from '@weir/release';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Without it a route does not start. */
    permission?: Permission;
    /** What the request touches. */
    scope?: (request: FastifyRequest) => Scope | Promise<Scope>;
    /** Of every route that changes something, and of one that only reads but shows a person in the clear: the action of its audit leaf; a function where the body says which of several. */
    action?: string | ((request: FastifyRequest) => string);
    /** What the leaf says beside the digest of the body. */
    target?: (request: FastifyRequest) => string | null;
    /** The leaf says nothing of the body, which names a person: its hash could be guessed, and the audit log is kept for ever. */
    privateBody?: true | ((request: FastifyRequest) => boolean);
    /** For everybody; only for routes outside /v1. */
    public?: true;
  }
  interface FastifyRequest {
    principal: Principal;
    /** Id of the audit leaf that was written before the handler of a change, or of a look at a person, runs. */
    leaf: string;
  }
}

export interface DeclaredRoute {
  readonly method: string;
  readonly url: string;
  readonly permission: Permission | undefined;
  /** `by the body` where a body says which of several. */
  readonly action: string | undefined;
  readonly summary: string | undefined;
  readonly schema: FastifySchema | undefined;
  readonly replies: Replies;
  /** What it may refuse with, those that every route may among them. */
  readonly errors: readonly Refusal[];
}

/** The action of the leaf of a request. */
function actionOf(request: FastifyRequest): string | undefined {
  const { action } = request.routeOptions.config;
  return typeof action === 'function' ? action(request) : action;
}

/** After an answer of 500 and above nobody knows how far the change has come: a decision may be written, and carried out later. */
const resultOf = (status: number): string => (status < 400 ? 'completed' : status < 500 ? 'refused' : 'interrupted');

/** Ids that Weir gives. A token or an identifier of a person that is given as one finds nothing, and must not stand in the audit log, which is kept for ever. */
const ourId = /^(evt|dlq|rpl|rhs|prop|tok)_/;

/** It has no body. */
const reads = ({ method }: FastifyRequest): boolean => method === 'GET' || method === 'HEAD';

function isPrivate(request: FastifyRequest): boolean {
  const { privateBody } = request.routeOptions.config;
  return typeof privateBody === 'function' ? privateBody(request) : privateBody === true;
}

/** What fastify, the token, the input, the permission and the audit leaf may refuse with, and what the route says of itself. */
function errorsOf(method: string, { public: open, action, errors = [] }: FastifyContextConfig, schema: FastifySchema | undefined): Refusal[] {
  if (open === true) return [...errors];
  const reading = method === 'GET' || method === 'HEAD';
  const input: Refusal[] = reading && schema?.params === undefined && schema?.querystring === undefined ? [] : ['bad-request'];
  const body: Refusal[] = reading ? [] : [{ code: 'bad-request', status: 413 }, { code: 'bad-request', status: 415 }];
  return [...new Set<Refusal>([...input, ...body, 'unauthorized', 'forbidden', 'issuer-unavailable', 'secret-unavailable', 'log-unavailable', 'not-ready', ...(action === undefined ? [] : ['audit-broken'] as const), ...errors])];
}

/**
 * Default deny. A route under /v1 without a permission and a scope, one that changes something without an action, or
 * one that does not say what it answers, throws when it is added. Order of a request: token, input, permission over the scope, audit leaf, handler,
 * end leaf. Must be installed before any route.
 */
export function installAccess(app: FastifyInstance, ports: { readonly authenticate: Authenticate; readonly audit: () => AuditLog; readonly endFailed: (error: unknown, leaf: string) => void }): readonly DeclaredRoute[] {
  const declared: DeclaredRoute[] = [];
  app.decorateRequest('principal');
  app.decorateRequest('leaf', '');

  app.addHook('onRoute', ({ method, url, config, schema }) => {
    for (const one of [method].flat()) {
      const { permission, scope, action, summary, replies, undocumented } = config ?? {};
      const isPublic = config?.public === true && !url.startsWith('/v1');
      if (!isPublic && (permission === undefined || !Object.hasOwn(permissions, permission) || scope === undefined)) throw new WeirError('invariant-broken', `${one} ${url} declares no permission and scope`);
      if (!isPublic && one !== 'GET' && one !== 'HEAD' && action === undefined) throw new WeirError('invariant-broken', `${one} ${url} declares no audit action`);
      if (undocumented === undefined && (replies === undefined || summary === undefined)) throw new WeirError('invariant-broken', `${one} ${url} declares no summary and answers`);
      if (config !== undefined) config.errors = errorsOf(one, config, schema);
      declared.push({ method: one, url, permission, action: typeof action === 'function' ? 'by the body' : action, summary, schema, replies: replies ?? {}, errors: config?.errors ?? [] });
    }
  });

  app.addHook('onRequest', async (request) => {
    if (request.routeOptions.config.public === true || (request.is404 && !request.url.startsWith('/v1'))) return;
    request.principal = await ports.authenticate(request.headers.authorization);
  });

  app.addHook('preHandler', async (request) => {
    const { config } = request.routeOptions;
    if (config.public === true || request.is404) return;
    // Who may not do it anywhere learns nothing of what is there.
    if (!request.principal.grants.some((grant) => allows({ id: '', grants: [{ ...grant, sources: '*', destinations: '*' }] }, config.permission!, { sources: [], destinations: [] }))) throw new WeirError('forbidden');
    if (!allows(request.principal, config.permission!, await config.scope!(request))) throw new WeirError('forbidden');
    if (config.action === undefined) return;
    const { id } = request.params as { readonly id?: string };
    if (id !== undefined && !ourId.test(id)) throw new WeirError('not-found', 'there is nothing of this id: it is none that Weir gives');
    failpoint('control.authorized');
    request.leaf = await ports.audit().record({ kind: 'intent', actor: request.principal.id, action: actionOf(request)!, target: config.target?.(request) ?? null, details: isPrivate(request) || reads(request) ? {} : { body: createHash('sha256').update(JSON.stringify(request.body ?? null)).digest('hex') } });
    failpoint('control.audit-written');
  });

  app.addHook('onSend', async (request, reply, payload) => {
    if (request.leaf === '') return payload;
    const of = request.leaf;
    request.leaf = '';
    failpoint('control.change-made');
    try {
      await ports.audit().record({ kind: 'end', actor: request.principal.id, action: actionOf(request)!, target: null, of, details: { result: resultOf(reply.statusCode), status: reply.statusCode } });
    } catch (error) {
      // The change has its leaf; how it ended is written at the next start.
      ports.endFailed(error, of);
    }
    return payload;
  });
  return declared;
}
