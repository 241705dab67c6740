import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import { loadSecrets, openVault, rotateRootKey, setSecret } from './index.ts';

const dirs: string[] = [];
const folder = (): string => {
  const dir = mkdtempSync(join(tmpdir(), 'weir-outer-'));
  dirs.push(dir);
  return dir;
};
afterEach(() => { for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true }); });

const leaf = 'leaf_00000000-0000-4000-8000-000000000001';
const outer = { WEIR_KEY: Buffer.alloc(32, 9).toString('base64url') };
const copyOf = (dataDir: string): string => {
  const copy = folder();
  cpSync(dataDir, copy, { recursive: true });
  return copy;
};

test('a copy of the data folder opens nothing without the key from outside, before a rotation and after it', () => {
  const dataDir = folder();
  setSecret({ dataDir, env: outer }, 'AUDIT_KEY', 'v1', 0, 1, leaf);
  expect(() => loadSecrets({ dataDir: copyOf(dataDir), env: {} })).toThrow(/sealed with a key that is neither/);
  for (let i = 0; i < 2; i++) {
    rotateRootKey({ dataDir, env: outer }, leaf);
    const copy = copyOf(dataDir);
    expect(() => loadSecrets({ dataDir: copy, env: {} })).toThrow(/wrapped under the WEIR_KEY/);
    expect(() => loadSecrets({ dataDir: copy, env: { WEIR_KEY: Buffer.alloc(32, 8).toString('base64url') } })).toThrow(/wrapped under the WEIR_KEY/);
    expect(loadSecrets({ dataDir: copy, env: outer })['AUDIT_KEY']!.value).toBe('v1');
  }
});

test('a root key in the clear, of a rotation before the key was given, opens on, and the next rotation takes it away', () => {
  const dataDir = folder();
  setSecret({ dataDir, env: {} }, 'A', 'v1', 0, 1, leaf);
  rotateRootKey({ dataDir, env: {} }, leaf);
  expect(Buffer.from(readFileSync(join(dataDir, 'vault.key'), 'utf8').trim(), 'base64url')).toHaveLength(32);
  const vault = openVault({ dataDir, env: outer });
  expect(vault.get('A').reveal()).toBe('v1');
  rotateRootKey({ dataDir, env: outer }, leaf);
  expect(vault.get('A').reveal()).toBe('v1');
  expect(() => loadSecrets({ dataDir: copyOf(dataDir), env: {} })).toThrow(/wrapped under the WEIR_KEY/);
});

/** `torn-keys`: killed after the new root is in the key file; `torn-secrets`: after the secrets are sealed with it. */
type Step = { readonly kind: 'set'; readonly name: string; readonly value: string } | { readonly kind: 'rotate' | 'torn-keys' | 'torn-secrets' };
const steps = fc.array(fc.oneof(
  fc.record({ kind: fc.constant('set' as const), name: fc.constantFrom('A', 'B'), value: fc.string({ minLength: 1, maxLength: 8 }) }),
  fc.record({ kind: fc.constantFrom('rotate' as const, 'torn-keys' as const, 'torn-secrets' as const) }),
), { maxLength: 12 });

test('over any order of changes, rotations and rotations that were killed half-way the secrets are those that were set', () => {
  fc.assert(fc.property(steps, fc.boolean(), (list: readonly Step[], barely) => {
    const dataDir = folder();
    const options = { dataDir, env: outer };
    const [keys, sealed] = [join(dataDir, 'vault.key'), join(dataDir, 'secrets.sealed.json')];
    setSecret(options, 'A', 'first', 0, 1, leaf);
    if (barely) writeFileSync(keys, `${Buffer.alloc(32, 3).toString('base64url')}\n`);
    const model: Record<string, string> = { A: 'first' };
    for (const step of list) {
      if (step.kind === 'set') {
        setSecret(options, step.name, step.value, 0, 1, leaf);
        model[step.name] = step.value;
      } else {
        const before = [keys, sealed].map((file) => readFileSync(file, { encoding: 'utf8', flag: 'a+' }));
        rotateRootKey(options, leaf);
        if (step.kind !== 'rotate') writeFileSync(keys, readFileSync(keys, 'utf8') + before[0]!);
        if (step.kind === 'torn-keys') writeFileSync(sealed, before[1]!);
      }
      expect(Object.fromEntries(Object.entries(loadSecrets(options)).map(([name, { value }]) => [name, value]))).toEqual(model);
    }
    rotateRootKey(options, leaf);
    expect(() => loadSecrets({ dataDir, env: {} })).toThrow(/wrapped under the WEIR_KEY/);
  }), { numRuns: 25 });
});

test('a rotation that is killed loses no secret, and leaves none to who has no key', async () => {
  const dataDir = folder();
  const options = { dataDir, env: outer };
  setSecret(options, 'A', 'kept', 0, 1, leaf);
  for (let kill = 0; kill < 4; kill++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', `
      const { rotateRootKey } = await import(${JSON.stringify(join(import.meta.dirname, 'sealed-file.ts'))});
      for (let i = 0; ; i++) { rotateRootKey(${JSON.stringify(options)}, ${JSON.stringify(leaf)}); if (i === ${kill * 3}) process.stdout.write('x'); }
    `], { stdio: ['ignore', 'pipe', 'inherit'] });
    const exited = once(child, 'exit');
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await exited;
    expect(loadSecrets(options)['A']!.value).toBe('kept');
    expect(() => loadSecrets({ dataDir: copyOf(dataDir), env: {} })).toThrow(/wrapped under the WEIR_KEY/);
  }
}, 60_000);
