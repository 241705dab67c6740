import { randomBytes } from 'node:crypto';
import type { LogRecord } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { identifiersOf, personOf } from '@weir/release';
import { isSealed, seal, sealedBy, sealKey, unseal, type KeyRing, type SealKey } from '@weir/seal';
import { createLocalSerde } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createSealing } from './sealing.ts';
import { createUnerased } from './unerased.ts';

/** A ring that reads what `reads` does while it waits for the acknowledgement of a key that it makes. */
function ring(reads: (ring: { keys: Map<string, SealKey>; marks: Map<string, number> }) => void) {
  const state = { keys: new Map<string, SealKey>(), marks: new Map<string, number>() };
  const made: string[] = [];
  const keys = {
    current: (owner: string) => state.keys.get(owner),
    ensure: async (owners: Iterable<string>) => {
      for (const owner of owners) {
        made.push(owner);
        state.keys.set(owner, sealKey(randomBytes(16), randomBytes(32)));
      }
      if (made.length === 1) reads(state);
    },
    erasedUntil: (ids: readonly string[]) => Math.max(0, ...ids.map((id) => state.marks.get(id) ?? 0)),
  } as unknown as KeyRing;
  state.keys.set('ann', sealKey(randomBytes(16), randomBytes(32)));
  return { keys, made, state };
}
const none = (): undefined => undefined;
const plain = Buffer.from('hello');
const work = (subject: string, acceptedAt: number) => ({ headers: { acceptedAt }, result: { kind: 'ok', outputs: [{ from: 0, to: plain.length, person: { subject, ids: [subject] } }] } as any });
const sinkOf = () => ({ bytes: Buffer.concat([plain, Buffer.alloc(1000)]), at: plain.length });
const erase = (at: number) => ({ keys, marks }: { keys: Map<string, SealKey>; marks: Map<string, number> }): void => {
  marks.set('ann', at);
  keys.delete('ann');
};

test('the key of a day that is missing is looked for before its items are taken for unreadable, each once', async () => {
  const [known, missing] = [sealKey(randomBytes(16), randomBytes(32)), sealKey(randomBytes(16), randomBytes(32))];
  const here = new Map([[sealedBy(seal(known, plain)), known]]);
  const looked: (readonly string[])[] = [];
  const keys = { byId: (id: string) => here.get(id), find: async (ids: readonly string[]) => { looked.push(ids); here.set(ids[0]!, missing); } } as unknown as KeyRing;
  const sealing = createSealing(keys, none);
  const records = [known, missing, missing].map((key) => ({ value: seal(key, plain), headers: [] }) as unknown as LogRecord);
  expect(sealing.prepare(records.slice(0, 1), () => false)).toBeUndefined();
  await sealing.prepare(records, () => false);
  expect(looked.map((ids) => ids.length)).toEqual([1]);
  expect(records.map((record) => (sealing.open(record) as LogRecord).value!.toString())).toEqual(['hello', 'hello', 'hello']);
});

test('who is erased while keys are made for others is left out: a new key would make the record readable again', async () => {
  const { keys } = ring(erase(1000));
  const works = [work('ann', 900), work('bob', 900)];
  await createSealing(keys, none).seal(works, sinkOf());
  expect(works.map((w) => w.result.kind)).toEqual(['dropped', 'ok']);
});

test('what came after the erasure whose tombstone is read meanwhile is sealed under a new key, and the process goes on', async () => {
  const { keys, made, state } = ring(erase(1000));
  const works = [work('ann', 2000), work('bob', 900)];
  const sink = sinkOf();
  await createSealing(keys, none).seal(works, sink);
  expect(made).toEqual(['bob', 'ann']);
  const [{ from, to }] = works[0]!.result.outputs;
  const bytes = sink.bytes.subarray(from, to);
  expect([isSealed(bytes), unseal(state.keys.get('ann')!, bytes).toString()]).toEqual([true, 'hello']);
});

test('what closes of a dead letter is sealed, too; of who was erased nothing of it goes on, and the letter stays', async () => {
  const { keys, state } = ring(() => undefined);
  const dead = (subject: string, acceptedAt: number) => ({ headers: { acceptedAt }, result: { kind: 'dead', reasons: [], closing: [{ from: 0, to: plain.length, changeId: 'own', person: { subject, ids: [subject] } }] } as any });
  state.marks.set('ann', 1000);
  const sealing = createSealing(keys, none);
  expect(sealing.withoutErased(dead('ann', 900).result, 900, sinkOf())).toEqual({ kind: 'dead', reasons: [], closing: [] });
  const works = [dead('ann', 900), dead('bob', 900), { headers: { acceptedAt: 900 }, result: { kind: 'dead', reasons: [] } as any }];
  const sink = sinkOf();
  await sealing.seal(works, sink);
  expect(works.map((w) => [w.result.kind, w.result.closing?.length])).toEqual([['dead', 0], ['dead', 1], ['dead', undefined]]);
  const [{ from, to, changeId }] = works[1]!.result.closing;
  expect(unseal(state.keys.get('bob')!, sink.bytes.subarray(from, to)).toString()).toBe('hello');
  expect(changeId).toBe('own');
});

