import { WeirError } from '@weir/errors';
import { callJson, isProtected } from './session.ts';

/** A secret whose value is this JSON stands for an access token (RFC 6749 §4.4 and §6). */
export interface OAuthClient {
  readonly type: 'oauth2';
  readonly tokenUrl: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** Present: the refresh flow; else client credentials. */
  readonly refreshToken?: string;
  readonly scope?: string;
}

/** What is never sent as a credential of its own: it would take the client's secret to a vendor. */
const clientLike = /client_?secret|token_?url/i;

/**
 * The client in a secret's value, whatever space is around it; undefined when it is an ordinary secret. Throws config-invalid, which
 * quotes nothing, of what is meant for a client and is none.
 */
export function parseOAuthClient(name: string, value: string): OAuthClient | undefined {
  const text = value.trim();
  if (!text.startsWith('{')) return undefined;
  let parsed: Partial<OAuthClient> | undefined;
  try {
    parsed = JSON.parse(text) as Partial<OAuthClient>;
  } catch {
    // What it says of the place would quote it.
    parsed = undefined;
  }
  if (parsed?.type !== 'oauth2') {
    if (!clientLike.test(text)) return undefined;
    throw new WeirError('config-invalid', `secret ${name}: it looks like an oauth2 client, and ${parsed === undefined ? 'is no JSON' : 'its type is not "oauth2"'}: {"type":"oauth2","tokenUrl":…,"clientId":…,"clientSecret":…}`);
  }
  for (const field of ['tokenUrl', 'clientId', 'clientSecret'] as const) if (typeof parsed[field] !== 'string' || parsed[field] === '') throw new WeirError('config-invalid', `secret ${name}: an oauth2 client needs ${field}`);
  if (!isProtected(parsed.tokenUrl!)) throw new WeirError('config-invalid', `secret ${name}: tokenUrl must be an https URL`);
  return parsed as OAuthClient;
}

/** Scopes of a text as RFC 6749 §3.3 has it; undefined where it names none. */
export function scopesOf(text: unknown): readonly string[] | undefined {
  const found = typeof text === 'string' ? text.split(/\s+/).filter((scope) => scope !== '') : [];
  return found.length === 0 ? undefined : found;
}

export interface TokenSource {
  /** The token that is valid now; undefined before the first and after the last ran out. */
  token(): string | undefined;
  /** What the last token was given, or, where the answer did not say, was asked for with (RFC 6749 §5.1); undefined before the first, and where nobody said. */
  scopes(): readonly string[] | undefined;
  /** Ms since the epoch at which the token that there is runs out; Infinity when there is none. */
  endsAt(): number;
  /** Ms since the epoch from which `refresh` asks the token server without `force`; Infinity while it is asked. */
  dueAt(): number;
  /** Why the last request failed, without any secret; undefined when it did not. */
  problem(): string | undefined;
  /**
   * Gets a token when there is none, the one there is has used 80 % of its time (a day at most), or `force`. Calls at the same time share
   * one request. After one that failed it does not ask before a backoff (0.5 s to 30 s) is over, and throws what that one did. Throws secret-unavailable.
   */
  refresh(force?: boolean): Promise<void>;
}

/** A server that does not say how long its token lives, or says what cannot be. */
const standardLifeMs = 300_000;
const longestLifeMs = 365 * 86_400_000;
const longestRefreshMs = 86_400_000;
/** So long after a request the next one may begin: a token that lives shorter is not there in between. */
export const leastBetweenMs = 500;
const maxBackoffMs = 30_000;
/** RFC 6749 §2.3.1: both are form-encoded before Basic. */
const form = (text: string): string => new URLSearchParams({ v: text }).toString().slice(2);

interface Token {
  readonly value: string;
  readonly scopes: readonly string[] | undefined;
  readonly startedAt: number;
  readonly refreshAt: number;
  readonly endsAt: number;
}

export interface TokenSourceOptions {
  readonly timeoutMs: number;
  readonly now: () => number;
  /** How the token server is asked. */
  readonly call?: typeof callJson | undefined;
  /** The refresh token to use: what was kept last, by this process or another one; undefined = that of the client. */
  kept(): string | undefined;
  /** Stores a refresh token that the server put in place of the one before. */
  keep(refreshToken: string): void;
}

