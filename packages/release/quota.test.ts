import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import type { Purpose } from '@weir/policy';
import { parseYaml } from '@weir/yaml';
import type { OperationManifest } from '@weir/adapter';
import { createAccountQuota, drawOf, planBuckets, readBackDraw, type QuotaShare } from '@weir/http';
import { mostInWindow } from '@weir/testing';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compileAccount, compileCaps, shareLimits, shareOperationLimits, strictest } from './quota.ts';

const purposes = new Map<string, Purpose>([['email-marketing', { name: 'email-marketing', doc: '', legalBasis: 'consent' }]]);
function run<T>(content: string, work: (table: any, report: (at: readonly (string | number)[], message: string, remedy: string) => void, lineOf: (at: readonly (string | number)[]) => number) => T): { value: T; problems: WorkspaceProblem[] } {
  const yaml = parseYaml({ path: 'destinations/crm.yaml', content });
  const problems: WorkspaceProblem[] = [];
  const value = work(yaml.value, (at, message, remedy) => { problems.push({ file: 'destinations/crm.yaml', line: yaml.lineOf(at), message, remedy }); }, (at) => yaml.lineOf(at));
  return { value, problems };
}
const caps = (content: string) => run(content, (table, report, lineOf) => compileCaps(table.caps, 'destinations/crm.yaml', lineOf, purposes, report));

test('a cap names how many a day, of what, and what happens to more', () => {
  const { value, problems } = caps('caps:\n  - { name: mail, max: 3, purpose: email-marketing, channel: email, timezone: Europe/Berlin, over: delay }\n  - { name: all, max: 10 }\n');
  expect(problems).toEqual([]);
  expect(value).toMatchObject([{ name: 'mail', max: 3, purpose: 'email-marketing', channel: 'email', timezone: 'Europe/Berlin', over: 'delay', line: 2 }, { name: 'all', max: 10, purpose: undefined, timezone: 'UTC', over: 'deny' }]);
});

test.each([
  ['no list', 'caps: 5\n', /list/],
  ['no name', 'caps:\n  - { max: 3 }\n', /name/],
  ['a max of nothing', 'caps:\n  - { name: a, max: 0 }\n', /max/],
  ['a purpose that nobody declared', 'caps:\n  - { name: a, max: 1, purpose: spam }\n', /purpose spam/],
  ['a channel left blank', 'caps:\n  - { name: a, max: 1, channel: }\n', /channel null: expected a text/],
  ['a list of channels', 'caps:\n  - { name: a, max: 1, channel: [email, sms] }\n', /channel \["email","sms"\]: expected a text/],
  ['a table of destinations', 'caps:\n  - { name: a, max: 1, destination: { crm: yes } }\n', /destination .*: expected a text/],
  ['a zone that is none', 'caps:\n  - { name: a, max: 1, timezone: Mars/Base }\n', /time zone/],
  ['another effect', 'caps:\n  - { name: a, max: 1, over: drop }\n', /over/],
  ['a key that is none', 'caps:\n  - { name: a, max: 1, per: 1h }\n', /unknown key per/],
  ['a name twice', 'caps:\n  - { name: a, max: 1 }\n  - { name: a, max: 2 }\n', /already/],
])('caps: %s is refused', (_name, content, message) => {
  expect(caps(content).problems[0]!.message).toMatch(message);
});

test('an account is the destination itself unless it is named, and has the limit that is stated', () => {
  const { value } = run('accountLimit: { burst: { count: 100, per: 10s }, steady: { count: 250000, per: 1d } }\n', (table, report) => compileAccount(table, 'crm', report));
  expect(value).toEqual({ account: 'crm', limit: { burst: { count: 100, perMs: 10_000 }, steady: { count: 250_000, perMs: 86_400_000 } } });
  for (const bad of ['account: ../x\n', 'accountLimit: 5\n', 'accountLimit: { burst: { count: 0, per: 1s } }\n', 'accountLimit: { burst: { count: 1, per: 1s }, hourly: 3 }\n']) expect(run(bad, (table, report) => compileAccount(table, 'crm', report)).problems).toHaveLength(1);
});

test('one account has one limit: two that differ are a problem, one that is stated once holds for all', () => {
  const problems: WorkspaceProblem[] = [];
  const limit = { burst: { count: 1, perMs: 1000 } };
  const limits = shareLimits([{ name: 'a', account: 'x' }, { name: 'b', account: 'x', accountLimit: limit }, { name: 'c', account: 'x', accountLimit: limit }, { name: 'd', account: 'x', accountLimit: { burst: { count: 2, perMs: 1000 } } }], (p) => p.name, problems);
  expect(limits.get('x')).toEqual(limit);
  expect(problems).toMatchObject([{ file: 'd' }]);
  expect(() => { throw new WorkspaceError(problems); }).toThrow(/account x has another limit/);
});

type Limit = OperationManifest['limit'];
const rate = (count: number, perMs = 1000) => ({ steady: { count, perMs }, cite: '' });
const destination = (name: string, limits: Record<string, Limit>, over: { adapter?: string; account?: string; readBack?: Limit } = {}) => [name, {
  name, account: over.account ?? 'acme', adapter: { manifest: { name: over.adapter ?? 'http' } },
  operations: Object.fromEntries(Object.entries(limits).map(([operation, limit]) => [operation, { kind: 'use', limit, ...(over.readBack === undefined ? {} : { verify: { limit: over.readBack } }) }])),
}] as const;
const share = (...all: readonly (ReturnType<typeof destination>)[]) => {
  const shared = shareOperationLimits(new Map(all) as never);
  return (name: string, operation: string) => (shared.get(name) ?? new Map(all).get(name)!.operations as never)[operation]! as OperationManifest;
};

