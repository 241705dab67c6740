import { WeirError } from '@weir/errors';
import { topicNames } from '@weir/pipeline';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createDispatchPartitions } from './dispatch-partitions.ts';

const turn = (): Promise<void> => new Promise((done) => { setImmediate(done); });

test('partitions that are added while a release runs are counted in the shares of an account within a minute, and a topic that is gone or brokers that are away end no poller', async () => {
  const clock = createHandClock(0);
  const failed: unknown[] = [];
  let answer: number | WeirError = 3;
  const counts = createDispatchPartitions({ admin: { partitions: () => (typeof answer === 'number' ? Promise.resolve(answer) : Promise.reject(answer)) }, topics: topicNames('t'), clock, fail: (error) => { failed.push(error); } });
  const minute = async (): Promise<number | undefined> => {
    for (const _ of clock.turn(60_000)) await turn();
    await turn();
    return counts.of('crm');
  };
  await counts.follow(['crm']);
  answer = 6;
  expect([counts.of('crm'), await minute()]).toEqual([3, 6]);
  for (const code of ['log-fatal', 'log-unavailable', 'log-deadline'] as const) {
    answer = new WeirError(code);
    expect(await minute()).toBe(6);
  }
  // A destination whose topic was never there.
  answer = new WeirError('log-fatal');
  await counts.follow(['crm', 'mail']);
  expect([counts.of('mail'), failed]).toEqual([undefined, []]);
  answer = new WeirError('log-auth-failed');
  await minute();
  expect(failed).toEqual([answer]);
  counts.close();
  answer = 9;
  expect(await minute()).toBe(6);
});
