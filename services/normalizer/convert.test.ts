import { compileMapping } from '@weir/mapping';
import { H } from '@weir/pipeline';
import { normalize, rawHeaders, type Release } from '@weir/release';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import { createConvert } from './convert.ts';

const serde = await createLocalSerde();
const mapping = compileMapping({ path: 'm.yaml', content: `mapping: m
outputs:
  choice:
    record: ConsentChange
    objectKey: user
    fields:
      userId: user
      purpose: { const: news }
      channel: channel
      state: state
` });
const release = { hash: 'r', sources: new Map([['shop', { mapping, limits: { depth: 8 } }]]), contracts: new Map(), policy: { routes: new Map([['Profile', [{ purpose: 'news', channel: 'email' }]]]) } } as unknown as Release;
const keyed = (type: string, value: string): string => `${type}:${value}`;

test.each([
  ['email', 'withdrawn', 'email', undefined], ['EMAIL', 'withdrawn', 'email', undefined], ['EMAIL', 'granted', 'email', undefined],
  ['fax', 'denied', null, [{ part: 'channel', said: 'no', output: 'choice' }]], ['fax', 'granted', 'fax', [{ part: 'channel', said: 'yes', output: 'choice' }]], ['fax', 'unknown', 'fax', undefined],
])('straight from the bytes or not, a change for %s (%s) is one for %s', (channel, state, expected, unrouted) => {
  const value = Buffer.from(JSON.stringify({ user: 'u', channel, state }));
  const record = { offset: 0, timestamp: 1000, key: null, value, headers: [[H.event, Buffer.from('evt_1')], [H.hash, Buffer.from('h')], [H.accepted, Buffer.from('1000')]] } as never;
  const sink = { bytes: Buffer.alloc(4096), at: 0 };
  const result = createConvert(serde, keyed)('shop', record, rawHeaders(record), release, sink);
  if (result.kind !== 'ok') throw new Error(JSON.stringify(result));
  const { from, to } = result.outputs[0]!;
  expect([(serde.decode(sink.bytes.subarray(from, to)).value as { channel: unknown }).channel, result.unrouted]).toEqual([expected, unrouted]);
  expect(normalize('shop', record, rawHeaders(record), release, keyed)).toMatchObject({ kind: 'ok', outputs: [{ record: { channel: expected }, outputId: result.outputs[0]!.outputId }] });
});
