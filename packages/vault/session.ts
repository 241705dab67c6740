import { WeirError } from '@weir/errors';
import { request } from 'undici';

/** How to get at a HashiCorp Vault or OpenBao. */
export interface SessionOptions {
  /** e.g. https://vault.example:8200; http:// for loopback only, unless `allowHttp`. */
  readonly address: string;
  /** Also http:// to another host, where what carries it is trusted (a mesh with TLS of its own). */
  readonly allowHttp?: boolean;
  readonly namespace?: string | undefined;
  readonly auth: { readonly kind: 'token'; readonly token: string } | { readonly kind: 'approle'; readonly roleId: string; readonly secretId: string };
  /** Deadline of one call, ms. */
  readonly timeoutMs: number;
  readonly now: () => number;
  /** Told once of each end of a token that was given (`auth.kind` token) and that cannot be renewed past it. */
  readonly warn?: (message: string) => void;
}

/** Authenticated calls: logs in, renews the lease and logs in again as its token needs. One call at a time is the caller's care. */
export interface VaultSession {
  /** `path` begins with /v1/. Throws WeirError secret-unavailable when it cannot be asked; its message holds no secret. */
  call(path: string, method: 'GET' | 'POST', body?: unknown): Promise<{ readonly status: number; readonly body: any }>;
  /** An error for a status that is none of those expected. */
  refused(what: string, status: number): WeirError;
}

/** Whether credentials may be sent there: by TLS, or without leaving this host. */
export function isProtected(address: string): boolean {
  const url = URL.parse(address);
  return url !== null && (url.protocol === 'https:' || (url.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname)));
}

const maxBodyBytes = 1024 * 1024;

/** One bounded JSON call: no redirect, a deadline over all of it, `status` and the parsed body. Throws secret-unavailable. */
export async function callJson(url: string, options: { method: 'GET' | 'POST'; headers?: Record<string, string>; body?: string; timeoutMs: number; what: string }): Promise<{ status: number; body: any }> {
  const failed = (why: string, cause?: unknown): WeirError => new WeirError('secret-unavailable', `${options.what}: ${why}`, { cause });
  try {
    const response = await request(url, { method: options.method, headers: options.headers, body: options.body, signal: AbortSignal.timeout(options.timeoutMs) });
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const part of response.body as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > maxBodyBytes) throw failed(`the answer has more than ${maxBodyBytes} bytes`);
      parts.push(part);
    }
    const text = Buffer.concat(parts).toString('utf8');
    let body: unknown;
    try {
      body = text === '' ? {} : JSON.parse(text);
    } catch {
      // Its message would quote the answer, which may hold a secret.
      if (response.statusCode < 300) throw failed('the answer is not JSON');
    }
    return { status: response.statusCode, body };
  } catch (error) {
    if (error instanceof WeirError) throw error;
    const { code, name } = error as { code?: string; name?: string };
    throw failed(name === 'TimeoutError' ? `no answer within ${options.timeoutMs} ms` : `cannot be reached (${code ?? name ?? 'unknown'})`);
  }
}

function reasonOf(status: number): string {
  if (status === 503) return 'sealed or in maintenance (503)';
  if (status === 403) return 'permission denied (403)';
  if (status === 404) return 'no such path (404)';
  return `answered ${status}`;
}

