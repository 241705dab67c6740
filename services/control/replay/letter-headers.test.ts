import { fieldReader, Packer, type OutRecord } from '@weir/log';
import { H } from '@weir/pipeline';
import { createLocalSerde } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decodeBatches, encodeBatch } from '../../../packages/log/records.ts';
import { LetterHeaders } from './letter-headers.ts';
import { createRecords, recordOf } from './put-back.ts';

const serde = await createLocalSerde();
const read = fieldReader<{ readonly headers: Buffer }>('weir.internal.DeadLetter', ['headers'], ['headers']);
const empty = { id: 'dlq_1', eventId: 'evt_1', stage: 'dispatcher', reasons: [{ code: 'delivery-rejected', message: 'no', file: null, line: null, field: null, path: null }], source: 'shop', destination: 'crm', operation: 'put', attempts: 1, release: 'rel_1', topic: 'w.dispatch.crm', partition: 0, offset: 0, key: null, value: null, headers: [], effect: 'none', acceptedAt: 1, at: 8 };
const names = fc.oneof(fc.constantFrom(...Object.values(H)), fc.string({ unit: 'grapheme-ascii', maxLength: 200 }));
const header = fc.record({ name: names, value: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)) });
const bytesOf = fc.option(fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)), { nil: null, freq: 8 });
const written = (records: readonly OutRecord[]): unknown => decodeBatches(encodeBatch(records, 1), 0).records.map(({ key, value, headers }) => ({ key, value, headers }));

test('a dead letter is put back with the bytes that the record had: its headers in their order, none of an earlier replay, those of this one behind them', () => {
  const item = fc.record({ key: bytesOf, value: bytesOf, headers: fc.array(header, { maxLength: 70, size: 'max' }), kind: fc.constantFrom('delivery', 'derived'), applied: fc.boolean(), only: fc.constantFrom(undefined, 'crm'), corrects: fc.constantFrom(undefined, undefined, 'rpl_0') });
  fc.assert(fc.property(fc.array(item, { maxLength: 6 }), fc.constantFrom(null, 'crm'), fc.constantFrom('hold', 'resend'), fc.constantFrom('dlq', 'raw'), (list, destination, unknown, from) => {
    const order = { id: 'rpl_1', from, destination, unknown } as const;
    const items = list.map(({ key, value, headers, kind, applied, only, corrects }, i) => {
      const encoded = new LetterHeaders(read(serde, serde.encode('weir.internal.DeadLetter', { ...empty, headers }))!.headers);
      expect(encoded.headers).toEqual(headers.map(({ name, value }) => [name, value]));
      expect(encoded.has(H.held)).toBe(headers.some(({ name }) => name === H.held));
      return { origin: { topic: 'w.dispatch.crm', partition: i % 3, offset: i, key, value, headers: encoded.headers, encoded }, from: `w.dlq/0/${i}`, kind, deliveries: [{ facts: { outputId: 'out_1', destination: 'crm', operation: 'put' }, found: { standing: applied ? 'applied' : 'notApplied' } }], only, corrects } as never as Parameters<typeof recordOf>[1];
    });
    const make = createRecords(order);
    const packer = new Packer();
    const [packed, plain] = [items.map((one) => make(packer, one)), items.map((one) => recordOf(order, one))];
    expect(packed.map((r) => r.partition)).toEqual(plain.map((r) => r.partition));
    expect(written(packed)).toEqual(written(plain));
    for (const [i, { headers }] of plain.entries()) expect(headers!.filter(([name]) => name === H.settled).map(([, value]) => value.toString())).toEqual(list[i]!.kind === 'derived' && list[i]!.applied ? ['out_1/crm/put'] : []);
    // Said by this order, and by none before it; by one of dead letters only of what it names: the delivery, or the one destination.
    for (const [i, { headers }] of plain.entries()) expect(headers!.filter(([name]) => name === H.resend).map(([, value]) => value.toString())).toEqual(unknown === 'resend' && (list[i]!.kind === 'delivery' || from === 'raw' || destination !== null) ? ['rpl_1'] : []);
  }), { numRuns: 60 });
});

test('headers in blocks with their size before them, which other writers of Avro may choose, are found', () => {
  const one = Buffer.from([2, 0x61, 4, 1, 2]);
  const bytes = Buffer.concat([Buffer.from([1, one.length * 2]), one, Buffer.from([2]), one, Buffer.from([0])]);
  const encoded = new LetterHeaders(bytes);
  expect(encoded.headers).toEqual([['a', Buffer.from([1, 2])], ['a', Buffer.from([1, 2])]]);
  const packer = new Packer();
  packer.begin();
  packer.key(one, 0, 1);
  packer.value(one, 0, 1);
  expect(encoded.pack(packer, [])).toBe(true);
  expect(packer.end(0).headers).toEqual(encoded.headers);
});
