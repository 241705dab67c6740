import type { OutRecord } from '@weir/log';
import { deliveryKey, H, topicNames } from '@weir/pipeline';
import type { Incident } from '@weir/release';
import { beforeEach, expect, test } from 'vitest';
import { letterPlace } from '../store.ts';
import { openHeld, type HeldApi } from './held.ts';

const topics = topicNames('weir');
const leaf = 'leaf_7d444840-9dc0-11d1-b245-5ffdce74fad2';
let now: number;
let appended: { topic: string; record: OutRecord }[];
let held: HeldApi;
let incident: Incident | undefined;
let letterHeaders: { name: string; value: Buffer }[];
let broken: string | undefined;
let timers: (() => void)[];
/** Of the letter, as the index has it. */
let summary: { at: number; offset: number; held: { rule: string; until: number } };
/** Other letters in the index, the newest first. */
let others: object[];
/** Written by another instance right before the next record of weir.control. */
let before: object | undefined;

/** The log is the edge here: bytes are JSON, as this test has no registry. */
const serde = { prepare: async () => {}, encode: (name: string, value: object) => Buffer.from(JSON.stringify({ name, ...value })), decode: (bytes: Buffer) => ({ value: JSON.parse(bytes.toString(), (_k, v) => (v?.type === 'Buffer' ? Buffer.from(v.data) : v)) }) };
const letter = () => ({ id: 'dlq_a', eventId: 'evt_a', topic: topics.canonical, partition: 3, key: Buffer.from('email:x'), value: Buffer.from('canonical'), headers: letterHeaders, release: 'rel_a', acceptedAt: 5 });

let indexed: () => number;
beforeEach(async () => {
  now = 1000;
  indexed = () => Number.POSITIVE_INFINITY;
  appended = [];
  incident = undefined;
  [broken, timers, before] = [undefined, [], undefined];
  letterHeaders = [{ name: H.event, value: Buffer.from('evt_a') }, { name: H.output, value: Buffer.from('out_a') }, { name: H.held, value: Buffer.from('big;2000') }];
  const about = { id: 'dlq_a', eventId: 'evt_a', source: 'shop', destination: 'crm', operation: 'send', partition: 0 };
  [summary, others] = [{ at: 900, offset: 7, held: { rule: 'big', until: 2000 } }, []];
  const store = { deadLetter: (id: string) => (id === 'dlq_a' ? { ...about, ...summary } : id === 'dlq_b' ? { ...about, ...summary, id, held: undefined } : undefined), position: () => indexed(), heldLetters: (after?: string) => [...others.map((o) => ({ ...about, ...o })), { ...about, ...summary }].filter((l) => after === undefined || letterPlace(l) > after) };
  const control = () => appended.filter((a) => a.topic === topics.control).map((a) => a.record);
  const reader = { read: async (_t: string, _p: number, from: number, to: number, take: (batch: object) => Promise<void>) => take({ records: control().slice(from, to), nextOffset: to }), follow: async () => ({ close: async () => {} }), readOne: async () => ({ value: Buffer.from(JSON.stringify(letter())) }) };
  const appender = { append: async (topic: string, records: OutRecord[]) => {
    if (topic === broken) throw new Error('no answer');
    if (topic === topics.control && before !== undefined) appended.push({ topic, record: { partition: 0, key: Buffer.from('approval/dlq_a'), value: serde.encode('weir.internal.Approval', before) } });
    if (topic === topics.control) before = undefined;
    return records.map((record) => { appended.push({ topic, record }); return appended.filter((a) => a.topic === topic).length - 1; });
  }, partitionFor: () => 0 };
  const audit = { proof: async (id: string) => {
    if (id !== leaf) throw Object.assign(new Error('no'), { code: 'not-found' });
    return { bytes: Buffer.from(JSON.stringify({ actor: 'token:op' })).toString('base64') };
  } };
  open = () => openHeld({ serde, topics, logger: { error() {} }, clock: { now: () => now, setTimer: (run: () => void) => { timers.push(run); return run; }, clearTimer: () => {} }, releases: { current: () => ({ policy: { rules: [] } }), incidents: () => new Map(incident === undefined ? [] : [['policy/big', incident]]) } } as never, { store, reader, admin: { endOffsets: async () => new Map([[0, control().length]]) }, appender, audit: () => audit, sameHand: (a: string, b: string) => a === b || [a, b].includes('token:of-op'), failed: () => {} } as never);
  held = await open();
});
let open: () => Promise<HeldApi>;
const decisions = () => appended.filter((a) => a.topic === topics.control).map((a) => JSON.parse(a.record.value!.toString())).filter((v) => v.id === 'dlq_a').map((v) => [v.decision, v.by, v.done]);

const by = (actor: string) => ({ actor, leaf: 'leaf_decision' });
const written = () => appended.map((a) => a.topic);

