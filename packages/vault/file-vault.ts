import { hash, randomBytes } from 'node:crypto';
import { WeirError } from '@weir/errors';
import { createTokenSource, leastBetweenMs, parseOAuthClient, scopesOf, type OAuthClient, type TokenSource } from './oauth.ts';
import type { SecretProvider } from './kv-provider.ts';
import { keepRemoteNames, remoteNames } from './remote-names.ts';
import type { callJson } from './session.ts';
import { changeSecrets, fileStamp, loadSecrets, sealedName, type FileStoreOptions } from './sealed-file.ts';
import { Secret } from '@weir/config';
import type { StoredSecret, Vault, VaultStatus } from './types.ts';

export const namePattern = /^[A-Z][A-Z0-9_]{0,63}$/;
const oauthTimeoutMs = 10_000;
/** A forced refresh (a vendor refused the credential) asks the token server of a client at most this often. */
const forceEveryMs = 10_000;
/** setTimeout takes no more than 2^31 - 1. */
const longestTimerMs = 86_400_000;

/** A replaced refresh token of a client that was set back within this serves again. One in use is replaced once a day at the latest. */
const keptForMs = 2 * 86_400_000;

const clientHash = (text: string): string => hash('sha256', text, 'hex');
/** Begins where the refresh tokens stand that a token server put in place of the one in the secret; no name of a secret has a #. Versions before had this one place. */
const refreshed = (name: string): string => `${name}#refreshed`;
/** A place for each client: one that was replaced may get its answer after its successor has. */
const refreshedOf = (name: string, of: string): string => `${refreshed(name)}/${of.slice(0, 16)}`;

export interface VaultOptions extends FileStoreOptions {
  /** A remote provider; its secrets stand between the environment and the local file. */
  readonly remote?: SecretProvider;
  /** What was read from `remote` serves this long without a further successful read, ms. */
  readonly maxStaleMs?: number;
  readonly now?: () => number;
  /** Given: OAuth2 tokens are fetched as soon as they are asked for, and refreshed ahead of their end, whoever calls `refresh`. Timers of it must not keep the process alive. */
  readonly timers?: { setTimer(run: () => void, ms: number): unknown; clearTimer(handle: unknown): void };
  /** How a token server is asked. */
  readonly callTokenServer?: typeof callJson;
  /** For who only looks: the names of what `remote` has are not kept in the data folder, and no refresh token is turned over. */
  readonly changesNothing?: boolean;
}

export function checkName(name: string): void {
  if (!namePattern.test(name)) throw new WeirError('config-invalid', `secret name ${JSON.stringify(name.slice(0, 80))}: expected upper-case letters, digits and _`);
}

