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
  /**
   * Whether two principals may be one person: one has issued the token of the other, through however many tokens in
   * between, or a third one has issued both. Tokens that the admin token issued are of different people.
   */
  sameHand(a: string, b: string): boolean;
}

const tokenActor = 'token:';
const root = 'admin';

/** API tokens by id and by hash, as weir.control tells them; `now` in ms since the epoch. */
export function createTokenIndex(now: () => number): TokenIndex {
  const byId = new Map<string, StoredToken>();
  const byHash = new Map<string, StoredToken>();

  /** The principal, who issued its token, who issued that one's, and so on. */
  function issuers(id: string): ReadonlySet<string> {
    const chain = new Set<string>();
    for (let at: string | undefined = id; at !== undefined && !chain.has(at);) {
      chain.add(at);
      at = at.startsWith(tokenActor) ? byId.get(at.slice(tokenActor.length))?.createdBy : undefined;
    }
    return chain;
  }

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
      return { id: `${tokenActor}${found.id}`, grants: found.grants.map(parseGrant) };
    },
    sameHand(a, b) {
      const [of, others] = [issuers(a), issuers(b)];
      return of.has(b) || others.has(a) || [...of].some((id) => id !== root && others.has(id));
    },
  };
}
