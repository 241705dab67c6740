import { hmac, isHeaderSafe, retryAfterMs, type AdapterConfig, type Delivery, type Destination, type HttpFailure, type HttpRequest, type HttpResponse, type JsonObject, type Verdict } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { codeOf, operationsOf, type HttpOperation, type VerdictRule } from './operations.ts';
import type { Scope } from './template.ts';

function operationOf(config: AdapterConfig, name: string): HttpOperation {
  const found = operationsOf(config).get(name);
  if (found === undefined) throw new WeirError('delivery-unbuildable', `no operation ${name}`);
  return found;
}

function scopeOf(delivery: Delivery, key: string): Scope {
  return { record: { ...delivery.record, extras: null }, key, event_id: delivery.eventId, output_id: delivery.outputId, operation: delivery.operation, record_type: delivery.recordType, accepted_at: delivery.acceptedAt, subject: delivery.identifiers[0]?.value ?? null };
}

function headerValue(name: string, value: unknown): string {
  const text = value === undefined || value === null ? '' : String(value);
  if (!isHeaderSafe(text)) throw new WeirError('delivery-unbuildable', `header ${name} would hold a control character`);
  return text;
}

/** JSON pointer (RFC 6901) set on the built body: where a body-field key goes. */
function setPointer(body: JsonObject, pointer: string, value: string): void {
  const keys = pointer.replace(/^\//, '').split('/').map((k) => k.replaceAll('~1', '/').replaceAll('~0', '~'));
  let node = body;
  for (const key of keys.slice(0, -1)) {
    const child = Object.hasOwn(node, key) ? node[key] : undefined;
    node = (child !== null && typeof child === 'object' && !Array.isArray(child) ? child : (node[key] = Object.create(null) as JsonObject)) as JsonObject;
  }
  node[keys[keys.length - 1]!] = value;
}

/** Path parts are percent-encoded by value: a record cannot leave its segment. */
function buildUrl(config: AdapterConfig, operation: HttpOperation, scope: Scope): string {
  const encoded = JSON.parse(JSON.stringify(scope), (_key, value: unknown) => (typeof value === 'string' ? encodeURIComponent(value) : value)) as Scope;
  return String(config['baseUrl']).replace(/\/$/, '') + String(operation.path(encoded));
}

function request(delivery: Delivery, key: string, config: AdapterConfig, now: number): HttpRequest {
  const operation = operationOf(config, delivery.operation);
  const scope = scopeOf(delivery, key);
  const headers: Record<string, string> = { 'content-type': 'application/json', 'user-agent': 'weir/0.1' };
  for (const [name, template] of operation.headers) headers[name] = headerValue(name, template(scope));
  const { scheme, name } = operation.manifest.idempotency;
  if (scheme === 'header') headers[name!.toLowerCase()] = key;
  const content = operation.body === undefined ? scope['record'] : operation.body(scope);
  if (scheme === 'body-field' && name !== undefined && content !== null && typeof content === 'object' && !Array.isArray(content)) setPointer(content as JsonObject, name, key);
  const body = operation.method === 'GET' || operation.method === 'DELETE' ? undefined : JSON.stringify(content);
  if (typeof config['auth'] === 'string') headers[String(config['authHeader']).toLowerCase()] = headerValue('auth', `${String(config['authPrefix'] ?? '')}${config['auth']}`);
  if (typeof config['signingSecret'] === 'string') sign(headers, config['signingSecret'], key, body ?? '', now);
  return { method: operation.method, url: buildUrl(config, operation, scope), headers, ...(body === undefined ? {} : { body }) };
}

/** Standard Webhooks 1.0: webhook-id, webhook-timestamp, webhook-signature = v1,base64(HMAC-SHA256(id.timestamp.body)). */
function sign(headers: Record<string, string>, secret: string, id: string, body: string, now: number): void {
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret);
  const timestamp = String(Math.floor(now / 1000));
  headers['webhook-id'] = id;
  headers['webhook-timestamp'] = timestamp;
  headers['webhook-signature'] = `v1,${hmac('sha256', key, `${id}.${timestamp}.${body}`).toString('base64')}`;
}

function matches(rule: VerdictRule, status: number): boolean {
  if (rule.status === '*') return true;
  return rule.status.endsWith('xx') ? Math.floor(status / 100) === Number(rule.status[0]) : Number(rule.status) === status;
}

function classify(response: HttpResponse | HttpFailure, delivery: Delivery, config: AdapterConfig): Verdict {
  if ('failure' in response) {
    if (response.failure === 'forbidden-address' || response.failure === 'redirect') return { kind: 'permanent', effect: response.sent ? 'maybe' : 'none', code: 'address-forbidden', detail: response.detail };
    if (response.failure === 'too-large') return { kind: 'permanent', effect: 'maybe', code: 'response-too-large', detail: response.detail };
    return { kind: 'retry', effect: response.sent ? 'maybe' : 'none', code: 'vendor-unavailable', detail: `${response.failure}: ${response.detail}` };
  }
  const rule = operationOf(config, delivery.operation).verdicts.find((r) => matches(r, response.status))!;
  if (rule.verdict === 'ok') return { kind: 'ok', effect: 'done' };
  const detail = `HTTP ${response.status}`;
  if (rule.verdict === 'permanent') return { kind: 'permanent', effect: rule.effect, code: codeOf.permanent, detail };
  return { kind: rule.verdict, effect: rule.effect === 'done' ? 'maybe' : rule.effect, code: codeOf[rule.verdict], retryAfterMs: retryAfterMs(response.headers), detail };
}

export const destination: Destination = {
  request,
  classify,
  operations: (config) => Object.fromEntries([...operationsOf(config)].map(([name, operation]) => [name, operation.manifest])),
};
