import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import type { Cluster } from './cluster.ts';
import type { BrokerConnection, FetchedPartition, FetchTopic } from './driver.ts';
import { FetchRequests, type Position, type Taker } from './fetch-requests.ts';
import { createSharedFetchers, Fetcher } from './fetcher.ts';
import { encodeBatch } from './records.ts';
import type { RecordBatch } from './types.ts';
import { watchFetcher } from './watchdog.ts';

const partitions = 24;
const perAnswer = 4;
const end = 1_000_000;

/** A broker whose answers have room for a record of four partitions, the first four of the request that have one; `withheld` never gets any, `failing` an error. */
function world(options: { readonly withheld?: number; readonly failing?: number; readonly giveMs?: number; readonly bytes?: number; readonly urgent?: boolean; readonly sync?: boolean }) {
  const fetches: number[][] = [];
  const given = new Set<number>();
  const broker = {
    async fetch(_wait: number, _bytes: number, topics: readonly FetchTopic[]) {
      const asked = topics.flatMap(({ topic, partitions: list }) => list.map((p) => ({ topic, ...p })));
      fetches.push(asked.map((p) => p.partition));
      let room = perAnswer;
      await new Promise((done) => { setTimeout(done, 1); });
      return {
        errorCode: 0,
        partitions: asked.map(({ topic, partition, offset }): FetchedPartition => {
          if (partition === options.failing) return { topic, partition, errorCode: 2, highWatermark: -1, logStartOffset: -1, bytes: Buffer.alloc(0) };
          let bytes: Buffer = Buffer.alloc(0);
          if (partition !== options.withheld && room > 0) {
            room--;
            bytes = encodeBatch([{ partition, key: null, value: Buffer.alloc(options.bytes ?? 1) }], 1);
            bytes.writeBigInt64BE(BigInt(offset), 0);
          }
          return { topic, partition, errorCode: 0, highWatermark: end, logStartOffset: 0, bytes };
        }),
      };
    },
    listOffsets: (topic: string, list: readonly number[]) => Promise.resolve(list.map((partition) => ({ topic, partition, errorCode: 0, offset: end }))),
  } as unknown as BrokerConnection;
  const cluster = { deadlineMs: 1000, closed: false, leader: () => 1, made: () => 0, goneMs: () => 0, partitions: () => Promise.resolve(partitions), refresh: () => Promise.resolve(), discard: () => undefined, ask: (_p: string, _n: number, _w: string, _d: number, request: (b: BrokerConnection) => Promise<unknown>) => request(broker) } as unknown as Cluster;
  const fetcher = new Fetcher({
    maxBytesPerPartition: 100, urgent: options.urgent === true, onFatal: (error) => { throw error; },
    onBatch: ({ partition }) => {
      given.add(partition);
      return options.sync === true ? undefined : new Promise((done) => { if (options.giveMs === undefined) done(); else setTimeout(done, options.giveMs); });
    },
  }, new FetchRequests(cluster, { purpose: 'test', maxWaitMs: 10 }));
  for (let partition = 0; partition < partitions; partition++) fetcher.add({ topic: 't', partition, epoch: 0, position: 0, paused: false });
  return { fetcher, cluster, fetches, given };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((done) => { setTimeout(done, 2); });
}

test('when an answer has no room for all, those that it left out come first in the next: nobody waits for longer than a round', async () => {
  const { fetcher, fetches, given } = world({});
  await until(() => fetches.length > partitions / perAnswer);
  expect(given.size).toBe(partitions);
  await fetcher.stop();
});

test('a partition that waits for its turn while others are worked on is no stall', async () => {
  const { fetcher, cluster, given } = world({ giveMs: 10 });
  const stalls: Error[] = [];
  const stop = watchFetcher(cluster, fetcher, 15, (error) => stalls.push(error));
  await until(() => given.size === partitions || stalls.length > 0);
  stop();
  expect(stalls).toEqual([]);
  await fetcher.stop();
});

test('a partition that the broker gives nothing of though it was asked for first is a stall, whatever else goes on', async () => {
  const { fetcher, cluster } = world({ withheld: 7 });
  const stalls: Error[] = [];
  const stop = watchFetcher(cluster, fetcher, 15, (error) => stalls.push(error));
  await until(() => stalls.length > 0);
  stop();
  expect(stalls[0]!.message).toContain('t/7 stands at 0');
  await fetcher.stop();
});

