import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pendingLeaves } from '@weir/audit';
import { openVault, sealedLeaf } from '@weir/vault';
import { afterAll, expect, test } from 'vitest';

const dataDir = mkdtempSync(join(tmpdir(), 'weir-cli-vault-'));
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

let extra: Record<string, string> = {};
const weir = (input: string, ...args: string[]): Promise<{ code: number | null; text: string }> => new Promise((done) => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'main.ts'), 'vault', ...args], { env: { ...process.env, WEIR_DATA: dataDir, WEIR_KEY: '', ...extra } });
  let text = '';
  child.stdout.on('data', (d: Buffer) => { text += d.toString(); });
  child.stderr.on('data', (d: Buffer) => { text += d.toString(); });
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  child.on('close', (code) => done({ code, text }));
});

test('set from stdin, list without values, rotate the key, remove; a value as an argument is wrong use', async () => {
  expect(await weir('first-value\n', 'set', 'CRM_TOKEN')).toEqual({ code: 0, text: expect.stringMatching(/^no control service answers: the audit leaf waits[^\n]*\nCRM_TOKEN is set\n$/) });
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

test('every change has its audit leaf in the data folder before it, and its end after; what is refused before has none', async () => {
  const leaves = pendingLeaves(dataDir).map((p) => p.leaf!);
  const count = (action: string, kind: string): number => leaves.filter((l) => l.action === action && l.kind === kind).length;
  expect(leaves.map((l) => l.actor).every((actor) => actor.startsWith('local:'))).toBe(true);
  expect([count('vault.set', 'intent'), count('vault.set', 'end'), count('vault.remove', 'intent'), count('vault.remove', 'end'), count('vault.rotate-key', 'end')]).toEqual([2, 2, 1, 1, 1]);
  expect(leaves.filter((l) => l.target === 'CRM_TOKEN')).toHaveLength(6);
  expect(JSON.stringify(leaves)).not.toMatch(/first-value|second-value/);
  expect(leaves.find((l) => l.id === sealedLeaf(dataDir))).toMatchObject({ action: 'vault.remove', kind: 'intent' });
});

test('with a control service the leaf is there before the change, and without its leaf nothing is changed', async () => {
  const asked: [string, unknown, boolean][] = [];
  let status = 200;
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (part) => { text += part; });
    request.on('end', () => {
      asked.push([`${request.method} ${request.url} ${request.headers.authorization}`, JSON.parse(text), openVault({ dataDir, env: {} }).has('AUDITED')]);
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(status === 200 ? { leaf: 'leaf_00000000-0000-4000-8000-00000000000a' } : { error: 'audit-broken', message: 'not what was signed' }));
    });
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  const waiting = pendingLeaves(dataDir).length;
  try {
    extra = { WEIR_PORT: String((server.address() as AddressInfo).port - 1), WEIR_TOKEN: 'weir_x' };
    expect(await weir('v1', 'set', 'AUDITED')).toEqual({ code: 0, text: 'AUDITED is set\n' });
    expect(asked).toEqual([['POST /v1/vault/changes Bearer weir_x', { change: 'set', name: 'AUDITED' }, false]]);
    expect(sealedLeaf(dataDir)).toBe('leaf_00000000-0000-4000-8000-00000000000a');
    status = 503;
    for (const [input, ...args] of [['v2', 'set', 'AUDITED'], ['', 'rm', 'AUDITED'], ['', 'rotate-key']] as const) expect(await weir(input, ...args)).toMatchObject({ code: 1, text: expect.stringContaining('audit-broken') });
    expect(asked.length).toBe(4);
    expect(openVault({ dataDir, env: {} }).get('AUDITED').reveal()).toBe('v1');
    expect([sealedLeaf(dataDir), pendingLeaves(dataDir).length]).toEqual(['leaf_00000000-0000-4000-8000-00000000000a', waiting]);
  } finally {
    extra = {};
    server.close();
    server.closeAllConnections();
  }
}, 60_000);

test('migrate seals a plain file', async () => {
  writeFileSync(join(dataDir, 'secrets.json'), JSON.stringify({ OLD: { value: 'plain-value' } }));
  expect(await weir('', 'migrate')).toMatchObject({ code: 0, text: expect.stringContaining('1 secrets sealed\n') });
  expect(openVault({ dataDir, env: {} }).get('OLD').reveal()).toBe('plain-value');
});

test('wrap-key gives the workspace key wrapped by Transit, and with it the sealed file opens as before', async () => {
  expect((await weir('kept-value', 'set', 'KEPT')).code).toBe(0);
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (part) => { text += part; });
    request.on('end', () => {
      // A token that may not look itself up is used as it is.
      if (request.url === '/v1/auth/token/lookup-self') return response.writeHead(403).end('{}');
      const body = JSON.parse(text);
      bodies.push(`${request.url} ${String(request.headers['x-vault-token'])}`);
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data: body.plaintext === undefined ? { plaintext: body.ciphertext.slice('vault:v1:'.length) } : { ciphertext: `vault:v1:${body.plaintext}` } }));
    });
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  try {
    extra = { WEIR_VAULT_ADDR: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, WEIR_VAULT_TOKEN: 'hvs.t' };
    const wrapped = await weir('', 'wrap-key');
    expect(wrapped).toMatchObject({ code: 0, text: expect.stringMatching(/^vault:v1:[A-Za-z0-9+/]{43}=$/m) });
    extra = { ...extra, WEIR_KEY: /^vault:.*$/m.exec(wrapped.text)![0] };
    expect((await weir('', 'list')).text).toContain('KEPT');
    expect(bodies).toEqual(['/v1/transit/encrypt/weir hvs.t', '/v1/transit/decrypt/weir hvs.t']);
    extra = { WEIR_KEY: /^vault:.*$/m.exec(wrapped.text)![0] };
    expect(await weir('', 'list')).toMatchObject({ code: 2, text: expect.stringContaining('WEIR_VAULT_ADDR') });
  } finally {
    extra = {};
    server.close();
    server.closeAllConnections();
  }
}, 60_000);
