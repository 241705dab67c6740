/** What `weir doctor` looks at on this machine. Nothing is changed, no value of a secret is told. The brokers are in doctor-cluster.ts, the services in doctor-services.ts. */
import { existsSync, mkdtempSync, rmdirSync, statfsSync, statSync } from 'node:fs';
import { dirname, join, resolve, sep } from 'node:path';
import { readConfig, vaultOptions } from '@weir/config';
import { WorkspaceError } from '@weir/errors';
import { advise, lackedScopes, secretNames, type Release } from '@weir/release';
import { barerKey, isWrapped, readWorkspaceKey, startVault, unwrapEnv, type Vault } from '@weir/vault';
import { compileFolder } from './workspace.ts';

export interface Check {
  readonly check: string;
  /** `warn`: a start goes, but look at it. `fail`: something does not go. */
  readonly state: 'ok' | 'warn' | 'fail';
  readonly message: string;
  /** What to do; absent where it is ok. */
  readonly remedy?: string;
}

type Env = Readonly<Record<string, string | undefined>>;

const leastNode = [24, 6] as const;
const leastFreeBytes = 2 * 1024 ** 3;
const unwrapDeadlineMs = 5000;
const gigabytes = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GB`;
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

export function checkNode(version: string): Check {
  const [major, minor] = version.split('.').map(Number) as [number, number];
  const [leastMajor, leastMinor] = leastNode;
  if (major > leastMajor || (major === leastMajor && minor >= leastMinor)) return { check: 'node', state: 'ok', message: version };
  return { check: 'node', state: 'fail', message: `${version} is older than ${leastNode.join('.')}`, remedy: 'run the services with a newer Node; npm start and npx weir bring one' };
}

/** Whether a file can be made in the folder, or in the nearest one above that exists, and room is left. */
export function checkFolder(check: string, folder: string): Check {
  let there = resolve(folder);
  while (!existsSync(there) && dirname(there) !== there) there = dirname(there);
  try {
    // A right alone does not tell: the disk may be read-only, or full.
    rmdirSync(mkdtempSync(join(there, '.weir-doctor-')));
  } catch (error) {
    return { check, state: 'fail', message: `${there} cannot be written (${(error as NodeJS.ErrnoException).code ?? messageOf(error)})`, remedy: 'give the user of the services the right to write there, or set WEIR_DATA' };
  }
  const { bavail, bsize } = statfsSync(there);
  const free = bavail * bsize;
  const message = `${resolve(folder)}${there === resolve(folder) ? '' : ' is made by the first start'}, ${gigabytes(free)} free`;
  return free >= leastFreeBytes ? { check, state: 'ok', message } : { check, state: 'warn', message, remedy: `less than ${gigabytes(leastFreeBytes)}: make room, a full disk stops the services` };
}

/** Of the repository: downloads of `npm start` and compiled code. Services go without it, as in an image that cannot be written. */
export function checkCache(folder: string): Check {
  const found = checkFolder('cache', folder);
  return found.state === 'fail' ? { ...found, state: 'warn', remedy: 'npm start needs it; services and commands go without, a little slower' } : found;
}

/** The folder as `weir validate` sees it. */
export function checkWorkspace(folder: string): { readonly found: Check; readonly release?: Release } {
  try {
    const release = compileFolder(folder);
    const advice = advise(release);
    const message = `${release.name}: ${release.sources.size} sources, ${release.destinations.size} destinations; release ${release.hash}`;
    if (advice.length === 0) return { release, found: { check: 'workspace', state: 'ok', message } };
    return { release, found: { check: 'workspace', state: 'warn', message: `${message}; ${advice.length} warnings, the first: ${advice[0]!.file}:${advice[0]!.line}: ${advice[0]!.message}`, remedy: `weir validate ${folder}` } };
  } catch (error) {
    if (!(error instanceof WorkspaceError)) throw error;
    const [{ file, line, message }] = error.problems as [WorkspaceError['problems'][number]];
    return { found: { check: 'workspace', state: 'fail', message: `${file}:${line}: ${message}${error.problems.length > 1 ? ` (and ${error.problems.length - 1} more)` : ''}`, remedy: `weir validate ${folder}` } };
  }
}

/** Opens WEIR_KEY where Transit has wrapped it; `env` has it in the clear then. A key is never made here. */
export async function checkKey(dataDir: string, given: Env): Promise<{ readonly found: Check; readonly env: Env }> {
  const check = 'key';
  const file = join(dataDir, 'workspace.key');
  const key = given['WEIR_KEY'] ?? '';
  if (key === '' && !existsSync(file)) {
    const sealed = existsSync(join(dataDir, 'secrets.sealed.json'));
    return { env: given, found: sealed ? { check, state: 'fail', message: `${file} is not there, and WEIR_KEY is not set`, remedy: 'bring the key back from its backup: without it neither the sealed secrets nor the topics can be read' }
      : { check, state: 'warn', message: `none yet: the first start makes ${file}`, remedy: 'for services on more than one host or data folder set WEIR_KEY, the same for all' } };
  }
  try {
    const env = await unwrapEnv(given, () => readConfig(vaultOptions, given), unwrapDeadlineMs);
    readWorkspaceKey(dataDir, key === '' ? undefined : env['WEIR_KEY']);
    if (barerKey({ dataDir, env })) return { env, found: { check, state: 'warn', message: `${join(dataDir, 'vault.key')} opens the sealed secrets without WEIR_KEY`, remedy: 'weir vault rotate-key; where a copy of the folder left this machine, set the secrets anew, too' } };
    if (key !== '') return { env, found: { check, state: 'ok', message: isWrapped(key) ? 'WEIR_KEY, opened by Transit' : 'WEIR_KEY' } };
    const open = (statSync(file).mode & 0o077) !== 0;
    return { env, found: open ? { check, state: 'warn', message: `${file} can be read by others`, remedy: `chmod 600 ${file}` } : { check, state: 'ok', message: file } };
  } catch (error) {
    return { env: given, found: { check, state: 'fail', message: messageOf(error), remedy: 'docs/operate.md, Keys and secrets' } };
  }
}

/** Of the control service whose environment this is. */
export function checkApproval(env: Env): Check {
  const check = 'approval';
  if (env['WEIR_APPROVAL'] === 'true') return { check, state: 'ok', message: 'a release needs a second person' };
  return { check, state: 'warn', message: 'WEIR_APPROVAL is off here: who may propose a release applies it alone, also one that allows everything', remedy: 'where more than one person works on it, set WEIR_APPROVAL=true for control' };
}

/** Of the control service whose environment this is: a checkpoint beside the log's own service goes with it, or is written anew by who writes the log anew. */
export function checkWitness(dataDir: string, env: Env): Check {
  const check = 'witness';
  const targets = (env['WEIR_AUDIT_WITNESS'] ?? '').split(',').map((target) => target.trim()).filter((target) => target !== '');
  const home = resolve(dataDir);
  const elsewhere = targets.filter((target) => /^https?:/.test(target) || (resolve(target) !== home && !resolve(target).startsWith(`${home}${sep}`)));
  // Of a URL no more than its host: its path may be known to few.
  if (elsewhere.length > 0) return { check, state: 'ok', message: `checkpoints of the audit log go to ${elsewhere.map((target) => (/^https?:/.test(target) ? URL.parse(target)?.host ?? 'a URL that is none' : target)).join(', ')}` };
  return { check, state: 'warn', message: `${targets.length === 0 ? 'WEIR_AUDIT_WITNESS is not set here' : 'WEIR_AUDIT_WITNESS names the data folder alone'}: checkpoints of the audit log are kept in the data folder alone, and who has that and the brokers can write another history`, remedy: 'set WEIR_AUDIT_WITNESS for control: an http(s) URL, or a file on storage, that neither they nor its host can change' };
}

const silent = { info: () => undefined, warn: () => undefined };

/** Names of the workspace's secrets and of control's own, and where they are; whether the vault and the sealed file open. */
export async function checkSecrets(dataDir: string, env: Env, release: Release | undefined): Promise<Check[]> {
  const wanted = new Set(['ADMIN_TOKEN', 'AUDIT_KEY']);
  for (const { config } of [...(release?.sources.values() ?? []), ...(release?.destinations.values() ?? [])]) for (const { name } of secretNames(config)) wanted.add(name);
  for (const ref of [release?.escalation?.webhook?.secret, release?.escalation?.email?.smtp.password]) if (ref !== undefined) wanted.add(ref.secret);
  let vault: Vault | undefined;
  try {
    const settings = readConfig(vaultOptions, env);
    vault = await startVault({ dataDir, env, settings, logger: silent, changesNothing: true });
    const { available, reason } = vault.status();
    const remote: Check[] = settings.vaultAddr === undefined ? [] : [available ? { check: 'vault', state: 'ok', message: settings.vaultAddr } : { check: 'vault', state: 'fail', message: `${settings.vaultAddr}: ${reason ?? 'no answer'}`, remedy: 'what it holds cannot be had until it answers: look at its address, the login and its log' }];
    const scopes = tellScopes(vault, release);
    return [...remote, ...scopes, available ? tellSecrets(vault, [...wanted]) : { check: 'secrets', state: 'warn', message: 'not all can be looked up while the vault does not answer', remedy: 'once it does, run this again' }];
  } catch (error) {
    return [{ check: 'secrets', state: 'fail', message: messageOf(error), remedy: 'docs/operate.md, Keys and secrets' }];
  } finally {
    vault?.close();
  }
}

/** Scopes that sources and destinations need and their clients do not ask for. No token is fetched to see: a server may count them, or end the one before; what it gave, the log of the dispatcher compares. */
function tellScopes(vault: Vault, release: Release | undefined): Check[] {
  const parts = [
    ...[...release?.sources.values() ?? []].map(({ name, config, adapter }) => ({ name, config, schema: adapter.manifest.source?.config ?? {} })),
    ...[...release?.destinations.values() ?? []].map(({ name, config, adapter }) => ({ name, config, schema: adapter.manifest.destination?.config ?? {} })),
  ];
  return parts.flatMap(({ name, schema, config }) => lackedScopes(schema, config, vault).map(({ name: secret, lacks }): Check => ({
    check: 'scopes', state: 'warn', message: `${name}: ${secret} does not ask for ${lacks.join(', ')}`, remedy: `ask for them (scope of the client: weir vault set ${secret}), or have the vendor give them`,
  })));
}

function tellSecrets(vault: Vault, wanted: readonly string[]): Check {
  const check = 'secrets';
  const missing = wanted.filter((name) => !vault.has(name));
  if (missing.length === 0) return { check, state: 'ok', message: `${wanted.length} of ${wanted.length} are set` };
  if (missing.length === wanted.length) return { check, state: 'warn', message: 'none is set yet: a first npm start invents every one', remedy: 'set those of vendors before it: weir vault set <NAME>, or WEIR_SECRET_<NAME>' };
  return { check, state: 'fail', message: `not set: ${missing.join(', ')}`, remedy: `weir vault set ${missing[0]!}, or WEIR_SECRET_${missing[0]!}` };
}
