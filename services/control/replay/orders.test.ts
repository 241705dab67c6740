import type { OutRecord } from '@weir/log';
import { expect, test } from 'vitest';
import type { ReplayOrder } from './order.ts';
import { createOrders, firstProgress, type State } from './orders.ts';

const day = 86_400_000;

test('a preview that nobody starts is forgotten after a week, on the log too; one that is younger, paused or about to run is not', async () => {
  const appended: OutRecord[] = [];
  const forgotten: string[] = [];
  const orders = createOrders({
    appender: { append: async (_topic: string, records: readonly OutRecord[]) => { appended.push(...records); return records.map(() => 0); } } as never,
    serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) } as never, topic: 'weir.control', runner: 'r',
    // While it is still known: after a kill between the two it is asked to forget again.
    forgetting: (id) => forgotten.push(`${id} ${orders.list().some((e) => e.order.id === id)} ${appended.some((r) => r.value === null)}`),
  });
  const add = async (id: string, at: number, state: State, start = false): Promise<void> => {
    const order = { id, at, by: 'a', leaf: `leaf_${id}`, start } as ReplayOrder;
    // However lately it was previewed.
    await orders.add(order, { ...firstProgress(order, 'r'), state, at: 8 * day - 1 });
  };
  await add('left', 0, 'previewed');
  await add('paused', 0, 'paused');
  await add('begins', 0, 'previewed', true);
  await add('young', 2 * day, 'previewed');
  await add('now', 8 * day, 'previewing');
  expect(orders.list().map((e) => e.order.id).sort()).toEqual(['begins', 'now', 'paused', 'young']);
  expect(appended.filter((r) => r.value === null).map((r) => r.key!.toString())).toEqual(['replay/left', 'replay/left/progress']);
  expect(forgotten).toEqual(['left true false']);
  expect(() => orders.get('left')).toThrow(expect.objectContaining({ code: 'not-found' }));
});
