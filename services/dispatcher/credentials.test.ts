import type { Incident } from '@weir/release';
import { createHandClock } from '@weir/testing';
import { Secret, type Vault } from '@weir/vault';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createCredentials } from './credentials.ts';

test('a credential that ends with a line end pauses its destination, as one that is missing does, until it is mended', async () => {
  const secrets: Record<string, string> = { KEY: 'k1\n', SIGN: 'line\n' };
  let revision = 1;
  const incidents: Incident[] = [];
  const adapter = { manifest: { destination: { config: { apiKey: { type: 'string', doc: '', secret: true }, signing: { type: 'string', doc: '', secret: true, signs: true } } } } };
  const logged: unknown[] = [];
  const log = (...of: unknown[]): void => { logged.push(of); };
  const clock = createHandClock(1000, Math.random);
  const credentials = createCredentials({
    vault: { onChange: () => () => undefined, revision: () => revision, get: (name: string) => new Secret(secrets[name]!), refresh: () => Promise.resolve() } as unknown as Vault,
    releases: { current: () => ({ hash: 'a', destinations: new Map([['crm', { name: 'crm', adapter, config: { apiKey: { secret: 'KEY' }, signing: { secret: 'SIGN' } } }]]) }), incidents: () => new Map() } as never,
    sandboxUrl: '', logger: { warn: log, error: log, info: log } as never, registry: new Registry(), clock, save: (incident) => { incidents.push(incident); return Promise.resolve(); }, changed: () => undefined,
  });
  expect(credentials.destination('crm')).toBeUndefined();
  secrets['KEY'] = 'k1';
  revision++;
  expect(credentials.destination('crm')!.config).toEqual({ apiKey: 'k1', signing: 'line\n' });
  await credentials.close();
  expect(incidents).toMatchObject([{ destination: 'crm', code: 'config-invalid', until: null }, { destination: 'crm', code: 'config-invalid', until: 1000 }]);
  expect(JSON.stringify(logged)).toContain('secret KEY ');
  expect(JSON.stringify(logged)).not.toContain('k1');
});

test('the config of a destination stays the same object until one of its own values changes, so that what is known of its credential does', () => {
  const secrets: Record<string, string> = { KEY: 'k1', OTHER: 'o1' };
  let revision = 1;
  let release = { hash: 'a', destinations: new Map([['crm', { name: 'crm', adapter: { manifest: {} }, config: { apiKey: { secret: 'KEY' }, headers: { list: ['x'] } } }]]) };
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
