import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkUse, closure, consentKey, foldConsent, type ConsentChange, type ConsentEntry } from './consent.ts';
import type { ConflictRule, ConsentState } from './types.ts';

const change = (over: Partial<ConsentChange>): ConsentChange => ({ changeId: 'c', purpose: 'p', channel: '', topic: '', state: 'granted', source: 's', acceptedAt: 1000, legalBasis: null, proof: null, expiresAt: null, ...over });
const fold = (list: readonly ConsentChange[]) => list.reduce<ConsentState | undefined>((state, c, offset) => foldConsent(state, 'email:x', c, offset) ?? state, undefined);
const closes = (state: string) => state === 'denied' || state === 'withdrawn';

/** The rule said again, with a memory of everything. */
function model(list: readonly ConsentChange[]): string {
  const seen = new Set<string>();
  let state: string | undefined;
  let latest = 0;
  for (const c of list) {
    if (seen.has(c.changeId)) continue;
    seen.add(c.changeId);
    const takes = state === undefined || closes(c.state) || (c.acceptedAt >= latest && !(c.state === 'unknown' && closes(state)));
    if (!takes) continue;
    state = c.state;
    latest = Math.max(latest, c.acceptedAt);
  }
  return state!;
}

const arbitrary = fc.record({ id: fc.nat(30), state: fc.constantFrom('granted' as const, 'denied' as const, 'withdrawn' as const, 'unknown' as const), acceptedAt: fc.nat(20) });
/** Changes with the same id are the same change, wherever they come again. */
function asChanges(list: readonly { id: number; state: ConsentState['state']; acceptedAt: number }[]): ConsentChange[] {
  const first = new Map<number, ConsentChange>();
  return list.map(({ id, state, acceptedAt }) => {
    if (!first.has(id)) first.set(id, change({ changeId: `c${id}`, state, acceptedAt }));
    return first.get(id)!;
  });
}

test('with any order, repeats and late arrivals the state is that of the model', () => {
  fc.assert(fc.property(fc.array(arbitrary, { minLength: 1, maxLength: 60 }), (list) => {
    const changes = asChanges(list);
    expect(fold(changes)!.state).toBe(model(changes));
  }), { numRuns: 2000 });
});

test('a folder that starts again anywhere, with any later state, reaches the same state', () => {
  fc.assert(fc.property(fc.array(arbitrary, { minLength: 1, maxLength: 40 }), fc.nat(), (list, at) => {
    const changes = asChanges(list);
    const whole = fold(changes);
    const from = at % changes.length;
    const again = changes.slice(from).reduce<ConsentState | undefined>((state, c, i) => foldConsent(state, 'email:x', c, from + i) ?? state, whole);
    expect(again).toEqual(whole);
  }), { numRuns: 1000 });
});

test('more changes than are remembered: replaying all of them never opens what was closed', () => {
  fc.assert(fc.property(fc.array(fc.constantFrom('granted' as const, 'withdrawn' as const), { minLength: 100, maxLength: 200 }), fc.array(fc.nat(), { minLength: 1, maxLength: 300 }), (states, replays) => {
    const originals = [...states, 'withdrawn' as const].map((state, i) => change({ changeId: `c${i}`, state, acceptedAt: 1000 + i }));
    expect(fold([...originals, ...replays.map((n) => originals[n % originals.length]!)])!.state).toBe('withdrawn');
  }), { numRuns: 200 });
});

test('a forgotten grant of the very millisecond of the withdrawal does not grant again', () => {
  const grants = Array.from({ length: 70 }, (_, i) => change({ changeId: `g${i}` }));
  const closed = fold([...grants, change({ changeId: 'w', state: 'withdrawn' })])!;
  expect(closed.seen).not.toContain('g0');
  expect(foldConsent(closed, 'email:x', grants[0]!, 1000)!.state).toBe('withdrawn');
  expect(fold([grants[0]!, change({ changeId: 'w', state: 'withdrawn' }), grants[1]!])!.state).toBe('granted');
});