test('approved: the decision is written, then the record goes back where it was, for this one delivery', async () => {
  expect(await held.decide('dlq_a', 'approved', by('token:approver'))).toMatchObject({ state: 'approved', by: 'token:approver' });
  expect(written()).toEqual([topics.control, topics.canonical, topics.control]);
  expect(decisions()).toEqual([['approved', 'token:approver', false], ['approved', 'token:approver', true]]);
  const { record } = appended[1]!;
  expect([record.partition, record.value!.toString(), Object.fromEntries(record.headers!.map(([n, v]) => [n, v.toString()]))]).toEqual([3, 'canonical', { [H.event]: 'evt_a', [H.output]: 'out_a', [H.approval]: 'crm/send/big' }]);
  await expect(held.decide('dlq_a', 'approved', by('other'))).rejects.toMatchObject({ code: 'bad-request' });
  expect(await held.list(10)).toEqual({ held: [expect.objectContaining({ state: 'approved', by: 'token:approver' })], left: 0, next: null });
});

test('a second rule that holds it is added to those that were approved', async () => {
  letterHeaders.push({ name: H.approval, value: Buffer.from('crm/send/odd') });
  await held.decide('dlq_a', 'approved', by('token:approver'));
  expect(appended[1]!.record.headers!.find(([n]) => n === H.approval)![1].toString()).toBe('crm/send/odd,big');
});

test('past its time it can be neither approved nor refused, and nothing is written', async () => {
  now = 2000;
  expect((await held.list(10)).held).toMatchObject([{ state: 'expired' }]);
  for (const decision of ['approved', 'refused'] as const) await expect(held.decide('dlq_a', decision, by('x'))).rejects.toMatchObject({ code: 'approval-expired' });
  expect(appended).toEqual([]);
});

test('who ordered the replay can not let its delivery through, somebody else can, and he can refuse it', async () => {
  letterHeaders.push({ name: H.intent, value: Buffer.from(leaf.replace('leaf_', 'redrive_')) });
  await expect(held.decide('dlq_a', 'approved', by('token:op'))).rejects.toMatchObject({ code: 'self-approval' });
  await expect(held.decide('dlq_a', 'approved', by('token:of-op'))).rejects.toMatchObject({ code: 'self-approval' });
  expect(appended).toEqual([]);
  expect(await held.decide('dlq_a', 'refused', by('token:op'))).toMatchObject({ state: 'refused' });
});

test('an order that has no leaf holds nobody up', async () => {
  letterHeaders.push({ name: H.intent, value: Buffer.from('redrive_00000000-0000-0000-0000-000000000000') });
  expect(await held.decide('dlq_a', 'approved', by('token:op'))).toMatchObject({ state: 'approved' });
});

test('refused: it has a denied end with who did it, and nothing goes back; the incident of the rule ends', async () => {
  incident = { destination: 'policy/big', code: 'approval-required', since: 1, until: null };
  await held.decide('dlq_a', 'refused', by('token:approver'));
  expect(written()).toEqual([topics.control, topics.outcome, topics.control, topics.control]);
  expect(JSON.parse(appended[1]!.record.value!.toString())).toMatchObject({ state: 'denied', reason: 'approval-refused', rule: 'big', detail: 'refused by token:approver', outputId: 'out_a', destination: 'crm' });
  expect(JSON.parse(appended[3]!.record.value!.toString())).toMatchObject({ destination: 'policy/big', until: 1000 });
});

test('what is not held can not be let through', async () => {
  for (const id of ['dlq_b', 'dlq_c']) await expect(held.decide(id, 'approved', by('x'))).rejects.toMatchObject({ code: 'not-found' });
});

test('of an approval and a refusal at the same time one holds, and only that one is acted on', async () => {
  const both = await Promise.allSettled([held.decide('dlq_a', 'approved', by('token:a')), held.decide('dlq_a', 'refused', by('token:b'))]);
  expect(both.map((r) => (r.status === 'fulfilled' ? r.value.state : (r.reason as { code: string }).code))).toEqual(['approved', 'bad-request']);
  expect(written()).toEqual([topics.control, topics.canonical, topics.control]);
});

test('a decision that another instance wrote first counts; the later one does nothing, and leaves the first as the last of its key', async () => {
  before = { id: 'dlq_a', decision: 'refused', by: 'token:other', leaf: 'leaf_other', done: false, letter: 7 };
  await expect(held.decide('dlq_a', 'approved', by('token:a'))).rejects.toThrow('refused by token:other');
  expect(written().filter((topic) => topic !== topics.control)).toEqual([]);
  expect(decisions().at(-1)).toEqual(['refused', 'token:other', false]);
  expect((await held.list(10)).held).toMatchObject([{ state: 'refused', by: 'token:other' }]);
});

