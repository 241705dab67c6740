import type { Appender, OutRecord, Serde } from '@weir/log';
import { H, itemHash, topicNames } from '@weir/pipeline';
import { checkUse, consentKey, everyPurpose, foldConsent, type ConsentState } from '@weir/policy';
import type { ConsentOrder } from '@weir/release';
import { expect, test } from 'vitest';
import { createConsentIntake } from './consent-intake.ts';

const topics = topicNames('t');
const order = (state: ConsentOrder['state'], over: Partial<ConsentOrder> = {}): ConsentOrder => ({
  identifiers: { userId: 'ann', email: 'ann@larkspur.example', phone: null }, purpose: 'email-marketing', channel: null, topic: null, state,
  legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, reason: null, expiresAt: null, occurredAt: null, ...over,
});

/** The intake over a log that folds what comes onto weir.consent.changes, by the rules of the fold, when it is told to. */
function world(workspaceKey = Buffer.alloc(32)) {
  const states = new Map<string, ConsentState>();
  const outputs: string[] = [];
  const hashes: string[] = [];
  const waiting: OutRecord[] = [];
  const appends: string[][] = [];
  const changed: object[] = [];
  let dies = Infinity;
  let offset = 0;
  let now = 1_700_000_000_000;
  const header = ({ headers }: OutRecord, name: string): string => headers!.find(([n]) => n === name)![1].toString();
  const append = async (topic: string, records: readonly OutRecord[]): Promise<readonly number[]> => {
    if (topic === topics.consentChanges) waiting.push(...records);
    // Who folds the change of the first identifier tells the destinations.
    if (topic === topics.consentChanges) outputs.push(...records.filter((r) => header(r, H.ids).split(',')[0] === r.key!.toString()).map((r) => header(r, H.output)));
    if (topic === topics.consentChanges) hashes.push(...records.map((r) => header(r, H.hash)));
    if (topic === topics.consentChanges) changed.push(...records.map((r) => JSON.parse(r.value!.toString()) as object));
    appends.push(records.map((r) => `${topic} ${r.key!.toString().replace(/:[^~]*/g, '')}`));
    if (appends.length > dies) throw new Error('the process is gone');
    return records.map(() => offset++);
  };
  const fold = (): void => {
    for (const record of waiting.splice(0)) {
      const change = JSON.parse(record.value!.toString());
      const key = consentKey(record.key!.toString(), change.purpose, '', '');
      const next = foldConsent(states.get(key), record.key!.toString(), { ...change, channel: '', topic: '', changeId: header(record, H.output), acceptedAt: Number(header(record, H.accepted)) }, offset++, undefined, states.get(consentKey(record.key!.toString(), everyPurpose, '', '')));
      if (next !== undefined) states.set(key, next);
    }
  };
  const take = createConsentIntake({
    appender: { append, partitionFor: () => 0, partitions: () => Promise.resolve(1) } as unknown as Appender, serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) } as Serde, topics,
    tables: { states: (id) => [...states.values()].filter((state) => state.id === id), stored: (key) => (states.has(key) ? { partition: 0, state: states.get(key)!, bytes: Buffer.alloc(0) } : undefined) as never }, barrier: { applied: () => Promise.resolve(true) },
    workspaceKey, release: () => 'r', keepsLinked: () => true, clock: { now: () => (now += 1000), monotonic: () => now },
  });
  return {
    outputs, hashes, appends, changed, dieAfter: (n: number) => { dies = n; }, fold, opened: ({ purpose }: ConsentOrder) => checkUse([...states.values()].map(({ id }) => id), purpose, null, null, 'consent', (id) => [...states.values()].filter((s) => s.id === id), 0).ok, state: () => [...states.values()].map((s) => s.state),
    async send(given: ConsentOrder, key: string, folded = true) {
      const recorded = await take(given, { source: 'consent-api', actor: 'a', traceparent: '', key });
      if (folded) fold();
      return { id: recorded.id, answer: await recorded.applied(1000) };
    },
  };
}

test.each(['withdrawn', 'denied', 'unknown'] as const)('%s under a key that was used before a grant closes again, as a change of its own that destinations are told', async (no) => {
  const w = world();
  await w.send(order('granted'), 'form-1');
  const first = await w.send(order(no), 'row-2');
  await w.send(order('granted'), 'form-2');
  expect(w.state()).toEqual(['granted', 'granted']);
  const second = await w.send(order(no), 'row-2');
  expect([w.state(), second.answer]).toEqual([[no, no], 'applied']);
  expect(second.id).not.toBe(first.id);
  expect(new Set(w.outputs).size).toBe(4);
  // Asked again, with or without a grant in between: one change for each time that it was opened.
  expect((await w.send(order(no), 'row-2')).answer).toBe('applied');
  await w.send(order('granted'), 'form-3');
  const third = await w.send(order(no), 'row-2');
  expect([w.state(), third.answer, [first.id, second.id].includes(third.id)]).toEqual([[no, no], 'applied', false]);
});

