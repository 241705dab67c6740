import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registry as adapters } from '@weir/adapters';
import { WeirError } from '@weir/errors';
import type { Log, OutRecord } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import type { SourceConfig } from '@weir/release';
import type { ServiceContext } from '@weir/service';
import { openTable } from '@weir/state';
import { createHandClock } from '@weir/testing';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { expect, test, vi } from 'vitest';
import { createIngest } from './app.ts';

const topics = topicNames('t');
const sourceOf = (name: string): SourceConfig => ({ name, adapter: adapters.get('segment')!, config: { writeKey: name }, mapping: undefined as never, limits: adapters.get('segment')!.manifest.source!.limits, dedupeWindowMs: 0, account: name });

/** The service on a cluster that lacks these topics, without a network. */
async function world(missing: Set<string>) {
  const taken: string[] = [];
  const clock = createHandClock(0);
  const unknown = (topic: string): WeirError | undefined => (missing.has(topic) ? new WeirError('log-fatal', `topic ${topic} does not exist`) : undefined);
  const follower = { close: async () => {}, positions: () => new Map() };
  const offsets = async () => new Map([[0, 0]]);
  const log = {
    appender: async () => ({
      pendingBytes: () => 0, close: async () => {},
      partitions: async (topic: string) => { const error = unknown(topic); if (error !== undefined) throw error; return 1; },
      partitionFor: (topic: string) => { const error = unknown(topic); if (error !== undefined) throw error; return 0; },
      append: async (topic: string, records: readonly OutRecord[]) => { taken.push(...records.map(() => topic)); return records.map((_, i) => i); },
    }),
    reader: async () => ({ read: async () => {}, follow: async () => follower, readOne: async () => undefined, close: async () => {} }),
    admin: async () => ({ endOffsets: offsets, beginningOffsets: offsets, partitions: async () => 1, committed: async () => new Map(), describeTopics: async (names: readonly string[]) => names.map((name) => ({ name, exists: !missing.has(name), config: {}, partitions: 1, replicationFactor: 1 })), close: async () => {} }),
  } as unknown as Log;
  const release = { hash: 'rel', sources: new Map([sourceOf('shop'), sourceOf('till')].map((s) => [s.name, s])), destinations: new Map(), policy: { purposes: new Map() } };
  const vault = { get: () => { throw new WeirError('secret-unavailable'); }, has: () => false, revision: () => 0, onChange: () => () => {}, previous: () => undefined };
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-ingest-'));
  let app: FastifyInstance | undefined;
  const service = createIngest({
    name: 'ingest', config: { instance: 'i', host: '127.0.0.1' }, log, topics, groups: groupNames('t'), serde: { known: () => true }, workspaceKey: Buffer.alloc(32), stateDir, vault, clock, registry: new Registry(), logger: pino({ level: 'silent' }),
    releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map() },
  } as unknown as ServiceContext, { port: 0, ackTimeoutMs: 1000, requestTimeoutMs: 1000, maxInflightBytes: 1e6, consentWaitMs: 10, consentPerSecond: 10, pollerSessionMs: 1000, allowPrivate: false, sandboxUrl: 'http://sandbox' }, {
    openTable, createHttpClient: () => ({ close: async () => {} }) as never, listen: async (made) => { app = made; await made.ready(); }, processMetrics: () => undefined,
  });
  await service.start();
  return {
    taken, service, clock, healthz: async () => (await app!.inject({ method: 'GET', url: '/healthz' })).json() as { status: string; waits?: string },
    post: async (source: string) => (await app!.inject({ method: 'POST', url: `/webhooks/${source}`, payload: JSON.stringify({ type: 'track', messageId: 'm', userId: 'u', event: 'X' }), headers: { 'content-type': 'application/json', authorization: `Basic ${Buffer.from(`${source}:`).toString('base64')}` } })).statusCode,
    async stop() {
      await service.stop();
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

test('a raw topic that is missing at the start holds up its source alone, and /healthz says so until it is there', async () => {
  const missing = new Set([topics.raw('till')]);
  const { post, taken, service, healthz, clock, stop } = await world(missing);
  expect([await post('shop'), await post('till'), taken, service.readiness().ready]).toEqual([202, 503, [topics.raw('shop')], true]);
  expect(await healthz()).toEqual({ status: 'ok', waits: expect.stringMatching(/^topic-missing: the source till waits for t.raw.till; create it with: weir topics apply/) });
  missing.clear();
  for (const _ of clock.turn(5000));
  await vi.waitFor(async () => expect(await healthz()).toEqual({ status: 'ok' }));
  expect(await post('till')).toBe(202);
  await stop();
});

test('a raw topic that was deleted meanwhile is looked for anew at once, and the process stays ready for the other sources', async () => {
  const missing = new Set<string>();
  const { post, service, healthz, stop } = await world(missing);
  missing.add(topics.raw('till'));
  expect([await post('till'), service.readiness().ready]).toEqual([503, true]);
  await vi.waitFor(async () => expect((await healthz()).waits).toContain('the source till'));
  expect([await post('till'), await post('shop'), service.readiness().ready]).toEqual([503, 202, true]);
  await stop();
});
