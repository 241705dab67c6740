import { expect, test } from 'vitest';
import { createProgress } from './progress.ts';

test('lag that stays without a commit makes it not ready; a commit, or an empty stage, makes it ready', () => {
  let now = 0;
  const progress = createProgress({ monotonic: () => now, stallMs: 1000 });
  now = 10_000;
  expect(progress.readiness().ready).toBe(true);
  progress.lag('a/0', 5);
  progress.lag('a/1', 0);
  now += 900;
  expect(progress.readiness().ready).toBe(true);
  now += 200;
  expect(progress.readiness()).toMatchObject({ ready: false, reason: expect.stringContaining('without a commit') });
  progress.committed();
  expect(progress.readiness().ready).toBe(true);
  now += 5000;
  progress.lag('a/0', 0);
  expect(progress.readiness().ready).toBe(true);
});
