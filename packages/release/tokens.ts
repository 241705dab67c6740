import { createHash } from 'node:crypto';
import { parseGrant, type Principal } from './roles.ts';

export interface TokenView {
  readonly id: string;
  readonly name: string;
  readonly grants: readonly string[];
  /** ms since the epoch. */
  readonly createdAt: number;
  readonly createdBy: string;
  readonly expiresAt: number;
  readonly revokedAt: number | null;
}
/** weir.internal.ApiToken, decoded; the token itself is kept nowhere. */
export interface StoredToken extends TokenView {
  readonly hash: string;
  readonly leaf: string;
}

/** Keys of API tokens on weir.control. */
export const tokenKey = 'token/';
const tokenPattern = /^weir_[A-Za-z0-9_-]{43}$/;
export const isApiToken = (text: string): boolean => tokenPattern.test(text);

export interface TokenIndex {
  keep(token: StoredToken): void;
  get(id: string): StoredToken | undefined;
  all(): StoredToken[];
  /** Undefined: no such token, revoked, or past its end. */
  principalOf(token: string): Principal | undefined;
}

/** API tokens by id and by hash, as weir.control tells them; `now` in ms since the epoch. */
export function createTokenIndex(now: () => number): TokenIndex {
  const byId = new Map<string, StoredToken>();
  const byHash = new Map<string, StoredToken>();
  return {
    keep(token) {
      byId.set(token.id, token);
      byHash.set(token.hash, token);
    },
    get: (id) => byId.get(id),
    all: () => [...byId.values()],
    principalOf(token) {
      const found = isApiToken(token) ? byHash.get(createHash('sha256').update(token).digest('hex')) : undefined;
      if (found === undefined || found.revokedAt !== null || found.expiresAt <= now()) return undefined;
      return { id: `token:${found.id}`, grants: found.grants.map(parseGrant) };
    },
  };
}
