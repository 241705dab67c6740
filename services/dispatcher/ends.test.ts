import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { createHandClock } from '@weir/testing';
import { expect, test, vi } from 'vitest';
import { createEndPace } from './end-pace.ts';
import { createEndWriter, type Ending } from './ends.ts';
import type { DestinationPorts } from './ports.ts';
import type { EndValue } from './types.ts';

const record: OutRecord = { partition: 0, key: Buffer.from('k'), value: Buffer.from('v') };

/** A writer over a ledger of which only the checkpoint is looked at. */
function writer(position: number) {
  const at = { position, read: 0 };
  const ports = {
    name: 'one', topics: topicNames('t'), fail: (error: unknown) => { throw error; },
    ledger: { overwritten: () => [], position: () => at.position, apply: (_partition: number, _entries: unknown, next: number) => { at.position = next; } },
    takeover: { async catchUp() {
      at.read++;
      at.position = 10_000;
    } },
  } as unknown as DestinationPorts;
  const it = createEndWriter(ports, 0, { name: 'me', owned: async () => true, gone: () => false }, createEndPace(createHandClock(0)), () => undefined);
  return { at, own: (...offsets: number[]): void => it.applyOwn(offsets.map(() => record), offsets.map(() => 'k'), offsets), passed: (...offsets: number[]): void => it.applyOwn([], [], offsets) };
}

test('acknowledgements that come in another order leave no hole before which the next owner would read everything again', () => {
  const { at, own, passed } = writer(10);
  own(13, 14);
  expect(at.position).toBe(10);
  own(10, 11);
  expect(at.position).toBe(12);
  // The record of a failed call, of which the cache keeps nothing.
  passed(12);
  expect(at.position).toBe(15);
});

test('a record that nobody here wrote holds the checkpoint until what lies between is read', async () => {
  const { at, own } = writer(0);
  for (let offset = 1; offset <= 2000; offset++) own(offset);
  expect([at.position, at.read]).toEqual([0, 0]);
  own(2001);
  await vi.waitFor(() => { expect([at.position, at.read]).toEqual([10_000, 1]); });
  own(10_000);
  expect([at.position, at.read]).toEqual([10_001, 1]);
});

/** A writer by a clock that is turned by hand; how many ends each append to the ledger had. */
function gathering() {
  const clock = createHandClock(1_000_000);
  const appends: number[] = [];
  const ends: EndValue[] = [];
  const ports = {
    name: 'one', topics: topicNames('t'), clock, fail: (error: unknown) => { throw error; },
    serde: { encode: (name: string, value: EndValue) => {
      if (name === 'weir.internal.LedgerEnd') ends.push(value);
      return Buffer.from('v');
    } }, ledger: { end: () => undefined, position: () => 0, apply: () => undefined },
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
      if (topic === 't.ledger.one') appends.push(records.length);
      return Promise.resolve(records.map((_, i) => i));
    } },
  } as unknown as DestinationPorts;
  const pace = createEndPace(clock);
  const writers = [0, 1].map((partition) => createEndWriter(ports, partition, { name: 'me', owned: async () => true, gone: () => false }, pace, () => undefined));
  const writer = writers[0]!;
  let ended = 0;
  const push = (count: number, to = writer): void => {
    for (let i = 0; i < count; i++) to.push({ task: { delivery: { eventId: 'e' }, record: { headers: [] }, key: `k${ended++}` }, state: 'delivered', effect: 'done', code: null, detail: null, deadLetter: false } as unknown as Ending);
  };
  const settled = async (): Promise<void> => { for (let i = 0; i < 5; i++) await new Promise((done) => { setImmediate(done); }); };
  return {
    writer, other: writers[1]!, pace, appends, ends, push, settled,
    async pass(ms: number): Promise<void> {
      for (const _ of clock.turn(ms)) await settled();
    },
  };
}

test('each end says which owner wrote it: one behind the mark of a later owner can be told from one that this must know', async () => {
  const { ends, push, settled } = gathering();
  push(2);
  await settled();
  expect(ends.map(({ key, owner }) => [key, owner])).toEqual([['k0', 'me'], ['k1', 'me']]);
});

test('ends that come soon after others share an append, at the same times for all partitions; the first waits for nothing', async () => {
  const { appends, push, settled, pass } = gathering();
  push(1);
  await settled();
  expect(appends).toEqual([1]);
  push(1);
  await pass(5);
  push(2);
  await settled();
  expect(appends).toEqual([1]);
  await pass(11);
  expect(appends).toEqual([1, 3]);
  await pass(100);
  push(1);
  await settled();
  expect(appends).toEqual([1, 3, 1]);
});

test('partitions of one destination share the time: what ends in another one soon after waits for it, and goes as soon as one of them appends', async () => {
  const { other, writer, appends, push, settled, pass } = gathering();
  push(1);
  await settled();
  push(2, other);
  await settled();
  expect(appends).toEqual([1]);
  await pass(16);
  expect(appends).toEqual([1, 2]);
  await pass(3);
  push(3, other);
  push(1);
  await settled();
  expect(appends).toEqual([1, 2]);
  // A lane waits for the one of the first partition.
  await writer.written();
  await settled();
  expect(appends.slice(2).sort()).toEqual([1, 3]);
});

test('ends that have waited for 12 ms since the last append go with what else is appended, in the same turn, and the next do not come right behind', async () => {
  const { pace, appends, push, settled, pass } = gathering();
  push(1);
  await settled();
  push(2);
  await pass(11);
  pace.ride();
  await settled();
  expect(appends).toEqual([1]);
  await pass(2);
  pace.ride();
  // Promise reactions only: the appender takes what was appended when the turn is over.
  for (let i = 0; i < 20; i++) await Promise.resolve();
  expect(appends).toEqual([1, 2]);
  await pass(1);
  push(1);
  await settled();
  await pass(17);
  expect(appends).toEqual([1, 2]);
  await pass(1);
  expect(appends).toEqual([1, 2, 1]);
});

test('ends that come when the time for them has just gone by wait for the next, or what else is appended', async () => {
  const { pace, appends, push, settled, pass } = gathering();
  await pass(4);
  push(1);
  await settled();
  await pass(13);
  push(1);
  await settled();
  await pass(14);
  expect(appends).toEqual([1]);
  await pass(1);
  expect(appends).toEqual([1, 1]);
  await pass(13);
  push(2);
  await settled();
  pace.ride();
  await settled();
  expect(appends).toEqual([1, 1, 2]);
});

test('ends are not gathered longer when a lane waits for one of them, when they are many, or when the partition is given up', async () => {
  const { writer, appends, push, settled } = gathering();
  push(1);
  await settled();
  push(2);
  await settled();
  expect(await writer.written()).toBe(true);
  expect(appends).toEqual([1, 2]);
  push(1);
  await settled();
  push(499);
  await settled();
  expect(appends).toEqual([1, 2, 500]);
  push(3);
  await settled();
  await writer.drained();
  expect(appends).toEqual([1, 2, 500, 3]);
});
