import { Gauge, Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createLoads } from './loads.ts';

test('what is read is shown while it is, told every few seconds, and of what the next assignment reads nothing is taken away by the one before', async () => {
  let now = 0;
  const lines: [object, string][] = [];
  const gauge = new Gauge({ name: 'remaining', help: '.', labelNames: ['topic', 'partition'], registers: [new Registry()] });
  const loads = createLoads({ what: 'ids', gauge, clock: { monotonic: () => now }, logger: { info: (of: object, text: string) => { lines.push([of, text]); } } as never });
  const remaining = async (): Promise<readonly number[]> => (await gauge.get()).values.map(({ value }) => value);
  const first = loads.begin('t', 0);
  expect(loads.reason()).toBeUndefined();
  first.at(0, 10);
  first.at(4, 10);
  now = 5000;
  first.at(6, 10);
  expect([loads.reason(), await remaining(), lines]).toEqual(['reading ids of t/0: 6 of 10 records are read', [4], [[{ topic: 't', partition: 0, read: 6, total: 10 }, 'reading ids']]]);
  const second = loads.begin('t', 0);
  second.at(6, 20);
  first.end();
  first.at(10, 10);
  expect([loads.reason(), await remaining(), lines.at(-1)![1]]).toEqual(['reading ids of t/0: 6 of 20 records are read', [14], 'ids read']);
  second.end();
  expect([loads.reason(), await remaining(), lines.length]).toEqual([undefined, [], 2]);
});

test('what is asked for in vain is named after a few seconds, behind what is read', () => {
  let now = 0;
  const gauge = new Gauge({ name: 'remaining', help: '.', labelNames: ['topic', 'partition'], registers: [new Registry()] });
  const loads = createLoads({ what: 'ids', gauge, clock: { monotonic: () => now }, logger: { info: () => undefined } as never });
  const asked = loads.begin('t', 0);
  now = 4999;
  expect(loads.reason()).toBeUndefined();
  now = 5000;
  expect(loads.reason()).toBe('asking for ids of t/0');
  const read = loads.begin('t', 1);
  read.at(1, 2);
  expect(loads.reason()).toBe('reading ids of t/1: 1 of 2 records are read');
  read.end();
  asked.end();
  expect(loads.reason()).toBeUndefined();
});
