import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { createAppender, type ProducePort } from './appender.ts';
import type { OutRecord } from './types.ts';

/** What the broker and the network do to one produce request. */
type Fate = 'acknowledged' | 'written, answer lost' | 'lost' | 'refused' | 'no leader' | 'partly';
const fates: readonly Fate[] = ['acknowledged', 'written, answer lost', 'lost', 'refused', 'no leader', 'partly'];

/** A log that suffers the given fates in turn and then works; a second request for a partition on the way is an error. */
function createHarmedLog(turns: readonly Fate[]) {
  const logs = new Map<number, string[]>();
  const onTheWay = new Set<number>();
  const overlaps: number[] = [];
  let turn = 0;
  let leaderless = false;
  const write = (partition: number, records: readonly OutRecord[]): number => {
    const log = logs.get(partition) ?? [];
    logs.set(partition, log);
    return log.push(...records.map((r) => r.value!.toString())) - records.length;
  };
  const port: ProducePort = {
    partitions: async () => 3,
    partitionsKnown: () => 3,
    leader: () => (leaderless ? -1 : 1),
    async refresh() { leaderless = false; },
    async produce(_leader, batches) {
      const fate = turns[turn++] ?? 'acknowledged';
      for (const { partition } of batches) {
        if (onTheWay.has(partition)) overlaps.push(partition);
        onTheWay.add(partition);
      }
      await new Promise((done) => setTimeout(done, turn % 3));
      for (const { partition } of batches) onTheWay.delete(partition);
      leaderless = fate === 'no leader';
      if (fate === 'lost' || leaderless) throw new Error('cut');
      if (fate === 'refused') return batches.map(() => ({ kind: 'again', detail: 'not the leader' }));
      if (fate === 'partly') return batches.map(({ partition, records }, i) => (i % 2 === 0 ? { kind: 'acked', baseOffset: write(partition, records) } : { kind: 'again', detail: 'not the leader' }));
      const offsets = batches.map(({ partition, records }) => write(partition, records));
      if (fate === 'written, answer lost') throw new Error('cut');
      return offsets.map((baseOffset) => ({ kind: 'acked', baseOffset }));
    },
    close() {},
  };
  return { port, logs, overlaps };
}

const options = { deadlineMs: 60_000, maxPendingBytes: 1e9, requestTimeoutMs: 1000 };

test('whatever happens to requests: acknowledged records are at their offsets, in the order of the calls, one request a partition at a time', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.constantFrom(...fates), { maxLength: 6 }), fc.array(fc.array(fc.nat(2), { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 25 }), async (turns, calls) => {
    const { port, logs, overlaps } = createHarmedLog(turns);
    const appender = createAppender(port, options);
    const acks = [];
    for (const [i, partitions] of calls.entries()) {
      acks.push(appender.append('t', partitions.map((partition, j) => ({ partition, key: null, value: Buffer.from(`${i}/${j}`) }))));
      if (i % 5 === 0) await new Promise((done) => setImmediate(done));
    }
    const offsets = await Promise.all(acks);
    calls.forEach((partitions, i) => partitions.forEach((p, j) => expect(logs.get(p)![offsets[i]![j]!]).toBe(`${i}/${j}`)));
    for (const p of [0, 1, 2]) {
      const sent = calls.flatMap((partitions, i) => partitions.flatMap((q, j) => (q === p ? [`${i}/${j}`] : [])));
      expect([...new Set(logs.get(p) ?? [])]).toEqual(sent);
    }
    expect([overlaps, appender.pendingBytes()]).toEqual([[], 0]);
    await appender.close();
  }), { numRuns: 25 });
}, 120_000);

test('a partition that was added since is learnt of, once, and nothing of its topic overtakes what waits for that; one that is not there is refused', async () => {
  const { port, logs } = createHarmedLog([]);
  let known = 3;
  let refreshed = 0;
  const grown: ProducePort = { ...port, partitions: async () => known, partitionsKnown: () => known, async refresh() {
    refreshed++;
    await new Promise((done) => setTimeout(done, 5));
    known = 5;
  } };
  const appender = createAppender(grown, options);
  const record = (partition: number, text: string): OutRecord => ({ partition, key: null, value: Buffer.from(text) });
  await Promise.all([appender.append('t', [record(1, 'a'), record(4, 'b')]), appender.append('t', [record(1, 'c')]), appender.append('t', [record(4, 'd')])]);
  expect([logs.get(1), logs.get(4), refreshed]).toEqual([['a', 'c'], ['b', 'd'], 1]);
  await expect(appender.append('t', [record(5, 'e')])).rejects.toMatchObject({ code: 'log-fatal' });
  await appender.append('t', [record(2, 'f')]);
  expect(refreshed).toBe(2);
  await appender.close();
});

