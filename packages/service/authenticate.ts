import { hash, timingSafeEqual } from 'node:crypto';
import { defineConfig, type ConfigOf } from '@weir/config';
import { WeirError } from '@weir/errors';
import { errors, jwtVerify, type JWTPayload } from 'jose';
import { everything, isApiToken, parseGrant, type Grant, type Principal } from '@weir/release';
import { createIssuerKeys } from './issuer-keys.ts';

export interface OidcOptions {
  /** Exactly as in `iss`; its discovery document names the keys. */
  readonly issuer: string;
  /** Of this API, as in `aud`. */
  readonly audience: string;
  /** What `typ` of the header must be: `at+jwt` (RFC 9068), which no ID token has, or `any`. */
  readonly tokenType: 'at+jwt' | 'any';
  /** Claim with the grants: a list of texts. */
  readonly rolesClaim: string;
}

/** How people sign in by OIDC: the same for every service that takes their tokens. */
export const oidcConfig = defineConfig({
  oidcIssuer: { env: 'WEIR_OIDC_ISSUER', type: 'string', optional: true, doc: 'OIDC issuer whose access tokens (JWT) are accepted, exactly as in iss: https, or http on loopback.' },
  oidcAudience: { env: 'WEIR_OIDC_AUDIENCE', type: 'string', optional: true, doc: 'Audience that the tokens must have; default: weir, with WEIR_OIDC_TOKEN_TYPE=any none: name one that is the id of no client.' },
  oidcTokenType: { env: 'WEIR_OIDC_TOKEN_TYPE', type: 'enum', values: ['at+jwt', 'any'], default: 'at+jwt', doc: 'What typ in the header of the tokens must be: at+jwt (RFC 9068), which keeps ID tokens out, or any for an issuer that does not write it.' },
  oidcRolesClaim: { env: 'WEIR_OIDC_ROLES_CLAIM', type: 'string', default: 'weir_roles', doc: 'Claim with the grants: a list of <role> or <role>@<sources>:<destinations>.' },
});

type OidcConfig = ConfigOf<typeof oidcConfig>;

/** Asymmetric only: `none` and anything with a shared key are refused, whatever the header of the token says. */
const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const fetchTimeoutMs = 5000;
const clockTolerance = '5s';
const maxTokenChars = 8192;
const maxGrants = 50;
const jwtLike = /^[\w-]+\.[\w-]+\.[\w-]*$/;
const digest = (text: string): Buffer => hash('sha256', text, 'buffer');

/**
 * The OIDC options of the environment; undefined without an issuer. The audience defaults to `weir` for access tokens that
 * say that they are: an ID token of a client that is named `weir` has that audience too. Throws config-invalid where it must be named.
 */
export function oidcOptions(config: Partial<OidcConfig> & Pick<OidcConfig, 'oidcTokenType' | 'oidcRolesClaim'>): OidcOptions | undefined {
  const { oidcIssuer: issuer, oidcAudience, oidcTokenType: tokenType, oidcRolesClaim: rolesClaim } = config;
  if (issuer === undefined) return undefined;
  if (oidcAudience === undefined && tokenType === 'any') throw new WeirError('config-invalid', 'WEIR_OIDC_TOKEN_TYPE=any needs WEIR_OIDC_AUDIENCE: an audience that is the id of no client, since an ID token has that of its client');
  return { issuer, audience: oidcAudience ?? 'weir', tokenType, rolesClaim };
}

export type Authenticate = (authorization: string | undefined) => Promise<Principal>;

/** Who sends this Authorization header. Rejects with `unauthorized` for whatever is not a valid token, `issuer-unavailable` when the issuer does not answer; neither the admin token nor an API token waits for it. `adminToken`: undefined, or a throw of config-invalid = there is none; while it throws secret-unavailable API tokens and those of the issuer are taken as ever, and what is none of them is answered `secret-unavailable`, without the words of the vault. Throws config-invalid for an issuer that is not https. */
export function createAuthenticate(ports: { readonly adminToken: () => string | undefined; readonly principalOf: (token: string) => Principal | undefined; readonly oidc?: OidcOptions | undefined; readonly now: () => number }): Authenticate {
  const verify = ports.oidc === undefined ? undefined : oidcVerifier(ports.oidc, ports.now);
  return async (authorization) => {
    const token = /^Bearer ([\x21-\x7e]+)$/i.exec((authorization ?? '').slice(0, maxTokenChars + 8))?.[1];
    if (token === undefined || token.length > maxTokenChars) throw new WeirError('unauthorized');
    const issued = isApiToken(token) ? ports.principalOf(token) : undefined;
    if (issued !== undefined) return issued;
    // Before the issuer is asked, whatever the token looks like; that it cannot be had counts only after.
    const admin = adminOf(ports.adminToken);
    if (typeof admin === 'string' && timingSafeEqual(digest(token), digest(admin))) return { id: 'admin', grants: [{ role: 'admin', ...everything }] };
    const signedIn = jwtLike.test(token) ? await verify?.(token) : undefined;
    if (signedIn !== undefined) return signedIn;
    throw admin instanceof WeirError ? admin : new WeirError('unauthorized');
  };
}

/** The admin token; undefined when there is none, and what to answer while nobody can say. */
function adminOf(ask: () => string | undefined): string | WeirError | undefined {
  try {
    return ask();
  } catch (error) {
    if (!(error instanceof WeirError)) throw error;
    if (error.code === 'config-invalid') return undefined;
    if (error.code === 'secret-unavailable') return new WeirError('secret-unavailable', undefined, { cause: error });
    throw error;
  }
}

function oidcVerifier({ issuer, audience, tokenType, rolesClaim }: OidcOptions, now: () => number): (token: string) => Promise<Principal | undefined> {
  const keysOf = createIssuerKeys({ issuer, timeoutMs: fetchTimeoutMs, now });

  return async (token) => {
    let payload: JWTPayload;
    try {
      ({ payload } = await jwtVerify(token, await keysOf(), { issuer, audience, ...(tokenType === 'any' ? {} : { typ: tokenType }), algorithms, clockTolerance, requiredClaims: ['exp', 'sub'], currentDate: new Date(now()) }));
    } catch (error) {
      if (error instanceof WeirError) throw error;
      // JOSEError itself, without a class of its own, is what jose says of a key set that it could not fetch.
      if (error instanceof errors.JOSEError && !['ERR_JOSE_GENERIC', 'ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID'].includes(error.code)) return undefined;
      throw new WeirError('issuer-unavailable', 'the OIDC issuer does not answer', { cause: error });
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
