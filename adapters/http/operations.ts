import { compileTemplate, compileUrlTemplate, compileVerdicts, durationMs, type AdapterConfig, type Json, type JsonObject, type OperationManifest, type RateHeaders, type Scope, type Template, type TemplateContext, type VerdictTable } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { compileBatch, type HttpBatch } from './batch.ts';
import { compileReadBack, type HttpReadBack } from './read-back.ts';

export interface HttpOperation {
  readonly manifest: OperationManifest;
  readonly method: 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: (scope: Scope) => string;
  /** Names lower case. */
  readonly headers: ReadonlyArray<readonly [name: string, value: Template]>;
  /** Absent: the canonical record. */
  readonly body: Template | undefined;
  /** Where a key in the body goes, as keys from the root. */
  readonly keyPath: readonly string[] | undefined;
  readonly verdicts: VerdictTable;
  readonly verify: HttpReadBack | undefined;
  readonly batch: HttpBatch | undefined;
}

const keys = new Set(['kind', 'accepts', 'doc', 'method', 'path', 'headers', 'body', 'idempotency', 'verdicts', 'limit', 'timeout', 'verify', 'batch']);
const roots = ['record', 'key', 'event_id', 'output_id', 'operation', 'record_type', 'accepted_at', 'subject'];
const methods = ['POST', 'PUT', 'PATCH', 'DELETE'] as const;
const schemes = ['header', 'body-field', 'natural-upsert', 'none'] as const;
const headerName = /^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$/;
/** Framing belongs to the client, and a body of another type than JSON cannot be written here. */
const reserved = new Set(['host', 'content-length', 'transfer-encoding', 'connection', 'upgrade', 'te', 'trailer', 'expect', 'keep-alive', 'proxy-authorization']);

function fail(path: string, message: string): never {
  throw new WeirError('workspace-invalid', `operations.${path}: ${message}`);
}

function table(value: Json | undefined, path: string): JsonObject {
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : fail(path, 'expected a table');
}

function duration(value: Json | undefined, path: string): number | undefined {
  return value === undefined || value === null ? undefined : durationMs(value) ?? fail(path, 'expected a duration such as 24h');
}

function checkHeader(name: string, path: string): string {
  const lower = name.toLowerCase();
  return headerName.test(lower) && !reserved.has(lower) ? lower : fail(path, `${JSON.stringify(name.slice(0, 80))} is no header that can be set`);
}

const secretName = /^[A-Z][A-Z0-9_]{0,63}$/;

/** A template, or `{ secret: NAME }`, which is text by the time of a call. What is wrong is told without the text: it may be the secret. */
function compileHeader(value: Json, path: string): Template {
  if (value !== null && typeof value === 'object' && !Array.isArray(value)) {
    const { secret, ...more } = value;
    if (typeof secret !== 'string' || !secretName.test(secret) || Object.keys(more).length > 0) fail(path, 'a header is text, or { secret: NAME }');
  }
  return compileTemplate(value, { roots, fail: () => fail(path, `a placeholder is {{ path }} with one of ${roots.join(', ')}`) });
}

/** Keys of a JSON pointer (RFC 6901). */
function pointer(text: string, path: string): string[] {
  const parts = text.split('/').slice(1).map((k) => k.replaceAll('~1', '/').replaceAll('~0', '~'));
  if (!text.startsWith('/') || parts.some((k) => k === '' || k === '__proto__')) fail(path, 'name is a JSON pointer such as /data/unique_id');
  return parts;
}

const cited = (given: JsonObject): string => (typeof given['cite'] === 'string' ? given['cite'] : 'stated in the workspace');

function idempotency(value: Json | undefined, path: string): OperationManifest['idempotency'] {
  const given = value === undefined ? {} : table(value, path);
  const scheme = schemes.find((s) => s === (given['scheme'] ?? 'none')) ?? fail(`${path}.scheme`, `use ${schemes.join(', ')}`);
  const pastWindow = given['pastWindow'] ?? 'hold';
  if (pastWindow !== 'hold' && pastWindow !== 'resend' && pastWindow !== 'verify') fail(`${path}.pastWindow`, 'use verify, hold or resend');
  const name = given['name'] === undefined ? (scheme === 'header' ? 'idempotency-key' : undefined) : String(given['name']);
  if (scheme === 'header') checkHeader(name!, `${path}.name`);
  if (scheme === 'body-field' && name === undefined) fail(`${path}.name`, 'a body-field needs the JSON pointer of the field');
  return { scheme, name, windowMs: duration(given['window'], `${path}.window`), pastWindow, cite: cited(given) };
}

function limit(value: Json | undefined, path: string): OperationManifest['limit'] {
  if (value === undefined) return undefined;
  const given = table(value, path);
  const part = (name: string): { count: number; perMs: number } | undefined => {
    if (given[name] === undefined) return undefined;
    const spec = table(given[name], `${path}.${name}`);
    const perMs = duration(spec['per'], `${path}.${name}.per`);
    if (typeof spec['count'] !== 'number' || spec['count'] < 1 || perMs === undefined || perMs === 0) fail(`${path}.${name}`, 'give count and per');
    return { count: spec['count'], perMs };
  };
  for (const key of Object.keys(given)) if (!['burst', 'steady', 'bucket', 'headers', 'cite'].includes(key)) fail(`${path}.${key}`, 'unknown key, use burst, steady, bucket, headers, cite');
  const bucket = given['bucket'];
  if (bucket !== undefined && (typeof bucket !== 'string' || !/^[a-z0-9][a-z0-9-]{0,62}$/.test(bucket))) fail(`${path}.bucket`, 'use lower case, digits and -');
  return { burst: part('burst'), steady: part('steady'), bucket, headers: rateHeaders(given['headers'], `${path}.headers`), cite: cited(given) };
}

