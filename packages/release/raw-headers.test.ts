import { H } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { broughtBack, rawHeaders } from './raw-headers.ts';

const record = (timestamp: number, accepted: number) => ({ offset: 0, timestamp, key: null, value: null, headers: [[H.event, Buffer.from('evt_1')], [H.hash, Buffer.from('h')], [H.accepted, Buffer.from(String(accepted))]] }) as never;
const acceptedOf = (timestamp: number, accepted: number): number => broughtBack(rawHeaders(record(timestamp, accepted)), { timestamp }).acceptedAt;

test.each([
  ['before the brokers had it', 10_000, 9000, 9000],
  ['long before, when it waited', 10_000_000, 9000, 9000],
  ['by a clock that is a little ahead', 10_000, 11_000, 11_000],
  ['by a clock that is ahead', 10_000, 11_001, 10_000],
])('accepted %s', (_when, timestamp, accepted, counts) => {
  expect(acceptedOf(timestamp, accepted)).toBe(counts);
});
