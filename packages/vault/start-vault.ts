import { WeirError } from '@weir/errors';
import { openVault } from './file-vault.ts';
import { createKvProvider } from './kv-provider.ts';
import type { Vault } from './types.ts';

/** The part of the common options that the vault takes (packages/config). */
export interface VaultSettings {
  readonly vaultAddr: string | undefined;
  readonly vaultPath: string;
  readonly vaultNamespace: string | undefined;
  readonly vaultToken: string | undefined;
  readonly vaultRoleId: string | undefined;
  readonly vaultSecretId: string | undefined;
  readonly vaultTimeoutMs: number;
  readonly vaultRefreshMs: number;
  readonly vaultMaxStaleMs: number;
  readonly vaultOverlapMs: number;
}
interface Lines {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

const firstRetryMs = 500;

/**
 * The vault of a service: read once, then every `vaultRefreshMs`, and while it fails with a backoff from 0.5 s.
 * A vault that does not answer at the start does not keep the service from starting: what needs a secret is paused.
 */
export async function startVault(options: { dataDir: string; env: Readonly<Record<string, string | undefined>>; settings: VaultSettings; logger: Lines; now?: () => number }): Promise<Vault> {
  const { settings, logger } = options;
  const now = options.now ?? Date.now;
  const vault = openVault({ dataDir: options.dataDir, env: options.env, now, maxStaleMs: settings.vaultMaxStaleMs, remote: settings.vaultAddr === undefined ? undefined : createKvProvider({ address: settings.vaultAddr, path: settings.vaultPath, namespace: settings.vaultNamespace, auth: authOf(settings), timeoutMs: settings.vaultTimeoutMs, overlapMs: settings.vaultOverlapMs, now }) });
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

function authOf(settings: VaultSettings): Parameters<typeof createKvProvider>[0]['auth'] {
  const { vaultToken: token, vaultRoleId: roleId, vaultSecretId: secretId } = settings;
  if (roleId !== undefined && secretId !== undefined) return { kind: 'approle', roleId, secretId };
  if (token !== undefined) return { kind: 'token', token };
  throw new WeirError('config-invalid', 'WEIR_VAULT_ADDR needs WEIR_VAULT_ROLE_ID and WEIR_VAULT_SECRET_ID, or WEIR_VAULT_TOKEN');
}
