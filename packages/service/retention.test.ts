import { Registry } from 'prom-client';
import { expect, test, vi } from 'vitest';
import { createRetentionWatch } from './retention.ts';

const day = 86_400_000;

test('a retention that the brokers do not tell leaves the one that is known, which is for ever before the first', async () => {
  let config: Record<string, string> = {};
  let again: () => void = () => undefined;
  const watch = createRetentionWatch({
    admin: { describeTopics: async (names) => names.map((name) => ({ name, partitions: 1, replicationFactor: 1, exists: true, config })) },
    clock: { now: () => 10 * day, setTimer: (run: () => void) => { again = run; return run; }, clearTimer: () => undefined } as never,
    logger: { warn: () => undefined, error: () => undefined } as never, registry: new Registry(),
  });
  const next = async (told: Record<string, string>): Promise<number> => {
    config = told;
    again();
    await new Promise((done) => setImmediate(done));
    return watch.of('t');
  };
  await watch.watch(['t']);
  expect([watch.of('t'), watch.expiringBefore('t')]).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
  expect(await next({ 'retention.ms': `${day}` })).toBe(day);
  expect(await next({})).toBe(day);
  expect(watch.expiringBefore('t')).toBe(9.1 * day);
  expect(await next({ 'retention.ms': '-1' })).toBe(Number.POSITIVE_INFINITY);
  watch.close();
});

test('lag that uses half of the retention is told at once and then once an hour, by topic; the gauge shows the share of each partition all the time', async () => {
  const retentionMs = 4 * day;
  const error = vi.fn<(fields: object, message: string) => void>();
  const registry = new Registry();
  let now = 10 * day;
  const watch = createRetentionWatch({
    admin: { describeTopics: async (names) => names.map((name) => ({ name, partitions: 2, replicationFactor: 1, exists: true, config: { 'retention.ms': `${retentionMs}` } })) },
    clock: { now: () => now, setTimer: () => undefined, clearTimer: () => undefined } as never,
    logger: { warn: () => undefined, error } as never, registry,
  });
  await watch.watch(['t', 'u']);
  const share = async (topic: string, partition: number): Promise<number | undefined> => (await registry.getSingleMetric('weir_retention_used_ratio')!.get()).values.find(({ labels }) => labels['topic'] === topic && labels['partition'] === partition)?.value;
  watch.oldest('t', 0, now - 0.49 * retentionMs);
  expect([await share('t', 0), error.mock.calls]).toEqual([0.49, []]);

  const oldest = now - 0.5 * retentionMs;
  watch.oldest('t', 0, oldest);
  expect([await share('t', 0), error.mock.calls]).toEqual([0.5, [[{ topic: 't', partition: 0, usedShare: 0.5, oldest: new Date(oldest).toISOString(), retentionMs }, expect.stringContaining('more than half of the retention')]]]);
  now += 3_600_000 - 1;
  watch.oldest('t', 0, now - 0.75 * retentionMs);
  watch.oldest('t', 1, now - 0.6 * retentionMs);
  expect([await share('t', 0), await share('t', 1), error.mock.calls.length]).toEqual([0.75, 0.6, 1]);
  watch.oldest('u', 0, now - 0.8 * retentionMs);
  expect(error.mock.calls.slice(1)).toMatchObject([[{ topic: 'u', usedShare: 0.8 }, expect.any(String)]]);

  now += 1;
  watch.oldest('t', 1, now - 0.6 * retentionMs);
  expect(error.mock.calls.slice(2)).toMatchObject([[{ topic: 't', partition: 1, usedShare: 0.6 }, expect.any(String)]]);
  watch.oldest('t', 1, undefined);
  // Nothing is known of its retention.
  watch.oldest('other', 0, 1);
  expect([await share('t', 1), await share('other', 0), error.mock.calls.length]).toEqual([0, 0, 3]);
  watch.close();
});
