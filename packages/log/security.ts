import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { createSecureContext, type ConnectionOptions, type SecureContext } from 'node:tls';
import type { Credential, KafkaSecurity, SaslMechanism, TlsFiles } from '@weir/config';
import { WeirError } from '@weir/errors';
import { createTokenSource } from '@weir/vault';

/** What one connection is made with: files and credential as they are now. */
export interface Secured {
  readonly tls: SecureContext | undefined;
  readonly sasl: { readonly mechanism: SaslMechanism; readonly username: string; readonly password: string; /** Of OAUTHBEARER: asked at each login. */ readonly token?: () => Promise<string> } | undefined;
  /** Why the last good content of a file is used instead of what it holds now. */
  readonly stale: string | undefined;
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new WeirError('config-invalid', `cannot read ${file}: ${(error as NodeJS.ErrnoException).code ?? 'unknown'}`);
  }
}

function readPem(file: string, kind: RegExp, what: string): string {
  const text = readText(file);
  // An empty bundle would be taken by Node for none, and every public authority be trusted.
  if (!kind.test(text)) throw new WeirError('config-invalid', `${file}: no ${what} in PEM`);
  return text;
}

/** Reads again at each call; while what is there cannot be used (half of a rotation), what was read before serves and `stale` says why. The first call throws. */
function kept<T>(read: () => T): () => { readonly value: T; readonly stale: string | undefined } {
  let last: { readonly value: T } | undefined;
  return () => {
    try {
      last = { value: read() };
      return { ...last, stale: undefined };
    } catch (error) {
      if (last === undefined) throw error;
      return { ...last, stale: (error as Error).message };
    }
  };
}

/** The TLS context of the files, made anew only when one of them changed. Calling it throws config-invalid when a file is missing or is not what it should be, and was never good. */
export function tlsContext(files: TlsFiles): () => { readonly value: SecureContext; readonly stale: string | undefined } {
  const { caFile, certFile, keyFile, keyPassword } = files;
  let made: { readonly of: string; readonly context: SecureContext } | undefined;
  return kept(() => {
    const certificate = /-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----/;
    const ca = caFile === undefined ? undefined : readPem(caFile, certificate, 'certificate');
    const cert = certFile === undefined ? undefined : readPem(certFile, certificate, 'certificate');
    const key = keyFile === undefined ? undefined : readPem(keyFile, /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----/, 'private key');
    const of = JSON.stringify([ca, cert, key]);
    if (made?.of === of) return made.context;
    try {
      made = { of, context: createSecureContext({ ca, cert, key, passphrase: keyPassword?.reveal() }) };
    } catch (error) {
      throw new WeirError('config-invalid', `${[caFile, certFile, keyFile].filter((f) => f !== undefined).join(', ')}: ${(error as NodeJS.ErrnoException).code ?? 'not usable'}, ${(error as Error).message}`);
    }
    return made.context;
  });
}

/** The credential as it is now; of a file without the line end at its end. */
export function credentialOf(credential: Credential): () => { readonly value: string; readonly stale: string | undefined } {
  return kept(() => {
    if (!('file' in credential)) return credential.reveal();
    const text = readText(credential.file).replace(/\r?\n$/, '');
    if (text === '') throw new WeirError('config-invalid', `${credential.file} is empty`);
    return text;
  });
}

const tokenTimeoutMs = 4000;

/** A token that is valid now, by client credentials; one for all connections until 80 % of its time is over. Rejects with secret-unavailable. */
function tokenSource({ username, password, tokens }: NonNullable<KafkaSecurity['sasl']>): () => Promise<string> {
  const secret = credentialOf(password);
  let made: { readonly of: string; readonly source: ReturnType<typeof createTokenSource> } | undefined;
  return async () => {
    const clientSecret = secret().value;
    if (made?.of !== clientSecret) made = { of: clientSecret, source: createTokenSource('the brokers', { type: 'oauth2', tokenUrl: tokens!.url, clientId: username, clientSecret, scope: tokens!.scope }, { timeoutMs: tokenTimeoutMs, now: Date.now, kept: () => undefined, keep: () => undefined }) };
    await made.source.refresh();
    return made.source.token() ?? '';
  };
}

/** Called for each connection. The first call is made here: throws config-invalid. Undefined = plaintext, and nobody logs in. */
export function createSecurity(security: KafkaSecurity | undefined): (() => Secured) | undefined {
  if (security === undefined || (security.tls === undefined && security.sasl === undefined)) return undefined;
  const tls = security.tls === undefined ? undefined : tlsContext(security.tls);
  const sasl = security.sasl === undefined ? undefined : { ...security.sasl, password: credentialOf(security.sasl.password) };
  const token = security.sasl?.tokens === undefined ? undefined : tokenSource(security.sasl);
  const now = (): Secured => {
    const [context, password] = [tls?.(), sasl?.password()];
    return { tls: context?.value, sasl: sasl === undefined ? undefined : { mechanism: sasl.mechanism, username: sasl.username, password: password!.value, token }, stale: context?.stale ?? password?.stale };
  };
  now();
  return now;
}

/** Options of a TLS connection to this host: its certificate is checked against it, whatever NODE_TLS_REJECT_UNAUTHORIZED says. */
export function tlsOptions(context: SecureContext, host: string): ConnectionOptions {
  return { secureContext: context, rejectUnauthorized: true, ...(isIP(host) === 0 ? { servername: host } : {}) };
}
