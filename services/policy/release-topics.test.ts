import { WeirError } from '@weir/errors';
import { topicNames } from '@weir/pipeline';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createReleaseTopics } from './release-topics.ts';

const turn = (): Promise<void> => new Promise((done) => { setImmediate(done); });

test('a dispatch topic that was deleted ends no policy service, which folds consent: nothing is decided until it is there, and it is told', async () => {
  const clock = createHandClock(0);
  const there = new Set(['t.outcome', 't.dlq', 't.dispatch.crm']);
  const failed: unknown[] = [];
  const release = { destinations: new Map([['crm', {}], ['mail', {}]]) };
  let changes = 0;
  let code: 'log-fatal' | 'log-auth-failed' = 'log-fatal';
  const of = createReleaseTopics({
    appender: { partitions: (topic: string) => (there.has(topic) ? Promise.resolve(1) : Promise.reject(new WeirError(code, `topic ${topic} does not exist`))) },
    metrics: { topicMissing: { set: () => undefined } }, fail: (error: unknown) => { failed.push(error); },
    context: { topics: topicNames('t'), releases: { current: () => release }, clock, logger: { error: () => undefined } },
  } as never, () => { changes++; });
  expect(of.ready()).toBeUndefined();
  await turn();
  expect([of.ready(), of.lacks(), failed, changes]).toEqual([undefined, 'topic-missing: topic t.dispatch.mail does not exist', [], 0]);
  there.add('t.dispatch.mail');
  for (const _ of clock.turn(2000));
  expect([of.ready(), changes]).toEqual([undefined, 1]);
  await turn();
  expect([of.ready(), of.lacks(), changes]).toEqual([release, undefined, 2]);
  // What is no missing topic ends it as before.
  there.clear();
  code = 'log-auth-failed';
  const other = createReleaseTopics({ appender: { partitions: () => Promise.reject(new WeirError(code)) }, metrics: {}, fail: (error: unknown) => { failed.push(error); }, context: { topics: topicNames('t'), releases: { current: () => release }, clock, logger: {} } } as never, () => undefined);
  other.ready();
  await turn();
  expect(failed).toEqual([expect.objectContaining({ code })]);
});
