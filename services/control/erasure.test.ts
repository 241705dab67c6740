import { beforeEach, expect, test } from 'vitest';
import type { OutRecord } from '@weir/log';
import { groupNames, H, linkedOperation, linkedOutput, topicNames } from '@weir/pipeline';
import { checkUse, consentKey, everyPurpose, foldConsent, type ConflictRule, type ConsentChange, type ConsentState } from '@weir/policy';
import { keyedIdsOf, type Identifiers } from '@weir/release';
import type { NewLeaf } from './audit.ts';
import type { Erasure } from './erasure-receipt.ts';
import { createErasures, type Erasures } from './erasure.ts';
import type { Remaining, Remains } from './remains.ts';
import type { Follow, SubjectRecord } from './subjects.ts';

const topics = topicNames('weir');
const workspaceKey = Buffer.alloc(32, 7);
const ada: Identifiers = { email: 'ada@larkspur.example', externalIds: [] };
const [adaId] = keyedIdsOf(workspaceKey, ada) as [string];
const minute = 60_000;

/** All is destroyed. */
const nothing: Remaining = { readable: 0, unreadable: 2, broken: 0, until: null };

let now: number;
let log: { topic: string; record: OutRecord }[];
let marks: Map<string, number>;
let linked: string[];
let wide: boolean;
let known: boolean;
/** What only a source that is not trusted has linked with the person. */
let doubtful: string[];
/** Another control service has ended the erasure, and destroyed the key of its order. */
let ended: boolean;
let states: Map<string, { purpose: string }[] | 'too-many'>;
/** Since when the person is said to be somewhere, by identifier. */
let regions: Map<string, number>;
let forgotten: string[];
let records: (Pick<SubjectRecord, 'type' | 'value'> & { source?: string })[];
/** Runs while the records are read, as a scan of 30 days takes its time. */
let whileReading: () => void;
let whileMarking: () => void;
let whileLooking: () => void;
let gate: Promise<void>;
let scans: number;
/** What links keep, the newest first. */
let kept: { at: number; userId: string | null; email: string | null; phone: string | null }[];
/** By what operations name people. */
let identifiers: Record<string, readonly string[]>;
/** Offsets of the Erasures that the index has, by output. */
let canonicalPlaces: Map<string, number>;
let stages: Record<string, unknown>[];
let routes: { destination: string; operation: string }[];
let destroyed: string[];
/** What stands on the topics. */
let remaining: Remaining;
let looks: number;
let leaves: NewLeaf[];
let policyCommitted: number;
let indexed: number;
let timers: (() => void)[];
let erasures: Erasures;

/** The log is the edge here: bytes are JSON, as this test has no registry. */
const serde = { prepare: async () => {}, encode: (name: string, value: object) => Buffer.from(JSON.stringify({ name, ...value })), decode: (bytes: Buffer) => ({ value: JSON.parse(bytes.toString(), (_k, v) => (v?.type === 'Buffer' ? Buffer.from(v.data) : v)) }) };
const key = { id: Buffer.alloc(16), secret: Buffer.alloc(32) };

