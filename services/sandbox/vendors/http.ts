import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Arrival, Reply, Vendor, VendorRequest, VendorState } from './types.ts';
import { canonical, digest, own, subjectOf, text } from './values.ts';

const contentType = 'application/json';
const webhookToleranceMs = 5 * 60_000;
const rulePath = /^(dedupe-by|upsert-by)\/([A-Za-z0-9_.-]{1,64})\/(.+)$/;

const batchPath = /^batch-by\/([A-Za-z0-9_.-]{1,64})\/(.+)$/;

type Rule =
  | { readonly kind: 'header'; readonly key: string; readonly operation: string }
  | { readonly kind: 'field'; readonly key: string; readonly operation: string }
  | { readonly kind: 'upsert'; readonly object: string; readonly operation: string }
  | { readonly kind: 'bad'; readonly detail: string; readonly operation: string }
  | { readonly kind: 'none'; readonly operation: string };

/**
 * Which rule an unnamed HTTP API applies, from the request alone:
 * - `dedupe-by/<field>/<operation>`: the body field is the key of the request, one for all operations of the destination;
 * - `upsert-by/<field>/…`: the body field names the object, a body that changes nothing has no effect;
 * - `batch-by/<field>/<operation>`: the body is a list, or has one under `items`; each element is deduplicated by its
 *   field, one without it is refused by itself; `{results: [{key, status}]}`;
 * - header Idempotency-Key: draft-ietf-httpapi-idempotency-key-header-07, the first request counts;
 * - header webhook-id: the same by the Standard Webhooks specification ("use as an idempotency key");
 * - PUT and DELETE: idempotent by RFC 9110 section 9.2.2, the path names the object;
 * - else none: every arrival is an effect; a header x-reference is remembered, and repeated all the same.
 *
 * GET answers whether something took effect: `?idempotency_key=`, `?reference=`, or the object of a path; 200 or 404.
 */
function ruleOf(request: VendorRequest): Rule {
  const chosen = rulePath.exec(request.path);
  if (chosen !== null) {
    const [, kind, field, operation] = chosen as unknown as [string, string, string, string];
    const value = text(own(request.json, ...field.split('.')));
    if (value === undefined) return { kind: 'bad', detail: `the body has no field ${field}`, operation };
    return kind === 'dedupe-by' ? { kind: 'field', key: value, operation } : { kind: 'upsert', object: `${operation}/${value}`, operation };
  }
  const operation = request.path === '' ? request.method.toLowerCase() : request.path;
  const key = request.headers['idempotency-key'] ?? request.headers['webhook-id'] ?? '';
  if (key !== '') return { kind: 'header', key, operation };
  return request.method === 'PUT' || request.method === 'DELETE' ? { kind: 'upsert', object: request.path, operation } : { kind: 'none', operation };
}

/** Standard Webhooks 1.0: `v1,` + base64 HMAC-SHA256 of `id.timestamp.body` under the base64 part of whsec_…, several separated by a space. */
export function signatureProblem(request: VendorRequest, secret: string): string | undefined {
  const id = request.headers['webhook-id'];
  const timestamp = request.headers['webhook-timestamp'];
  if (id === undefined || timestamp === undefined || !/^\d{1,12}$/.test(timestamp)) return 'webhook-id or webhook-timestamp is missing';
  if (Math.abs(request.now - Number(timestamp) * 1000) > webhookToleranceMs) return 'webhook-timestamp is out of tolerance';
  const expected = createHmac('sha256', Buffer.from(secret.replace(/^whsec_/, ''), 'base64')).update(`${id}.${timestamp}.`).update(request.raw).digest();
  const given = (request.headers['webhook-signature'] ?? '').split(' ').slice(0, 10).filter((s) => s.startsWith('v1,')).map((s) => Buffer.from(s.slice(3), 'base64'));
  return given.some((s) => s.length === expected.length && timingSafeEqual(s, expected)) ? undefined : 'no signature matches';
}

