import { WeirError } from '@weir/errors';
import type { LogAdmin, Reader, Serde } from '@weir/log';
import { allows, createTokenIndex, everything, followControl, nothing, tokenKey, valuesUnder, type Principal, type StoredToken } from '@weir/release';
import { createAuthenticate, type OidcOptions } from '@weir/service/authenticate';

export interface ConsentAccess {
  /** Who sends this Authorization header and may record a no, whatever the sources and destinations of the grant: `mayOpen` says who may record the rest. Rejects with unauthorized, forbidden, issuer-unavailable, or secret-unavailable. */
  authorize(authorization: string | undefined): Promise<Principal>;
  close(): Promise<void>;
}

/** Whether this principal may record what is no denial or withdrawal: it holds at every destination, whatever source told of it, so the grant must be over everything. */
export const mayOpen = (principal: Principal): boolean => allows(principal, 'consent.write', everything);

/** The tokens that the control API takes: API tokens as weir.control tells them, followed (one that is revoked there is refused here), the admin token, and those of the OIDC issuer. Throws config-invalid for an issuer that is not https. */
export async function openConsentAccess(ports: { readonly reader: Reader; readonly admin: Pick<LogAdmin, 'endOffsets'>; readonly serde: Serde; readonly topic: string; readonly now: () => number; readonly adminToken: () => string | undefined; readonly oidc?: OidcOptions | undefined; readonly fail: (error: Error) => void }): Promise<ConsentAccess> {
  const tokens = createTokenIndex(ports.now);
  const authenticate = createAuthenticate({ adminToken: ports.adminToken, principalOf: tokens.principalOf, oidc: ports.oidc, now: ports.now });
  const follower = await followControl(ports, valuesUnder<StoredToken>(ports.serde, tokenKey, (token) => tokens.keep(token)), ports.fail);

  return {
    async authorize(authorization) {
      const principal = await authenticate(authorization);
      if (!allows(principal, 'consent.write', nothing)) throw new WeirError('forbidden');
      return principal;
    },
    close: () => follower.close(),
  };
}
