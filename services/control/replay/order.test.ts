import { keyedId } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { idFilter, overlap, parseRequest, type ReplayRequest } from './order.ts';

const release = { sources: new Map([['shop', {} as never]]), destinations: new Map([['crm', {} as never]]) };
const now = Date.parse('2026-03-04T10:00:00Z');
const parse = (request: object) => parseRequest(request as ReplayRequest, release, Buffer.alloc(32, 1), now);
const evt = (c: string): string => `evt_${c.repeat(32)}`;

test.each<[string, object, RegExp]>([
  ['an unknown destination', { from: 'dlq', destination: 'crmm' }, /no destination crmm; it has crm/],
  ['an unknown source', { from: 'raw', source: 'x' }, /no source x; it has shop/],
  ['a range upside down', { from: 'raw', since: now - 1, until: now - 2 }, /ends .* before it begins/],
  ['an empty range', { from: 'raw', since: now - 1, until: now - 1 }, /before it begins/],
  ['a beginning in the future', { from: 'raw', since: now + 1 }, /in the future/],
  ['an unknown code', { from: 'dlq', code: 'oops' }, /oops is no error code/],
  ['a code where there is none', { from: 'raw', code: 'delivery-held' }, /only dead letters have one/],
  ['no selection at all', { from: 'dlq' }, /say which/],
  ['an empty list', { from: 'dlq', ids: [] }, /list is empty/],
  ['an id that is none', { from: 'dlq', ids: [evt('a'), 'evt_1'] }, /entry 2/],
  ['mixed ids', { from: 'dlq', ids: [evt('a'), `dlq_${'b'.repeat(32)}`] }, /mixed/],
  ['dead letters from raw', { from: 'raw', ids: [`dlq_${'b'.repeat(32)}`] }, /from dlq/],
  ['corrected dead letters', { from: 'dlq', all: true, corrected: true }, /corrected/],
  ['a subject without a type', { from: 'dlq', subject: 'ada' }, /subject: .*<type>:<value>/],
  ['a phone that is no number', { from: 'dlq', subject: 'phone:090 1820' }, /with \+ and country code/],
  ['a subject of a type that is none', { from: 'dlq', subject: 'constructor:x' }, /<type>:<value>/],
])('%s is refused with what is wrong', (_name, request, message) => {
  expect(() => parse(request)).toThrow(message);
});

test('letters that are sent at once must be there, each of them; of a selection that is shown first the preview tells', () => {
  const letters = ['b', 'c', 'd'].map((c) => `dlq_${c.repeat(32)}`);
  const named = (over: object): unknown => parseRequest({ from: 'dlq', ids: letters, ...over } as ReplayRequest, release, Buffer.alloc(32, 1), now, (id) => id === letters[0]);
  expect(() => named({ start: true })).toThrow(`ids: no dead letter ${letters[1]}, ${letters[2]}`);
  expect(named({})).toMatchObject({ letters: true });
  expect(named({ start: true, ids: [letters[0]!] })).toMatchObject({ letters: true, start: true });
});

test('a subject is kept keyed, and its identifier stands nowhere in the selection', () => {
  const selection = parse({ from: 'dlq', subject: 'email:Ada@Larkspur.example' });
  expect(selection.subject).toEqual([expect.stringMatching(/^email:[\w-]{22}$/)]);
  expect(selection.subject).toEqual(parse({ from: 'raw', subject: 'email: ada@larkspur.example' }).subject);
  // As mappings keep it, or nothing of the person would be found.
  expect(parse({ from: 'raw', subject: 'phone:+49 30 90018-20' }).subject).toEqual([`phone:${keyedId(Buffer.alloc(32, 1), 'phone', '+49309001820')}`]);
  expect(JSON.stringify(selection).toLowerCase()).not.toContain('larkspur');
});

test('a list knows its ids and no others, and each counts once', () => {
  const { events } = parse({ from: 'dlq', ids: [evt('b'), evt('a'), evt('b')] });
  expect(events.length).toBe(32);
  const wanted = idFilter(events);
  expect([evt('a'), evt('b'), evt('c')].map(wanted)).toEqual([true, true, false]);
  expect(idFilter(Buffer.alloc(0))(evt('c'))).toBe(true);
});

test('orders overlap when they read a record in common', () => {
  const range = (start: number, end: number) => ({ range: [{ topic: 't', partition: 0, start, end }] });
  expect(overlap(range(0, 5), range(4, 9))).toBe(true);
  expect(overlap(range(0, 5), range(5, 9))).toBe(false);
  expect(overlap(range(0, 5), { range: [{ topic: 't', partition: 1, start: 0, end: 9 }] })).toBe(false);
});
