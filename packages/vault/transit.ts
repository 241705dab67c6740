import { WeirError } from '@weir/errors';
import { createSession, type SessionOptions } from './session.ts';

/** The Transit secrets engine (https://developer.hashicorp.com/vault/docs/secrets/transit): keys that never leave the vault. */
export interface TransitOptions extends SessionOptions {
  /** `<mount>/<key name>`, e.g. transit/weir. */
  readonly key: string;
}

export interface Transit {
  /** `vault:v<n>:…`, under the newest version of the key. */
  encrypt(plain: Buffer): Promise<string>;
  /** Also of older versions, as long as the vault keeps them. Throws secret-unavailable while it cannot be asked, config-invalid for what its key does not open. */
  decrypt(wrapped: string): Promise<Buffer>;
}

const wrappedPattern = /^vault:v\d{1,9}:[A-Za-z0-9+/=_-]{1,2000}$/;
export const isWrapped = (text: string): boolean => text.startsWith('vault:v');

export function createTransit(options: TransitOptions): Transit {
  const match = /^([A-Za-z0-9_-][A-Za-z0-9/_-]{0,99})\/([A-Za-z0-9_-][A-Za-z0-9._-]{0,99})$/.exec(options.key);
  if (match === null) throw new WeirError('config-invalid', `transit key ${JSON.stringify(options.key)}: expected <mount>/<key>`);
  const [, mount, key] = match;
  const session = createSession(options);

  async function ask(verb: 'encrypt' | 'decrypt', body: object, field: string): Promise<string> {
    const { status, body: answer } = await session.call(`/v1/${mount}/${verb}/${key}`, 'POST', body);
    if (status === 400) throw new WeirError('config-invalid', `transit ${verb} with ${options.key}: refused (400): the key does not open it, or is no encryption key`);
    const value: unknown = answer?.data?.[field];
    if (status !== 200 || typeof value !== 'string') throw session.refused(`transit ${verb} with ${options.key}`, status);
    return value;
  }
  return {
    encrypt: (plain) => ask('encrypt', { plaintext: plain.toString('base64') }, 'ciphertext'),
    async decrypt(wrapped) {
      if (!wrappedPattern.test(wrapped)) throw new WeirError('config-invalid', 'a wrapped key is vault:v<n>:<base64>');
      return Buffer.from(await ask('decrypt', { ciphertext: wrapped }, 'plaintext'), 'base64');
    },
  };
}