const serde = await createLocalSerde();
const keyed = (_type: string, value: string): string => value;
const fields = { userId: 'ann', email: 'ann@larkspur.example', phone: '+4930123456', anonymousId: 'browser', externalIds: [{ type: 'crm', value: 'c-1' }, { type: 'crm', value: 'c-2' }] };
const idOf = { userId: 'userId:ann', email: 'email:ann@larkspur.example', phone: 'phone:+4930123456', anonymousId: 'anonymousId:browser', one: 'external:crm:c-1', two: 'external:crm:c-2' } as const;

/** An item that gave a profile and one change of consent of a person with all identifiers. */
function mapped(state: string, kind: 'ok' | 'dead' = 'ok') {
  const sink = { bytes: Buffer.alloc(4096), at: 0 };
  const base = { id: 'out_1', source: 'crm', objectKey: 'ann', occurredAt: 1000, extras: '{"note":"ann"}', ...fields };
  const outputs = [['weir.canonical.Profile', { ...base, id: 'out_0', firstName: 'Ann' }], [consentRecord, { ...base, purpose: 'news', channel: 'sms', state, reason: 'ann@larkspur.example wrote', proof: 'ticket 4711' }]] as const;
  const ids = identifiersOf(fields, keyed, 64)!;
  const encoded = outputs.map(([recordType, record]) => {
    const from = sink.at;
    serde.encodeTo(recordType, record, sink);
    return { recordType, outputId: record.id, changeId: recordType === consentRecord ? 'own' : undefined, outputName: 'o', person: personOf(ids, ids[0]!), from, to: sink.at };
  });
  const result = kind === 'ok' ? { kind, mapping: 'm', outputs: encoded } : { kind, reasons: [], closing: encoded.slice(1) };
  return { sink, result: result as any };
}
const all = Object.values(idOf);

test.each(['ok', 'dead'] as const)('a no of somebody who was erased stays for the identifiers that nobody erased, whatever they are (%s)', async (kind) => {
  await fc.assert(fc.asyncProperty(fc.subarray(all), fc.constantFrom('withdrawn', 'denied', 'granted', 'unknown'), fc.boolean(), async (erased, state, late) => {
    const { sink, result } = mapped(state, kind);
    // What is read late comes while the key of the person is made.
    const { keys, state: known } = ring(({ marks }) => { if (late) for (const id of erased) marks.set(id, 2000); });
    if (!late) for (const id of erased) known.marks.set(id, 2000);
    const sealing = createSealing(keys, createUnerased(serde, keyed));
    const works = [{ headers: { acceptedAt: 1500 }, result: sealing.withoutErased(result, 1500, sink) as any }];
    await sealing.seal(works, sink);
    const left = ((works[0]!.result.outputs ?? works[0]!.result.closing ?? []) as any[]).filter((o) => o.recordType === consentRecord);
    const others = all.filter((id) => !erased.includes(id));
    const stays = kind === 'ok' && erased.length === 0 ? 1 : (state === 'withdrawn' || state === 'denied' || erased.length === 0) && others.length > 0 ? 1 : 0;
    expect(left.length).toBe(stays);
    if (kind === 'ok' && erased.length > 0) expect(works[0]!.result).toMatchObject(stays === 1 ? { kind: 'ok', outputs: [{ recordType: consentRecord }] } : { kind: 'dropped', reason: 'subject-erased' });
    if (stays === 0) return;
    const [{ from, to, person, outputId, changeId }] = left;
    expect([new Set(person.ids), outputId, changeId, person.subject]).toEqual([new Set(others), 'out_1', 'own', person.ids[0]]);
    const bytes = unseal(known.keys.get(person.subject)!, sink.bytes.subarray(from, to));
    const record = serde.decode(bytes).value as any;
    expect([record.purpose, record.channel, record.state, Number(record.occurredAt), record.proof, record.id]).toEqual(['news', 'sms', state, 1000, 'ticket 4711', 'out_1']);
    expect(new Set(identifiersOf(record, keyed, 64))).toEqual(new Set(others));
    if (erased.includes(idOf.email)) expect(bytes.includes('ann@larkspur.example')).toBe(false);
    if (erased.includes(idOf.userId) && erased.includes(idOf.email)) expect(bytes.includes('ann')).toBe(false);
  }), { numRuns: 60 });
});
