import { checkUse, consentKey, everyPurpose, foldConsent, type ConflictRule, type ConsentChange, type ConsentState } from '@weir/policy';
import { consentIds, keyedIdsOf, parseOrder } from '@weir/release';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createConsentPreview, type ChangePreview, type PreviewedChange } from './consent-preview.ts';

const workspaceKey = Buffer.alloc(32, 1);
const policy = { purposes: new Map([['news', {}], ['ads', {}]]), routes: new Map([['Profile', [{ channel: 'email', topic: 'weekly' }]]]) } as never;
const start = 1_700_000_000_000;

/** Control over these changes, each folded as it came; by the rule of the workspace. */
function world(rule?: ConflictRule) {
  const states = new Map<string, ConsentState>();
  let now = start;
  let offset = 0;
  /** As weir.consent.changes has it, per identifier. */
  function fold(id: string, change: Pick<ConsentChange, 'changeId' | 'state' | 'source'> & Partial<ConsentChange>): void {
    now += 1000;
    const { purpose, channel, topic, ...rest } = { purpose: 'news', channel: '', topic: '', ...change };
    const key = consentKey(id, purpose, channel, topic);
    const next = foldConsent(states.get(key), id, { acceptedAt: now, loggedAt: now, legalBasis: null, proof: null, expiresAt: null, purpose, channel, topic, ...rest }, offset++, rule, states.get(consentKey(id, everyPurpose, '', '')));
    if (next !== undefined) states.set(key, next);
  }
  const consent = createConsentPreview({ workspaceKey, clock: { now: () => now }, releases: { current: () => ({ policy, ...(rule === undefined ? {} : { consent: rule }) }) } } as never, { caughtUp: () => true, stored: (key) => (states.has(key) ? { partition: 0, state: states.get(key)!, bytes: Buffer.alloc(0) } : undefined) });
  const preview = (changes: readonly object[]): ChangePreview[] => consent.preview(changes as readonly PreviewedChange[], 'admin');
  const open = (ids: readonly string[], purpose: string): boolean => checkUse(ids, purpose, null, null, 'consent', (id) => [...states.values()].filter((s) => s.id === id), now).ok;
  return { fold, preview, states, open, later: (ms: number) => { now += ms; } };
}
const [ann] = keyedIdsOf(workspaceKey, { email: 'ann@larkspur.example' }) as [string];
const order = (over: object = {}) => ({ identifiers: { email: 'ann@larkspur.example' }, purpose: 'news', state: 'granted', ...over });

test('a grant says what it opens; one that was recorded before, that is older than the no, or that the rule does not let open, says why it opens nothing', () => {
  const w = world({ kind: 'source-priority', priority: ['onetrust', 'consent-api'] });
  expect(w.preview([{ order: order() }])).toEqual([{ before: 'none', after: 'granted', why: null }]);
  w.fold(ann, { changeId: consentIds('consent-api', 'admin/row-1', parseOrder(Buffer.from(JSON.stringify(order())), policy)).output, state: 'granted', source: 'consent-api' });
  expect(w.preview([{ order: order(), key: 'row-1' }, { order: order({ state: 'denied' }) }])).toEqual([{ before: 'granted', after: 'granted', why: null }, { before: 'granted', after: 'denied', why: null }]);
  w.fold(ann, { changeId: 'no', state: 'withdrawn', source: 'shop' });
  expect(w.preview([{ order: order(), key: 'row-1' }])).toEqual([{ before: 'withdrawn', after: 'withdrawn', why: expect.stringContaining('recorded before') }]);
  expect(w.preview([{ order: order(), key: 'row-2' }])).toEqual([{ before: 'withdrawn', after: 'granted', why: null }]);
  expect(w.preview([{ order: order({ occurredAt: new Date(start).toISOString() }) }])).toEqual([{ before: 'withdrawn', after: 'withdrawn', why: expect.stringContaining('before the person said no') }]);
  w.fold(ann, { changeId: 'no-2', state: 'withdrawn', source: 'onetrust' });
  expect(w.preview([{ order: order() }])).toEqual([{ before: 'withdrawn', after: 'withdrawn', why: expect.stringMatching(/closed by .*onetrust.*source-priority/) }]);
  // Nothing of it is kept.
  expect(w.preview([{ order: order({ state: 'unknown' }) }])).toEqual([{ before: 'withdrawn', after: 'withdrawn', why: null }]);
});

