import { WeirError } from '@weir/errors';
import type { LogRecord, OutRecord, RecordBatch } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { isSealed, seal, sealKey, unseal } from '@weir/seal';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createRemains } from './remains.ts';
import type { SubjectRecord } from './subjects.ts';

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
type Canonical = Pick<SubjectRecord, 'at' | 'acceptedAt' | 'source' | 'value' | 'broken'>;
const hour = 3_600_000;
/** Retention by topic, ms; of others an hour. */
const kept = new Map([[topics.canonical, 5 * hour], [topics.consentChanges, 4 * hour], [topics.dispatch('crm'), 3 * hour], [topics.parked('left-the-release'), 2 * hour]]);

interface Options {
  readonly canonical?: readonly Canonical[];
  readonly retention?: (topic: string) => number;
  /** What the brokers do not tell, of any topic. */
  readonly untold?: string;
  readonly written?: (topic: string, records: readonly OutRecord[]) => void;
}

function portsOf(placed: readonly Placed[], options: Options = {}) {
  const retention = options.retention ?? ((topic: string) => kept.get(topic) ?? hour);
  const names = [...new Set([...placed.map((p) => p.topic), topics.consentChanges, topics.dlq])];
  const of = (topic: string): LogRecord[] => placed.filter((p) => p.topic === topic).map((p) => p.record);
  const admin = { listTopics: async () => [...names, 'other.dispatch.crm'], beginningOffsets: async () => new Map([[0, 0]]), endOffsets: async (topic: string) => new Map([[0, of(topic).length]]),
    describeTopics: async (wanted: readonly string[]) => wanted.map((name) => ({ name, config: Object.fromEntries([['retention.ms', String(retention(name))], ['segment.ms', '1000']].filter(([setting]) => setting !== options.untold)) })) };
  const reader = {
    async read(topic: string, _partition: number, from: number, to: number, take: (batch: RecordBatch) => Promise<void>) {
      if (topic.startsWith('other.')) throw new Error('a topic of another workspace was read');
      for (let at = from; at < to; at += 2) await take({ topic, records: of(topic).slice(at, Math.min(at + 2, to)) } as unknown as RecordBatch);
    },
  };
  const subjects = { scan: async (_ids: readonly string[], take: (record: SubjectRecord) => void) => { for (const record of options.canonical ?? []) take(record as SubjectRecord); } };
  const appender = { partitions: async () => 1, partitionFor: () => 0, append: async (topic: string, records: readonly OutRecord[]) => { options.written?.(topic, records); } };
  return { reader, admin, appender, serde, topics, keys: { open }, subjects };
}
const remainsOf = (placed: readonly Placed[], options?: Options) => createRemains(portsOf(placed, options) as never);

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

const canonicals = fc.array(fc.record<Canonical>({
  at: fc.nat(100), acceptedAt: fc.constantFrom(mark - 1, mark, mark + 1, Number.NaN), source: fc.constantFrom('shop', 'weir-erasure'), value: fc.constantFrom<Canonical['value'][]>({}, undefined), broken: fc.boolean(),
}), { maxLength: 10 });

test('exactly what is of the person, of before the mark and open is found, wherever it stands, and when retention has taken the last of it', async () => {
  await fc.assert(fc.asyncProperty(cases, canonicals, async (list, canonical) => {
    const placed = list.map(placedOf);
    const whole = canonical.filter((c) => !c.broken);
    const open = whole.filter((c) => c.value !== undefined && c.source === 'shop' && !(c.acceptedAt > mark)).map((c) => ({ topic: topics.canonical, at: c.at }));
    const expected = [...open, ...placed.filter((_, i) => counts(list[i]!)).map((p) => ({ topic: p.topic, at: p.record.timestamp }))];
    const until = expected.length === 0 ? null : Math.max(...expected.map(({ topic, at }) => at + (kept.get(topic) ?? hour) + 1000));
    expect(await remainsOf(placed, { canonical }).look(['email:ada', 'userId:u'], mark, () => {})).toEqual({ readable: expected.length, unreadable: whole.filter((c) => c.value === undefined).length, broken: canonical.length - whole.length, until });
    // Not told: nothing says when it is gone.
    for (const untold of ['retention.ms', 'segment.ms']) expect([untold, (await remainsOf(placed, { canonical, untold }).look(['email:ada', 'userId:u'], mark, () => {})).until]).toEqual([untold, null]);
    // For ever on the one topic that has something.
    expect((await remainsOf(placed, { canonical, retention: (topic) => (expected.some((e) => e.topic === topic) ? -1 : hour) }).look(['email:ada', 'userId:u'], mark, () => {})).until).toBeNull();
  }), { numRuns: 200 });
});

