import { WeirError } from '@weir/errors';
import type { LogRecord, RecordBatch } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { isSealed, seal, sealKey, unseal } from '@weir/seal';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createRemains } from './remains.ts';

const topics = topicNames('weir');
const gone = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 1));
const alive = sealKey(Buffer.alloc(16, 2), Buffer.alloc(32, 2));
const mark = 1000;

/** The log is the edge here: bytes are JSON behind a zero, as this test has no registry. */
const encode = (name: string, value: object): Buffer => Buffer.from(`\0${JSON.stringify({ name, value })}`);
const revive = (_key: string, value: any): unknown => (value?.type === 'Buffer' ? Buffer.from(value.data) : value);
const open = (bytes: Buffer): Buffer | undefined => {
  if (!isSealed(bytes)) return bytes;
  return bytes.subarray(2, 18).equals(alive.id) ? unseal(alive, bytes) : undefined;
};
const serde = {
  known: () => true, prepare: async () => {},
  decode(bytes: Buffer) {
    const plain = open(bytes);
    if (plain === undefined) throw new WeirError('subject-erased');
    if (plain[0] !== 0) throw new WeirError('avro-undecodable');
    return JSON.parse(plain.subarray(1).toString(), revive) as { name: string; value: unknown };
  },
};

type Placed = { readonly topic: string; readonly record: LogRecord };
function remainsOf(placed: readonly Placed[]) {
  const names = [...new Set([...placed.map((p) => p.topic), topics.consentChanges, topics.dlq])];
  const of = (topic: string): LogRecord[] => placed.filter((p) => p.topic === topic).map((p) => p.record);
  const admin = { listTopics: async () => [...names, 'other.dispatch.crm'], beginningOffsets: async () => new Map([[0, 0]]), endOffsets: async (topic: string) => new Map([[0, of(topic).length]]) };
  const reader = {
    async read(topic: string, _partition: number, from: number, to: number, take: (batch: RecordBatch) => Promise<void>) {
      if (topic.startsWith('other.')) throw new Error('a topic of another workspace was read');
      for (let at = from; at < to; at += 2) await take({ topic, records: of(topic).slice(at, Math.min(at + 2, to)) } as unknown as RecordBatch);
    },
  };
  return createRemains({ reader, admin, appender: { partitions: async () => 1, partitionFor: () => 0 }, serde, topics, keys: { open } } as never);
}

interface Case { readonly place: 'changes' | 'dispatch' | 'parked' | 'letter-canonical' | 'letter-dispatch' | 'letter-raw'; readonly mine: boolean; readonly acceptedAt: number; readonly form: 'plain' | 'alive' | 'gone' | 'broken'; readonly source: 'shop' | 'weir-erasure'; readonly second: boolean }
const cases = fc.array(fc.record<Case>({
  place: fc.constantFrom('changes', 'dispatch', 'parked', 'letter-canonical', 'letter-dispatch', 'letter-raw'), mine: fc.boolean(), acceptedAt: fc.constantFrom(0, mark - 1, mark, mark + 1),
  form: fc.constantFrom('plain', 'alive', 'gone', 'broken'), source: fc.constantFrom('shop', 'weir-erasure'), second: fc.boolean(),
}), { maxLength: 30 });

const shaped = (form: Case['form'], plain: Buffer): Buffer => (form === 'plain' ? plain : form === 'broken' ? Buffer.from('none of it') : seal(form === 'alive' ? alive : gone, plain));

