import type { AdapterConfig, JsonObject, OperationManifest } from '@weir/adapter';
import { WeirError, type ErrorCode } from '@weir/errors';
import { compileTemplate, type Template } from './template.ts';

export interface VerdictRule {
  /** `404`, `5xx`, `4xx`, `*`. */
  readonly status: string;
  readonly verdict: 'ok' | 'retry' | 'throttled' | 'permanent' | 'auth-broken';
  readonly effect: 'none' | 'maybe' | 'done';
}

export interface HttpOperation {
  readonly manifest: OperationManifest;
  readonly method: 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'GET';
  readonly path: Template;
  readonly headers: ReadonlyArray<readonly [name: string, value: Template]>;
  readonly body: Template | undefined;
  readonly verdicts: readonly VerdictRule[];
}

const keys = new Set(['kind', 'accepts', 'doc', 'method', 'path', 'headers', 'body', 'idempotency', 'verdicts', 'limit', 'timeout']);
const units: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** What most APIs mean by their status codes; a rule of the operation goes first. 5xx and lost answers may have had an effect. */
export const defaultVerdicts: readonly VerdictRule[] = [
  { status: '2xx', verdict: 'ok', effect: 'done' },
  { status: '401', verdict: 'auth-broken', effect: 'none' },
  { status: '403', verdict: 'auth-broken', effect: 'none' },
  { status: '408', verdict: 'retry', effect: 'maybe' },
  { status: '409', verdict: 'retry', effect: 'maybe' },
  { status: '423', verdict: 'retry', effect: 'none' },
  { status: '425', verdict: 'retry', effect: 'none' },
  { status: '429', verdict: 'throttled', effect: 'none' },
  { status: '503', verdict: 'retry', effect: 'maybe' },
  { status: '4xx', verdict: 'permanent', effect: 'none' },
  { status: '5xx', verdict: 'retry', effect: 'maybe' },
  { status: '*', verdict: 'permanent', effect: 'maybe' },
];

export const codeOf: Record<Exclude<VerdictRule['verdict'], 'ok'>, ErrorCode> = { retry: 'vendor-unavailable', throttled: 'vendor-throttled', permanent: 'delivery-rejected', 'auth-broken': 'credential-rejected' };

function fail(path: string, message: string): never {
  throw new WeirError('workspace-invalid', `operations.${path}: ${message}`);
}

function duration(value: unknown, path: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  const match = typeof value === 'string' ? /^(\d{1,6})(s|m|h|d)$/.exec(value) : null;
  return match === null ? fail(path, 'expected a duration such as 24h') : Number(match[1]) * units[match[2]!]!;
}

function table(value: unknown, path: string): JsonObject {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) fail(path, 'expected a table');
  return value as JsonObject;
}

function idempotency(value: unknown, path: string): OperationManifest['idempotency'] {
  const given = value === undefined ? {} : table(value, path);
  const scheme = given['scheme'] ?? 'none';
  const pastWindow = given['pastWindow'] ?? 'hold';
  if (scheme !== 'header' && scheme !== 'body-field' && scheme !== 'natural-upsert' && scheme !== 'none') fail(`${path}.scheme`, 'use header, body-field, natural-upsert or none');
  if (pastWindow !== 'hold' && pastWindow !== 'resend') fail(`${path}.pastWindow`, 'use hold or resend');
  return { scheme, name: given['name'] === undefined ? (scheme === 'header' ? 'idempotency-key' : undefined) : String(given['name']), windowMs: duration(given['window'], `${path}.window`), pastWindow, cite: typeof given['cite'] === 'string' ? given['cite'] : 'stated in the workspace' };
}

