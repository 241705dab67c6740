import { checkUse, consentKey, everyPurpose, foldConsent, isRoutedChannel, type CompiledPolicy, type ConsentState } from '@weir/policy';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isRouted, routedConsent } from './routed-consent.ts';

const policyOf = (...routes: object[]): CompiledPolicy => ({ routes: new Map([['Profile', routes]]) }) as unknown as CompiledPolicy;
const policy = policyOf({ purpose: 'news', channel: 'email', topic: 'weekly-offers' }, { purpose: 'orders', channel: 'sms', second: { purpose: 'orders', channel: 'push' } });
function routed(record: object, of = policy) {
  const told: string[] = [];
  const got = routedConsent({ purpose: 'news', channel: null, topic: null, state: 'withdrawn', ...record }, of, (part, said) => told.push(`${part} ${said}`));
  return [got['channel'], got['topic'], ...told];
}

test.each([
  ['a spelling of a routed one', { channel: 'E_Mail', topic: 'Weekly Offers' }, ['email', 'weekly-offers']],
  ['the channel of a second vendor', { channel: 'PUSH' }, ['push', null]],
  ['a no for a topic that nobody has, which is none to the others', { channel: 'email', topic: 'deals' }, ['email', 'deals', 'topic no']],
  ['a no for nothing that is known', { channel: 'fax', topic: 'deals' }, [null, 'deals', 'channel no', 'topic no']],
  ['a denial', { channel: 'fax', state: 'denied' }, [null, null, 'channel no']],
  ['a yes in another spelling', { channel: 'EMAIL', state: 'granted' }, ['email', null]],
  ['a yes for a channel that nobody has', { channel: 'fax', state: 'granted' }, ['fax', null, 'channel yes']],
  ['neither yes nor no', { channel: 'fax', state: 'unknown' }, ['fax', null]],
  ['a no to every purpose on one channel', { purpose: everyPurpose, channel: 'email' }, [null, null, 'channel no']],
  ['a yes to every purpose on one channel', { purpose: everyPurpose, channel: 'email', state: 'granted' }, ['email', null]],
  ['a purpose that no route has', { purpose: 'later', channel: 'fax' }, ['fax', null]],
])('%s', (_name, record, expected) => {
  expect(routed(record)).toEqual(expected);
});

test('where no route names a channel a no for one closes each use already, and stays what it is', () => {
  expect(routed({ channel: 'fax' }, policyOf({ purpose: 'news' }))).toEqual(['fax', null]);
});

/** Said under one policy, decided by another: after a yes to all channels, who may be used on these? */
function later(said: object, under: CompiledPolicy, by: CompiledPolicy, channels: readonly string[], ...more: readonly object[]): boolean[] {
  const states = new Map<string, ConsentState>();
  [{ purpose: 'news', channel: null, topic: null, state: 'granted' }, { purpose: 'news', topic: null, state: 'withdrawn', ...said }, ...more].forEach((one, i) => {
    const record = routedConsent(one as Record<string, unknown>, under, () => undefined) as { purpose: string; channel: string | null; topic: string | null; state: ConsentState['state'] };
    const [channel, topic] = [record.channel ?? '', record.topic ?? ''];
    const key = consentKey('email:x', record.purpose, channel, topic);
    const next = foldConsent(states.get(key), 'email:x', { changeId: `c${i}`, ...record, channel, topic, source: 's', acceptedAt: 1000 + i, legalBasis: null, proof: null, expiresAt: null, unrouted: channel !== '' && !isRoutedChannel(under, channel) }, i);
    if (next !== undefined) states.set(key, next);
  });
  return channels.flatMap((channel) => (['consent', 'legitimate-interest'] as const).map((basis) => checkUse(['email:x'], 'news', channel, null, basis, () => [...states.values()], 9999, by).ok));
}