test('rows of one request are folded one after the other, under every purpose, and for every identifier of the row', () => {
  const w = world();
  w.fold(ann, { changeId: 'all', purpose: everyPurpose, state: 'withdrawn', source: 'consent-api' });
  expect(w.preview([{ order: order() }, { order: order({ purpose: 'ads', state: 'unknown' }) }, { order: order({ purpose: '*', state: 'denied' }) }, { order: order({ state: 'withdrawn', identifiers: { email: 'ann@larkspur.example', userId: 'u' } }) }])).toEqual([
    { before: 'withdrawn', after: 'granted', why: null }, { before: 'withdrawn', after: 'withdrawn', why: null }, { before: 'withdrawn', after: 'denied', why: null }, { before: 'denied', after: 'withdrawn', why: null },
  ]);
  expect(w.preview([{ order: order({ expiresAt: '2020-01-31T12:00:00Z', identifiers: { anonymousId: 'a' } }) }])).toEqual([{ before: 'none', after: 'expired', why: null }]);
});

test('what the consent API would refuse is refused with its reason, and the rows beside it are looked at', () => {
  const bad: [object, RegExp][] = [
    [order({ identifiers: { email: 'ann' } }), /^email: /], [order({ identifiers: { phone: '030 901820' } }), /^phone: /], [order({ identifiers: {} }), /^identifiers: /], [order({ legalBasis: 'because' }), /^legalBasis: /], [order({ jurisdiction: 'Germany' }), /^jurisdiction: /],
    [order({ occurredAt: 'yesterday' }), /^occurredAt: /], [order({ channel: 'E-Mail' }), /^channel: /], [order({ topic: 'Weekly' }), /^topic: /], [order({ proof: 'x'.repeat(2001) }), /^proof: /], [order({ purpose: 'nope' }), /^purpose: /], [order({ state: 'maybe' }), /^state: /],
    [order({ purpose: '*' }), /^purpose: /], [order({ proof: 'x'.repeat(20_000) }), /16 KiB/], [order({ identifiers: { mail: 'a' } }), /unknown field mail/], [{}, /identifiers/],
  ];
  const found = world().preview([...bad.map(([one]) => ({ order: one })), { order: order({ identifiers: { phone: '+49 30 901820' } }) }]);
  expect(found.map((one) => ('problem' in one ? one.problem : one.after))).toEqual([...bad.map(([, message]) => expect.stringMatching(message)), 'granted']);
});

const id = fc.constantFrom('email:a', 'userId:u', 'phone:p');
const state = fc.constantFrom('granted' as const, 'denied' as const, 'withdrawn' as const, 'unknown' as const);
const rules = fc.constantFrom<ConflictRule | undefined>(undefined, { kind: 'strictest', priority: [] }, { kind: 'source-priority', priority: ['onetrust'] });

test('whatever was said before, and in whatever rows: granted is told exactly where a use is open once the rows are folded', () => {
  const identifiers = { email: 'ann@larkspur.example', userId: 'u', phone: '+4930901820' };
  const keyed = Object.fromEntries(keyedIdsOf(workspaceKey, identifiers).map((one) => [one.split(':')[0]!, one]));
  const past = fc.array(fc.record({ id, state, source: fc.constantFrom('shop', 'onetrust', 'consent-api'), purpose: fc.constantFrom('news', everyPurpose), standing: fc.boolean() }), { maxLength: 8 });
  const rows = fc.array(fc.record({ of: fc.subarray(['email', 'userId', 'phone'] as const, { minLength: 1 }), state, ofAll: fc.boolean(), again: fc.boolean() }), { minLength: 1, maxLength: 6 });
  fc.assert(fc.property(rules, past, rows, (rule, before, list) => {
    const w = world(rule);
    for (const [i, { id: one, ...change }] of before.entries()) w.fold(keyed[one.split(':')[0]!]!, { changeId: `past-${i}`, ...change });
    const changes = list.map(({ of, state: asked, ofAll, again }, i) => ({ key: again && asked === 'granted' ? 'same' : `row-${i}`, order: { identifiers: Object.fromEntries(of.map((type) => [type, identifiers[type]])), purpose: ofAll && (asked === 'denied' || asked === 'withdrawn') ? '*' : 'news', state: asked } }));
    const found = w.preview(changes);
    for (const [i, { key, order: one }] of changes.entries()) {
      const ids = keyedIdsOf(workspaceKey, one.identifiers);
      const shown = found[i] as { before: string; after: string };
      // A no to every purpose is shown as its own state, which says nothing of what was granted over one before it.
      if (one.purpose !== '*') expect([i, shown.before === 'granted']).toEqual([i, w.open(ids, 'news')]);
      const { output } = consentIds('consent-api', `admin/${key}`, parseOrder(Buffer.from(JSON.stringify(one)), policy));
      for (const each of ids) w.fold(each, { changeId: output, state: one.state as 'granted', source: 'consent-api', purpose: one.purpose });
      expect([i, shown.after === 'granted']).toEqual([i, w.open(ids, 'news')]);
    }
  }), { numRuns: 500 });
});
