import { H } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { decodeBatches, encodeBatch } from '../log/records.ts';
import { rawHeaders } from './raw-headers.ts';

const record = (timestamp: number, accepted: number) => ({ offset: 0, timestamp, key: null, value: null, headers: [[H.event, Buffer.from('evt_1')], [H.hash, Buffer.from('h')], [H.accepted, Buffer.from(String(accepted))]] }) as never;
const acceptedOf = (timestamp: number, accepted: number): number => rawHeaders(record(timestamp, accepted)).acceptedAt;

test.each([
  ['before the brokers had it', 10_000, 9000, 9000],
  ['long before, when it waited', 10_000_000, 9000, 9000],
  ['by a clock that is a little ahead', 10_000, 11_000, 11_000],
  ['by a clock that is ahead', 10_000, 11_001, 10_000],
])('accepted %s', (_when, timestamp, accepted, counts) => {
  expect(acceptedOf(timestamp, accepted)).toBe(counts);
});

test('where the time counts that brokers had it at, the bytes of the headers with the other one are not what goes on', () => {
  const stored = (accepted: number) => {
    const headers = Object.entries({ [H.event]: 'evt_1', [H.hash]: 'h', [H.source]: 'shop', [H.accepted]: String(accepted), [H.traceparent]: '00-1-2-01' }).map(([name, value]) => [name, Buffer.from(value)] as const);
    const { acceptedAt, common } = rawHeaders(decodeBatches(encodeBatch([{ partition: 0, key: null, value: null, headers }], 10_000), 0).records[0]!);
    return { acceptedAt, handedOn: common !== undefined };
  };
  expect([stored(9000), stored(11_001)]).toEqual([{ acceptedAt: 9000, handedOn: true }, { acceptedAt: 10_000, handedOn: false }]);
});
