import { Secret, type Vault } from '@weir/vault';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createCredentials } from './credentials.ts';

test('the config of a destination stays the same object until one of its own values changes, so that what is known of its credential does', () => {
  const secrets: Record<string, string> = { KEY: 'k1', OTHER: 'o1' };
  let revision = 1;
  let release = { hash: 'a', destinations: new Map([['crm', { name: 'crm', config: { apiKey: { secret: 'KEY' }, headers: { list: ['x'] } } }]]) };
  const credentials = createCredentials({
    vault: { onChange: () => () => undefined, revision: () => revision, get: (name: string) => new Secret(secrets[name]!), refresh: () => Promise.resolve() } as unknown as Vault,
    releases: { current: () => release, incidents: () => new Map() } as never, sandboxUrl: '', logger: {} as never, registry: new Registry(), clock: {} as never, save: () => Promise.resolve(), changed: () => undefined,
  });
  const first = credentials.destination('crm')!.config;
  secrets['OTHER'] = 'o2';
  revision++;
  expect(credentials.destination('crm')!.config).toBe(first);
  release = { ...release, hash: 'b' };
  expect(credentials.destination('crm')!.config).toBe(first);
  secrets['KEY'] = 'k2';
  revision++;
  expect(credentials.destination('crm')!.config).not.toBe(first);
  expect(credentials.destination('crm')!.config).toMatchObject({ apiKey: 'k2' });
});
