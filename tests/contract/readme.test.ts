import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { PollSource } from '@weir/adapter';
import { readAdapterFile, registry } from '@weir/adapters';
import { compileRelease, withDefaults, type Release } from '@weir/release';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const yamlOf = (adapter: string): string[] => [...readFileSync(`${root}/adapters/${adapter}/README.md`, 'utf8').matchAll(/```yaml\n([\s\S]*?)```/g)].map((m) => m[1]!);

function compile(files: Record<string, string>): Release {
  const base = { 'weir.yaml': 'name: example\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: x }\n' };
  return compileRelease(withDefaults(Object.entries({ ...base, ...files }).map(([path, content]) => ({ path, content })), registry, readAdapterFile), { adapters: registry });
}

test('the example of the http README is a destination that compiles, verdict table and all', () => {
  const [example] = yamlOf('http');
  const { destinations } = compile({ 'destinations/crm.yaml': `${example}routes:\n  - { on: Profile, operation: upsert, purpose: service }\n` });
  const { adapter, config } = destinations.get('crm')!;
  const answer = (status: number, body = '', headers: Record<string, string> = {}) => adapter.destination!.classify({ status, headers, body: Buffer.from(body) }, { operation: 'upsert' } as never, config).kind;
  expect([answer(404), answer(200, '{"accepted": false}'), answer(200, '{"accepted":true}')]).toEqual(['ok', 'permanent', 'ok']);
  expect([answer(403), answer(403, '', { 'x-ratelimit-remaining': '10' }), answer(403, '', { 'x-ratelimit-remaining': '0' })]).toEqual(['auth-broken', 'auth-broken', 'throttled']);
});

test('the examples of the http-poll README are sources that compile, with further headers, with and without since', () => {
  const [example, headers, since] = yamlOf('http-poll');
  expect([headers, since]).toEqual([expect.stringContaining('headers: |'), expect.stringContaining('sinceParam:')]);
  const mapping = 'mapping: members\noutputs:\n  profile: { record: Profile, objectKey: id, fields: { userId: id } }\n';
  const source = (text: string) => compile({ 'sources/members.yaml': text, 'mappings/members.yaml': mapping }).sources.get('members')!;
  for (const more of ['', headers!, since!]) expect(source(example!.replace('mapping:', `${more}mapping:`)).adapter.manifest.name).toBe('http-poll');
  const { adapter, config } = source(example!.replace('mapping:', `${headers}mapping:`));
  expect((adapter.source as PollSource).request(null, config, 0).headers).toMatchObject({ accept: 'application/vnd.api+json', revision: '2026-07-15' });
});
