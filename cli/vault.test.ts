import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openVault } from '@weir/vault';
import { afterAll, expect, test } from 'vitest';

const dataDir = mkdtempSync(join(tmpdir(), 'weir-cli-vault-'));
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

const weir = (input: string, ...args: string[]): Promise<{ code: number | null; text: string }> => new Promise((done) => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), 'vault', ...args], { env: { ...process.env, WEIR_DATA: dataDir, WEIR_KEY: '' } });
  let text = '';
  child.stdout.on('data', (d: Buffer) => { text += d.toString(); });
  child.stderr.on('data', (d: Buffer) => { text += d.toString(); });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  child.on('close', (code) => done({ code, text }));
});

test('set from stdin, list without values, rotate the key, remove; a value as an argument is wrong use', async () => {
  expect(await weir('first-value\n', 'set', 'CRM_TOKEN')).toEqual({ code: 0, text: 'CRM_TOKEN is set\n' });
  expect((await weir('second-value', 'set', 'CRM_TOKEN', '--overlap', '60')).code).toBe(0);
  const vault = openVault({ dataDir, env: {} });
  expect([vault.get('CRM_TOKEN').reveal(), vault.previous('CRM_TOKEN')?.reveal()]).toEqual(['second-value', 'first-value']);
  const listed = await weir('', 'list');
  expect(listed.text).toContain('CRM_TOKEN');
  expect(listed.text + readFileSync(join(dataDir, 'secrets.sealed.json'), 'utf8')).not.toMatch(/first-value|second-value/);
  expect((await weir('', 'rotate-key')).code).toBe(0);
  expect(vault.get('CRM_TOKEN').reveal()).toBe('second-value');
  const wrong = await weir('', 'set', 'CRM_TOKEN', 'third-value');
  expect(wrong.code).toBe(2);
  expect(wrong.text).not.toContain('third-value');
  expect((await weir('', 'set', 'CRM_TOKEN')).code).toBe(1);
  expect((await weir('', 'set', '../x')).code).toBe(1);
  expect((await weir('', 'rm', 'CRM_TOKEN')).code).toBe(0);
  expect((await weir('', 'rm', 'CRM_TOKEN')).code).toBe(1);
  expect((await weir('', 'nonsense')).code).toBe(2);
}, 60_000);

test('migrate seals a plain file', async () => {
  writeFileSync(join(dataDir, 'secrets.json'), JSON.stringify({ OLD: { value: 'plain-value' } }));
  expect(await weir('', 'migrate')).toEqual({ code: 0, text: '1 secrets sealed\n' });
  expect(openVault({ dataDir, env: {} }).get('OLD').reveal()).toBe('plain-value');
});