test('what counts together has one limit, the strictest that is stated for it: of the same operation of an adapter at one account, and of a bucket', () => {
  const of = share(destination('a', { send: rate(10), other: rate(7) }), destination('b', { send: rate(100), plain: undefined, mine: { bucket: 'all', cite: '' }, yours: { ...rate(5), bucket: 'all' } }), destination('c', { send: rate(3) }, { account: 'umbrella' }));
  expect([of('a', 'send').limit?.steady?.count, of('b', 'send').limit?.steady?.count, of('c', 'send').limit?.steady?.count]).toEqual([10, 10, 3]);
  expect([of('a', 'other').limit, of('b', 'plain').limit]).toEqual([rate(7), undefined]);
  expect([of('b', 'mine').limit, of('b', 'yours').limit].map((l) => [l?.bucket, l?.steady])).toEqual([['all', { count: 5, perMs: 1000 }], ['all', { count: 5, perMs: 1000 }]]);
});

test('operations of two adapters, or a declared bucket of the same name, share nothing that is not declared; their read-backs neither', () => {
  const of = share(destination('a', { send: rate(10) }, { readBack: rate(2) }), destination('b', { send: rate(100) }, { adapter: 'klaviyo', readBack: rate(4) }), destination('c', { write: { ...rate(50), bucket: 'send' } }));
  const draws = [drawOf('send', of('a', 'send')), drawOf('send', of('b', 'send')), drawOf('write', of('c', 'write')), readBackDraw('send', of('a', 'send')), readBackDraw('send', of('b', 'send'))];
  expect(draws.map((d) => [d.bucket, d.limit?.steady?.count])).toEqual([['http send', 10], ['klaviyo send', 100], ['send', 50], ['http send read-back', 2], ['klaviyo send read-back', 4]]);
});

test('two destinations of one account that call in turn, with two limits of one operation: together never more than the strictest', () => {
  const of = share(destination('a', { send: rate(10) }), destination('b', { send: rate(100) }));
  const whole: QuotaShare = { operation: { slots: 1, held: () => 1 }, account: { slots: 1, held: () => 1 } };
  const quota = createAccountQuota({ share: () => whole, limit: () => undefined, random: () => 0.5, now: () => 0 });
  const taken: number[] = [];
  for (let now = 0; now < 20_000; now++) for (const who of ['a', 'b']) {
    const { bucket, limit } = drawOf('send', of(who, 'send'));
    if (quota.take({ bucket, limit, class: 'live', who }, now) > 0) continue;
    taken.push(now);
    quota.finished(bucket, { throttled: false, answered: true }, now);
  }
  expect(mostInWindow(taken, 1000)).toBeLessThanOrEqual(10);
  expect(taken.length).toBeGreaterThan(150);
});

test('where three rates bind, the longer two become one that leaves what each of them leaves, not what the shorter does for a day', () => {
  expect(strictest([{ burst: { count: 100, perMs: 10_000 }, steady: { count: 250_000, perMs: 86_400_000 } }, { steady: { count: 150, perMs: 60_000 } }])).toEqual({ burst: { count: 100, perMs: 10_000 }, steady: { count: 150, perMs: 60_000 } });
  expect(strictest([{ burst: { count: 2, perMs: 1000 }, steady: { count: 3, perMs: 5000 } }, { steady: { count: 4, perMs: 60_000 } }])?.steady).toEqual({ count: 3, perMs: 60_000 });
});

test('whatever limits are stated for one bucket, the strictest keeps each of them in every window', () => {
  const one = fc.record({ count: fc.integer({ min: 1, max: 40 }), perMs: fc.constantFrom(100, 500, 700, 1000, 4000, 60_000) });
  const limits = fc.array(fc.record({ burst: fc.option(one, { nil: undefined }), steady: fc.option(one, { nil: undefined }) }), { minLength: 1, maxLength: 4 });
  fc.assert(fc.property(limits, fc.array(fc.integer({ min: 0, max: 300 }), { minLength: 20, maxLength: 100 }), (stated, gaps) => {
    const limit = strictest(stated);
    const whole: QuotaShare = { operation: { slots: 1, held: () => 1 }, account: { slots: 1, held: () => 1 } };
    const quota = createAccountQuota({ share: () => whole, limit: () => undefined, random: () => 0.5, now: () => 0 });
    const taken: number[] = [];
    let now = 0;
    for (const gap of gaps) {
      now += gap;
      for (let n = 0; n < 50 && quota.take({ bucket: 'x', limit, class: 'live', who: 'a' }, now) === 0; n++) {
        taken.push(now);
        quota.finished('x', { throttled: false, answered: true }, now);
      }
    }
    for (const { count, perMs } of stated.flatMap((l) => [l.burst, l.steady]).filter((r) => r !== undefined)) expect(mostInWindow(taken, perMs)).toBeLessThanOrEqual(count);
    expect(planBuckets(limit, 1).length === 0).toBe(stated.every((l) => l.burst === undefined && l.steady === undefined));
  }));
});
