import type { ConsumerHandlers, OutRecord } from '@weir/log';
import { groupNames, H, topicNames } from '@weir/pipeline';
import { isSealed, seal, sealKey, sealedBy, type SealKey } from '@weir/seal';
import { createHandClock } from '@weir/testing';
import { expect, test } from 'vitest';
import { createAppliedWatcher } from './applied.ts';
import type { PolicyPorts } from './ports.ts';

const topics = topicNames('t');
const key: SealKey = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 2));
const value = seal(key, Buffer.from('a change of consent of ann@larkspur.example'));

const soon = (): Promise<void> => new Promise((done) => { setImmediate(done); });

interface Folded { readonly state: string; readonly over?: string; readonly changeId?: string }

/** What is told of one change that every instance has applied; `keyOf` is asked when it is told. `own` is what the fold made of it, `stop` what the person says of every purpose. */
async function told(keyOf: () => SealKey | undefined, said = 'withdrawn', own: Folded = { state: said }, stop?: Folded): Promise<readonly OutRecord[]> {
  const appended: OutRecord[] = [];
  const clock = createHandClock(Date.UTC(2026, 0, 1));
  let handlers: ConsumerHandlers | undefined;
  let follow: (batch: object) => unknown = () => undefined;
  const committed = Promise.withResolvers<void>();
  const watcher = createAppliedWatcher({
    context: {
      topics, groups: groupNames('t'), keys: { byId: keyOf }, releases: { current: () => ({ policy: { routes: new Map([['ConsentApplied', []]]) } }) },
      serde: { known: () => true, prepare: async () => {}, decode: () => ({ name: 'weir.canonical.ConsentChange', value: { purpose: 'news', channel: null, topic: null, state: said, email: 'ann@larkspur.example' } }), encode: (_name: string, record: object) => Buffer.from(JSON.stringify(record)) },
      clock,
      log: { consumer: (options: { handlers: ConsumerHandlers }) => {
        handlers = options.handlers;
        return { start: async () => {}, close: async () => {}, commit: async () => committed.resolve() };
      } },
    },
    appender: { append: async (topic: string, records: readonly OutRecord[]) => {
      if (topic !== topics.consentApplied) appended.push(...records);
      // The fence, which nobody else wrote a report behind.
      else void follow({ records: [], nextOffset: 1 });
      return records.map(() => 0);
    }, partitionFor: () => 0 },
    admin: { endOffsets: async () => new Map([[0, 0]]) },
    tables: { folded: () => 1, consentPositions: () => [1], identityPositions: () => [0], stored: (name: string) => (name.includes('|*|') ? stop && { state: stop } : { state: { changeId: 'out_1', seen: ['out_1'], ...own } }), linked: (ids: readonly string[]) => ids, caughtUp: () => true, onAdvance() {} },
    metrics: { applied: { observe() {} } },
    fail: (error: unknown) => { committed.reject(error as Error); },
  } as unknown as PolicyPorts, { read: async () => {}, follow: async (_topic: string, _from: object, take: typeof follow) => {
    follow = take;
    return { positions: () => new Map(), close: async () => {} };
  } } as never);
  try {
    await watcher.start();
    await handlers!.assigned([{ topic: topics.consentChanges, partition: 0, epoch: 1, position: 0 }]);
    const headers = ([[H.event, 'evt_1'], [H.output, 'out_1'], [H.ids, 'email:a'], [H.accepted, String(clock.now())]] as const).map(([name, text]) => [name, Buffer.from(text)] as const);
    handlers!.batch({ topic: topics.consentChanges, partition: 0, epoch: 1, records: [{ offset: 0, timestamp: clock.now(), key: Buffer.from('email:a'), value, headers }], nextOffset: 1, highWatermark: 1 });
    let waits = true;
    const over = committed.promise.finally(() => { waits = false; });
    for (let turns = 0; waits && turns < 1000; turns++) {
      for (const _ of clock.turn(100)) await soon();
      await soon();
    }
    expect(waits, 'nothing is committed').toBe(false);
    await over;
  } finally {
    await watcher.stop();
  }
  return appended;
}

test('that a change has come to hold is told under the key of the change', async () => {
  const [record] = await told(() => key);
  expect(isSealed(record!.value!) && sealedBy(record!.value!)).toBe(sealedBy(value));
});

test('of a person who was erased while the change was waited for nothing is written, least of all in the clear', async () => {
  expect(await told(() => undefined)).toEqual([]);
});

test.each<[string, Folded, Folded?]>([
  ['the no before it stands', { state: 'withdrawn' }],
  ['another identifier or source keeps it closed', { state: 'denied' }],
  ['a no to every purpose stands', { state: 'unknown' }, { state: 'denied', changeId: 'out_0' }],
  ['a no to every purpose came since', { state: 'granted', over: '' }, { state: 'denied', changeId: 'out_9' }],
])('a yes that opened nothing is not told to who mirrors it: %s', async (_why, own, stop) => {
  expect(await told(() => key, 'granted', own, stop)).toEqual([]);
});

test('a yes that opened is told, over a no to every purpose, too', async () => {
  expect(await told(() => key, 'granted', { state: 'granted' })).toHaveLength(1);
  expect(await told(() => key, 'granted', { state: 'granted', over: 'out_0' }, { state: 'denied', changeId: 'out_0' })).toHaveLength(1);
});

test('a no is told whatever the state says by then: it closes nothing that is open to tell it', async () => {
  expect(await told(() => key, 'withdrawn', { state: 'granted' })).toHaveLength(1);
});
