import { Readable } from 'node:stream';
import type { ErrorCode } from '@weir/errors';
import { codeOf, inlined, isMedia, refusalBody, statusOf, type AnySchema, type JsonSchema, type Replies } from '@weir/service';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { FastifyContextConfig, FastifyInstance } from 'fastify';

/** An answer as it leaves, with the declaration of its route. */
export interface Answer {
  readonly method: string;
  readonly url: string;
  readonly config: FastifyContextConfig;
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

const isInstant = (value: string): boolean => !Number.isNaN(Date.parse(value)) && new Date(value).toISOString() === value;
// What fastify brings. Nothing is coerced, and no keyword is passed over.
const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, allErrors: true, formats: { 'date-time': isInstant } });
const compiled = new Map<AnySchema, ValidateFunction>();

/** Clients take fields that they do not know; here one that is not in the document is a fault of the document. */
function closed(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(closed);
  if (typeof json !== 'object' || json === null) return json;
  const inner = Object.fromEntries(Object.entries(json).map(([name, value]) => [name, name === 'properties' ? Object.fromEntries(Object.entries(value as JsonSchema).map(([field, schema]) => [field, closed(schema)])) : name === 'examples' || name === 'enum' ? value : closed(value)]));
  return 'properties' in json && !('additionalProperties' in json) ? { ...inner, additionalProperties: false } : inner;
}

/** What of a body is not as the schema says; '' = nothing. */
export function mismatch(schema: AnySchema, body: string): string {
  let validate = compiled.get(schema);
  if (validate === undefined) compiled.set(schema, validate = ajv.compile(closed(inlined(schema)) as JsonSchema));
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return `no JSON: ${body.slice(0, 80)}`;
  }
  return validate(value) ? '' : (validate.errors ?? []).slice(0, 6).map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`).join('; ');
}

function refused(config: FastifyContextConfig, { status, body }: Answer): string {
  const { error } = JSON.parse(body) as { error?: string };
  if (!(config.errors ?? []).some((one) => statusOf(one) === status && codeOf(one) === error)) return `${status} ${error} is not declared`;
  return mismatch(config.refusal ?? refusalBody([error as ErrorCode]), body);
}

/** What of an answer is not as its route declares it; '' = nothing. Routes of servers that declare nothing are passed over. */
export function fault(answer: Answer): string {
  const { method, url, config, status, type, body } = answer;
  if (config.replies === undefined || config.undocumented !== undefined || method === 'HEAD') return '';
  const reply = (config.replies as Replies)[status];
  const say = (what: string): string => (what === '' ? '' : `${method} ${url} → ${status}: ${what}`);
  if (reply === undefined) return say(status >= 400 ? refused(config, answer) : 'is not declared');
  if (reply === null) return say(body === '' ? '' : 'has a body');
  if (!isMedia(reply)) return say(type.startsWith('application/json') ? mismatch(reply, body) : `is ${type}`);
  if (!type.startsWith(reply.type)) return say(`is ${type}, not ${reply.type}`);
  return say(reply.line === undefined ? '' : body.split('\n').filter((line) => line !== '').map((line) => mismatch(reply.line!, line)).find((problem) => problem !== '') ?? '');
}

/** Looks at every answer of a server; `report` gets what is wrong with one. */
export function hold(app: FastifyInstance, report: (problem: string) => void): void {
  app.addHook('onSend', (request, reply, payload: unknown, done) => {
    const { url } = request.routeOptions;
    if (request.is404 || url === undefined) return done(null, payload);
    const look = (body: string): void => {
      const problem = fault({ method: request.method, url, config: request.routeOptions.config, status: reply.statusCode, type: String(reply.getHeader('content-type') ?? ''), body });
      if (problem !== '') report(problem);
    };
    if (payload instanceof Readable) return done(null, Readable.from(read(payload, look)));
    look(payload === undefined || payload === null ? '' : String(payload));
    done(null, payload);
  });
}

async function* read(stream: Readable, look: (body: string) => void): AsyncGenerator<string> {
  let whole = '';
  for await (const chunk of stream) {
    whole += String(chunk);
    yield String(chunk);
  }
  look(whole);
}