test('one search follows another, also one that failed', async () => {
  const gates = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const began: number[] = [];
  const placed = [placedOf({ place: 'dispatch', mine: true, acceptedAt: 0, form: 'plain', source: 'shop', second: false }, 0)];
  const scans = [gates[0]!.promise.then(() => { throw new Error('away'); }), gates[1]!.promise];
  const slow = createRemains({ ...portsOf(placed), subjects: { scan: (): Promise<void> => scans[began.push(began.length) - 1]! } } as never);
  const [first, second] = [slow.look(['email:ada'], mark, () => {}), slow.look(['email:ada'], mark, () => {})];
  // As long as a whole search takes.
  expect((await remainsOf(placed).look(['email:ada'], mark, () => {})).readable).toBe(1);
  expect(began).toEqual([0]);
  gates[0]!.resolve();
  await expect(first).rejects.toThrow('away');
  gates[1]!.resolve();
  expect((await second).readable).toBe(1);
});

type Said = { readonly id: string; readonly at: number | 'broken' | 'deleted' };
const saids = fc.array(fc.record<Said>({ id: fc.constantFrom('email:ada', 'userId:u', 'email:bob'), at: fc.constantFrom<Said['at'][]>(0, mark - 1, mark, mark + 1, 'broken', 'deleted') }), { maxLength: 20 });

const saidOf = ({ id, at }: Said, n: number): Placed => ({ topic: topics.identity, record: { offset: n, timestamp: n, key: Buffer.from(`@${id}`), value: at === 'deleted' ? null : at === 'broken' ? Buffer.from('none of it') : encode('weir.internal.PersonRegion', { id, region: 'DE', source: 'shop', at }), headers: [] } });

test('where a person is said to be is deleted as long as the last record under an identifier says it, of before the mark or unreadable', async () => {
  await fc.assert(fc.asyncProperty(saids, fc.array(fc.record<Said>({ id: fc.constantFrom('email:ada', 'userId:u'), at: fc.constantFrom<Said['at'][]>(mark, mark + 1) }), { maxLength: 2 }), async (list, late) => {
    const placed = list.map(saidOf);
    placed.push({ topic: topics.identity, record: { offset: placed.length, timestamp: 0, key: Buffer.from('email:ada~userId:u'), value: encode('weir.internal.IdentityLink', {}), headers: [] } });
    const stands = (): string[] => ['email:ada', 'userId:u'].map((id) => `@${id}`).filter((key) => {
      const { value } = placed.findLast(({ record }) => record.key!.toString() === key)?.record ?? { value: null };
      return value !== null && (value[0] !== 0 || (JSON.parse(value.subarray(1).toString()) as { value: { at: number } }).value.at <= mark);
    });
    const before = stands();
    const deleted: string[][] = [];
    const written = (topic: string, records: readonly OutRecord[]): void => {
      deleted.push(records.map(({ key }) => key!.toString()));
      for (const { key, value } of records) placed.push({ topic, record: { offset: placed.length, timestamp: 0, key: key as Buffer, value, headers: [] } });
      // A decision of before its process read the mark, behind the deletion.
      const one = late.pop();
      if (one !== undefined) placed.push(saidOf(one, placed.length));
    };
    await remainsOf(placed, { written }).forgetRegions(['email:ada', 'userId:u'], mark, () => {});
    expect(stands()).toEqual([]);
    expect((deleted[0] ?? []).toSorted()).toEqual(before);
  }), { numRuns: 200 });
});