function placedOf({ place, mine, acceptedAt, form, source, second }: Case, n: number): Placed {
  const key = Buffer.from(mine ? 'email:ada' : 'email:bob');
  const person = encode('weir.canonical.Profile', { source, email: 'ada@larkspur.example' });
  // What a delivery seals is its payload; its second vendor may have one of its own.
  const payloads = second ? { payload: shaped('gone', person), standby: { payload: shaped(form, person) } } : { payload: shaped(form, person), standby: null };
  const value = ['dispatch', 'parked', 'letter-dispatch'].includes(place) ? (form === 'broken' ? shaped(form, person) : encode('weir.internal.Delivery', { source, ...payloads })) : shaped(form, person);
  const headers = [[H.accepted, Buffer.from(String(acceptedAt))]] as const;
  const direct = (topic: string): Placed => ({ topic, record: { offset: n, timestamp: 10 + n, key, value, headers } });
  const letter = (from: string): Placed => ({ topic: topics.dlq, record: { offset: n, timestamp: 10 + n, key: Buffer.from(`evt_${n}`), value: encode('weir.internal.DeadLetter', { key, value, topic: from, acceptedAt }), headers: [] } });
  switch (place) {
    case 'changes': return direct(topics.consentChanges);
    case 'dispatch': return direct(topics.dispatch('crm'));
    case 'parked': return direct(topics.parked('left-the-release'));
    case 'letter-canonical': return letter(topics.canonical);
    case 'letter-dispatch': return letter(topics.dispatch('crm'));
    case 'letter-raw': return letter(topics.raw('shop'));
  }
}

/** Of the person, of before the mark, not of the erasure itself, and open. */
const counts = (c: Case): boolean => c.mine && c.acceptedAt <= mark && c.source === 'shop' && c.place !== 'letter-raw' && (c.form === 'plain' || c.form === 'alive');

test('exactly what is of the person, of before the mark and open is found, wherever it stands, with the newest of each topic', async () => {
  await fc.assert(fc.asyncProperty(cases, async (list) => {
    const placed = list.map(placedOf);
    const { readable, newest } = await remainsOf(placed).find(['email:ada', 'userId:u'], mark, () => {});
    const expected = placed.filter((_, i) => counts(list[i]!));
    expect(readable).toBe(expected.length);
    expect(newest).toEqual(new Map([...Map.groupBy(expected, (p) => p.topic)].map(([topic, of]) => [topic, Math.max(...of.map((p) => p.record.timestamp))])));
  }), { numRuns: 200 });
});

type Said = { readonly id: string; readonly at: number | 'broken' | 'deleted' };
const saids = fc.array(fc.record<Said>({ id: fc.constantFrom('email:ada', 'userId:u', 'email:bob'), at: fc.constantFrom<Said['at'][]>(0, mark - 1, mark, mark + 1, 'broken', 'deleted') }), { maxLength: 20 });

test('where a person is said to be is found as long as the last record under an identifier says it, of before the mark or unreadable', async () => {
  await fc.assert(fc.asyncProperty(saids, async (list) => {
    const placed = list.map(({ id, at }, n): Placed => ({ topic: topics.identity, record: { offset: n, timestamp: n, key: Buffer.from(`@${id}`), value: at === 'deleted' ? null : at === 'broken' ? Buffer.from('none of it') : encode('weir.internal.PersonRegion', { id, region: 'DE', source: 'shop', at }), headers: [] } }));
    const link: Placed = { topic: topics.identity, record: { offset: placed.length, timestamp: 0, key: Buffer.from('email:ada~userId:u'), value: encode('weir.internal.IdentityLink', {}), headers: [] } };
    const last = (id: string): Said['at'] | undefined => list.findLast((said) => said.id === id)?.at;
    const stands = ['email:ada', 'userId:u'].filter((id) => last(id) === 'broken' || (last(id) as number) <= mark);
    expect((await remainsOf([...placed, link]).regions(['email:ada', 'userId:u'], mark, () => {})).toSorted()).toEqual(stands.map((id) => `@${id}`));
  }), { numRuns: 200 });
});

test('a search ends when it is told to, and an error that is not of the bytes is not taken for a record that is shut', async () => {
  const one: Case = { place: 'dispatch', mine: true, acceptedAt: 0, form: 'plain', source: 'shop', second: false };
  const stop = new Error('stops');
  await expect(remainsOf([placedOf(one, 0)]).find(['email:ada'], mark, () => { throw stop; })).rejects.toBe(stop);
  const before = serde.known;
  serde.known = () => { throw new WeirError('log-unavailable'); };
  try {
    await expect(remainsOf([placedOf(one, 0)]).find(['email:ada'], mark, () => {})).rejects.toMatchObject({ code: 'log-unavailable' });
  } finally {
    serde.known = before;
  }
});
