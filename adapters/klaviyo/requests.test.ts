import type { JsonObject } from '@weir/adapter';
import { expect, test } from 'vitest';
import { build } from './requests.ts';

const person: JsonObject = { email: 'ann@larkspur.example', phone: '+4930123456', userId: 'u-1', anonymousId: null };
const acceptedAt = Date.UTC(2026, 0, 2);
const make = (operation: string, record: JsonObject, recordType = 'ConsentChange') => JSON.parse(build({ destination: 'mail', operation, recordType: `weir.canonical.${recordType}`, record: { ...person, ...record }, identifiers: [], eventId: 'e', outputId: 'o', acceptedAt }, 'dlv_1', 'list').body) as any;
const subscriptions = (operation: string, record: JsonObject): string[] => Object.keys(make(operation, record).data.attributes.profiles.data[0].attributes.subscriptions);

test.each(['withdrawn', 'denied', 'unknown', 'Granted', ''])('a consent that is %s never subscribes', (state) => {
  expect(() => make('subscribe', { state, channel: 'email' })).toThrow(/no subscription/);
});

test.each(['granted', 'unknown', ''])('a consent that is %s never unsubscribes', (state) => {
  expect(() => make('unsubscribe', { state, channel: 'email' })).toThrow(/no withdrawal/);
});

test('a grant opens the channel that it names and no other', () => {
  expect(subscriptions('subscribe', { state: 'granted', channel: 'sms' })).toEqual(['sms']);
  expect(subscriptions('subscribe', { state: 'granted', channel: null })).toEqual(['email']);
  for (const channel of ['push', 'ads', 'web']) expect(() => make('subscribe', { state: 'granted', channel })).toThrow(channel);
  expect(() => make('subscribe', { state: 'granted', channel: 'sms', phone: null })).toThrow(/sms/);
});

test('a grant for one topic does not subscribe to everything', () => {
  expect(() => make('subscribe', { state: 'granted', channel: 'email', topic: 'sendgrid-group-10' })).toThrow(/topic/);
});

test('a withdrawal of every channel closes each whose address is known, one of another channel none', () => {
  expect(subscriptions('unsubscribe', { state: 'withdrawn', channel: null })).toEqual(['email', 'sms']);
  expect(subscriptions('unsubscribe', { state: 'denied', channel: null, phone: null })).toEqual(['email']);
  expect(() => make('unsubscribe', { state: 'withdrawn', channel: 'push' })).toThrow(/push/);
});

test('an unsubscribe names no list: its effect would depend on who is on it', () => {
  expect(make('unsubscribe', { state: 'withdrawn', channel: 'email' }).data.relationships).toBeUndefined();
  expect(make('subscribe', { state: 'granted', channel: 'email' }).data.relationships.list.data.id).toBe('list');
});

test('what Klaviyo states as a limit is refused before a call', () => {
  const event = { name: 'A', occurredAt: Date.UTC(2026, 0, 1) };
  const many = JSON.stringify(Object.fromEntries(Array.from({ length: 401 }, (_, i) => [`p${i}`, i])));
  expect(() => make('event', { ...event, properties: many }, 'Event')).toThrow(/400/);
  expect(() => make('event', { ...event, properties: JSON.stringify({ a: 'x'.repeat(100 * 1024 + 1) }) }, 'Event')).toThrow(/100 KB/);
  expect(() => make('event', { ...event, occurredAt: 0 }, 'Event')).toThrow(/1991/);
  expect(() => make('event', { ...event, occurredAt: acceptedAt + 366 * 86_400_000 }, 'Event')).toThrow(/a year ahead/);
  expect(make('event', { ...event, occurredAt: acceptedAt + 364 * 86_400_000 }, 'Event').data.attributes.time).toBe('2027-01-01T00:00:00.000Z');
  expect(() => make('event', { ...event, email: null, phone: null, userId: null }, 'Event')).toThrow(/identifier/);
  expect(() => make('profile-import', { firstName: 'x'.repeat(101 * 1024) }, 'Profile')).toThrow(/100 KB/);
  expect(make('event', { ...event, name: `${'x'.repeat(126)}😀` }, 'Event').data.attributes.metric.data.attributes.name).toBe(`${'x'.repeat(126)}\ufffd`);
});

test('properties that are no JSON object are kept as text, and do not stop the process', () => {
  const properties = (text: string) => make('event', { name: 'A', occurredAt: Date.UTC(2026, 0, 1), properties: text }, 'Event').data.attributes.properties;
  expect(properties('plain')).toEqual({ properties: 'plain' });
  expect(properties('[1]')).toEqual({ properties: [1] });
  expect(properties('{"__proto__":{"polluted":1},"a":1}').a).toBe(1);
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
});
