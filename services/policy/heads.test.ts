import fc from 'fast-check';
import { headerBytes, Packer, type LogRecord } from '@weir/log';
import { H } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { decodeBatches, encodeBatch } from '../../packages/log/records.ts';
import { outHeaders } from './delivery.ts';
import { Heads } from './heads.ts';
import { numberOf, textOf } from './ports.ts';

const name = fc.constantFrom(...Object.values(H), 'weir-other');
const text = fc.oneof(fc.string({ unit: fc.integer({ min: 32, max: 126 }).map((code) => String.fromCharCode(code)), maxLength: 60 }), fc.constantFrom('', '0', '17', '-1', '1e3', '9007199254740993', 'a,b', ','));
const list = fc.array(fc.tuple(name, text), { maxLength: 40 }).map((all) => all.map(([of, value]) => [of, Buffer.from(value)] as const));

function stored(headers: LogRecord['headers']): LogRecord {
  return decodeBatches(encodeBatch([{ partition: 0, key: Buffer.from('k'), value: Buffer.from('v'), headers }], 5), 0).records[0]!;
}
function carriedBy(record: LogRecord): readonly (readonly [string, string])[] {
  const packer = new Packer();
  packer.begin();
  packer.key(Buffer.from('k'), 0, 1);
  packer.value(Buffer.from('v'), 0, 1);
  new Heads(record).carry(packer);
  const release = headerBytes(H.release, 'rel_b');
  packer.headers(release, 0, release.length, 1);
  return decodeBatches(encodeBatch([packer.end(0)], 5), 0).records[0]!.headers.map(([of, value]) => [of, value.toString()] as const);
}

test('one walk over the headers reads what a look-up of each name does, the first of a name, in whatever order and number they come', () => {
  fc.assert(fc.property(list, (headers) => {
    for (const record of [stored(headers), { offset: 0, timestamp: 0, key: null, value: null, headers }]) {
      const heads = new Heads(record);
      const optional = (of: string): string | undefined => headers.find(([found]) => found === of)?.[1].toString();
      expect({ ...heads }).toEqual({
        eventId: textOf(record, H.event), outputId: textOf(record, H.output), source: textOf(record, H.source), hash: textOf(record, H.hash), acceptedAt: numberOf(record, H.accepted), intent: textOf(record, H.intent),
        ids: textOf(record, H.ids) === '' ? [] : textOf(record, H.ids).split(','), afterConsent: optional(H.afterConsent), afterIdentity: optional(H.afterIdentity), only: optional(H.only), corrects: optional(H.corrects), settled: optional(H.settled), approval: optional(H.approval),
      });
    }
  }));
});

test('a delivery carries the headers that its record hands on, in their order, the first of each name and no other', () => {
  fc.assert(fc.property(list, (headers) => {
    const all = outHeaders({ offset: 0, timestamp: 0, key: null, value: null, headers }, 'rel_b').map(([of, value]) => [of, value.toString()]);
    const wanted = [...all.slice(0, -1).filter(([of], i) => all.findIndex(([other]) => other === of) === i), all.at(-1)];
    expect(carriedBy(stored(headers))).toEqual(wanted);
    expect(carriedBy({ offset: 0, timestamp: 0, key: null, value: null, headers })).toEqual(wanted);
  }));
});

test('a record with hundreds of headers of one name does not stop the stage: its delivery has one', () => {
  const headers = Array.from({ length: 300 }, (_, i) => [H.traceparent, Buffer.from(String(i))] as const);
  expect(carriedBy(stored(headers))).toEqual([[H.traceparent, '0'], [H.release, 'rel_b']]);
});