/** Secrets from `WEIR_SECRET_<NAME>`, the remote provider, and the sealed file of the data folder, in this order. Without `timers` nothing is read by itself; startVault reads the providers now and then. */
export function openVault(options: VaultOptions): Vault {
  const { env, dataDir, remote, timers } = options;
  const now = options.now ?? Date.now;
  const maxStaleMs = options.maxStaleMs ?? 3_600_000;
  const listeners = new Set<() => void>();
  const sources = new Map<string, { readonly text: string; readonly source: TokenSource }>();
  let local: { readonly stamp: string; readonly secrets: Readonly<Record<string, StoredSecret>> } | undefined;
  let fetched: { readonly secrets: ReadonlyMap<string, StoredSecret>; readonly at: number } | undefined;
  /** Names that the remote provider had when it was last read, before a first read here: by another process of the data folder. */
  let had: ReadonlySet<string> | undefined;
  let status: VaultStatus = remote === undefined ? { available: true } : { available: false, reason: 'not read yet', since: now() };
  let revision = 0;
  let seen = '';
  let running: Promise<void> | undefined;
  const forcedAt = new Map<string, number>();
  /** Secrets for which the read that goes on, or the next, asks for new tokens. */
  const forced = new Set<string>();
  /** When the first token runs out of those that were valid when it was looked. */
  let firstEnd = Number.POSITIVE_INFINITY;
  let timer: unknown;
  let closed = false;

  function localSecrets(): Readonly<Record<string, StoredSecret>> {
    try {
      const stamp = fileStamp(dataDir);
      if (local?.stamp !== stamp) local = { stamp, secrets: loadSecrets(options) };
      return local.secrets;
    } catch (error) {
      if (error instanceof WeirError) throw error;
      // A folder that is away, or too many open files, heals as a remote provider does.
      throw new WeirError('secret-unavailable', `${dataDir}: secrets cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`, { cause: error });
    }
  }
  const fresh = (): boolean => fetched !== undefined && now() - fetched.at <= maxStaleMs;
  const unavailable = (name: string, why = status.reason): WeirError => new WeirError('secret-unavailable', `secret ${name} cannot be had: ${why ?? 'the vault was not read'}`);

  function find(name: string): StoredSecret | undefined {
    checkName(name);
    const value = env[`WEIR_SECRET_${name}`];
    if (value !== undefined && value !== '') return { value };
    if (fresh() && fetched!.secrets.has(name)) return fetched!.secrets.get(name);
    const away = remote !== undefined && !fresh();
    // The file may have an older value, or one that was made up: it does not stand in for what the provider had.
    if (away && (had ??= remoteNames(dataDir)).has(name)) throw unavailable(name);
    const found = localSecrets()[name];
    // With the provider out of reach nobody can say that it does not have the secret.
    if (away && found === undefined) throw unavailable(name);
    return found;
  }

  function sourceOf(name: string, text: string, client: OAuthClient): TokenSource {
    const known = sources.get(name);
    if (known?.text === text) return known.source;
    // Beside the secret, not in it: it may stand in the environment or in the remote provider, which are found first.
    const of = clientHash(text);
    const source = createTokenSource(name, client, {
      timeoutMs: oauthTimeoutMs, now, call: options.callTokenServer,
      kept() {
        const all = localSecrets();
        return [refreshedOf(name, of), refreshed(name)].map((place) => all[place]).find((kept) => kept?.of === of)?.value;
      },
      keep(refreshToken) {
        changeSecrets(options, (all) => {
          all[refreshedOf(name, of)] = { value: refreshToken, of, keptAt: now() };
          if (all[refreshed(name)]?.of === of) delete all[refreshed(name)];
        });
      },
    });
    sources.set(name, { text, source });
    arm();
    return source;
  }

  /** Clients that were asked for: a process that does not use a token must not turn its refresh token over. */
  function clients(tell: (error: unknown) => void): { readonly name: string; readonly source: TokenSource }[] {
    return [...sources.keys()].flatMap((name) => {
      try {
        const text = find(name)?.value;
        const client = text === undefined ? undefined : parseOAuthClient(name, text);
        if (client !== undefined) return [{ name, source: sourceOf(name, text!, client) }];
        sources.delete(name);
      } catch (error) {
        // The others have theirs all the same.
        tell(error);
      }
      return [];
    });
  }

  /** A wrong client, or a vault or token server that cannot be asked; else it is thrown. */
  function known(error: unknown): WeirError {
    if (error instanceof WeirError) return error;
    throw error;
  }

  function lookAtEnds(): void {
    firstEnd = Number.POSITIVE_INFINITY;
    for (const { source } of sources.values()) if (source.endsAt() > now()) firstEnd = Math.min(firstEnd, source.endsAt());
  }

  /** Tells of what has changed since the last time. */
  function notice(): void {
    lookAtEnds();
    let here: unknown;
    try {
      here = localSecrets();
    } catch (error) {
      here = known(error).message;
    }
    // Compared in memory only.
    const stamp = JSON.stringify([here, [...(fresh() ? fetched!.secrets : [])], [...sources].map(([name, s]) => [name, s.source.token()]).filter(([, token]) => token !== undefined)]);
    if (stamp === seen) return;
    seen = stamp;
    revision++;
    for (const listener of listeners) listener();
  }

  /** Each is noticed at once: another token server may hang. */
  const renew = (source: TokenSource, force: boolean): Promise<void> => source.refresh(force).finally(() => {
    notice();
    arm();
  });

  /** Sets the timer to what comes first: a client that is due, though not within `leastMs`, or the end of a token. */
  function arm(leastMs = 0): void {
    if (timers === undefined || closed) return;
    if (timer !== undefined) timers.clearTimer(timer);
    let ms = firstEnd - now();
    for (const { source } of sources.values()) ms = Math.min(ms, Math.max(leastMs, source.dueAt() - now()));
    timer = ms === Number.POSITIVE_INFINITY ? undefined : timers.setTimer(onTimer, Math.min(longestTimerMs, Math.max(0, ms)));
  }

  function onTimer(): void {
    timer = undefined;
    // What fails here is told by `get` and by the next `refresh`: both meet it, too.
    for (const { source } of clients(known)) if (source.dueAt() <= now()) renew(source, false).catch(known);
    notice();
    // A client that cannot be found now stays due.
    arm(leastBetweenMs);
  }

  async function readRemote(from: SecretProvider): Promise<void> {
    // Another process of the folder may have read it meanwhile.
    if (fetched === undefined) had = undefined;
    const secrets = await from.read();
    fetched = { secrets, at: now() };
    had = new Set(secrets.keys());
    if (options.changesNothing !== true) keepRemoteNames(dataDir, had);
  }

  async function readAll(): Promise<void> {
    const problems = new Set<string>();
    const tell = (error: unknown): void => { problems.add(known(error).message); };
    if (remote !== undefined) await readRemote(remote).catch(tell);
    // Also of those that are asked for meanwhile: who waits for the read may have been the first to ask.
    const asked = new Set<TokenSource>();
    for (;;) {
      const anew = new Set(forced);
      forced.clear();
      const more = clients(tell).filter(({ name, source }) => anew.has(name) || !asked.has(source));
      if (more.length === 0) break;
      for (const { source } of more) asked.add(source);
      await Promise.all(more.map(({ name, source }) => renew(source, anew.has(name)).catch(tell)));
    }
    status = problems.size === 0 ? { available: true } : { available: false, reason: [...problems].join('; ').slice(0, 500), since: status.since ?? now() };
    notice();
    arm();
  }

  return {
    get(name) {
      const found = find(name);
      if (found === undefined) throw new WeirError('config-invalid', `secret ${name} is not set: give it as WEIR_SECRET_${name}, or with weir vault set ${name} (${sealedName} of the data folder)`);
      const client = parseOAuthClient(name, found.value);
      if (client === undefined) return new Secret(found.value);
      if (options.changesNothing === true && client.refreshToken !== undefined) throw unavailable(name, 'its refresh token is not used by who only looks');
      const source = sourceOf(name, found.value, client);
      const token = source.token();
      if (token === undefined) throw unavailable(name, source.problem() ?? 'its token was not fetched yet');
      return new Secret(token);
    },
    has: (name) => find(name) !== undefined,
    scopes(name) {
      try {
        const text = find(name)?.value;
        const client = text === undefined ? undefined : parseOAuthClient(name, text);
        const held = sources.get(name);
        return (held?.text === text ? held?.source.scopes() : undefined) ?? scopesOf(client?.scope);
      } catch (error) {
        known(error);
        return undefined;
      }
    },
    signing(name) {
      const found = localSecrets()[name]?.signingValue;
      return found === undefined ? undefined : new Secret(found);
    },
    previous(name) {
      const found = find(name);
      return found?.previous === undefined || now() >= (found.previousUntil ?? 0) ? undefined : new Secret(found.previous);
    },
    revision() {
      // Whoever holds a token that has run out is to lose it in this tick, not when the timer comes.
      if (now() >= firstEnd) {
        revision++;
        lookAtEnds();
      }
      return revision;
    },
    onChange(listener) {
      listeners.add(listener);
      return () => { listeners.delete(listener); };
    },
    refresh(force = []) {
      for (const name of force) {
        if (now() - (forcedAt.get(name) ?? Number.NEGATIVE_INFINITY) < forceEveryMs) continue;
        forcedAt.set(name, now());
        forced.add(name);
      }
      running ??= readAll().finally(() => { running = undefined; });
      return running;
    },
    status: () => status,
    close() {
      closed = true;
      if (timer !== undefined) timers?.clearTimer(timer);
      listeners.clear();
    },
  };
}

