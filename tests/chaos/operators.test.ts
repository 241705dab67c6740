import { join } from 'node:path';
import { registry as adapters } from '@weir/adapters';
import { compileRelease } from '@weir/release';
import { expect, test } from 'vitest';
import { filesOf } from './operators.ts';
import { limitOfWorkspace } from './round.ts';

const workspace = join(import.meta.dirname, 'workspace');
const release = (version: number) => compileRelease(filesOf(workspace, version), { adapters });
const mapped = (version: number, source: string, item: object) => {
  const result = release(version).sources.get(source)!.mapping.apply(item as never, undefined, { eventId: 'evt_1', source, acceptedAt: 1_700_000_000_000 });
  if (result.kind !== 'mapped') throw new Error(result.kind);
  return result.outputs;
};

test('the two releases of a change map the same item differently, and give it the same outputs, routes and rules', () => {
  const profile = { messageId: 'm-1', userId: 'u-1', type: 'identify', timestamp: '2026-01-01T00:00:00Z', traits: { email: 'p1@larkspur.example', plan: 'plan-1' } };
  const member = { id: 'mem-1', updated_at: 1, user_id: 'mu-1', email: 'mu1@larkspur.example', plan: 'p1' };
  for (const [source, item] of [['segment', profile], ['members', member]] as const) {
    const [even, odd] = [mapped(0, source, item), mapped(1, source, item)];
    expect(odd.map(({ name, recordType, outputId }) => [name, recordType, outputId])).toEqual(even.map(({ name, recordType, outputId }) => [name, recordType, outputId]));
    expect([even[0]!.record['title'] ?? null, odd[0]!.record['title']]).toEqual([null, item === profile ? 'plan-1' : 'p1']);
  }
  const [even, odd] = [filesOf(workspace, 0), filesOf(workspace, 1)].map((files) => files.filter(({ path }) => /^(destinations|policies|purposes)/.test(path)));
  expect(odd).toEqual(even);
  expect(release(0).hash).not.toBe(release(1).hash);
  expect(release(2).hash).not.toBe(release(0).hash);
});

test('the limit that the checker holds deliveries to is the one of the workspace', () => {
  const rule = release(0).policy.rules.find(({ name }) => name === limitOfWorkspace.rule);
  expect([rule?.limit?.count, rule?.limit?.perMs, rule?.limit?.by]).toEqual([limitOfWorkspace.count, limitOfWorkspace.perMs, 'subject']);
});
