import { foldConsent, type ConsentState, type Decision } from '@weir/policy';
import { expect, test } from 'vitest';
import { propagate, type ChangeSeen } from './propagation.ts';
import type { Release } from './types.ts';

/** Tools a and b are sources and destinations both; c is a destination only, site a source only. */
const tool = (name: string) => ({ adapter: { manifest: { name } } });
const release = { sources: new Map([['a', tool('a')], ['b', tool('b')], ['site', tool('site')]]), destinations: new Map([['a', tool('a')], ['b', tool('b')], ['c', tool('c')]]) } as unknown as Release;
const allowing = (names: readonly string[]): Decision[] => names.map((destination): Decision => ({ effect: 'allow', route: { destination, operation: 'unsubscribe', kind: 'restrict' } as never, rule: 'restrict', consent: [], notBefore: null } as unknown as Decision));
const allowed = allowing(['a', 'b', 'c']);

/** Folds and decides one change after the other, as the service does. */
function world(of: Release = release, decisions: readonly Decision[] | (() => readonly Decision[]) = allowed) {
  const states = new Map<string, ConsentState>();
  let n = 0;
  return (source: string, state: ConsentState['state'], ids: readonly string[], again?: string, { repeats = false, untold = false, at }: { readonly repeats?: boolean; readonly untold?: boolean; readonly at?: number } = {}): { id: string; told: string[]; reasons: string[] } => {
    const outputId = again ?? `out_${++n}`;
    const acceptedAt = at ?? 1000 + n;
    for (const id of ids) {
      const next = foldConsent(states.get(`${id}|news||`), id, { changeId: outputId, purpose: 'news', channel: '', topic: '', state, source, acceptedAt, legalBasis: null, proof: null, expiresAt: null, repeats, untold }, states.get(`${id}|news||`) === undefined ? n : n + 100);
      if (next !== undefined) states.set(`${id}|news||`, next);
    }
    const change: ChangeSeen = { outputId, source, ids, purpose: 'news', channel: null, topic: null, state, repeats, acceptedAt };
    const propagated = propagate(typeof decisions === 'function' ? decisions() : decisions, change, { stored: (key) => (states.has(key) ? ({ partition: 0, state: states.get(key)!, bytes: Buffer.alloc(0) }) : undefined) }, of);
    return { id: outputId, told: propagated.flatMap((d) => (d.effect === 'allow' ? [d.route.destination] : [])), reasons: propagated.flatMap((d) => (d.effect === 'deny' ? [d.reason] : [])) };
  };
}

test('a change goes to every destination but the tool that told it', () => {
  const told = world();
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['a', 'b', 'c']);
  expect(world()('a', 'withdrawn', ['email:x'])).toMatchObject({ told: ['b', 'c'], reasons: ['consent-origin'] });
});

test('a loop between two tools ends at the first answer', () => {
  const told = world();
  expect(told('a', 'withdrawn', ['email:x']).told).toEqual(['b', 'c']);
  // b was told, and its webhook says so.
  expect(told('b', 'withdrawn', ['email:x'])).toMatchObject({ told: [], reasons: ['consent-echo', 'consent-origin', 'consent-echo'] });
  expect(told('a', 'denied', ['email:x']).told).toEqual([]);
});

test('the same change decided again goes the same way; a new withdrawal after a grant is no echo', () => {
  const told = world();
  const first = told('site', 'withdrawn', ['email:x']);
  told('b', 'withdrawn', ['email:x']);
  expect(told('site', 'withdrawn', ['email:x'], first.id).told).toEqual(['a', 'b', 'c']);
  expect(told('site', 'granted', ['email:x']).told).toEqual(['a', 'b', 'c']);
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['a', 'b', 'c']);
});

test('a person who says it again is heard again: only a tool that is told can echo', () => {
  const told = world();
  told('site', 'withdrawn', ['email:x']);
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['a', 'b', 'c']);
});

test('what is said with every call goes everywhere once, and again after a yes; what a person says in between is heard', () => {
  const told = world();
  const page = () => told('site', 'denied', ['anonymousId:x'], undefined, { repeats: true });
  expect(page().told).toEqual(['a', 'b', 'c']);
  for (let i = 0; i < 100; i++) expect(page()).toMatchObject({ told: [], reasons: ['consent-echo', 'consent-echo', 'consent-echo'] });
  expect(told('site', 'withdrawn', ['anonymousId:x']).told).toEqual(['a', 'b', 'c']);
  told('site', 'granted', ['anonymousId:x']);
  expect(page().told).toEqual(['a', 'b', 'c']);
  expect(page().told).toEqual([]);
});

