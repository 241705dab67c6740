import type { LogRecord, OutRecord } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createParkedRecords } from './parked-records.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

const delivery = { payload: Buffer.from('p') };

/** A parked topic of which retention has taken all before `first`; `shows` says whether the leader lets a read see it, read by read. */
function world({ first = 0, shows = (_read: number): boolean => true, closed = (): boolean => false } = {}) {
  const topic: OutRecord[] = [];
  let reads = 0;
  const ports = {
    name: 'crm', topics: topicNames('t'), clock: { setTimer: (run: () => void) => { setImmediate(run); }, clearTimer: () => undefined, now: () => 0, monotonic: () => 0 },
    serde: { known: () => true, decode: () => ({ name: 'weir.internal.Delivery', value: delivery }) },
    appender: { append: (name: string, records: readonly OutRecord[]) => Promise.resolve(records.map((record) => (expect(name).toBe('t.parked.crm'), topic.push(record) - 1))) },
    admin: { beginningOffsets: () => Promise.resolve(new Map([[3, first]])) },
    reader: {
      async read(_name: string, _partition: number, from: number, to: number, take: (batch: object) => Promise<void>) {
        if (!shows(reads++)) return;
        await take({ records: topic.map((record, offset): LogRecord => ({ offset, timestamp: 0, key: record.key as Buffer, value: record.value, headers: record.headers! })).filter(({ offset }) => offset >= Math.max(from, first) && offset < to) });
      },
    },
  } as unknown as DestinationPorts;
  const createTask = (_delivery: unknown, record: LogRecord, offset: number, parkedOffset: number, queuedAt: number) => ({ record, offset, parkedOffset, queuedAt, maybeSince: 0 }) as Task;
  return { topic, reads: () => reads, records: createParkedRecords({ ports, partition: 3, createTask, closed }) };
}

const tasks = fc.array(fc.record({
  offset: fc.nat(), queuedAt: fc.nat(), maybeSince: fc.oneof(fc.constant(0), fc.nat()), trouble: fc.option(fc.record({ since: fc.integer({ min: 1 }), at: fc.nat() }), { nil: undefined }), parkedOffset: fc.constantFrom(-1, 5),
  record: fc.record({ offset: fc.nat(), timestamp: fc.nat(), key: fc.string().map((s) => Buffer.from(s)), value: fc.string().map((s) => Buffer.from(s)), headers: fc.array(fc.tuple(fc.constantFrom(H.event, H.ids, H.dispatched), fc.string().map((s) => Buffer.from(s))), { maxLength: 4 }) }),
}), { minLength: 1, maxLength: 8 });

test('what is parked comes back as it was: its bytes, its other headers, where it stood on the dispatch topic, since when, and since when it may have been called and is in trouble', async () => {
  await fc.assert(fc.asyncProperty(tasks, fc.nat(7), async (list, n) => {
    const { records, topic } = world();
    const offsets = await records.append(list as unknown as Task[]);
    const i = n % list.length;
    const { record, trouble, ...at } = list[i]!;
    const found = await records.get(offsets[i]!);
    expect(found).toMatchObject({ offset: at.offset, queuedAt: at.queuedAt, maybeSince: at.maybeSince, parkedOffset: offsets[i] });
    expect(found.trouble).toEqual(trouble === undefined ? undefined : { since: trouble.since, at: trouble.since });
    expect([found.record.key, found.record.value]).toEqual([record.key, record.value]);
    expect(found.record.headers.filter(([name]) => name !== H.dispatched)).toEqual(record.headers.filter(([name]) => name !== H.dispatched));
    expect(topic[i]!.headers!.filter(([name]) => name === H.dispatched)).toHaveLength(1);
    // Parked again by the next owner it says the same.
    const [again] = await records.append([found]);
    expect(topic[again!]!.headers!.at(-1)).toEqual(topic[i]!.headers!.at(-1));
  }));
});

const one = { offset: 7, queuedAt: 9, maybeSince: 0, record: { key: Buffer.from('k'), value: Buffer.from('v'), headers: [] } } as unknown as Task;

test('a record that is acknowledged and not shown yet is waited for; one that retention took is missed at once', async () => {
  const lagging = world({ shows: (read) => read >= 3 });
  await lagging.records.append([one]);
  expect((await lagging.records.get(0)).offset).toBe(7);
  expect(lagging.reads()).toBe(4);
  const lost = world({ first: 1 });
  await lost.records.append([one]);
  await expect(lost.records.get(0)).rejects.toMatchObject({ code: 'log-out-of-range', details: { offset: 0 } });
  expect(lost.reads()).toBe(1);
});

test('nobody waits for a record once the partition is another one\'s, and nothing is said to be lost', async () => {
  let reads = 0;
  const { records } = world({ shows: () => false, closed: () => ++reads > 3 });
  await records.append([one]);
  await expect(records.get(0)).rejects.toMatchObject({ code: 'log-assignment-stale' });
});