test('a crash between the decision and what follows from it: the next start does it', async () => {
  broken = topics.canonical;
  await expect(held.decide('dlq_a', 'approved', by('token:a'))).rejects.toThrow('no answer');
  expect(decisions()).toEqual([['approved', 'token:a', false]]);
  await held.close();
  [broken, timers] = [undefined, []];
  held = await open();
  await expect(held.decide('dlq_a', 'refused', by('token:b'))).rejects.toMatchObject({ code: 'bad-request' });
  for (const run of timers.splice(0)) run();
  for (let i = 0; i < 50 && decisions().length < 2; i++) await new Promise(setImmediate);
  expect(written()).toEqual([topics.control, topics.canonical, topics.control]);
  expect(decisions().at(-1)).toEqual(['approved', 'token:a', true]);
  await held.close();
  timers = [];
  held = await open();
  // The look at incidents.
  expect(timers).toHaveLength(1);
});

test('the end of a refused correction is that of the correction, not of the delivery that it corrects', async () => {
  letterHeaders.push({ name: H.corrects, value: Buffer.from('out_b/crm/send=cor_b,out_a/crm/send=cor_a') });
  await held.decide('dlq_a', 'refused', by('token:a'));
  const end = JSON.parse(appended.find((a) => a.topic === topics.outcome)!.record.value!.toString()) as { key: string };
  expect(end.key).toBe(deliveryKey('out_a', 'crm', 'send', 'cor_a', 0));
});

test('what is held again after its decision waits for one of its own, and is put back by that', async () => {
  await held.decide('dlq_a', 'refused', by('token:a'));
  // A replay of the event came to the same rule: a letter of the same id, later on weir.dlq; the clock of its stage is behind.
  summary = { at: 800, offset: 9, held: { rule: 'big', until: 3000 } };
  expect((await held.list(10)).held).toMatchObject([{ state: 'waiting', by: null }]);
  expect(await held.decide('dlq_a', 'approved', { actor: 'token:b', leaf: 'leaf_second' })).toMatchObject({ state: 'approved', by: 'token:b' });
  expect(written().slice(-3)).toEqual([topics.control, topics.canonical, topics.control]);
  await expect(held.decide('dlq_a', 'refused', by('token:c'))).rejects.toThrow('approved by token:b');
  await held.close();
  held = await open();
  expect((await held.list(10)).held).toMatchObject([{ state: 'approved', by: 'token:b' }]);
});

test('a decision of a version before counts for what was held by then, and not for what is held later', async () => {
  appended.push({ topic: topics.control, record: { partition: 0, key: Buffer.from('approval/dlq_a'), value: serde.encode('weir.internal.Approval', { id: 'dlq_a', decision: 'refused', by: 'token:old', at: 950, leaf: 'leaf_old', done: true, letter: null }) } });
  await held.close();
  held = await open();
  expect((await held.list(10)).held).toMatchObject([{ state: 'refused', by: 'token:old' }]);
  summary.at = 1200;
  expect((await held.list(10)).held).toMatchObject([{ state: 'waiting', by: null }]);
  expect(await held.decide('dlq_a', 'approved', by('token:b'))).toMatchObject({ state: 'approved', by: 'token:b' });
});

test('one that waits behind thousands that do not is listed, with how many are left and where they begin; its incident stays open', async () => {
  others = Array.from({ length: 12_000 }, (_, n) => ({ id: `dlq_x${10_000 + n}`, at: 990, offset: 100 + n, held: { rule: 'big', until: 995 } }));
  expect((await held.list(50, 'waiting')).held).toMatchObject([{ id: 'dlq_a' }]);
  const first = await held.list(50);
  expect([first.held.length, first.left, first.held.every((h) => h.state === 'expired')]).toEqual([50, 10_000, true]);
  const all: string[] = [];
  for (let after: string | undefined; ;) {
    const page = await held.list(5000, undefined, after);
    all.push(...page.held.map((h) => h.id));
    if (page.next === null) break;
    after = page.next;
  }
  expect([all.length, new Set(all).size, all.at(-1)]).toEqual([12_001, 12_001, 'dlq_a']);
  incident = { destination: 'policy/big', code: 'approval-required', since: 1, until: null };
  others.push({ id: 'dlq_last', at: 100, offset: 3, held: { rule: 'big', until: 2000 } });
  await held.decide('dlq_a', 'refused', by('token:a'));
  expect(appended.filter((a) => a.record.key?.toString() === 'incident/policy/big')).toEqual([]);
});

test('with the last decision the incident of its rule ends, also while the index is a moment behind weir.dlq, as it is while letters come', async () => {
  incident = { destination: 'policy/big', code: 'approval-required', since: 1, until: null };
  let looks = 0;
  indexed = () => (looks++ < 2 ? -1 : Number.POSITIVE_INFINITY);
  const deciding = held.decide('dlq_a', 'approved', by('token:approver'));
  for (let turn = 0; looks < 3 && turn < 1000; turn++) {
    await new Promise(setImmediate);
    for (const run of timers.splice(0)) run();
  }
  await deciding;
  expect(appended.filter((a) => a.record.key?.toString() === 'incident/policy/big')).toHaveLength(1);
});