test('a key is left where it stands before the last mark of its owner, and not where it came since or was destroyed', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ owner: fc.constantFrom('email:ada', 'userId:u', 'email:bob'), what: fc.constantFrom('key/1', 'key/2', 'erased'), put: fc.boolean() }), { maxLength: 20 }), async (list) => {
    const placed = list.map(({ owner, what, put }, n): Placed => ({ topic: topics.keys, record: { offset: n, timestamp: n, key: Buffer.from(`${owner}#${what}`), value: put || what === 'erased' ? Buffer.from('x') : null, headers: [] } }));
    const left = ['email:ada', 'userId:u'].flatMap((owner) => ['key/1', 'key/2'].filter((name) => {
      const mine = list.filter((l) => l.owner === owner && (l.what === name || l.what === 'erased'));
      const gone = mine.findLastIndex((l) => l.what === name && !l.put);
      const since = mine.slice(gone + 1);
      const first = since.findIndex((l) => l.what === name);
      return first >= 0 && since.slice(first).some((l) => l.what === 'erased');
    }));
    expect(await remainsOf(placed).keysLeft(['email:ada', 'userId:u'])).toBe(left.length);
  }), { numRuns: 200 });
});

test('a search ends when it is told to, and an error that is not of the bytes is not taken for a record that is shut', async () => {
  const one: Case = { place: 'dispatch', mine: true, acceptedAt: 0, form: 'plain', source: 'shop', second: false };
  const stop = new Error('stops');
  await expect(remainsOf([placedOf(one, 0)]).look(['email:ada'], mark, () => { throw stop; })).rejects.toBe(stop);
  const before = serde.known;
  serde.known = () => { throw new WeirError('log-unavailable'); };
  try {
    await expect(remainsOf([placedOf(one, 0)]).look(['email:ada'], mark, () => {})).rejects.toMatchObject({ code: 'log-unavailable' });
  } finally {
    serde.known = before;
  }
});

test('states with words of before the mark: the newest of each key of the person, and nothing of others or of one who came again', async () => {
  const states = fc.array(fc.record({ id: fc.constantFrom('email:ada', 'userId:7', 'email:ada2'), channel: fc.constantFrom('', 'email'), changedAt: fc.constantFrom(mark - 1, mark, mark + 1), proof: fc.constantFrom(null, '', 'a form'), noticeVersion: fc.constantFrom(null, 'v2'), jurisdiction: fc.constantFrom(null, 'DE'), gone: fc.boolean() }), { maxLength: 20 });
  await fc.assert(fc.asyncProperty(states, async (list) => {
    const keyOf = (s: { id: string; channel: string }): string => `${s.id}|news|${s.channel}|`;
    const placed = list.map((s, n): Placed => ({ topic: topics.consent, record: { offset: n, timestamp: n, key: Buffer.from(keyOf(s)), value: s.gone ? null : encode('weir.internal.ConsentState', s), headers: [] } as unknown as LogRecord }));
    const watermark: Placed = { topic: topics.consent, record: { offset: 99, timestamp: 99, key: Buffer.from('#folded/0'), value: encode('weir.internal.ConsentFolded', {}), headers: [] } as unknown as LogRecord };
    const newest = new Map(list.map((s) => [keyOf(s), s]));
    const expected = [...newest.values()].filter((s) => s.id !== 'email:ada2' && !s.gone && s.changedAt <= mark && (s.proof === 'a form' || s.noticeVersion !== null || s.jurisdiction !== null));
    const found = await remainsOf([...placed, watermark]).statesWithProof(['email:ada', 'userId:7'], mark, () => {});
    expect(new Set(found.map(keyOf))).toEqual(new Set(expected.map(keyOf)));
  }));
});