test('a partition that only ever has errors is refused, not served: the watchdog sees it beside neighbours that are given', async () => {
  const { fetcher, given } = world({ failing: 7 });
  const refused = (): [number, number][] => [...fetcher.all()].flatMap((p) => (p.refused > 0 ? [[p.partition, p.refused]] : []));
  await until(() => given.size === partitions - 1 && (refused()[0]?.[1] ?? 0) > 1);
  expect(refused().map(([partition]) => partition)).toEqual([7]);
  await fetcher.stop();
});

test('records that come one by one are not a request each, and answers that are full follow at once', async () => {
  const asked = vi.spyOn(globalThis, 'setTimeout');
  /** Waits between ten requests; those of 1 and 2 ms are the broker's own and the look of this test. */
  const waits = async (bytes: number): Promise<number> => {
    const { fetcher, fetches } = world({ bytes });
    await until(() => fetches.length >= 10);
    const found = asked.mock.calls.filter(([, ms]) => ms !== 1 && ms !== 2).length;
    asked.mockClear();
    await fetcher.stop();
    return found;
  };
  try {
    expect(await waits(65_536)).toBe(0);
    // One that took longer than the spacing needs no wait.
    expect(await waits(1)).toBeGreaterThan(0);
  } finally {
    asked.mockRestore();
  }
});

test('a few urgent answers are followed at once, many small ones are spaced all the same', async () => {
  const { fetcher, fetches } = world({ urgent: true });
  const real = setTimeout;
  /** Requests before each wait; those of 1 and 2 ms are the broker's own and the look of this test. */
  const before: number[] = [];
  const asked = vi.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms: number) => {
    if (ms !== 1 && ms !== 2) before.push(fetches.length);
    return real(run, ms);
  }) as typeof setTimeout);
  try {
    await until(() => before.length > 0);
    expect(before[0]).toBeGreaterThanOrEqual(4);
    await fetcher.stop();
  } finally {
    asked.mockRestore();
  }
});

test('all partitions of an answer are given out in one go, so that who acts on them acts once', async () => {
  const { fetcher, given } = world({ sync: true });
  const seen: number[] = [];
  given.add = (partition: number) => {
    if (seen.length === 0) queueMicrotask(() => { seen.push(-1); });
    seen.push(partition);
    return given;
  };
  await until(() => seen.length > perAnswer);
  expect(seen.indexOf(-1)).toBe(perAnswer);
  await fetcher.stop();
});

/** A broker that has so many records in each partition of any topic and holds a long poll until there is something; `failing` has an error that does not pass, `moved` one that may. */
function shared(options: { readonly failing?: string; readonly moved?: () => string | undefined } = {}) {
  const ends = new Map<string, number>();
  const asked: { readonly topics: readonly string[]; readonly maxWaitMs: number; readonly at: number }[] = [];
  const waiting = new Set<() => void>();
  const endOf = (topic: string, partition: number): number => ends.get(`${topic}/${partition}`) ?? 0;
  const broker = {
    async fetch(maxWaitMs: number, _bytes: number, topics: readonly FetchTopic[]) {
      asked.push({ topics: topics.map(({ topic }) => topic), maxWaitMs, at: performance.now() });
      const all = topics.flatMap(({ topic, partitions: list }) => list.map((p) => ({ topic, ...p })));
      const answer = (): FetchedPartition[] => all.map(({ topic, partition, offset }) => {
        const end = endOf(topic, partition);
        if (topic === options.failing) return { topic, partition, errorCode: 29, highWatermark: -1, logStartOffset: -1, bytes: Buffer.alloc(0) };
        if (topic === options.moved?.()) return { topic, partition, errorCode: 6, highWatermark: -1, logStartOffset: -1, bytes: Buffer.alloc(0) };
        const bytes = offset < end ? encodeBatch(Array.from({ length: end - offset }, () => ({ partition, key: null, value: Buffer.from('v') })), 1) : Buffer.alloc(0);
        if (bytes.length > 0) bytes.writeBigInt64BE(BigInt(offset), 0);
        return { topic, partition, errorCode: 0, highWatermark: end, logStartOffset: 0, bytes };
      });
      if (!answer().some((p) => p.errorCode !== 0 || p.bytes.length > 0)) await new Promise<void>((done) => {
        const end = (): void => {
          clearTimeout(timer);
          waiting.delete(end);
          done();
        };
        const timer = setTimeout(end, maxWaitMs);
        waiting.add(end);
      });
      return { errorCode: 0, partitions: answer() };
    },
  } as unknown as BrokerConnection;
  const cluster = { deadlineMs: 1000, closed: false, leader: () => 1, made: () => 0, goneMs: () => 0, refresh: () => Promise.resolve(), discard: () => undefined, ask: (_p: string, _n: number, _w: string, _d: number, request: (b: BrokerConnection) => Promise<unknown>) => request(broker) } as unknown as Cluster;
  return {
    asked, share: createSharedFetchers(cluster),
    append(topic: string, partition = 0, count = 1) {
      ends.set(`${topic}/${partition}`, endOf(topic, partition) + count);
      for (const wake of waiting) wake();
    },
    endOf,
  };
}

