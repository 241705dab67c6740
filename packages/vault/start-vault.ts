import type { Secret } from '@weir/config';
import { WeirError } from '@weir/errors';
import { openVault } from './file-vault.ts';
import { createKvProvider } from './kv-provider.ts';
import type { SessionOptions } from './session.ts';
import { createTransit, isWrapped, type Transit } from './transit.ts';
import type { Vault } from './types.ts';

/** The part of the common options that the vault takes (packages/config). */
export interface VaultSettings {
  readonly vaultAddr: string | undefined;
  readonly vaultAllowHttp: boolean;
  readonly vaultPath: string;
  readonly vaultNamespace: string | undefined;
  readonly vaultToken: Secret | undefined;
  readonly vaultRoleId: string | undefined;
  readonly vaultSecretId: Secret | undefined;
  readonly vaultTimeoutMs: number;
  readonly vaultRefreshMs: number;
  readonly vaultMaxStaleMs: number;
  readonly vaultOverlapMs: number;
  readonly vaultTransitKey: string;
}
interface Lines {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

const firstRetryMs = 500;

/**
 * The vault of a service: read once, then every `vaultRefreshMs`, and while it fails with a backoff from 0.5 s.
 * OAuth2 tokens are refreshed ahead of their end, whatever that interval is.
 * A vault that does not answer at the start does not keep the service from starting: what needs a secret is paused.
 */
export async function startVault(options: { dataDir: string; env: Readonly<Record<string, string | undefined>>; settings: VaultSettings; logger: Lines; now?: () => number; changesNothing?: boolean }): Promise<Vault> {
  const { settings, logger } = options;
  const now = options.now ?? Date.now;
  const timers = { setTimer: (run: () => void, ms: number) => setTimeout(run, ms).unref(), clearTimer: (handle: unknown) => { clearTimeout(handle as NodeJS.Timeout); } };
  const vault = openVault({ dataDir: options.dataDir, env: options.env, now, timers, changesNothing: options.changesNothing, maxStaleMs: settings.vaultMaxStaleMs, remote: settings.vaultAddr === undefined ? undefined : createKvProvider({ ...sessionOf(settings, settings.vaultAddr, now), warn: (message) => logger.warn({}, message), path: settings.vaultPath, overlapMs: settings.vaultOverlapMs }) });
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  let failures = 0;

  async function turn(): Promise<void> {
    await vault.refresh();
    if (closed) return;
    const { available, reason, since } = vault.status();
    if (!available && failures === 0) logger.warn({ reason, since }, 'vault unavailable');
    if (available && failures > 0) logger.info({ failures }, 'vault available again');
    failures = available ? 0 : failures + 1;
    const ms = available ? settings.vaultRefreshMs : Math.min(settings.vaultRefreshMs, firstRetryMs * 2 ** Math.min(failures - 1, 10));
    timer = setTimeout(() => { void turn(); }, ms).unref();
  }
  await turn();
  return {
    ...vault,
    close() {
      closed = true;
      clearTimeout(timer);
      vault.close();
    },
  };
}

function sessionOf(settings: VaultSettings, address: string, now: () => number): SessionOptions {
  return { address, allowHttp: settings.vaultAllowHttp, namespace: settings.vaultNamespace, auth: authOf(settings), timeoutMs: settings.vaultTimeoutMs, now };
}

/** The Transit engine of the vault of these settings. Throws config-invalid when there is none. */
export function openTransit(settings: VaultSettings, now: () => number = Date.now): Transit {
  if (settings.vaultAddr === undefined) throw new WeirError('config-invalid', 'a wrapped workspace key (vault:v…) needs WEIR_VAULT_ADDR');
  return createTransit({ ...sessionOf(settings, settings.vaultAddr, now), key: settings.vaultTransitKey });
}

/**
 * The workspace key in the clear, in this process only: WEIR_KEY as it is, or opened by the Transit engine when it is
 * wrapped (`vault:v…`). Waits for a vault that does not answer until `deadlineMs`, then throws secret-unavailable.
 */
export async function unwrapWorkspaceKey(given: string | undefined, settings: VaultSettings, deadlineMs = 60_000): Promise<string | undefined> {
  if (given === undefined || !isWrapped(given)) return given;
  const transit = openTransit(settings);
  const end = performance.now() + deadlineMs;
  for (let wait = firstRetryMs; ; wait = Math.min(wait * 2, 10_000)) {
    try {
      return (await transit.decrypt(given)).toString('base64url');
    } catch (error) {
      if ((error as { code?: string }).code !== 'secret-unavailable' || performance.now() + wait > end) throw error;
      await new Promise<void>((resolve) => { setTimeout(resolve, wait); });
    }
  }
}

/** The environment with the workspace key in the clear, for this process only; the same one when the key is not wrapped. Rejects as unwrapWorkspaceKey does; `settings` is asked for only when they are needed. */
export async function unwrapEnv(env: Readonly<Record<string, string | undefined>>, settings: () => VaultSettings, deadlineMs?: number): Promise<Readonly<Record<string, string | undefined>>> {
  const given = env['WEIR_KEY'] ?? '';
  return isWrapped(given) ? { ...env, WEIR_KEY: await unwrapWorkspaceKey(given, settings(), deadlineMs) } : env;
}

function authOf(settings: VaultSettings): SessionOptions['auth'] {
  const { vaultToken: token, vaultRoleId: roleId, vaultSecretId: secretId } = settings;
  if (roleId !== undefined && secretId !== undefined) return { kind: 'approle', roleId, secretId: secretId.reveal() };
  if (token !== undefined) return { kind: 'token', token: token.reveal() };
  throw new WeirError('config-invalid', 'WEIR_VAULT_ADDR needs WEIR_VAULT_ROLE_ID and WEIR_VAULT_SECRET_ID, or WEIR_VAULT_TOKEN');
}