/** Any HTTP API with one of the rules above. */
export function createHttpVendor(options: { webhookSecret?: string }): Vendor {
  function answer(status: number, body: unknown, arrivals: readonly Arrival[], puts: Reply['puts'] = []): Reply {
    return { status, contentType, body, arrivals, puts };
  }
  function refuse(status: number, error: string, message: string, arrival: Arrival): Reply {
    return answer(status, { error, message }, [arrival]);
  }

  function once(request: VendorRequest, state: VendorState, rule: Extract<Rule, { key: string }>, subject: string | null): Reply {
    const stateKey = `${request.destination}/k/${rule.kind === 'field' ? digest(rule.key) : digest(rule.operation, rule.key)}`;
    const print = digest(request.method, request.raw.toString('latin1'));
    const first = state.get(stateKey);
    const arrival = { operation: rule.operation, idempotencyKey: rule.key, subject, applied: first === undefined, body: bodyOf(request) };
    if (first === undefined) return answer(200, { ok: true }, [arrival], [[stateKey, print]]);
    if (first !== print && rule.kind === 'header') return refuse(422, 'idempotency-key-reused', 'the key was used with another payload', arrival);
    return answer(200, { ok: true }, [arrival]);
  }

  function upsert(request: VendorRequest, state: VendorState, rule: Extract<Rule, { kind: 'upsert' }>, subject: string | null): Reply {
    const stateKey = `${request.destination}/o/${digest(rule.object)}`;
    const before = JSON.parse(state.get(stateKey) ?? '{"v":0,"is":null}') as { v: number; is: string | null };
    const is = request.method === 'DELETE' ? null : digest(request.json === undefined ? request.raw.toString('latin1') : canonical(request.json));
    const applied = is !== before.is;
    const v = applied ? before.v + 1 : before.v;
    const arrival = { operation: rule.operation, idempotencyKey: `${rule.object}#${v}`, subject, applied, body: bodyOf(request) };
    return answer(before.is === null && is !== null ? 201 : 200, { ok: true, version: v }, [arrival], applied ? [[stateKey, JSON.stringify({ v, is })]] : []);
  }

  /** What took effect, by the key, the reference or the object that it came with. */
  function read(request: VendorRequest, state: VendorState): Reply {
    const { destination, path, query } = request;
    const by = query?.get('idempotency_key');
    const reference = query?.get('reference');
    const stored = by ? state.get(`${destination}/k/${digest(path, by)}`) ?? state.get(`${destination}/k/${digest(by)}`) : state.get(reference ? `${destination}/r/${digest(path, reference)}` : `${destination}/o/${digest(path)}`);
    const found = stored !== undefined && (by || reference || (JSON.parse(stored) as { is: string | null }).is !== null);
    const arrival = { operation: `read ${path}`, idempotencyKey: by ?? reference ?? null, subject: null, applied: false, body: null };
    return found ? answer(200, { found: true }, [arrival]) : answer(404, { found: false }, [arrival]);
  }

  /** Elements of a batch, each by its own key; a repetition has no effect, one without a key or an e-mail address is refused by itself. */
  function batch(request: VendorRequest, state: VendorState, field: string, operation: string): Reply {
    const list = Array.isArray(request.json) ? request.json : own(request.json, 'items');
    if (!Array.isArray(list) || list.length === 0 || list.length > 10_000) return refuse(400, 'bad-request', 'a list of 1 to 10,000 items', { operation, idempotencyKey: null, subject: null, applied: false, body: bodyOf(request) });
    const puts = new Map<string, string>();
    const arrivals: Arrival[] = [];
    const results = list.map((element) => {
      const key = text(own(element, ...field.split('.')));
      const subject = subjectOf(element);
      const stateKey = `${request.destination}/k/${digest(key)}`;
      const applied = key !== undefined && subject !== null && state.get(stateKey) === undefined && !puts.has(stateKey);
      if (applied) puts.set(stateKey, digest(canonical(element)));
      arrivals.push({ operation, idempotencyKey: key ?? null, subject, applied, body: element });
      return { key: key ?? null, status: key === undefined || subject === null ? 422 : 200 };
    });
    return answer(200, { results }, arrivals, [...puts]);
  }

  return {
    look: (request) => ({ operation: ruleOf(request).operation, subject: subjectOf(request.json) }),
    handle(request, state) {
      const many = batchPath.exec(request.path);
      if (many !== null && request.method === 'POST') return batch(request, state, many[1]!, many[2]!);
      const rule = ruleOf(request);
      const subject = subjectOf(request.json);
      const refused = { operation: rule.operation, idempotencyKey: null, subject, applied: false, body: bodyOf(request) };
      if (request.method === 'HEAD') return refuse(405, 'method-not-allowed', 'use GET', refused);
      if (request.method === 'GET') return read(request, state);
      if (options.webhookSecret !== undefined && request.headers['webhook-signature'] !== undefined) {
        const problem = signatureProblem(request, options.webhookSecret);
        if (problem !== undefined) return refuse(401, 'signature-invalid', problem, refused);
      }
      switch (rule.kind) {
        case 'bad': return refuse(400, 'bad-request', rule.detail, refused);
        case 'header': case 'field': return once(request, state, rule, subject);
        case 'upsert': return upsert(request, state, rule, subject);
        case 'none': return answer(200, { ok: true }, [{ ...refused, applied: true }], referencePuts(request, rule.operation));
      }
    },
    refusal: (_status, error, message) => ({ contentType, body: { error, message } }),
  };
}

function referencePuts(request: VendorRequest, operation: string): Reply['puts'] {
  const reference = request.headers['x-reference'];
  return reference === undefined ? [] : [[`${request.destination}/r/${digest(operation, reference)}`, '1']];
}

/** The body for the log: JSON, else text. */
export function bodyOf(request: VendorRequest): unknown {
  return request.json === undefined ? request.raw.toString('utf8', 0, 64 * 1024) : request.json;
}
