import type { CompiledPolicy } from '@weir/policy';
import { expect, test } from 'vitest';
import { changesOf, parseOrder } from './consent-order.ts';

const policy = { purposes: new Map([['news', {}]]), routes: new Map([['Profile', [{ channel: 'email', topic: 'weekly-offers' }, {}]], ['Event', [{ channel: 'sms' }]]]) } as unknown as CompiledPolicy;
const parse = (over: object) => parseOrder(Buffer.from(JSON.stringify({ identifiers: { email: 'ann@larkspur.example' }, purpose: 'news', state: 'withdrawn', ...over })), policy);

test.each([['channel', 'E-Mail', 'email'], ['channel', 'SMS', 'sms'], ['topic', 'weekly_offers', 'weekly-offers']])('a %s that is written %s would close nothing of %s: it is refused', (field, given, meant) => {
  expect(() => parse({ [field]: given })).toThrow(expect.objectContaining({ code: 'bad-request', message: `${field}: the routes of the workspace write ${meant}` }));
  expect(parse({ [field]: meant })).toMatchObject({ [field]: meant });
});

test('a channel or topic that no route has anything like is taken: people may say no to it all the same', () => {
  expect(parse({ channel: 'post', topic: 'catalogue' })).toMatchObject({ channel: 'post', topic: 'catalogue' });
  expect(parse({})).toMatchObject({ channel: null, topic: null });
});

test('every purpose takes a no on every channel, and is one change of each purpose beside its own', () => {
  expect(() => parse({ purpose: '*', state: 'granted' })).toThrow(expect.objectContaining({ code: 'bad-request' }));
  expect(() => parse({ purpose: '*', state: 'unknown' })).toThrow(expect.objectContaining({ code: 'bad-request' }));
  expect(() => parse({ purpose: '*', channel: 'email' })).toThrow(expect.objectContaining({ code: 'bad-request', message: expect.stringContaining('channel') }));
  expect(changesOf(parse({ purpose: '*' }), policy).map(({ purpose, state }) => [purpose, state])).toEqual([['*', 'withdrawn'], ['news', 'withdrawn']]);
  expect(changesOf(parse({}), policy).map(({ purpose }) => purpose)).toEqual(['news']);
});
