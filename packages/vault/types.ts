import type { Secret } from './secret.ts';

export interface Vault {
  /** The secret of this name. Throws WeirError config-invalid that names it and says how to set it. */
  get(name: string): Secret;
  has(name: string): boolean;
  /** The signing half of a local pair, when there is one (see WebhookSource.localSecrets). */
  signing(name: string): Secret | undefined;
}
