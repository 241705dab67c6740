import { createHash, timingSafeEqual } from 'node:crypto';
import { WeirError } from '@weir/errors';
import { createRemoteJWKSet, errors, jwtVerify, type JWTPayload } from 'jose';
import { everything, isApiToken, parseGrant, type Grant, type Principal } from '@weir/release';

export interface OidcOptions {
  /** Exactly as in `iss`; its discovery document names the keys. */
  readonly issuer: string;
  /** Of this API, as in `aud`. */
  readonly audience: string;
  /** Claim with the grants: a list of texts. */
  readonly rolesClaim: string;
}

/** Asymmetric only: `none` and anything with a shared key are refused, whatever the header of the token says. */
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const fetchTimeoutMs = 5000;
const clockTolerance = '5s';
const maxTokenChars = 8192;
const maxGrants = 50;
const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

export type Authenticate = (authorization: string | undefined) => Promise<Principal>;

/** Who sends this Authorization header. Rejects with `unauthorized` for whatever is not a valid token, `log-unavailable` when the issuer does not answer. */
export function createAuthenticate(ports: { readonly adminToken: () => string; readonly principalOf: (token: string) => Principal | undefined; readonly oidc?: OidcOptions; readonly now: () => number }): Authenticate {
  const verify = ports.oidc === undefined ? undefined : oidcVerifier(ports.oidc, ports.now);
  return async (authorization) => {
    const token = /^Bearer ([\x21-\x7e]+)$/i.exec((authorization ?? '').slice(0, maxTokenChars + 8))?.[1];
    if (token === undefined || token.length > maxTokenChars) throw new WeirError('unauthorized');
    if (timingSafeEqual(digest(token), digest(ports.adminToken()))) return { id: 'admin', grants: [{ role: 'admin', ...everything }] };
    const principal = isApiToken(token) ? ports.principalOf(token) : /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token) ? await verify?.(token) : undefined;
    if (principal === undefined) throw new WeirError('unauthorized');
    return principal;
  };
}

function oidcVerifier({ issuer, audience, rolesClaim }: OidcOptions, now: () => number): (token: string) => Promise<Principal | undefined> {
  let keys: ReturnType<typeof createRemoteJWKSet> | undefined;

  /** The address of the keys comes from the configured issuer, never from a token. */
  async function discover(): Promise<ReturnType<typeof createRemoteJWKSet>> {
    const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
    const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(fetchTimeoutMs) });
    const found = (await response.json()) as { issuer?: unknown; jwks_uri?: unknown };
    if (!response.ok || found.issuer !== issuer || typeof found.jwks_uri !== 'string') throw new WeirError('log-unavailable', `${url} does not describe the issuer`);
    return createRemoteJWKSet(new URL(found.jwks_uri), { timeoutDuration: fetchTimeoutMs });
  }

  return async (token) => {
    let payload: JWTPayload;
    try {
      keys ??= await discover();
      ({ payload } = await jwtVerify(token, keys, { issuer, audience, algorithms, clockTolerance, requiredClaims: ['exp', 'sub'], currentDate: new Date(now()) }));
    } catch (error) {
      if (error instanceof errors.JOSEError && !(error instanceof errors.JWKSTimeout) && !(error instanceof errors.JWKSInvalid)) return undefined;
      if (error instanceof WeirError) throw error;
      throw new WeirError('log-unavailable', 'the OIDC issuer does not answer', { cause: error });
    }
    const listed = payload[rolesClaim];
    return { id: `oidc:${payload.sub!.slice(0, 200)}`, grants: grantsOf(Array.isArray(listed) ? listed.slice(0, maxGrants) : []) };
  };
}

/** Roles of other applications may stand in the same claim: what is no grant of Weir gives nothing. */
function grantsOf(listed: readonly unknown[]): Grant[] {
  return listed.flatMap((text) => {
    try {
      return typeof text === 'string' ? [parseGrant(text)] : [];
    } catch (error) {
      if (error instanceof WeirError) return [];
      throw error;
    }
  });
}
