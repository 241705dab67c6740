import { expect, test } from 'vitest';
import { failureOf } from './failure.ts';

const failure = (code: string, sent: boolean) => failureOf(Object.assign(new Error('x'), { code }), sent);

test.each(['CERT_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'ERR_TLS_CERT_ALTNAME_INVALID', 'HOSTNAME_MISMATCH', 'CRL_HAS_EXPIRED', 'EPROTO', 'ERR_SSL_WRONG_VERSION_NUMBER'])('%s is a TLS failure', (code) => {
  expect(failure(code, false)).toEqual({ failure: 'tls', sent: false, detail: code });
});

test('a TLS error after the request was written does not claim that nothing was sent', () => {
  expect(failure('ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC', true)).toMatchObject({ failure: 'tls', sent: true });
});

test('what broke before the write is a connect failure, after it a reset; time-outs and long headers are told apart', () => {
  expect(failure('ECONNREFUSED', false)).toMatchObject({ failure: 'connect', sent: false });
  expect(failure('ECONNRESET', true)).toMatchObject({ failure: 'reset', sent: true });
  expect(failure('UND_ERR_CONNECT_TIMEOUT', false)).toMatchObject({ failure: 'timeout', sent: false });
  expect(failure('UND_ERR_HEADERS_OVERFLOW', true)).toMatchObject({ failure: 'too-large', sent: true });
});