test('what is said with every call goes everywhere once a day, so that a destination that was not reached, or came later, hears it; the same change is decided alike again', () => {
  let names = ['a', 'b'];
  const told = world(release, () => allowing(names));
  const day = 86_400_000;
  const page = (at: number, again?: string) => told('site', 'denied', ['anonymousId:x'], again, { repeats: true, at });
  expect(page(1000).told).toEqual(['a', 'b']);
  // Its delivery to b is given up, and a release brings c: the next one of the same day says nothing.
  names = ['a', 'b', 'c'];
  expect(page(1001 + day / 2)).toMatchObject({ told: [], reasons: ['consent-echo', 'consent-echo', 'consent-echo'] });
  expect(page(999 + day).told).toEqual([]);
  const next = page(1000 + day);
  expect(next.told).toEqual(['a', 'b', 'c']);
  expect(page(1001 + day).told).toEqual([]);
  expect([page(0, next.id).told, page(2 * day - 1).told, page(1000 + day, next.id).told]).toEqual([['a', 'b', 'c'], [], ['a', 'b', 'c']]);
  expect(page(1000 + 2 * day).told).toEqual(['a', 'b', 'c']);
});

test('the answers of a tool that was told stay echoes, however long they come', () => {
  const told = world();
  told('site', 'withdrawn', ['email:x'], undefined, { at: 1000 });
  for (let day = 1; day < 5; day++) expect(told('b', 'withdrawn', ['email:x'], undefined, { at: 1000 + day * 86_400_000 }).told).toEqual([]);
});

test('a no of a dead letter was told to nobody: neither itself, put right, nor who says the same after it, is an echo', () => {
  const told = world();
  const held = told('site', 'withdrawn', ['userId:1'], undefined, { untold: true }).id;
  expect(told('site', 'withdrawn', ['userId:1', 'email:x'], held).told).toEqual(['a', 'b', 'c']);
  const other = world();
  const letter = other('site', 'withdrawn', ['userId:1'], undefined, { untold: true }).id;
  expect(other('b', 'withdrawn', ['userId:1']).told).toEqual(['a', 'c']);
  expect(other('a', 'withdrawn', ['userId:1']).told).toEqual([]);
  expect(other('site', 'withdrawn', ['userId:1', 'email:x'], letter).told).toEqual(['a', 'b', 'c']);
});

test('what brings an identifier that had not said it is no echo', () => {
  const told = world();
  told('a', 'withdrawn', ['userId:1']);
  expect(told('b', 'withdrawn', ['userId:1', 'email:x']).told).toEqual(['a', 'c']);
});

test('of several accounts of one tool, those that did not tell it are told', () => {
  const accounts = { sources: new Map([['a', tool('a')], ['site', tool('site')]]), destinations: new Map([['a', tool('a')], ['a-us', tool('a')], ['c', tool('c')]]) } as unknown as Release;
  const told = world(accounts, allowing(['a', 'a-us', 'c']));
  expect(told('a', 'withdrawn', ['email:x'])).toMatchObject({ told: ['a-us', 'c'], reasons: ['consent-origin'] });
  // Which of them spoke through a source of another name, nobody can tell.
  const unnamed = { ...accounts, sources: new Map([['hooks', tool('a')]]) } as unknown as Release;
  const second = world(unnamed, allowing(['a', 'a-us', 'c']));
  expect(second('hooks', 'withdrawn', ['email:x']).told).toEqual(['a', 'a-us', 'c']);
  expect(second('hooks', 'withdrawn', ['email:x'])).toMatchObject({ told: [], reasons: ['consent-echo', 'consent-echo', 'consent-echo'] });
  const two = { sources: new Map([['a-eu-hooks', tool('a')], ['a-us-hooks', tool('a')]]), destinations: new Map([['a-eu', tool('a')]]) } as unknown as Release;
  expect(world(two, allowing(['a-eu']))('a-us-hooks', 'withdrawn', ['email:x']).told).toEqual(['a-eu']);
});

test('a loop with a tool that is told by another adapter ends, too: the destination has the name of the source', () => {
  const byHttp = { sources: new Map([['mailer', tool('standard-webhooks')], ['site', tool('site')]]), destinations: new Map([['mailer', tool('http')], ['c', tool('http')]]) } as unknown as Release;
  const told = world(byHttp, allowing(['mailer', 'c']));
  expect(told('site', 'withdrawn', ['email:x']).told).toEqual(['mailer', 'c']);
  expect(told('mailer', 'withdrawn', ['email:x'])).toMatchObject({ told: [], reasons: ['consent-echo', 'consent-echo'] });
  // It speaks first: the name alone does not say that it knows.
  expect(world(byHttp, allowing(['mailer', 'c']))('mailer', 'withdrawn', ['email:x']).told).toEqual(['mailer', 'c']);
});
