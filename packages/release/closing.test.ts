/** Of an item that goes to the dead letters, what says no and can be read. */
import type { Sink } from '@weir/log';
import { compileMapping } from '@weir/mapping';
import { secondBodyChange } from '@weir/pipeline';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeAll } from './encode.ts';
import { normalize, ofSecondBody, setAside, type Canonical, type Normalized } from './normalize.ts';

const mapping = compileMapping({ path: 'm.yaml', content: `mapping: m
outputs:
  choice:
    record: ConsentChange
    each: choices
    objectKey: $item.id
    fields:
      userId: user
      email: { from: email, pipe: [email] }
      purpose: { from: $item.purpose, map: { news: news, ads: ads } }
      channel: { from: $item.channel, map: { email: email, sms: sms } }
      state: { from: $item.on, map: { 'true': granted, 'false': withdrawn } }
  profile:
    record: Profile
    fields: { userId: user, birthday: { from: birthday, pipe: [date] } }
` });
const headers = { eventId: 'evt_1', hash: 'h', acceptedAt: 1000, traceparent: '', envelope: undefined, redriven: false, common: undefined };
const keyed = (_type: string, value: string): string => value;
/** Lists of people and of choices, and a signal beside them. */
const wide = compileMapping({ path: 'm.yaml', content: `mapping: m
outputs:
  person:
    record: Profile
    each: people
    objectKey: $item.id
    fields: { userId: $item.id }
  choice:
    record: ConsentChange
    each: [people, $item.choices]
    objectKey: $item.id
    fields: { userId: user, purpose: { const: news }, state: { from: $item.on, map: { 'true': granted, 'false': withdrawn } } }
  more:
    record: ConsentChange
    each: more
    objectKey: $item
    fields: { userId: user, purpose: { const: more }, state: { const: denied } }
  signal:
    record: ConsentChange
    when: { path: gpc, equals: true }
    fields: { userId: user, purpose: { const: ads }, state: { const: denied } }
` });
function taken(item: object, contract?: string, of = mapping): Normalized {
  const release = { hash: 'r', policy: { routes: new Map() }, sources: new Map([['shop', { mapping: of, limits: { depth: 8 } }]]), contracts: new Map(contract === undefined ? [] : [['weir.canonical.Profile', [{ check: () => [{ code: 'contract-broken', message: contract }] }]]]) };
  return normalize('shop', { value: Buffer.from(JSON.stringify(item)) } as never, headers as never, release as never, keyed);
}
const closing = (result: Normalized) => (result.kind === 'dead' ? (result.closing ?? []).map(({ record: r, ids, outputId }) => ({ ids, purpose: r['purpose'], channel: r['channel'], state: r['state'], outputId })) : result.kind);
const whole = { user: 'u', email: 'ann@larkspur.example', choices: [{ id: 1, purpose: 'news', channel: 'email', on: false }, { id: 2, purpose: 'ads', channel: 'sms', on: true }] };
const outputIds = (() => {
  const result = taken(whole);
  return result.kind === 'ok' ? result.outputs.map((o) => o.outputId) : [];
})();

test('what a source that the release does not have any more has left says no by the last release that had it, and waits; where none is kept, its incident tells that it may', () => {
  const of = (former?: (source: string) => object | undefined): Normalized => normalize('shop', { value: Buffer.from(JSON.stringify(whole)) } as never, headers as never, { hash: 'r', policy: { routes: new Map() }, sources: new Map(), contracts: new Map(), former } as never, keyed);
  const kept = of(() => ({ mapping, limits: { depth: 8 } }));
  expect(closing(kept)).toEqual([{ ids: ['userId:u', 'email:ann@larkspur.example'], purpose: 'news', channel: 'email', state: 'withdrawn', outputId: outputIds[0] }]);
  const codes = (result: Normalized) => (result.kind === 'dead' ? result.reasons.map(({ code }) => code) : result.kind);
  expect([codes(kept), codes(of()), codes(of(() => undefined))]).toEqual([['source-retired', 'consent-unresolved'], ['source-retired', 'consent-unresolved'], ['source-retired', 'consent-unresolved']]);
  // Nothing waits of what says nothing of consent.
  expect(codes(of(() => ({ mapping: compileMapping({ path: 'p.yaml', content: 'mapping: p\noutputs:\n  profile:\n    record: Profile\n    fields: { userId: user }\n' }), limits: { depth: 8 } })))).toEqual(['source-retired']);
});

