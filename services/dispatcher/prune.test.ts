import { expect, test } from 'vitest';
import { pruneLedger, type PrunePorts } from './prune.ts';

const dayMs = 86_400_000;

function prune(over: Partial<PrunePorts>): { readonly asked: number[]; readonly more: boolean } {
  const asked: number[] = [];
  const metrics = { cached: { set: () => undefined }, pruned: { inc: () => undefined } } as unknown as PrunePorts['metrics'];
  const more = pruneLedger({ name: 'crm', ledger: { bytes: () => 1, prune: (time) => asked.push(time) * 1000 }, takeover: { reaching: () => false, kept: () => Number.POSITIVE_INFINITY }, oldestAsked: () => Number.POSITIVE_INFINITY, windowMs: () => 7 * dayMs, clock: { now: () => 100 * dayMs }, metrics, ...over });
  return { asked, more };
}

test('a day more than the window stays; a full go means that there is more', () => {
  expect(prune({})).toEqual({ asked: [92 * dayMs], more: true });
});

test('nothing goes that a record in hand may ask for', () => {
  expect(prune({ oldestAsked: () => 40 * dayMs }).asked).toEqual([40 * dayMs]);
});

test('nothing goes that an old record asked for a while ago: the next one of its replay would read the range again', () => {
  expect(prune({ takeover: { reaching: () => false, kept: () => 50 * dayMs } }).asked).toEqual([50 * dayMs]);
});

test('nothing goes while older ends are being read: the reader would find them gone and take them for known', () => {
  expect(prune({ takeover: { reaching: () => true, kept: () => Number.POSITIVE_INFINITY } })).toEqual({ asked: [], more: false });
});
