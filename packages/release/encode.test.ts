import { WeirError } from '@weir/errors';
import type { Sink } from '@weir/log';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { boundReasons, encodeAll } from './encode.ts';
import { createPersons, identifiersOf, linksOf } from './identity.ts';
import type { Canonical } from './normalize.ts';

const output = (name: string): Canonical => ({ recordType: 'weir.canonical.Profile', record: { name }, outputId: `out_${name}`, outputName: name, ids: [], subject: 's' });
const ok = (...outputs: Canonical[]) => ({ kind: 'ok', mapping: 'm', outputs }) as const;
const newSink = (): Sink => ({ bytes: Buffer.alloc(8), at: 0 });
const bytes = (size: number) => (_type: string, _record: unknown, sink: Sink): void => { sink.at += size; };
const reasonsOf = (result: ReturnType<typeof encodeAll>): string[] => (result.kind === 'dead' ? result.reasons.map((r) => r.message) : [result.kind]);

test('a record that does not fit its schema is a dead letter that does not repeat the value, and the other outputs are named, too', () => {
  const result = encodeAll(ok(output('a'), output('b')), (_type, record) => { throw new Error(`invalid "string": secret ${String((record as { name: string }).name)}`); }, newSink());
  expect(reasonsOf(result)).toEqual(['output a does not fit weir.canonical.Profile', 'output b does not fit weir.canonical.Profile']);
});

test('a record, or the records of an item together, over what the log takes are a dead letter', () => {
  expect(reasonsOf(encodeAll(ok(output('a')), bytes(1_000_001), newSink()))).toEqual([expect.stringMatching(/1000001 bytes/)]);
  expect(reasonsOf(encodeAll(ok(...'abcde'.split('').map(output)), bytes(900_000), newSink()))).toEqual([expect.stringMatching(/4500000 bytes together/)]);
  expect(reasonsOf(encodeAll(ok(output('a')), bytes(1_000_000), newSink()))).toEqual(['ok']);
});

test('an error with a code is not about the record: it stops the stage', () => {
  expect(() => encodeAll(ok(output('a')), () => { throw new WeirError('invariant-broken'); }, newSink())).toThrow(WeirError);
});

test('reasons are bounded in number and length, and say how many there are', () => {
  const reasons = boundReasons(Array.from({ length: 5000 }, (_, i) => ({ code: 'mapping-failed' as const, message: `${i} ${'x'.repeat(2000)}`, path: 'p'.repeat(9000) })));
  expect(reasons).toHaveLength(101);
  expect(reasons[100]!.message).toBe('and 4900 more reasons');
  expect(JSON.stringify(reasons).length).toBeLessThan(100_000);
});

const keyed = (_type: string, value: string): string => value;

test('the strongest identifier comes first, and each once', () => {
  const record = { anonymousId: 'a', userId: 'u', email: 'e', phone: null, externalIds: [{ type: 'x', value: '1' }, { type: 'x', value: '1' }] };
  expect(identifiersOf(record, keyed, 64)).toEqual(['userId:u', 'email:e', 'external:x:1', 'anonymousId:a']);
});

test('an alias links the earlier id, of whichever kind it is', () => {
  const ids = identifiersOf({ userId: 'u', previousId: 'p' }, keyed, 64)!;
  expect(ids).toEqual(['userId:u', 'anonymousId:p', 'userId:p']);
  expect(linksOf(ids)).toEqual(['anonymousId:p~userId:u', 'userId:p~userId:u']);
});

test('a record with more identifiers than a decision may follow has none: it is refused', () => {
  expect(identifiersOf({ externalIds: Array.from({ length: 65 }, (_, i) => ({ type: 'x', value: String(i) })) }, keyed, 64)).toBeUndefined();
  expect(identifiersOf({ userId: 'u', externalIds: Array.from({ length: 64 }, (_, i) => ({ type: 'x', value: String(i) })) }, keyed, 64)).toBeUndefined();
});

test('a person that is known again is the one of its values, however often they change and come under another field', () => {
  const text = fc.constantFrom('', 'a', 'b', 'c', null, undefined, 7);
  const record = fc.record({ userId: text, email: text, phone: text, anonymousId: text, previousId: text });
  fc.assert(fc.property(fc.array(record, { maxLength: 60 }), fc.integer({ min: 1, max: 4 }), (records, max) => {
    const persons = createPersons(keyed, 64, max);
    for (const [i, values] of records.entries()) {
      const ids = identifiersOf(values, keyed, 64)!;
      expect(persons((field) => (values as Record<string, unknown>)[field], `e${i}`)).toEqual({ ids, text: ids.join(','), subject: ids[0] ?? `event:e${i}`, key: Buffer.from(ids[0] ?? `event:e${i}`) });
    }
  }));
});
