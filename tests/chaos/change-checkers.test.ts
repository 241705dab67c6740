import { encodeLeaf, type AuditLeaf } from '@weir/audit';
import { expect, test } from 'vitest';
import { answersHold, changesAudited, erased, pausesHold } from './change-checkers.ts';
import type { History } from './history.ts';
import type { OperatorsLog } from './operators.ts';

const leafId = (n: number): string => `leaf_0000000${n}-0000-4000-8000-000000000000`;
const leaf = (n: number, over: Partial<AuditLeaf>): History['leaves'][number] => ({ bytes: encodeLeaf({ id: leafId(n), kind: 'intent', at: n, actor: 'admin', action: 'token.issue', target: null, of: null, details: {}, ...over }), at: n });
const intent = (n: number, action = 'token.issue'): History['leaves'][number] => leaf(n, { action });
const end = (n: number, of: number, result: string): History['leaves'][number] => leaf(n, { kind: 'end', of: leafId(of), details: { result } });
const change = (n: number): History['changes'][number] => ({ what: 'token/1', leaf: leafId(n), at: n });

test('an intent that has its end, and whose change is where its end says, is let pass', () => {
  expect(changesAudited({ leaves: [intent(1), end(2, 1, 'completed'), intent(3), end(4, 3, 'not-made'), intent(5, 'subject.show'), end(6, 5, 'completed')], changes: [change(1)] })).toEqual([]);
});

test.each<[string, History['leaves'], History['changes']]>([
  ['an intent without an end', [intent(1)], [change(1)]],
  ['two ends that say different things', [intent(1), end(2, 1, 'completed'), end(3, 1, 'not-made')], []],
  ['one told as not made whose change is there', [intent(1), end(2, 1, 'not-made')], [change(1)]],
  ['one told as refused whose change is there', [intent(1), end(2, 1, 'refused')], [change(1)]],
  ['one told as completed without a change', [intent(1), end(2, 1, 'completed')], []],
])('%s is seen', (_what, leaves, changes) => {
  expect(changesAudited({ leaves, changes })).not.toEqual([]);
});

const log: OperatorsLog = { pauses: [{ destination: 'newsletter', from: 1000, to: 9000 }], switches: new Map([['newsletter', false]]), tokens: new Map([['t1', false], ['t2', true]]), replays: new Set(['rpl_1']), erasures: [{ id: 'leaf_1', userId: 'x-1', email: 'x1@larkspur.example', events: ['e1'] }], odd: [] };
const held = { switches: new Map([['newsletter', false]]), tokens: new Map([['t1', false], ['t2', true]]), orders: new Set(['rpl_1']), erasures: new Map([['leaf_1', { state: 'erased', erasedAt: 500 as number | null }]]) };

test('what was answered and is so is let pass', () => {
  expect(answersHold(held, log)).toEqual([]);
});

test.each<[string, Partial<typeof held>, Partial<OperatorsLog>]>([
  ['a switch that says otherwise', { switches: new Map([['newsletter', true]]) }, {}],
  ['a token that is not known', { tokens: new Map([['t2', true]]) }, {}],
  ['a token that was revoked and is valid', { tokens: new Map([['t1', false], ['t2', false]]) }, {}],
  ['a replay that is not known', { orders: new Set() }, {}],
  ['an erasure that is not known', { erasures: new Map() }, {}],
  ['an answer that nobody should get', {}, { odd: ['POST /v1/tokens was answered 403'] }],
])('%s is seen', (_what, over, told) => {
  expect(answersHold({ ...held, ...over }, { ...log, ...told })).toHaveLength(1);
});

const arrival = (over: Partial<History['arrivals'][number]>): History['arrivals'][number] => ({ destination: 'newsletter', operation: 'subscribers', idempotencyKey: 'k1', subject: 's1', body: { email: 'x1@larkspur.example' }, at: 400, applied: true, n: 1, ...over });

test('a call while its destination is paused is seen; one that began before, one of another and one after are not', () => {
  const calls = [arrival({ at: 1400 }), arrival({ at: 5000, destination: 'warehouse' }), arrival({ at: 9000 })];
  expect(pausesHold({ arrivals: calls }, log, 500)).toEqual([]);
  expect(pausesHold({ arrivals: [...calls, arrival({ at: 1600 })] }, log, 500)).toHaveLength(1);
});

test('what can be read of who was erased, a call after the acknowledgement and an erasure without one are seen', () => {
  const canonical = (userId: string, event: string): History['canonical'][number] => ({ event, output: 'o1', source: 'segment', subject: 's1', partition: 0, offset: 1, type: 'weir.canonical.Event', release: 'r1', value: Buffer.from('v'), wanted: { must: [], may: [] }, userId });
  const good = { canonical: [canonical('u-1', 'e1'), canonical('x-1', 'e9')], arrivals: [arrival({ at: 900 })], erasures: held.erasures };
  expect(erased(good, log, 500)).toEqual([]);
  expect(erased({ ...good, canonical: [canonical('x-1', 'e1')] }, log, 500)).toHaveLength(1);
  expect(erased({ ...good, arrivals: [arrival({ at: 1100 })] }, log, 500)).toHaveLength(1);
  expect(erased({ ...good, erasures: new Map([['leaf_1', { state: 'told', erasedAt: null }]]) }, log, 500)).toHaveLength(1);
});
