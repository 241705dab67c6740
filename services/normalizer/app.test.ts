import { WeirError } from '@weir/errors';
import type { ConsumerHandlers, GroupConsumer, GroupConsumerOptions, Log, RecordBatch } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { waitFor } from '@weir/testing';
import { Registry } from 'prom-client';
import { expect, test, vi } from 'vitest';
import { createNormalizer } from './app.ts';

const topics = topicNames('t');
const releaseOf = (...sources: string[]): Release => ({ hash: sources.join(), sources: new Map(sources.map((name) => [name, { dedupeWindowMs: 1000 }])) }) as never;

/** The service over a log that has nothing; `joining` runs while a consumer joins its group. Each look at the clock takes a millisecond. */
function world(joining: (consumers: number) => void = () => undefined, missing: ReadonlySet<string> = new Set()) {
  let now = 0;
  const committed: number[] = [];
  let current = releaseOf('web');
  const asked: (readonly string[])[] = [];
  let handlers: ConsumerHandlers | undefined;
  const log = {
    appender: () => Promise.resolve({ partitions: (topic: string) => (missing.has(topic) ? Promise.reject(new WeirError('log-fatal')) : Promise.resolve(1)), partitionFor: () => 0, append: (_topic: string, records: readonly unknown[]) => Promise.resolve(records.map((_, i) => i)) }),
    admin: () => Promise.resolve({ listTopics: () => Promise.resolve([]), describeTopics: (names: readonly string[]) => Promise.resolve(names.map((name) => ({ name, exists: !missing.has(name), config: {} }))) }),
    reader: () => Promise.resolve({}),
    consumer(options: GroupConsumerOptions): Partial<GroupConsumer> {
      asked.push(options.topics);
      handlers = options.handlers;
      return { start: () => Promise.resolve(joining(asked.length)), close: () => Promise.resolve(), commit: ([{ offset }]: any) => Promise.resolve(void committed.push(offset)) };
    },
  } as unknown as Log;
  const registry = new Registry();
  const service = createNormalizer({
    log, topics, serde: { encode: () => Buffer.alloc(1) }, groups: groupNames('t'), releases: { current: () => current, onChange: (listener: (release: Release) => void, since?: Release) => {
      if (since !== current) listener(current);
      return () => undefined;
    } }, workspaceKey: Buffer.alloc(32),
    logger: createLogger({ service: 'normalizer', level: 'silent' }), registry, clock: { ...systemClock, monotonic: () => ++now }, stateDir: '/nowhere',
  } as unknown as ServiceContext, { sessionTimeoutMs: 1000 }, () => ({ get: () => undefined, range: () => [], putBatch: () => undefined, close: () => Promise.resolve() }) as never);
  return { service, asked, committed, registry, handlers: () => handlers!, apply: (release: Release) => { current = release; } };
}

test('a release that comes while the group of the one before is joined is read: its new source would be nobody\'s until the next release', async () => {
  const w = world((consumers) => { if (consumers === 1) w.apply(releaseOf('web', 'till')); });
  await w.service.start();
  await waitFor('the new source is read', () => w.asked.length === 2);
  expect(w.asked).toEqual([[topics.raw('web')], [topics.raw('till'), topics.raw('web')]]);
  await w.service.stop();
});

test('a raw topic that is missing is waited for: the other sources are read, and it is when it is there', async () => {
  vi.useFakeTimers();
  try {
    const missing = new Set([topics.raw('till')]);
    const w = world(undefined, missing);
    w.apply(releaseOf('web', 'till'));
    await w.service.start();
    expect([w.asked, w.service.readiness().reason]).toEqual([[[topics.raw('web')]], expect.stringMatching(/^topic-missing: the source till waits for t.raw.till; create it/)]);
    missing.clear();
    await vi.advanceTimersByTimeAsync(5000);
    expect([w.asked[1], w.service.readiness().ready]).toEqual([[topics.raw('till'), topics.raw('web')], true]);
    await w.service.stop();
  } finally {
    vi.useRealTimers();
  }
});

test('lag is told of what this instance reads, not of what it has given away', async () => {
  const w = world();
  await w.service.start();
  const part = { topic: topics.raw('web'), partition: 0, epoch: 1, position: 0 };
  await w.handlers().assigned([part]);
  w.handlers().batch({ ...part, records: [], nextOffset: 0, highWatermark: 7 } as RecordBatch);
  const lag = async (): Promise<readonly number[]> => (await w.registry.getSingleMetric('weir_normalizer_lag')!.get()).values.map((v) => v.value);
  expect(await lag()).toEqual([7]);
  await w.handlers().revoked([part], 'rebalance');
  expect(await lag()).toEqual([]);
  await w.service.stop();
});

test('a batch is worked off in turns of the event loop: heartbeats and acknowledgements come in between', async () => {
  const w = world();
  await w.service.start();
  // Of a source that the release does not have: what is done with a record does not matter here.
  const part = { topic: topics.raw('gone'), partition: 0, epoch: 1, position: 0 };
  await w.handlers().assigned([part]);
  const records = Array.from({ length: 2000 }, (_, offset) => ({ offset, timestamp: Date.now(), key: null, value: Buffer.from('{}'), headers: [] }));
  let turns = 0;
  w.handlers().batch({ ...part, records, nextOffset: records.length, highWatermark: records.length });
  for (; w.committed.length === 0; turns++) await new Promise((done) => { setImmediate(done); });
  expect(w.committed).toEqual([records.length]);
  expect(turns).toBeGreaterThan(10);
  await w.service.stop();
});
