import type { HttpFailure } from '@weir/adapter';

export const forbiddenCode = 'WEIR_FORBIDDEN_ADDRESS';

/** Codes of OpenSSL's certificate verification that hold no `CERT` (tls module of Node, "X509 certificate error codes"). */
const tlsCodes: ReadonlySet<string> = new Set(['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY', 'INVALID_CA', 'INVALID_PURPOSE', 'HOSTNAME_MISMATCH', 'PATH_LENGTH_EXCEEDED', 'EPROTO']);

/** What an error of a connection means. `sent` is the caller's knowledge and is not changed: a broken TLS record may come after a whole request. */
export function failureOf(error: NodeJS.ErrnoException, sent: boolean): HttpFailure {
  const code = error.code ?? '';
  const detail = code || error.message.slice(0, 200);
  if (code === forbiddenCode) return { failure: 'forbidden-address', sent, detail: 'address is not public' };
  // A request that undici refuses as it is will be refused again.
  if (code === 'UND_ERR_INVALID_ARG' || code === 'UND_ERR_NOT_SUPPORTED') return { failure: 'unsendable', sent, detail: error.message.slice(0, 200) };
  if (code.startsWith('ERR_TLS_') || code.startsWith('ERR_SSL_') || /(^|_)(CERT|CRL)(_|$)/.test(code) || tlsCodes.has(code)) return { failure: 'tls', sent, detail };
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT') return { failure: 'timeout', sent, detail };
  if (code === 'UND_ERR_HEADERS_OVERFLOW') return { failure: 'too-large', sent, detail };
  return { failure: sent ? 'reset' : 'connect', sent, detail };
}
