/** What a sender calls the channel of an unsubscription, through the default mapping of Standard Webhooks, onto the topic: it binds whom it means. */
import type { RawHeaders, Release } from '@weir/release';
import { normalize } from '@weir/release';
import { expect, test } from 'vitest';
import { mappingOf, now } from './world.ts';

const routes = new Map([['Profile', [{ purpose: 'email-marketing', channel: 'email', topic: 'weekly-offers' }, { purpose: 'orders', channel: 'sms' }]], ['ConsentChange', [{}]]]);
const release = { hash: 'r', sources: new Map([['partner', { mapping: mappingOf('standard-webhooks'), limits: { depth: 16 } }]]), contracts: new Map(), policy: { routes } } as unknown as Release;

function unsubscribed(data: object) {
  const headers = { eventId: 'evt_1', hash: 'h', acceptedAt: now, traceparent: '', envelope: Buffer.from('{"id":"msg_1"}'), redriven: false, common: undefined } as unknown as RawHeaders;
  const body = { type: 'contact.unsubscribed', timestamp: new Date(now).toISOString(), data };
  const result = normalize('partner', { value: Buffer.from(JSON.stringify(body)) } as never, headers, release, (_type, value) => value);
  if (result.kind === 'dropped') throw new Error(result.reason);
  const { record } = (result.kind === 'ok' ? result.outputs : result.closing ?? []).find((o) => o.recordType === 'weir.canonical.ConsentChange')!;
  return { kind: result.kind, channel: record['channel'], state: record['state'], unrouted: result.unrouted };
}

test.each([
  ['email', 'email', 0], ['EMAIL', 'email', 0], ['E-Mail', 'email', 0], ['e_mail', 'email', 0], ['e mail', 'email', 0], ['Sms', 'sms', 0],
  ['all', null, 1], ['*', null, 1], ['newsletter', null, 1], ['-', null, 1], [undefined, null, 0], [null, null, 0], ['', null, 0], [{ x: 1 }, null, 0],
])('the channel %o is %o', (channel, expected, unrouted) => {
  const got = unsubscribed({ user_id: 'u-1', email: 'ann@larkspur.example', channel });
  expect([got.kind, got.channel, got.state, got.unrouted ?? []]).toEqual(['ok', expected, 'withdrawn', unrouted === 0 ? [] : [{ part: 'channel', said: 'no', output: 'withdrawal' }]]);
});

test('so it is for what says no of an item that goes to the dead letters', () => {
  const broken = { user_id: 'u-1', email: 'ann at larkspur' };
  expect(unsubscribed({ ...broken, channel: 'E-MAIL' })).toEqual({ kind: 'dead', channel: 'email', state: 'withdrawn', unrouted: undefined });
  expect(unsubscribed({ ...broken, channel: 'all' })).toMatchObject({ kind: 'dead', channel: null, unrouted: [{ part: 'channel', said: 'no' }] });
});
