import type { OutRecord, Sink } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createWriter, type Work } from './writer.ts';

test('a raw record with more headers of a replay than a record can carry stops nothing: the first of each name goes on, the others are counted', async () => {
  const appended: { topic: string; records: readonly OutRecord[] }[] = [];
  const left: [string, number][] = [];
  const write = createWriter({
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
      // Packed: read before its buffer is used again.
      appended.push({ topic, records: records.map(({ headers }) => ({ headers: headers!.map(([name, value]) => [name, Buffer.from(value)]) }) as unknown as OutRecord) });
      return Promise.resolve(records.map((_, i) => i));
    } },
    serde: { encode: () => Buffer.alloc(0) }, topics: topicNames('t'), now: () => 1, left: (source: string, n: number) => { left.push([source, n]); },
  } as never);
  const headers = Array.from({ length: 100 }, (_, i) => [i % 2 === 0 ? H.intent : H.only, Buffer.from(`${i}`)] as const);
  const raw = { source: 'shop', topic: 't.raw.shop', partition: 0, record: { offset: 1, timestamp: 1, key: null, value: Buffer.from('v'), headers }, headers: { eventId: 'e', hash: 'h', acceptedAt: 1, traceparent: 't', redriven: true, common: undefined }, known: null };
  const output = { recordType: 'weir.canonical.Profile', from: 0, to: 1, outputId: 'o', outputName: 'main', person: { ids: [], text: '', key: Buffer.from('k') } };
  const works = [{ ...raw, result: { kind: 'ok', mapping: 'm', outputs: [output] } }, { ...raw, result: { kind: 'dropped', reason: 'filtered' } }] as unknown as Work[];
  await write(works, { bytes: Buffer.alloc(1), at: 1 } as Sink, 'r');
  const carried = appended.filter(({ records }) => records.length > 0).map(({ topic, records }) => [topic, records[0]!.headers!.filter(([name]) => name === H.intent || name === H.only).map(([name, value]) => [name, value.toString()])]);
  expect(carried.sort()).toEqual([['t.canonical', [[H.intent, '0'], [H.only, '1']]], ['t.outcome', [[H.intent, '0'], [H.only, '1']]]]);
  expect(left).toEqual([['shop', 98], ['shop', 98]]);
});