function taker(more: Partial<Taker> = {}) {
  const batches: RecordBatch[] = [];
  const errors: Error[] = [];
  return { batches, errors, maxBytesPerPartition: 100, onBatch: (batch: RecordBatch) => { batches.push(batch); }, onFatal: (error: Error) => { errors.push(error); }, ...more };
}

const at = (topic: string, partition = 0, position = 0): Pick<Position, 'topic' | 'partition' | 'epoch' | 'position' | 'paused'> => ({ topic, partition, epoch: 0, position, paused: false });

test('who shares requests has what is its own, in one request for all; one that reads the same topic has requests of its own', async () => {
  const { share, append, asked } = shared();
  const [one, two, three] = [taker(), taker(), taker()];
  const fetchers = [share(['a'], one), share(['b'], two), share(['a'], three)];
  ['a', 'b', 'a'].forEach((topic, i) => fetchers[i]!.add(at(topic)));
  await until(() => asked.length >= 2);
  append('a');
  append('b');
  await until(() => one.batches.length + two.batches.length + three.batches.length >= 3);
  expect([one, two, three].map(({ batches }) => batches.map(({ topic }) => topic))).toEqual([['a'], ['b'], ['a']]);
  expect(asked.slice(0, 2).map(({ topics }) => topics.toSorted())).toEqual([['a', 'b'], ['a']]);
  await fetchers[0]!.stop();
  append('a');
  append('b');
  await until(() => two.batches.length === 2 && three.batches.length === 2);
  expect(one.batches).toHaveLength(1);
  await Promise.all(fetchers.map((fetcher) => fetcher.stop()));
});

test('what cannot go on is told to all who share the requests, and who comes then has others', async () => {
  const { share, append } = shared({ failing: 'a' });
  const [one, two] = [taker(), taker()];
  const [first, second] = [share(['a'], one), share(['b'], two)];
  first.add(at('a'));
  second.add(at('b'));
  append('b');
  await until(() => one.errors.length > 0);
  expect([one, two].map(({ errors }) => errors.map((error) => error.message))).toEqual([['a/0: not authorised to read'], ['a/0: not authorised to read']]);
  expect([...first.all(), ...second.all()]).toEqual([]);
  const next = taker();
  const fetcher = share(['b'], next);
  fetcher.add(at('b'));
  await until(() => next.batches.length > 0);
  await Promise.all([first, second, fetcher].map((each) => each.stop()));
});

test('a partition without a leader is asked for again, less and less often, and those beside it do not wait for that', async () => {
  let moved: string | undefined = 'a';
  const { share, append, asked } = shared({ moved: () => moved });
  const [one, two] = [taker(), taker()];
  const [first, second] = [share(['a'], one), share(['b'], two)];
  first.add(at('a'));
  second.add(at('b'));
  append('a');
  const delays = vi.spyOn(globalThis, 'setTimeout');
  for (let i = 0; i < 20; i++) {
    append('b');
    await until(() => two.batches.length > i);
  }
  // A request of the other waits for the spacing only, or for a resumed one; never as long as the next look.
  expect(Math.max(...delays.mock.calls.map(([, ms]) => ms ?? 0))).toBeLessThanOrEqual(25);
  delays.mockRestore();
  expect(asked.filter(({ topics }) => topics.includes('a')).length).toBeLessThan(asked.length / 2);
  expect(one.batches).toEqual([]);
  moved = undefined;
  await until(() => one.batches.length === 1);
  await Promise.all([first.stop(), second.stop()]);
});