function open(): Erasures {
  const keys = {
    ensure: async () => {}, current: () => sealKey, open: (bytes: Buffer) => (ended ? undefined : unseal(sealKey, bytes)), erasedUntil: () => 0,
    markErased: async (ids: string[], at: number) => { for (const id of ids) marks.set(id, at); whileMarking(); },
    readToEnd: async () => {}, positions: () => [marks.size, destroyed.length],
    destroy: async (owners: string[], which?: string, before?: (count: number) => Promise<void>) => {
      const count = owners.filter((owner) => !gone.has(owner)).length;
      await before?.(count);
      destroyed.push(...owners);
      for (const owner of owners) gone.add(owner);
      for (const owner of owners) for (const key of which === 'marked' ? ['old'] : ['old', 'new']) log.push({ topic: topics.keys, record: { partition: 0, key: Buffer.from(`${owner}#key/${key}`), value: null } });
      return count;
    },
  };
  const subjects = {
    resolve: async (given: Identifiers, follow: Follow) => (wide ? { ids: keyedIdsOf(workspaceKey, given), onlyGiven: true, leftOut: [] } : person(follow)),
    close: async (ids: readonly string[], follow: Follow) => (wide ? { ids, onlyGiven: true, leftOut: [] } : person(follow)), known: () => known, trustsSource: (source: string) => source !== 'web',
    // As `openIdentifiers` does: under keys that are destroyed nothing opens.
    linkValues: async (ids: readonly string[]) => (ids.some((id) => gone.has(id)) ? [] : kept),
    scan: async (_ids: readonly string[], take: (r: SubjectRecord) => void) => { await gate; scans++; for (const r of records) take({ at: now, ...r } as SubjectRecord); whileReading(); },
  };
  const appender = { append: async (topic: string, list: OutRecord[]) => list.map((record) => log.push({ topic, record }) - 1), partitionFor: () => 0, partitions: async () => 1 };
  // What was on the second partition has left by retention, and the index has nothing of it.
  const admin = { beginningOffsets: async () => new Map([[0, 0], [1, 50]]), endOffsets: async (topic: string) => new Map([[1, 50], [0, topic === topics.control ? log.length : topic === topics.keys ? 0 : 10]]), committed: async () => new Map([[0, policyCommitted]]) };
  const reader = { read: async (topic: string, _p: number, _f: number, _t: number, take: (batch: object) => Promise<void>) => take({ records: log.filter((l) => l.topic === topic).map((l) => l.record) }) };
  const release = { hash: 'rel', sources: new Map([['shop', {}]]), destinations: new Map(['crm', 'ads'].map((name) => [name, { get operations() { return Object.fromEntries(Object.entries(identifiers).map(([operation, of]) => [operation, { identifiers: of }])); } }])), policy: { purposes: new Map([['email-marketing', {}]]), get routes() { return new Map([['Erasure', routes]]); } } };
  const store = { stages: () => stages, places: () => [{ topic: topics.canonical, partition: 0, offset: 3 }], canonicalPlaces: (_event: string, output: string) => (canonicalPlaces.has(output) ? [{ topic: topics.canonical, partition: 0, offset: canonicalPlaces.get(output)! }] : []), position: (_topic: string, partition: number) => (partition === 0 ? indexed : 0) };
  const remains: Remains = {
    async look(_ids, _mark, goOn) {
      goOn();
      looks++;
      whileLooking();
      return remaining;
    },
    async forgetRegions(ids, mark) {
      for (const id of ids) if ((regions.get(id) ?? Infinity) <= mark && regions.delete(id)) forgotten.push(id);
    },
    // As the policy service folds it: a withdrawal of the key takes the words of before away.
    async statesWithProof(ids, mark) {
      for (const { record } of log.filter((l) => l.topic === topics.consentChanges)) {
        if (folded.has(record)) continue;
        folded.add(record);
        const value = JSON.parse(record.value!.toString()) as { purpose: string; channel: string | null; topic: string | null };
        const i = proofs.findIndex((state) => state.id === record.key!.toString() && state.purpose === value.purpose && state.channel === (value.channel ?? '') && state.topic === (value.topic ?? ''));
        if (i >= 0) proofs.splice(i, 1);
      }
      const left = proofs.filter((state) => ids.includes(state.id) && state.changedAt <= mark);
      if (left.length === 0) proofs.push(...late.splice(0, 1));
      return left;
    },
    keysLeft: async () => keysLeft,
  };
  return createErasures({
    appender, reader, admin, serde, topics, policyGroup: groupNames('weir').policy, keys, barrier: { applied: async (_marks: object, _ids: object, _ms: number, keys: readonly number[]) => behind(keys) }, tables: { states: (id: string) => states.get(id) ?? [] }, subjects, remains, store, workspaceKey, release: () => release, rawUntil: async (at: number) => rawUntil(at), audit: async (leaf: NewLeaf) => { leaves.push(leaf); return 'leaf'; },
    logger: { info() {}, warn() {}, error(fields: { err?: Error }) { if (fields.err !== undefined) failures.push(fields.err); } }, now: () => now, setTimer: (run: () => void) => { timers.push(run); return run; }, clearTimer: () => {},
  } as never);
}
const person = (follow: Follow) => (follow === 'all' ? { ids: [...linked, ...doubtful], onlyGiven: false, leftOut: [] } : { ids: linked, onlyGiven: false, leftOut: doubtful });
let rawUntil: (at: number) => number | null;
/** Owners whose keys are destroyed. */
let gone: Set<string>;
let proofs: any[];
/** Comes behind the search that found nothing, one at a time. */
let late: any[];
let folded: Set<OutRecord>;
let keysLeft: number;
/** Whether every dispatcher has read weir.keys up to there (how many marks, and how many keys that are destroyed). */
let behind: (keys: readonly number[]) => boolean;
let failures: Error[];
const { sealKey: makeKey, unseal } = await import('@weir/seal');
const sealKey = makeKey(key.id, key.secret);

beforeEach(() => {
  now = 12 * 60 * minute;
  [log, marks, linked, wide, known, records, scans, stages, destroyed, policyCommitted, indexed, timers, failures] = [[], new Map(), [adaId], false, true, [{ type: 'weir.canonical.Profile', value: { email: ada.email, userId: 'u-7' } }], 0, [], [], 0, 10, [], []];
  [remaining, looks, keysLeft, leaves, behind] = [nothing, 0, 0, [], () => true];
  routes = [{ destination: 'crm', operation: 'erase' }];
  states = new Map();
  [proofs, late, folded] = [[], [], new Set()];
  [regions, forgotten] = [new Map(), []];
  doubtful = [];
  [kept, identifiers, canonicalPlaces] = [[], {}, new Map()];
  whileReading = whileMarking = whileLooking = () => {};
  rawUntil = (at) => at;
  gone = new Set();
  ended = false;
  gate = Promise.resolve();
  erasures = open();
});
const order = (id = 'leaf_1', forced = false, given = ada, everyLink = false) => erasures.order(given, { by: 'token:dpo', leaf: id, deadlineMs: 30 * 24 * 60 * minute, forced, everyLink });
async function until(check: (e: Erasure) => boolean, id = 'leaf_1'): Promise<Erasure> {
  for (let i = 0; i < 500; i++) {
    if (failures.length > 0) throw failures[0]!;
    if (check(erasures.get(id))) return erasures.get(id);
    if (i % 20 === 19) for (const run of timers.splice(0)) run();
    await new Promise(setImmediate);
  }
  throw new Error(`still ${erasures.get(id).state}`);
}
/** Enough turns for what waits for nothing but a timer. */
async function rounds(): Promise<void> {
  for (let i = 0; i < 50; i++) {
    for (const run of timers.splice(0)) run();
    await new Promise(setImmediate);
  }
}
const told = (): any[] => log.filter((l) => l.topic === topics.canonical).map(({ record }) => ({ accepted: Number(record.headers!.find(([n]) => n === H.accepted)![1].toString()), value: JSON.parse(unseal(sealKey, record.value!).toString()) }));