test.each([
  ['an address that is none', { ...whole, email: 'ann at larkspur' }, ['userId:u'], 'email'],
  ['another output that fails', { ...whole, birthday: 'soon' }, ['userId:u', 'email:ann@larkspur.example'], 'email'],
  ['a channel that nobody knows: the no is one to all', { ...whole, choices: [{ id: 1, purpose: 'news', channel: 'pigeon', on: false }] }, ['userId:u', 'email:ann@larkspur.example'], null],
])('%s: the no holds for who can be read, under the id that it has when the item is put right', (_name, item, ids, channel) => {
  const result = taken(item);
  expect(closing(result)).toEqual([{ ids, purpose: 'news', channel, state: 'withdrawn', outputId: outputIds[0] }]);
  expect(result).toMatchObject({ reasons: expect.arrayContaining([expect.objectContaining({ code: 'consent-unresolved' })]) });
});

test.each([
  ['a purpose that nobody knows', { ...whole, choices: [{ id: 1, purpose: 'other', on: false }] }],
  ['a word that is neither yes nor no', { ...whole, choices: [{ id: 1, purpose: 'news', on: 'maybe' }] }],
  ['nobody', { choices: [{ id: 1, purpose: 'news', on: false }], email: 'none' }],
  ['a yes', { ...whole, email: 'none', choices: [{ id: 1, purpose: 'news', on: true }] }],
])('%s closes nothing and waits with the letter', (_name, item) => {
  expect(closing(taken(item))).toEqual([]);
  expect(taken(item)).not.toHaveProperty('closing');
});

test('a contract that another record breaks holds no no back', () => {
  expect(closing(taken(whole, 'no birthday'))).toMatchObject([{ ids: ['userId:u', 'email:ann@larkspur.example'], purpose: 'news' }]);
});

test('a record that is too large holds no no back; one that is none of the schema stays with the letter', () => {
  const sink = (): Sink => ({ bytes: Buffer.alloc(8), at: 0 });
  const size = (record: unknown): number => ((record as Record<string, unknown>)['birthday'] !== undefined ? 1_000_001 : 10);
  const encoded = encodeAll(taken(whole), (_type, record, to) => { to.at += size(record); }, sink());
  expect(encoded).toMatchObject({ kind: 'dead', closing: [{ outputId: outputIds[0], person: { text: 'userId:u,email:ann@larkspur.example' }, from: 0, to: 10 }] });
  const bad = encodeAll(taken({ ...whole, email: 'none' }), () => { throw new Error('invalid'); }, sink());
  expect(bad.kind === 'dead' && bad.closing).toBe(undefined);
});

test('whatever fails: what closes is among what the item says no to, no yes is, and it is the same each time', () => {
  const choice = fc.record({ id: fc.nat(5), purpose: fc.constantFrom('news', 'ads', 'other'), channel: fc.constantFrom('email', 'pigeon', null), on: fc.constantFrom(true, false, 'maybe') });
  fc.assert(fc.property(fc.uniqueArray(choice, { selector: (c) => c.id, maxLength: 5 }), fc.constantFrom('u', null), fc.constantFrom('ann@larkspur.example', 'none', null), fc.constantFrom('2000-01-01', 'soon', null), (choices, user, email, birthday) => {
    const item = { choices, user, email, birthday };
    const result = taken(item);
    const named = [...(user === null ? [] : [`userId:${user}`]), ...(email === 'ann@larkspur.example' ? [`email:${email}`] : [])];
    const noes = choices.filter((c) => c.on === false && c.purpose !== 'other' && named.length > 0);
    if (result.kind === 'dead') expect(closing(result)).toEqual(noes.map((c) => ({ ids: named, purpose: c.purpose, channel: c.channel === 'pigeon' ? null : c.channel, state: 'withdrawn', outputId: expect.any(String) })));
    expect(taken(item)).toEqual(result);
  }));
});

test('of an item that gives more records than it may, the first 1000 and what goes over no list are read for a no', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 990, max: 1100 }), fc.integer({ min: 0, max: 5 }), fc.boolean(), (groups, choices, more, gpc) => {
    const all = Array.from({ length: choices }, (_, id) => ({ id: `c${id}`, on: id % 2 === 0 }));
    const people = Array.from({ length: groups }, (_, i) => ({ id: `p${i}`, choices: all.slice(Math.floor((i * choices) / groups), Math.floor(((i + 1) * choices) / groups)) }));
    const item = { user: 'u', people, more: Array.from({ length: more }, (_, i) => `m${i}`), gpc };
    const outputs = [...all.map(({ on }) => ({ purpose: 'news', no: !on })), ...item.more.map(() => ({ purpose: 'more', no: true }))];
    // The signal takes a place whether or not it applies.
    const count = groups + outputs.length + 1;
    const result = taken(item, undefined, wide);
    if (result.kind === 'dead') {
      expect(result.closing?.map((c) => c.record['purpose'])).toEqual([...outputs.slice(0, 1000 - groups).filter((o) => o.no).map((o) => o.purpose), ...(gpc ? ['ads'] : [])]);
      expect(result.reasons.map((r) => r.message)).toContain('one item gives more than 1000 records');
      expect(count).toBeGreaterThan(1000);
      expect(result.reasons.filter((r) => r.code === 'consent-unresolved').length).toBeGreaterThan(0);
    } else expect(count).toBeLessThanOrEqual(1000);
  }), { numRuns: 40 });
});

