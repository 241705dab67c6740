import { expect, test } from 'vitest';
import { check, type AnomalyKind, type Event, type FinalLog } from './checker.ts';

const log: FinalLog = new Map([[0, [{ offset: 0, value: 'a' }, { offset: 1, value: 'b' }, { offset: 2, value: 'c' }]]]);
const poll = (offset: number, value: string, epoch = 1): Event => ({ kind: 'poll', member: 'm', epoch, partition: 0, offset, value });
const good: readonly Event[] = [
  ...['a', 'b', 'c'].map((value): Event => ({ kind: 'send', partition: 0, value })),
  ...['a', 'b', 'c'].map((value, offset): Event => ({ kind: 'ack', partition: 0, value, offset })),
  { kind: 'assigned', member: 'm', epoch: 1, partition: 0, position: 0 },
  poll(0, 'a'), poll(1, 'b'),
  { kind: 'commit', partition: 0, offset: 2 }, { kind: 'committed', partition: 0, offset: 2 },
  { kind: 'assigned', member: 'm', epoch: 2, partition: 0, position: 2 },
  poll(2, 'c', 2),
];
const kinds = (events: readonly Event[], of = log): AnomalyKind[] => [...new Set(check(events, of, { seen: true }).anomalies.map((a) => a.kind))];

test('a good history has no anomaly, and its figures are those of the history', () => {
  expect(check(good, log, { seen: true })).toEqual({ anomalies: [], sent: 3, acked: 3, polled: 3, resent: 0 });
});

const without = (drop: (e: Event) => boolean): Event[] => good.filter((e) => !drop(e));
test.each<[AnomalyKind, readonly Event[], FinalLog]>([
  ['lost-write', without((e) => e.kind === 'poll' && e.value === 'c'), new Map([[0, log.get(0)!.slice(0, 2)]])],
  ['inconsistent-offset', good.map((e) => (e.kind === 'ack' && e.value === 'b' ? { ...e, offset: 0 } : e)), log],
  ['inconsistent-offset', good.map((e) => (e.kind === 'poll' && e.offset === 1 ? { ...e, value: 'a' } : e)), log],
  ['aborted-read', [...without((e) => e.kind === 'ack' && e.value === 'c'), { kind: 'refused', partition: 0, value: 'c' }], log],
  ['aborted-read', without((e) => e.kind === 'send' && e.value === 'c'), log],
  ['unseen', without((e) => e.kind === 'poll' && e.value === 'c'), log],
  ['duplicate', good.map((e) => (e.kind === 'assigned' && e.epoch === 2 ? { ...e, position: 1 } : e)).toSpliced(-1, 0, poll(1, 'b', 2)), log],
  ['non-monotonic-poll', [...good, poll(1, 'b', 2)], log],
  ['non-monotonic-poll', good.toSpliced(8, 0, poll(0, 'a')), log],
  ['skipped-poll', [{ kind: 'assigned', member: 'other', epoch: 1, partition: 0, position: 1 }, { ...poll(1, 'b'), member: 'other' } as Event, ...good.toSpliced(8, 1, poll(2, 'c'))], log],
  ['skipped-poll', [...good, { ...poll(0, 'a'), member: 'nobody' } as Event], log],
  ['reordered-write', [good[1]!, good[0]!, ...good.slice(2)], log],
  ['non-monotonic-commit', [...good, { kind: 'committed', partition: 0, offset: 1 }], log],
])('%s is found, and nothing else', (kind, events, final) => {
  expect(kinds(events, final)).toEqual([kind]);
});

test('a record that is in the log twice is counted, not held against it; a hole that nobody wrote is no gap', () => {
  const twice: FinalLog = new Map([[0, [...log.get(0)!, { offset: 5, value: 'b' }]]]);
  expect(check([...good, poll(5, 'b', 2)], twice, { seen: true })).toMatchObject({ anomalies: [], resent: 1 });
});