test('followers come with what is fetched anyway, and alone they are followed at once', async () => {
  const { share, append, asked } = shared();
  const [paced, urgent] = [taker(), taker({ urgent: true })];
  const [consumer, follower] = [share(['stage'], paced), share(['table'], urgent)];
  // All in one moment: a request that took longer than the spacing needs no wait.
  const moment = performance.now();
  const now = vi.spyOn(performance, 'now').mockImplementation(() => moment);
  consumer.add(at('stage'));
  follower.add(at('table'));
  const real = setTimeout;
  let spaced = 0;
  const spy = vi.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms: number) => {
    if (ms <= 8 && ms !== 2) spaced++;
    return real(run, ms);
  }) as typeof setTimeout);
  try {
    await until(() => asked.length === 1);
    for (let i = 1; i <= 3; i++) {
      append('table');
      await until(() => asked.length === 1 + i);
    }
    expect(spaced).toBe(0);
    append('stage');
    append('table');
    await until(() => asked.length === 5);
    expect(spaced).toBe(1);
    expect([paced.batches.length, urgent.batches.length]).toEqual([1, 4]);
  } finally {
    spy.mockRestore();
    now.mockRestore();
    await Promise.all([consumer.stop(), follower.stop()]);
  }
});

test('one that was paused just now is not kept waiting by a long poll, one that rests does not make the others ask all the time', async () => {
  const { share, append, asked } = shared();
  const [one, two] = [taker(), taker()];
  const [first, second] = [share(['a'], one), share(['b'], two)];
  first.add(at('a'));
  second.add(at('b'));
  await until(() => asked.length === 1);
  first.pause('a', 0);
  append('b');
  await until(() => asked.length === 3);
  const now = vi.spyOn(performance, 'now');
  const ahead = performance.now() + 1001;
  now.mockImplementation(() => ahead);
  try {
    const before = asked.length;
    await until(() => asked.length > before + 1);
    expect(asked[1]!.maxWaitMs).toBe(25);
    expect(asked.at(-1)!.maxWaitMs).toBe(250);
    expect(asked.at(-1)!.topics).toEqual(['b']);
    append('a');
    first.resume('a', 0);
    await until(() => one.batches.length === 1);
  } finally {
    now.mockRestore();
    await Promise.all([first.stop(), second.stop()]);
  }
});