function limit(value: unknown, path: string): OperationManifest['limit'] {
  if (value === undefined) return undefined;
  const given = table(value, path);
  const part = (name: string): { count: number; perMs: number } | undefined => {
    if (given[name] === undefined) return undefined;
    const spec = table(given[name], `${path}.${name}`);
    const perMs = duration(spec['per'], `${path}.${name}.per`);
    if (typeof spec['count'] !== 'number' || spec['count'] < 1 || perMs === undefined) fail(`${path}.${name}`, 'give count and per');
    return { count: spec['count'], perMs };
  };
  return { burst: part('burst'), steady: part('steady'), cite: typeof given['cite'] === 'string' ? given['cite'] : 'stated in the workspace' };
}

function verdicts(value: unknown, path: string): VerdictRule[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) fail(path, 'expected a list');
  return value.map((entry, i) => {
    const rule = table(entry, `${path}.${i}`);
    const status = String(rule['status']);
    if (!/^(\*|[1-5]xx|[1-5]\d\d)$/.test(status)) fail(`${path}.${i}.status`, 'use 404, 5xx or *');
    const verdict = rule['verdict'];
    if (verdict !== 'ok' && verdict !== 'retry' && verdict !== 'throttled' && verdict !== 'permanent' && verdict !== 'auth-broken') fail(`${path}.${i}.verdict`, 'use ok, retry, throttled, permanent or auth-broken');
    const effect = rule['effect'] ?? (verdict === 'ok' ? 'done' : 'maybe');
    if (effect !== 'none' && effect !== 'maybe' && effect !== 'done') fail(`${path}.${i}.effect`, 'use none, maybe or done');
    return { status, verdict, effect };
  });
}

function compile(name: string, value: unknown): HttpOperation {
  const spec = table(value, name);
  for (const key of Object.keys(spec)) if (!keys.has(key)) fail(`${name}.${key}`, `unknown key, use ${[...keys].join(', ')}`);
  const kind = spec['kind'] ?? 'use';
  if (kind !== 'use' && kind !== 'restrict') fail(`${name}.kind`, 'use use or restrict');
  const accepts = spec['accepts'];
  if (!Array.isArray(accepts) || accepts.length === 0) fail(`${name}.accepts`, 'list the canonical records it takes');
  const method = spec['method'] ?? 'POST';
  if (method !== 'POST' && method !== 'PUT' && method !== 'PATCH' && method !== 'DELETE' && method !== 'GET') fail(`${name}.method`, 'use POST, PUT, PATCH, DELETE or GET');
  if (typeof spec['path'] !== 'string' || !spec['path'].startsWith('/')) fail(`${name}.path`, 'a path begins with /');
  const template = (v: unknown, at: string): Template => compileTemplate(v as never, (message) => fail(at, message));
  const headers = Object.entries(spec['headers'] === undefined ? {} : table(spec['headers'], `${name}.headers`)).map(([header, v]) => [header.toLowerCase(), template(v, `${name}.headers.${header}`)] as const);
  return {
    manifest: { kind, accepts: accepts.map((a) => `weir.canonical.${String(a)}`), doc: String(spec['doc'] ?? ''), idempotency: idempotency(spec['idempotency'], `${name}.idempotency`), limit: limit(spec['limit'], `${name}.limit`), timeoutMs: duration(spec['timeout'], `${name}.timeout`) },
    method, path: template(spec['path'], `${name}.path`), headers, body: spec['body'] === undefined ? undefined : template(spec['body'], `${name}.body`), verdicts: [...verdicts(spec['verdicts'], `${name}.verdicts`), ...defaultVerdicts],
  };
}

const compiled = new WeakMap<object, ReadonlyMap<string, HttpOperation>>();

/** Operations of a config, compiled once per config object. Throws workspace-invalid with the path of the bad option. */
export function operationsOf(config: AdapterConfig): ReadonlyMap<string, HttpOperation> {
  let found = compiled.get(config);
  if (found === undefined) {
    found = new Map(Object.entries(table(config['operations'], '')).map(([name, spec]) => [name, compile(name, spec)]));
    compiled.set(config, found);
  }
  return found;
}
