import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import type { Purpose } from '@weir/policy';
import { parseYaml } from '@weir/yaml';
import { expect, test } from 'vitest';
import { compileAccount, compileCaps, shareLimits } from './quota.ts';

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