test('whatever comes, is paused, taken away and given back: each gets every record of what it reads once and in order, and nothing of what it does not', async () => {
  const topics = ['a', 'b', 'c'];
  const steps = fc.array(fc.record({ what: fc.constantFrom('append', 'append', 'append', 'pause', 'resume', 'remove', 'add', 'stop', 'turn'), topic: fc.constantFrom(...topics), partition: fc.nat(1) }), { maxLength: 40 });
  await fc.assert(fc.asyncProperty(steps, fc.boolean(), async (list, slow) => {
    const { share, append, endOf } = shared();
    /** Next offset of what is read; undefined = it is not. */
    const expected = new Map<string, number>();
    const [paused, stopped] = [new Set<string>(), new Set<string>()];
    const wrong: string[] = [];
    const takers = topics.map((topic) => taker({
      onBatch: (batch) => {
        const key = `${batch.topic}/${batch.partition}`;
        if (batch.topic !== topic || stopped.has(topic) || paused.has(key) || expected.get(key) === undefined) wrong.push(`${key} for ${topic}`);
        for (const { offset } of batch.records) {
          if (offset !== expected.get(key)) wrong.push(`${offset} of ${key} where ${expected.get(key)} comes next`);
          expected.set(key, offset + 1);
        }
        return slow ? new Promise((done) => { setTimeout(done, 1); }) : undefined;
      },
    }));
    const fetchers = topics.map((topic, i) => share([topic], takers[i]!));
    const held = new Map<string, number>();
    for (const { what, topic, partition } of list) {
      const key = `${topic}/${partition}`;
      const fetcher = fetchers[topics.indexOf(topic)]!;
      if (what === 'append') append(topic, partition);
      else if (what === 'turn') await new Promise((done) => { setTimeout(done, 1); });
      else if (stopped.has(topic)) continue;
      else if (what === 'add' && expected.get(key) === undefined) {
        expected.set(key, held.get(key) ?? 0);
        fetcher.add(at(topic, partition, held.get(key) ?? 0));
      } else if (what === 'remove' && expected.get(key) !== undefined) {
        fetcher.remove(topic, partition);
        held.set(key, expected.get(key)!);
        expected.delete(key);
        paused.delete(key);
      } else if (what === 'pause' && expected.get(key) !== undefined) {
        fetcher.pause(topic, partition);
        paused.add(key);
      } else if (what === 'resume') {
        paused.delete(key);
        fetcher.resume(topic, partition);
      } else if (what === 'stop') {
        await fetcher.stop();
        stopped.add(topic);
        for (const p of [0, 1]) expected.delete(`${topic}/${p}`);
      }
    }
    for (const key of paused) fetchers[topics.indexOf(key[0]!)]!.resume(key[0]!, Number(key[2]));
    paused.clear();
    await until(() => wrong.length > 0 || [...expected].every(([key, next]) => next === endOf(key[0]!, Number(key[2]))));
    await Promise.all(fetchers.map((fetcher) => fetcher.stop()));
    expect(wrong).toEqual([]);
  }), { numRuns: 30 });
});

test('an answer that does not come costs the reader its grace, twice as long each time in a row and never more than the default; one that comes begins anew', async () => {
  vi.useFakeTimers();
  try {
    const asked: number[] = [];
    let answers = false;
    const cluster = {
      deadlineMs: 1000, closed: false, leader: () => 1, made: () => 0, goneMs: () => 0, partitions: () => Promise.resolve(1), refresh: () => Promise.resolve(), discard: () => undefined,
      ask: async (_purpose: string, _node: number, _what: string, deadlineMs: number) => {
        asked.push(deadlineMs);
        await new Promise((done) => { setTimeout(done, answers ? 500 : deadlineMs); });
        if (!answers) throw new Error('no answer');
        return { errorCode: 0, partitions: [{ topic: 't', partition: 0, errorCode: 0, highWatermark: 0, logStartOffset: 0, bytes: Buffer.alloc(0) }] };
      },
    } as unknown as Cluster;
    const read = async (graceMs: number | undefined): Promise<number[]> => {
      asked.length = 0;
      answers = false;
      const fetcher = new Fetcher({ maxBytesPerPartition: 100, onFatal: (error) => { throw error; }, onBatch: () => undefined }, new FetchRequests(cluster, { purpose: 'test', maxWaitMs: 500, graceMs }));
      fetcher.add({ topic: 't', partition: 0, epoch: 0, position: 0, paused: false });
      while (asked.length < 4) await vi.advanceTimersByTimeAsync(100);
      answers = true;
      while (asked.length < 6) await vi.advanceTimersByTimeAsync(100);
      const stopped = fetcher.stop();
      await vi.advanceTimersByTimeAsync(11_000);
      await stopped;
      return asked.slice(0, 6);
    };
    expect(await read(4000)).toEqual([4500, 8500, 10_500, 10_500, 4500, 4500]);
    expect(await read(undefined)).toEqual([10_500, 10_500, 10_500, 10_500, 10_500, 10_500]);
  } finally {
    vi.useRealTimers();
  }
});

