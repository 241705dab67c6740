import { hash, timingSafeEqual } from 'node:crypto';
import { WeirError } from '@weir/errors';
import type { LogAdmin, Reader, Serde } from '@weir/log';
import { allows, createTokenIndex, everything, followControl, nothing, tokenKey, valuesUnder, type Principal, type StoredToken } from '@weir/release';

export interface ConsentAccess {
  /** Who sends this Authorization header and may record a no, whatever the sources and destinations of the grant: `mayOpen` says who may record the rest. Throws unauthorized or forbidden. */
  authorize(authorization: string | undefined): Principal;
  close(): Promise<void>;
}

/** Whether this principal may record what is no denial or withdrawal: it holds at every destination, whatever source told of it, so the grant must be over everything. */
export const mayOpen = (principal: Principal): boolean => allows(principal, 'consent.write', everything);

const maxTokenChars = 256;
const digest = (text: string): Buffer => hash('sha256', text, 'buffer');

/** API tokens as weir.control tells them, followed: a token that is revoked there is refused here. */
export async function openConsentAccess(ports: { readonly reader: Reader; readonly admin: Pick<LogAdmin, 'endOffsets'>; readonly serde: Serde; readonly topic: string; readonly now: () => number; readonly adminToken: () => string | undefined; readonly fail: (error: Error) => void }): Promise<ConsentAccess> {
  const tokens = createTokenIndex(ports.now);

  const follower = await followControl(ports, valuesUnder<StoredToken>(ports.serde, tokenKey, (token) => tokens.keep(token)), ports.fail);

  return {
    authorize(authorization) {
      const token = /^Bearer ([\x21-\x7e]{1,256})$/i.exec((authorization ?? '').slice(0, maxTokenChars + 8))?.[1];
      if (token === undefined) throw new WeirError('unauthorized');
      const admin = ports.adminToken();
      const principal: Principal | undefined = admin !== undefined && timingSafeEqual(digest(token), digest(admin)) ? { id: 'admin', grants: [{ role: 'admin', ...everything }] } : tokens.principalOf(token);
      if (principal === undefined) throw new WeirError('unauthorized');
      if (!allows(principal, 'consent.write', nothing)) throw new WeirError('forbidden');
      return principal;
    },
    close: () => follower.close(),
  };
}