test('the order is answered before any record is read, and what is accepted while they are read is erased, too', async () => {
  whileReading = () => { now += 25 * minute; };
  const reading = Promise.withResolvers<void>();
  gate = reading.promise;
  const { erasure } = await order();
  expect([erasure.state, erasure.orderedAt, scans]).toEqual(['ordered', 12 * 60 * minute, 0]);
  reading.resolve();
  const marked = await until((e) => e.state === 'erased');
  expect(marked.markedAt).toBe(12 * 60 * minute + 25 * minute);
  expect([...marks.values()]).toEqual(marked.ids.map(() => marked.markedAt));
  // Neither the withdrawals nor the record for the destinations may count as older than what they close.
  const withdrawals = log.filter((l) => l.topic === topics.consentChanges).map((l) => Number(l.record.headers!.find(([n]) => n === H.accepted)![1].toString()));
  expect(withdrawals.every((at) => at === marked.markedAt)).toBe(true);
  expect(told()[0]).toMatchObject({ accepted: marked.markedAt! + 1, value: { email: ada.email, userId: 'u-7' } });
});

test('a proof that stands with a state of a channel or topic is withdrawn before the acknowledgement, what comes late before the end, and what is of one who came again stays', async () => {
  const state = { id: adaId, purpose: 'email-marketing', channel: 'email', topic: '', version: 7, changedAt: now, proof: 'form signed by Ada' };
  proofs = [state, { ...state, channel: '', topic: 'weekly' }, { ...state, channel: 'sms', changedAt: now + minute }];
  late = [{ ...state, version: 9 }];
  await order();
  const acknowledged = await until((e) => e.state === 'erased');
  const written = () => log.filter((l) => l.topic === topics.consentChanges && l.record.key!.toString() === adaId).map(({ record }) => [JSON.parse(record.value!.toString()), record.headers!.find(([n]) => n === H.output)![1].toString()] as const);
  expect(written().map(([{ purpose, channel, topic, state: word, proof }]) => [purpose, channel, topic, word, proof])).toEqual([
    ['*', null, null, 'withdrawn', undefined], ['email-marketing', null, null, 'withdrawn', undefined], ['email-marketing', 'email', null, 'withdrawn', undefined], ['email-marketing', null, 'weekly', 'withdrawn', undefined],
  ]);
  expect(new Set(written().map(([, output]) => output)).size).toBe(4);
  expect(proofs.map(({ channel, version }) => [channel, version])).toEqual([['sms', 7], ['email', 9]]);
  expect(acknowledged.keysDestroyed).toBeGreaterThan(0);
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase' }, { stage: 'outcome', at: now, destination: 'crm', operation: 'erase', state: 'delivered' }];
  await until((e) => e.state === 'done');
  // Under an id of its own: the state remembers the one that it had folded.
  expect([proofs.map(({ channel }) => channel), new Set(written().map(([, output]) => output)).size]).toEqual([['sms'], 5]);
});

test('where the person is known to be is taken from the topic, and not what was said since by one who came again', async () => {
  const [before, since] = ['userId:before', 'userId:since'];
  linked = [adaId, before, since];
  regions.set(before, now).set(since, now + minute);
  await order();
  await until((e) => e.state === 'erased');
  expect(forgotten).toEqual([before]);
});

test('where the person is known to be is taken from the topic before the acknowledgement also where it was written behind its deletion, and once more before the end', async () => {
  regions.set(adaId, now);
  // A policy service that had not read the mark decided a Profile, and its append comes late.
  whileLooking = () => { regions.set(adaId, 0); };
  await order();
  await until((e) => e.state === 'erased');
  expect([forgotten.at(-1), regions.size]).toEqual([adaId, 0]);
  const count = forgotten.length;
  regions.set(adaId, 0);
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase' }, { stage: 'outcome', at: now, destination: 'crm', operation: 'erase', state: 'delivered' }];
  await until((e) => e.state === 'done');
  expect([forgotten.length, regions.size]).toEqual([count + 1, 0]);
});

test('what is linked while the records are read, or the mark is written, is read and marked with the rest', async () => {
  const [late, later] = ['userId:late', 'userId:later'];
  whileReading = () => { if (scans === 1) linked = [adaId, late]; };
  whileMarking = () => { linked = [adaId, late, later]; };
  await order();
  const found = await until((e) => e.state === 'erased');
  expect(found.ids).toEqual(expect.arrayContaining([adaId, late, later]));
  expect([...marks.keys()]).toEqual(expect.arrayContaining([adaId, late, later]));
  expect(new Set(marks.values()).size).toBe(1);
});

