import { foldedKey } from '@weir/consent';
import { WeirError, type ErrorCode } from '@weir/errors';
import type { ConsumerHandlers, LogRecord, OutRecord } from '@weir/log';
import { consentApi, groupNames, H, ofDeadLetter, ofQuarantine, topicNames } from '@weir/pipeline';
import type { ConsentState } from '@weir/policy';
import { expect, test } from 'vitest';
import { createFolder } from './fold.ts';
import type { PolicyPorts } from './ports.ts';
import { createRelay } from './relay.ts';

/** A folder that owns partition 0, with tables that say what they are told to. */
async function world() {
  const topics = topicNames('t');
  const appended: OutRecord[] = [];
  const table = { regressed: [] as string[], position: 0 };
  let handlers: ConsumerHandlers | undefined;
  let advance: () => void = () => {};
  let offset = 100;
  createFolder({
    context: {
      topics, groups: groupNames('t'), serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) }, logger: { warn() {} },
      log: { consumer: (options: { handlers: ConsumerHandlers }) => { handlers = options.handlers; return {}; } },
    },
    appender: { partitions: async () => 2, append: async (_topic: string, records: readonly OutRecord[]) => { appended.push(...records); return records.map(() => offset++); } },
    tables: {
      readToEnd: async () => {}, regressed: () => table.regressed, consentPositions: () => [table.position], onAdvance: (listener: () => void) => { advance = listener; },
      folded: () => 78,
      stored: (key: string) => ({ partition: 0, state: { version: 7 } as ConsentState, bytes: Buffer.from(`the newest of ${key}`) }),
    },
    fail: (error: unknown) => { throw error as Error; },
  } as unknown as PolicyPorts, async () => {});
  await handlers!.assigned([{ topic: topics.consentChanges, partition: 0, epoch: 1, position: 0 }]);
  appended.length = 0;
  /** The table has read what the topic holds, and says that these keys were overwritten. */
  const read = async (regressed: string[]): Promise<string[]> => {
    table.regressed = regressed;
    table.position = offset;
    advance();
    advance();
    for (let i = 0; i < 10; i++) await Promise.resolve();
    return appended.splice(0).map(({ key, value }) => `${key!.toString()}: ${value!.toString()}`);
  };
  return { read };
}

// Compaction leaves only the last record of a key: a dispatcher with an empty cache would have read the older one, a grant perhaps.
test('a state that a late writer overwrote is written again when that is seen, once, not only at the next assignment', async () => {
  const { read } = await world();
  expect(await read(['a'])).toEqual(['a: the newest of a']);
  expect(await read([])).toEqual([]);
  expect(await read(['a', 'b'])).toEqual(['a: the newest of a', 'b: the newest of b']);
});

// Compacted, the topic told less than a dispatcher had said: who began anew waited for the rest for ever, and called nothing.
test('a mark that a late writer overwrote is written again, as far as the table knows', async () => {
  const { read } = await world();
  expect(await read([foldedKey(0), 'a'])).toEqual([`${foldedKey(0)}: {"partition":0,"nextOffset":78}`, 'a: the newest of a']);
});

// A broker that was cut off told an old end: a grant that the owner before had folded was not known, and opened again when it came once more.
test('a new owner folds nothing before its table has a record that it wrote itself', async () => {
  const topics = topicNames('t');
  const steps: string[] = [];
  let asked: ReadonlyMap<number, number> | undefined;
  let reached!: () => void;
  let handlers: ConsumerHandlers | undefined;
  createFolder({
    context: { topics, groups: groupNames('t'), serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) }, logger: { warn() {} }, log: { consumer: (options: { handlers: ConsumerHandlers }) => { handlers = options.handlers; return {}; } } },
    appender: { partitions: async () => 3, append: async (_topic: string, records: readonly OutRecord[]) => { steps.push(...records.map(({ key, value }) => `${key!.toString()} ${value!.toString()}`)); return records.map((_, i) => 100 + 10 * i); } },
    tables: { readToEnd: (atLeast: ReadonlyMap<number, number>) => { asked = atLeast; return new Promise<void>((done) => { reached = done; }); }, regressed: () => [], consentPositions: () => [0, 0, 0], onAdvance() {} },
    fail: (error: unknown) => { throw error as Error; },
  } as unknown as PolicyPorts, async () => {});
  let done = false;
  const assigned = handlers!.assigned([{ topic: topics.consentChanges, partition: 0, epoch: 1, position: 7 }, { topic: topics.consentChanges, partition: 2, epoch: 1, position: 9 }]);
  void Promise.resolve(assigned).then(() => { done = true; });
  for (let i = 0; i < 10; i++) await Promise.resolve();
  expect([steps, [...asked!], done]).toEqual([['#folded/0 {"partition":0,"nextOffset":7}', '#folded/2 {"partition":2,"nextOffset":9}'], [[0, 101], [2, 111]], false]);
  reached();
  await assigned;
});