test.each([
  ['whose routes named no channel', policyOf({ purpose: 'news' })],
  ['without the purpose', policyOf({ purpose: 'orders', channel: 'sms' })],
])('a no for a channel that nobody knows, said under a release %s, closes those that a later release brings, until its sender says yes to the same', (_name, before) => {
  const after = policyOf({ purpose: 'news', channel: 'email' }, { purpose: 'orders', channel: 'sms' });
  expect(later({ channel: 'all' }, before, after, ['email'])).toEqual([false, false]);
  expect(later({ channel: 'all' }, before, after, ['email'], { purpose: 'news', channel: 'all', topic: null, state: 'granted' })).toEqual([true, true]);
  // One that the later release has is one to that alone, also in other words.
  expect(later({ channel: 'E-Mail' }, before, policyOf({ purpose: 'news', channel: 'email' }, { purpose: 'news', channel: 'push' }), ['email', 'push'])).toEqual([false, false, true, true]);
  // Nor does it become one to that alone when it is said again under a release that has another.
  expect(later({ channel: 'all' }, before, after, ['email'], { purpose: 'news', channel: 'all', topic: null, state: 'denied' })).toEqual([false, false]);
});

test('who said no to a channel that the routes had is not closed for the others when a release takes it away', () => {
  expect(later({ channel: 'push' }, policyOf({ purpose: 'news', channel: ['email', 'push'] }), policyOf({ purpose: 'news', channel: 'email' }), ['email'])).toEqual([true, true]);
});

const words = ['', 'email', 'EMAIL', 'e-mail', 'sms', 'S M S', 'fax', 'all', 'push', '-'];
const change = fc.record({ purpose: fc.constantFrom('news', 'orders', everyPurpose), channel: fc.constantFrom(...words), topic: fc.constantFrom('', 'weekly-offers', 'WEEKLY offers', 'deals'), state: fc.constantFrom('granted' as const, 'withdrawn' as const, 'denied' as const, 'unknown' as const) });

test('whatever is said: after a no for anything but another routed channel or topic no use of its purpose is open, and what stays as it is is told by isRouted', () => {
  fc.assert(fc.property(fc.array(change, { maxLength: 5 }), change, (before, last) => {
    const states = new Map<string, ConsentState>();
    [...before, last].forEach((said, i) => {
      const record = routedConsent(said, policy, () => undefined);
      expect(isRouted((field) => (said as Record<string, unknown>)[field], policy)).toBe(record === said && !(said.state !== 'unknown' && said.purpose !== everyPurpose && (['fax', 'all', '-'].includes(said.channel) || said.topic === 'deals')));
      const [channel, topic] = [String(record['channel'] ?? ''), String(record['topic'] ?? '')];
      const key = consentKey('email:x', said.purpose, channel, topic);
      const next = foldConsent(states.get(key), 'email:x', { changeId: `c${i}`, purpose: said.purpose, channel, topic, state: said.state, source: 's', acceptedAt: 1000 + i, legalBasis: null, proof: null, expiresAt: null }, i, undefined, states.get(consentKey('email:x', everyPurpose, '', '')));
      if (next !== undefined) states.set(key, next);
    });
    if (last.state !== 'withdrawn' && last.state !== 'denied') return;
    const open = (purpose: string, channel: string, topic: string | null): boolean => checkUse(['email:x'], purpose, channel, topic, 'consent', () => [...states.values()], 9999).ok;
    const [ofSms, ofEmail, ofPush] = [['sms', 'S M S'], ['email', 'EMAIL', 'e-mail'], ['push']].map((same) => same.includes(last.channel));
    const hits = (purpose: string, own: boolean): boolean => last.purpose === everyPurpose || (last.purpose === purpose && last.topic !== 'deals' && (own || (!ofSms && !ofEmail && !ofPush)));
    if (hits('news', ofEmail!)) expect(open('news', 'email', 'weekly-offers')).toBe(false);
    if (hits('orders', ofSms!) && last.topic !== 'weekly-offers' && last.topic !== 'WEEKLY offers') expect(open('orders', 'sms', null)).toBe(false);
  }), { numRuns: 500 });
});