test('what the person said for a purpose that only a later release has is withdrawn, too', async () => {
  linked = [adaId, 'userId:wide'];
  states = new Map<string, { purpose: string }[] | 'too-many'>([[adaId, [{ purpose: 'email-marketing' }, { purpose: 'sms-marketing' }]], ['userId:wide', 'too-many']]);
  await order();
  const { ids } = await until((e) => e.state === 'erased');
  const withdrawn = log.filter((l) => l.topic === topics.consentChanges).map(({ record }) => `${record.key!.toString()} ${JSON.parse(record.value!.toString()).purpose}`);
  expect(withdrawn.toSorted()).toEqual(ids.flatMap((id) => [`${id} *`, `${id} email-marketing`, `${id} sms-marketing`]).toSorted());
});

test.each<ConflictRule>([{ kind: 'log-order', priority: [] }, { kind: 'strictest', priority: [] }, { kind: 'source-priority', priority: ['onetrust'] }])('who comes back is used for nothing before a new consent, also not for a purpose that a later release brings, whatever its legal basis: $kind', async (rule) => {
  await order();
  const { ids, markedAt } = await until((e) => e.state === 'erased');
  const kept = new Map<string, ConsentState>();
  let offset = 0;
  function fold(id: string, change: ConsentChange): void {
    const key = consentKey(id, change.purpose, change.channel, change.topic);
    const next = foldConsent(kept.get(key), id, change, offset++, rule, kept.get(consentKey(id, everyPurpose, '', '')));
    if (next !== undefined) kept.set(key, next);
  }
  const base = { channel: '', topic: '', legalBasis: null, proof: null, expiresAt: null };
  for (const { record } of log.filter((l) => l.topic === topics.consentChanges)) {
    const { id: changeId, purpose, state, source } = JSON.parse(record.value!.toString()) as { id: string; purpose: string; state: 'withdrawn'; source: string };
    fold(record.key!.toString(), { ...base, changeId, purpose, state, source, acceptedAt: markedAt! });
  }
  const open = (purpose: string, basis: string): boolean => checkUse(ids, purpose, null, null, basis, (id) => [...kept.values()].filter((s) => s.id === id), markedAt! + 9 * minute).ok;
  const purposes = [['email-marketing', 'consent'], ['of-a-later-release', 'contract'], ['another', 'legitimate-interest']] as const;
  expect(purposes.map(([purpose, basis]) => open(purpose, basis))).toEqual([false, false, false]);
  // What is said with every call is no new consent; an act is, for its purpose alone.
  const yes = (purpose: string, more: Partial<ConsentChange>): void => { for (const id of ids) fold(id, { ...base, changeId: `yes-${offset}`, purpose, state: 'granted', source: 'shop', acceptedAt: markedAt! + minute + offset, ...more }); };
  yes('of-a-later-release', { standing: true });
  expect(open('of-a-later-release', 'contract')).toBe(false);
  yes('of-a-later-release', {});
  expect(purposes.map(([purpose, basis]) => open(purpose, basis))).toEqual([false, true, false]);
  yes('email-marketing', {});
  expect(purposes.map(([purpose, basis]) => open(purpose, basis))).toEqual([true, true, false]);
});

test('the receipt says when the last raw key of the day of the mark dies, and nothing where that is not known', async () => {
  rawUntil = (at) => at + minute;
  await order();
  expect((await until((e) => e.markedAt !== null)).rawUntil).toBe(now + minute);
  rawUntil = () => null;
  await order('leaf_2');
  expect((await until((e) => e.markedAt !== null, 'leaf_2')).rawUntil).toBe(null);
});

test('the receipt and the leaf count the keys that were destroyed also where the step is repeated, behind a barrier that was not passed or a crash', async () => {
  behind = (keys) => keys[1] === 0;
  await order();
  await rounds();
  for (const error of failures.splice(0)) expect(error.message).toMatch(/not every dispatcher/);
  expect([erasures.get('leaf_1').state, gone.size > 0]).toEqual(['told', true]);
  const { ids } = erasures.get('leaf_1');
  await startAnew();
  behind = () => true;
  expect((await until((e) => e.state === 'erased')).keysDestroyed).toBe(ids.length);
  expect(leaves.at(-1)).toMatchObject({ action: 'subject.erased', details: { keysDestroyed: ids.length } });
});

test('an erasure with records that open all the same is not acknowledged until retention has taken them, over a restart too', async () => {
  const end = now + 8 * 24 * 60 * minute;
  remaining = { readable: 3, unreadable: 0, broken: 1, until: end };
  await order();
  const held = await until((e) => e.state === 'readable');
  expect(held).toMatchObject({ erasedAt: null, recordsReadable: 3, readableUntil: end });
  expect(leaves).toEqual([{ kind: 'fact', actor: 'control', action: 'subject.readable', target: 'leaf_1', of: 'leaf_1', details: { keysDestroyed: held.keysDestroyed, recordsUnreadable: 0, recordsReadable: 3, readableUntil: new Date(end).toISOString() } }]);
  // The destinations go on meanwhile, and none of them ends it.
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase' }, { stage: 'outcome', at: now, destination: 'crm', operation: 'erase', state: 'delivered' }];
  expect((await until((e) => e.destinations[0]?.state === 'delivered')).state).toBe('readable');
  await erasures.stop();
  erasures = open();
  await erasures.start();
  const before = looks;
  now = end - 1;
  await rounds();
  expect([erasures.get('leaf_1').state, looks]).toEqual(['readable', before]);
  // One is there still: it is looked for again a day later, and not at each turn.
  now = end;
  remaining = { readable: 1, unreadable: 1, broken: 0, until: end + 7 * 24 * 60 * minute };
  expect(await until((e) => e.recordsReadable === 1)).toMatchObject({ state: 'readable', recordsUnreadable: 1 });
  const looked = looks;
  await rounds();
  expect(looks).toBe(looked);
  remaining = nothing;
  now = erasures.get('leaf_1').readableUntil!;
  expect(await until((e) => e.state === 'done')).toMatchObject({ erasedAt: now, recordsReadable: 0, readableUntil: null });
  expect(leaves.map((l) => l.action)).toEqual(['subject.readable', 'subject.erased']);
});

