import type { LogRecord } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createTail } from './tail.ts';

const topics = topicNames('w');
const batch = (from: number, count: number, behind: number, touched: number[] = []) => ({
  topic: topics.dlq, partition: 0, epoch: 0, nextOffset: from + count, highWatermark: from + count + behind,
  records: Array.from({ length: count }, (_, i) => ({ offset: from + i, timestamp: 1, key: null, value: null, get headers() { touched.push(from + i); return [[H.event, Buffer.from(`evt_${from + i}`)]]; } }) as unknown as LogRecord),
});

test('the last thousand are told, and of what a thousand wait behind nothing is made', async () => {
  const tail = createTail();
  const touched: number[] = [];
  tail.took(batch(0, 700, 1000, touched), topics);
  expect(touched).toEqual([]);
  tail.took(batch(700, 700, 600, touched), topics);
  expect(Math.min(...touched)).toBe(1000);
  tail.took(batch(1400, 600, 0), topics);
  const { lines } = await tail.next(0, 0);
  expect([lines.length, lines[0]!.eventId, lines.at(-1)!.eventId]).toEqual([1000, 'evt_1000', 'evt_1999']);
});
