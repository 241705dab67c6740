import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createCommitWindow } from './commit-window.ts';

const record = (offset: number) => ({ offset, key: null, value: Buffer.alloc(10) });

test('no commit ever passes an unfinished offset, whatever the order of ends and the holes in the log', () => {
  fc.assert(fc.property(fc.array(fc.record({ gaps: fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 8 }), tail: fc.integer({ min: 0, max: 3 }) }), { maxLength: 8 }), fc.array(fc.nat(), { maxLength: 80 }), (batches, picks) => {
    const window = createCommitWindow({ position: 5, maxRecords: 1000, maxBytes: 10 ** 9 });
    const open = new Set<number>();
    let next = 5;
    let committed = 5;
    const step = (): void => {
      const now = window.committable();
      for (const offset of open) expect(now).toBeLessThanOrEqual(offset);
      expect(now).toBeGreaterThanOrEqual(committed);
      if (open.size === 0) expect(now).toBe(next);
      expect(window.unfinished()).toBe(open.size);
      committed = now;
    };
    for (const { gaps, tail } of batches) {
      const records = gaps.map((gap) => {
        next += gap;
        open.add(next);
        return record(next++);
      });
      next += tail;
      window.begin({ records, nextOffset: next });
      step();
      for (const pick of picks.splice(0, 6)) {
        const list = [...open];
        if (list.length === 0) break;
        const offset = list[pick % list.length]!;
        open.delete(offset);
        window.done(offset);
        window.done(offset);
        step();
      }
    }
    for (const offset of [...open].reverse()) {
      open.delete(offset);
      window.done(offset);
      step();
    }
  }));
});

test('it is full at its caps and open again when the prefix moved', () => {
  const window = createCommitWindow({ position: 0, maxRecords: 2, maxBytes: 10 ** 9 });
  window.begin({ records: [record(0), record(1)], nextOffset: 2 });
  expect(window.full()).toBe(true);
  window.done(1);
  expect(window.full()).toBe(true);
  window.doneUpTo(1);
  expect(window.full()).toBe(false);
  expect(window.committable()).toBe(2);
});

// docs/decisions/0015 says what follows for a second vendor.
test('one record that waits holds the window at its cap, however many behind it have finished', () => {
  const byRecords = createCommitWindow({ position: 0, maxRecords: 500, maxBytes: 10 ** 9 });
  const byBytes = createCommitWindow({ position: 0, maxRecords: 10 ** 9, maxBytes: 500 * (64 + 10) });
  for (const window of [byRecords, byBytes]) {
    for (let offset = 0; offset < 500; offset++) {
      expect(window.full()).toBe(false);
      window.begin({ records: [record(offset)], nextOffset: offset + 1 });
      if (offset > 0) window.done(offset);
    }
    expect([window.full(), window.unfinished(), window.committable()]).toEqual([true, 1, 0]);
    window.done(0);
    expect([window.full(), window.committable()]).toEqual([false, 500]);
  }
});
