import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkConsent, checkUse, closure, consentKey, foldConsent, type ConsentChange } from './consent.ts';
import type { ConsentState } from './types.ts';

const change = (over: Partial<ConsentChange>): ConsentChange => ({ changeId: 'c1', purpose: 'email-marketing', channel: '', topic: '', state: 'granted', source: 's', acceptedAt: 1000, legalBasis: null, proof: null, expiresAt: null, ...over });
const fold = (list: readonly ConsentChange[]) => list.reduce<ConsentState | undefined>((state, c, offset) => foldConsent(state, 'email:x', c, offset) ?? state, undefined);

test('an old grant that is repeated after a withdrawal does not re-grant, by id or by time', () => {
  const grant = change({});
  const withdrawal = change({ changeId: 'c2', state: 'withdrawn', acceptedAt: 2000 });
  expect(fold([grant, withdrawal, grant])!.state).toBe('withdrawn');
  expect(fold([grant, withdrawal, change({ acceptedAt: 5000 })])!.state).toBe('withdrawn');
  expect(fold([grant, withdrawal, change({ changeId: 'c0', acceptedAt: 1500 })])!.state).toBe('withdrawn');
  expect(fold([grant, withdrawal, change({ changeId: 'c3', acceptedAt: 3000 })])!.state).toBe('granted');
});

test('a late, back-dated withdrawal still closes', () => {
  expect(fold([change({ acceptedAt: 3000 }), change({ changeId: 'c2', state: 'withdrawn', acceptedAt: 1000 })])!.state).toBe('withdrawn');
});

test('whatever is replayed, in whatever amount, the state stays what the first appearances made it', () => {
  const states = fc.constantFrom('granted' as const, 'withdrawn' as const, 'denied' as const);
  fc.assert(fc.property(fc.array(states, { minLength: 1, maxLength: 20 }), fc.array(fc.nat(), { maxLength: 40 }), (list, replays) => {
    const originals = list.map((state, i) => change({ changeId: `c${i}`, state, acceptedAt: 1000 + i * 10 }));
    const replayed = replays.map((n) => originals[n % originals.length]!);
    expect(fold([...originals, ...replayed])!.state).toBe(originals[originals.length - 1]!.state);
  }));
});

test('a restart of the folder in the middle of a batch changes nothing', () => {
  const list = [change({}), change({ changeId: 'c2', state: 'withdrawn', acceptedAt: 2000 })];
  const state = fold(list)!;
  list.forEach((c, offset) => expect(foldConsent(state, 'email:x', c, offset)).toBeUndefined());
});

const state = (over: Partial<ConsentState>): ConsentState => ({ id: 'email:x', purpose: 'p', channel: '', topic: '', state: 'granted', version: 1, changedAt: 0, source: '', legalBasis: null, proof: null, expiresAt: null, changeId: '', seen: [], ...over });
const table = (...states: ConsentState[]) => {
  const map = new Map(states.map((s) => [consentKey(s.id, s.purpose, s.channel, s.topic), s]));
  return (key: string) => map.get(key);
};

test.each([
  ['unknown is closed', [], 'consent', 'consent-missing'],
  ['unknown is open for a contract', [], 'contract', undefined],
  ['a grant opens', [state({})], 'consent', undefined],
  ['an expired grant is closed', [state({ expiresAt: 99 })], 'consent', 'consent-expired'],
  ['a withdrawal closes a contract too', [state({ state: 'withdrawn' })], 'contract', 'consent-withdrawn'],
  ['a grant of the channel opens the channel', [state({ channel: 'email' })], 'consent', undefined],
  ['a grant of another channel opens nothing', [state({ channel: 'sms' })], 'consent', 'consent-missing'],
  ['a denial of the topic closes under a general grant', [state({}), state({ topic: 'promo', state: 'denied' })], 'consent', 'consent-denied'],
  ['a general withdrawal closes under a grant of the topic', [state({ state: 'withdrawn' }), state({ topic: 'promo' })], 'consent', 'consent-withdrawn'],
  ['a linked identifier that withdrew closes', [state({}), state({ id: 'userId:y', state: 'withdrawn' })], 'consent', 'consent-withdrawn'],
] as const)('%s', (_name, states, basis, reason) => {
  const answer = checkConsent(['email:x', 'userId:y'], 'p', 'email', 'promo', basis, table(...states), 100);
  expect(answer.ok ? undefined : answer.reason).toBe(reason);
});

test('a closure too wide to decide on is no closure', () => {
  expect(closure(['0'], (id) => [String(Number(id) + 1)])).toBeUndefined();
  expect(closure(['a'], (id) => (id === 'a' ? ['b'] : id === 'b' ? ['a', 'c'] : []))).toEqual(['a', 'b', 'c']);
});

test('what is allowed is allowed by the same states at every moment before its answer\'s end, whatever else they hold', () => {
  const entry = fc.record({ purpose: fc.constantFrom('p', 'q'), channel: fc.constantFrom('', 'email', 'sms'), topic: fc.constantFrom('', 't'), state: fc.constantFrom('granted' as const, 'granted' as const, 'granted' as const, 'unknown' as const, 'withdrawn' as const), version: fc.constant(1), expiresAt: fc.option(fc.integer({ min: 0, max: 20 })) });
  fc.assert(fc.property(fc.array(fc.array(entry, { maxLength: 4 }), { maxLength: 3 }), fc.constantFrom('email', null), fc.constantFrom('consent', 'contract', null), fc.integer({ min: 0, max: 20 }), fc.nat({ max: 25 }), (of, channel, basis, now, later) => {
    const ask = (at: number) => checkUse(of.map((_, i) => String(i)), 'p', channel, 't', basis, (id) => of[Number(id)]!, at);
    const answer = ask(now);
    if (answer.ok && now + later < answer.until!) expect(ask(now + later).ok).toBe(true);
  }), { numRuns: 2000 });
});
