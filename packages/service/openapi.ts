import { catalogue, errorCodes, type CatalogueEntry, type ErrorCode, type WorkspaceProblem } from '@weir/errors';
import type { FastifySchema } from 'fastify';
import { flag, inlined, integer, list, named, nullable, object, oneOf, optional, plain, text, type AnySchema, type JsonSchema, type Schema } from './json-schema.ts';

type Json = Readonly<Record<string, unknown>>;

/** An answer that is not one JSON value. */
export interface Media {
  readonly type: string;
  readonly description: string;
  /** Of a line, where it is lines of JSON. */
  readonly line?: AnySchema;
}
export type Reply = AnySchema | Media | null;
/** What a route answers when all is well, by status; null = nothing. */
export type Replies = Readonly<Record<number, Reply>>;
/** A code of the catalogue under its own status, or under one that HTTP gives it. */
export type Refusal = ErrorCode | { readonly code: ErrorCode; readonly status: number };

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Without them a route does not start. */
    replies?: Replies;
    /** Codes that it may refuse with; those that every route of the service has are added. */
    errors?: readonly Refusal[];
    /** Body of a refusal; `refusalBody` when it is absent. */
    refusal?: AnySchema;
    summary?: string;
    tag?: string;
    /** What the route reads by hand, and who may send it. */
    inputs?: Pick<DocumentedRoute, 'body' | 'parameters' | 'description'> & { readonly security: readonly string[] };
    /** It stands in no document, for this reason. */
    undocumented?: string;
  }
}

export interface DocumentedRoute {
  readonly method: string;
  /** As fastify writes it. */
  readonly url: string;
  readonly summary: string;
  readonly description?: string;
  readonly tag: string;
  readonly replies: Replies;
  readonly errors: readonly Refusal[];
  readonly refusal?: AnySchema;
  /** What is read by hand: body, header and query parameters that are in no schema of fastify. */
  readonly body?: { readonly types: readonly string[]; readonly description: string; readonly schema?: JsonSchema; readonly example?: unknown };
  readonly parameters?: readonly Json[];
  readonly schema: FastifySchema | undefined;
  /** Names of security schemes, one of which is needed; none = everybody. */
  readonly security: readonly string[];
  readonly extensions?: Json;
}

export interface DocumentHead {
  readonly title: string;
  readonly description: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly securitySchemes: Readonly<Record<string, Json>>;
  /** 429 and 503 tell when to come again. */
  readonly retryAfter?: true;
}

/** Body of every refusal. */
export const errorFields = {
  error: oneOf(errorCodes, 'Code of docs/errors.md: what it means, and what to do.'),
  message: text('In words; never a part of the request, a secret or a person.'),
};
export const errorBody = named('Error', object('Why a request was refused.', errorFields));
const workspaceProblem: Schema<WorkspaceProblem> = named('WorkspaceProblem', object('One thing that is wrong in a file.', {
  file: text('Path in the workspace.'), line: integer('Counted from 1; 0 when the whole file is meant.'), message: text('What is wrong.'), remedy: text('What to do.'),
}));
/** With what is wrong in the files of a workspace. */
const workspaceErrorBody = named('WorkspaceError', object('Why a workspace was refused.', {
  ...errorFields,
  problems: optional(list(workspaceProblem, 'Every problem, not only the first; absent of a workspace that is too large.')),
}));

/** Body of a refusal with one of these codes, where the route says nothing else. */
export const refusalBody = (codes: readonly ErrorCode[]): AnySchema => (codes.includes('workspace-invalid') ? workspaceErrorBody : errorBody);

/** `GET /healthz`. */
export const healthReply = object('The process answers.', { status: oneOf(['ok'], 'Always ok.') });
/** `GET /readyz`. */
export const readinessReply = named('Readiness', object('Whether requests can be taken now.', { ready: flag('Take requests.'), reason: optional(nullable(text('Why not.'))) }));
/** `GET /metrics`. */
export const metricsReply: Media = { type: 'text/plain', description: 'Metrics in the text format of Prometheus (docs/metrics.md).' };

/** Whether an answer is not one JSON value. */
export const isMedia = (reply: AnySchema | Media): reply is Media => 'type' in reply;
/** HTTP status of a refusal. */
export const statusOf = (refusal: Refusal): number => (typeof refusal === 'object' ? refusal.status : (catalogue[refusal] as CatalogueEntry).http ?? 503);
/** Code of a refusal. */
export const codeOf = (refusal: Refusal): ErrorCode => (typeof refusal === 'object' ? refusal.code : refusal);

