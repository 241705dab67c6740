import { expect, test } from 'vitest';
import { createTurns } from './turns.ts';

const turnOfTheLoop = (): Promise<void> => new Promise((done) => { setImmediate(done); });

test('two who work in bulk never have the same turn of the event loop, and take turns in the order in which they asked', async () => {
  let now = 0;
  const turns = createTurns(() => now);
  const had: string[] = [];
  let loops = 0;
  let working = 2;
  const work = async (name: string): Promise<void> => {
    for (let i = 0; i < 3; i++) {
      await turns.next();
      had.push(`${name} in ${loops}`);
      now += 4;
    }
    working--;
  };
  void work('a');
  void work('b');
  while (working > 0) {
    await turnOfTheLoop();
    loops++;
  }
  expect(had.map((text) => text[0]).join('')).toBe('ababab');
  expect(new Set(had.map((text) => text.slice(5))).size).toBe(6);
});

test('what little several have to do is done in one turn of the event loop, which ends when its time is over', async () => {
  let now = 0;
  const turns = createTurns(() => now);
  let loop = 0;
  const had: number[] = [];
  const work = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) {
      await turns.next();
      had.push(loop);
      now += 1;
    }
  };
  const all = Promise.all([work(), work(), work()]);
  // In a turn there is time for four of nine.
  for (; had.length < 9; loop++) await turnOfTheLoop();
  await all;
  expect([...Map.groupBy(had, (n) => n).values()].map((list) => list.length)).toEqual([4, 4, 1]);
  // One that asks after all were given has a turn, too.
  await turns.next();
});

test('a turn is over after its time, counted from its begin', async () => {
  let now = 100;
  const turns = createTurns(() => now);
  expect(turns.over()).toBe(true);
  await turns.next();
  expect(turns.over()).toBe(false);
  now += 4;
  expect(turns.over()).toBe(true);
  await turns.next();
  expect(turns.over()).toBe(false);
});

test('what begins as other work ends has a share of a turn of the event loop, and goes on in the next: neither all at once nor never', async () => {
  let now = 0;
  const turns = createTurns(() => now);
  let loop = 0;
  const began: number[] = [];
  const more = (): void => {
    while (began.length < 30 && left()) {
      began.push(loop);
      now += 0.5;
    }
  };
  const left = turns.share(more);
  // Answers that come in one turn ask again and again.
  for (let i = 0; i < 20; i++) more();
  expect(began.length).toBe(4);
  for (; began.length < 30 && loop < 100; loop++) await turnOfTheLoop();
  expect(began.length).toBe(30);
  expect(Math.max(...[...Map.groupBy(began, (n) => n).values()].map((list) => list.length))).toBeLessThanOrEqual(8);
  // A piece that takes longer than the share leaves time for a few, so that nobody waits for ever for one that is always first.
  now += 100;
  const other = turns.share(() => undefined);
  const slow = (): boolean => {
    now += 100;
    return other();
  };
  await turnOfTheLoop();
  expect([slow(), slow(), slow(), slow(), slow()]).toEqual([true, true, true, true, false]);
});
