import { isHeaderSafe, type AdapterConfig, type ConfigField, type ConfigSchema } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { isName } from '@weir/pipeline';
import { durationMs } from '@weir/policy';
import type { Vault } from '@weir/vault';
import type { YamlValue } from '@weir/yaml';

export interface SecretRef { readonly secret: string }
export const isSecretRef = (value: unknown): value is SecretRef => value !== null && typeof value === 'object' && typeof (value as SecretRef).secret === 'string' && Object.keys(value).length === 1;

/** `: did you mean x?` for a name that is one or two letters off, else nothing. */
export function nearest(name: string, known: readonly string[]): string {
  let best = '';
  let least = 3;
  for (const candidate of known) {
    const distance = editDistance(name, candidate);
    if (distance < least && distance < candidate.length) [best, least] = [candidate, distance];
  }
  return best === '' ? '' : `: did you mean ${best}?`;
}

function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2 || a.length > 64) return 3;
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    row = next;
  }
  return row[b.length]!;
}

type Report = (at: readonly (string | number)[], message: string, remedy: string) => void;

/** Check `config:` of a source or destination against the adapter's schema; fills defaults. Problems are reported, never thrown. */
export function checkConfig(schema: ConfigSchema, value: YamlValue | undefined, at: readonly (string | number)[], report: Report): AdapterConfig {
  const out: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  const given = value === undefined || value === null ? {} : value;
  if (typeof given !== 'object' || Array.isArray(given)) {
    report(at, 'config is a table', `give ${Object.keys(schema).join(', ')}`);
    return out;
  }
  for (const key of Object.keys(given)) if (!Object.hasOwn(schema, key)) report([...at, key], `unknown option ${key}${nearest(key, Object.keys(schema))}`, `use one of ${Object.keys(schema).join(', ') || 'none: the adapter has no options'}`);
  for (const [key, field] of Object.entries(schema)) {
    const found = (given as Record<string, YamlValue>)[key];
    if (found === undefined || found === null) {
      if (field.required === true) report(at, `option ${key} is missing`, field.doc);
      else if (field.default !== undefined) out[key] = field.default;
      continue;
    }
    const problem = checkField(field, found);
    if (problem === undefined) out[key] = found;
    else report([...at, key], `${key}: ${problem}`, field.doc);
  }
  return out;
}

function checkField(field: ConfigField, value: YamlValue): string | undefined {
  if (field.secret === true) return isSecretRef(value) && /^[A-Z][A-Z0-9_]{0,63}$/.test(value.secret) ? undefined : 'a secret is given by name, never by value: write { secret: NAME }';
  const bad = (expected: string): string => `expected ${expected}`;
  switch (field.type) {
    case 'number': return typeof value === 'number' ? undefined : bad('a number');
    case 'boolean': return typeof value === 'boolean' ? undefined : bad('true or false');
    case 'duration': return durationMs(value) === undefined ? bad('a duration such as 30s, 15m, 2h, 7d') : undefined;
    case 'url': return checkUrl(value);
    case 'string[]': return Array.isArray(value) && value.every((v) => typeof v === 'string') ? undefined : bad('a list of texts');
    case 'object': return value !== null && typeof value === 'object' && !Array.isArray(value) ? undefined : bad('a table');
    case 'object[]': return Array.isArray(value) && value.every((v) => v !== null && typeof v === 'object' && !Array.isArray(v)) ? undefined : bad('a list of tables');
    default:
      if (typeof value !== 'string') return bad('text');
      if (field.enum !== undefined && !field.enum.includes(value)) return bad(`one of ${field.enum.join(', ')}`);
      return field.pattern !== undefined && !new RegExp(field.pattern).test(value) ? bad(`text that matches ${field.pattern}`) : undefined;
  }
}

function checkUrl(value: YamlValue): string | undefined {
  if (typeof value !== 'string') return 'expected a URL';
  if (value.startsWith('sandbox://')) return isName(value.slice(10)) ? undefined : 'expected sandbox://<name>';
  try {
    const url = new URL(value);
    if (url.protocol !== 'https:' && url.protocol !== 'http:') return 'expected an http or https URL';
    return url.username !== '' || url.password !== '' ? 'a URL must hold no credentials' : undefined;
  } catch {
    return 'expected a URL';
  }
}