const resetUnits = ['seconds', 'ms', 'epoch-seconds', 'epoch-ms', 'auto'] as const;

/** Where the vendor's answers state its limit, beside the standard fields. */
function rateHeaders(value: Json | undefined, path: string): RateHeaders | undefined {
  if (value === undefined) return undefined;
  const given = table(value, path);
  for (const key of Object.keys(given)) if (!['limit', 'remaining', 'reset', 'resetIn', 'window'].includes(key)) fail(`${path}.${key}`, 'unknown key, use limit, remaining, reset, resetIn, window');
  const name = (key: string): string | undefined => (given[key] === undefined ? undefined : headerName.test(String(given[key]).toLowerCase()) ? String(given[key]).toLowerCase() : fail(`${path}.${key}`, 'expected the name of a header'));
  const resetIn = resetUnits.find((u) => u === (given['resetIn'] ?? 'auto')) ?? fail(`${path}.resetIn`, `use ${resetUnits.join(', ')}`);
  return { limit: name('limit'), remaining: name('remaining'), reset: name('reset'), resetIn, windowMs: duration(given['window'], `${path}.window`) };
}

/** Identifiers that the templates of a restrict name; undefined where they name none, as without a body the whole record goes. */
function identifiersIn(...templates: readonly (Json | undefined)[]): OperationManifest['identifiers'] {
  const text = JSON.stringify(templates);
  const found = (['userId', 'email', 'phone'] as const).filter((field) => new RegExp(`\\{\\{\\s*record\\.${field}\\s*\\}\\}`).test(text));
  return found.length === 0 ? undefined : found;
}

function compile(name: string, value: Json): HttpOperation {
  const spec = table(value, name);
  for (const key of Object.keys(spec)) if (!keys.has(key)) fail(`${name}.${key}`, `unknown key, use ${[...keys].join(', ')}`);
  const kind = spec['kind'] ?? 'use';
  if (kind !== 'use' && kind !== 'restrict') fail(`${name}.kind`, 'use use or restrict');
  const accepts = spec['accepts'];
  if (!Array.isArray(accepts) || accepts.length === 0) fail(`${name}.accepts`, 'list the canonical records it takes');
  const method = methods.find((m) => m === (spec['method'] ?? 'POST')) ?? fail(`${name}.method`, `use ${methods.join(', ')}`);
  const path = spec['path'];
  if (typeof path !== 'string' || !path.startsWith('/')) fail(`${name}.path`, 'a path begins with /');
  const context = (at: string): TemplateContext => ({ roots, fail: (message) => fail(at, message) });
  const headersAt = (given: Json | undefined, at: string): HttpOperation['headers'] => Object.entries(given === undefined ? {} : table(given, at)).map(([header, v]) => [checkHeader(header, at), compileHeader(v, `${at}.${header}`)] as const);
  const headers = headersAt(spec['headers'], `${name}.headers`);
  const keyRule = idempotency(spec['idempotency'], `${name}.idempotency`);
  const inBody = keyRule.scheme === 'body-field';
  if (inBody && method === 'DELETE') fail(`${name}.idempotency.scheme`, 'a DELETE has no body: use another scheme');
  const body = spec['body'];
  if (inBody && body !== undefined && (body === null || typeof body !== 'object' || Array.isArray(body))) fail(`${name}.body`, 'a key in the body needs a body that is a table');
  const batch = compileBatch(spec['batch'], { path, scheme: keyRule.scheme }, { path: `${name}.batch`, fail, table, context: (at, known) => ({ roots: known, fail: (message) => fail(at, message) }) });
  if (batch !== undefined && method === 'DELETE') fail(`${name}.batch`, 'a DELETE has no body');
  const verify = compileReadBack(spec['verify'], { path: `${name}.verify`, fail, table, duration, limit, headers: headersAt, context });
  if (keyRule.pastWindow === 'verify' && verify === undefined) fail(`${name}.idempotency.pastWindow`, 'verify needs verify: with a read of the vendor');
  const identifiers = kind === 'restrict' ? identifiersIn(path, spec['headers'], body) : undefined;
  return {
    manifest: { kind, ...(identifiers === undefined ? {} : { identifiers }), accepts: accepts.map((a) => `weir.canonical.${String(a)}`), doc: String(spec['doc'] ?? ''), idempotency: keyRule, limit: limit(spec['limit'], `${name}.limit`), timeoutMs: duration(spec['timeout'], `${name}.timeout`), ...(verify === undefined ? {} : { verify: verify.manifest }), ...(batch === undefined ? {} : { batch: batch.manifest }) },
    method, headers, verify, batch,
    path: compileUrlTemplate(path, context(`${name}.path`)),
    body: body === undefined ? undefined : compileTemplate(body, context(`${name}.body`)),
    keyPath: inBody ? pointer(keyRule.name!, `${name}.idempotency.name`) : undefined,
    verdicts: compileVerdicts(spec['verdicts'], (at, message) => fail(`${name}.verdicts${at}`, message)),
  };
}

const compiled = new WeakMap<object, ReadonlyMap<string, HttpOperation>>();

/** Operations of a config, compiled once per config object. Throws workspace-invalid with the path of the bad option. */
export function operationsOf(config: AdapterConfig): ReadonlyMap<string, HttpOperation> {
  let found = compiled.get(config);
  if (found === undefined) {
    checkHeader(String(config['authHeader'] ?? 'authorization'), 'authHeader');
    found = new Map(Object.entries(table(config['operations'] as Json, '')).map(([name, spec]) => [name, compile(name, spec)]));
    compiled.set(config, found);
  }
  return found;
}
