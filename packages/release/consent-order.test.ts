import { createHmac } from 'node:crypto';
import { itemHash } from '@weir/pipeline';
import type { CompiledPolicy } from '@weir/policy';
import { expect, test } from 'vitest';
import { changesOf, consentIds, orderHash, parseOrder } from './consent-order.ts';

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

test('identifiers of every kind are taken, a number in any form that a mapping takes, external ids verbatim and once', () => {
  const of = (identifiers: object) => parse({ identifiers }).identifiers;
  expect(of({ anonymousId: ' a-1 ' })).toEqual({ userId: null, email: null, phone: null, anonymousId: 'a-1' });
  expect(of({ phone: '+49 (30) 90018-20' })).toEqual({ userId: null, email: null, phone: '+49309001820' });
  expect(of({ externalIds: [{ type: 'klaviyo', value: ' 1:2' }, { type: 'crm', value: '1' }, { type: 'crm', value: '1' }] })).toEqual({ userId: null, email: null, phone: null, externalIds: [{ type: 'klaviyo', value: ' 1:2' }, { type: 'crm', value: '1' }] });
  for (const bad of [{}, { externalIds: [] }, { externalIds: {} }, { externalIds: ['klaviyo:1'] }, { externalIds: [{ type: 'klaviyo' }] }, { externalIds: [{ type: 'a:b', value: 'c' }] }, { externalIds: [{ type: 'a', value: 'b', more: 1 }] }, { externalIds: Array.from({ length: 17 }, (_, i) => ({ type: 'a', value: String(i) })) }, { anonymousId: 5 }, { anonymousID: 'a' }, { phone: '030 90018' }, { phone: '+49' }]) expect(() => of(bad), JSON.stringify(bad)).toThrow(expect.objectContaining({ code: 'bad-request' }));
});

/** As commit a144685 made them: a grant that is sent again under its key after an upgrade must stay the change that it was. */
test('the id of a change is what it was before orders took more identifiers, and before their hash was keyed', () => {
  const ids = (body: object) => consentIds('consent-api', 'admin/form-7', parseOrder(Buffer.from(JSON.stringify(body)), policy));
  expect(ids({ identifiers: { email: 'Ann@larkspur.example' }, purpose: 'news', state: 'granted' })).toEqual({ id: 'evt_ec47870d1b24f674b03c965cd795a2b4', output: 'out_293adab0f9c2feb2c4b3193d1f2d3203' });
  expect(ids({ identifiers: { userId: 'u-1', phone: '+4930901820' }, purpose: 'news', channel: 'email', state: 'granted', proof: 'form 7', occurredAt: '2026-01-31T12:00:00Z' })).toEqual({ id: 'evt_3446b260d92f0e8aa5e0980cebe638a0', output: 'out_8fc3e401c4b4921534c084d47bb247ef' });
});

test('the hash of an order says nothing without the workspace key, is no keyed identifier, and has the form of the hash of an item', () => {
  const [key, order] = [Buffer.alloc(32, 7), parse({})];
  const hash = orderHash(key, order);
  expect(hash).toBe(createHmac('sha256', key).update(`consent-order\u0000${JSON.stringify(order)}`).digest('hex').slice(0, 32));
  const plain = itemHash(Buffer.from(JSON.stringify(order)));
  expect([hash === plain, hash.length, orderHash(Buffer.alloc(32, 8), order) === hash, orderHash(key, parse({ state: 'denied' })) === hash]).toEqual([false, plain.length, false, false]);
});
