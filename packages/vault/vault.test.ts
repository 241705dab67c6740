import { hash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { WeirError } from '@weir/errors';
import { afterEach, expect, test } from 'vitest';
import { ensureSecrets, loadSecrets, openVault, readWorkspaceKey, sealedLeaf, Secret, setSecret, type StoredSecret, type Vault, type VaultOptions } from './index.ts';
import { changeSecrets } from './sealed-file.ts';

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

test('a value that is set again as it is does not end the overlap, nor lengthen it; an overlap of 0 ends it', () => {
  const options = { dataDir: dir(), env: {} };
  let now = 1000;
  const set = (value: string, overlapMs: number): void => setSecret(options, 'A', value, overlapMs, now, 'leaf_1');
  const vault = openVault({ ...options, now: () => now });
  set('old', 0);
  set('new', 500);
  now = 1400;
  set('new', 500);
  expect([vault.get('A').reveal(), vault.previous('A')?.reveal()]).toEqual(['new', 'old']);
  now = 1500;
  expect(vault.previous('A')).toBeUndefined();
  now = 1400;
  set('new', 0);
  expect([vault.get('A').reveal(), vault.previous('A')]).toEqual(['new', undefined]);
});

/** A data folder with two secrets, before a vault that has one of them, and one of its own. */
function shared() {
  const dataDir = dir();
  for (const name of ['OURS', 'SHARED']) setSecret({ dataDir, env: {} }, name, `${name} of the file`, 0, 1, 'leaf_1');
  const remote = { away: false, has: new Map<string, StoredSecret>([['SHARED', { value: 'of the vault' }], ['THEIRS', { value: 'of the vault' }]]) };
  const read = async (): Promise<ReadonlyMap<string, StoredSecret>> => {
    if (remote.away) throw new WeirError('secret-unavailable', 'vault sealed');
    return remote.has;
  };
  /** As a process that starts. */
  const start = async (more: Partial<VaultOptions> = {}): Promise<Vault> => {
    const vault = openVault({ dataDir, env: {}, remote: { read }, ...more });
    await vault.refresh();
    return vault;
  };
  return { dataDir, remote, start };
}

test('after a restart while the vault is away the sealed file does not stand in for what the vault had; what only the file has goes on', async () => {
  const { dataDir, remote, start } = shared();
  expect((await start()).get('SHARED').reveal()).toBe('of the vault');
  remote.away = true;
  const vault = await start();
  expect(vault.get('OURS').reveal()).toBe('OURS of the file');
  for (const name of ['SHARED', 'THEIRS']) for (const ask of [vault.get, vault.has, vault.previous]) expect(() => ask(name), name).toThrow(expect.objectContaining({ code: 'secret-unavailable', message: `secret ${name} cannot be had: vault sealed` }));
  expect((await start({ env: { WEIR_SECRET_SHARED: 'given' } })).get('SHARED').reveal()).toBe('given');
  const file = join(dataDir, 'vault-names.json');
  expect([readFileSync(file, 'utf8'), statSync(file).mode & 0o777]).toEqual(['["SHARED","THEIRS"]\n', 0o600]);
  // Taken out of the vault, it is the file's again.
  Object.assign(remote, { away: false, has: new Map() });
  await start();
  remote.away = true;
  expect((await start()).get('SHARED').reveal()).toBe('SHARED of the file');
  writeFileSync(file, '{');
  const torn = await start();
  expect(() => torn.get('OURS')).toThrow(expect.objectContaining({ code: 'secret-unavailable' }));
});

test('names of the vault that cannot be kept are told, what was read serves, and the next read keeps them; who changes nothing keeps none', async () => {
  const { dataDir, start } = shared();
  const before = readdirSync(dataDir);
  await start({ changesNothing: true });
  expect(readdirSync(dataDir)).toEqual(before);
  const inTheWay = join(dataDir, `vault-names.json.${process.pid}.part`);
  mkdirSync(inTheWay);
  const vault = await start();
  expect([vault.get('SHARED').reveal(), vault.status()]).toEqual(['of the vault', expect.objectContaining({ available: false, reason: expect.stringMatching(/vault-names\.json \(EISDIR\)$/) })]);
  rmdirSync(inTheWay);
  await vault.refresh();
  expect([vault.status(), readdirSync(dataDir).includes('vault-names.json')]).toEqual([{ available: true }, true]);
});

test('a refresh token that a version before kept is used, and stands in its own place from then on', async () => {
  const options = { dataDir: dir(), env: { WEIR_SECRET_CRM: JSON.stringify({ type: 'oauth2', tokenUrl: 'https://id.example/token', clientId: 'c', clientSecret: 's', refreshToken: 'used up' }) } };
  changeSecrets(options, (all) => { all['CRM#refreshed'] = { value: 'kept', of: hash('sha256', options.env.WEIR_SECRET_CRM, 'hex') }; });
  const given: (string | null)[] = [];
  const vault = openVault({ ...options, now: () => 1000, callTokenServer: async (_url, { body }) => ({ status: 200, body: { access_token: `t${given.push(new URLSearchParams(body).get('refresh_token'))}`, refresh_token: 'next', expires_in: 100 } }) });
  expect(() => vault.get('CRM')).toThrow(/cannot be had/);
  await vault.refresh();
  expect([vault.get('CRM').reveal(), given, Object.entries(loadSecrets(options))]).toEqual(['t1', ['kept'], [[expect.stringMatching(/^CRM#refreshed\/[0-9a-f]{16}$/), expect.objectContaining({ value: 'next', keptAt: 1000 })]]]);
});
