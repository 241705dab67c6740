import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registry } from '../../adapters/registry.ts';
import type { Release, SourceConfig } from '@weir/release';
import { openVault, setSecret } from '@weir/vault';
import { expect, test } from 'vitest';
import { resolveSources } from './sources.ts';

test('a rotated write key and its predecessor are both accepted while they overlap, then only the new one', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-sources-'));
  const leaf = 'leaf_00000000-0000-4000-8000-000000000001';
  try {
    let now = 1000;
    for (const name of ['A', 'B']) setSecret({ dataDir, env: {} }, name, `${name}-old`, 0, now, leaf);
    const vault = openVault({ dataDir, env: {}, now: () => now });
    const adapter = registry.get('segment')!;
    const source = (name: string, secret: string): SourceConfig => ({ name, adapter, config: { writeKey: { secret } } }) as unknown as SourceConfig;
    const release = { sources: new Map([['one', source('one', 'A')], ['two', source('two', 'B')]]) } as unknown as Release;
    const resolve = () => resolveSources(release, { vault, closed: (_name, error) => { throw error; } });
    expect(resolve().segment('A-old')?.name).toBe('one');
    setSecret({ dataDir, env: {} }, 'A', 'A-new', 500, now, leaf);
    const sources = resolve();
    expect([sources.segment('A-new')?.name, sources.segment('A-old')?.name, sources.segment('B-old')?.name, sources.segment('none')?.name]).toEqual(['one', 'one', 'two', undefined]);
    expect(sources.previous(sources.all.get('one')!)).toMatchObject({ writeKey: 'A-old' });
    expect(sources.previous(sources.all.get('two')!)).toBeUndefined();
    now = 1500;
    expect([sources.segment('A-new')?.name, sources.segment('A-old')?.name]).toEqual(['one', undefined]);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});

test('a poller whose credential ends with a line end is closed and named; what only verifies a webhook may be any text', () => {
  const closed: [string, unknown][] = [];
  const source = (name: string, adapter: string, config: object): [string, SourceConfig] => [name, { name, adapter: registry.get(adapter)!, config } as unknown as SourceConfig];
  const found = resolveSources({ sources: new Map([source('poll', 'http-poll', { auth: { secret: 'A' } }), source('hook', 'sendgrid', { verificationKey: { secret: 'A' } })]) } as unknown as Release, { vault: openVault({ dataDir: '/nonexistent', env: { WEIR_SECRET_A: 'k1\n' } }), closed: (name, error) => closed.push([name, error]) });
  expect([...found.all.keys()]).toEqual(['hook']);
  expect(closed).toEqual([['poll', expect.objectContaining({ code: 'config-invalid', message: expect.stringMatching(/^(?!.*k1)secret A cannot/) })]]);
});

test('a source whose secret is missing is closed and named, the others go on', () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-sources-'));
  try {
    const closed: string[] = [];
    const source = { name: 'one', adapter: registry.get('segment')!, config: { writeKey: { secret: 'NONE' } } } as unknown as SourceConfig;
    const found = resolveSources({ sources: new Map([['one', source]]) } as unknown as Release, { vault: openVault({ dataDir, env: {} }), closed: (name) => closed.push(name) });
    expect([closed, found.complete, found.all.size]).toEqual([['one'], false, 0]);
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
});
