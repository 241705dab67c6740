import { WeirError } from '@weir/errors';
import type { ConsumerHandlers, GroupConsumer, GroupConsumerOptions, Log, Reader, RecordBatch } from '@weir/log';
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
function world(joining: (consumers: number) => void = () => undefined, missing: ReadonlySet<string> = new Set(), reader: Partial<Reader> = {}) {
  let now = 0;
  const committed: number[] = [];
  let current = releaseOf('web');
  const asked: (readonly string[])[] = [];
  let handlers: ConsumerHandlers | undefined;
  const log = {
    appender: () => Promise.resolve({ partitions: (topic: string) => (missing.has(topic) ? Promise.reject(new WeirError('log-fatal')) : Promise.resolve(1)), partitionFor: () => 0, append: (_topic: string, records: readonly unknown[]) => Promise.resolve(records.map((_, i) => i)) }),
    admin: () => Promise.resolve({ listTopics: () => Promise.resolve([]), describeTopics: (names: readonly string[]) => Promise.resolve(names.map((name) => ({ name, exists: !missing.has(name), config: {} }))) }),
    reader: () => Promise.resolve(reader),
    consumer(options: GroupConsumerOptions): Partial<GroupConsumer> {
      asked.push(options.topics);
      handlers = options.handlers;
      return { start: () => Promise.resolve(joining(asked.length)), close: () => Promise.resolve(), commit: ([{ offset }]: any) => Promise.resolve(void committed.push(offset)) };
    },
  } as unknown as Log;
  const registry = new Registry();
  const logger = createLogger({ service: 'normalizer', level: 'silent' });
  const service = createNormalizer({
    log, topics, serde: { encode: () => Buffer.alloc(1) }, groups: groupNames('t'), releases: { current: () => current, onChange: (listener: (release: Release) => void, since?: Release) => {
      if (since !== current) listener(current);
      return () => undefined;
    } }, workspaceKey: Buffer.alloc(32),
    logger, registry, clock: { ...systemClock, monotonic: () => ++now }, stateDir: '/nowhere',
  } as unknown as ServiceContext, { sessionTimeoutMs: 1000 }, () => ({ get: () => undefined, range: () => [], putBatch: () => undefined, clear: () => undefined, close: () => Promise.resolve() }) as never);
  return { service, asked, committed, registry, logger, handlers: () => handlers!, apply: (release: Release) => { current = release; } };
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

/** A raw topic whose reads, three records each, wait until they are let. */
function slowReader() {
  const reads: (() => void)[] = [];
  const reader: Partial<Reader> = {
    readOne: () => Promise.resolve(undefined),
    async read(topic, partition, from, to, take) {
      for (let at = from; at < to; at += 3) {
        await new Promise<void>((done) => { reads.push(done); });
        await take({ topic, partition, epoch: 0, records: [], nextOffset: at + 3, highWatermark: to });
      }
    },
  };
  return { reader, reads, next: () => waitFor('a read', () => reads.length > 0).then(() => reads.shift()!()) };
}
const gone = { topic: topics.raw('gone'), partition: 0, epoch: 1, position: 9 };
const batchOf = (offsets: readonly number[]): RecordBatch => ({ ...gone, records: offsets.map((offset) => ({ offset, timestamp: Date.now(), key: null, value: Buffer.from('{}'), headers: [] })), nextOffset: offsets.at(-1)! + 1, highWatermark: offsets.at(-1)! + 1 });

test('event ids that are longer to read than a handler may take hold up no group: nothing is normalised before they are read, all of it then, and /readyz says what is waited for', async () => {
  const { reader, reads, next } = slowReader();
  const w = world(undefined, undefined, reader);
  await w.service.start();
  // Resolves at once: after half a minute the group would end the process, and its peers after it.
  await w.handlers().assigned([gone]);
  w.handlers().batch(batchOf([9, 10]));
  await next();
  w.handlers().batch(batchOf([11]));
  await next();
  await waitFor('the third read', () => reads.length > 0);
  expect([w.committed, w.service.readiness()]).toEqual([[], { ready: false, reason: `reading event ids of ${gone.topic}/0: 6 of 9 records are read` }]);
  expect((await w.registry.getSingleMetric('weir_event_ids_load_remaining')!.get()).values.map(({ value }) => value)).toEqual([3]);
  await next();
  await waitFor('all is committed', () => w.committed.at(-1) === 12);
  expect([w.service.readiness().ready, (await w.registry.getSingleMetric('weir_event_ids_load_remaining')!.get()).values]).toEqual([true, []]);
  await w.service.stop();
});

test('a partition whose event ids cannot be read, since brokers are away, says so once', async () => {
  let away = 2;
  const { reader, next } = slowReader();
  const w = world(undefined, undefined, { ...reader, read: (...asked: Parameters<Reader['read']>) => (away-- > 0 ? Promise.reject(new WeirError('log-unavailable', 'no broker answers')) : reader.read!(...asked)) });
  const warn = vi.spyOn(w.logger, 'warn');
  await w.service.start();
  await w.handlers().assigned([gone]);
  w.handlers().batch(batchOf([9]));
  for (let i = 0; i < 3; i++) await next();
  await waitFor('it is worked off', () => w.committed.length > 0);
  expect(warn.mock.calls.filter(([, text]) => text?.startsWith('a partition waits for brokers'))).toMatchObject([[{ topic: gone.topic, partition: 0, err: { code: 'log-unavailable' } }, expect.any(String)]]);
  await w.service.stop();
});

test('a partition that is taken away while its event ids are read is given up at once, and nothing that is read of it afterwards counts', async () => {
  const { reader, reads, next } = slowReader();
  const w = world(undefined, undefined, reader);
  let failed: Error | undefined;
  await w.service.start();
  void w.service.failed.then((error) => { failed = error; });
  await w.handlers().assigned([gone]);
  w.handlers().batch(batchOf([9]));
  await next();
  await waitFor('the second read', () => reads.length > 0);
  // The group waits for it: the read does not end.
  await w.handlers().revoked([gone], 'rebalance');
  const late = reads.shift()!;
  await w.handlers().assigned([{ ...gone, epoch: 2 }]);
  w.handlers().batch({ ...batchOf([9]), epoch: 2 });
  // Its next time here goes on where the first was.
  await next();
  late();
  await next();
  await waitFor('it is worked off', () => w.committed.length > 0);
  expect([w.committed, failed, reads.length]).toEqual([[10], undefined, 0]);
  await w.service.stop();
});
