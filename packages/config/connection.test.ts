import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { kafkaSecurity, readConfig, registrySecurity, securityOptions } from './index.ts';

const kafka = (env: Record<string, string>) => kafkaSecurity(readConfig(securityOptions, env));
const registry = (env: Record<string, string>, url = 'https://registry.example') => registrySecurity(readConfig(securityOptions, env), url);
const sasl = { WEIR_KAFKA_SECURITY_PROTOCOL: 'SASL_SSL', WEIR_KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512', WEIR_KAFKA_SASL_USERNAME: 'weir', WEIR_KAFKA_SASL_PASSWORD: 'hunter2' };

test('nothing set is plaintext; a complete login is taken, and neither it nor the settings print the password', () => {
  expect(kafka({})).toEqual({ tls: undefined });
  const security = kafka(sasl);
  expect(security).toMatchObject({ tls: {}, sasl: { mechanism: 'SCRAM-SHA-512', username: 'weir' } });
  for (const thing of [security, readConfig(securityOptions, sasl)]) expect(inspect(thing, { depth: 9, showHidden: true }) + JSON.stringify(thing)).not.toContain('hunter2');
});

test.each([
  ['TLS files without TLS: it would speak plaintext unseen', { WEIR_KAFKA_SSL_CA_FILE: 'ca.pem' }, 'WEIR_KAFKA_SSL_CA_FILE'],
  ['a login without SASL', { WEIR_KAFKA_SECURITY_PROTOCOL: 'SSL', WEIR_KAFKA_SASL_PASSWORD: 'hunter2' }, 'WEIR_KAFKA_SASL_PASSWORD'],
  ['SASL without a password', { ...sasl, WEIR_KAFKA_SASL_PASSWORD: '' }, 'WEIR_KAFKA_SASL_PASSWORD_FILE'],
  ['two passwords', { ...sasl, WEIR_KAFKA_SASL_PASSWORD_FILE: 'p' }, 'set one of them'],
  ['a token server without OAUTHBEARER', { ...sasl, WEIR_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: 'https://id.example/token' }, 'WEIR_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL'],
  ['OAUTHBEARER without a token server', { ...sasl, WEIR_KAFKA_SASL_MECHANISM: 'OAUTHBEARER' }, 'WEIR_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL'],
  ['a token server in plaintext', { ...sasl, WEIR_KAFKA_SASL_MECHANISM: 'OAUTHBEARER', WEIR_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: 'http://id.example/token' }, 'https URL'],
  ['a certificate without its key', { WEIR_KAFKA_SECURITY_PROTOCOL: 'SSL', WEIR_KAFKA_SSL_CERT_FILE: 'c.pem' }, 'WEIR_KAFKA_SSL_KEY_FILE'],
])('%s is refused by name, without the password', (_what, env, message) => {
  const attempt = () => kafka(env);
  expect(attempt).toThrow(expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining(message) }));
  expect(attempt).toThrow(expect.objectContaining({ message: expect.not.stringContaining('hunter2') }));
});

test.each([
  ['a login in the address, which messages print', {}, 'https://weir:hunter2@registry.example', 'WEIR_SCHEMA_REGISTRY_USERNAME'],
  ['an authority for an address without TLS', { WEIR_SCHEMA_REGISTRY_CA_FILE: 'ca.pem' }, 'http://registry.example', 'WEIR_SCHEMA_REGISTRY_CA_FILE'],
  ['a user without a password', { WEIR_SCHEMA_REGISTRY_USERNAME: 'weir' }, 'https://registry.example', 'WEIR_SCHEMA_REGISTRY_PASSWORD'],
  ['a user beside a token', { WEIR_SCHEMA_REGISTRY_USERNAME: 'weir', WEIR_SCHEMA_REGISTRY_TOKEN: 'hunter2' }, 'https://registry.example', 'WEIR_SCHEMA_REGISTRY_USERNAME'],
  ['no address', {}, 'registry.example:8081', 'SCHEMA_REGISTRY_URL'],
])('of the registry, %s is refused', (_what, env, url, message) => {
  const attempt = () => registry(env, url);
  expect(attempt).toThrow(expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining(message) }));
  expect(attempt).toThrow(expect.objectContaining({ message: expect.not.stringContaining('hunter2') }));
});

test('a login of the registry is by user or by token', () => {
  expect(registry({ WEIR_SCHEMA_REGISTRY_USERNAME: 'weir', WEIR_SCHEMA_REGISTRY_PASSWORD_FILE: 'p' })).toMatchObject({ login: { kind: 'basic', username: 'weir', password: { file: 'p' } } });
  expect(registry({ WEIR_SCHEMA_REGISTRY_TOKEN_FILE: 't' })).toMatchObject({ login: { kind: 'bearer', token: { file: 't' } } });
});
