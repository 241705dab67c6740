import { arm, disarm, failpoint } from '@weir/failpoint';
import { expect, test } from 'vitest';
import { choose, createStarts, pointsOf, stallOf, untried } from './killers.ts';
import { createRandom } from './random.ts';

test('no more processes start at once than are let, in order, and one that fails to start gives its turn away', async () => {
  const starts = createStarts(2);
  const begun: number[] = [];
  const ends = Array.from({ length: 4 }, () => Promise.withResolvers<number>());
  const results = Promise.allSettled(ends.map((end, i) => starts.inTurn('policy', () => {
    begun.push(i);
    return end.promise;
  })));
  await expect.poll(() => begun).toEqual([0, 1]);
  ends[1]!.reject(new Error('ended before it was ready'));
  await expect.poll(() => begun).toEqual([0, 1, 2]);
  expect(starts.usualMs('policy')).toBe(0);
  for (const end of ends) end.resolve(7);
  expect((await results).map((r) => r.status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
  expect(begun).toEqual([0, 1, 2, 3]);
  expect(starts.usualMs('policy')).toBeGreaterThan(0);
});

test('of a stage that is away altogether one starts first, before it both of another would', async () => {
  const starts = createStarts(1);
  const begun: string[] = [];
  const first = Promise.withResolvers<void>();
  await Promise.all([
    starts.inTurn('policy', () => {
      begun.push('policy');
      return first.promise;
    }),
    ...(['dispatcher', 'ingest', 'ingest'] as const).map((stage) => starts.inTurn(stage, async () => { begun.push(stage); })),
    (async () => { first.resolve(); })(),
  ]);
  expect(begun).toEqual(['policy', 'ingest', 'dispatcher', 'ingest']);
});

test('a point that is armed and never reached takes no more lives than the others: it moves back, and each of them is struck as often', () => {
  const counts = new Map<string, number>();
  const misses = new Map<string, number>();
  const random = createRandom(7, 'choose');
  const dead = 'normalizer log.schema-fetch';
  let inVain = 0;
  for (let i = 0; i < 400; i++) {
    const name = `normalizer ${choose('normalizer', { counts, misses, random, wanted: () => undefined })}`;
    if (name === dead) {
      inVain++;
      misses.set(dead, (misses.get(dead) ?? 0) + 1);
    } else counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  expect(inVain).toBeLessThan(160);
  expect(Math.min(...pointsOf('normalizer').map((p) => `normalizer ${p}`).filter((n) => n !== dead).map((n) => counts.get(n) ?? 0))).toBeGreaterThan(20);
});

test('where only some points lack kills every life is for them', () => {
  const random = createRandom(7, 'late');
  for (let i = 0; i < 100; i++) expect(choose('ingest', { counts: new Map([['ingest poller.page-fetched', 4]]), misses: new Map([['ingest poller.page-fetched', 30]]), random, wanted: () => ['poller.page-fetched'] })).toBe('poller.page-fetched');
});

test('a point with a detail is one of its own, by the name that arms it: it strikes where that topic is written, and nowhere else', () => {
  const point = pointsOf('dispatcher').find((p) => p.includes('@'))!;
  expect(point).toBe('log.produce-sent@.dlq');
  expect(untried()).toEqual([]);
  const struck: string[] = [];
  arm(`${point}:1`, (name) => struck.push(name));
  try {
    for (const topic of ['weir.outcome', 'weir.ledger.dlq-like', 'weir.dispatch.warehouse']) failpoint('log.produce-sent', topic);
    expect(struck).toEqual([]);
    failpoint('log.produce-sent', 'weir.dlq');
    expect(struck).toEqual(['log.produce-sent']);
  } finally {
    disarm();
  }
});

test('one life in twelve stands still instead of dying, one in ten of these for 30 s, but none while it starts', () => {
  const random = createRandom(7, 'stall');
  const stalls = Array.from({ length: 5000 }, () => stallOf(random, false)).filter((ms) => ms > 0);
  expect(stalls.length / 5000).toBeCloseTo(0.08, 1);
  expect(stalls.filter((ms) => ms === 30_000).length / stalls.length).toBeCloseTo(0.1, 1);
  expect(Math.max(...Array.from({ length: 2000 }, () => stallOf(random, true)))).toBeLessThan(10_000);
});
