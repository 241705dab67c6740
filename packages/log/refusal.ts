import { WeirError } from '@weir/errors';
import type { Endpoint } from './driver.ts';
import type { Secured } from './security.ts';

/** Verification errors of OpenSSL as Node names them, and its own for the name. https://nodejs.org/api/tls.html#x509-certificate-error-codes */
const untrusted = new Set([
  'UNABLE_TO_GET_ISSUER_CERT', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN', 'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID', 'CERT_SIGNATURE_FAILURE', 'CERT_CHAIN_TOO_LONG', 'CERT_REVOKED', 'CERT_REJECTED', 'CERT_UNTRUSTED', 'INVALID_CA', 'INVALID_PURPOSE', 'PATH_LENGTH_EXCEEDED', 'HOSTNAME_MISMATCH',
  'ERR_TLS_CERT_ALTNAME_INVALID',
]);
/** Alerts by which the other side refuses our certificate, or that there is none. */
const certificateRefused = /^ERR_SSL_.*ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|ACCESS_DENIED|NO_CERTIFICATE)$/;
/** No common ground: version, cipher, or no TLS on the other side. */
const noCommonGround = /^ERR_SSL_(.*ALERT_(HANDSHAKE_FAILURE|PROTOCOL_VERSION)|.*UNSUPPORTED_PROTOCOL|WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG)$/;

/** An error and what it came of, causes and aggregates included. */
export function chainOf(error: unknown): readonly (Error & { readonly code?: unknown })[] {
  const seen: Error[] = [];
  const queue: unknown[] = [error];
  while (queue.length > 0 && seen.length < 20) {
    const e = queue.shift();
    if (!(e instanceof Error) || seen.includes(e)) continue;
    seen.push(e);
    queue.push(e.cause, ...((e as { errors?: unknown[] }).errors ?? []));
  }
  return seen;
}

/** What an error says at its root, for a message of one line. */
export function reasonOf(error: unknown): string {
  const chain = chainOf(error);
  return [...new Set([chain[0], chain.at(-1)].map((e) => e?.message ?? String(error)))].join(': ');
}

/** The TLS failure in it that asking again does not change: log-tls-failed or log-auth-failed. */
export function tlsRefusal(error: unknown, who: string): WeirError | undefined {
  for (const { code, message } of chainOf(error)) {
    if (typeof code !== 'string') continue;
    if (untrusted.has(code)) return new WeirError('log-tls-failed', `${who} is not trusted: ${message} (${code})`, { cause: error });
    if (certificateRefused.test(code)) return new WeirError('log-auth-failed', `${who} refuses the client certificate, or that there is none (${code})`, { cause: error });
    if (noCommonGround.test(code)) return new WeirError('log-tls-failed', `no TLS connection to ${who}: ${code}`, { cause: error });
  }
  return undefined;
}

/** The broker refused the login. `why` is what it says; the password is not in it. */
export function saslRefusal({ host, port }: Endpoint, { sasl, stale }: Secured, why: string, cause: unknown): WeirError {
  return new WeirError('log-auth-failed', `broker ${host}:${port} refuses SASL ${sasl!.mechanism} of ${JSON.stringify(sasl!.username)}: ${why}${stale === undefined ? '' : ` (an older credential was used: ${stale})`}`, { cause });
}

/** What a broker says against a token: it answers without an error code, by a JSON that a taken one does not have (RFC 7628 §3.2.2). */
export function tokenRefusal(answer: Buffer): Error | undefined {
  if (answer.length === 0) return undefined;
  return new Error(`the token is not taken (${/"status"\s*:\s*"([\w ./-]{1,60})"/.exec(answer.toString('latin1'))?.[1] ?? 'no reason given'})`);
}

/** Nothing but a change of settings, or of the broker's, helps: not asked again. */
export function isRefusal(error: unknown): error is WeirError {
  return error instanceof WeirError && (error.code === 'log-auth-failed' || error.code === 'log-tls-failed');
}
