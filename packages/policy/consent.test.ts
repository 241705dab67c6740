import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkUse, closes, closure, everyPurpose, foldConsent, type ConsentChange } from './consent.ts';
import type { ConflictRule, ConsentState } from './types.ts';

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
  const answer = checkUse(['email:x', 'userId:y'], 'p', 'email', 'promo', basis, (id) => states.filter((s) => s.id === id), 100);
  expect(answer.ok ? undefined : answer.reason).toBe(reason);
});

test('a closure too wide to decide on is no closure', () => {
  expect(closure(['0'], (id) => [String(Number(id) + 1)])).toBeUndefined();
  expect(closure(['a'], (id) => (id === 'a' ? ['b'] : id === 'b' ? ['a', 'c'] : []))).toEqual(['a', 'b', 'c']);
});

test('what is allowed is allowed by the same states at every moment before its answer\'s end, whatever else they hold', () => {
  const entry = fc.record({ purpose: fc.constantFrom('p', 'p', 'q', everyPurpose), changeId: fc.constantFrom('c1', 'c2'), over: fc.constantFrom('', 'c1', 'c2'), channel: fc.constantFrom('', 'email', 'sms'), topic: fc.constantFrom('', 't'), state: fc.constantFrom('granted' as const, 'granted' as const, 'granted' as const, 'unknown' as const, 'withdrawn' as const), version: fc.constant(1), expiresAt: fc.option(fc.integer({ min: 0, max: 20 })) });
  fc.assert(fc.property(fc.array(fc.array(entry, { maxLength: 4 }), { maxLength: 3 }), fc.constantFrom('email', null), fc.constantFrom('consent', 'contract', null), fc.integer({ min: 0, max: 20 }), fc.nat({ max: 25 }), (of, channel, basis, now, later) => {
    const ask = (at: number) => checkUse(of.map((_, i) => String(i)), 'p', channel, 't', basis, (id) => of[Number(id)]!, at);
    const answer = ask(now);
    if (answer.ok && now + later < answer.until!) expect(ask(now + later).ok).toBe(true);
  }), { numRuns: 2000 });
});

/** States of one identifier, folded as the policy service folds them: with what is known of every purpose. */
function person() {
  const states = new Map<string, ConsentState>();
  let offset = 0;
  const say = (over: Partial<ConsentChange>): void => {
    const c = change({ changeId: `c${offset}`, acceptedAt: 1000 + offset * 10, ...over });
    const key = `${c.purpose}/${c.channel}`;
    const next = foldConsent(states.get(key), 'email:x', c, offset++, undefined, states.get(`${everyPurpose}/`));
    if (next !== undefined) states.set(key, next);
  };
  const open = (purpose: string, basis: 'consent' | 'contract' = 'consent', channel: string | null = null): boolean => checkUse(['email:x'], purpose, channel, null, basis, () => [...states.values()], 5000).ok;
  return { say, open, states };
}

test('a no to every purpose closes those that nobody had heard of when it was said, whatever their legal basis', () => {
  const { say, open } = person();
  say({ purpose: 'news' });
  expect([open('news'), open('later', 'contract')]).toEqual([true, true]);
  say({ purpose: everyPurpose, state: 'withdrawn' });
  expect([open('news'), open('later'), open('later', 'contract')]).toEqual([false, false, false]);
});

test('a grant that waited somewhere while everything was stopped opens nothing, one that is given afterwards opens its own purpose and channel alone', () => {
  const { say, open } = person();
  say({ purpose: everyPurpose, state: 'withdrawn', acceptedAt: 2000, loggedAt: 2000 });
  say({ purpose: 'later', changeId: 'old', acceptedAt: 1500, loggedAt: 1500 });
  expect(open('later')).toBe(false);
  say({ purpose: 'later', changeId: 'old', acceptedAt: 3000, loggedAt: 3000 });
  expect(open('later')).toBe(false);
  say({ purpose: 'later', changeId: 'new', channel: 'email', acceptedAt: 3000, loggedAt: 3000 });
  expect([open('later', 'consent', 'email'), open('later', 'consent', 'sms'), open('later', 'contract'), open('orders', 'contract')]).toEqual([true, false, false, false]);
  // It says so again, and nothing has closed it in between.
  say({ purpose: 'later', changeId: 'newer', channel: 'email', acceptedAt: 3500, loggedAt: 3500 });
  expect(open('later', 'consent', 'email')).toBe(true);
  say({ purpose: everyPurpose, state: 'withdrawn', acceptedAt: 4000, loggedAt: 4000 });
  expect(open('later', 'consent', 'email')).toBe(false);
});