/**
 * The config as an adapter gets it: secrets revealed (signing halves with `signing`, the values before a rotation with `previous` where both are accepted), `sandbox://<name>` turned
 * into the sandbox's address. Never log the result. With `sentBy`, the schema of an adapter that calls with it, a secret that cannot stand in a header
 * is thrown as config-invalid that names it and quotes nothing: found at a call it would be the fault of each record.
 */
export function resolveConfig(config: AdapterConfig, options: { vault: Vault; sandboxUrl?: string; signing?: boolean; previous?: boolean; sentBy?: ConfigSchema | undefined }): AdapterConfig {
  const { sentBy } = options;
  if (sentBy !== undefined) {
    const check = (value: unknown): void => {
      if (isSecretRef(value)) checkHeaderSafe(value.secret, options.vault.get(value.secret).reveal());
      else if (value !== null && typeof value === 'object') for (const child of Object.values(value)) check(child);
    };
    for (const [option, value] of Object.entries(config)) if (!Object.hasOwn(sentBy, option) || sentBy[option]!.signs !== true) check(value);
  }
  const resolve = (value: unknown): unknown => {
    if (isSecretRef(value) && options.previous === true) return (options.vault.previous(value.secret) ?? options.vault.get(value.secret)).reveal();
    if (isSecretRef(value)) return (options.signing === true ? options.vault.signing(value.secret) : undefined)?.reveal() ?? options.vault.get(value.secret).reveal();
    if (typeof value === 'string' && value.startsWith('sandbox://') && options.sandboxUrl !== undefined) return `${options.sandboxUrl}/d/${value.slice(10)}`;
    if (Array.isArray(value)) return value.map(resolve);
    if (value !== null && typeof value === 'object') {
      const out: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
      for (const [key, child] of Object.entries(value)) out[key] = resolve(child);
      return out;
    }
    return value;
  };
  return Object.freeze(resolve(config) as Record<string, unknown>);
}

function checkHeaderSafe(name: string, value: string): void {
  if (!isHeaderSafe(value)) throw new WeirError('config-invalid', `secret ${name} cannot stand in a header: it holds a ${/[\r\n]/.test(value) ? 'line end: set it without one (a file that ends with a newline gives it one)' : 'control character, or one that is not Latin-1'}`);
}

/** Names of the secrets that a config refers to, also inside tables and lists, with the option they stand in. */
export function secretNames(config: AdapterConfig): { readonly option: string; readonly name: string }[] {
  const within = (option: string, value: unknown): { readonly option: string; readonly name: string }[] => {
    if (isSecretRef(value)) return [{ option, name: value.secret }];
    return value === null || typeof value !== 'object' ? [] : Object.entries(value).flatMap(([key, child]) => within(`${option}.${key}`, child));
  };
  return Object.entries(config).flatMap(([option, value]) => within(option, value));
}

/** Secrets of which the adapter, or the workspace where the adapter leaves it to it, names the scopes that they need. */
export function scopedSecrets(schema: ConfigSchema, config: AdapterConfig): { readonly name: string; readonly needs: readonly string[] }[] {
  return Object.entries(schema).flatMap(([option, { scopes, scopesIn }]) => {
    const value: unknown = config[option];
    const needs = scopesIn === undefined ? scopes : config[scopesIn] as readonly string[] | undefined;
    return needs === undefined || !isSecretRef(value) ? [] : [{ name: value.secret, needs }];
  });
}

/** Which of those scopes a secret lacks, as far as the vault knows: names that the adapter or the workspace gave, nothing that a token server said. */
export function lackedScopes(schema: ConfigSchema, config: AdapterConfig, vault: Pick<Vault, 'scopes'>): { readonly name: string; readonly lacks: readonly string[] }[] {
  return scopedSecrets(schema, config).flatMap(({ name, needs }) => {
    const given = vault.scopes(name);
    const lacks = given === undefined ? [] : needs.filter((scope) => !given.includes(scope));
    return lacks.length === 0 ? [] : [{ name, lacks }];
  });
}