const ids = ['userId:u', 'email:e'] as const;
const bytes = Buffer.from('\0\0\0\0\x01a change');

/** A folder that owns partition 0 of two and folds what it is given; every append and commit, in order. */
function folding(purpose: string, erasedUntil?: number, registry = { here: true }, { by = consentApi, stored, channel = null }: { readonly by?: string; readonly stored?: Partial<ConsentState>; readonly channel?: string | null } = {}) {
  const topics = topicNames('t');
  const steps: string[] = [];
  const appended: { topic: string; record: OutRecord }[] = [];
  const counted: string[] = [];
  const warned: string[] = [];
  const release = { hash: 'one' };
  const thrown = (code: ErrorCode): never => { throw new WeirError(code); };
  let handlers: ConsumerHandlers | undefined;
  let offset = 100;
  const shared = {
    context: {
      topics, groups: groupNames('t'), clock: { now: () => 5000, setTimer: (callback: () => void) => setImmediate(callback) }, keys: { erasedUntil: () => erasedUntil }, releases: { current: () => ({ hash: release.hash, policy: { purposes: new Map([['news', {}]]), routes: new Map([['Profile', [{ purpose: 'news', channel: 'email' }]]]) }, sources: new Map() }) }, logger: { warn: (_fields: object, message: string) => { warned.push(message); } },
      serde: { known: () => registry.here, prepare: async () => { if (!registry.here) throw new WeirError('log-unavailable'); }, encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)), decode: () => erasedUntil !== undefined ? thrown('subject-erased') : ({ name: 'weir.canonical.ConsentChange', value: { purpose, channel, topic: null, state: 'withdrawn', source: 'shop', occurredAt: 1000 } }) },
      log: { consumer: (options: { handlers: ConsumerHandlers }) => { handlers = options.handlers; return { commit: async ([{ offset: to }]: [{ offset: number }]) => { steps.push(`commit ${to}`); }, pause() {}, resume() {} }; } },
    },
    appender: {
      partitionFor: () => 1, partitions: async () => 2,
      append: async (topic: string, records: readonly OutRecord[]) => {
        steps.push(topic);
        for (const record of records) appended.push({ topic, record });
        return records.map(() => offset++);
      },
    },
    tables: { readToEnd: async () => {}, regressed: () => [], consentPositions: () => [0], onAdvance() {}, stored: (key: string) => (stored === undefined || key.includes('|*|') ? undefined : { partition: 0, state: stored }) },
    metrics: { folded: { inc: ({ changed }: { changed: string }) => { counted.push(changed); } }, deadLettered: { inc: ({ code }: { code: string }) => { counted.push(code); } }, foldLatency: { observe() {} }, unknownPurpose: { inc: () => { counted.push('unknown purpose'); } }, lag: { set() {} } }, progress: { committed() {}, lag() {} },
    fail: (error: unknown) => { throw error as Error; },
  } as unknown as PolicyPorts;
  createFolder(shared, createRelay(shared));
  const change = (key: string, at: number): LogRecord => ({
    offset: at, timestamp: 2000, key: Buffer.from(key), value: bytes,
    headers: [[H.mapping, by], [H.output, `out-${at}`], [H.ids, ids.join(',')], [H.accepted, '1500'], [H.source, 'consent-api']].map(([name, text]) => [name!, Buffer.from(text!)]),
  }) as unknown as LogRecord;
  return {
    topics, steps, appended, counted, warned, release,
    revoke: () => handlers!.revoked([{ topic: topics.consentChanges, partition: 0, epoch: 1, position: 0 }], 'rebalance'),
    async fold(...keys: string[]): Promise<void> {
      await handlers!.assigned([{ topic: topics.consentChanges, partition: 0, epoch: 1, position: 0 }]);
      steps.length = appended.length = 0;
      handlers!.batch({ topic: topics.consentChanges, partition: 0, epoch: 1, highWatermark: keys.length, nextOffset: keys.length, records: keys.map(change), bytes: 1 } as never);
      await new Promise((done) => setImmediate(done));
    },
  };
}