test('a list of more than 1000 around the list of choices loses none of those that are read, and the item fails', () => {
  const people = Array.from({ length: 1200 }, (_, i) => ({ id: `p${i}`, choices: i % 400 === 0 ? [{ id: i, on: false }] : [] }));
  const result = taken({ user: 'u', people, gpc: true }, undefined, wide);
  expect([result.kind, closing(result)]).toMatchObject(['dead', [{ purpose: 'news' }, { purpose: 'news' }, { purpose: 'news' }, { purpose: 'ads' }]]);
});

const conflict = { code: 'event-conflict', message: 'another body came first' } as const;
const aside = (item: object) => setAside(ofSecondBody(taken(item), 'h2'), [conflict]);

test('of a second body under one event id its noes are changes of their own, by the body; its yeses, and the records of both, keep the ids of the first', () => {
  const result = ofSecondBody(taken(whole), 'h2');
  const changes = (of: Normalized): unknown[] => (of.kind === 'ok' ? of.outputs.map(({ outputId, changeId, record }) => [record['state'], outputId, changeId]) : [of.kind]);
  expect(changes(result)).toEqual([['withdrawn', outputIds[0], secondBodyChange(outputIds[0]!, 'h2')], ['granted', outputIds[1], undefined], [undefined, outputIds[2], undefined]]);
  expect(new Set([outputIds[0], ...['h2', 'h3'].map((hash) => secondBodyChange(outputIds[0]!, hash)), secondBodyChange(outputIds[1]!, 'h2')]).size).toBe(4);
});

test('an item that is set aside before it is mapped: what says no holds, the reason for it stands first, and nothing else comes of it', () => {
  expect(aside({ user: 'u' })).toEqual({ kind: 'dead', reasons: [conflict] });
  expect(aside({ ...whole, choices: [whole.choices[1]] })).toEqual({ kind: 'dead', reasons: [conflict] });
  const result = aside(whole);
  expect([result.kind === 'dead' && result.reasons.map((r) => r.code), closing(result)]).toMatchObject([['event-conflict', 'consent-unresolved'], [{ purpose: 'news', state: 'withdrawn' }]]);
  // What cannot be read may be a no: somebody has to look.
  expect(aside({ ...whole, email: 'none', choices: [{ id: 1, purpose: 'news', on: 'maybe' }] })).toMatchObject({ reasons: [conflict, { code: 'consent-unresolved' }] });
});

test('whatever the body: what closes of it set aside is what it says no to, each once, and it is the same each time and when it is put back', () => {
  const choice = fc.record({ id: fc.nat(300), purpose: fc.constantFrom('news', 'ads', 'other'), channel: fc.constantFrom('email', 'pigeon', null), on: fc.constantFrom(true, false, 'maybe') });
  const own = (outputs: readonly Canonical[]): unknown[] => outputs.map(({ record: r, changeId, ids }) => [r['purpose'], r['state'], ids, changeId]);
  fc.assert(fc.property(fc.uniqueArray(choice, { selector: (c) => c.id, maxLength: 250 }), fc.constantFrom('u', null), fc.constantFrom('2000-01-01', 'soon', null), (choices, user, birthday) => {
    const item = { choices, user, birthday };
    const result = aside(item);
    const noes = choices.filter((c) => c.on === false && c.purpose !== 'other' && user !== null);
    expect(result.kind === 'dead' && [own(result.closing ?? []), result.reasons[0], result.reasons.length <= 102]).toEqual([noes.map((c) => [c.purpose, 'withdrawn', ['userId:u'], expect.stringMatching(/^out_[0-9a-f]{32}$/)]), conflict, true]);
    expect(aside(item)).toEqual(result);
    const back = ofSecondBody(taken(item), 'h2');
    const held = back.kind === 'ok' ? back.outputs.filter((o) => o.changeId !== undefined) : back.kind === 'dead' ? back.closing ?? [] : [];
    expect(own(held)).toEqual(result.kind === 'dead' && own(result.closing ?? []));
  }), { numRuns: 60 });
});