test('where what can be read is kept for ever there is no time at which it is gone, and it is looked for once a day', async () => {
  remaining = { readable: 1, unreadable: 0, broken: 0, until: null };
  await order();
  expect(await until((e) => e.state === 'readable')).toMatchObject({ recordsReadable: 1, readableUntil: null });
  remaining = nothing;
  now += 24 * 60 * minute - 1;
  await rounds();
  expect(erasures.get('leaf_1').state).toBe('readable');
  now += 1;
  expect((await until((e) => e.erasedAt !== null)).recordsReadable).toBe(0);
});

test('no withdrawal of an erasure counts as applied before every dispatcher has read its mark, and it is not acknowledged before they have read that the keys are gone', async () => {
  let read = [0, 0];
  behind = (keys) => keys.every((n, i) => n <= read[i]!);
  await order();
  const stands = async (): Promise<string> => {
    await rounds();
    // What is not applied yet is told, and tried again.
    for (const error of failures.splice(0)) expect(error.message).toMatch(/not every dispatcher/);
    return erasures.get('leaf_1').state;
  };
  expect(await stands()).toBe('marked');
  expect(destroyed).toEqual([]);
  read = [marks.size, 0];
  expect([await stands(), destroyed.length > 0]).toEqual(['told', true]);
  read = [marks.size, Infinity];
  expect(await stands()).toBe('erased');
});

test('an erasure is not acknowledged while a key of before the mark stands', async () => {
  keysLeft = 1;
  await order();
  await expect(until((e) => e.erasedAt !== null)).rejects.toThrow('1 keys of before the mark are there');
  expect(looks).toBe(0);
  [keysLeft, failures] = [0, []];
  await until((e) => e.state === 'erased');
});

test('the key of who came back between the mark and the end of the erasure stays: what is sealed under it is not erased', async () => {
  const put = (name: string): void => { log.push({ topic: topics.keys, record: { partition: 0, key: Buffer.from(`${adaId}#${name}`), value: Buffer.from('x') } }); };
  put('key/old');
  whileMarking = () => {
    put('erased');
    put('key/new');
  };
  await order();
  await until((e) => e.state === 'erased');
  expect(log.filter(({ topic, record }) => topic === topics.keys && record.value === null && record.key!.toString().startsWith(adaId)).map(({ record }) => record.key!.toString())).toEqual([`${adaId}#key/old`]);
});

/** Behind a crash: what failed then is over. */
async function startAnew(): Promise<void> {
  await erasures.stop();
  failures = [];
  whileReading = () => {};
  erasures = open();
  await erasures.start();
}

test('a crash while the records are read loses no order', async () => {
  whileReading = () => { throw new Error('killed'); };
  await order();
  await expect(until((e) => e.state === 'erased')).rejects.toThrow('killed');
  await startAnew();
  expect((await until((e) => e.state === 'erased')).by).toBe('token:dpo');
});

test('a second order of a person whose erasure is not marked yet is that one; once it is marked it is one of its own, and is told of the other', async () => {
  let second: Awaited<ReturnType<typeof order>> | undefined;
  whileReading = () => { if (scans === 1) void order('leaf_2').then((found) => { second = found; }); };
  await order();
  await until((e) => e.state === 'erased');
  expect(second).toMatchObject({ joined: true, erasure: { id: 'leaf_1' } });
  expect(erasures.list()).toHaveLength(1);
  expect(await order('leaf_3')).toMatchObject({ joined: false, underWay: [], erasure: { id: 'leaf_3' } });
});

/** Linked with ada, and in no record that is kept. */
const phone: Identifiers = { phone: '+4930901820', externalIds: [] };
const adaAndPhone = [adaId, ...keyedIdsOf(workspaceKey, phone)];

test('an order by an identifier that the waiting erasure of the person has not in the clear is one of its own: a destination that knows her by that alone is asked, too', async () => {
  linked = adaAndPhone;
  const gated = Promise.withResolvers<void>();
  gate = gated.promise;
  await order();
  expect(await order('leaf_2', false, phone)).toMatchObject({ joined: false, underWay: ['leaf_1'], erasure: { id: 'leaf_2' } });
  // Each is joined by what it has.
  expect([await order('leaf_3', false, phone), await order('leaf_4', false, { email: ada.email!.toUpperCase(), externalIds: [] })]).toMatchObject([{ joined: true, erasure: { id: 'leaf_2' } }, { joined: true, erasure: { id: 'leaf_1' } }]);
  // Only the second has both.
  expect(await order('leaf_5', false, { ...ada, ...phone })).toMatchObject({ joined: false });
  gated.resolve();
  for (const id of ['leaf_1', 'leaf_2', 'leaf_5']) expect((await until((e) => e.erasedAt !== null, id)).ids).toEqual(expect.arrayContaining(adaAndPhone));
  expect(new Map(told().map(({ value }) => [value.erasure, [value.email, value.phone]]))).toEqual(new Map([['leaf_1', [ada.email, null]], ['leaf_2', [ada.email, phone.phone]], ['leaf_5', [ada.email, phone.phone]]]));
  expect(erasures.get('leaf_2').unnamed).toEqual([]);
});

