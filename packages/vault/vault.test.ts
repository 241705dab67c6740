import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, expect, test } from 'vitest';
import { ensureSecrets, openVault, readWorkspaceKey, sealedLeaf, Secret } from './index.ts';

const dirs: string[] = [];
const dir = (): string => {
  const path = mkdtempSync(join(tmpdir(), 'weir-vault-'));
  dirs.push(path);
  return path;
};
afterEach(() => { for (const path of dirs.splice(0)) rmSync(path, { recursive: true, force: true }); });

test('a secret prints nowhere', () => {
  const secret = new Secret('hunter2');
  const shown = [String(secret), JSON.stringify({ secret }), inspect(secret), inspect({ deep: { secret } }, { depth: 9, showHidden: true }), `${secret}`, Object.values(secret).join()].join();
  expect(shown).not.toContain('hunter2');
  expect(secret.reveal()).toBe('hunter2');
});

test('made secrets stay the same over restarts, the environment wins, the file is private', () => {
  const dataDir = dir();
  const recorded: string[] = [];
  const record = (names: readonly string[]): string => {
    expect(names.some((name) => openVault({ dataDir, env: {} }).has(name))).toBe(false);
    recorded.push(...names);
    return `leaf_${recorded.length}`;
  };
  ensureSecrets({ dataDir, env: {} }, [{ name: 'A' }, { name: 'PAIR', value: 'public', signingValue: 'private' }], record);
  const first = openVault({ dataDir, env: {} }).get('A').reveal();
  ensureSecrets({ dataDir, env: {} }, [{ name: 'A' }, { name: 'B' }], record);
  const vault = openVault({ dataDir, env: { WEIR_SECRET_B: 'from-env' } });
  expect(vault.get('A').reveal()).toBe(first);
  expect(vault.get('B').reveal()).toBe('from-env');
  expect(vault.signing('PAIR')?.reveal()).toBe('private');
  expect([recorded, sealedLeaf(dataDir)]).toEqual([['A', 'PAIR', 'B'], 'leaf_3']);
  expect(statSync(join(dataDir, 'secrets.sealed.json')).mode & 0o777).toBe(0o600);
});

test('a missing secret is named with its remedy, and a name is no path', () => {
  const vault = openVault({ dataDir: dir(), env: {} });
  expect(() => vault.get('NOPE')).toThrow(/WEIR_SECRET_NOPE/);
  expect(() => vault.get('../../etc/passwd')).toThrow(/expected upper-case/);
  expect(() => vault.has('__PROTO__')).toThrow(/expected upper-case/);
});

test('the workspace key is made once and a short one is refused', () => {
  const dataDir = dir();
  expect(readWorkspaceKey(dataDir, undefined)).toEqual(readWorkspaceKey(dataDir, undefined));
  expect(() => readWorkspaceKey(dataDir, 'short')).toThrow(/32 bytes/);
});
