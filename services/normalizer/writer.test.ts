import { randomBytes } from 'node:crypto';
import type { OutRecord, Sink } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { personOf } from '@weir/release';
import { seal, sealedBy, sealKey, unseal } from '@weir/seal';
import { expect, test } from 'vitest';
import { createLinkMemory, createWriter, type Work } from './writer.ts';

test('a raw record with more headers of a replay than a record can carry stops nothing: the first of each name goes on, the others are counted', async () => {
  const appended: { topic: string; records: readonly OutRecord[] }[] = [];
  const left: [string, number][] = [];
  const { write } = createWriter({
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
      // Packed: read before its buffer is used again.
      appended.push({ topic, records: records.map(({ headers }) => ({ headers: headers!.map(([name, value]) => [name, Buffer.from(value)]) }) as unknown as OutRecord) });
      return Promise.resolve(records.map((_, i) => i));
    } },
    serde: { encode: () => Buffer.alloc(0) }, topics: topicNames('t'), now: () => 1, left: (source: string, n: number) => { left.push([source, n]); },
  } as never);
  const headers = Array.from({ length: 100 }, (_, i) => [[H.intent, H.only, H.resend][i % 3]!, Buffer.from(`${i}`)] as const);
  const raw = { source: 'shop', topic: 't.raw.shop', partition: 0, record: { offset: 1, timestamp: 1, key: null, value: Buffer.from('v'), headers }, headers: { eventId: 'e', hash: 'h', acceptedAt: 1, traceparent: 't', redriven: true, common: undefined }, known: null };
  const output = { recordType: 'weir.canonical.Profile', from: 0, to: 1, outputId: 'o', outputName: 'main', person: { ids: [], text: '', key: Buffer.from('k') } };
  const works = [{ ...raw, result: { kind: 'ok', mapping: 'm', outputs: [output] } }, { ...raw, result: { kind: 'dropped', reason: 'filtered' } }] as unknown as Work[];
  await write(works, { bytes: Buffer.alloc(1), at: 1 } as Sink, { hash: 'r' });
  const carried = appended.filter(({ records }) => records.length > 0).map(({ topic, records }) => [topic, records[0]!.headers!.filter(([name]) => name === H.intent || name === H.only || name === H.resend).map(([name, value]) => [name, value.toString()])]);
  expect(carried.sort()).toEqual([['t.canonical', [[H.intent, '0'], [H.only, '1'], [H.resend, '2']]], ['t.outcome', [[H.intent, '0'], [H.only, '1'], [H.resend, '2']]]]);
  expect(left).toEqual([['shop', 97], ['shop', 97]]);
});

test('what closes of a dead letter goes to weir.consent.changes under each identifier, before the letter, and nowhere else', async () => {
  const appended: { topic: string; keys: string[]; outputs: (string | undefined)[] }[] = [];
  const { write } = createWriter({
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
      if (records.length > 0) appended.push({ topic, keys: records.map(({ key }) => key!.toString()), outputs: records.map(({ headers }) => headers?.find(([name]) => name === H.output)?.[1].toString()) });
      return Promise.resolve(records.map((_, i) => i));
    } },
    serde: { encode: () => Buffer.alloc(0) }, topics: topicNames('t'), now: () => 1, left: () => {},
  } as never);
  const raw = { source: 'shop', topic: 't.raw.shop', partition: 0, record: { offset: 1, timestamp: 1, key: null, value: Buffer.from('v'), headers: [] }, headers: { eventId: 'e', hash: 'h', acceptedAt: 1, traceparent: 't', redriven: false, common: undefined }, known: null };
  const closing = [{ recordType: 'weir.canonical.ConsentChange', from: 0, to: 1, outputId: 'o', outputName: 'no', person: personOf(['userId:u', 'anonymousId:a'], 'userId:u') }];
  await write([{ ...raw, result: { kind: 'dead', reasons: [{ code: 'mapping-failed', message: 'm' }], closing } }] as unknown as Work[], { bytes: Buffer.alloc(1), at: 1 } as Sink, { hash: 'r', linkedIdentifiers: false });
  expect(appended).toEqual([{ topic: 't.consent.changes', keys: ['userId:u', 'anonymousId:a'], outputs: ['o', 'o'] }, { topic: 't.dlq', keys: ['e'], outputs: [undefined] }, { topic: 't.outcome', keys: ['e'], outputs: [undefined] }]);
});