test('a change whose API died after its first record goes to its other identifiers and to the destinations, before it is committed', async () => {
  const { topics, steps, appended, fold } = folding('news');
  await fold(ids[0]);
  expect(steps).toEqual([topics.consent, topics.consentChanges, topics.identity, topics.canonical, 'commit 1']);
  const [copy] = appended.filter((a) => a.topic === topics.consentChanges);
  const [canonical] = appended.filter((a) => a.topic === topics.canonical);
  const header = (record: OutRecord, name: string) => record.headers!.find(([n]) => n === name)?.[1].toString();
  expect([copy!.record.key!.toString(), copy!.record.value, header(copy!.record, H.output), header(copy!.record, H.logged)]).toEqual([ids[1], bytes, 'out-0', '2000']);
  expect(appended.find((a) => a.topic === topics.identity)!.record.key!.toString()).toBe('email:e~userId:u');
  // Not decided before the states of both, and the link, are there.
  expect([canonical!.record.key!.toString(), canonical!.record.value, header(canonical!.record, H.output), header(canonical!.record, H.afterConsent), header(canonical!.record, H.afterIdentity)]).toEqual([ids[0], bytes, 'out-0', '0:0,1:103', '1:104']);
});

test('the change of another identifier, the API\'s or a copy, brings nothing more', async () => {
  const { topics, steps, fold } = folding('news');
  await fold(ids[1]);
  expect(steps).toEqual([topics.consent, 'commit 1']);
});

test('a no to every purpose goes to every identifier and to no destination', async () => {
  const { topics, steps, fold } = folding('*');
  await fold(ids[0]);
  expect(steps).toEqual([topics.consent, topics.consentChanges, topics.identity, 'commit 1']);
});

test('a change waits for a registry that is away and is folded when it is back; a partition that leaves meanwhile is let go, with nothing folded or committed', async () => {
  const registry = { here: false };
  const { topics, steps, fold } = folding('news', undefined, registry);
  await fold(ids[1]);
  expect(steps).toEqual([]);
  registry.here = true;
  for (let i = 0; i < 5; i++) await new Promise((done) => setImmediate(done));
  expect(steps).toEqual([topics.consent, 'commit 1']);
  registry.here = false;
  const other = folding('news', undefined, registry);
  await other.fold(ids[1]);
  await other.revoke();
  expect(other.steps).toEqual([]);
});

// Accepted at 1500, sealed under a key that is destroyed.
test('a change that was said after the erasure and sealed under the key of before it is a dead letter; one of before it is counted, and neither is lost in silence', async () => {
  const late = folding('news', 1499);
  await late.fold(ids[0]);
  expect(late.steps).toEqual([late.topics.dlq, late.topics.outcome, late.topics.consent, 'commit 1']);
  expect(JSON.parse(late.appended.find((a) => a.topic === late.topics.dlq)!.record.value!.toString()).reasons).toMatchObject([{ code: 'key-destroyed' }]);
  const covered = folding('news', 1500);
  await covered.fold(ids[0]);
  expect([covered.steps, covered.counted, late.counted]).toEqual([[covered.topics.consent, 'commit 1'], ['erased'], ['key-destroyed']]);
});

test('changes for a purpose that the workspace does not have are kept and each is counted; the first of a source is logged, once a release', async () => {
  const { topics, steps, counted, warned, release, fold } = folding('segment-category-unmapped');
  await fold(ids[1], ids[1], ids[1]);
  expect([steps, counted.filter((c) => c === 'unknown purpose').length, warned]).toEqual([[topics.consent, 'commit 3'], 3, [expect.stringContaining('purpose that the workspace does not have')]]);
  release.hash = 'two';
  await fold(ids[1], ids[1]);
  expect([counted.filter((c) => c === 'unknown purpose').length, warned.length]).toEqual([5, 2]);
});

// The change is of the source shop, accepted at 1500 and dated 1000; the act of yes is of the same source.
test.each([
  ['shop', 900, 'withdrawn', 'out-0'],
  [ofDeadLetter, 1200, 'withdrawn', ''],
  [ofQuarantine, 900, 'withdrawn', ''],
  [ofQuarantine, 1200, 'granted', 'yes'],
])('a no by %s after a yes of %i: %s, brought about by "%s"', async (by, happenedAt, state, setBy) => {
  const { appended, fold, topics } = folding('news', undefined, undefined, { by, stored: { state: 'granted', source: 'shop', seen: [], version: -1, changedAt: 1300, happenedAt, setBy: 'yes' } });
  await fold(ids[1]);
  expect(JSON.parse(appended.find(({ topic }) => topic === topics.consent)!.record.value!.toString())).toMatchObject({ state, setBy, seen: ['out-0'] });
});

// One by the API is in words that its caller chose by the document of Weir.
test.each([
  ['onetrust', 'all', true],
  [ofDeadLetter, 'all', true],
  ['onetrust', 'E-Mail', false],
  ['onetrust', null, false],
  [consentApi, 'fax', false],
])('a no by %s for %s is kept as one for a channel that no route has: %s', async (by, channel, unrouted) => {
  const { appended, fold, topics } = folding('news', undefined, undefined, { by, channel });
  await fold(ids[1]);
  expect(JSON.parse(appended.find(({ topic }) => topic === topics.consent)!.record.value!.toString())).toMatchObject({ state: 'withdrawn', channel: channel ?? '', unrouted });
});