test('a grant of before the withdrawal that a tool tells late does not open again, a back-dated withdrawal closes', () => {
  const [yes, no, back] = [change({ changeId: 'g', acceptedAt: 1000 }), change({ changeId: 'w', state: 'withdrawn', acceptedAt: 2000 }), change({ changeId: 'echo', source: 'tool', acceptedAt: 3000, occurredAt: 1500 })];
  expect(fold([yes, no, back])!.state).toBe('withdrawn');
  expect(fold([yes, no, back, change({ changeId: 'again', acceptedAt: 4000, occurredAt: 2500 })])!.state).toBe('granted');
  expect(fold([back])!.state).toBe('granted');
  expect(fold([yes, change({ changeId: 'late', state: 'withdrawn', acceptedAt: 2000, occurredAt: 1 })])!.state).toBe('withdrawn');
});

// `@` = it is dated. A no in quarantine (`!`) is perhaps an old one, written another way; it waits only where the same source dates an act of yes after it.
test.each([
  ['A+@20 A!@10', 'granted'],
  ['A+@20 A!@20', 'withdrawn'],
  ['A+@20 A!@30', 'withdrawn'],
  ['A+@20 A!', 'withdrawn'],
  ['A+ A!@10', 'withdrawn'],
  ['A+@20 A-@10', 'withdrawn'],
  ['A+@20 B!@10', 'withdrawn'],
  ['A+@20 B+@25 A!@10', 'withdrawn'],
  ['A+@20 A+@5 A!@10', 'granted'],
  ['A+@5 A+~@20 A!@10', 'withdrawn'],
  ['A+@20 A+~ A!@10', 'granted'],
  ['A!@10', 'withdrawn'],
  // As after any no: what opens happened after the no came.
  ['A!@10 A+@20', 'withdrawn'],
  ['A-@30 A!@10', 'withdrawn'],
  ['A+@20 A-@30 A!@10', 'withdrawn'],
  ['A?@20 A!@10', 'withdrawn'],
])('a no of a second body under one event id: %s gives %s', (told, expected) => {
  const list = told.split(' ').map((word, i) => {
    const [, source, what, standing, at] = /^(\w)([-+?!])(~?)(?:@(\d+))?$/.exec(word)!;
    return change({ changeId: `c${i}`, source: source!, state: what === '+' ? 'granted' : what === '?' ? 'unknown' : 'withdrawn', secondBody: what === '!', standing: standing === '~', acceptedAt: 1000 + i, occurredAt: at === undefined ? 1000 + i : Number(at) });
  });
  expect(fold(list)!.state).toBe(expected);
});

test('a no of a second body, among whatever is said and however often it comes again: it closes as any other, or the same source has dated an act of yes after it', () => {
  const word = fc.record({ id: fc.nat(12), source: fc.constantFrom('A', 'B'), state: fc.constantFrom('granted' as const, 'withdrawn' as const, 'unknown' as const), secondBody: fc.boolean(), standing: fc.boolean(), acceptedAt: fc.integer({ min: 1000, max: 1020 }), occurredAt: fc.option(fc.integer({ min: 990, max: 1020 })) });
  fc.assert(fc.property(fc.array(word, { minLength: 1, maxLength: 40 }), (words) => {
    const first = new Map<number, ConsentChange>();
    let state: ConsentState | undefined;
    words.forEach(({ id, ...over }, offset) => {
      if (!first.has(id)) first.set(id, change({ ...over, changeId: `c${id}` }));
      const said = first.get(id)!;
      const before = state;
      const known = before?.seen.includes(said.changeId) === true;
      state = foldConsent(before, 'email:x', said, offset) ?? before;
      if (!closes(said.state) || known) return;
      const later = [...first.values()].some((c) => c !== said && c.source === said.source && c.state === 'granted' && c.standing !== true && before!.seen.includes(c.changeId) && c.occurredAt !== null && c.occurredAt! < c.acceptedAt && c.occurredAt! > said.occurredAt!);
      if (!closes(state!.state)) expect([said.secondBody, before!.state, said.occurredAt! < said.acceptedAt, later]).toEqual([true, 'granted', true, true]);
      // What waited once is known, and closes nothing later.
      expect(state!.seen).toContain(said.changeId);
    });
  }), { numRuns: 2000 });
});

test('what is remembered of a key is bounded', () => {
  expect(fold(Array.from({ length: 500 }, (_, i) => change({ changeId: `c${i}`, acceptedAt: i })))!.seen.length).toBe(64);
});

test('unknown takes a grant back and never lifts a withdrawal, and a word that Weir does not know closes', () => {
  expect(fold([change({}), change({ changeId: 'd', state: 'unknown', acceptedAt: 2000 })])!.state).toBe('unknown');
  expect(fold([change({ state: 'withdrawn' }), change({ changeId: 'd', state: 'unknown', acceptedAt: 2000 })])!.state).toBe('withdrawn');
  expect(fold([change({ state: 'revoked' as never })])!.state).toBe('denied');
});

