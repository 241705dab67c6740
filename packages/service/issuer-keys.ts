import { WeirError } from '@weir/errors';
import { isProtected } from '@weir/vault';
import { createRemoteJWKSet, customFetch, type JWTVerifyGetKey } from 'jose';

const maxBodyBytes = 256 * 1024;
/** After a failure the issuer is not asked for so long: whoever sends tokens decides how many, not how many fetches. */
const cooldownMs = 5000;

export interface IssuerKeysOptions {
  /** https, or http on loopback. */
  readonly issuer: string;
  /** Deadline of one fetch with its body, ms. */
  readonly timeoutMs: number;
  /** Wall clock, ms. */
  readonly now: () => number;
}

/**
 * The keys of an OIDC issuer, found by its discovery document and never by a token. Fetches are shared, have a deadline,
 * 256 KiB, no redirect, and after one that failed a pause of 5 s in which every call rejects at once. The function rejects
 * with `issuer-unavailable` while the issuer cannot be asked. Throws config-invalid for an address that anybody on the way
 * could answer for.
 */
export function createIssuerKeys({ issuer, timeoutMs, now }: IssuerKeysOptions): () => Promise<JWTVerifyGetKey> {
  if (!isProtected(issuer)) throw new WeirError('config-invalid', 'WEIR_OIDC_ISSUER must be an https URL (http only to loopback): who is on the way could give keys of his own');
  const unavailable = (why: string, cause?: unknown): WeirError => new WeirError('issuer-unavailable', `the OIDC issuer does not answer: ${why}`, { cause });
  let failedAt: number | undefined;
  let keys: Promise<JWTVerifyGetKey> | undefined;

  /** What `read` does, unless something of this issuer failed a moment ago. */
  async function asked<T>(read: () => Promise<T>): Promise<T> {
    const since = failedAt === undefined ? undefined : now() - failedAt;
    // A clock that was set back ends the pause.
    if (since !== undefined && since >= 0 && since < cooldownMs) throw unavailable('it failed a moment ago and is asked again in some seconds');
    try {
      const result = await read();
      failedAt = undefined;
      return result;
    } catch (error) {
      failedAt = now();
      throw error instanceof WeirError ? error : unavailable((error as Error).name === 'TimeoutError' ? `not within ${timeoutMs} ms` : 'it cannot be reached', error);
    }
  }

  async function fetchJson(url: string): Promise<Record<string, unknown>> {
    const response = await fetch(url, { redirect: 'error', headers: { accept: 'application/json' }, signal: AbortSignal.timeout(timeoutMs) });
    if (response.status !== 200) {
      await response.body?.cancel();
      throw unavailable(`${url} answered ${response.status}`);
    }
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for await (const part of response.body ?? []) {
      bytes += part.length;
      if (bytes > maxBodyBytes) throw unavailable(`${url} has more than ${maxBodyBytes} bytes`);
      parts.push(part);
    }
    let parsed: unknown;
    try {
      parsed = JSON.parse(Buffer.concat(parts).toString('utf8'));
    } catch (error) {
      throw unavailable(`${url} is not JSON`, error);
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw unavailable(`${url} is no JSON object`);
    return parsed as Record<string, unknown>;
  }

  async function discover(): Promise<JWTVerifyGetKey> {
    const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
    const found = await fetchJson(url);
    const address = found['jwks_uri'];
    if (found['issuer'] !== issuer || typeof address !== 'string') throw unavailable(`${url} does not describe the issuer`);
    if (!isProtected(address)) throw unavailable(`jwks_uri of ${url} is not https`);
    const keysOf = async (): Promise<Response> => {
      const set = await fetchJson(address);
      if (!Array.isArray(set['keys'])) throw unavailable(`${address} is no key set`);
      return Response.json(set);
    };
    return createRemoteJWKSet(new URL(address), { timeoutDuration: timeoutMs, [customFetch]: () => asked(keysOf) });
  }

  return () => {
    keys ??= asked(discover).catch((error: unknown) => {
      keys = undefined;
      throw error;
    });
    return keys;
  };
}