export interface SecretSpec {
  readonly name: string;
  readonly value?: string;
  readonly signingValue?: string;
}

/** For a local run: make the secrets that are not set, keep the others. `record` writes the audit leaf before, and answers its id. */
export function ensureSecrets(options: FileStoreOptions, specs: readonly SecretSpec[], record: (names: readonly string[]) => string): void {
  const vault = openVault(options);
  const missing = specs.filter((spec) => !vault.has(spec.name));
  if (missing.length === 0) return;
  const leaf = record(missing.map((spec) => spec.name));
  changeSecrets(options, (all) => {
    for (const spec of missing) all[spec.name] ??= { value: spec.value ?? randomBytes(24).toString('base64url'), ...(spec.signingValue === undefined ? {} : { signingValue: spec.signingValue }) };
  }, leaf);
}

/** What can be a secret. Throws config-invalid. */
export function checkSecret(name: string, value: string): void {
  checkName(name);
  if (value === '') throw new WeirError('config-invalid', `secret ${name}: the value is empty`);
}

/** Set a secret; the value before it stays accepted for `overlapMs`, one that is set again as it is ends no overlap but with 0. `leaf`: id of the audit leaf that was written before. */
export function setSecret(options: FileStoreOptions, name: string, value: string, overlapMs: number, now: number, leaf: string): void {
  checkSecret(name, value);
  const of = clientHash(value);
  changeSecrets(options, (all) => {
    const before = all[name];
    if (before?.value !== value || overlapMs <= 0) all[name] = { value, ...(before === undefined || overlapMs <= 0 ? {} : { previous: before.value, previousUntil: now + overlapMs }) };
    for (const [place, kept] of Object.entries(all)) if (place.startsWith(refreshed(name)) && kept.of !== of && now - (kept.keptAt ?? now) > keptForMs) delete all[place];
  }, leaf);
}

/** False when there was none. */
export function removeSecret(options: FileStoreOptions, name: string, leaf: string): boolean {
  checkName(name);
  let found = false;
  changeSecrets(options, (all) => {
    found = name in all;
    delete all[name];
    for (const place of Object.keys(all)) if (place.startsWith(refreshed(name))) delete all[place];
  }, leaf);
  return found;
}
