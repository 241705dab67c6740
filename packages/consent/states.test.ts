import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';
import type { LogRecord, Serde } from '@weir/log';
import { checkUse, consentKey, type ConsentState } from '@weir/policy';
import { openTable, type Table } from '@weir/state';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createStateIndex, foldedKey, type StateIndex } from './states.ts';

/** JSON behind the head of the wire format; anything else is not readable. */
const serde = {
  check(bytes: Buffer) {
    if (bytes[0] !== 0) throw new WeirError('avro-undecodable');
    return bytes.includes('nextOffset') ? 'weir.internal.ConsentFolded' : 'weir.internal.ConsentState';
  },
  idOf: () => -1,
  decode: (bytes: Buffer) => ({ name: 'weir.internal.ConsentState', value: JSON.parse(bytes.toString('utf8', 5)) as unknown }),
} as unknown as Serde;

let dir: string;
let table: Table;
let index: StateIndex;
let unreadable: number[];
let offset = 0;

function open(): void {
  table = openTable({ path: dir, tellsAbsent: true });
  index = createStateIndex(table, serde, (record) => { unreadable.push(record.offset); });
}
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-states-'));
  unreadable = [];
  open();
});
afterEach(async () => {
  await table.close();
  rmSync(dir, { recursive: true, force: true });
});

const keyOf = (id: string, purpose: string): string => consentKey(id, purpose, 'email', '');
function state(id: string, purpose: string, said: ConsentState['state'], version: number): Buffer {
  return Buffer.concat([Buffer.alloc(5), Buffer.from(JSON.stringify({ id, purpose, channel: 'email', topic: '', state: said, version, changedAt: version, expiresAt: null }))]);
}
function apply(partition: number, ...records: readonly (readonly [key: string, value: Buffer | null])[]): void {
  const made = records.map(([key, value]): LogRecord => ({ offset: offset++, timestamp: 1, key: Buffer.from(key), value, headers: [] }));
  table.putBatch(index.puts({ topic: 'c', partition, epoch: 0, records: made, nextOffset: offset, highWatermark: offset }));
}
const allowed = (id: string, purpose: string): boolean => checkUse([id], purpose, 'email', null, 'consent', index.states, 5).ok;

test('a state is kept as it is on the topic, of each purpose, also after the cache is opened again', async () => {
  apply(0, [keyOf('a', 'news'), state('a', 'news', 'granted', 1)], [keyOf('a', 'ads'), state('a', 'ads', 'granted', 2)], [keyOf('b', 'news'), state('b', 'news', 'withdrawn', 3)]);
  apply(0, [keyOf('a', 'ads'), state('a', 'ads', 'withdrawn', 4)]);
  for (let round = 0; round < 2; round++) {
    expect([allowed('a', 'news'), allowed('a', 'ads'), allowed('b', 'news'), allowed('c', 'news')]).toEqual([true, false, false, false]);
    expect(index.stored(keyOf('a', 'ads'))).toMatchObject({ partition: 0, state: { state: 'withdrawn', version: 4 }, bytes: state('a', 'ads', 'withdrawn', 4) });
    await table.close();
    open();
  }
});

test('a late older state does not replace a newer one, in the same batch or another, and its key is told, also after a restart', async () => {
  apply(0, [keyOf('a', 'news'), state('a', 'news', 'withdrawn', 7)], [keyOf('a', 'news'), state('a', 'news', 'granted', 6)]);
  apply(0, [keyOf('a', 'news'), state('a', 'news', 'granted', 5)]);
  expect(allowed('a', 'news')).toBe(false);
  expect(index.regressed(0)).toEqual([keyOf('a', 'news')]);
  await table.close();
  open();
  expect([index.regressed(0), index.regressed(1)]).toEqual([[keyOf('a', 'news')], []]);
  apply(0, [keyOf('a', 'news'), state('a', 'news', 'granted', 8)]);
  expect([allowed('a', 'news'), index.regressed(0)]).toEqual([true, []]);
});

test('a mark that a late writer wrote over a newer one takes nothing back, and is told until it is written again, also after a restart', async () => {
  const mark = (nextOffset: number): [string, Buffer] => [foldedKey(0), Buffer.concat([Buffer.alloc(5), Buffer.from(JSON.stringify({ partition: 0, nextOffset }))])];
  apply(0, mark(63));
  apply(0, mark(78), mark(63));
  expect([index.folded(0), index.regressed(0)]).toEqual([78, [foldedKey(0)]]);
  await table.close();
  open();
  expect([index.folded(0), index.regressed(0)]).toEqual([78, [foldedKey(0)]]);
  apply(0, mark(78));
  expect([index.folded(0), index.regressed(0)]).toEqual([78, []]);
});

test('an identifier with more states than are kept is closed, and the fold still finds each of them', () => {
  for (let i = 0; i < 520; i++) apply(0, [keyOf('a', `p${i}`), state('a', `p${i}`, 'granted', i + 1)]);
  expect([index.states('a'), allowed('a', 'p1')]).toEqual(['too-many', false]);
  for (const i of [0, 300, 511, 512, 519]) expect(index.stored(keyOf('a', `p${i}`))).toMatchObject({ state: { version: i + 1 } });
  apply(0, [keyOf('a', 'p3'), null]);
  expect([index.stored(keyOf('a', 'p3')), index.states('a')]).toEqual([undefined, 'too-many']);
});

test('a state that is not readable closes its identifier and is told; a tombstone takes one state away', () => {
  apply(0, [keyOf('a', 'news'), state('a', 'news', 'granted', 1)], [keyOf('b', 'news'), state('b', 'news', 'granted', 1)], [keyOf('b', 'ads'), state('b', 'ads', 'granted', 1)]);
  apply(0, [keyOf('a', 'ads'), Buffer.from('junk')], [keyOf('b', 'ads'), null]);
  expect([allowed('a', 'news'), allowed('b', 'news'), allowed('b', 'ads'), unreadable.length]).toEqual([false, true, false, 1]);
  expect(index.stored(keyOf('a', 'news'))).toMatchObject({ state: { version: 1 } });
});

type Step = { readonly does: 'put' | 'remove'; readonly id: number } | { readonly does: 'reopen' | 'wait' };
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ does: fc.constant('put' as const), id: fc.nat({ max: 12 }) }) }, { weight: 1, arbitrary: fc.record({ does: fc.constant('remove' as const), id: fc.nat({ max: 12 }) }) },
  { weight: 1, arbitrary: fc.constant({ does: 'reopen' as const }) }, { weight: 2, arbitrary: fc.constant({ does: 'wait' as const }) },
);

test('nobody who said no is taken for one who said nothing, by a table that tells who is not there', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
    table.clear();
    await table.close();
    open();
    const said = new Set<string>();
    for (const { does, ...of } of steps) {
      const id = `email:${'id' in of ? of.id : 0}`;
      if (does === 'reopen') {
        await table.close();
        open();
      } else if (does === 'wait') await new Promise(setImmediate);
      else {
        apply(0, [keyOf(id, 'news'), does === 'put' ? state(id, 'news', 'withdrawn', offset) : null]);
        if (does === 'put') said.add(id);
        else said.delete(id);
      }
      for (let n = 0; n <= 12; n++) expect(checkUse([`email:${n}`], 'news', 'email', null, 'legitimate-interest', index.states, 5).ok).toBe(!said.has(`email:${n}`));
    }
  }), { numRuns: 60 });
});
