export { checkName, checkSecret, ensureSecrets, openVault, removeSecret, setSecret, type SecretSpec, type VaultOptions } from './file-vault.ts';
export { createKvProvider, type KvOptions, type SecretProvider } from './kv-provider.ts';
export { createTokenSource, parseOAuthClient, type OAuthClient, type TokenSource } from './oauth.ts';
export { barerKey, loadSecrets, migrateSecrets, rotateRootKey, sealedLeaf, type FileStoreOptions } from './sealed-file.ts';
export { Secret } from '@weir/config';
export { openTransit, startVault, unwrapEnv, unwrapWorkspaceKey, type VaultSettings } from './start-vault.ts';
export { createTransit, isWrapped, type Transit, type TransitOptions } from './transit.ts';
export { readWorkspaceKey } from './workspace-key.ts';
export type { StoredSecret, Vault, VaultStatus } from './types.ts';