test('a no to everything under a key that was used before a grant over it is a no of its own, also where the purpose is none of the workspace', async () => {
  const w = world();
  const all = order('withdrawn', { purpose: everyPurpose });
  const later = order('granted', { purpose: 'of-a-later-release' });
  const first = await w.send(all, 'row-2');
  expect([(await w.send(all, 'row-2')).id, (await w.send(later, 'form-1')).answer]).toEqual([first.id, 'applied']);
  const [again, once] = [await w.send(all, 'row-2'), await w.send(all, 'row-2')];
  expect([again.answer, again.id === first.id, w.opened(later)]).toEqual(['applied', false, false]);
  expect([once.answer, w.opened(later)]).toEqual(['applied', false]);
  expect([(await w.send(later, 'form-2')).answer, w.opened(later)]).toEqual(['applied', true]);
  await w.send(all, 'row-2');
  expect(w.opened(later)).toBe(false);
  // Sent again before the grant is known: nobody says that it holds.
  const other = world();
  await other.send(all, 'row-2');
  await other.send(later, 'form-1', false);
  expect((await other.send(all, 'row-2')).answer).toBe('superseded');
});

test('a repetition that no table shows yet is one change, and is never called applied while a grant stands over it', async () => {
  const w = world();
  const first = await w.send(order('withdrawn'), 'row-2', false);
  expect((await w.send(order('withdrawn'), 'row-2', false)).id).toBe(first.id);
  await w.send(order('granted'), 'form-2', false);
  const late = await w.send(order('withdrawn'), 'row-2', true);
  expect([w.state(), late.id, late.answer]).toEqual([['granted', 'granted'], first.id, 'superseded']);
});

test('a grant that comes again under its key opens nothing', async () => {
  const w = world();
  const first = await w.send(order('granted'), 'row-1');
  await w.send(order('withdrawn'), 'ticket');
  expect((await w.send(order('granted'), 'row-1')).id).toBe(first.id);
  expect(w.state()).toEqual(['withdrawn', 'withdrawn']);
});

test('what the fold set aside is never called applied', async () => {
  const w = world();
  const { answer } = await w.send(order('withdrawn'), 'row-1', false);
  expect([w.state(), answer]).toEqual([[], 'pending']);
  expect((await w.send(order('withdrawn'), 'row-1')).answer).toBe('applied');
});

test('the change of the first identifier is on the log before anything else of it: who folds that writes the rest', async () => {
  const w = world();
  await w.send(order('withdrawn'), 'a');
  expect(w.appends).toEqual([['t.consent.changes userId'], ['t.consent.changes email'], ['t.identity email~userId']]);
  const killed = world();
  killed.dieAfter(1);
  await expect(killed.send(order('withdrawn'), 'a')).rejects.toThrow('the process is gone');
  expect(killed.outputs).toHaveLength(1);
});

test('a change by an anonymous id and external ids is one of each keyed identifier, in the order of the normalizer, and its record has them in the clear', async () => {
  const w = world();
  const identifiers = { userId: null, email: null, phone: null, anonymousId: 'a-1', externalIds: [{ type: 'klaviyo', value: '1' }, { type: 'crm', value: '2' }] };
  const { answer } = await w.send(order('withdrawn', { identifiers }), 'a');
  expect([answer, w.state(), w.appends]).toEqual(['applied', ['withdrawn', 'withdrawn', 'withdrawn'], [['t.consent.changes external'], ['t.consent.changes external', 't.consent.changes anonymousId'], ['t.identity external~external', 't.identity anonymousId~external']]]);
  expect(w.changed).toEqual(Array(3).fill(expect.objectContaining({ userId: null, email: null, anonymousId: 'a-1', externalIds: identifiers.externalIds })));
});

test('who has the topics and no workspace key confirms no guessed address by the hash of a change, and a repeated one has the hash that it had', async () => {
  const [one, other] = [world(), world(Buffer.alloc(32, 1))];
  for (const w of [one, one, other]) await w.send(order('withdrawn'), 'row-2');
  const [hash] = one.hashes;
  expect(hash).toMatch(/^[0-9a-f]{32}$/);
  expect([new Set(one.hashes).size, one.hashes.length, other.hashes.includes(hash!)]).toEqual([1, 4, false]);
  expect([...one.hashes, ...other.hashes]).not.toContain(itemHash(Buffer.from(JSON.stringify(order('withdrawn')))));
});

test('a grant that every instance has and that opened nothing is told as that, under its key again, too', async () => {
  const w = world();
  expect((await w.send(order('granted'), 'form-1')).answer).toBe('applied');
  await w.send(order('withdrawn'), 'row-2');
  // Word for word again, and one that happened before the no.
  expect((await w.send(order('granted'), 'form-1')).answer).toBe('unopened');
  expect((await w.send(order('granted', { occurredAt: 1_000_000_000_000 }), 'form-3')).answer).toBe('unopened');
  expect(w.state()).toEqual(['withdrawn', 'withdrawn']);
  expect((await w.send(order('granted'), 'form-4')).answer).toBe('applied');
});

test('a grant that the fold has set aside opens nothing, and is never called applied', async () => {
  const w = world();
  expect((await w.send(order('granted'), 'form-1', false)).answer).toBe('pending');
});
