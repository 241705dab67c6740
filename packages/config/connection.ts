import { WeirError } from '@weir/errors';
import { defineConfig, type ConfigOf } from './config.ts';
import type { Secret } from './secret.ts';

/** How to speak to the brokers and to the registry. The names are Kafka's own: security.protocol, sasl.mechanism, ssl.*. */
export const securityOptions = defineConfig({
  kafkaProtocol: { env: 'WEIR_KAFKA_SECURITY_PROTOCOL', type: 'enum', values: ['PLAINTEXT', 'SSL', 'SASL_PLAINTEXT', 'SASL_SSL'], default: 'PLAINTEXT', doc: 'How the brokers are spoken to; the name in their certificate is always checked.' },
  kafkaMechanism: { env: 'WEIR_KAFKA_SASL_MECHANISM', type: 'enum', values: ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512', 'OAUTHBEARER'], optional: true, doc: 'SASL mechanism; needed with SASL_SSL and SASL_PLAINTEXT.' },
  kafkaUsername: { env: 'WEIR_KAFKA_SASL_USERNAME', type: 'string', optional: true, doc: 'SASL user; with OAUTHBEARER the client id.' },
  kafkaPassword: { env: 'WEIR_KAFKA_SASL_PASSWORD', type: 'secret', optional: true, doc: 'Its password; with OAUTHBEARER the client secret.' },
  kafkaPasswordFile: { env: 'WEIR_KAFKA_SASL_PASSWORD_FILE', type: 'string', optional: true, doc: 'File with the password instead, read again for each connection; a line end at its end is not part of it.' },
  kafkaTokenUrl: { env: 'WEIR_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL', type: 'string', optional: true, doc: 'Where OAUTHBEARER gets its tokens by client credentials (RFC 6749), https://…; its certificate is checked against the authorities of Node.' },
  kafkaScope: { env: 'WEIR_KAFKA_SASL_OAUTHBEARER_SCOPE', type: 'string', optional: true, doc: 'Scope that is asked for there.' },
  kafkaCaFile: { env: 'WEIR_KAFKA_SSL_CA_FILE', type: 'string', optional: true, doc: 'PEM of the authorities that may sign a broker\'s certificate; default: those of Node. This and the next two are read again for each connection.' },
  kafkaCertFile: { env: 'WEIR_KAFKA_SSL_CERT_FILE', type: 'string', optional: true, doc: 'PEM of the client certificate, with its chain, for mutual TLS.' },
  kafkaKeyFile: { env: 'WEIR_KAFKA_SSL_KEY_FILE', type: 'string', optional: true, doc: 'PEM of its private key.' },
  kafkaKeyPassword: { env: 'WEIR_KAFKA_SSL_KEY_PASSWORD', type: 'secret', optional: true, doc: 'Password of the private key, if it is encrypted.' },
  registryUsername: { env: 'WEIR_SCHEMA_REGISTRY_USERNAME', type: 'string', optional: true, doc: 'User of the registry (basic authentication).' },
  registryPassword: { env: 'WEIR_SCHEMA_REGISTRY_PASSWORD', type: 'secret', optional: true, doc: 'Its password.' },
  registryPasswordFile: { env: 'WEIR_SCHEMA_REGISTRY_PASSWORD_FILE', type: 'string', optional: true, doc: 'File with the password instead, read again for each request.' },
  registryToken: { env: 'WEIR_SCHEMA_REGISTRY_TOKEN', type: 'secret', optional: true, doc: 'Bearer token of the registry, instead of a user.' },
  registryTokenFile: { env: 'WEIR_SCHEMA_REGISTRY_TOKEN_FILE', type: 'string', optional: true, doc: 'File with the token instead, read again for each request.' },
  registryCaFile: { env: 'WEIR_SCHEMA_REGISTRY_CA_FILE', type: 'string', optional: true, doc: 'PEM of the authorities that may sign the registry\'s certificate; default: those of Node.' },
  registryCertFile: { env: 'WEIR_SCHEMA_REGISTRY_CERT_FILE', type: 'string', optional: true, doc: 'PEM of the client certificate for the registry.' },
  registryKeyFile: { env: 'WEIR_SCHEMA_REGISTRY_KEY_FILE', type: 'string', optional: true, doc: 'PEM of its private key.' },
});

/** A secret, or the file that has it. */
export type Credential = Secret | { readonly file: string };

/** PEM files; without `caFile` the authorities of Node are trusted. `certFile` and `keyFile` come together. */
export interface TlsFiles {
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly keyPassword?: Secret;
}

export type SaslMechanism = 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512' | 'OAUTHBEARER';

/** Neither = plaintext, and nobody logs in. */
export interface KafkaSecurity {
  readonly tls?: TlsFiles;
  readonly sasl?: { readonly mechanism: SaslMechanism; readonly username: string; readonly password: Credential; /** Of OAUTHBEARER and only of it. */ readonly tokens?: { readonly url: string; readonly scope?: string } };
}

export interface RegistrySecurity {
  readonly tls?: TlsFiles;
  readonly login?: { readonly kind: 'basic'; readonly username: string; readonly password: Credential } | { readonly kind: 'bearer'; readonly token: Credential };
}

type SecurityConfig = ConfigOf<typeof securityOptions>;

const env = (name: keyof SecurityConfig): string => securityOptions[name].env;
const bad = (message: string): WeirError => new WeirError('config-invalid', message);

/** What is set although nothing would use it: a login or a certificate that is silently left out is worse than no start. */
function refuseUnused(config: SecurityConfig, names: readonly (keyof SecurityConfig)[], why: string): void {
  const set = names.filter((name) => config[name] !== undefined).map(env);
  if (set.length > 0) throw bad(`${set.join(', ')}: set, but ${why}`);
}

function credential(config: SecurityConfig, value: 'kafkaPassword' | 'registryPassword' | 'registryToken', file: 'kafkaPasswordFile' | 'registryPasswordFile' | 'registryTokenFile'): Credential | undefined {
  const [secret, path] = [config[value], config[file]];
  if (secret !== undefined && path !== undefined) throw bad(`${env(value)} and ${env(file)}: set one of them`);
  return secret ?? (path === undefined ? undefined : { file: path });
}

function tlsFiles(config: SecurityConfig, of: 'kafka' | 'registry'): TlsFiles {
  const [certFile, keyFile] = [config[`${of}CertFile`], config[`${of}KeyFile`]];
  if ((certFile === undefined) !== (keyFile === undefined)) throw bad(`${env(`${of}CertFile`)} and ${env(`${of}KeyFile`)}: one needs the other`);
  return { caFile: config[`${of}CaFile`], certFile, keyFile, keyPassword: of === 'kafka' ? config.kafkaKeyPassword : undefined };
}

/** How to speak to the brokers. Throws config-invalid when a setting is missing, contradicts another one, or would be left out. */
export function kafkaSecurity(config: SecurityConfig): KafkaSecurity {
  const { kafkaProtocol: protocol, kafkaMechanism: mechanism, kafkaUsername: username } = config;
  const [withTls, withSasl] = [protocol.endsWith('SSL'), protocol.startsWith('SASL_')];
  const [tlsWays, saslWays] = ['SSL or SASL_SSL', 'SASL_SSL or SASL_PLAINTEXT'];
  if (!withTls) refuseUnused(config, ['kafkaCaFile', 'kafkaCertFile', 'kafkaKeyFile', 'kafkaKeyPassword'], `${env('kafkaProtocol')} is ${protocol}: it takes ${tlsWays}`);
  if (!withSasl) refuseUnused(config, ['kafkaMechanism', 'kafkaUsername', 'kafkaPassword', 'kafkaPasswordFile', 'kafkaTokenUrl', 'kafkaScope'], `${env('kafkaProtocol')} is ${protocol}: it takes ${saslWays}`);
  const tls = withTls ? tlsFiles(config, 'kafka') : undefined;
  if (!withSasl) return { tls };
  const password = credential(config, 'kafkaPassword', 'kafkaPasswordFile');
  if (mechanism === undefined || username === undefined || password === undefined) throw bad(`${protocol} needs ${env('kafkaMechanism')}, ${env('kafkaUsername')}, and ${env('kafkaPassword')} or ${env('kafkaPasswordFile')}`);
  const url = config.kafkaTokenUrl;
  if (mechanism !== 'OAUTHBEARER') {
    refuseUnused(config, ['kafkaTokenUrl', 'kafkaScope'], `${env('kafkaMechanism')} is ${mechanism}`);
    return { tls, sasl: { mechanism, username, password } };
  }
  const parsed = url === undefined ? null : URL.parse(url);
  const local = parsed?.protocol === 'http:' && (parsed.hostname === '127.0.0.1' || parsed.hostname === 'localhost');
  if (parsed === null || (parsed.protocol !== 'https:' && !local) || parsed.username !== '' || parsed.password !== '') throw bad(`OAUTHBEARER needs ${env('kafkaTokenUrl')}: an https URL without a login in it`);
  return { tls, sasl: { mechanism, username, password, tokens: { url: url!, scope: config.kafkaScope } } };
}

/** How to speak to the registry at this address. Throws as kafkaSecurity does. */
export function registrySecurity(config: SecurityConfig, registryUrl: string): RegistrySecurity {
  const url = URL.parse(registryUrl);
  if (url === null || !['http:', 'https:'].includes(url.protocol)) throw bad('SCHEMA_REGISTRY_URL: expected http://… or https://…');
  if (url.username !== '' || url.password !== '') throw bad(`SCHEMA_REGISTRY_URL: a login in the address would be printed with it; use ${env('registryUsername')} and ${env('registryPassword')}`);
  if (url.protocol === 'http:') refuseUnused(config, ['registryCaFile', 'registryCertFile', 'registryKeyFile'], 'SCHEMA_REGISTRY_URL is not https://…');
  const tls = url.protocol === 'https:' ? tlsFiles(config, 'registry') : undefined;
  const token = credential(config, 'registryToken', 'registryTokenFile');
  const password = credential(config, 'registryPassword', 'registryPasswordFile');
  const username = config.registryUsername;
  if (token !== undefined) {
    refuseUnused(config, ['registryUsername', 'registryPassword', 'registryPasswordFile'], 'a bearer token is set too');
    return { tls, login: { kind: 'bearer', token } };
  }
  if ((username === undefined) !== (password === undefined)) throw bad(`${env('registryUsername')} needs ${env('registryPassword')} or ${env('registryPasswordFile')}, and these need it`);
  return username === undefined || password === undefined ? { tls } : { tls, login: { kind: 'basic', username, password } };
}

/** The part of createLog's options that comes from the environment. */
export function kafkaConnection<D>(config: SecurityConfig & { readonly brokers: readonly string[]; readonly kafkaClient: D }): { readonly brokers: readonly string[]; readonly driver: D; readonly security: KafkaSecurity } {
  return { brokers: config.brokers, driver: config.kafkaClient, security: kafkaSecurity(config) };
}

/** The part of createSerde's options that comes from the environment. */
export function registryConnection(config: SecurityConfig & { readonly registryUrl: string }): { readonly registryUrl: string; readonly security: RegistrySecurity } {
  return { registryUrl: config.registryUrl, security: registrySecurity(config, config.registryUrl) };
}