test('two erasures of a person that wait side by side both end after a crash, and both identifiers are told', async () => {
  linked = adaAndPhone;
  whileReading = () => { throw new Error('killed'); };
  await order();
  await order('leaf_2', false, phone);
  await expect(until((e) => e.state === 'erased')).rejects.toThrow('killed');
  await startAnew();
  for (const id of ['leaf_1', 'leaf_2']) await until((e) => e.erasedAt !== null, id);
  expect(told().map(({ value }) => value.phone)).toContain(phone.phone);
});

test('an order by an identifier that a waiting erasure has found in the records is that one', async () => {
  linked = [adaId, ...keyedIdsOf(workspaceKey, { userId: 'u-7', externalIds: [] })];
  let second: Awaited<ReturnType<typeof order>> | undefined;
  // Something that was linked meanwhile has it read once more.
  whileMarking = () => { if (scans === 1) linked = [...linked, 'external:late']; };
  whileReading = () => { if (scans === 2) void order('leaf_2', false, { userId: 'u-7', externalIds: [] }).then((found) => { second = found; }); };
  await order();
  await until((e) => e.state === 'erased');
  expect(second).toMatchObject({ joined: true, erasure: { id: 'leaf_1' } });
});

test('an order that comes while the mark of another is being written is not covered by it, so it is one of its own', async () => {
  let second: Awaited<ReturnType<typeof order>> | undefined;
  whileMarking = () => {
    whileMarking = () => {};
    now += 1;
    void order('leaf_2').then((found) => { second = found; });
  };
  await order();
  await until((e) => e.state === 'erased');
  expect(second).toMatchObject({ joined: false, underWay: ['leaf_1'] });
  expect((await until((e) => e.state === 'erased', 'leaf_2')).markedAt).toBe(erasures.get('leaf_1').markedAt! + 1);
});

test('where nobody is known nothing is marked, destroyed or told, unless it is forced, and even then nobody is told', async () => {
  [known, records] = [false, []];
  await order();
  expect(await until((e) => e.state === 'unknown')).toMatchObject({ known: false, sealed: null, markedAt: null });
  expect([marks.size, told(), destroyed]).toEqual([0, [], ['erasure/leaf_1']]);
  await order('leaf_2', true);
  expect(await until((e) => e.state === 'done', 'leaf_2')).toMatchObject({ known: false, destinations: [{ destination: 'crm', state: 'not-asked' }, { destination: 'ads', state: 'not-asked' }] });
  expect([marks.size, told()]).toEqual([1, []]);
});

test('a person with more identifiers than one may have is erased under the one given, and the receipt says so', async () => {
  wide = true;
  const { erasure } = await order();
  expect(erasure.onlyGiven).toBe(true);
  expect(await until((e) => e.state === 'erased')).toMatchObject({ ids: [adaId], onlyGiven: true });
  expect([...marks.keys()]).toEqual([adaId]);
});

test('a route that does not take this person ends as not asked, once policy has passed the record and the index has all of it', async () => {
  routes = [{ destination: 'crm', operation: 'erase' }, { destination: 'ads', operation: 'delete' }];
  await order();
  await until((e) => e.state === 'erased');
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase' }, { stage: 'outcome', at: now, destination: 'crm', operation: 'erase', state: 'delivered' }];
  const states = (e: Erasure): string[] => e.destinations.map((d) => d.state);
  expect(states(await until((e) => states(e)[0] === 'delivered'))).toEqual(['delivered', 'pending']);
  [policyCommitted, indexed] = [4, 9];
  for (let i = 0; i < 50; i++) {
    for (const run of timers.splice(0)) run();
    await new Promise(setImmediate);
  }
  expect(erasures.get('leaf_1').state).toBe('erased');
  indexed = 10;
  expect(states(await until((e) => e.state === 'done'))).toEqual(['delivered', 'not-asked']);
  expect(destroyed.at(-1)).toBe('erasure/leaf_1');
});

test('a destination that failed keeps the erasure open, with the identifiers that its dead letter needs, until it has erased or the letter is gone', async () => {
  await order();
  await until((e) => e.state === 'erased');
  const outcome = (state: string) => ({ stage: 'outcome', at: now, destination: 'crm', operation: 'erase', state });
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase' }, outcome('dead-lettered')];
  await until((e) => e.destinations[0]?.state === 'dead-lettered');
  now += 29 * 24 * 60 * minute;
  for (let i = 0; i < 50; i++) {
    for (const run of timers.splice(0)) run();
    await new Promise(setImmediate);
  }
  expect([erasures.get('leaf_1').state, destroyed.includes('erasure/leaf_1')]).toEqual(['erased', false]);
  // Sent again.
  stages = [...stages, outcome('delivered')];
  expect((await until((e) => e.state === 'done')).destinations[0]).toMatchObject({ state: 'delivered' });
  await order('leaf_2');
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase' }, outcome('dead-lettered')];
  await until((e) => e.destinations[0]?.state === 'dead-lettered', 'leaf_2');
  now += 30 * 24 * 60 * minute;
  expect((await until((e) => e.state === 'done', 'leaf_2')).destinations[0]).toMatchObject({ state: 'dead-lettered' });
});

