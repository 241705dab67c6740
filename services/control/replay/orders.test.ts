import { WeirError } from '@weir/errors';
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
    const order = { id, at, by: 'a', leaf: `leaf_${id}`, start, events: Buffer.alloc(0) } as unknown as ReplayOrder;
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

test('orders by many ids do not fill weir.control and memory: the oldest that ended are forgotten by bytes, and what works is never dropped for a new one', async () => {
  const appended: OutRecord[] = [];
  const orders = createOrders({
    appender: { append: async (_topic: string, records: readonly OutRecord[]) => { appended.push(...records); return records.map(() => 0); } } as never,
    serde: { encode: () => Buffer.alloc(1) } as never, topic: 'weir.control', runner: 'r',
  });
  const events = Buffer.alloc(1_600_000);
  const add = (n: number, state: State): Promise<void> => {
    const order = { id: `${n}`, at: n, by: 'a', leaf: 'leaf', start: false, events } as unknown as ReplayOrder;
    return orders.add(order, { ...firstProgress(order, 'r'), state, at: n });
  };
  for (let n = 0; n < 100; n++) await add(n, 'finished');
  const kept = Math.floor((32 * 1024 * 1024 - 1) / events.length);
  expect(orders.list().map((e) => Number(e.order.id))).toEqual(Array.from({ length: kept }, (_, i) => 99 - i));
  expect(appended.filter((r) => r.value === null).map((r) => r.key!.toString())).toEqual(Array.from({ length: 100 - kept }, (_, n) => [`replay/${n}`, `replay/${n}/progress`]).flat());
  for (let n = 100; n < 100 + kept; n++) await add(n, 'running');
  const before = appended.length;
  await expect(add(200, 'previewing')).rejects.toMatchObject({ code: 'bad-request' });
  expect([orders.list().length, appended.length]).toEqual([kept, before]);
});

test('an order that could not be written is none; one that may be half written stays, and is written whole, as it stands by then', async () => {
  const appended: { id: string; state?: State }[] = [];
  let failing: Error | undefined;
  const orders = createOrders({
    appender: { append: async (_topic: string, records: readonly OutRecord[]) => {
      if (failing !== undefined) throw failing;
      return records.map((r) => appended.push(JSON.parse(r.value!.toString()) as { id: string }));
    } } as never,
    serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) } as never, topic: 'weir.control', runner: 'r',
  });
  const order = { id: 'rpl_1', at: 1, by: 'a', leaf: 'leaf', start: false, events: Buffer.alloc(0) } as unknown as ReplayOrder;
  failing = new WeirError('log-auth-failed', 'no right to write');
  await expect(orders.add(order, firstProgress(order, 'r'))).rejects.toThrow('no right to write');
  expect(orders.list()).toEqual([]);
  failing = new WeirError('log-append-failed', 'no answer');
  await expect(orders.add(order, firstProgress(order, 'r'))).rejects.toThrow('no answer');
  expect(orders.list()).toHaveLength(1);
  orders.get('rpl_1').progress = { ...firstProgress(order, 'r'), state: 'cancelled' };
  failing = undefined;
  await orders.add(order, firstProgress(order, 'r'));
  expect([orders.list().length, appended.map(({ id, state }) => [id, state])]).toEqual([1, [['rpl_1', undefined], ['rpl_1', 'cancelled']]]);
});
