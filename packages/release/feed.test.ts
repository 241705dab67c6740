import { WeirError } from '@weir/errors';
import type { Log, Moment, RecordBatch } from '@weir/log';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { createReleaseFeed } from './feed.ts';

afterEach(() => { vi.useRealTimers(); });

const record = (key: string, value: object, offset: number) => ({ offset, timestamp: 0, key: Buffer.from(key), value: Buffer.from(JSON.stringify(value)), headers: [] });
const change = (paused: boolean) => ({ destination: 'crm', paused, reason: null, by: 'admin', at: 1 });

/** A feed over weir.control with these records at its start; `log.records` is what is on it from then on. `give` is the next batch, `asOf` what its follower says, `fail` ends it; `unknown` are bytes whose schema cannot be had. */
async function world(records: readonly ReturnType<typeof record>[]) {
  const followers: { from: number; open: boolean; give: (batch: RecordBatch) => Promise<void>; fail: (error: Error) => void }[] = [];
  /** The begin of the next follower waits for it. */
  const begin: { wait: PromiseWithResolvers<void> | undefined } = { wait: undefined };
  const onLog = { records };
  const lines: string[] = [];
  const unknown = new Set<string>();
  let asOf: Moment = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  const log = {
    reader: async () => ({
      // In batches of two, as a log that is longer than an answer.
      read: async (_topic: string, _partition: number, from: number, to: number, take: (batch: object) => Promise<void>) => {
        const wanted = onLog.records.filter((r) => r.offset >= from && r.offset < to);
        for (let i = 0; i < wanted.length; i += 2) await take({ records: wanted.slice(i, i + 2) });
      },
      follow: async (_topic: string, from: ReadonlyMap<number, number>, give: (batch: RecordBatch) => Promise<void>, fail: (error: Error) => void) => {
        const own = { from: from.get(0)!, open: false, give, fail };
        followers.push(own);
        await begin.wait?.promise;
        own.open = true;
        return { close: async () => { own.open = false; }, asOf: () => asOf };
      },
      close: async () => {},
    }),
    admin: async () => ({ endOffsets: async () => new Map([[0, (onLog.records.at(-1)?.offset ?? -1) + 1]]) }),
  } as unknown as Log;
  const serde = {
    prepare: async (bytes: Buffer) => { if (unknown.has(bytes.toString())) throw new WeirError('log-unavailable', 'the registry is away'); },
    decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) as unknown }),
  };
  const line = (_: object, text: string): void => { lines.push(text); };
  const feed = await createReleaseFeed({ log, serde: serde as never, topic: 'c', adapters: new Map(), logger: { info() {}, debug() {}, warn: line, error: line } as never, workspaceKey: Buffer.alloc(32) });
  const give = (list: readonly ReturnType<typeof record>[], nextOffset: number): Promise<void> => followers.at(-1)!.give({ topic: 'c', partition: 0, epoch: 0, records: list, nextOffset, highWatermark: nextOffset });
  return { feed, followers, begin, lines, onLog, unknown, told: (moment: Moment) => { asOf = moment; }, give };
}

const at = (ms: number, paused: boolean) => ({ ...change(paused), at: ms });
const outOfRange = new WeirError('log-out-of-range', 'offset 9 is not in the log');
const never: Moment = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };

/** Every follower that is begun is told so, for so long. */
async function keepsFailing({ followers }: Awaited<ReturnType<typeof world>>, ms: number, error: Error): Promise<void> {
  for (const end = performance.now() + ms; performance.now() < end;) {
    const count = followers.length;
    followers.at(-1)!.fail(error);
    while (followers.length === count) await vi.advanceTimersByTimeAsync(100);
  }
}

test('a kill switch is told when the position is behind it: what is reported then has it', async () => {
  const { feed, give } = await world([record('switch/crm', change(false), 0)]);
  expect([feed.position(), feed.switches().get('crm')?.paused]).toEqual([1, false]);
  const heard: unknown[] = [];
  feed.onSwitch(({ paused }) => heard.push([paused, feed.position(), feed.switches().get('crm')?.paused]));
  await give([record('switch/crm', change(true), 1), record('incident/crm', { destination: 'crm', code: 'x', since: 1, until: null }, 2)], 3);
  expect(heard).toEqual([[true, 3, true]]);
  await give([record('incident/crm', { destination: 'crm', code: 'x', since: 1, until: 2 }, 3)], 4);
  expect([heard.length, feed.position()]).toEqual([1, 4]);
  await feed.close();
});

