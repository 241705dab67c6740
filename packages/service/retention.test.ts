import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
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