test('an older grant that arrives late does not make the state younger', () => {
  expect(fold([change({ acceptedAt: 5000 }), change({ changeId: 'd', acceptedAt: 3000 })])!.changedAt).toBe(5000);
});

test('keys are bounded and never collide, whatever the sender calls its purposes and topics', () => {
  expect(consentKey('email:x', 'a|b', '', '')).not.toBe(consentKey('email:x', 'a', 'b', ''));
  expect(Buffer.byteLength(consentKey('email:x', '漢'.repeat(5000), '\u0000'.repeat(5000), '😀'.repeat(42)))).toBeLessThan(1900);
  fc.assert(fc.property(fc.tuple(fc.string(), fc.string(), fc.string()), fc.tuple(fc.string(), fc.string(), fc.string()), (a, b) => {
    if (a.join('\u0001') !== b.join('\u0001')) expect(consentKey('email:x', ...a)).not.toBe(consentKey('email:x', ...b));
  }));
});

const entry = (over: Partial<ConsentEntry>): ConsentEntry => ({ purpose: 'p', channel: '', topic: '', state: 'granted', version: 1, expiresAt: null, ...over });
test.each([
  ['a withdrawal of one channel closes a use that names none', [entry({}), entry({ channel: 'email', state: 'withdrawn' })], null, null, 'consent', 'consent-withdrawn'],
  ['a withdrawal of another channel does not close', [entry({}), entry({ channel: 'sms', state: 'withdrawn' })], 'email', null, 'consent', undefined],
  ['a grant of one topic does not open a use that names none', [entry({ topic: 'promo' })], 'email', null, 'consent', 'consent-missing'],
  ['an expired withdrawal still closes', [entry({ state: 'withdrawn', expiresAt: 1 })], 'email', null, 'contract', 'consent-withdrawn'],
  ['an expired grant is closed', [entry({ expiresAt: 100 })], 'email', null, 'consent', 'consent-expired'],
  ['another purpose says nothing', [entry({ purpose: 'q' })], 'email', null, 'consent', 'consent-missing'],
  ['no legal basis counts as consent', [], 'email', null, null, 'consent-missing'],
] as const)('%s', (_name, states, channel, topic, basis, reason) => {
  const answer = checkUse(['email:x'], 'p', channel, topic, basis, () => states, 100);
  expect(answer.ok ? undefined : answer.reason).toBe(reason);
});

test('an identifier with too many states is closed, for every legal basis', () => {
  expect(checkUse(['email:x'], 'p', null, null, 'contract', () => 'too-many', 0)).toMatchObject({ ok: false });
});

test('64 linked identifiers are decided on, 65 are not', () => {
  const star = (n: number) => (id: string) => (id === 'a' ? Array.from({ length: n }, (_, i) => `b${i}`) : ['a']);
  expect(closure(['a'], star(63))!.length).toBe(64);
  expect(closure(['a'], star(64))).toBeUndefined();
  expect(closure(Array.from({ length: 65 }, (_, i) => `${i}`), () => [])).toBeUndefined();
});