test('what is known is as old as the last look at the end: that of the start, then what the follower says, by the stricter clock, also after it was begun anew', async () => {
  const { feed, told, followers } = await world([]);
  expect(feed.ageMs()).toBeLessThan(5000);
  told({ monotonic: performance.now() + 10_000, wall: Date.now() + 10_000 });
  expect(feed.ageMs()).toBeLessThan(-5000);
  // The machine was suspended: the monotonic clock stood.
  told({ monotonic: performance.now() + 20_000, wall: Date.now() - 60_000 });
  expect(feed.ageMs()).toBeGreaterThan(50_000);
  told({ monotonic: performance.now() + 30_000, wall: Date.now() + 30_000 });
  expect(feed.ageMs()).toBeLessThan(-20_000);
  followers[0]!.fail(new Error('out of range'));
  told({ monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY });
  expect(feed.ageMs()).toBeLessThan(-20_000);
  await feed.close();
});

test('a log that is shorter than what was read of it is read again from its start, and followed: what is known is new again', async () => {
  vi.useFakeTimers();
  const here = await world([record('switch/crm', at(1, false), 0), record('switch/old', { ...at(2, false), destination: 'old' }, 8)]);
  const { feed, followers, onLog, lines, told } = here;
  expect([followers[0]!.from, feed.position(), feed.trouble()]).toEqual([9, 9, undefined]);
  const heard: unknown[] = [];
  feed.onSwitch(({ destination, paused }) => heard.push([destination, paused, feed.position()]));
  // Made anew, and a switch is on it.
  onLog.records = [record('switch/crm', at(5, false), 0), record('switch/crm', at(6, true), 1), record('switch/other', { ...at(7, true), destination: 'other' }, 2)];
  await keepsFailing(here, 5000, outOfRange);
  // A leader that was cut off says the same, and what it shows is of before: nothing of it is read yet, and a switch that came since is not said to be read.
  expect([followers.at(-1)!.from, feed.position(), feed.trouble(), feed.switches().get('crm')!.paused]).toEqual([9, 0, 'log-out-of-range', false]);
  await keepsFailing(here, 6000, outOfRange);
  expect(followers.at(-1)!.from).toBe(3);
  expect(heard).toEqual([['crm', true, 3], ['other', true, 3]]);
  expect(feed.ageMs()).toBeLessThan(1000);
  expect(lines).toContain('the topic is shorter than what was read of it: it was read again');
  told({ monotonic: performance.now() + 1, wall: Date.now() });
  expect([feed.position(), feed.trouble()]).toEqual([3, undefined]);
  await feed.close();
});

test('a follower that ends while the next one is begun is followed by one, however long its begin takes and whatever it says then', async () => {
  vi.useFakeTimers();
  const here = await world([record('switch/crm', change(false), 0)]);
  const { feed, followers, begin } = here;
  const away = new WeirError('log-unavailable', 'no broker answers');
  followers[0]!.fail(away);
  // It takes longer than until the next try, tells that it failed meanwhile, and rejects at the end.
  begin.wait = Promise.withResolvers();
  await vi.advanceTimersByTimeAsync(600);
  expect(followers.length).toBe(2);
  followers[1]!.fail(away);
  await vi.advanceTimersByTimeAsync(2000);
  expect(followers.length).toBe(2);
  const { wait } = begin;
  begin.wait = undefined;
  wait.reject(away);
  await vi.advanceTimersByTimeAsync(5000);
  expect([followers.length, followers.filter(({ open }) => open).length]).toEqual([3, 1]);
  await feed.close();
});

test('a log that was made anew is read from its start at once, also when it is longer than what was read of the one before', async () => {
  vi.useFakeTimers();
  const { feed, followers, onLog } = await world([record('switch/crm', at(1, false), 1)]);
  onLog.records = [record('switch/crm', at(5, true), 0), record('incident/crm', { destination: 'crm', code: 'x', since: 1, until: null }, 5)];
  followers[0]!.fail(new WeirError('log-out-of-range', 'offset 2 is of another one', { details: { madeAnew: true } }));
  await vi.advanceTimersByTimeAsync(600);
  expect([followers.map(({ from }) => from), feed.switches().get('crm')!.paused]).toEqual([[2, 6], true]);
  await feed.close();
});

test('a leader that says so for a while and then goes on is believed: nothing is read again, and the position is what it was', async () => {
  vi.useFakeTimers();
  const here = await world([record('switch/crm', change(true), 8)]);
  const { feed, followers, told, give } = here;
  for (let round = 0; round < 3; round++) {
    await keepsFailing(here, 8000, outOfRange);
    expect([feed.position(), followers.at(-1)!.from]).toEqual([0, 9]);
    told({ monotonic: performance.now() + 1, wall: Date.now() });
    expect(feed.position()).toBe(9);
    await vi.advanceTimersByTimeAsync(10_000);
  }
  told(never);
  await keepsFailing(here, 1000, outOfRange);
  await give([record('incident/crm', { destination: 'crm', code: 'x', since: 1, until: null }, 9)], 10);
  expect(feed.position()).toBe(10);
  await feed.close();
});