test('a no of a second body is the same change in quarantine and put back, told to nobody; its canonical record keeps its output id, and the letter says which body was first', async () => {
  const appended: [string, (string | undefined)[]][] = [];
  const letters: any[] = [];
  const textOf = (headers: OutRecord['headers'], wanted: string) => headers?.find(([name]) => name === wanted)?.[1].toString();
  const { write } = createWriter({
    appender: { partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
      for (const { headers } of records) appended.push([topic, [textOf(headers, H.output), textOf(headers, H.mapping)]]);
      return Promise.resolve(records.map((_, i) => i));
    } },
    serde: { encode: (_name: string, value: object) => { letters.push(value); return Buffer.alloc(0); } }, topics: topicNames('t'), now: () => 1, left: () => {},
  } as never);
  const raw = (redriven: boolean, headers: [string, Buffer][] = []) => ({ source: 'shop', topic: 't.raw.shop', partition: 0, record: { offset: 1, timestamp: 1, key: null, value: Buffer.from('v'), headers }, headers: { eventId: 'e', hash: 'h2', acceptedAt: 1, traceparent: 't', redriven, common: undefined }, known: null, firstHash: 'h1' });
  const no = { recordType: 'weir.canonical.ConsentChange', from: 0, to: 1, outputId: 'o', changeId: 'own', outputName: 'no', person: personOf(['userId:u'], 'userId:u') };
  const yes = { ...no, outputId: 'y', changeId: undefined };
  const sink = { bytes: Buffer.alloc(1), at: 1 } as Sink;
  const reasons = [{ code: 'event-conflict', message: 'm' }];
  await write([{ ...raw(false), result: { kind: 'dead', reasons, closing: [no] } }] as unknown as Work[], sink, { hash: 'r', linkedIdentifiers: false });
  expect(appended.splice(0)).toEqual([['t.consent.changes', ['own', 'weir:quarantine']], ['t.dlq', [undefined, undefined]], ['t.outcome', [undefined, undefined]]]);
  expect([letters[0].headers, letters[1].state]).toEqual([[{ name: H.firstHash, value: Buffer.from('h1') }], 'quarantined']);
  await write([{ ...raw(true), result: { kind: 'ok', mapping: 'm', outputs: [no, yes] } }] as unknown as Work[], sink, { hash: 'r', linkedIdentifiers: false });
  expect(appended.splice(0)).toEqual([['t.consent.changes', ['own', 'weir:quarantine']], ['t.consent.changes', ['y', 'm']], ['t.canonical', ['o', 'm']], ['t.canonical', ['y', 'm']]]);
  letters.length = 0;
  await write([{ ...raw(true, [[H.firstHash, Buffer.from('h1')]]), result: { kind: 'dead', reasons: [{ code: 'mapping-failed', message: 'm' }] } }] as unknown as Work[], sink, { hash: 'r', linkedIdentifiers: false });
  expect([letters[0].headers.length, letters[1].state]).toEqual([1, 'dead-lettered']);
});

/** A writer over a log in memory, with sealed records of ann; `links` gives what went to weir.identity since it was asked last. */
function linking(keep = true) {
  const key = { now: sealKey(randomBytes(16), randomBytes(32)) };
  const marks: ((id: string) => void)[] = [];
  const written: OutRecord[] = [];
  let held: Promise<void> | undefined;
  const topics = topicNames('t');
  const ring = { byId: (id: string) => (id === key.now.id.toString('latin1') ? key.now : undefined), open: (bytes: Buffer) => (sealedBy(bytes) === key.now.id.toString('latin1') ? unseal(key.now, bytes) : undefined), onErased: (listener: (id: string) => void) => { marks.push(listener); } };
  const json = (name: string, value: object): Buffer => Buffer.from(JSON.stringify({ name, ...value }));
  const { write } = createWriter({
    appender: { partitionFor: () => 0, append: async (topic: string, records: readonly OutRecord[]) => {
      if (topic === topics.identity) {
        written.push(...records);
        await held;
      }
      return records.map((_, i) => i);
    } },
    serde: { encode: json, idOf: () => -1, decode: (bytes: Buffer) => { const { name, ...value } = JSON.parse(bytes.toString()) as { name: string }; return { name, value }; } }, topics, now: () => 1, left: () => {}, keys: ring,
  } as never);
  const person = personOf(['userId:u', 'email:e', 'anonymousId:a'], 'userId:u');
  return {
    key, erase: (id: string) => { key.now = sealKey(randomBytes(16), randomBytes(32)); for (const mark of marks) mark(id); },
    hold: (until: Promise<void> | undefined) => { held = until; },
    async record(keeps = keep, with_ = { userId: 'u', email: 'e@x.example', phone: null }, source = 'shop') {
      const bytes = seal(key.now, json('weir.canonical.Profile', with_));
      const work = { source, topic: `t.raw.${source}`, partition: 0, record: { offset: 1, timestamp: 1, key: null, value: bytes, headers: [] }, headers: { eventId: 'e', hash: 'h', acceptedAt: 7, traceparent: 't', redriven: false, common: undefined }, known: null, result: { kind: 'ok', mapping: 'm', outputs: [{ recordType: 'weir.canonical.Profile', from: 0, to: bytes.length, outputId: 'o', outputName: 'main', person }] } };
      await write([work] as unknown as Work[], { bytes, at: bytes.length } as Sink, { hash: 'r', linkedIdentifiers: keeps, sources: new Map([['shop', { trustsLinks: true }], ['web', { trustsLinks: false }]]) as never });
    },
    links: () => written.splice(0).map(({ key: name, value }) => {
      const { sealed } = JSON.parse(value!.toString()) as { sealed: { data: number[] } | null };
      const bytes = sealed === null ? null : Buffer.from(sealed.data);
      return [name!.toString(), bytes === null ? null : sealedBy(bytes) === key.now.id.toString('latin1') ? (JSON.parse(unseal(key.now, bytes).toString()) as { email: string }).email : 'unreadable'];
    }),
  };
}
const both = (value: string | null) => [['email:e~userId:u', value], ['anonymousId:a~userId:u', value]];

