import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { transforms } from './transforms.ts';

const timestamp = transforms['timestamp']!(null, {}) as (value: string, roots: never) => number;
const read = (text: string): number | undefined => {
  try {
    return timestamp(text, undefined as never);
  } catch {
    return undefined;
  }
};

test('a time in the form of toISOString is read as Date.parse reads it', () => {
  fc.assert(fc.property(fc.date({ min: new Date('1971-01-01T00:00:00.000Z'), max: new Date('2199-12-31T23:59:59.999Z'), noInvalidDate: true }), (date) => { expect(read(date.toISOString())).toBe(date.getTime()); }));
});

test.each(['2024-02-30T00:00:00.000Z', '2023-02-29T00:00:00.000Z', '2024-13-01T00:00:00.000Z', '2024-00-10T00:00:00.000Z', '2024-01-00T00:00:00.000Z', '2024-01-01T25:00:00.000Z', '2024-01-01T00:60:00.000Z', '2024-01-01T00:00:60.000Z', '20x4-01-01T00:00:00.000Z', '2024-01-01T00:00:00.0x0Z', '1970-06-01T00:00:00.000Z', '2200-06-01T00:00:00.000Z'])('%s is no time', (text) => {
  expect(read(text)).toBeUndefined();
});