/**
 * A replaced refresh token is kept before the access token is used, so that a crash does not lose the only valid one.
 * Where it cannot be kept (a full disk), the access token serves all the same, and each `refresh` tries again and rejects.
 */
export function createTokenSource(name: string, client: OAuthClient, options: TokenSourceOptions): TokenSource {
  const { now } = options;
  let current: Token | undefined;
  let failed: { readonly error: unknown; readonly at: number; readonly retryAt: number } | undefined;
  let failures = 0;
  /** Replaced, and not kept yet. */
  let unkept: string | undefined;
  let running: Promise<void> | undefined;
  const what = `oauth2 token for ${name}`;

  function keep(): void {
    if (unkept === undefined) return;
    try {
      options.keep(unkept);
      unkept = undefined;
    } catch (error) {
      throw new WeirError('secret-unavailable', `${what}: the new refresh token cannot be kept (${(error as { code?: string }).code ?? 'unknown'})`, { cause: error });
    }
  }

  async function request(): Promise<Token> {
    const refreshToken = client.refreshToken === undefined ? undefined : unkept ?? options.kept() ?? client.refreshToken;
    const body = new URLSearchParams(refreshToken === undefined ? { grant_type: 'client_credentials' } : { grant_type: 'refresh_token', refresh_token: refreshToken });
    if (client.scope !== undefined) body.set('scope', client.scope);
    const startedAt = now();
    const answer = await (options.call ?? callJson)(client.tokenUrl, {
      method: 'POST', timeoutMs: options.timeoutMs, what, body: body.toString(),
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json', authorization: `Basic ${Buffer.from(`${form(client.clientId)}:${form(client.clientSecret)}`).toString('base64')}` },
    });
    // Only the registered codes of RFC 6749 §5.2 are repeated: a description may quote the credential.
    const code: unknown = answer.body?.error;
    const used = code === 'invalid_grant' && refreshToken !== undefined ? ': its refresh token has run out, was revoked, or was used by somebody else: one that the server replaces serves the processes of one data folder only (docs/decisions/0004); give a client of its own to each host, then weir vault set' : '';
    if (answer.status !== 200) throw new WeirError('secret-unavailable', `${what}: answered ${answer.status}${typeof code === 'string' && /^(invalid_(request|client|grant|scope)|unauthorized_client|unsupported_grant_type)$/.test(code) ? ` (${code})` : ''}${used}`);
    const { access_token: value, expires_in: seconds, refresh_token: next, scope } = answer.body ?? {};
    if (typeof value !== 'string' || value === '') throw new WeirError('secret-unavailable', `${what}: the answer has no access_token`);
    const given = Number(seconds) * 1000;
    const lifeMs = given > 0 ? Math.min(given, longestLifeMs) : standardLifeMs;
    if (typeof next === 'string' && next !== '' && refreshToken !== undefined && next !== refreshToken) unkept = next;
    return { value, scopes: scopesOf(scope) ?? scopesOf(client.scope), startedAt, refreshAt: startedAt + Math.max(leastBetweenMs, Math.min(lifeMs * 0.8, longestRefreshMs)), endsAt: startedAt + lifeMs };
  }

  async function ask(): Promise<void> {
    let fresh: Token;
    try {
      fresh = await request();
    } catch (error) {
      failed = { error, at: now(), retryAt: now() + Math.min(maxBackoffMs, leastBetweenMs * 2 ** Math.min(failures++, 10)) };
      throw error;
    }
    failed = undefined;
    failures = 0;
    try {
      keep();
    } finally {
      current = fresh;
    }
  }

  function dueAt(): number {
    if (running !== undefined) return Number.POSITIVE_INFINITY;
    // A clock that was set back says nothing of what was before.
    if (failed !== undefined) return now() < failed.at ? now() : failed.retryAt;
    return current === undefined || now() < current.startedAt ? now() : current.refreshAt;
  }

  return {
    token: () => (current !== undefined && now() < current.endsAt ? current.value : undefined),
    scopes: () => current?.scopes,
    endsAt: () => current?.endsAt ?? Number.POSITIVE_INFINITY,
    dueAt,
    problem: () => (failed?.error instanceof WeirError ? failed.error.message : undefined),
    async refresh(force = false) {
      if (!force && running === undefined && now() < dueAt()) {
        if (failed !== undefined) throw failed.error;
        return keep();
      }
      running ??= ask().finally(() => { running = undefined; });
      return running;
    },
  };
}
