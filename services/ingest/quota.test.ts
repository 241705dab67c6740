import type { QuotaReserve } from '@weir/http';
import type { Release } from '@weir/release';
import { expect, test } from 'vitest';
import { createPollQuotas } from './quota.ts';

test('pollers of one account share its limit with the partitions of its deliveries, and one without a lease uses none', () => {
  const poll = { source: { kind: 'poll' } };
  const limit = { steady: { count: 90, perMs: 1000 } };
  const source = (name: string) => [name, { name, account: 'crm', accountLimit: limit, adapter: poll }] as const;
  const release = { sources: new Map([source('a'), source('b')]), destinations: new Map([['crm', { name: 'crm', account: 'crm' }]]) } as unknown as Release;
  const held = new Set(['a']);
  const reserves = new Map<string, QuotaReserve>();
  let now = 0;
  const quotaOf = createPollQuotas({ release: () => release, reserves: () => reserves, partitionsOf: () => 7, holds: (name) => held.has(name), monotonic: () => now, now: () => now, random: () => 0.5 });
  const a = quotaOf('a');
  let calls = 0;
  for (; now < 10_000; now += 5) while (a.take() === 0) { calls++; a.finished({ throttled: false, answered: true }); }
  // One part of nine of 81 (90 less the bucket) a second.
  expect(calls).toBeGreaterThan(80);
  expect(calls).toBeLessThan(101);
  reserves.set('crm', { account: 'crm', share: 0.5, at: now, forMs: 100_000 });
  calls = 0;
  for (const end = now + 10_000; now < end; now += 5) while (a.take() === 0) { calls++; a.finished({ throttled: false, answered: true }); }
  // What is reserved is left.
  expect(calls).toBeGreaterThan(40);
  expect(calls).toBeLessThan(55);
  held.clear();
  now += 60_000;
  expect(a.take()).toBeGreaterThan(0);
});

test('a refusal of one poller is heard by the others of its account', () => {
  const release = { sources: new Map(['a', 'b'].map((name) => [name, { name, account: 'crm', adapter: { source: { kind: 'poll' } } }])), destinations: new Map() } as unknown as Release;
  const quotaOf = createPollQuotas({ release: () => release, reserves: () => new Map(), partitionsOf: () => undefined, holds: () => true, monotonic: () => 0, now: () => 0, random: () => 0.5 });
  expect(quotaOf('a').take()).toBe(0);
  quotaOf('a').finished({ throttled: true, answered: true, retryAfterMs: 3000 });
  expect(quotaOf('b').take()).toBe(3000);
});

test('a call that ends when a release has taken its source from the account is no call of the account any more', () => {
  const source = (name: string, account: string) => [name, { name, account, adapter: { source: { kind: 'poll' } } }] as const;
  let release = { sources: new Map([source('a', 'crm'), source('b', 'crm')]), destinations: new Map() } as unknown as Release;
  let now = 0;
  const quotaOf = createPollQuotas({ release: () => release, reserves: () => new Map(), partitionsOf: () => undefined, holds: () => true, monotonic: () => now, now: () => now, random: () => 0.5 });
  const [a, b] = [quotaOf('a'), quotaOf('b')];
  expect(a.take()).toBe(0);
  release = { ...release, sources: new Map([source('a', 'own'), source('b', 'crm')]) } as unknown as Release;
  a.finished({ throttled: false, answered: true });
  expect(b.take()).toBe(0);
  b.finished({ throttled: true, answered: true, retryAfterMs: 1000 });
  now = 10_000;
  expect(b.take()).toBe(0);
});
