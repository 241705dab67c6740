export { Secret } from './secret.ts';
export type { Vault } from './types.ts';
