import { expect, test } from 'vitest';
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

test('a refusal that will not pass is told, and later commits are tried again', async () => {
  const answers = [E.groupAuthorization, 0];
  const commits = createCommits(cluster, 'g', () => true, async () => answers.shift()!);
  await expect(commits.commit([at(10)])).rejects.toMatchObject({ code: 'log-fatal' });
  await commits.commit([at(11)]);
  expect(answers).toEqual([]);
});
