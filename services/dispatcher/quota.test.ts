import { WeirError } from '@weir/errors';
import { bucketOf, type QuotaReserve } from '@weir/http';
import type { Release } from '@weir/release';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { classOf, createQuotas } from './quota.ts';

const clock = { now: () => 0, monotonic: () => 0, random: () => 0.5, setTimer: () => 0, clearTimer: () => undefined };
const limit = { steady: { count: 600, perMs: 60_000 }, cite: '' };
function world(held: Record<string, number>, accounts: Record<string, string> = { crm: 'acme', events: 'acme', other: 'other' }) {
  const releaseOf = (accounts: Record<string, string>): Release => ({ sources: new Map([['members', { account: 'acme', adapter: { source: { kind: 'poll' } } }]]), destinations: new Map(Object.entries(accounts).map(([name, account]) => [name, { name, account, accountLimit: account === 'acme' ? { burst: { count: 130, perMs: 1000 } } : undefined }])) }) as unknown as Release;
  let release = releaseOf(accounts);
  const registry = new Registry();
  const reserves = new Map<string, QuotaReserve>();
  const quotas = createQuotas({ release: () => release, held: (name) => held[name] ?? 0, reserves: () => reserves, clock, registry });
  for (const name of Object.keys(accounts)) quotas.partitions(name, 6);
  return { quotas, registry, reserves, release(next: Record<string, string>) { release = releaseOf(next); } };
}

test('the share of an account follows the partitions of all its destinations, and pollers have their part of its own limit', () => {
  const { quotas } = world({ crm: 3, events: 3 });
  const rate = (name: string): number => quotas.of(name).state('send', limit, 0).perSecond;
  expect(rate('crm')).toBeCloseTo(540 / 60 / 2);
  expect(rate('events')).toBeCloseTo(rate('crm'));
  expect(rate('other')).toBe(0);
  const all = world({ crm: 6, events: 6, other: 6 });
  expect(all.quotas.of('crm').state('send', limit, 0).perSecond).toBeCloseTo(9);
});

test('what is reserved of an account is left by all its destinations, by no other account, and at most nine tenths of it', () => {
  const { quotas, reserves } = world({ crm: 6, events: 6, other: 6 });
  const rate = (name: string): number => quotas.of(name).state('send', limit, 0).perSecond;
  reserves.set('acme', { account: 'acme', share: 0.25, at: 0, forMs: 30_000 });
  expect([rate('crm'), rate('events'), rate('other')].map((r) => Math.round(r * 100) / 100)).toEqual([6.75, 6.75, 9]);
  reserves.set('acme', { account: 'acme', share: 1, at: 0, forMs: 30_000 });
  expect(rate('crm')).toBeCloseTo(0.9);
});

test('partitions that are added to a topic cut the share of who holds the old ones, at once as far as the assignment tells, then as the brokers do', async () => {
  const { quotas } = world({ crm: 6, other: 6 });
  const rate = (): number => quotas.of('other').state('send', limit, 0).perSecond;
  expect(rate()).toBeCloseTo(9);
  const answer = Promise.withResolvers<number>();
  const told = quotas.assigned('other', [0, 2, 4, 6, 8, 10], () => answer.promise);
  expect(rate()).toBeCloseTo(9 * 6 / 11);
  answer.resolve(12);
  await told;
  expect(rate()).toBeCloseTo(9 / 2);
  await quotas.assigned('other', [1], () => Promise.reject(new WeirError('log-deadline')));
  expect(rate()).toBeCloseTo(9 / 2);
  await expect(quotas.assigned('other', [1], () => Promise.reject(new WeirError('log-fatal')))).rejects.toMatchObject({ code: 'log-fatal' });
});

test('destinations of one account draw from one bucket; a refusal at one is heard at the other, and another account is not concerned', () => {
  const { quotas } = world({ crm: 6, events: 6, other: 6 });
  expect(quotas.of('crm').take('send', limit, 'live', 0)).toBe(0);
  quotas.of('crm').finished('send', { throttled: true, answered: true, retryAfterMs: 5000 }, 0);
  expect(quotas.of('events').take('send', limit, 'live', 1)).toBe(4999);
  expect(quotas.of('other').take('send', limit, 'live', 1)).toBe(0);
});

test.each<[string, Record<string, string>]>([['leaves', { events: 'acme' }], ['goes to another account', { crm: 'other', events: 'acme' }]])('a call that is open while its destination %s ends at the account that counted it: after the next refusal that one is not stopped for ever', (_how, next) => {
  const { quotas, release } = world({ crm: 6, events: 6, other: 6 });
  expect(quotas.of('crm').take('send', limit, 'live', 0)).toBe(0);
  release(next);
  quotas.of('crm').finished('send', { throttled: false, answered: true }, 0);
  expect(quotas.of('events').take('send', limit, 'live', 1000)).toBe(0);
  quotas.of('events').finished('send', { throttled: true, answered: true, retryAfterMs: 1000 }, 1000);
  expect(quotas.of('events').take('send', limit, 'live', 11_000)).toBe(0);
});

test('the metrics tell what is left of each account and bucket', async () => {
  const { quotas, registry } = world({ crm: 6, events: 6 });
  quotas.of('crm').take('send', limit, 'live', 0);
  quotas.of('crm').finished('send', { throttled: false, answered: true, headers: { 'ratelimit-remaining': '40', 'ratelimit-reset': '20' } }, 0);
  const text = await registry.metrics();
  expect(text).toContain('weir_quota_told_remaining{account="acme",bucket="send"} 40');
  expect(text).toContain('weir_quota_calls_per_second{account="acme",bucket="send"} 9');
});

test('a refusal for the rate makes no retry of a delivery; restrict stays restrict, and what a replay brings is last', () => {
  const task = { redrive: '', attempts: 0, last: undefined };
  expect(classOf(task, 'use')).toBe('live');
  expect(classOf({ ...task, attempts: 2, last: { verdict: 'retry' } as never }, 'use')).toBe('retry');
  expect(classOf({ ...task, attempts: 2, last: { verdict: 'throttled' } as never }, 'use')).toBe('live');
  expect(classOf({ ...task, redrive: 'order', attempts: 2 }, 'use')).toBe('replay');
  expect(classOf({ ...task, redrive: 'order' }, 'restrict')).toBe('restrict');
  expect(bucketOf('event', { ...limit, bucket: '/api/events' })).toBe('/api/events');
});
