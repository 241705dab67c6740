import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readConfig, vaultOptions } from '@weir/config';
import type { Release } from '@weir/release';
import { freePort } from '@weir/testing';
import { openVault } from '@weir/vault';
import { afterEach, expect, test, vi } from 'vitest';
import { localSecrets } from './prepare.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'weir-prepare-'));
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(dataDir, { recursive: true, force: true });
});
const release = { sources: new Map(), destinations: new Map() } as unknown as Release;

test('while a configured vault cannot be asked no secret is made, which would stand in for its own; without a vault they are', async () => {
  const told: string[] = [];
  vi.spyOn(console, 'error').mockImplementation((line: string) => { told.push(line); });
  const key = { WEIR_KEY: Buffer.alloc(32, 3).toString('base64url') };
  const prepare = (env: Record<string, string>): Promise<void> => localSecrets(release, { dataDir, env, settings: readConfig(vaultOptions, env), by: 'a test' });
  await prepare({ ...key, WEIR_VAULT_ADDR: `http://127.0.0.1:${await freePort()}`, WEIR_VAULT_TOKEN: 'hvs.secret', WEIR_VAULT_TIMEOUT_MS: '1000' });
  expect([readdirSync(dataDir), told]).toEqual([[], [expect.stringMatching(/^no secret is made while the vault cannot be asked: (?!.*hvs\.secret)/)]]);
  await prepare(key);
  expect([openVault({ dataDir, env: key }).has('AUDIT_KEY'), told.length]).toEqual([true, 1]);
});
