import { classifyFailure, isHeaderSafe, signWebhook, type AdapterConfig, type Delivery, type Destination, type HttpRequest, type Json, type JsonObject, type Scope } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { operationsOf, type HttpOperation } from './operations.ts';
import { readBatch } from './batch.ts';
import { readAnswer, type HttpReadBack } from './read-back.ts';

function operationOf(config: AdapterConfig, name: string): HttpOperation {
  const found = operationsOf(config).get(name);
  if (found === undefined) throw new WeirError('delivery-unbuildable', `no operation ${name}`);
  return found;
}

function withoutExtras({ extras: _kept, ...record }: JsonObject): JsonObject {
  return record;
}

function scopeOf(delivery: Delivery, key: string): Scope {
  const { record } = delivery;
  return { record: record['extras'] === undefined ? record : withoutExtras(record), key, event_id: delivery.eventId, output_id: delivery.outputId, operation: delivery.operation, record_type: delivery.recordType, accepted_at: delivery.acceptedAt, subject: delivery.identifiers[0]?.value ?? null };
}

function headerValue(name: string, value: unknown): string {
  const text = value === undefined || value === null ? '' : String(value);
  if (!isHeaderSafe(text)) throw new WeirError('delivery-unbuildable', `header ${name} would hold a control character`);
  return text;
}

/** The body with the key at its place; what the body shares with the record is copied, not changed. */
function withKey(body: Json | undefined, path: readonly string[], key: string): JsonObject {
  const base = body !== null && typeof body === 'object' && !Array.isArray(body) ? body : {};
  const [first, ...rest] = path as [string, ...string[]];
  return { ...base, [first]: rest.length === 0 ? key : withKey(Object.hasOwn(base, first) ? base[first] : undefined, rest, key) };
}

function bodyOf(operation: HttpOperation, scope: Scope, key: string): string {
  const content = operation.body === undefined ? scope['record'] : operation.body(scope);
  return JSON.stringify(operation.keyPath === undefined ? content ?? null : withKey(content, operation.keyPath, key));
}

function request(delivery: Delivery, key: string, config: AdapterConfig, now: number): HttpRequest {
  const operation = operationOf(config, delivery.operation);
  const scope = scopeOf(delivery, key);
  const headers: Record<string, string> = { 'user-agent': 'weir/0.1' };
  for (const [name, template] of operation.headers) headers[name] = headerValue(name, template(scope));
  const { scheme, name } = operation.manifest.idempotency;
  if (scheme === 'header') headers[name!.toLowerCase()] = key;
  let body: string | undefined;
  if (operation.method !== 'DELETE') {
    body = bodyOf(operation, scope, key);
    headers['content-type'] ??= 'application/json';
  }
  return finish(operation.method, operation.path(scope), headers, body, key, config, now);
}

/** Credential, signature and base URL. */
function finish(method: HttpRequest['method'], path: string, headers: Record<string, string>, body: string | undefined, key: string, config: AdapterConfig, now: number): HttpRequest {
  if (typeof config['auth'] === 'string') headers[String(config['authHeader']).toLowerCase()] = headerValue('auth', `${String(config['authPrefix'] ?? '')}${config['auth']}`);
  if (typeof config['signingSecret'] === 'string') Object.assign(headers, signWebhook(config['signingSecret'], key, now, body ?? ''));
  return { method, url: String(config['baseUrl']).replace(/\/$/, '') + path, headers, ...(body === undefined ? {} : { body }) };
}

function readBackOf(config: AdapterConfig, name: string): HttpReadBack {
  const found = operationOf(config, name).verify;
  if (found === undefined) throw new WeirError('delivery-unbuildable', `the operation ${name} has no verify`);
  return found;
}

function readBackRequest(delivery: Delivery, key: string, config: AdapterConfig, now: number): HttpRequest {
  const verify = readBackOf(config, delivery.operation);
  const scope = scopeOf(delivery, key);
  const headers: Record<string, string> = { 'user-agent': 'weir/0.1' };
  for (const [name, template] of verify.headers) headers[name] = headerValue(name, template(scope));
  const body = verify.body === undefined ? undefined : JSON.stringify(verify.body(scope) ?? null);
  if (body !== undefined) headers['content-type'] ??= 'application/json';
  return finish(verify.method, verify.path(scope), headers, body, key, config, now);
}

export const destination: Destination = {
  request,
  classify: (response, delivery, config) => ('failure' in response ? classifyFailure(response) : operationOf(config, delivery.operation).verdicts.verdict(response)),
  batch: {
    item(delivery, key, config) {
      const operation = operationOf(config, delivery.operation);
      return bodyOf(operation, scopeOf(delivery, key), key);
    },
    request(items, config, now) {
      const operation = operationOf(config, items[0]!.delivery.operation);
      const headers: Record<string, string> = { 'user-agent': 'weir/0.1', 'content-type': 'application/json' };
      for (const [name, template] of operation.headers) {
        // Of a header that is about one record there is none for many.
        const value = template({ operation: items[0]!.delivery.operation });
        if (value !== undefined) headers[name] = headerValue(name, value);
      }
      return finish(operation.method, operation.batch!.path, headers, operation.batch!.body(items.map((item) => item.text)), items[0]!.key, config, now);
    },
    classify(response, items, config) {
      const operation = operationOf(config, items[0]!.delivery.operation);
      return readBatch(operation.batch!, operation.verdicts, response, items);
    },
  },
  verify: {
    request: readBackRequest,
    classify: (response, delivery, key, config) => readAnswer(readBackOf(config, delivery.operation), response, scopeOf(delivery, key)),
  },
  operations: (config) => Object.fromEntries([...operationsOf(config)].map(([name, operation]) => [name, operation.manifest])),
};
