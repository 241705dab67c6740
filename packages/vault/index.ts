export { ensureSecrets, openVault, type SecretSpec } from './file-vault.ts';
export { Secret } from './secret.ts';
export { readWorkspaceKey } from './workspace-key.ts';
export type { Vault } from './types.ts';
