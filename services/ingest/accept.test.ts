import { hash } from 'node:crypto';
import type { Item, JsonObject } from '@weir/adapter';
import { registry as adapters } from '@weir/adapters';
import type { Appender, OutRecord } from '@weir/log';
import { H, itemHash, keyedId, topicNames } from '@weir/pipeline';
import type { SourceConfig } from '@weir/release';
import { seal, sealKey } from '@weir/seal';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { accept, idOf } from './accept.ts';

const adapter = adapters.get('standard-webhooks')!;
const source: SourceConfig = { name: 'contacts', adapter, config: {}, mapping: undefined as never, limits: adapter.manifest.source!.limits, dedupeWindowMs: 0, account: 'contacts' };
const sealing = sealKey(Buffer.alloc(16, 1), Buffer.alloc(32, 2));
const workspaceKey = Buffer.alloc(32, 3);
const at = 1_700_000_000_000;

/** The record by its parts. */
function recordOf(item: Item, envelope: JsonObject | undefined, traceparent: string, contentType: string, sealed: boolean): Pick<OutRecord, 'key' | 'value' | 'headers'> {
  const { eventId, objectKey } = idOf(source, item, itemHash(item.bytes), envelope);
  const key = Buffer.from(objectKey === undefined ? eventId : sealed ? keyedId(workspaceKey, 'object', objectKey) : objectKey.length > 512 ? hash('sha256', objectKey, 'base64url') : objectKey);
  const keep = (bytes: Buffer): Buffer => (sealed ? seal(sealing, bytes) : bytes);
  const headers: [string, Buffer][] = ([[H.event, eventId], [H.hash, itemHash(item.bytes)], [H.source, 'contacts'], [H.accepted, String(at)], [H.traceparent, traceparent], [H.contentType, contentType.slice(0, 200)]] as const).map(([name, text]) => [name, Buffer.from(text)]);
  if (envelope !== undefined && Object.keys(envelope).length > 0) headers.push([H.envelope, keep(Buffer.from(JSON.stringify(envelope)))]);
  return { key, value: keep(item.bytes), headers: [...headers, [H.objectKey, key]] };
}

test('a record has the item and its headers as they are, in order, whatever came before it', async () => {
  const items = fc.array(fc.record({ user: fc.option(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 600 }), { nil: undefined }), pad: fc.string({ maxLength: 300 }) }), { minLength: 1, maxLength: 4 });
  const envelopes = fc.option(fc.oneof(fc.constant({}), fc.record({ id: fc.string({ unit: 'grapheme', maxLength: 100 }) })), { nil: undefined });
  const arrival = fc.record({ items, envelope: envelopes, contentType: fc.oneof(fc.constant('application/json'), fc.string({ unit: 'grapheme', maxLength: 300 })), traceparent: fc.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/), sealed: fc.boolean() });
  await fc.assert(fc.asyncProperty(fc.array(arrival, { minLength: 1, maxLength: 4 }), async (list) => {
    const records: OutRecord[] = [];
    const appender = { partitionFor: (_topic: string, key: Buffer) => key.length % 6, append: (_topic: string, more: readonly OutRecord[]) => Promise.resolve(records.push(...more)) } as unknown as Appender;
    const wanted: ReturnType<typeof recordOf>[] = [];
    for (const { items: bodies, envelope, contentType, traceparent, sealed } of list) {
      const made = bodies.map(({ user, pad }): Item => {
        const value: JsonObject = { data: { ...(user === undefined ? {} : { user_id: user }) } as JsonObject, pad };
        return { value, bytes: Buffer.from(JSON.stringify(value)) };
      });
      await accept({ appender, topics: topicNames('t'), now: () => at, ackTimeoutMs: 1000, ...(sealed ? { sealing: { keys: { current: () => sealing, ensure: () => Promise.resolve() }, workspaceKey } } : {}) }, { source, items: made, envelope, traceparent, contentType });
      for (const item of made) wanted.push(recordOf(item, envelope, traceparent, contentType, sealed));
    }
    expect(records.map(({ key, value, headers }) => ({ key, value, headers }))).toEqual(wanted);
    expect(records.every((r) => r.partition === r.key!.length % 6)).toBe(true);
  }), { numRuns: 200 });
});

test.each([false, true])('updates of one object have one key, however long its id is: they would spread over the partitions and lose their order (sealed: %s)', async (sealed) => {
  const keys = async (user: string, pads: readonly string[]): Promise<readonly string[]> => {
    const records: OutRecord[] = [];
    const appender = { partitionFor: () => 0, append: (_topic: string, more: readonly OutRecord[]) => Promise.resolve(records.push(...more)) } as unknown as Appender;
    const items = pads.map((pad): Item => {
      const value: JsonObject = { data: { user_id: user }, pad };
      return { value, bytes: Buffer.from(JSON.stringify(value)) };
    });
    await accept({ appender, topics: topicNames('t'), now: () => at, ackTimeoutMs: 1000, ...(sealed ? { sealing: { keys: { current: () => sealing, ensure: () => Promise.resolve() }, workspaceKey } } : {}) }, { source, items, envelope: undefined, traceparent: '', contentType: 'application/json' });
    return records.map((record) => record.key!.toString());
  };
  const [long, other] = [await keys('x'.repeat(2000), ['1', '2']), await keys(`${'x'.repeat(2000)}y`, ['1'])];
  expect([new Set(long).size, long[0] === other[0], long[0]!.length <= 512]).toEqual([1, false, true]);
});
