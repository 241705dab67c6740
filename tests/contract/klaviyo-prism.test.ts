/**
 * Every request of the klaviyo destination against Klaviyo's own OpenAPI description, by Prism in this process. The
 * description is patched in memory as its README says: `nullable` on a schema without `type` makes Prism skip the body
 * check in silence, so bad bodies are seen to fail on each operation as well.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Delivery, HttpRequest, JsonObject } from '@weir/adapter';
import { registry } from '@weir/adapters';
import { findWeirError } from '@weir/errors';
import fc from 'fast-check';
import pino from 'pino';
import { beforeAll, describe, expect, test } from 'vitest';
import { recordOf } from './records.ts';
import { configOf, now } from './world.ts';

const dir = resolve(import.meta.dirname, '../../../shared/vendor-specs/klaviyo');
const present = existsSync(dir);
if (!present) console.warn(`skipped: ${dir} is not there, so the requests of klaviyo are not checked against its description`);

const { adapter, operations } = { adapter: registry.get('klaviyo')!, operations: registry.get('klaviyo')!.manifest.destination!.operations };
const config = configOf(adapter.manifest.destination!.config, { listId: 'Y6nRLr' });

type Answer = { readonly status: number; readonly problems: readonly string[] };
let send: (request: HttpRequest, change?: { body?: unknown; headers?: Record<string, string> }) => Promise<Answer>;

function withoutBareNullable(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutBareNullable);
  if (value === null || typeof value !== 'object') return value;
  const drop = Object.hasOwn(value, 'nullable') && !Object.hasOwn(value, 'type');
  return Object.fromEntries(Object.entries(value).filter(([key]) => !(drop && key === 'nullable')).map(([key, child]) => [key, withoutBareNullable(child)]));
}

async function loadPrism(): Promise<void> {
  const prism = await import('@stoplight/prism-http');
  const { createClientFromOperations } = await import('@stoplight/prism-http/dist/client.js');
  const specs = ['profiles.json', 'events.json', 'data_privacy.json'].map((file) => withoutBareNullable(JSON.parse(readFileSync(join(dir, file), 'utf8'))) as object);
  const all = (await Promise.all(specs.map((spec) => prism.getHttpOperationsFromSpec(spec)))).flat();
  const logger = Object.assign(pino({ level: 'silent' }), { success: () => undefined });
  const client = createClientFromOperations(all, { mock: { dynamic: false }, checkSecurity: true, validateRequest: true, validateResponse: false, errors: false, upstreamProxy: undefined, isProxy: false, logger } as never);
  send = async (request, change = {}) => {
    const body = 'body' in change ? change.body : JSON.parse(String(request.body)) as unknown;
    const answer = await client.request(request.url, { method: 'post', headers: change.headers ?? request.headers, body });
    return { status: answer.status, problems: answer.violations.input.map((v) => `${v.path?.join('.') ?? ''} ${v.message}`) };
  };
}

function deliveryOf(operation: string, recordType: string, record: JsonObject): Delivery {
  return { destination: 'mail', operation, recordType, record, identifiers: [], eventId: 'evt_1', outputId: 'out_1', acceptedAt: now };
}

function build(operation: string, recordType: string, record: JsonObject): HttpRequest | undefined {
  try {
    return adapter.destination!.request(deliveryOf(operation, recordType, record), 'dlv_1', config, now);
  } catch (error) {
    if (findWeirError(error)?.code !== 'delivery-unbuildable') throw error;
    return undefined;
  }
}

const plain: JsonObject = { occurredAt: now, userId: 'u-1', email: 'ann@larkspur.example', phone: '+4930123456', anonymousId: null, firstName: 'Ann', city: 'Berlin', attributes: { tier: '1' }, name: 'Tent Viewed', value: 1.5, currency: 'EUR', properties: '{"a":{"b":1}}', orderId: 'o', status: 'completed', items: [], total: 3, purpose: 'email-marketing', channel: 'email', topic: null };
const cases = Object.entries(operations).flatMap(([operation, { accepts, kind }]) => accepts.map((recordType) => ({ operation, recordType, record: { ...plain, state: kind === 'use' ? 'granted' : 'withdrawn' } })));

/** One bad change of the body per operation: what the description forbids there. */
const spoil: Readonly<Record<string, (body: any) => unknown>> = {
  'profile-import': (b) => { b.data.attributes.email = 7; return b; },
  event: (b) => { delete b.data.attributes.metric; return b; },
  subscribe: (b) => { b.data.attributes.profiles.data[0].attributes.subscriptions.email.marketing.consent = 'YES'; return b; },
  'delete-profile': (b) => { delete b.data.attributes.profile.data.type; return b; },
  unsubscribe: (b) => { delete b.data.attributes.profiles.data[0].attributes.subscriptions; return b; },
};

describe.skipIf(!present)('requests of the klaviyo destination against its description', () => {
  beforeAll(loadPrism, 60_000);

  test.each(cases)('$operation of a plain $recordType is accepted', async ({ operation, recordType, record }) => {
    const answer = await send(build(operation, recordType, record)!);
    expect(answer).toEqual({ status: expect.toSatisfy((s: number) => s >= 200 && s < 300), problems: [] });
  });

  test.each(cases)('$operation of $recordType: what is wrong is refused there, so that acceptance means something', async ({ operation, recordType, record }) => {
    const request = build(operation, recordType, record)!;
    const fresh = (): any => JSON.parse(String(request.body));
    const bodies = [{}, [], { data: { ...fresh().data, type: 'other' } }, { data: { type: fresh().data.type } }, spoil[operation]!(fresh())];
    for (const body of bodies) expect((await send(request, { body })).status, JSON.stringify(body)).toBe(422);
    const { revision: _revision, ...noRevision } = request.headers;
    expect((await send(request, { headers: noRevision })).status).toBe(422);
    const { authorization: _authorization, ...noKey } = request.headers;
    expect((await send(request, { headers: noKey })).status).toBe(401);
  });

  test.each(cases)('$operation: any $recordType that gives a request gives one that is accepted', async ({ operation, recordType, record: { state } }) => {
    let built = 0;
    await fc.assert(fc.asyncProperty(recordOf(recordType), fc.boolean(), async (record, fitting) => {
      const request = build(operation, recordType, fitting ? { ...record, state: state!, topic: null, channel: null, email: record['email'] ?? 'ann@larkspur.example' } : record);
      if (request === undefined) return;
      built++;
      const answer = await send(request);
      expect(answer.problems).toEqual([]);
      expect(answer.status).toBeLessThan(300);
    }), { numRuns: 150 });
    expect(built).toBeGreaterThan(10);
  }, 60_000);
});