test('whoever is in a hurry does not wait for a spacing that late timers have widened', async () => {
  const { fetcher, fetches } = world({ sync: true });
  const real = setTimeout;
  const waits: { readonly run: () => void; readonly ms: number }[] = [];
  const asked = vi.spyOn(globalThis, 'setTimeout').mockImplementation(((run: () => void, ms: number) => {
    // The broker's own, and the look of this test.
    if (ms === 1 || ms === 2) return real(run, ms);
    waits.push({ run, ms });
    return real(() => undefined, 0);
  }) as typeof setTimeout);
  try {
    for (let late = 0; late < 5; late++) {
      await until(() => waits.length > late);
      const { run, ms } = waits[late]!;
      await new Promise<void>((done) => { real(done, ms + 10); });
      run();
    }
    await until(() => waits.length === 6);
    expect(waits[5]!.ms).toBeGreaterThan(30);
    const before = fetches.length;
    fetcher.hurry();
    await until(() => waits.length > 6 || fetches.length > before);
    expect(waits[6]?.ms ?? 0).toBeLessThanOrEqual(8);
  } finally {
    asked.mockRestore();
  }
  await fetcher.stop();
});

test('of a way that is too slow for a whole answer less is asked for, down to what always fits, and more again with each answer', async () => {
  vi.useFakeTimers();
  try {
    const asked: number[] = [];
    const mib = 1024 * 1024;
    let fits = 0;
    const broker = { fetch: async (_wait: number, bytes: number) => {
      asked.push(bytes / mib);
      if (bytes > fits) throw new Error('no answer');
      await new Promise((done) => { setTimeout(done, 500); });
      return { errorCode: 0, partitions: [{ topic: 't', partition: 0, errorCode: 0, highWatermark: 0, logStartOffset: 0, bytes: Buffer.alloc(0) }] };
    } } as unknown as BrokerConnection;
    const cluster = { deadlineMs: 1000, closed: false, leader: () => 1, made: () => 0, goneMs: () => 0, refresh: () => Promise.resolve(), discard: () => undefined, ask: (_p: string, _n: number, _w: string, _d: number, request: (b: BrokerConnection) => Promise<unknown>) => request(broker) } as unknown as Cluster;
    const fetcher = new Fetcher(taker(), new FetchRequests(cluster, { purpose: 'test', maxWaitMs: 500 }));
    fetcher.add(at('t'));
    while (asked.length < 6) await vi.advanceTimersByTimeAsync(50);
    fits = 2 * mib;
    while (asked.length < 11) await vi.advanceTimersByTimeAsync(50);
    expect(asked.slice(0, 11)).toEqual([16, 8, 4, 2, 1, 1, 1, 2, 4, 2, 4]);
    const stopped = fetcher.stop();
    await vi.advanceTimersByTimeAsync(2000);
    await stopped;
  } finally {
    vi.useRealTimers();
  }
});

test('a range that nobody tells, because the brokers have gone meanwhile, ends nobody: it is asked for again', async () => {
  vi.useFakeTimers();
  try {
    let away = true;
    let looks = 0;
    const broker = {
      fetch: async () => {
        await new Promise((done) => { setTimeout(done, 10); });
        return { errorCode: 0, partitions: [{ topic: 't', partition: 0, errorCode: 1, highWatermark: -1, logStartOffset: -1, bytes: Buffer.alloc(0) }] };
      },
      listOffsets: async (topic: string, list: readonly number[], timestamp: number) => {
        looks++;
        return list.map((partition) => ({ topic, partition, errorCode: away ? 6 : 0, offset: timestamp === -1 ? 5 : 2 }));
      },
    } as unknown as BrokerConnection;
    const cluster = { deadlineMs: 1000, closed: false, leader: () => 1, made: () => 0, goneMs: () => 0, refresh: () => Promise.resolve(), discard: () => undefined, ask: (_p: string, _n: number, _w: string, _d: number, request: (b: BrokerConnection) => Promise<unknown>) => request(broker) } as unknown as Cluster;
    const own = taker();
    const fetcher = new Fetcher(own, new FetchRequests(cluster, { purpose: 'test', maxWaitMs: 500 }));
    fetcher.add(at('t', 0, 9));
    await vi.advanceTimersByTimeAsync(5000);
    expect(own.errors).toEqual([]);
    expect(looks).toBeGreaterThan(10);
    away = false;
    while (own.errors.length === 0) await vi.advanceTimersByTimeAsync(50);
    expect(own.errors).toMatchObject([{ code: 'log-out-of-range', details: { topic: 't', partition: 0, wanted: 9, start: 2, end: 5 } }]);
    await fetcher.stop();
  } finally {
    vi.useRealTimers();
  }
});
