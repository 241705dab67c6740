import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';
import type { LogAdmin, Reader, Serde } from '@weir/log';
import { deliveryKey, H, topicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { openTable, type Table } from '@weir/state';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createCorrector, type Corrector } from './correct.ts';
import type { ReplayOrder } from './order.ts';
import type { Item } from './select.ts';
import type { StandingPorts } from './standing.ts';

const topics = topicNames('t');
const order = { id: 'rpl_a', destination: null, since: null } as ReplayOrder;
const facts = (person: string) => ({ outputId: `out_${person}`, eventId: `evt_${person}`, destination: 'crm', operation: 'put', recordType: 'weir.canonical.Profile', itemHash: 'h', acceptedAt: 5, subject: person, purpose: null, channel: null, topic: null, legalBasis: null, ids: [`email:${person}`], intent: '0' });

/** JSON under its name; what begins with 1 is sealed under a key that is destroyed, with 2 no Avro. */
const encode = (name: string, value: object): Buffer => Buffer.from(JSON.stringify({ name, value }));
const serde = {
  known: (bytes: Buffer) => { if (bytes[0] === 0x32) throw new WeirError('avro-undecodable'); return true; },
  decode: (bytes: Buffer) => {
    if (bytes[0] === 0x31) throw new WeirError('subject-erased');
    return JSON.parse(bytes.toString(), (_k, v) => (v?.type === 'Buffer' ? Buffer.from(v.data) : v));
  },
} as unknown as Serde;
const profile = (email: string): Buffer => encode('weir.canonical.Profile', { email });
const delivered = (person: string): Buffer => encode('weir.internal.Delivery', { ...facts(person), payload: profile(`${person}@before.example`) });
const item = (person: string, headers: Readonly<Record<string, string>> = {}): Item => ({ origin: { headers: Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)]) }, eventId: `evt_${person}`, kind: 'derived', deliveries: [{ facts: facts(person), found: { standing: 'confirmed' }, allowed: true, payload: profile(`${person}@after.example`) }] }) as unknown as Item;

let dir: string;
let table: Table;
let erased: Set<string>;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-correct-'));
  table = openTable({ path: dir });
  erased = new Set();
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});

function corrector(values: readonly Buffer[]): Corrector {
  const ends = new Map(values.flatMap((value, offset) => (value[0] === 0x7b ? [[deliveryKey(serde.decode(value).value.outputId as string, 'crm', 'put', '0', 0), { state: 'delivered', effect: 'done', itemHash: 'h', at: 9, offset, maybeSince: 0 }] as const] : [])));
  const reader = { read: async (topic: string, partition: number, _from: number, _to: number, take: (b: object) => Promise<void>) => take({ topic, partition, records: values.map((value, offset) => ({ offset, value })) }) } as unknown as Reader;
  const admin = { endOffsets: async () => new Map([[0, values.length]]), beginningOffsets: async () => new Map([[0, 0]]) } as unknown as LogAdmin;
  const standing = { end: (_d: string, key: string) => ends.get(key), newest: () => undefined, objectOf: () => '', destination: () => undefined, mayRead: ([id]: readonly string[]) => !erased.has(id!) } as unknown as StandingPorts;
  return createCorrector({ reader, admin, serde, topics, release: () => ({ destinations: new Map([['crm', {}]]) }) as unknown as Release, standing, table });
}
const rows = (): number => [...table.range('p/')].length;

test('deliveries of erased people and foreign bytes on a dispatch topic do not end a corrected replay', async () => {
  const found = await corrector([delivered('ann'), Buffer.from('1 sealed'), Buffer.from('2 foreign'), encode('weir.internal.Other', { outputId: 'out_x' }), delivered('bob')]).open(order, () => true);
  expect(['ann', 'bob'].map((person) => found.differences(item(person))[0]?.fields)).toEqual([['email'], ['email']]);
});

test('what an approver let through is not corrected under his approval, which was of what he was shown: the preview counts it apart', async () => {
  const found = await corrector([delivered('ann'), delivered('bob')]).open(order, () => true);
  const told = (of: Item) => [found.differences(of).length, found.approved(of), found.mark(of).corrects?.replace(/fix_[0-9a-f]{32}/, 'fix')];
  expect(told(item('ann'))).toEqual([1, 0, 'out_ann/crm/put=fix']);
  expect(told(item('ann', { [H.approval]: 'crm/put/big' }))).toEqual([0, 1, undefined]);
  // An approver let the correction itself through, and it went.
  expect(told(item('bob', { [H.approval]: 'crm/put/big', [H.corrects]: 'out_bob/crm/put=fix_1' }))).toEqual([0, 1, undefined]);
});

test('what was delivered stands in the clear on the disk only while it is compared: after the pass, and after a crash in it, it is gone', async () => {
  const first = corrector([delivered('ann'), delivered('bob')]);
  const found = await first.open(order, () => true);
  expect(rows()).toBe(2);
  found.close();
  expect(rows()).toBe(0);
  await first.open(order, () => true);
  expect(rows()).toBe(2);
  corrector([]);
  expect(rows()).toBe(0);
});

test('a diff that was made before a person was erased shows nothing of that person after', async () => {
  const one = corrector([delivered('ann'), delivered('bob')]);
  const found = await one.open(order, () => true);
  for (const person of ['ann', 'bob']) found.differences(item(person));
  expect(one.samples(order.id).map((s) => s.eventId)).toEqual(['evt_ann', 'evt_bob']);
  erased.add('email:ann');
  expect(one.samples(order.id).map((s) => s.eventId)).toEqual(['evt_bob']);
});
