import { expect, test } from 'vitest';
import { hopsOf, type Trail } from './hops.ts';

const trail: Pick<Trail, 'logged' | 'folds' | 'reports'> = {
  logged: new Map([['0/4', 1010], ['2/7', 1015]]),
  // One sent before the change, one of another partition, and repetitions do not count.
  folds: [{ partition: 0, next: 4, at: 1000 }, { partition: 2, next: 8, at: 1030 }, { partition: 0, next: 5, at: 1040 }, { partition: 0, next: 6, at: 1090 }],
  reports: [{ instance: '1', folded: [5, 0, 7], at: 1050 }, { instance: '1', folded: [5, 0, 8], at: 1060 }, { instance: '2', folded: [6, 0, 9], at: 1080 }, { instance: '2', folded: [7, 0, 9], at: 1095 }, { instance: '3', folded: [9, 0, 9], at: 2000 }],
};

test('the parts of the way of a change with two identifiers end with the last record of each, and are the whole time', () => {
  const [hops] = hopsOf([{ offsets: [{ partition: 0, offset: 4 }, { partition: 2, offset: 7 }], askedAt: 1003, answeredAt: 1100 }], trail);
  expect(Object.values(hops!)).toEqual([12, 25, 40, 20]);
  expect(Object.values(hops!).reduce((a, b) => a + b)).toBe(1100 - 1003);
});

test('a change of which the topics do not tell has no way', () => {
  expect(hopsOf([{ offsets: [{ partition: 1, offset: 0 }], askedAt: 0, answeredAt: 5000 }, { offsets: [{ partition: 0, offset: 4 }], askedAt: 0, answeredAt: 1000 }], trail)).toEqual([]);
});