test('a grant that was given over a no to everything and has expired lifts it no longer', () => {
  const { say, open } = person();
  say({ purpose: everyPurpose, state: 'withdrawn' });
  say({ purpose: 'later', expiresAt: 4999 });
  expect([open('later'), open('later', 'contract')]).toEqual([false, false]);
});

test.each(['granted', 'unknown'] as const)('nobody says %s to every purpose: it neither opens one nor lifts the no', (state) => {
  const { say, open } = person();
  say({ purpose: everyPurpose, state });
  expect(open('news')).toBe(false);
  say({ purpose: everyPurpose, state: 'withdrawn' });
  say({ purpose: everyPurpose, state });
  expect(open('orders', 'contract')).toBe(false);
});

test('after a no to every purpose the no of one purpose names the change that destinations were told of, so that its echo ends', () => {
  const { say, states } = person();
  say({ purpose: everyPurpose, state: 'withdrawn', changeId: 'stop' });
  say({ purpose: 'news', state: 'withdrawn', changeId: 'first' });
  say({ purpose: 'news', state: 'withdrawn', changeId: 'echo' });
  expect(states.get('news/')!.setBy).toBe('first');
});

test('strictest: what a no to every purpose closed is opened by the source that said it, and by no other', () => {
  const strict = { kind: 'strictest', priority: [] } as const;
  const stop = foldConsent(undefined, 'email:x', change({ purpose: everyPurpose, state: 'withdrawn', source: 'a' }), 0, strict)!;
  const granted = (source: string) => foldConsent(undefined, 'email:x', change({ changeId: `g-${source}`, source, acceptedAt: 3000 }), 1, strict, stop)!.state;
  expect([granted('b'), granted('a')]).toEqual(['withdrawn', 'granted']);
});

/** One person under this rule, whose noes to every purpose are said as such, or of the one purpose that is asked for. */
function told(rule: ConflictRule, ofOne: boolean) {
  let [own, stop]: (ConsentState | undefined)[] = [];
  let offset = 0;
  const say = ({ all = false, ...over }: Partial<ConsentChange> & { readonly all?: boolean }): void => {
    const c = change({ changeId: `c${offset}`, acceptedAt: 1000 + offset * 10, purpose: all && !ofOne ? everyPurpose : 'p', ...over });
    if (c.purpose === everyPurpose) stop = foldConsent(stop, 'email:x', c, offset, rule) ?? stop;
    else own = foldConsent(own, 'email:x', c, offset, rule, stop) ?? own;
    offset++;
  };
  const open = (basis: 'consent' | 'contract' = 'consent'): boolean => checkUse(['email:x'], 'p', null, null, basis, () => [own, stop].filter((s) => s !== undefined), 5000).ok;
  return { say, open, own: () => own! };
}
const rules: readonly ConflictRule[] = [{ kind: 'log-order', priority: [] }, { kind: 'strictest', priority: [] }, { kind: 'source-priority', priority: ['A', 'B'] }, { kind: 'source-priority', priority: ['C'] }];
const words = fc.array(fc.record({ all: fc.boolean(), source: fc.constantFrom('A', 'B', 'C'), state: fc.constantFrom('granted' as const, 'withdrawn' as const, 'denied' as const, 'unknown' as const), standing: fc.boolean() }), { maxLength: 12 })
  .map((list) => list.map((word) => ({ ...word, all: word.all && closes(word.state) })));

test('two sources that say no to everything under strictest lift it as they would a no to the purpose: each for itself', () => {
  const { say, open, own } = told(rules[1]!, false);
  for (const source of ['A', 'B']) say({ all: true, state: 'withdrawn', source });
  say({ source: 'A' });
  expect([open(), own().closedBy]).toEqual([false, ['B']]);
  say({ source: 'B' });
  expect(open()).toBe(true);
  say({ all: true, state: 'withdrawn', source: 'A' });
  expect(open()).toBe(false);
});

