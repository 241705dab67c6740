import { WeirError } from '@weir/errors';
import { request } from 'undici';
import type { StoredSecret } from './types.ts';

/** HashiCorp Vault or OpenBao: one KV v2 document holds the secrets of the workspace, a field per name. */
export interface KvOptions {
  /** e.g. https://vault.example:8200 */
  readonly address: string;
  /** `<mount>/<path>`, e.g. secret/weir. */
  readonly path: string;
  readonly namespace?: string;
  readonly auth: { readonly kind: 'token'; readonly token: string } | { readonly kind: 'approle'; readonly roleId: string; readonly secretId: string };
  /** Deadline of one call, ms. */
  readonly timeoutMs: number;
  /** How long the value before a rotation stays accepted, ms. */
  readonly overlapMs: number;
  readonly now: () => number;
}

export interface SecretProvider {
  /** Every secret. Throws WeirError secret-unavailable; its message holds no secret. */
  read(): Promise<ReadonlyMap<string, StoredSecret>>;
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

/** Reads the document and logs in, renews and logs in again as its token needs. One read at a time is the caller's care. */
export function createKvProvider(options: KvOptions): SecretProvider {
  const { address, auth, now } = options;
  const base = address.replace(/\/+$/, '');
  const slash = options.path.indexOf('/');
  if (slash < 1) throw new WeirError('config-invalid', `vault path ${JSON.stringify(options.path)}: expected <mount>/<path>`);
  const dataUrl = `${base}/v1/${options.path.slice(0, slash)}/data/${options.path.slice(slash + 1)}`;
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

  async function login(): Promise<string> {
    if (auth.kind === 'token') return auth.token;
    const { status, body } = await call(`${base}/v1/auth/approle/login`, 'POST', undefined, { role_id: auth.roleId, secret_id: auth.secretId });
    if (status !== 200) throw new WeirError('secret-unavailable', `vault ${new URL(base).host}: AppRole login ${reasonOf(status)}`);
    return keep(body);
  }

  async function tokenNow(): Promise<string> {
    if (token === undefined || now() >= token.endsAt) return login();
    if (now() < token.renewAt) return token.value;
    if (!token.renewable) return login();
    const { status, body } = await call(`${base}/v1/auth/token/renew-self`, 'POST', token.value, {});
    // Past its max_ttl or revoked: a new login, at once.
    return status === 200 ? keep(body) : login();
  }

  async function get(version?: number): Promise<any> {
    const url = version === undefined ? dataUrl : `${dataUrl}?version=${version}`;
    let found = await call(url, 'GET', await tokenNow());
    if (found.status === 403 && auth.kind === 'approle') {
      token = undefined;
      found = await call(url, 'GET', await login());
    }
    // An older version that was deleted or destroyed answers 404: there is nothing to overlap with.
    if (version !== undefined && found.status === 404) return undefined;
    if (found.status !== 200) throw new WeirError('secret-unavailable', `vault ${new URL(base).host}: ${options.path} ${reasonOf(found.status)}`);
    return found.body?.data;
  }

  return {
    async read() {
      const current = await get();
      const version = Number(current?.metadata?.version ?? 0);
      const previousUntil = Date.parse(String(current?.metadata?.created_time ?? '')) + options.overlapMs;
      const before = version > 1 && now() < previousUntil ? await get(version - 1) : undefined;
      const out = new Map<string, StoredSecret>();
      for (const [name, value] of Object.entries((current?.data ?? {}) as Record<string, unknown>)) {
        if (typeof value !== 'string') continue;
        const previous: unknown = before?.data?.[name];
        out.set(name, typeof previous === 'string' && previous !== value ? { value, previous, previousUntil } : { value });
      }
      return out;
    },
  };
}
