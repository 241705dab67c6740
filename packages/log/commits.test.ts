import { expect, test, vi } from 'vitest';
import { Cluster } from './cluster.ts';
import { createCommits } from './commits.ts';
import { E } from './driver.ts';
import { platformatic } from './drivers/platformatic.ts';

const cluster = new Cluster(platformatic, { brokers: ['127.0.0.1:1'], clientId: 'test', deadlineMs: 5000 });
const at = (offset: number, epoch = 1) => ({ topic: 't', partition: 0, epoch, offset });

test('a commit that must be repeated is not overtaken, and what came meanwhile goes together after it', async () => {
  const sent: number[][] = [];
  let inFlight = 0;
  let most = 0;
  const answers = [E.coordinatorLoading, E.notCoordinator, 0];
  const commits = createCommits(cluster, 'g', () => true, async (offsets) => {
    most = Math.max(most, ++inFlight);
    sent.push(offsets.map((o) => o.offset));
    await new Promise((done) => setTimeout(done, 5));
    inFlight--;
    return answers.shift() ?? 0;
  });
  const first = commits.commit([at(10)]);
  await new Promise((done) => setImmediate(done));
  await Promise.all([first, commits.commit([at(30)]), commits.commit([at(20)]), commits.commit([at(40)])]);
  await commits.commit([at(25)]);
  expect([sent, most]).toEqual([[[10], [10], [10], [40]], 1]);
});

test('a commit whose epoch ends while it is repeated is rejected and not sent again', async () => {
  let held = 1;
  let sends = 0;
  const commits = createCommits(cluster, 'g', (o) => o.epoch === held, async () => {
    sends++;
    held = 2;
    return E.coordinatorLoading;
  });
  await expect(commits.commit([at(10)])).rejects.toMatchObject({ code: 'log-assignment-stale' });
  expect(sends).toBe(1);
  commits.reset([at(5, 2)]);
  await expect(commits.commit([at(4, 2)])).resolves.toBeUndefined();
  expect(sends).toBe(1);
});

test('a commit that waits when its assignment ends takes none of the next assignment with it', async () => {
  let held = 1;
  const sent: number[] = [];
  const hanging = Promise.withResolvers<number>();
  const commits = createCommits(cluster, 'g', (o) => o.epoch === held, (offsets) => {
    sent.push(...offsets.map((o) => o.offset));
    return sent.length === 1 ? hanging.promise : Promise.resolve(0);
  });
  const ended = [commits.commit([at(10)])];
  await new Promise((done) => setImmediate(done));
  ended.push(commits.commit([{ ...at(20), partition: 1 }]));
  held = 2;
  commits.reset([at(10, 2)]);
  const current = commits.commit([at(30, 2)]);
  hanging.resolve(E.illegalGeneration);
  expect((await Promise.allSettled(ended)).map((end) => (end as PromiseRejectedResult).reason as unknown)).toMatchObject([{ code: 'log-assignment-stale' }, { code: 'log-assignment-stale' }]);
  await current;
  expect(sent).toEqual([10, 30]);
  // What comes meanwhile still goes together.
  await Promise.all([commits.commit([at(31, 2)]), commits.commit([at(32, 2)])]);
  expect(sent).toEqual([10, 30, 32]);
});

test('a coordinator that has not heard yet of a topic just made is asked again', async () => {
  const answers = [E.unknownTopic, E.unknownTopic, 0];
  const commits = createCommits(cluster, 'g', () => true, async () => answers.shift()!);
  await commits.commit([at(0)]);
  expect(answers).toEqual([]);
});

test('a refusal that will not pass is told, and later commits are tried again', async () => {
  const answers = [E.groupAuthorization, 0];
  const commits = createCommits(cluster, 'g', () => true, async () => answers.shift()!);
  await expect(commits.commit([at(10)])).rejects.toMatchObject({ code: 'log-fatal' });
  await commits.commit([at(11)]);
  expect(answers).toEqual([]);
});

test('a commit of each batch is not a request of each: ten a second, and none waits when the assignment ends', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  try {
    const sent: number[] = [];
    const commits = createCommits(cluster, 'g', () => true, async (offsets) => {
      sent.push(offsets[0]!.offset);
      return 0;
    });
    await commits.commit([at(1)]);
    const waiting = [2, 3, 4].map((offset) => commits.commit([at(offset)]));
    await vi.advanceTimersByTimeAsync(99);
    expect(sent).toEqual([1]);
    await vi.advanceTimersByTimeAsync(1);
    await Promise.all(waiting);
    expect(sent).toEqual([1, 4]);
    const last = commits.commit([at(5)]);
    await vi.advanceTimersByTimeAsync(1);
    expect(sent).toEqual([1, 4]);
    commits.hurry();
    await last;
    await commits.commit([at(6)]);
    expect(sent).toEqual([1, 4, 5, 6]);
    commits.reset([at(6)]);
    const next = commits.commit([at(7)]);
    await vi.advanceTimersByTimeAsync(1);
    expect(sent).toEqual([1, 4, 5, 6]);
    await vi.advanceTimersByTimeAsync(100);
    await next;
  } finally {
    vi.useRealTimers();
  }
});
