import { expect, test } from 'vitest';
import { createTurns } from './turns.ts';

const turnOfTheLoop = (): Promise<void> => new Promise((done) => { setImmediate(done); });

test('two who work in bulk never have the same turn of the event loop, and take turns in the order in which they asked', async () => {
  const turns = createTurns(() => 0);
  const had: string[] = [];
  let loops = 0;
  let working = 2;
  const work = async (name: string): Promise<void> => {
    for (let i = 0; i < 3; i++) {
      await turns.next();
      had.push(`${name} in ${loops}`);
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

test('a turn is over after its time, counted from its begin', async () => {
  let now = 100;
  const turns = createTurns(() => now);
  expect(turns.over()).toBe(true);
  await turns.next();
  expect(turns.over()).toBe(false);
  now += 8;
  expect(turns.over()).toBe(true);
  await turns.next();
  expect(turns.over()).toBe(false);
});