test('a person that no route takes is done, and its sealed identifiers are destroyed', async () => {
  await order();
  await until((e) => e.state === 'erased');
  stages = [{ stage: 'outcome', at: now, destination: null, operation: null, state: 'denied', reason: 'no-route' }];
  policyCommitted = 4;
  expect((await until((e) => e.state === 'done')).destinations).toMatchObject([{ destination: 'crm', state: 'not-asked' }, { destination: 'ads', state: 'by-hand' }]);
});

const [userId] = keyedIdsOf(workspaceKey, { userId: 'u-7' }) as [string];
const old = 'ada.old@larkspur.example';
const [oldId, phoneId] = [keyedIdsOf(workspaceKey, { email: old })[0]!, adaAndPhone[1]!];
/** What the destinations are told, in the order of the topic, with the output and what it is left out of. */
const outputs = () => log.filter((l) => l.topic === topics.canonical).map(({ record }, i) => {
  const header = (name: string) => record.headers!.find(([n]) => n === name)?.[1].toString();
  const { userId, email, phone } = told()[i].value;
  return { output: header(H.output)!, event: header(H.event), settled: header(H.settled), value: [userId, email, phone] };
});

test('the receipt names the linked identifiers that neither a kept record nor a link has in the clear: a destination that knows the person by them is not told', async () => {
  const device = keyedIdsOf(workspaceKey, { anonymousId: 'of-long-ago' })[0]!;
  linked = [adaId, userId, oldId, phoneId, device];
  kept = [{ at: 1, userId: 'u-7', email: null, phone: phone.phone! }];
  await order();
  expect((await until((e) => e.state === 'erased')).unnamed).toEqual(['anonymousId', 'email']);
});

test('what only a link has in the clear is told: the address whose record has left, and the number', async () => {
  linked = [adaId, userId, phoneId];
  records = [];
  kept = [{ at: 3, userId: 'u-7', email: ada.email!, phone: null }, { at: 2, userId: 'u-7', email: null, phone: phone.phone! }];
  await order('leaf_1', false, { userId: 'u-7', externalIds: [] });
  expect((await until((e) => e.state === 'erased')).unnamed).toEqual([]);
  expect(outputs().map(({ value }) => value)).toEqual([['u-7', ada.email, phone.phone]]);
});

test('of two addresses the second is told by an Erasure of its own, to the operations that name people by an address, and nothing of it stands in the clear', async () => {
  linked = [adaId, userId, oldId, phoneId];
  routes = [{ destination: 'crm', operation: 'erase' }, { destination: 'ads', operation: 'by-user' }, { destination: 'ads', operation: 'whole' }];
  identifiers = { erase: ['email', 'phone'], 'by-user': ['userId'], whole: [] };
  // One record has the old address, and a link: it is one.
  records = [{ type: 'weir.canonical.Profile', value: { userId: 'u-7', email: old } }, { type: 'weir.canonical.Profile', value: { userId: 'u-7', email: ada.email } }];
  kept = [{ at: 3, userId: null, email: old, phone: phone.phone! }];
  await order();
  const { unnamed, destinations } = await until((e) => e.state === 'erased');
  const [first, second] = outputs();
  expect(outputs().map(({ value }) => value)).toEqual([['u-7', ada.email, phone.phone], ['u-7', old, null]]);
  expect([second!.event, second!.output, first!.settled, second!.settled]).toEqual([first!.event, linkedOutput(first!.output, oldId), undefined, `${second!.output}/ads/by-user`]);
  const by = (operation: string): string => linkedOperation(operation, oldId);
  expect([unnamed, destinations.map((d) => [d.destination, d.operation])]).toEqual([[], [['crm', 'erase'], ['crm', by('erase')], ['ads', 'by-user'], ['ads', 'whole'], ['ads', by('whole')]]]);
  for (const plain of [old, ada.email!, phone.phone!]) expect(log.map(({ record }) => [record.key, record.value, record.headers].join()).join().includes(plain)).toBe(false);
});

test('an erasure ends when each of the Erasures has ended at each destination, and one that is told again after a crash is the same output', async () => {
  linked = [adaId, userId, oldId];
  kept = [{ at: 3, userId: null, email: old, phone: null }];
  // What the destinations are told is written, and what says so is not.
  const append = log.push.bind(log);
  let crash = true;
  log.push = (...items) => {
    const { topic, record } = items[0]!;
    if (topic === topics.control && crash && JSON.parse(record.value!.toString()).state === 'told') throw new Error('killed');
    return append(...items);
  };
  await order();
  await expect(until((e) => e.state === 'erased')).rejects.toThrow('killed');
  crash = false;
  await startAnew();
  await until((e) => e.state === 'erased');
  const names = outputs().map(({ output }) => output);
  expect([names.length, new Set(names).size, names.slice(0, 2)]).toEqual([4, 2, names.slice(2)]);
  const ends = (operation: string, state = 'delivered') => [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation, outputId: names[0] }, { stage: 'outcome', at: now, destination: 'crm', operation, outputId: names[0], state }];
  const by = linkedOperation('erase', oldId);
  stages = ends('erase');
  await until((e) => e.destinations[0]?.state === 'delivered');
  await rounds();
  expect(erasures.get('leaf_1')).toMatchObject({ state: 'erased', destinations: [{ operation: 'erase', state: 'delivered' }, { operation: by, state: 'pending' }, { destination: 'ads' }] });
  stages = [...stages, ...ends(by, 'dead-lettered')];
  await until((e) => e.destinations[1]?.state === 'dead-lettered');
  await rounds();
  expect([erasures.get('leaf_1').state, destroyed.includes('erasure/leaf_1')]).toEqual(['erased', false]);
  stages = [...stages, ...ends(by)];
  expect((await until((e) => e.state === 'done')).destinations.map((d) => d.state)).toEqual(['delivered', 'delivered', 'by-hand']);
});