test('while the log is read again no word of it counts that is not the last, and a pause that it has lost stays', async () => {
  vi.useFakeTimers();
  const here = await world([record('switch/crm', at(9, true), 20), record('switch/mail', { ...at(5, true), destination: 'mail' }, 21), record('switch/ads', { ...at(5, true), destination: 'ads' }, 22)]);
  const { feed, onLog } = here;
  const seen: unknown[] = [];
  feed.onSwitch(() => seen.push(['crm', 'mail', 'ads'].map((name) => feed.switches().get(name)!.paused)));
  // crm: its pause is the last word; mail: its pause is lost, an older word is there; ads: nothing is there; old ones stand before.
  onLog.records = [record('switch/crm', at(3, false), 0), record('switch/mail', { ...at(4, false), destination: 'mail' }, 1), record('switch/crm', at(8, true), 2), record('switch/crm', at(9, true), 3)];
  await keepsFailing(here, 12_000, outOfRange);
  expect(seen).toEqual([[true, true, true]]);
  await feed.close();
});

test('what is read again counts in the order of the last words', async () => {
  vi.useFakeTimers();
  const { feed, followers, onLog } = await world([]);
  const heard: string[] = [];
  feed.onSwitch(({ destination }) => heard.push(destination));
  onLog.records = [record('switch/crm', at(1, false), 0), record('switch/mail', { ...at(2, true), destination: 'mail' }, 1), record('switch/crm', at(3, true), 2)];
  followers[0]!.fail(new WeirError('log-out-of-range', 'offset 0 is of another one', { details: { madeAnew: true } }));
  await vi.advanceTimersByTimeAsync(600);
  expect(heard).toEqual(['mail', 'crm']);
  await feed.close();
});

test('a record whose schema cannot be had does not keep the switches behind it waiting, and counts when it can; a switch does', async () => {
  vi.useFakeTimers();
  const { feed, give, unknown } = await world([]);
  const incident = record('incident/crm', { destination: 'crm', code: 'new', since: 1, until: null }, 0);
  unknown.add(incident.value.toString());
  await give([incident, record('switch/crm', change(true), 1)], 2);
  expect([feed.position(), feed.switches().get('crm')!.paused, feed.incidents().size]).toEqual([2, true, 0]);
  await vi.advanceTimersByTimeAsync(2000);
  expect(feed.incidents().size).toBe(0);
  unknown.clear();
  await vi.advanceTimersByTimeAsync(1000);
  expect(feed.incidents().get('crm')!.code).toBe('new');
  const resume = record('switch/crm', change(false), 2);
  unknown.add(resume.value.toString());
  await expect(give([resume], 3)).rejects.toThrow('the registry is away');
  expect([feed.position(), feed.switches().get('crm')!.paused]).toEqual([2, true]);
  await feed.close();
});

test('no more records wait for their schema than there is room for: the next holds all back, as one of a switch does', async () => {
  vi.useFakeTimers();
  const { feed, give, unknown } = await world([]);
  const list = Array.from({ length: 101 }, (_, i) => record(`incident/d${i}`, { destination: `d${i}`, code: 'x', since: 1, until: null }, i));
  for (const { value } of list) unknown.add(value.toString());
  await give(list.slice(0, 100), 100);
  await expect(give(list.slice(100), 101)).rejects.toThrow('the registry is away');
  unknown.clear();
  await vi.advanceTimersByTimeAsync(1000);
  await give(list.slice(100), 101);
  expect(feed.incidents().size).toBe(101);
  await feed.close();
});

test('whichever schemas cannot be had for a while, in the end the last word of each key counts', async () => {
  const write = fc.record({ name: fc.constantFrom('a', 'b', 'c'), kind: fc.constantFrom('incident', 'reserve', 'escalation'), away: fc.boolean(), back: fc.boolean(), passMs: fc.constantFrom(0, 200, 700) });
  await fc.assert(fc.asyncProperty(fc.array(write, { maxLength: 20 }), async (writes) => {
    vi.useFakeTimers();
    const { feed, give, unknown } = await world([]);
    const model = new Map<string, number>();
    for (const [i, { name, kind, away, back, passMs }] of writes.entries()) {
      if (back) unknown.clear();
      const next = record(kind === 'escalation' ? `escalation/${name}/breaker` : `${kind}/${name}`, { destination: name, account: name, code: 'x', since: i, at: i }, i);
      if (away) unknown.add(next.value.toString());
      await give([next], i + 1);
      model.set(`${kind} ${name}`, i);
      await vi.advanceTimersByTimeAsync(passMs);
    }
    unknown.clear();
    await vi.advanceTimersByTimeAsync(1000);
    const found = (['a', 'b', 'c'] as const).flatMap((name) => [['incident', feed.incidents().get(name)?.since], ['reserve', feed.reserves().get(name)?.at], ['escalation', feed.escalations().get(`${name}/breaker`)?.since]].flatMap(([kind, i]) => (i === undefined ? [] : [[`${kind} ${name}`, i]])));
    expect(new Map(found as [string, number][])).toEqual(model);
    await feed.close();
  }), { numRuns: 60 });
});