/** OpenAPI 3.1 of a table of routes: what is declared there is all there is. */
export function openApiDocument(head: DocumentHead, routes: readonly DocumentedRoute[]): Json {
  const schemas: Record<string, unknown> = {};
  /** By reference, with what it names. */
  const refer = (schema: AnySchema): unknown => {
    if (schema.component === undefined) return plain(schema.json, refer);
    if (!(schema.component in schemas)) {
      schemas[schema.component] = {};
      schemas[schema.component] = plain(schema.json, refer);
    }
    return { $ref: `#/components/schemas/${schema.component}` };
  };
  const responses: Record<string, Json> = {};
  const parts: Parts = { refer, responses, retryAfter: head.retryAfter === true };
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) (paths[pathOf(route.url)] ??= {})[route.method.toLowerCase()] = operation(route, parts);
  return {
    openapi: '3.1.0',
    info: { title: head.title, version: '1.0.0', description: head.description, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    servers: [{ url: '/' }],
    tags: Object.entries(head.tags).map(([name, description]) => ({ name, description })),
    paths,
    components: { securitySchemes: head.securitySchemes, responses: sorted(responses), schemas: sorted(schemas) },
  };
}

/** What operations share. */
interface Parts {
  readonly refer: (schema: AnySchema) => unknown;
  readonly responses: Record<string, Json>;
  readonly retryAfter: boolean;
}

const sorted = (table: Readonly<Record<string, unknown>>): Json => Object.fromEntries(Object.entries(table).sort(([a], [b]) => (a < b ? -1 : 1)));
const pathOf = (url: string): string => url.replace(/:([a-zA-Z]+)/g, '{$1}');
const idOf = (method: string, url: string): string => `${method.toLowerCase()}${url.replace(/^\/v1/, '').replace(/[^a-zA-Z]+(\w?)/g, (_, c: string) => c.toUpperCase())}`;
interface Inputs { readonly properties?: Readonly<Record<string, Json>>; readonly required?: readonly string[] }

/** A description belongs to the parameter, the rest to its schema. */
function parameter(name: string, place: string, { description, ...schema }: Json, required: boolean): Json {
  return { name, in: place, required, ...(description === undefined ? {} : { description }), schema };
}

function operation(route: DocumentedRoute, parts: Parts): Json {
  const { refer } = parts;
  const { method, url, schema, replies } = route;
  const [params, query] = [schema?.params as Inputs | undefined, schema?.querystring as Inputs | undefined];
  const parameters = [
    ...[...pathOf(url).matchAll(/\{(\w+)\}/g)].map(([, name]) => parameter(name!, 'path', params?.properties?.[name!] ?? { type: 'string' }, true)),
    ...Object.entries(query?.properties ?? {}).map(([name, type]) => parameter(name, 'query', type, query?.required?.includes(name) ?? false)),
    ...route.parameters ?? [],
  ];
  return {
    operationId: idOf(method, url), tags: [route.tag], summary: route.summary, ...(route.description === undefined ? {} : { description: route.description }), ...route.extensions,
    security: route.security.map((name) => ({ [name]: [] })),
    ...(parameters.length === 0 ? {} : { parameters }),
    ...bodyOf(route),
    responses: { ...Object.fromEntries(Object.entries(replies).map(([status, reply]) => [status, good(reply, refer)])), ...refusals(route, parts) },
  };
}

function bodyOf({ body, schema }: DocumentedRoute): Json {
  if (body !== undefined) return { requestBody: { required: true, description: body.description, content: Object.fromEntries(body.types.map((type) => [type, { ...(body.schema === undefined ? {} : { schema: body.schema }), ...(body.example === undefined ? {} : { example: body.example }) }])) } };
  if (schema?.body === undefined) return {};
  const { type } = schema.body as { readonly type?: string | readonly string[] };
  return { requestBody: { required: !(Array.isArray(type) && type.includes('null')), content: { 'application/json': { schema: schema.body } } } };
}

function good(reply: Reply, refer: (schema: AnySchema) => unknown): Json {
  if (reply === null) return { description: 'Done; no body.' };
  if (isMedia(reply)) return { description: reply.description, content: { [reply.type]: { schema: reply.line === undefined ? { type: 'string' } : refer(reply.line) } } };
  return { description: String(inlined(reply)['description'] ?? 'Done.'), content: { 'application/json': { schema: refer(reply) } } };
}

/** Retry-After is sent with these. */
const retried: ReadonlySet<number> = new Set([429, 503]);

/** One answer for each status, shared by all routes with the same codes under it. */
function refusals({ errors, refusal: own }: DocumentedRoute, { refer, responses, retryAfter }: Parts): Json {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const one of errors) {
    const codes = byStatus.get(statusOf(one)) ?? [];
    if (!codes.includes(codeOf(one))) byStatus.set(statusOf(one), [...codes, codeOf(one)]);
  }
  return Object.fromEntries([...byStatus].sort(([a], [b]) => a - b).map(([status, codes]) => {
    const given = codes.toSorted();
    const refusal = own ?? refusalBody(given);
    const name = [refusal.component ?? 'Error', status, ...given].join('.');
    responses[name] ??= {
      description: given.map((code) => `\`${code}\`: ${catalogue[code].meaning}`).join(' '),
      ...(retryAfter && retried.has(status) ? { headers: { 'Retry-After': { description: 'Seconds.', schema: { type: 'integer' } } } } : {}),
      content: { 'application/json': { schema: { allOf: [refer(refusal), { type: 'object', properties: { error: { enum: given } } }] } } },
    };
    return [status, { $ref: `#/components/responses/${name}` }];
  }));
}