// What tool A and tool B said, in the order of acceptance, and what holds then under each rule (A stands before B in the priority).
test.each([
  ['A+', 'granted', 'granted', 'granted'],
  ['A+ B-', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A- B+', 'granted', 'withdrawn', 'withdrawn'],
  ['A- A+', 'granted', 'granted', 'granted'],
  ['B- A+', 'granted', 'withdrawn', 'granted'],
  ['B- B+', 'granted', 'granted', 'granted'],
  ['A- B- A+', 'granted', 'withdrawn', 'granted'],
  ['A- B- B+', 'granted', 'withdrawn', 'withdrawn'],
  ['A- B- B+ A+', 'granted', 'granted', 'granted'],
  ['A- B- A+ B+', 'granted', 'granted', 'granted'],
  ['B- C+', 'granted', 'withdrawn', 'withdrawn'],
  ['C- B+', 'granted', 'withdrawn', 'granted'],
  ['C- D+', 'granted', 'withdrawn', 'withdrawn'],
  ['A+ B- A+ A+', 'granted', 'withdrawn', 'granted'],
])('between tools, %s gives %s by log order, %s by the strictest, %s by the priority A, B', (story, logOrder, strictest, priority) => {
  const told = story.split(' ').map((word, i) => change({ changeId: `c${i}`, source: word[0]!, state: word[1] === '+' ? 'granted' : 'withdrawn', acceptedAt: 1000 + i }));
  const under = (rule: ConflictRule) => told.reduce<ConsentState | undefined>((state, c, offset) => foldConsent(state, 'email:x', c, offset, rule) ?? state, undefined)!.state;
  expect([under({ kind: 'log-order', priority: [] }), under({ kind: 'strictest', priority: [] }), under({ kind: 'source-priority', priority: ['A', 'B'] })]).toEqual([logOrder, strictest, priority]);
});

// `~` = said with every call. A and B as above; a yes of that kind lifts only a no of that kind by the same source.
test.each([
  ['A+~ B- A+~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A+~ A- A+~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A+~ A-~ A+~', 'granted', 'granted', 'granted'],
  ['B-~ A+~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A-~ B- A+~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A+~ B- A+~ B+', 'granted', 'granted', 'granted'],
  ['A-~ A+', 'granted', 'granted', 'granted'],
  ['A-~ B+', 'granted', 'withdrawn', 'withdrawn'],
  ['B-~ A+', 'granted', 'withdrawn', 'granted'],
  ['A+~', 'granted', 'granted', 'granted'],
  // `?` = it says neither any more: of what it says all the time, its own no goes, and nothing opens.
  ['A-~ A?~', 'unknown', 'unknown', 'unknown'],
  ['A- A?~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A-~ A?', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A-~ B- A?~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A-~ B- A?~ B+', 'granted', 'granted', 'granted'],
  ['B-~ A?~', 'withdrawn', 'withdrawn', 'withdrawn'],
  ['A+ A?~', 'unknown', 'unknown', 'unknown'],
])('what a tool says all the time, %s, gives %s by log order, %s by the strictest, %s by the priority A, B', (story, logOrder, strictest, priority) => {
  const told = story.split(' ').map((word, i) => change({ changeId: `c${i}`, source: word[0]!, state: word[1] === '+' ? 'granted' : word[1] === '?' ? 'unknown' : 'withdrawn', standing: word[2] === '~', acceptedAt: 1000 + i }));
  const under = (rule: ConflictRule) => told.reduce<ConsentState | undefined>((state, c, offset) => foldConsent(state, 'email:x', c, offset, rule) ?? state, undefined)!.state;
  expect([under({ kind: 'log-order', priority: [] }), under({ kind: 'strictest', priority: [] }), under({ kind: 'source-priority', priority: ['A', 'B'] })]).toEqual([logOrder, strictest, priority]);
});

test('acts and what is said all the time, of several tools, in any order: a no goes only with an act of yes, or with what its own tool says all the time', () => {
  const words = fc.array(fc.record({ source: fc.constantFrom('A', 'B', 'C'), state: fc.constantFrom('granted' as const, 'withdrawn' as const, 'denied' as const, 'unknown' as const), standing: fc.boolean() }), { minLength: 1, maxLength: 40 });
  fc.assert(fc.property(words, (said) => {
    const noes = new Set<string>();
    let word = '';
    for (const { source, state, standing } of said) {
      const name = `${source}${standing ? '~' : ''}`;
      const wasClosed = noes.size > 0;
      if (closes(state)) noes.add(name);
      else if (standing) noes.delete(name);
      else if (state === 'granted') noes.clear();
      if (closes(state) || (noes.size === 0 && !(wasClosed && state === 'unknown' && !standing))) word = state;
    }
    const state = fold(said.map((one, i) => change({ ...one, changeId: `c${i}`, acceptedAt: 1000 + i })))!;
    expect([state.state, closes(state.state)]).toEqual([word, noes.size > 0]);
  }), { numRuns: 2000 });
});

test('what is said all the time takes back no no to every purpose, and none that came later than it happened', () => {
  const stop = foldConsent(undefined, 'email:x', change({ changeId: 'stop', purpose: '*', state: 'withdrawn', source: 'A', standing: true, acceptedAt: 2000 }), 0)!;
  const own = foldConsent(undefined, 'email:x', change({ changeId: 'n', state: 'withdrawn', source: 'A', standing: true, acceptedAt: 1000 }), 1)!;
  const told = foldConsent(own, 'email:x', change({ changeId: 'u', state: 'unknown', source: 'A', standing: true, acceptedAt: 3000 }), 2, undefined, stop)!;
  expect(checkUse(['email:x'], 'p', null, null, 'contract', () => [stop, told], 4000).ok).toBe(false);
  expect(told.state).toBe('withdrawn');
  expect(foldConsent(own, 'email:x', change({ changeId: 'u', state: 'unknown', source: 'A', standing: true, acceptedAt: 3000, occurredAt: 500 }), 2)!.state).toBe('withdrawn');
});

test('a yes that is said all the time, and lifts nothing, leaves a yes that was given before it and comes later its effect', () => {
  const no = change({ changeId: 'w', source: 'B', state: 'withdrawn', acceptedAt: 2000 });
  expect(fold([no, change({ changeId: 'again', source: 'A', standing: true, acceptedAt: 4000 }), change({ changeId: 'act', source: 'B', acceptedAt: 3000 })])!.state).toBe('granted');
});

test('a state of before the closers were kept is closed by the source that wrote it; more sources than are told apart close for good', () => {
  const { closedBy: _closedBy, ...old } = fold([change({ state: 'withdrawn', source: 'A' })])!;
  const strict: ConflictRule = { kind: 'strictest', priority: [] };
  expect(foldConsent(old, 'email:x', change({ changeId: 'd', source: 'B', acceptedAt: 2000 }), 5, strict)!.state).toBe('withdrawn');
  expect(foldConsent(old, 'email:x', change({ changeId: 'd', source: 'A', acceptedAt: 2000 }), 5, strict)!.state).toBe('granted');
  let state: ConsentState | undefined;
  for (let i = 0; i < 40; i++) state = foldConsent(state, 'email:x', change({ changeId: `w${i}`, source: `s${i}`, state: 'withdrawn', acceptedAt: 1000 + i }), i, strict);
  expect(state!.closedBy!.length).toBeLessThanOrEqual(16);
  for (let i = 0; i < 40; i++) state = foldConsent(state, 'email:x', change({ changeId: `g${i}`, source: `s${i}`, acceptedAt: 2000 + i }), 100 + i, strict) ?? state;
  expect(state!.state).toBe('withdrawn');
});

/** What happens to one person, a second apart in truth: a word is said at a process, whose clock is off, and is folded when its log is read, later than it was written. */
const story = fc.array(fc.record({
  state: fc.constantFrom('granted' as const, 'withdrawn' as const, 'denied' as const), process: fc.nat(2),
  /** ms by which the clock of the process is off then. */
  step: fc.integer({ min: -600_000, max: 600_000 }), waits: fc.nat(20), occurred: fc.boolean(),
}), { minLength: 1, maxLength: 20 });

test('clocks of ingest that step by ten minutes: nothing opens what was closed after it was said', () => {
  fc.assert(fc.property(story, (said) => {
    const words = said.map((word, i) => {
      const loggedAt = 1_000_000 + i * 1000;
      const acceptedAt = loggedAt + word.step;
      return { loggedAt, folded: i + (closes(word.state) ? 0 : word.waits), change: change({ changeId: `c${i}`, source: `p${word.process}`, state: word.state, acceptedAt, loggedAt, ...(word.occurred ? { occurredAt: acceptedAt } : {}) }) };
    });
    const order = words.toSorted((a, b) => a.folded - b.folded);
    let state: ConsentState | undefined;
    let no = 0;
    order.forEach(({ change: c, loggedAt }, offset) => {
      state = foldConsent(state, 'email:x', c, offset) ?? state;
      if (closes(c.state)) no = Math.max(no, loggedAt);
      if (state!.state === 'granted' && no > 0) expect(words.some((w) => w.change.changeId === state!.changeId && w.loggedAt > no)).toBe(true);
    });
    // Whoever folds the same records again, from anywhere, has the same.
    const again = order.reduce<ConsentState | undefined>((s, { change: c }, offset) => foldConsent(s, 'email:x', c, offset) ?? s, state);
    expect(again).toEqual(state);
  }), { numRuns: 3000 });
});

test('the grant that waited while a withdrawal was accepted by a clock ten minutes behind, or was stamped by one ten minutes ahead, opens nothing', () => {
  const noon = 12 * 3_600_000;
  const no = change({ changeId: 'w', state: 'withdrawn', acceptedAt: noon + 10_000 - 600_000, loggedAt: noon + 10_000 });
  expect(fold([no, change({ changeId: 'g', acceptedAt: noon, loggedAt: noon })])!.state).toBe('withdrawn');
  const right = { ...no, acceptedAt: noon + 10_000 };
  expect(fold([right, change({ changeId: 'g', acceptedAt: noon + 600_000, loggedAt: noon })])!.state).toBe('withdrawn');
  // What a tool tells later of before, and what is said after it.
  expect(fold([no, change({ changeId: 'g', acceptedAt: noon + 20_000, loggedAt: noon + 20_000, occurredAt: noon - 300_000 })])!.state).toBe('withdrawn');
  expect(fold([no, change({ changeId: 'g', acceptedAt: noon + 20_000, loggedAt: noon + 20_000 })])!.state).toBe('granted');
  // No and yes in one request: one accept time, one batch of the log.
  const [a, b] = [change({ changeId: 'w', state: 'withdrawn', acceptedAt: noon, loggedAt: noon + 2 }), change({ changeId: 'g', acceptedAt: noon, loggedAt: noon + 2 })];
  expect(fold([a, b])!.state).toBe('granted');
  // Records of before the brokers' time was kept are folded as they were.
  expect(fold([change({ state: 'withdrawn', acceptedAt: noon }), change({ changeId: 'g', acceptedAt: noon + 1 })])!.state).toBe('granted');
});

/** What is said in its order, and of some noes that each closes early, at a place before its turn. */
function withEarly(words: readonly { readonly source: string; readonly state: ConsentChange['state']; readonly standing: boolean; readonly later: number; readonly early: number | null }[], rule: ConflictRule): [turns: ConsentState, both: ConsentState] {
  let at = 1000;
  const turns = words.map(({ source, state, standing, later }, i) => change({ changeId: `c${i}`, source, state, standing, acceptedAt: at += later, loggedAt: at }));
  const places = turns.flatMap((c, i) => (closes(c.state) && words[i]!.early !== null ? [{ before: Math.max(0, i - words[i]!.early!), early: { ...c, changeId: `early ${c.changeId}`, untold: true, early: true } }] : []));
  const both = turns.flatMap((c, i) => [...places.filter(({ before }) => before === i).map(({ early }) => early), c]);
  const [one, two] = [turns, both].map((list) => list.reduce<ConsentState | undefined>((state, c, offset) => foldConsent(state, 'email:x', c, offset, rule) ?? state, undefined)!);
  return [one!, two!];
}
const words = fc.array(fc.record({ source: fc.constantFrom('A', 'B'), state: fc.constantFrom('granted' as const, 'withdrawn' as const), standing: fc.boolean(), later: fc.constantFrom(0, 1), early: fc.option(fc.nat(4)) }), { minLength: 1, maxLength: 20 });
const logOrder: ConflictRule = { kind: 'log-order', priority: [] };

test('noes that close before their turn leave each state as it is without them, once their turn has come: closed, open, and who is to be told', () => {
  fc.assert(fc.property(words, (list) => {
    const [turns, both] = withEarly(list.map((word) => ({ ...word, source: 'A', standing: false })), logOrder);
    expect(both.state).toBe(turns.state);
    if (closes(both.state)) expect(both.setBy).not.toBe('');
  }), { numRuns: 2000 });
});

test('whatever several sources say, as acts or all the time, and under any rule: noes that close before their turn open nothing', () => {
  fc.assert(fc.property(words, fc.constantFrom<ConflictRule>(logOrder, { kind: 'strictest', priority: [] }, { kind: 'source-priority', priority: ['B'] }), (list, rule) => {
    const [turns, both] = withEarly(list, rule);
    if (closes(turns.state)) expect(closes(both.state)).toBe(true);
  }), { numRuns: 2000 });
});

test('a no that closes before its turn takes nothing from a yes that was accepted after it, and is not the one that destinations are told of', () => {
  const early = change({ changeId: 'early', state: 'withdrawn', acceptedAt: 1500, untold: true, early: true });
  expect(fold([change({ acceptedAt: 1000 }), change({ changeId: 'y', acceptedAt: 2000 }), early])!.state).toBe('granted');
  expect(fold([change({ acceptedAt: 1000 }), early])).toMatchObject({ state: 'withdrawn', setBy: '' });
  expect(fold([change({ acceptedAt: 1000 }), early, change({ changeId: 'turn', state: 'withdrawn', acceptedAt: 1500 })])).toMatchObject({ state: 'withdrawn', setBy: 'turn' });
});