test('a destination is not asked under a further value only once policy has passed that Erasure, too', async () => {
  linked = [adaId, userId, oldId];
  kept = [{ at: 3, userId: null, email: old, phone: null }];
  await order();
  await until((e) => e.state === 'erased');
  const [first, second] = outputs().map(({ output }) => output) as [string, string];
  stages = [{ stage: 'decided', at: now, effect: 'allow', destination: 'crm', operation: 'erase', outputId: first }, { stage: 'outcome', at: now, destination: 'crm', operation: 'erase', outputId: first, state: 'delivered' }];
  // The index has the first alone, then both, and policy has passed the first alone.
  policyCommitted = 4;
  await rounds();
  expect(erasures.get('leaf_1').destinations[1]!.state).toBe('pending');
  canonicalPlaces.set(second, 4);
  await rounds();
  expect(erasures.get('leaf_1').destinations[1]!.state).toBe('pending');
  policyCommitted = 5;
  expect((await until((e) => e.state === 'done')).destinations.map((d) => d.state)).toEqual(['delivered', 'not-asked', 'by-hand']);
});

test('an Erasure under a further value that could not be decided ends its own parts, and no others', async () => {
  linked = [adaId, userId, oldId];
  kept = [{ at: 3, userId: null, email: old, phone: null }];
  await order();
  await until((e) => e.state === 'erased');
  stages = [{ stage: 'outcome', at: now, destination: null, operation: null, outputId: outputs()[1]!.output, state: 'dead-lettered' }];
  expect((await until((e) => e.destinations[1]?.state === 'dead-lettered')).destinations[0]!.state).toBe('pending');
});

test('what was found before something was linked meanwhile is told all the same: the mark that is written by then hides what links keep', async () => {
  linked = [adaId, oldId];
  kept = [{ at: 3, userId: null, email: old, phone: null }];
  whileMarking = () => {
    if (scans > 1) return;
    kept = [];
    linked = [adaId, oldId, phoneId];
  };
  await order();
  expect((await until((e) => e.state === 'erased')).unnamed).toEqual(['phone']);
  expect(outputs().map(({ value }) => value[1])).toEqual([ada.email, old]);
});

test('a second control service that goes on with an erasure which the other one has ended says so, and marks and destroys nothing', async () => {
  ended = true;
  await order();
  await expect(until((e) => e.state === 'erased')).rejects.toThrow('ended by another control service');
  expect([marks.size, destroyed]).toEqual([0, []]);
});

/** Somebody sends his own user id and the address of ada with a key that stands in a page, and asks to be erased. */
const eve: Identifiers = { userId: 'u-eve', externalIds: [] };
const [eveId] = keyedIdsOf(workspaceKey, eve) as [string];
function attack(): void {
  [linked, doubtful] = [[eveId], [adaId]];
  records = [{ type: 'weir.canonical.Profile', source: 'web', value: { userId: 'u-eve', email: ada.email, externalIds: [{ type: 'crm', value: 'of-ada' }] } }];
}

test('who says with a public key that the address of somebody is his erases nothing of hers: no mark, no key, no withdrawal, and no destination is told; the receipt says what was left out', async () => {
  attack();
  await order('leaf_1', false, eve);
  const found = await until((e) => e.erasedAt !== null);
  expect(found).toMatchObject({ ids: [eveId], leftOut: [adaId], everyLink: false });
  expect([[...marks.keys()], destroyed.filter((owner) => !owner.startsWith('erasure/'))]).toEqual([[eveId], [eveId]]);
  expect(log.filter((l) => l.topic === topics.consentChanges).map((l) => l.record.key!.toString())).toEqual([eveId, eveId]);
  expect(told()[0].value).toMatchObject({ userId: 'u-eve', email: null, externalIds: [] });
});

test('an order by every link takes it all, and does not join one that does not', async () => {
  attack();
  const gated = Promise.withResolvers<void>();
  gate = gated.promise;
  await order('leaf_1', false, eve);
  expect((await order('leaf_2', false, eve, true)).joined).toBe(false);
  expect((await order('leaf_3', false, eve)).joined).toBe(true);
  gated.resolve();
  const found = await until((e) => e.erasedAt !== null, 'leaf_2');
  expect(found).toMatchObject({ leftOut: [], everyLink: true });
  expect(found.ids).toEqual(expect.arrayContaining([eveId, adaId]));
  expect(told().map(({ value }) => value.email)).toContain(ada.email);
});
