import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { topicNames } from '@weir/pipeline';
import { openTable } from '@weir/state';
import { expect, test } from 'vitest';
import { createLetters } from './letters.ts';
import { createStore } from './store.ts';

test('a list that finds few among many letters lets others work meanwhile, and is not disturbed by what they write', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-letters-'));
  const store = createStore(openTable({ path: dir }));
  const add = (id: string, at: number, code: string): void => {
    const tx = store.begin();
    tx.deadLetter(id, { id, eventId: `evt_${id}`, stage: 'dispatcher', codes: [code], source: 'shop', destination: 'crm', release: null, at, outputId: null });
    tx.commit('t', 0, at);
  };
  for (let n = 0; n < 3000; n++) add(`l${n}`, n + 1, n % 1000 === 0 ? 'delivery-held' : 'delivery-rejected');
  const letters = createLetters({ store, reader: {} as never, serde: {} as never, topics: topicNames('t'), open: (bytes) => bytes, guard: () => undefined });
  let turns = 0;
  let listed = false;
  const other = (): void => {
    if (listed) return;
    add(`new${turns}`, 5000 + ++turns, 'delivery-rejected');
    setImmediate(other);
  };
  setImmediate(other);
  const found = (await letters.list(10, { code: 'delivery-held' })) as { id: string }[];
  listed = true;
  expect([found.map((l) => l.id), turns]).toEqual([['l2000', 'l1000', 'l0'], expect.any(Number)]);
  expect(turns).toBeGreaterThanOrEqual(5);
  await store.close();
  rmSync(dir, { recursive: true, force: true });
});
