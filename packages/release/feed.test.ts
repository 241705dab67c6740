import type { Log, Moment, RecordBatch } from '@weir/log';
import { expect, test } from 'vitest';
import { createReleaseFeed } from './feed.ts';

const record = (key: string, value: object, offset: number) => ({ offset, timestamp: 0, key: Buffer.from(key), value: Buffer.from(JSON.stringify(value)), headers: [] });
const change = (paused: boolean) => ({ destination: 'crm', paused, reason: null, by: 'admin', at: 1 });

/** A feed over weir.control with these records at its start; `give` is the next batch, `asOf` what its follower says, `fail` ends it. */
async function world(records: readonly ReturnType<typeof record>[]) {
  const followers: { give: (batch: RecordBatch) => Promise<void>; fail: (error: Error) => void }[] = [];
  let asOf: Moment = { monotonic: Number.NEGATIVE_INFINITY, wall: Number.NEGATIVE_INFINITY };
  const log = {
    reader: async () => ({
      read: async (_topic: string, _partition: number, _from: number, _to: number, take: (batch: object) => Promise<void>) => { await take({ records }); },
      follow: async (_topic: string, _from: object, give: (batch: RecordBatch) => Promise<void>, fail: (error: Error) => void) => {
        followers.push({ give, fail });
        return { close: async () => {}, asOf: () => asOf };
      },
      close: async () => {},
    }),
    admin: async () => ({ endOffsets: async () => new Map([[0, records.length]]) }),
  } as unknown as Log;
  const serde = { prepare: async () => {}, decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) as unknown }) };
  const feed = await createReleaseFeed({ log, serde: serde as never, topic: 'c', adapters: new Map(), logger: { info() {}, error() {} } as never, workspaceKey: Buffer.alloc(32) });
  return { feed, followers, told: (moment: Moment) => { asOf = moment; }, give: (list: readonly ReturnType<typeof record>[], nextOffset: number) => followers.at(-1)!.give({ topic: 'c', partition: 0, epoch: 0, records: list, nextOffset, highWatermark: nextOffset }) };
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
