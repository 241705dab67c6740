import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Adapter } from '@weir/adapter';
import type { LogAdmin, LogRecord, Reader } from '@weir/log';
import { deliveryKey, H, topicNames } from '@weir/pipeline';
import { canonicalSchemas } from '@weir/policy';
import { compileRelease, type Release } from '@weir/release';
import { openTable } from '@weir/state';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import { createCorrector } from './correct.ts';
import { createDeriver } from './derive.ts';
import type { ReplayOrder } from './order.ts';
import { createSelector, goesBack, type SelectPorts } from './select.ts';

const topics = topicNames('t');
const serde = await createLocalSerde();
const put = { kind: 'use', accepts: ['weir.canonical.Profile'], idempotency: { scheme: 'natural-upsert', pastWindow: 'hold' } };
const sink = { manifest: { name: 'sink', title: 'Sink', docs: '', apiVersion: '1', destination: { config: {}, operations: { put } } }, destination: {} } as unknown as Adapter;
const allow = '  - { name: all, effect: allow }\n';
const big = '  - { name: big, effect: require-approval }\n';
const hide = '  - { name: hide, effect: hash, hash: { as: sha256, fields: [email] } }\n';
function releaseOf(rules: string): Release {
  const files = { 'weir.yaml': 'name: acme\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: S. }\n', 'policies/a.yaml': `rules:\n${rules}`, 'destinations/crm.yaml': 'adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n' };
  return compileRelease(Object.entries(files).map(([path, content]) => ({ path, content })), { adapters: new Map([['sink', sink]]) });
}

const order = { id: 'rpl_a', from: 'canonical', since: null, until: null, source: null, destination: 'crm', code: null, stage: null, release: null, subject: [], events: Buffer.alloc(0), letters: false, corrected: true, verify: false, unknown: 'hold', rate: 0, ahead: 0 } as unknown as ReplayOrder;
const emptied = Object.fromEntries(canonicalSchemas().get('Profile')!.fields.map(({ name }) => [name, null]));
const value = serde.encode('weir.canonical.Profile', { ...emptied, id: 'o', source: 'shop', occurredAt: 5, externalIds: [], attributes: {}, email: 'ann@larkspur.example' });
const record = (approval: string): LogRecord => {
  const headers: Record<string, string> = { [H.event]: 'evt_1', [H.output]: 'out_1', [H.source]: 'shop', [H.accepted]: '1000', [H.hash]: 'h', [H.ids]: 'email:x', [H.approval]: approval };
  return { offset: 0, timestamp: 5, key: Buffer.from('email:x'), value, headers: Object.entries(headers).filter(([, text]) => text !== '').map(([name, text]) => [name, Buffer.from(text)] as const) };
};
/** What an approver let through, as it stands on weir.canonical beside the record that was held. */
const approved = record('crm/put/big');

/** What a corrected order sends of a record under `now`, where the vendor has what `before` made of the approved one. */
async function corrected(of: LogRecord, before: Release, now: Release): Promise<{ readonly goes: boolean; readonly corrects: boolean; readonly differs: number; readonly approved: number }> {
  const delivered = { state: 'delivered', effect: 'done', itemHash: 'h', at: 9, offset: 0, maybeSince: 0 };
  const standing = { end: (_d: string, key: string) => (key === deliveryKey('out_1', 'crm', 'put', '0', 0) ? delivered : undefined), newest: () => undefined, objectOf: () => '', deliveryState: () => 'delivered', allows: () => true, destination: (name: string) => now.destinations.get(name), oldestSent: () => 1e12, mayRead: () => true };
  const ports = {
    serde, topics, release: () => now, workspaceKey: Buffer.alloc(32), tables: { linked: (ids: readonly string[]) => ids, check: () => ({ ok: true, seen: [] }), regions: () => undefined }, keys: undefined, standing,
    open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined, canonicalOf: async () => [], decidedLater: () => false, endedAs: () => undefined, now: () => 2_000_000,
  } as unknown as SelectPorts;
  const made = createDeriver({ ...ports, release: () => before }).now(approved, 'crm', 'put');
  if (made.kind !== 'allowed') throw new Error(`it is ${made.kind}`);
  const delivery = serde.encode('weir.internal.Delivery', {
    outputId: 'out_1', eventId: 'evt_1', destination: 'crm', operation: 'put', kind: 'use', recordType: 'weir.canonical.Profile', payload: made.payload, decidedAt: 1000, itemHash: 'h', source: 'shop', acceptedAt: 1000, purpose: 'service', channel: null, topic: null, legalBasis: 'contract', rule: 'all',
    ids: ['email:x'], consent: [], consentOffsets: [], identityOffsets: [], intent: '0', release: before.hash, notBefore: null,
  });
  const reader = { read: async (topic: string, partition: number, _from: number, _to: number, take: (batch: object) => Promise<void>) => take({ topic, partition, records: [{ offset: 0, value: delivery }] }) } as unknown as Reader;
  const admin = { endOffsets: async () => new Map([[0, 1]]), beginningOffsets: async () => new Map([[0, 0]]) } as unknown as LogAdmin;
  const dir = mkdtempSync(join(tmpdir(), 'weir-approved-'));
  const table = openTable({ path: dir });
  try {
    const [item] = await createSelector(ports, order).take([{ topic: topics.canonical, partition: 0, record: of }]);
    const found = await createCorrector({ reader, admin, serde, topics, release: () => now, standing: ports.standing, table }).open(order, () => true);
    const marked = found.mark(item!);
    return { goes: goesBack(marked, order), corrects: marked.corrects !== undefined, differs: found.differences(item!).length, approved: found.approved(item!) };
  } finally {
    await table.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

test('what went hashed because an approver let it through does not go in the clear by a correction that nobody approved', async () => {
  const [before, now] = [releaseOf(`${allow}${big}${hide}`), releaseOf(`${allow}${big}`)];
  expect(await corrected(approved, before, now)).toEqual({ goes: false, corrects: false, differs: 0, approved: 1 });
  // The record itself is held today.
  expect(await corrected(record(''), before, now)).toEqual({ goes: false, corrects: false, differs: 0, approved: 0 });
});

test('where no rule holds the record any more, it is corrected by itself and not by the copy that was approved', async () => {
  const [before, now] = [releaseOf(`${allow}${big}${hide}`), releaseOf(allow)];
  expect(await corrected(approved, before, now)).toEqual({ goes: false, corrects: false, differs: 0, approved: 1 });
  expect(await corrected(record(''), before, now)).toEqual({ goes: true, corrects: true, differs: 1, approved: 0 });
});