/** Throws config-invalid for an address that would carry the credentials in the clear. */
export function createSession(options: SessionOptions): VaultSession {
  const { auth, now } = options;
  if (!isProtected(options.address) && !(options.allowHttp === true && URL.parse(options.address)?.protocol === 'http:')) throw new WeirError('config-invalid', 'WEIR_VAULT_ADDR must be an https URL: http would send the token and every secret in the clear. To loopback it is taken, elsewhere only with WEIR_VAULT_ALLOW_HTTP=true');
  const base = options.address.replace(/\/+$/, '');
  let token: { readonly value: string; readonly renewAt: number; readonly endsAt: number; readonly renewable: boolean } | undefined;

  const call = (path: string, method: 'GET' | 'POST', using: string | undefined, body?: unknown) => callJson(path, {
    method, timeoutMs: options.timeoutMs, what: `vault ${new URL(base).host}`,
    headers: { ...(using === undefined ? {} : { 'x-vault-token': using }), ...(options.namespace === undefined ? {} : { 'x-vault-namespace': options.namespace }), 'x-vault-request': 'true', 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });

  function keep(answer: any): string {
    const value: unknown = answer?.auth?.client_token;
    if (typeof value !== 'string') throw new WeirError('secret-unavailable', `vault ${new URL(base).host}: the login gave no token`);
    const leaseMs = Number(answer.auth.lease_duration ?? 0) * 1000;
    // 0 = does not expire. Renewed at two thirds, so that two failures still leave time.
    token = { value, renewable: answer.auth.renewable === true, renewAt: leaseMs > 0 ? now() + leaseMs * 2 / 3 : Number.POSITIVE_INFINITY, endsAt: leaseMs > 0 ? now() + leaseMs : Number.POSITIVE_INFINITY };
    return value;
  }

  let warnedOf = 0;

  /** A token that was given: its own record says how long it lives. One that may not look itself up is used as it is. */
  async function adopt(value: string): Promise<string> {
    const { status, body } = await call(`${base}/v1/auth/token/lookup-self`, 'GET', value);
    const leaseMs = status === 200 ? Number(body?.data?.ttl ?? 0) * 1000 : 0;
    const [begin, lasts] = [now(), leaseMs > 0];
    token = { value, renewable: body?.data?.renewable === true, renewAt: lasts ? begin + leaseMs * 2 / 3 : Number.POSITIVE_INFINITY, endsAt: lasts ? begin + leaseMs : Number.POSITIVE_INFINITY };
    if (lasts && !token.renewable) ending(token.endsAt, 'it is not renewable');
    return value;
  }

  function ending(endsAt: number, why: string): void {
    // The end is counted from two answers: they differ by the time on the way.
    if (Math.abs(endsAt - warnedOf) < 60_000) return;
    warnedOf = endsAt;
    options.warn?.(`the token of vault ${new URL(base).host} ends at ${new Date(endsAt).toISOString()} and cannot be renewed: ${why}`);
  }

  async function login(): Promise<string> {
    if (auth.kind === 'token') return adopt(auth.token);
    const { status, body } = await call(`${base}/v1/auth/approle/login`, 'POST', undefined, { role_id: auth.roleId, secret_id: auth.secretId });
    if (status !== 200) throw new WeirError('secret-unavailable', `vault ${new URL(base).host}: AppRole login ${reasonOf(status)}`);
    return keep(body);
  }

  async function tokenNow(): Promise<string> {
    if (token === undefined || now() >= token.endsAt) return login();
    if (now() < token.renewAt) return token.value;
    if (!token.renewable) return auth.kind === 'token' ? token.value : login();
    const { endsAt } = token;
    const { status, body } = await call(`${base}/v1/auth/token/renew-self`, 'POST', token.value, {});
    if (status === 200) {
      const value = keep(body);
      if (auth.kind === 'token' && token.endsAt <= endsAt) ending(token.endsAt, 'its longest life is over then');
      return value;
    }
    // Past its max_ttl or revoked: a new login, at once.
    if (auth.kind === 'approle') return login();
    ending(endsAt, reasonOf(status));
    token = { ...token, renewAt: now() + (endsAt - now()) / 3 };
    return token.value;
  }

  return {
    async call(path, method, body) {
      const found = await call(base + path, method, await tokenNow(), body);
      if (found.status !== 403 || auth.kind !== 'approle') return found;
      token = undefined;
      return call(base + path, method, await login(), body);
    },
    refused: (what, status) => new WeirError('secret-unavailable', `vault ${new URL(base).host}: ${what} ${reasonOf(status)}`),
  };
}