test('a new link keeps what its record says of the person, sealed; one that is known is not written again', async () => {
  const w = linking();
  await w.record();
  expect(w.links()).toEqual(both('e@x.example'));
  await w.record();
  expect(w.links()).toEqual([]);
});

test('what a source says that is not trusted stands beside what a trusted one said, and never in its place', async () => {
  const w = linking();
  const by = async (source: string): Promise<string[]> => {
    await w.record(true, undefined, source);
    return w.links().map(([name]) => name as string);
  };
  const [sorted, other] = [['email:e~userId:u', 'anonymousId:a~userId:u'], ['userId:u~email:e', 'userId:u~anonymousId:a']];
  expect([await by('web'), await by('web'), await by('shop'), await by('shop'), await by('web')]).toEqual([other, [], sorted, [], []]);
  // After a trusted one nothing of it has to be written.
  const fresh = linking();
  await fresh.record();
  fresh.links();
  await fresh.record(true, undefined, 'web');
  expect(fresh.links()).toEqual([]);
  // What nobody can read any more is written again by whoever comes, each its own way.
  w.erase('userId:u');
  expect([await by('web'), await by('shop')]).toEqual([other, sorted]);
});

test('after an erasure the links of who comes back are written again, with a value that can be read, and nobody else\'s', async () => {
  const w = linking();
  await w.record();
  w.links();
  w.erase('email:other');
  await w.record();
  expect(w.links()).toEqual([]);
  w.erase('userId:u');
  await w.record();
  expect(w.links()).toEqual(both('e@x.example'));
  // The mark is read while a link is on its way, whose value nobody can read then: it is not taken for known.
  w.erase('userId:u');
  const gate = Promise.withResolvers<void>();
  w.hold(gate.promise);
  const slow = w.record();
  await Promise.resolve();
  w.erase('userId:u');
  gate.resolve();
  await slow;
  w.hold(undefined);
  expect(w.links().map(([, value]) => value)).toEqual(['unreadable', 'unreadable']);
  await w.record();
  expect(w.links()).toEqual(both('e@x.example'));
});

test('a workspace that keeps no values writes links without, those that are known too, and with them again when it changes its mind', async () => {
  const w = linking();
  await w.record();
  w.links();
  await w.record(false);
  expect(w.links()).toEqual(both(null));
  await w.record(false);
  expect(w.links()).toEqual([]);
  await w.record(true);
  expect(w.links()).toEqual(both('e@x.example'));
});

test('a few identifiers in all their combinations, as anybody with a public key may send them, do not fill the memory', async () => {
  const memory = createLinkMemory();
  const { write } = createWriter({
    appender: { partitionFor: () => 0, append: (_topic: string, records: readonly OutRecord[]) => Promise.resolve(records.map((_, i) => i)) }, serde: { encode: () => Buffer.alloc(0) }, topics: topicNames('t'), now: () => 1, left: () => {},
  } as never, memory);
  const raw = { source: 'web', topic: 't.raw.web', partition: 0, record: { offset: 1, timestamp: 1, key: null, value: Buffer.from('v'), headers: [] }, headers: { eventId: 'e', hash: 'h', acceptedAt: 1, traceparent: 't', redriven: false, common: undefined }, known: null };
  const sizes: number[] = [];
  for (let email = 0; email < 12; email++) {
    const works = Array.from({ length: 10_000 }, (_, i) => {
      const person = personOf(['userId:u', `email:${email}`, `phone:${i % 100}`, `anonymousId:${Math.floor(i / 100)}`], 'userId:u');
      return { ...raw, result: { kind: 'ok', mapping: 'm', outputs: [{ recordType: 'weir.canonical.Profile', from: 0, to: 1, outputId: 'o', outputName: 'main', person }] } };
    });
    await write(works as unknown as Work[], { bytes: Buffer.alloc(1), at: 1 } as Sink, { hash: 'r', linkedIdentifiers: false });
    sizes.push(memory.linked.trusted.size);
  }
  // A batch more than the bound at most; the links, of which they are made, stay.
  expect([Math.max(...sizes), sizes.at(-1)!, memory.links.size]).toEqual([110_000, 10_000, 212]);
}, 60_000);