test('a partition that cannot be written does not hold up the others, and close waits for what is pending', async () => {
  const { port, logs } = createHarmedLog([]);
  const stuck: ProducePort = { ...port, async produce(leader, batches, timeoutMs) {
    const acks = await port.produce(leader, batches.filter((b) => b.partition !== 0), timeoutMs);
    let next = 0;
    return batches.map((b) => (b.partition === 0 ? { kind: 'again', detail: 'not the leader' } : acks[next++]!));
  } };
  const appender = createAppender(stuck, { ...options, deadlineMs: 400 });
  const record = (partition: number): OutRecord[] => [{ partition, key: null, value: Buffer.from('v') }];
  const failing = expect(appender.append('t', record(0))).rejects.toMatchObject({ code: 'log-append-failed' });
  expect(await appender.append('t', record(1))).toEqual([0]);
  expect(await appender.append('t', record(1))).toEqual([1]);
  await appender.close();
  await failing;
  expect(logs.has(0)).toBe(false);
  await expect(appender.append('t', record(1))).rejects.toMatchObject({ code: 'log-append-failed' });
});

test('nothing waits while no request is under way; what comes while two are goes together with the next answer, and late at most when there is none', async () => {
  const requests: { readonly partitions: readonly number[]; readonly answer: () => void }[] = [];
  const port: ProducePort = { ...createHarmedLog([]).port, partitions: async () => 6, partitionsKnown: () => 6, produce: (_leader, batches) => new Promise((done) => {
    requests.push({ partitions: batches.map((b) => b.partition), answer: () => done(batches.map(() => ({ kind: 'acked', baseOffset: 0 }))) });
  }) };
  const appender = createAppender(port, options);
  const append = (partition: number): Promise<unknown> => appender.append('t', [{ partition, key: null, value: Buffer.from('v') }]);
  const turn = (): Promise<void> => new Promise((done) => setImmediate(done));
  const sent = async (count: number): Promise<void> => { while (requests.length < count) await turn(); };
  const first = append(0);
  await sent(1);
  void append(1);
  await sent(2);
  const behind = [append(2), append(3)];
  requests[0]!.answer();
  await first;
  const more = append(4);
  await sent(3);
  expect(requests.map((r) => r.partitions).slice(0, 3)).toEqual([[0], [1], requests[2]!.partitions]);
  expect(requests[2]!.partitions.slice(0, 2)).toEqual([2, 3]);
  // Neither of the two under way is answered: the next goes all the same.
  const late = append(5);
  await sent(requests.length + (requests.at(-1)!.partitions.includes(5) ? 0 : 1));
  for (let i = 0; i < requests.length; i++) requests[i]!.answer();
  await Promise.all([...behind, more, late]);
  await appender.close();
});

test('answers that come at once do not make a request of every record: what comes just behind a request goes in one', async () => {
  const requests: number[] = [];
  const { port } = createHarmedLog([]);
  const appender = createAppender({ ...port, partitions: async () => 6, partitionsKnown: () => 6, async produce(_leader, batches) {
    requests.push(batches.length);
    return batches.map(() => ({ kind: 'acked', baseOffset: 0 }));
  } }, options);
  const append = (partition: number, bytes = 1): Promise<unknown> => appender.append('t', [{ partition, key: null, value: Buffer.alloc(bytes) }]);
  const turn = (): Promise<void> => new Promise((done) => setImmediate(done));
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  try {
    await append(0);
    const behind: Promise<unknown>[] = [];
    for (const partition of [1, 2, 3, 4]) {
      behind.push(append(partition));
      await turn();
    }
    expect(requests).toEqual([1]);
    vi.advanceTimersByTime(4);
    await Promise.all(behind);
    expect(requests).toEqual([1, 4]);
    vi.advanceTimersByTime(4);
    await append(5);
    expect(requests).toEqual([1, 4, 1]);
    // What is worth a request of its own does not wait.
    const small = append(0);
    await turn();
    expect(requests).toEqual([1, 4, 1]);
    await Promise.all([small, append(1, 65_536)]);
    expect(requests).toEqual([1, 4, 1, 2]);
  } finally {
    vi.useRealTimers();
  }
  await appender.close();
});

test('what is urgent goes in the turn of its call, and waits for no spacing: an immediate comes behind a slice of bulk work', async () => {
  const requests: number[][] = [];
  const { port } = createHarmedLog([]);
  const appender = createAppender({ ...port, async produce(_leader, batches) {
    requests.push(batches.map((b) => b.partition));
    return batches.map(() => ({ kind: 'acked', baseOffset: 0 }));
  } }, { ...options, urgent: true });
  const append = (partition: number): Promise<unknown> => appender.append('t', [{ partition, key: null, value: Buffer.from('v') }]);
  let turns = 0;
  const turn = setImmediate(() => { turns++; });
  await append(0);
  // What is appended in one go is one request.
  await Promise.all([append(1), append(2)]);
  expect([turns, requests]).toEqual([0, [[0], [1, 2]]]);
  clearImmediate(turn);
  await appender.close();
});