test('a no between the yeses of two sources takes back neither yes of the other', () => {
  for (const ofOne of [false, true]) {
    const { say, open, own } = told(rules[1]!, ofOne);
    for (const source of ['A', 'B']) say({ all: true, state: 'withdrawn', source });
    say({ source: 'A' });
    say({ state: 'withdrawn', source: 'B' });
    expect([open(), own().closedBy]).toEqual([false, ['B']]);
    say({ source: 'B' });
    expect(open()).toBe(true);
    say({ state: 'withdrawn', source: 'B' });
    expect(open()).toBe(false);
    say({ source: 'B' });
    expect(open()).toBe(true);
  }
});

test('whoever said no, to everything or to the purpose, lifts it by an act of yes, in any order of those who did', () => {
  fc.assert(fc.property(fc.constantFrom(...rules), words, fc.shuffledSubarray(['A', 'B', 'C'], { minLength: 3 }), (rule, said, order) => {
    const { say, open } = told(rule, false);
    for (const word of said) say(word);
    for (const source of order) say({ source });
    expect(open()).toBe(true);
  }), { numRuns: 1000 });
});

test('a no to everything never closes a purpose for less long than a no to that purpose', () => {
  const late = fc.array(fc.record({ acceptedAt: fc.integer({ min: 1000, max: 1120 }), occurredAt: fc.option(fc.integer({ min: 990, max: 1120 })) }), { minLength: 12, maxLength: 12 });
  fc.assert(fc.property(fc.constantFrom(...rules), words, fc.option(late), (rule, said, times) => {
    const [all, one] = [told(rule, false), told(rule, true)];
    // What takes nothing back of a no to everything is a later word than the grant that waits, for a no to the purpose.
    said.filter(({ state }) => times === null || state !== 'unknown').forEach((word, i) => {
      all.say({ ...word, ...times?.[i] });
      one.say({ ...word, ...times?.[i] });
      for (const basis of ['consent', 'contract'] as const) if (all.open(basis)) expect(one.open(basis)).toBe(true);
    });
  }), { numRuns: 3000 });
});

test('what another source had closed before an erasure stays closed by it under strictest; what the erasure alone closed is opened by the next act of yes', () => {
  const strict = { kind: 'strictest', priority: [] } as const;
  const erased = (before: readonly ConsentChange[]) => [...before, change({ changeId: 'e', state: 'withdrawn', source: 'weir-erasure', acceptedAt: 2000 }), change({ changeId: 'g', source: 'b', acceptedAt: 3000 })].reduce<ConsentState | undefined>((state, c, offset) => foldConsent(state, 'email:x', c, offset, strict) ?? state, undefined)!;
  expect([erased([]).state, erased([change({ source: 'a' })]).state, erased([change({ state: 'denied', source: 'a' })]).state]).toEqual(['granted', 'granted', 'withdrawn']);
});

test('who was stopped stays so whatever a source says with every call', () => {
  const { say, open } = person();
  say({ purpose: 'news', source: 'segment', standing: true });
  say({ purpose: everyPurpose, state: 'withdrawn', source: 'consent-api' });
  say({ purpose: 'news', source: 'segment', standing: true });
  expect(open('news')).toBe(false);
  say({ purpose: 'news', source: 'consent-api' });
  expect(open('news')).toBe(true);
});

test.each([
  ['another spelling of the channel', { channel: 'E-Mail' }],
  ['another spelling of the topic', { channel: 'email', topic: 'PROMO' }],
  ['every purpose on the channel', { purpose: everyPurpose, channel: 'email' }],
  ['every purpose on the channel, in another spelling', { purpose: everyPurpose, channel: 'EMAIL' }],
  ['every purpose for the topic', { purpose: everyPurpose, topic: 'promo' }],
])('a no of before, of %s, closes until a grant for the same comes behind it', (_name, said) => {
  const no = state({ state: 'withdrawn', version: 5, ...said });
  const ask = (...states: ConsentState[]): boolean => checkUse(['email:x'], 'p', 'email', 'promo', 'consent', () => states, 100).ok;
  const yes = (version: number): ConsentState => state({ version, channel: (said as { channel?: string }).channel === undefined ? '' : 'email', topic: (said as { topic?: string }).topic === undefined ? '' : 'promo' });
  expect([ask(state({})), ask(state({}), no), ask(yes(4), no), ask(state({}), yes(6), no)]).toEqual([true, false, false, true]);
  expect(checkUse(['email:x'], 'p', 'sms', 'other', 'contract', () => [no], 100).ok).toBe(true);
});
