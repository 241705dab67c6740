import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '@weir/errors';
import { Secret } from './secret.ts';
import type { Vault } from './types.ts';

interface Stored {
  readonly value: string;
  readonly signingValue?: string;
}

const namePattern = /^[A-Z][A-Z0-9_]{0,63}$/;
const fileName = 'secrets.json';

function load(dataDir: string): Record<string, Stored> {
  const file = join(dataDir, fileName);
  if (!existsSync(file)) return Object.create(null) as Record<string, Stored>;
  const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'));
  return Object.assign(Object.create(null), parsed) as Record<string, Stored>;
}

/** Secrets from `WEIR_SECRET_<NAME>` (first) and `<dataDir>/secrets.json`; both are looked at on each call, so a rotation needs no restart. */
export function openVault(options: { dataDir: string; env: Readonly<Record<string, string | undefined>> }): Vault {
  const find = (name: string): Stored | undefined => {
    if (!namePattern.test(name)) throw new WeirError('config-invalid', `secret name ${JSON.stringify(name.slice(0, 80))}: expected upper-case letters, digits and _`);
    const value = options.env[`WEIR_SECRET_${name}`];
    return value !== undefined && value !== '' ? { value } : load(options.dataDir)[name];
  };
  return {
    get(name) {
      const found = find(name);
      if (found === undefined) throw new WeirError('config-invalid', `secret ${name} is not set: give it as WEIR_SECRET_${name}, or in ${fileName} of the data folder`);
      return new Secret(found.value);
    },
    has: (name) => find(name) !== undefined,
    signing(name) {
      const found = load(options.dataDir)[name];
      return found?.signingValue === undefined ? undefined : new Secret(found.signingValue);
    },
  };
}

export interface SecretSpec {
  readonly name: string;
  readonly value?: string;
  readonly signingValue?: string;
}

/** For a local run: make the secrets that are not set, keep the others. File mode 0600, replaced in one step. */
export function ensureSecrets(options: { dataDir: string; env: Readonly<Record<string, string | undefined>> }, specs: readonly SecretSpec[]): void {
  const vault = openVault(options);
  const missing = specs.filter((spec) => !vault.has(spec.name));
  if (missing.length === 0) return;
  const all = load(options.dataDir);
  for (const spec of missing) all[spec.name] = { value: spec.value ?? randomBytes(24).toString('base64url'), ...(spec.signingValue === undefined ? {} : { signingValue: spec.signingValue }) };
  mkdirSync(options.dataDir, { recursive: true });
  const file = join(options.dataDir, fileName);
  const part = `${file}.${process.pid}`;
  writeFileSync(part, `${JSON.stringify(all, null, 2)}\n`, { mode: 0o600 });
  renameSync(part, file);
}
